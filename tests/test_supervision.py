"""Games that fail again and again: when one is given up, and what the vector still does then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs import supervision
from envs.host import Fallen, Row
from envs.supervision import GameFailure, Supervised
from tests.test_inline import SPEC


class Scripted(Supervised):
    """Three games that count their steps; `falls` names (game, verb) that fail for as long as it stands there."""

    def __init__(self) -> None:
        super().__init__(SPEC, 3)
        self.falls: set[tuple[int, str]] = set()
        self.made: list[int] = []
        self.ended: list[int] = []
        self.times = [0, 0, 0]
        self.seeds: list[list[int]] = [[], [], []]
        self._asked: list[tuple[str, Any]] = [("", None)] * 3

    def _make(self, row: int) -> None:
        self.made.append(row)

    def _begin(self, row: int, verb: str, argument: Any) -> None:
        self._asked[row] = verb, argument

    def _end(self, row: int, patience: Any) -> Any:
        verb, argument = self._asked[row]
        if (row, verb) in self.falls:
            raise Fallen("it fell")
        if verb == "reset":
            self.seeds[row].append(argument)
            self.times[row] = 0
        self.times[row] += verb == "step"
        if verb == "state":
            return {"score": 0.5, "length": self.times[row], "ended": False, "game": {"time": self.times[row]}}
        return Row(np.array([row, self.times[row]]), 1.0, False, False, verb == "reset", None)

    def _end_game(self, row: int) -> None:
        self.ended.append(row)


def step(vector: Scripted) -> Any:
    """One step of all games."""
    vector.send(np.array([1, 1, 1]))
    return vector.recv()


def test_a_hopeless_game_is_given_up_and_the_others_lose_nothing() -> None:
    """Its row shows what it last showed, marked; `send` raises from then on; state and reset work without it."""
    vector = Scripted()
    vector.reset(0)
    step(vector)
    vector.falls = {(1, "step"), (1, "reset")}
    last = step(vector)
    assert last.restarted.tolist() == last.first.tolist() == [False, True, False]
    assert last.observation.tolist() == [[0, 2], [1, 1], [2, 2]] and vector.ended == [1]
    assert vector.made == [1, 1, 1] and vector.restarts == 3
    with pytest.raises(GameFailure, match="fake/counting: game 1 could not be started 3 times in a row.*it fell"):
        step(vector)
    assert len(vector.news()) == 4 and vector.news() == []
    state = vector.state_dict()
    assert state["games"] == {"0": {"time": 2}, "1": None, "2": {"time": 2}}
    assert state["score"]["length"].tolist() == [2, 0, 2]
    assert vector.reset(1).observation.tolist() == [[0, 0], [1, 1], [2, 0]]
    with pytest.raises(GameFailure, match="game 1"):
        step(vector)
    with pytest.raises(GameFailure, match="game 1"):
        vector.load_state_dict(state)


def test_the_first_failure_is_the_one_that_is_told() -> None:
    """When several games are given up, the error is of the first; a reset that finds one raises it."""
    vector = Scripted()
    vector.falls = {(1, "reset"), (2, "reset")}
    with pytest.raises(GameFailure, match="game 1 could not be started"):
        vector.reset(0)
    assert vector.current is not None and vector.state_dict()["games"] == {"0": {"time": 0}, "1": None, "2": None}


def test_every_fresh_game_has_a_seed_of_its_own() -> None:
    """It follows from the vector's seed and the count of replacements, and never repeats the episode that failed."""
    runs = []
    for _ in range(2):
        vector = Scripted()
        vector.reset(3)
        for _ in range(3):
            vector.falls = {(0, "step"), (2, "step")}
            step(vector)
            vector.falls = set()
            step(vector)
        runs.append(vector.seeds)
    assert runs[0] == runs[1] and [len(seeds) for seeds in runs[0]] == [4, 1, 4]
    drawn = [seed for seeds in runs[0] for seed in seeds]
    assert len(set(drawn)) == len(drawn) and all(0 <= seed < 2**31 for seed in drawn)


def test_only_recent_failures_count(monkeypatch) -> None:
    """Five failures within the window are too many, five that are spread over more are not."""
    monkeypatch.setattr(supervision, "WITHIN_STEPS", 20)
    for gap, borne in ((5, True), (4, False)):
        vector = Scripted()
        vector.reset(0)
        failed = False
        for number in range(60):
            vector.falls = {(0, "step")} if number % gap == 0 else set()
            try:
                step(vector)
            except GameFailure:
                failed = True
                break
        assert failed is not borne, gap


def test_an_old_state_without_supervision_is_taken() -> None:
    """A checkpoint from before games were replaced goes on; the seeds are those of the vector's own reset."""
    vector, other = Scripted(), Scripted()
    vector.reset(0)
    other.reset(0)
    state = vector.state_dict()
    del state["supervision"], state["score"]["current"]["restarted"]
    other.load_state_dict(state)
    assert other.current.restarted.tolist() == [False] * 3 and other.restarts == 0
    assert other.state_dict()["supervision"] == vector.state_dict()["supervision"]


def test_a_look_at_a_game_that_falls_is_answered_by_a_fresh_one() -> None:
    """Once; a game that cannot be looked at at all is an error that names it."""
    vector = Scripted()
    with pytest.raises(RuntimeError, match="Reset the games"):
        vector.scene(0)
    vector.reset(0)
    vector.falls = {(0, "render")}
    with pytest.raises(RuntimeError, match="game 0, cannot be asked for its render: it fell"):
        vector.render(0)
    assert vector.restarts == 2 and step(vector).restarted.tolist() == [True, False, False]
