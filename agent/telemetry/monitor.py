"""The log of finished episodes, `monitor.csv`, as stable-baselines3's `load_results` and `results_plotter` read it."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.types import Episode

WINDOW = 100  # episodes that the running means go over, as in stable-baselines3


class Played(NamedTuple):
    """What a `monitor.csv` holds: K finished training episodes."""

    game: str | None  # its env_id
    scores: np.ndarray  # f64 [K], raw
    lengths: np.ndarray  # f64 [K], environment steps
    seconds: np.ndarray  # f64 [K] since the run began, evaluations included

    def seconds_at(self, steps: np.ndarray) -> np.ndarray:
        """Return about when that many environment steps had been played; not a number when no episode has finished.

        Only whole episodes are known, so what is open counts as not played yet; beyond the last, at the mean speed.
        """
        played = np.cumsum(self.lengths)
        if not len(played) or played[-1] <= 0:
            return np.full(len(steps), np.nan)
        within = np.interp(steps, np.concatenate([[0.0], played]), np.concatenate([[0.0], self.seconds]))
        return np.where(steps > played[-1], steps * (self.seconds[-1] / played[-1]), within)


def read(path: Path) -> Played:
    """Return what a `monitor.csv` holds as far as it is sound; rows that are no numbers are passed over."""
    game, rows = None, []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("#"):
                with suppress(ValueError, RecursionError):
                    header = json.loads(line[1:])
                    game = game or (header.get("env_id") if isinstance(header, dict) else None)
            else:
                with suppress(ValueError):
                    score, length, seconds = map(float, line.split(","))
                    rows.append((score, length, seconds))
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    table = table[np.isfinite(table).all(axis=1) & (table[:, 1] >= 0)]
    return Played(game if isinstance(game, str) else None, *table.T)


class Monitor:
    """Appends every finished episode to a file and knows the means of the last 100.

    Columns: r (raw score), l (length in environment steps), t (seconds of this run, across resumes). Stateful: loading
    a state cuts off the rows written after it, since a resumed run plays those episodes again.
    """

    def __init__(self, path: Path, env_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._started = clock()
        self._rows: list[str] = []  # not yet written
        self._episodes = 0
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._lengths: deque[int] = deque(maxlen=WINDOW)
        self._unwritten = b""  # that a full disk has refused; it is tried again
        self._file = open(path, "a+b", buffering=0)
        if self._file.tell() == 0:
            self._rows.append(f"#{json.dumps({'t_start': time.time(), 'env_id': env_id})}\nr,l,t\n")
            self.flush()
        self._file.seek(0)
        self._header = self._file.readline().decode()
        self._file.seek(0, os.SEEK_END)

    @property
    def episodes(self) -> int:
        """Episodes finished in this run."""
        return self._episodes

    def record(self, episodes: Iterable[Episode]) -> None:
        """Take the episodes that ended with a step; they reach the file with the next `flush`."""
        for episode in episodes:
            score, length = float(episode.score), int(episode.length)
            self._rows.append(f"{round(score, 6)},{length},{round(self._clock() - self._started, 6)}\n")
            self._scores.append(score)
            self._lengths.append(length)
            self._episodes += 1

    def means(self) -> dict[str, float]:
        """Return mean score and length of the last 100 episodes under their TensorBoard tags; {} before the first."""
        if not self._scores:
            return {}
        return {
            "rollout/ep_rew_mean": sum(self._scores) / len(self._scores),
            "rollout/ep_len_mean": sum(self._lengths) / len(self._lengths),
        }

    def flush(self) -> None:
        """Hand the rows taken so far to the operating system."""
        self._unwritten += "".join(self._rows).encode()
        self._rows.clear()
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state after making every row durable, so that a checkpoint never knows more than the file."""
        self.flush()
        os.fsync(self._file.fileno())
        return {
            "header": self._header,
            "offset": self._file.tell(),
            "elapsed_s": self._clock() - self._started,
            "episodes": self._episodes,
            "scores": list(self._scores),
            "lengths": list(self._lengths),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the state back and cut the file to it, which must not be shorter.

        A file that was moved away since has another header (`t_start`): the one begun in its place is kept as it is.
        """
        self.flush()
        if self._header == state["header"]:
            size = self._file.tell()
            if size < state["offset"]:
                raise ValueError(
                    f"{self._path} has {size} bytes but had {state['offset']} when the checkpoint was written; it was "
                    "changed since. Put the original back, or move it away to go on with a new one."
                )
            self._file.truncate(state["offset"])
            self._file.seek(0, os.SEEK_END)
        self._started = self._clock() - state["elapsed_s"]
        self._episodes = state["episodes"]
        self._scores = deque(state["scores"], WINDOW)
        self._lengths = deque(state["lengths"], WINDOW)
