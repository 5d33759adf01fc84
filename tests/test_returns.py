"""N-step returns against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.replay.returns import n_step_return


def slow(
    reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, discount: float
) -> tuple[float, float, int]:
    """Walk the window until it or the episode ends."""
    total = 0.0
    for k, r in enumerate(reward):
        total += discount**k * r
        if terminated[k]:
            return total, 0.0, k + 1
        if truncated[k]:
            return total, discount ** (k + 1), k + 1
    return total, discount ** len(reward), len(reward)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.floats(0.0, 1.0), st.sampled_from([0.0, 0.2, 0.6]))
def test_equals_a_slow_loop(seed: int, n: int, discount: float, p_end: float) -> None:
    """Return, bootstrap discount and length equal those of a loop over each window."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(33, n)).astype(np.float32)
    terminated, truncated = rng.random((2, 33, n)) < p_end
    r_t, discount_t, k = n_step_return(*map(torch.from_numpy, (reward, terminated, truncated)), discount)
    expected = [slow(*window, discount) for window in zip(reward, terminated, truncated, strict=True)]
    torch.testing.assert_close(r_t, torch.tensor([e[0] for e in expected]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(discount_t, torch.tensor([e[1] for e in expected]), rtol=1e-5, atol=1e-6)
    assert k.tolist() == [e[2] for e in expected]
    assert (r_t.dtype, discount_t.dtype, k.dtype) == (torch.float32, torch.float32, torch.int64)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9, 0.99, 0.997, 0.9995, 1.0])
def test_powers_are_exact(discount: float) -> None:
    """A window of zeros has the bootstrap discount^k, rounded once, for every k and whatever was asked before."""
    no = torch.zeros(1, 12, dtype=torch.bool)
    for k in range(1, 13):
        discount_t = n_step_return(torch.zeros(1, k), no[:, :k], no[:, :k], discount)[1]
        assert torch.equal(discount_t, torch.tensor([discount**k]))


def test_one_step_is_the_reward_itself() -> None:
    """With n = 1 the return is the reward bit for bit and only a termination takes the bootstrap away."""
    reward = torch.tensor([[0.1], [-3.7], [1e8], [2.0]])
    terminated = torch.tensor([[False], [True], [False], [True]])
    truncated = torch.tensor([[False], [False], [True], [True]])
    r_t, discount_t, k = n_step_return(reward, terminated, truncated, 0.99)
    assert torch.equal(r_t, reward[:, 0])
    assert torch.equal(discount_t, torch.tensor([0.99, 0.0, 0.99, 0.0]))
    assert k.tolist() == [1, 1, 1, 1]
