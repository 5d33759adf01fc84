"""The log of finished episodes, `monitor.csv`, as stable-baselines3's `load_results` and `results_plotter` read it."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.types import Episode

WINDOW = 100  # episodes that the running means go over, as in stable-baselines3


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
        self._file = open(path, "a+b")
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
        self._file.write("".join(self._rows).encode())
        self._rows.clear()
        self._file.flush()

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing."""
        if not self._file.closed:
            self.flush()
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
