"""Deadlines by a clock that is moved by what is done: nothing here depends on how fast this machine is."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs

from agent.cli.main import main
from agent.cli.record import load_checkpoint
from agent.loop import Clock
from agent.realtime import DEBT, REHEARSALS, Pace, Prediction, realtime
from agent.types import Tick
from envs.step import Step

MS = 1e-3


class Time:
    """Seconds that pass where somebody says so."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.01 * MS)


class Games:
    """One endless game whose observation is its time; notes when it was stepped and with what."""

    num_envs = 1

    def __init__(self, time: Time):
        self._time, self.steps = time, 0
        self.stepped: list[tuple[float, int]] = []
        self.current = self._step()

    def _step(self) -> Step:
        no, nothing = np.zeros(1, bool), np.zeros(1, np.float32)
        return Step(np.full((1, 1), self.steps, np.float32), nothing, no, no, np.array([self.steps == 0]))

    def send(self, action: np.ndarray) -> None:
        self.stepped.append((self._time.now(), int(action[0])))

    def recv(self) -> Step:
        self.steps += 1
        self.current = self._step()
        return self.current


class Actor:
    """Answers an observation with its time, after as many seconds as `takes` says."""

    def __init__(self, time: Time):
        self._time = time
        self.takes: Callable[[int], float] = lambda at: 1 * MS

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        at = int(observation[0, 0])
        self._time.now_s += self.takes(at)
        return np.array([at])


class Memory:
    """Keeps which action was stored for which observation."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, int]] = []

    def insert(self, step: Step, action: np.ndarray, next_step: Step) -> int:
        assert next_step.observation[0, 0] == step.observation[0, 0] + 1 or step.first[0]
        self.stored.append((int(step.observation[0, 0]), int(action[0])))
        return 1


class Learner:
    """Updates of three slices, `takes` seconds each, or whole in their sum; notes when each slice began."""

    def __init__(self, time: Time):
        self._time, self.updates, self._next = time, 0, 0
        self.takes: Callable[[int], float] = lambda number: 2 * MS
        self.began: list[float] = []

    def advance(self, steps: int, fits: Callable[[Hashable], bool]) -> None:
        while True:
            if self._next == 0 and fits("whole"):
                self._run(3)
            elif fits(self._next):
                self._run(1)
            else:
                return

    def _run(self, slices: int) -> None:
        self.began.append(self._time.now())
        for _ in range(slices):
            self._time.now_s += self.takes(self._next)
            self._next = (self._next + 1) % 3
        self.updates += self._next == 0


class Play:
    """A game at 100 decisions a second, with everything that it needs."""

    def __init__(self, samples_per_insert: float = 100.0, learning_starts: int = 0):
        self.time = Time()
        self.games, self.actor, self.replay = Games(self.time), Actor(self.time), Memory()
        self.learner, self.clock = Learner(self.time), Clock(samples_per_insert, 1, learning_starts)
        self.settled = 0
        self.pace = Pace(100.0, now=self.time.now, sleep=self.time.sleep, settle=self._settle)
        self.ticks = realtime(self.games, self.actor, self.replay, self.learner, self.clock, self.pace)

    def _settle(self) -> None:
        self.settled += 1

    def play(self, ticks: int) -> list[Tick]:
        """So many turns."""
        return [next(self.ticks) for _ in range(ticks)]

    def lateness(self) -> float:
        """The most that a step was late since the last call, in ms."""
        return self.pace.take()["realtime/lateness_ms_p99"]


def test_nothing_is_missed_where_everything_fits() -> None:
    """The game is stepped every 10 ms, each step with the answer to the one before, and the time left is learned in."""
    play = Play()
    play.play(3)  # learning begins: the clock is stopped once
    before, updates = len(play.games.stepped), play.learner.updates
    play.play(100)
    times, actions = zip(*play.games.stepped[before:], strict=True)
    assert np.allclose(np.diff(times), 10 * MS, atol=0.05 * MS)
    assert play.replay.stored == [(at, at) for at in range(103)]
    assert list(actions) == list(range(3, 103))
    assert play.pace.missed == 0
    # 9 ms are left, so four slices of 2 ms: that is 400 of 3 to the update.
    assert (play.learner.updates - updates) == pytest.approx(400 / 3, abs=3)


def test_updates_are_no_more_than_owed() -> None:
    """Time that is left over is slept through; what the measuring took is paid back."""
    play = Play(samples_per_insert=0.5)
    ticks = play.play(200)
    assert ticks[-1].updates == pytest.approx(100, abs=2)
    assert play.clock.owed <= 1


def test_nothing_is_learned_before_the_start() -> None:
    """Until updates are owed none is made, and no clock is stopped."""
    play = Play(learning_starts=50)
    assert play.play(50)[-1].updates == 0
    assert play.pace.take()["realtime/stops"] == 0
    assert play.play(3)[-1].updates > REHEARSALS
    assert play.pace.take()["realtime/stops"] == 1


def test_a_late_action_is_replaced_by_the_last_one() -> None:
    """The game goes on in time with the action it had, replay stores that one, and the late one is played next."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: (12 if at == 5 else 1) * MS
    play.play(10)
    # The answer to 5 comes 2 ms late; there is time enough to answer 6.
    assert [action for _, action in play.replay.stored] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9]
    assert [action for _, action in play.games.stepped] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9]
    assert (play.pace.missed, play.pace.deadlines) == (1, 10)
    assert play.lateness() <= 2.1


