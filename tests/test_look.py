"""Tests of agent/viewer/look.py: saliency only when wanted, and not too often."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from agent.viewer import look
from agent.viewer.look import PER_S, Looker
from agent.viewer.policies import Facts

OBSERVATION = np.random.default_rng(0).integers(0, 2, (1, 4, 10, 10)).astype(np.float32)


class Corner:
    """Values that hang on the upper left cell of the first channel alone."""

    def __init__(self, *, with_network: bool = True) -> None:
        self.facts, self.asked = Facts("corner", "values"), 0
        self.network = self._network if with_network else None

    def _network(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return torch.stack([x[:, 0, 0, 0], 2 * x[:, 0, 0, 0]], dim=1)

    def scores(self, observations: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.stack([observations[:, 0, 0, 0], 2 * observations[:, 0, 0, 0]], axis=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a test sets."""
    now = [100.0]
    monkeypatch.setattr(look.time, "monotonic", lambda: now[0])
    return now


def looked(looker: Looker, policy: Corner, observation: np.ndarray = OBSERVATION) -> np.ndarray | None:
    """The saliency as numbers."""
    image = looker.look(policy, observation, np.zeros(2), 1)
    return np.asarray(Image.open(io.BytesIO(image))) if image else None


@pytest.mark.parametrize("how", ["gradient", "perturbation"])
def test_it_shows_where_the_value_comes_from(how: str) -> None:
    """White at the one cell that counts, black elsewhere."""
    looker, policy = Looker(), Corner()
    looker.how = how
    observation = OBSERVATION.copy()
    observation[0, 0, 0, 0] = 1
    found = looked(looker, policy, observation)
    assert found[0, 0] == 255 and found[1:, 1:].max() == 0


def test_it_costs_nothing_unless_it_is_wanted() -> None:
    """Nobody is asked, and what was shown before is gone."""
    looker, policy = Looker(), Corner()
    assert looked(looker, policy) is None
    looker.how = "gradient"
    assert looked(looker, policy) is not None
    looker.how = "none"
    assert looked(looker, policy) is None
    assert policy.asked == 1


@pytest.mark.parametrize("how", ["gradient", "perturbation"])
def test_it_is_renewed_so_often_and_no_oftener(how: str, clock: list[float]) -> None:
    """In between the last one is shown; asking for the other kind is answered at once."""
    looker, policy = Looker(), Corner()
    looker.how = how
    for _ in range(100):
        assert looked(looker, policy) is not None
        clock[0] += 0.05  # five seconds in all
    renewals = policy.asked if how == "gradient" else policy.asked / 2
    assert 0.7 * 5 * PER_S[how] <= renewals <= 5 * PER_S[how] + 1
    asked = policy.asked
    looker.how = "gradient" if how == "perturbation" else "perturbation"
    looked(looker, policy)
    assert policy.asked > asked


def test_a_policy_without_gradients_is_perturbed() -> None:
    """An artefact has no network to differentiate."""
    looker, policy = Looker(), Corner(with_network=False)
    looker.how = "gradient"
    assert looked(looker, policy) is not None and policy.asked == 2


def test_what_is_no_picture_has_no_saliency() -> None:
    """Four numbers of CartPole have no place to be shown at."""
    looker = Looker()
    looker.how = "gradient"
    assert looker.look(Corner(), np.zeros((1, 4), np.float32), np.zeros(2), 0) == b""
    assert looker.look(None, OBSERVATION, None, None) == b""
