"""Seeds of games never collide, and no unknown action gets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.fakes import CountingGame
from envs.spec import checked_actions, game_seeds

DISCRETE = CountingGame(1, action_names=("a", "b", "c")).spec
CONTINUOUS = replace(DISCRETE, num_actions=0, action_names=(), action_low=(-1.0, -1.0), action_high=(1.0, 1.0))


def test_game_seeds_are_distinct_within_and_between_vectors() -> None:
    """Neighbouring seeds share no game, and every seed fits an emulator's 31 bits, also past the wrap."""
    seeds = [seed for run in range(200) for seed in game_seeds(run, 64)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(game_seeds(2**63 - 1, 5)) == 5


def test_fitting_actions_pass_unchanged() -> None:
    """Whole numbers of any width become i64, continuous actions f32."""
    for dtype in (np.int64, np.int32, np.uint8):
        action = checked_actions(DISCRETE, 3, np.array([0, 1, 2], dtype=dtype))
        assert action.dtype == np.int64 and action.tolist() == [0, 1, 2]
    action = checked_actions(CONTINUOUS, 1, np.array([[0.5, -7.0]]))
    assert action.dtype == np.float32 and action.tolist() == [[0.5, -7.0]]


@pytest.mark.parametrize("action", [[0, 1], [[0, 1, 2]], [0.0, 1.0, 2.0], [0, 1, 3], [-1, 0, 0], [True, False, True]])
def test_unfitting_discrete_actions_are_refused(action: list) -> None:
    """Wrong shape, type or value: a ValueError that names the game."""
    with pytest.raises(ValueError, match="fake/counting: actions"):
        checked_actions(DISCRETE, 3, np.array(action))


@pytest.mark.parametrize("action", [[0.0, 0.0], [[0.0], [0.0]], [[0.0, 0.0, 0.0]]])
def test_unfitting_continuous_actions_are_refused(action: list) -> None:
    """Wrong shape: a ValueError that names the game."""
    with pytest.raises(ValueError, match="fake/counting: actions"):
        checked_actions(CONTINUOUS, 1, np.array(action))
