"""The loop's order, the clock's debts, and who is asked for what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import loop
from agent.loop import Clock, interleave, least_learning_starts
from agent.replay.replay import Replay
from envs.step import Step

B = 3


def step_at(time: int, games: int = B) -> Step:
    """A step of an endless game whose observation is the time."""
    no = np.zeros(games, bool)
    observation = np.full((games, 1), time, np.float32)
    return Step(observation, np.zeros(games, np.float32), no, no, np.full(games, time == 0))


class Games:
    """Endless games; anything but send and recv is not there to be called."""

    def __init__(self, log: list[Any], time: int = 0, games: int = B):
        self.log, self.time, self.num_envs = log, time, games
        self.current = step_at(time, games)

    def send(self, action: np.ndarray) -> None:
        self.log.append(("send", action))

    def recv(self) -> Step:
        self.log.append(("recv",))
        self.time += 1
        self.current = step_at(self.time, self.num_envs)
        return self.current


class Actor:
    """Answers with the version of the weights it acts with."""

    def __init__(self, log: list[Any], learner: Learner):
        self.log, self.learner = log, learner

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        self.log.append(("act", observation, steps))
        return np.full(len(observation), self.learner.updates)


class Learner:
    """Counts its updates."""

    def __init__(self, log: list[Any]):
        self.log, self.updates = log, 0

    def update(self, count: int, steps: int) -> None:
        self.log.append(("update", count, steps))
        self.updates += count


class Memory:
    """Says that all but one of the games took the action."""

    def __init__(self, log: list[Any]):
        self.log = log

    def insert(self, step: Step, action: np.ndarray, next_step: Step) -> int:
        self.log.append(("insert", step, action, next_step))
        return B - 1


class Play:
    """The loop over fakes that write down in `log` what was asked of them."""

    def __init__(self, clock: Clock):
        self.log: list[Any] = []
        self.games, self.learner, self.clock = Games(self.log), Learner(self.log), clock
        self.ticks = interleave(self.games, Actor(self.log, self.learner), Memory(self.log), self.learner, clock)

    def tick(self) -> loop.Tick:
        """One turn, with a fresh log."""
        self.log.clear()
        return next(self.ticks)

    @property
    def verbs(self) -> list[str]:
        return [entry[0] for entry in self.log]


def test_nothing_happens_before_the_first_tick() -> None:
    """Making the loop plays nothing; whoever holds it decides when."""
    assert Play(Clock(4, 1, 0)).log == []


def test_order_of_a_tick() -> None:
    """Act, send, learn while the games run, receive, remember; without debts nothing is learned."""
    play = Play(Clock(samples_per_insert=2, batch_size=1, learning_starts=3))
    seen = []
    for _ in range(4):
        play.tick()
        seen.append(play.verbs)
    assert seen == [["act", "send", "recv", "insert"]] * 2 + [["act", "send", "update", "recv", "insert"]] * 2


def test_what_is_handed_on() -> None:
    """The action answers the current step, is sent and stored as it is, and stored between that step and the next."""
    play = Play(Clock(2, 1, 0))
    for time in range(5):
        current = play.games.current
        tick = play.tick()
        entries = {entry[0]: entry[1:] for entry in play.log}
        observation, steps = entries["act"]
        assert observation is current.observation and observation[0, 0] == time
        assert steps == time * (B - 1)
        assert entries["send"] == (tick.action,)
        before, action, after = entries["insert"]
        assert before is current and action is tick.action and after is tick.step is play.games.current
        if time > 0:
            assert entries["update"][1] == steps, "schedules are asked for the step that acting was asked for"


def test_counts_are_of_what_was_really_taken() -> None:
    """Steps are what replay says was taken, not the number of games, and a tick carries the counts after it."""
    play = Play(Clock(3, 1, 0))
    for time in range(1, 6):
        tick = play.tick()
        assert tick.steps == play.clock.steps == time * (B - 1)
        assert tick.updates == play.learner.updates == 3 * (time - 1) * (B - 1)


def test_actions_come_from_the_weights_before_the_updates() -> None:
    """The actions of a tick are those of the weights its updates have not yet changed."""
    play = Play(Clock(2, 1, 0))
    for _ in range(6):
        version = play.learner.updates
        assert (play.tick().action == version).all()
    assert play.learner.updates > version


def test_what_lasts_may_be_replaced_between_two_ticks() -> None:
    """Games that were started anew and a clock that was set back are what the next tick goes on from."""
    play = Play(Clock(2, 1, 0))
    for _ in range(3):
        play.tick()
    play.games.current = step_at(99)
    play.clock.load_state_dict({"steps": 50, "owed": 10})
    play.tick()
    entries = {entry[0]: entry[1:] for entry in play.log}
    assert entries["act"][0][0, 0] == 99 and entries["act"][1] == 50
    assert entries["insert"][0].observation[0, 0] == 99
    assert entries["update"] == (10, 50)


def test_time_is_told_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acting (with sending), learning, waiting and storing are the time between their own ends."""
    readings = iter([100.0, 101.0, 103.0, 107.0, 115.0])
    monkeypatch.setattr(loop, "perf_counter", lambda: next(readings))
    tick = Play(Clock(2, 1, 0)).tick()
    assert (tick.acting_s, tick.learning_s, tick.waiting_s, tick.storing_s) == (1.0, 2.0, 4.0, 8.0)