def test_frames_that_nobody_could_answer_are_not_answered() -> None:
    """Behind by frames, the game catches up with the newest action there is, and every frame of it is a miss."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: (45 if at == 5 else 1) * MS
    play.play(12)
    assert [action for _, action in play.replay.stored] == [0, 1, 2, 3, 4, 4, 5, 5, 5, 9, 10, 11]
    assert play.pace.missed == 4
    assert [at for at, _ in play.replay.stored] == list(range(12)), "no frame is lost"
    times = [time for time, _ in play.games.stepped]
    assert times[11] - times[0] == pytest.approx(110 * MS, abs=0.1 * MS), "the deadlines are where they were"


def test_an_actor_that_is_always_slow_still_plays() -> None:
    """One that needs longer than an interval misses every deadline, and its actions come late but come."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: 12 * MS
    play.play(100)
    stored = play.replay.stored[10:]
    assert play.pace.missed >= 98
    assert all(0 < at - action <= 3 for at, action in stored)


def test_a_slice_is_not_begun_where_it_does_not_fit() -> None:
    """Slices that fit at the start of an interval only are begun there; no step is late for one."""
    play = Play()
    play.learner.takes = lambda number: 6 * MS
    play.play(3)
    play.learner.began.clear()
    play.pace.take()
    play.play(60)
    assert play.pace.missed == 0 and play.lateness() < 0.1
    assert len(play.learner.began) == pytest.approx(60, abs=3)


def test_slices_longer_than_an_interval_are_never_begun() -> None:
    """Once measured they stand still, cost no deadline, and a person is told once that nothing is learned."""
    play = Play()
    told: list[str] = []
    play.pace.say = told.append
    play.learner.takes = lambda number: 11 * MS
    play.play(3)
    play.learner.began.clear()
    play.play(900)
    assert not play.learner.began and play.pace.missed == 0 and not told
    play.play(1_300)
    assert len(told) == 1 and "the shortest part of an update takes 11.0 ms" in told[0]


def test_who_learns_is_not_warned() -> None:
    """Where slices fit now and then, nobody is told anything."""
    play = Play()
    told: list[str] = []
    play.pace.say = told.append
    play.learner.takes = lambda number: 8 * MS
    play.play(2_500)
    assert play.learner.updates > 100 and not told


def test_slices_that_grow_soon_cost_no_deadline() -> None:
    """A slice that suddenly takes longer than an interval costs one deadline, and one as part of a whole update; then
    both are left alone, and tried again after longer and longer."""
    play = Play()
    play.play(10)
    play.learner.takes = lambda number: (15 if number == 1 else 2) * MS
    play.play(7)
    assert play.pace.missed <= 2
    play.play(1_000)
    assert play.pace.missed <= 14


def test_a_disturbance_does_not_end_learning() -> None:
    """After slices that took ten times as long, and take as long as ever again, learning soon goes on as before."""
    play = Play()
    play.play(10)
    play.learner.takes = lambda number: 20 * MS
    play.play(20)
    play.learner.takes = lambda number: 2 * MS
    play.play(100)
    updates, missed = play.learner.updates, play.pace.missed
    play.play(100)
    assert play.learner.updates - updates >= 95
    assert play.pace.missed == missed


