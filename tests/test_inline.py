"""The vector in this process adds nothing to its games but the form of a Step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.fakes import CountingGame
from envs.host import CountedGame
from envs.inline import InlineVector
from envs.spec import game_seeds
from envs.step import Episode

SPEC = replace(CountingGame(1, action_names=("down", "stay", "up")).spec, observation_shape=(2,))


class Ladder:
    """Climb from 0: terminated at 3, truncated at the fifth step; the observation is (seed of the episode, height)."""

    def __init__(self) -> None:
        self.seed = self.height = self.steps = 0
        self.closed = 0

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin, from the next seed when none is given."""
        self.seed = seed % 1000 if seed is not None else self.seed + 1
        self.height = self.steps = 0
        return np.array([self.seed, 0]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Climb by action - 1."""
        if self.height == 3 or self.steps == 5:
            return self.reset()[0], 0.0, False, False, {}
        self.height += action - 1
        self.steps += 1
        ends = self.height == 3
        return np.array([self.seed, self.height]), action - 1.0, ends, self.steps == 5 and not ends, {}

    def render(self) -> np.ndarray:
        """One pixel as bright as the game is high."""
        return np.full((1, 1, 3), self.height, dtype=np.uint8)

    def close(self) -> None:
        """Count the calls."""
        self.closed += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        return {"seed": self.seed, "height": self.height, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Everything."""
        self.seed, self.height, self.steps = state["seed"], state["height"], state["steps"]


def vector_of(*games: Any) -> InlineVector:
    """A vector of these games, in order; what takes the place of one that fails is a new Ladder."""
    ready = list(games)
    return InlineVector(SPEC, len(games), lambda: CountedGame(SPEC, ready.pop(0) if ready else Ladder()))


def test_games_are_seeded_stepped_and_begun_anew() -> None:
    """Each game has its own seed; ends, first rows, episodes and the ignored action are as the contract says."""
    vector = vector_of(Ladder(), Ladder())
    first, second = (seed % 1000 for seed in game_seeds(4, 2))
    assert vector.reset(4).observation.tolist() == [[first, 0], [second, 0]]
    for number in range(1, 6):
        vector.send(np.array([2, 1]))
        step = vector.recv()
        if number == 3:
            assert step.terminated.tolist() == [True, False] and step.episodes == (Episode(0, 3.0, 3),)
            assert step.observation.tolist() == [[first, 3], [second, 0]]
        if number == 4:
            assert step.first.tolist() == [True, False] and step.reward.tolist() == [0, 0]
            assert step.observation.tolist() == [[first + 1, 0], [second, 0]]
    assert step.truncated.tolist() == [False, True] and step.episodes == (Episode(1, 0.0, 5),)
    assert step.observation.dtype == np.float32 and vector.render(0).max() == 1


def test_nothing_is_played_before_recv_and_a_reset_drops_what_was_sent() -> None:
    """send only takes the actions, so that the learner's work is launched before the games run."""
    games = [Ladder(), Ladder()]
    vector = vector_of(*games)
    with pytest.raises(RuntimeError, match="Reset"):
        vector.send(np.array([2, 2]))
    vector.reset(0)
    vector.send(np.array([2, 2]))
    assert [game.height for game in games] == [0, 0]
    with pytest.raises(RuntimeError, match="Receive the step"):
        vector.state_dict()
    vector.reset(0)
    with pytest.raises(RuntimeError, match="Send actions"):
        vector.recv()


class Loose(Ladder):
    """Raises when it is asked to go down, and cannot be closed either."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Climb, but never down."""
        if action == 0:
            raise OSError("the ladder is loose")
        return super().step(action)

    def close(self) -> None:
        """Fail as well."""
        raise OSError("still loose")


def test_a_game_that_raises_is_made_anew() -> None:
    """Its row shows the first observation of a fresh game, marked; the other game keeps its step; the news says why."""
    vector = vector_of(Ladder(), Loose())
    vector.reset(4)
    vector.send(np.array([2, 2]))
    vector.recv()
    vector.send(np.array([2, 0]))
    step = vector.recv()
    assert step.restarted.tolist() == step.first.tolist() == [False, True]
    assert step.observation[0, 1] == 2 and step.observation[1, 1] == 0 and step.reward.tolist() == [1, 0]
    assert step.observation[1, 0] != game_seeds(4, 2)[1] % 1000, "a fresh seed: not the same episode over again"
    assert vector.restarts == 1
    assert vector.news() == [
        "game 1 was replaced: it raised OSError: the ladder is loose; its open episode is discarded"
    ]
    assert vector.news() == []
    vector.send(np.array([2, 2]))
    step = vector.recv()
    assert step.episodes == (Episode(0, 3.0, 3),) and step.observation[1, 1] == 1 and not step.restarted.any()


def test_a_game_that_leaves_does_not_take_the_run_along() -> None:
    """Its sys.exit() is a failure of that game alone."""

    class Leaving(Ladder):
        def step(self, action: int) -> Any:
            raise SystemExit(3)

    vector = vector_of(Leaving())
    vector.reset(0)
    vector.send(np.array([1]))
    assert vector.recv().restarted.all() and "it raised SystemExit: 3" in vector.news()[0]


def test_ctrl_c_is_no_failure_of_a_game() -> None:
    """What a person asks for passes through."""

    class Asked(Ladder):
        def step(self, action: int) -> Any:
            raise KeyboardInterrupt

    vector = vector_of(Asked())
    vector.reset(0)
    vector.send(np.array([1]))
    with pytest.raises(KeyboardInterrupt):
        vector.recv()
    assert vector.restarts == 0


def test_closing_twice_closes_each_game_once() -> None:
    """A second close does nothing."""
    games = [Ladder(), Ladder()]
    vector = vector_of(*games)
    vector.close()
    vector.close()
    assert [game.closed for game in games] == [1, 1]
