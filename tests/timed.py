"""Stand-ins for real time: a clock that is moved by what is done, and a game, an actor and a learner that move it."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from agent.loop import Clock
from agent.realtime import Pace, realtime
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
        self._time, self.asked = time, 0
        self.takes: Callable[[int], float] = lambda at: 1 * MS

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        self.asked += 1
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
    """Updates of three slices, `takes` seconds each, or whole in their sum; notes when each slice began.

    With `compiled_s` there is another form of whole updates, which takes that long each, and 30 s to make.
    """

    def __init__(self, time: Time):
        self._time, self.updates, self._next = time, 0, 0
        self.takes: Callable[[int], float] = lambda number: 2 * MS
        self.began: list[float] = []
        self.compiled_s: float | None = None
        self.compiled = self.to_settle = False
        self.settled = 0
        self.parts = self.most_parts = 1  # a slice takes so much less time, and there are so many more

    def divide(self) -> bool:
        if self._next or self.parts == self.most_parts:
            return False
        self.parts *= 2
        return True

    def unsettled(self, steps: int) -> bool:
        return self._next == 0 and self.to_settle

    def settle(self, steps: int) -> bool:
        before, self.compiled, self.to_settle = self.compiled, self.compiled_s is not None, False
        self.settled += 1
        self._time.now_s += 30.0
        return self.compiled != before

    def advance(self, steps: int, fits: Callable[[Hashable], bool]) -> None:
        while not self.unsettled(steps):
            if self._next == 0 and fits("whole"):
                self._run(3 * self.parts)
            elif fits(self._next):
                self._run(1)
            else:
                return

    def _run(self, slices: int) -> None:
        self.began.append(self._time.now())
        if slices == 3 * self.parts and self.compiled:
            self._time.now_s += self.compiled_s
        else:
            for _ in range(slices):
                self._time.now_s += self.takes(self._next) / self.parts
                self._next = (self._next + 1) % (3 * self.parts)
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