def test_a_prediction_outlives_a_disturbance() -> None:
    """One slow slice changes little, many change it; one that cost a deadline counts at once, for a while."""
    prediction = Prediction(1.0)
    for seconds in (1.0, 1.1, 0.9, 1.0, 5.0):
        prediction.add(seconds)
    assert prediction.seconds <= 1.1
    for _ in range(8):
        prediction.add(2.0)
    assert prediction.seconds == 2.0
    for patience in (8, 16, 32):
        prediction.add(7.0, costly=True)
        for _ in range(patience - 1):
            prediction.doubt()
            assert prediction.seconds == 7.0
        prediction.doubt()
        assert prediction.seconds == 2.0
    for _ in range(10):
        prediction.doubt()
    assert prediction.seconds == 0.9, "the shortest of late"


def test_a_suspended_machine_costs_one_deadline() -> None:
    """An hour that is lost between two deadlines is not caught up with, frame by frame."""
    play = Play()
    play.play(10)
    takes = play.actor.takes
    play.actor.takes = lambda at: 3600.0 if at == 12 else takes(at)
    play.play(30)
    assert play.pace.missed <= 2
    times = [time for time, _ in play.games.stepped]
    assert max(np.diff(times)) > 3000 and times[-1] - times[-10] == pytest.approx(90 * MS, abs=0.1 * MS)


def test_an_onlooker_who_takes_long_stops_the_clock() -> None:
    """An evaluation between two ticks costs no deadline; a few milliseconds of logging do not move one."""
    play = Play()
    play.play(10)
    stops = play.pace.take()["realtime/stops"]
    for pause_s, stopped in ((3 * MS, 0), (30.0, 1)):
        begun = play.games.stepped[-1][0]
        play.time.now_s += pause_s
        play.play(5)
        assert play.pace.take()["realtime/stops"] - stops == stopped
        assert play.pace.missed == 0
        passed = play.games.stepped[-1][0] - begun
        assert passed == pytest.approx(50 * MS if not stopped else 30.05, abs=2 * MS)


def test_games_that_are_started_anew_are_answered() -> None:
    """What a consumer has started anew (a checkpoint of games without state) is answered before it is stepped."""
    play = Play()
    play.play(5)
    play.games.steps = 0
    play.games.current = play.games._step()
    play.play(3)
    assert play.replay.stored[5:] == [(0, 0), (1, 1), (2, 2)]


def test_debts_are_bounded() -> None:
    """What does not fit is carried up to a bound and then dropped."""
    play = Play(samples_per_insert=1_000.0)
    play.play(50)
    assert 0 < play.clock.owed <= DEBT + 1_000


def test_garbage_is_collected_only_while_the_clock_stands() -> None:
    """At the start, after measuring, and after a stop; never in between."""
    play = Play()
    play.play(100)
    assert play.settled == 2
    play.time.now_s += 1.0
    play.play(100)
    assert play.settled == 3


def test_counts_go_on_after_a_resume() -> None:
    """Deadlines and misses are those of the run."""
    play, other = Play(), Play()
    play.actor.takes = lambda at: (12 if at == 5 else 1) * MS
    play.play(10)
    other.pace.load_state_dict(play.pace.state_dict())
    other.play(10)
    assert other.pace.state_dict() == {"deadlines": 20, "missed": play.pace.missed}
    assert other.pace.take()["realtime/missed"] == play.pace.missed == 1


def test_time_is_told_by_its_parts() -> None:
    """Acting, learning, storing and waiting (for the deadline and the game) make up the interval."""
    play = Play()
    play.play(10)
    parts: list[Any] = [tick.acting_s + tick.learning_s + tick.waiting_s + tick.storing_s for tick in play.play(50)]
    assert np.allclose(parts, 10 * MS, atol=0.05 * MS)


def test_a_run_in_real_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train --realtime` plays one game, learns, saves and judges; `resume` goes on by the same clock."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--realtime", "400", "--steps", "400")
    assert code == 0
    assert "cartpole: 400 steps in 1 game by the clock, 400 decisions a second, seed 0" in capsys.readouterr().err
    assert folder.settings().game.num_games == 1
    assert "  missed " in folder.log.read_text()
    saved = load_checkpoint(folder)[0]["agent"]
    assert saved["pace"]["deadlines"] == pytest.approx(400, abs=40)  # those after an end are no steps
    assert 0 < saved["learner"]["updates"] <= 300 * 4 / 32 + 2 * REHEARSALS
    assert main(["resume", str(folder.path), "--steps", "500", "--quiet"]) == 0
    resumed = load_checkpoint(folder)[0]["agent"]
    assert resumed["clock"]["steps"] == 500
    assert resumed["pace"]["deadlines"] >= saved["pace"]["deadlines"] + 100
    assert resumed["learner"]["updates"] > saved["learner"]["updates"]