def updates_after(clock: Clock, inserts: list[int]) -> Iterator[int]:
    """Pay all debts after every insert; yield the updates so far."""
    updates = 0
    for taken in inserts:
        clock.advance(taken)
        updates += clock.owed
        clock.owed = 0
        yield updates


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 64), min_size=1, max_size=40),
    st.integers(1, 400),
    st.integers(1, 7).map(lambda power: 2**power),
    st.integers(0, 300),
)
def test_debts_follow_steps_alone(inserts: list[int], quarters: int, batch_size: int, learning_starts: int) -> None:
    """However many games bring the steps, the updates after N of them are floor((N - start) * samples / batch)."""
    steps = 0
    paid = updates_after(Clock(quarters / 4, batch_size, learning_starts), inserts)
    for taken, updates in zip(inserts, paid, strict=True):
        steps += taken
        counting = max(0, steps - learning_starts)
        assert updates == counting * quarters // (4 * batch_size)


def test_debts_are_exact_for_every_ratio() -> None:
    """A whole number of owed updates is owed in full at its own step."""
    for batch_size in range(1, 130):
        for samples in range(1, 130, 4):
            clock = Clock(samples, batch_size, 0)
            clock.advance(batch_size)
            assert clock.owed == samples


def test_nothing_is_owed_before_the_start() -> None:
    """Debts begin with the steps after learning starts, and what is not paid stays owed."""
    clock = Clock(8, 32, 1_000)
    seen = []
    for taken in (1_000, 3, 1, 4):
        clock.advance(taken)
        seen.append(clock.owed)
    assert seen == [0, 0, 1, 2]


def test_a_clock_that_begins_late_owes_nothing_for_what_was_before() -> None:
    """A clock that begins at a step behind the start of learning owes for the steps since then."""
    clock = Clock(8, 32, 10, steps=1_000)
    assert (clock.steps, clock.owed) == (1_000, 0)
    clock.advance(8)
    assert (clock.steps, clock.owed) == (1_008, 2)


def test_a_clock_goes_on_where_it_was() -> None:
    """A clock that takes the state of another owes what that one owes, now and later."""
    clock, other = Clock(7, 4, 10), Clock(7, 4, 10)
    assert list(updates_after(clock, [9, 9, 9]))[-1] == 29
    clock.advance(5)
    other.load_state_dict(clock.state_dict())
    assert other.state_dict() == {"steps": 32, "owed": 9}
    clock.advance(1)
    other.advance(1)
    assert other.owed == clock.owed == 11


@pytest.mark.parametrize("games", [1, 3, 64])
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_least_start_of_learning_fills_a_batch(games: int, n_step: int) -> None:
    """Without an end, replay holds a whole batch at the first step that reaches the least start, and not before."""
    batch_size, log = 32, []
    replay = Replay(
        num_games=games,
        capacity=1_000,
        observation_shape=(1,),
        observation_dtype="float32",
        stack=1,
        n_step=n_step,
        discount=0.9,
        priority_exponent=0.0,
        reward_clip=None,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    )
    learner = Learner(log)
    least = least_learning_starts(n_step, games, batch_size)
    for tick in interleave(Games(log, games=games), Actor(log, learner), replay, learner, Clock(1, 1, 10**9)):
        assert (len(replay) >= batch_size) == (tick.steps >= least)
        if tick.steps > 2 * least:
            break
