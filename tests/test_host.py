"""One game as a vector keeps it: what is checked and what is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.fakes import CountingGame
from envs.host import CountedGame, Fallen, number, truth

SPEC = CountingGame(1).spec


class Answers:
    """Gives the answers that it was given."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def reset(self, *, seed: int | None = None) -> Any:
        """The next, as a reset's."""
        return self.answers.pop(0), {}

    def step(self, action: Any) -> Any:
        """The next."""
        return self.answers.pop(0)


def test_score_and_length_are_counted() -> None:
    """Raw rewards add up from reset to end; the ignored action after an end counts for nothing; a reset forgets."""
    seen = np.zeros(3, np.float32)
    game = CountedGame(
        SPEC,
        Answers(
            seen,
            (seen, 1.5, False, False, {}),
            (seen, -4, np.bool_(True), False, {}),
            (seen, 0.0, False, False, {}),
            (seen, np.float32(0.25), 0, 1, {}),
            (seen, 0.0, False, False, {}),
            (seen, 9.0, False, False, {}),
            seen,
            (seen, np.array([2.0]), False, True, {}),
        ),
    )
    rows = [game.reset(0), *(game.step(0) for _ in range(6)), game.reset(0), game.step(0)]
    assert [row.first for row in rows] == [True, False, False, True, False, True, False, True, False]
    told = [row.episode for row in rows]
    assert told == [None, None, (-2.5, 2), None, (0.25, 1), None, None, None, (2.0, 1)]
    assert game.last is rows[-1] and [type(row.reward) for row in rows] == [float] * 9
    assert rows[4].terminated is False and rows[4].truncated is True


def test_rewards_that_are_not_finite_add_nothing_to_a_score() -> None:
    """They are passed on as they are, and the episode's score is the sum of the others."""
    seen = np.zeros(3, np.float32)
    rewards = [1.0, np.nan, np.inf, -np.inf, 1e300, 2.0]
    game = CountedGame(SPEC, Answers(seen, *((seen, reward, reward == 2.0, False, {}) for reward in rewards)))
    game.reset(0)
    rows = [game.step(0) for _ in rewards]
    assert np.array_equal([row.reward for row in rows], rewards, equal_nan=True) and rows[-1].episode == (3.0, 6)


@pytest.mark.parametrize(
    ("dtype", "good"),
    [
        ("float32", [np.zeros(3), np.zeros(3, int), [0.5, 1, 2], np.zeros(3, bool), np.full(3, np.nan)]),
        ("uint8", [np.zeros(3, bool), np.array([0, 255, 7]), [1, 2, 3]]),
    ],
)
def test_observations_that_fit_pass(dtype: str, good: list[Any]) -> None:
    """Other number types are no reason to refuse a game, as long as their values fit; NaN is another's business."""
    game = CountedGame(replace(SPEC, observation_dtype=dtype), Answers(*good))
    for value in good:
        assert np.array_equal(game.reset(0).observation, value, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "bad", "said"),
    [
        ("float32", np.zeros(4), r"shape \(4,\), not \(3,\)"),
        ("float32", 0.0, r"shape \(\), not \(3,\)"),
        ("float32", None, r"shape \(\)"),
        ("float32", np.zeros(3, complex), "type complex128, which is no float32"),
        ("float32", np.array([None] * 3), "type object"),
        ("float32", ["a", "b", "c"], "type <U1"),
        ("float32", [[1.0], [1.0, 2.0], [3.0]], "no array"),
        ("uint8", np.array([0, 256, 0]), "type int64, which is no uint8"),
        ("uint8", np.array([0, -1, 0]), "type int64"),
        ("uint8", np.zeros(3), "type float64"),
    ],
)
def test_observations_that_do_not_fit_are_named(dtype: str, bad: Any, said: str) -> None:
    """A wrong shape or type is a failure of the game that says what came and what was promised."""
    with pytest.raises(Fallen, match=said):
        CountedGame(replace(SPEC, observation_dtype=dtype), Answers(bad)).reset(0)


def test_rewards_and_ends_are_what_they_should_be() -> None:
    """One number, finite or not, and one bool; all else is named."""
    assert [number(value) for value in (1, True, np.float64(2.5), np.array(3), np.array([[4.0]]))] == [1, 1, 2.5, 3, 4]
    assert np.isnan(number(np.float32("nan"))) and number(float("inf")) == np.inf
    for value in ("1", None, [1.0], np.ones(2), 1j, np.array("a"), {}):
        with pytest.raises(Fallen, match="reward is not a number"):
            number(value)
    assert [truth(value) for value in (0, 1, np.bool_(True), np.array([False]), 1.0 == 1)] == [0, 1, 1, 0, 1]
    for value in ("no", None, 2, [True], np.ones(2), {}):
        with pytest.raises(Fallen, match="end is not a bool"):
            truth(value)
