"""Games that die, hang, raise, leave or answer with garbage: at a given step or reset, or at random from a seed.

`registered` names one for Gymnasium, so that `make_vector_env("gym:...")` plays it; `Fickle` breaks any other game.
"""

from __future__ import annotations

import itertools
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

_NUMBERS = itertools.count()


def die() -> None:
    """As the out-of-memory killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    """As a simulator's abort() does it."""
    os._exit(3)


def hang() -> None:
    """For ever, and deaf to everything but SIGKILL."""
    while True:
        time.sleep(3600)


def stop() -> None:
    """Stand still as a process: what it does in C cannot be interrupted either."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    """Raise."""
    raise ArithmeticError("the game is broken")


def scribble() -> None:
    """Write into every socket that this process has: a message out of turn, in no known form."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.write(int(name), b"what a game should never write")
        except OSError:
            continue  # it was the listing itself


DEEDS: dict[str, Callable[[], None]] = {
    "kill": die,
    "exit": leave,
    "hang": hang,
    "stop": stop,
    "raise": fail,
    "scribble": scribble,
}
# What a step answers instead: (observation, reward, terminated, truncated, info) -> anything.
GARBAGE: dict[str, Callable[[Any], Any]] = {
    "garbage": lambda answer: (answer[0][:-1], *answer[1:]),  # a wrong shape
    "wrong type": lambda answer: (answer[0].astype(complex), *answer[1:]),
    "no array": lambda answer: ([[1.0], [1.0, 2.0]], *answer[1:]),
    "not picklable": lambda answer: (lambda: None, *answer[1:]),
    "nothing": lambda answer: None,
    "too few": lambda answer: answer[:3],
    "words for a reward": lambda answer: (answer[0], "much", *answer[2:]),
    "two rewards": lambda answer: (answer[0], np.ones(2), *answer[2:]),
    "words for an end": lambda answer: (*answer[:2], "no", *answer[3:]),
    "no end": lambda answer: (*answer[:3], None, answer[4]),
}
FAULTS = (*DEEDS, *GARBAGE)


class BrokenGame(gymnasium.Env):
    """Counts its steps; an observation is f32 [3], (a draw per episode, time, sum of actions), an episode is `length`.

    `fault`, one of FAULTS, happens at step `at` of an episode or, with `when` "reset", at this game's reset `at`. With
    `tickets`, a folder, it happens so often in all, whatever the number of games and processes: once per ticket.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(3)

    def __init__(
        self,
        fault: str | None = None,
        when: str = "step",
        at: int = 5,
        tickets: str | None = None,
        number: int = 1,
        length: int = 9,
        render_mode: str | None = None,
    ) -> None:
        self.fault, self.when, self.at, self.length, self.render_mode = fault, when, at, length, render_mode
        self.tickets, self.number = tickets, number
        self.resets = self.time = self.total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.resets += 1
        self.time = self.total = 0
        self.draw = self.np_random.random()
        now = self.when == "reset" and self.resets == self.at
        answer = self._look(), 0.0, False, False, {}
        seen = self._broken(answer) if now else answer
        return (seen[0], {}) if isinstance(seen, tuple) else seen

    def step(self, action: int) -> Any:
        """Count."""
        self.time += 1
        self.total += int(action)
        answer = self._look(), float(action), self.time == self.length, False, {}
        return self._broken(answer) if self.when == "step" and self.time == self.at else answer

    def render(self) -> np.ndarray:
        """As bright as the time."""
        return np.full((2, 2, 3), self.time, dtype=np.uint8)

    def _look(self) -> np.ndarray:
        return np.array([self.draw, self.time, self.total], dtype=np.float32)

    def _broken(self, answer: Any) -> Any:
        return broken(self.fault, answer) if self.fault and self._ticket() else answer

    def _ticket(self) -> bool:
        if self.tickets is None:
            return True
        for ticket in range(self.number):
            try:
                os.close(os.open(f"{self.tickets}/{ticket}", os.O_CREAT | os.O_EXCL))
                return True
            except FileExistsError:
                continue
        return False


class Fickle(gymnasium.Wrapper):
    """Any game, in which one of `faults` happens at each step with probability `rate`, and NaN with `nan_rate`.

    When is drawn from the game's own generator: what is repeated from a seed or a state breaks again at the same step.
    """

    def __init__(self, env: gymnasium.Env, faults: tuple[str, ...], rate: float, nan_rate: float = 0.0) -> None:
        super().__init__(env)
        self._faults, self._rate, self._nan_rate = faults, rate, nan_rate

    def step(self, action: Any) -> Any:
        """Play one step, if luck will have it."""
        answer = self.env.step(action)
        luck = self.unwrapped.np_random
        draw = luck.random()
        if draw < self._rate:
            return broken(self._faults[luck.integers(len(self._faults))], answer)
        if draw < self._rate + self._nan_rate:
            return (answer[0] * np.nan, *answer[1:]) if luck.random() < 0.5 else (answer[0], np.nan, *answer[2:])
        return answer


def broken(fault: str, answer: Any) -> Any:
    """Do or answer what the fault says instead of `answer`."""
    if fault in GARBAGE:
        return GARBAGE[fault](answer)
    DEEDS[fault]()
    return answer


@contextmanager
def registered(make: Callable[..., gymnasium.Env]) -> Iterator[str]:
    """Name a game for Gymnasium for as long as the block runs; `make` takes its keyword arguments."""
    name = f"IceboxBroken{next(_NUMBERS)}-v0"
    gymnasium.register(name, entry_point=make)
    try:
        yield name
    finally:
        del gymnasium.registry[name]
