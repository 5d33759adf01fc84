"""Interleave: act, let the games run, learn meanwhile, remember. Who logs, saves, judges or shows consumes ticks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from agent.types import Step, Tick, VectorEnv


class Acts(Protocol):
    """Chooses actions."""

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        """[B, *shape] -> i64 [B]."""


class Remembers(Protocol):
    """Stores experience."""

    def insert(self, step: Step, action: np.ndarray, next_step: Step) -> int:
        """Store one step of every game; return how many environment steps were really taken."""


class Learns(Protocol):
    """Updates the network."""

    updates: int

    def update(self, count: int, steps: int) -> None:
        """Launch `count` gradient updates."""


def least_learning_starts(n_step: int, num_games: int, batch_size: int) -> int:
    """Return after how many environment steps replay can give a whole batch of different transitions.

    The last `n_step` transitions of every game cannot be sampled yet.
    """
    return batch_size + n_step * num_games


class Clock:
    """Counts environment steps and the updates that they owe.

    Updates are owed per environment step (samples per insert / batch size), whatever the number of games, and only for
    steps after `learning_starts`, which must be no less than `least_learning_starts`.
    """

    def __init__(self, samples_per_insert: float, batch_size: int, learning_starts: int, *, steps: int = 0):
        self.steps = steps
        self.owed = 0
        self.learning_starts = learning_starts
        self._samples_per_insert, self._batch_size = samples_per_insert, batch_size

    def advance(self, steps: int) -> None:
        """Count that many more environment steps, and what they owe."""
        self.owed -= self._owed_at(self.steps)
        self.steps += steps
        self.owed += self._owed_at(self.steps)

    def _owed_at(self, steps: int) -> int:
        """Updates owed for all steps until then; multiplied before divided, so that whole numbers stay whole."""
        return int(max(0, steps - self.learning_starts) * self._samples_per_insert / self._batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return both counts."""
        return {"steps": self.steps, "owed": self.owed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.steps = int(state["steps"])
        self.owed = int(state["owed"])


def interleave(games: VectorEnv, actor: Acts, replay: Remembers, learner: Learns, clock: Clock) -> Iterator[Tick]:
    """Play and learn for ever, yielding after every step of the games.

    While the games run, the updates that are owed are launched: the actions of a tick come from the weights before
    them. Everything that lasts lives in the arguments; a consumer may save, restore or replace it between two ticks.
    """
    while True:
        started = perf_counter()
        step = games.current
        action = actor.act(step.observation, clock.steps)
        games.send(action)
        acted = perf_counter()
        if clock.owed:
            learner.update(clock.owed, clock.steps)
            clock.owed = 0
        learned = perf_counter()
        next_step = games.recv()
        received = perf_counter()
        clock.advance(replay.insert(step, action, next_step))
        yield Tick(
            clock.steps,
            learner.updates,
            next_step,
            action,
            acting_s=acted - started,
            learning_s=learned - acted,
            waiting_s=received - learned,
            storing_s=perf_counter() - received,
        )
