"""Counts each game's raw score and length below every clipping, and keeps the newest step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.step import Episode, Step, step_from_state, step_state

LARGEST = float(np.finfo(np.float32).max)  # what is above it is infinite where it is kept


class Score:
    """Turns what B games answered into Steps, and says which episodes ended and how they were scored."""

    def __init__(self, num_envs: int) -> None:
        self.current: Step | None = None
        self.ended = np.zeros(num_envs, dtype=bool)  # [B], games whose next answer begins an episode
        self._score = np.zeros(num_envs)  # f64 [B]
        self._length = np.zeros(num_envs, dtype=np.int64)  # [B]

    def start(self, observation: np.ndarray) -> Step:
        """Return the step that answers a reset of all games; open episodes are forgotten."""
        self.ended[:] = False
        self._score[:] = 0.0
        self._length[:] = 0
        none = np.zeros(len(self.ended), dtype=bool)
        self.current = Step(
            observation, np.zeros(len(none), dtype=np.float32), none, none.copy(), np.ones(len(none), dtype=bool)
        )
        return self.current

    def step(
        self, observation: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> Step:
        """Count one answer of B games with next-step autoreset and return it.

        `reward` is raw, of any number type, and 0 where an episode begins. One that is not finite in 32 bits adds
        nothing to the score: no episode of a run may have a score that nothing can be compared with.
        """
        first = self.ended
        self._score += np.where(np.abs(reward) <= LARGEST, reward, 0.0)
        self._length += ~first
        self.ended = terminated | truncated
        episodes = tuple(
            Episode(int(game), float(self._score[game]), int(self._length[game])) for game in np.flatnonzero(self.ended)
        )
        if episodes:
            self._score[self.ended] = 0.0
            self._length[self.ended] = 0
        with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite, and heeded as such
            raw = reward.astype(np.float32)
        self.current = Step(observation, raw, terminated, truncated, first.copy(), episodes)
        return self.current

    def state_dict(self) -> dict[str, Any]:
        """Return the open episodes' scores and lengths, and the newest step; RuntimeError before the first reset."""
        if self.current is None:
            raise RuntimeError("A vector of games has no state before its first reset.")
        return {
            "score": self._score.copy(),
            "length": self._length.copy(),
            "ended": self.ended.copy(),
            "current": step_state(self.current),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError when it was another number of games."""
        score = np.array(state["score"], dtype=np.float64)
        if score.shape != self._score.shape:
            raise ValueError(f"The saved state holds {len(score)} games, but this vector has {len(self._score)}.")
        self._score = score
        self._length = np.array(state["length"], dtype=np.int64)
        self.ended = np.array(state["ended"], dtype=bool)
        self.current = step_from_state(state["current"])
