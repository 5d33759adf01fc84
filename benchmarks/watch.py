"""The clock of a throughput run: a warm-up, then a window, in seconds of the wall and of the process tree's CPUs."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import NamedTuple

import psutil

from benchmarks.cases import LEARNING_STARTS

WARM_UP_UPDATES = 40


class Finished(Exception):
    """Leaves the training loop of a contender that cannot be asked to stop."""


class _Mark(NamedTuple):
    wall: float
    cpu: float
    steps: int
    updates: int


def tree_seconds() -> float:
    """Return the CPU seconds that this process and its living descendants have taken."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


class Watch:
    """Told after every step of the games; False from `beat` ends the run, whose `result` then stands."""

    def __init__(self, seconds: float, warm_up_s: float):
        self.seconds, self.warm_up_s = seconds, warm_up_s
        self.result: dict[str, float] = {}
        self._learning_since: float | None = None
        self._start: _Mark | None = None
        self._beats: list[float] = []  # when each of the window came

    def beat(self, steps: int, updates: int) -> bool:
        """Look at the clock after a step of all games; return whether to go on."""
        now = time.perf_counter()
        if self._start is None:
            if self._learning_since is None:
                if steps > LEARNING_STARTS and updates >= WARM_UP_UPDATES:
                    self._learning_since = now
            elif now - self._learning_since >= self.warm_up_s:
                self._start = _Mark(now, tree_seconds(), steps, updates)
        elif now - self._start.wall >= self.seconds:
            self.result = self._measured(_Mark(now, tree_seconds(), steps, updates))
            return False
        else:
            self._beats.append(now)
        return True

    def _measured(self, end: _Mark) -> dict[str, float]:
        wall, cpu, steps, updates = (late - early for late, early in zip(end, self._start, strict=True))
        gaps = [1e3 * (late - early) for early, late in pairwise(self._beats)]
        deciles = statistics.quantiles(gaps, n=10) if len(gaps) > 1 else [1e3 * wall] * 9
        return {
            "wall_s": round(wall, 3),
            "cpu_s": round(cpu, 3),
            "steps": steps,
            "updates": updates,
            "steps_per_s": round(steps / wall, 1),
            "updates_per_s": round(updates / wall, 1),
            "steps_per_cpu_s": round(steps / cpu, 1),
            # Of neighbours on a shared machine the shortest beats know least.
            "beat_ms": {"p10": round(deciles[0], 4), "median": round(deciles[4], 4), "p90": round(deciles[8], 4)},
        }
