"""TD targets and losses against slow loops in float64, written from the papers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.losses import q_learning, td_target
from agent.types import Batch

STATES, ACTIONS, ROWS = 9, 4, 40
DISCOUNT = 0.9


class Window(NamedTuple):
    """What really happened between `s_tm1` and `s_t`."""

    s_tm1: int
    action: int
    rewards: list[float]  # up to three
    terminated: bool  # a truncated window is only shorter
    s_t: int
    weight: float


def windows(rng: np.random.Generator) -> list[Window]:
    """One to three rewards each; some windows terminate, the short ones that do not were truncated."""
    return [
        Window(
            s_tm1=int(rng.integers(STATES)),
            action=int(rng.integers(ACTIONS)),
            rewards=[float(np.float32(r)) for r in rng.normal(size=rng.integers(1, 4))],
            terminated=bool(rng.random() < 0.3),
            s_t=int(rng.integers(STATES)),
            weight=float(np.float32(rng.random())),
        )
        for _ in range(ROWS)
    ]


def as_batch(rows: list[Window]) -> Batch:
    """The same windows as replay hands them out."""
    return Batch(
        s_tm1=torch.tensor([row.s_tm1 for row in rows]),
        a_tm1=torch.tensor([row.action for row in rows]),
        r_t=torch.tensor([sum(DISCOUNT**j * r for j, r in enumerate(row.rewards)) for row in rows]),
        discount_t=torch.tensor([0.0 if row.terminated else DISCOUNT ** len(row.rewards) for row in rows]),
        s_t=torch.tensor([row.s_t for row in rows]),
        weight=torch.tensor([row.weight for row in rows]),
        index=torch.arange(len(rows)),
    )


def slow(
    online: np.ndarray, target: np.ndarray, rows: list[Window], double: bool, kind: str
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, TD errors and gradient by `online`, [STATES, ACTIONS], one window after the other."""
    loss, errors, gradient = 0.0, [], np.zeros_like(online)
    for row in rows:
        wanted = sum(DISCOUNT**j * r for j, r in enumerate(row.rewards))
        if not row.terminated:
            chooser = online if double else target
            best = max(range(ACTIONS), key=lambda action: chooser[row.s_t, action])
            wanted += DISCOUNT ** len(row.rewards) * target[row.s_t, best]
        error = wanted - online[row.s_tm1, row.action]
        if kind == "mse":
            each, slope = error**2, 2 * error
        elif abs(error) < 1:
            each, slope = error**2 / 2, error
        else:
            each, slope = abs(error) - 0.5, float(np.sign(error))
        loss += row.weight * each / len(rows)
        gradient[row.s_tm1, row.action] -= row.weight * slope / len(rows)
        errors.append(error)
    return loss, np.array(errors), gradient


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["huber", "mse"]))
def test_equals_a_slow_loop(seed: int, double: bool, kind: str) -> None:
    """Loss, TD errors and gradient equal those of a loop over the windows, and nothing flows into the bootstrap."""
    rng = np.random.default_rng(seed)
    rows = windows(rng)
    online, target = (torch.from_numpy(2 * rng.normal(size=(STATES, ACTIONS))).float() for _ in range(2))
    online.requires_grad_()
    target.requires_grad_()
    batch = as_batch(rows)
    result = q_learning(lambda s: online[s], lambda s: target[s], batch, double=double, kind=kind)
    result.loss.backward()
    tables = online.detach().double().numpy(), target.detach().double().numpy()
    loss, errors, gradient = slow(*tables, rows, double, kind)
    np.testing.assert_allclose(result.loss.item(), loss, rtol=1e-5)
    np.testing.assert_allclose(result.td_error.numpy(), errors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(online.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
    assert target.grad is None
    assert torch.equal(result.q_tm1, online.detach()[batch.s_tm1])
    assert not result.td_error.requires_grad and not result.q_tm1.requires_grad


def test_an_unknown_loss_is_refused() -> None:
    """A misspelled loss is not taken for another one."""
    values = torch.zeros(STATES, ACTIONS)
    batch = as_batch(windows(np.random.default_rng(0)))
    with pytest.raises(KeyError, match="hubber"):
        q_learning(lambda s: values[s], lambda s: values[s], batch, double=True, kind="hubber")


def test_the_selector_only_selects() -> None:
    """The value of the chosen action is read from `q_t`, whatever the selector thinks it is worth."""
    q_t = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    selector_q_t = torch.tensor([[0.0, 50.0, 40.0], [9.0, -1.0, 8.0]])
    target_t = td_target(torch.tensor([10.0, 20.0]), torch.tensor([0.5, 0.0]), q_t, selector_q_t)
    assert target_t.tolist() == [10.0 + 0.5 * 2.0, 20.0]


@pytest.mark.parametrize("double", [False, True])
def test_networks_are_asked_no_more_than_needed(double: bool) -> None:
    """The target network sees s_t once; the online network sees s_tm1, and s_t only to choose in double Q-learning."""
    batch = as_batch(windows(np.random.default_rng(0)))
    values = torch.randn(STATES, ACTIONS, generator=torch.Generator().manual_seed(0))
    asked: list[tuple[str, torch.Tensor]] = []

    def network(name: str, s: torch.Tensor) -> torch.Tensor:
        asked.append((name, s))
        return values[s]

    q_learning(
        lambda s: network("online", s), lambda s: network("target", s), batch, double=double, kind="huber"
    )
    expected = [("target", batch.s_t), ("online", batch.s_t), ("online", batch.s_tm1)]
    if not double:
        del expected[1]
    assert [name for name, _ in asked] == [name for name, _ in expected]
    assert all(s is other for (_, s), (_, other) in zip(asked, expected, strict=True))
