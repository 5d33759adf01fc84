"""Tests of agent/sb3/predictor.py: SB3's `predict` gives what the network says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.sb3.predictor import Predictor


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "float32"), ((4, 10, 10), "uint8"), ((4, 84, 84), "uint8")])
def test_discrete_actions_are_the_largest_outputs(shape: tuple[int, ...], dtype: str) -> None:
    """predict returns the argmax of the network on the raw observation, for one state and for several."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), 5))
    observation = np.random.default_rng(0).integers(0, 255, (6, *shape)).astype(dtype)

    class Raw(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x.float())

    predictor = Predictor(Raw(), shape, dtype, 5)
    wanted = Raw()(torch.from_numpy(observation)).argmax(dim=1).numpy()
    np.testing.assert_array_equal(predictor.predict(observation, deterministic=True)[0], wanted)
    assert predictor.predict(observation[0], deterministic=True)[0] == wanted[0]


def test_continuous_outputs_are_limited_to_the_range() -> None:
    """Continuous actions are the outputs, clipped as SB3 clips them."""
    predictor = Predictor(torch.nn.Identity(), (2,), "float32", 0, (-1.0, -1.0), (1.0, 1.0))
    action, _ = predictor.predict(np.float32([0.25, 3.0]), deterministic=True)
    np.testing.assert_array_equal(action, np.float32([0.25, 1.0]))
