"""How fast the loop runs and where its time goes, counted from ticks over an interval."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psutil

from agent.types import Tick

LATENCIES = 16_384  # acting times kept per interval; the newest overwrite the oldest


class Rates:
    """Sums of ticks since the last `take`. `steps` and `updates` are where the run stands when it starts or resumes."""

    def __init__(self, steps: int = 0, updates: int = 0, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._process = psutil.Process()
        self._latency_s = np.empty(LATENCIES)
        self._begun = clock()
        self._steps_begun = steps
        self._steps, self._updates = steps, updates
        self._start_interval()

    def _start_interval(self) -> None:
        self._since = self._clock()
        self._steps_since, self._updates_since = self._steps, self._updates
        self._ticks = 0
        self._acting_s = self._waiting_s = self._learning_s = self._storing_s = 0.0

    def add(self, tick: Tick) -> None:
        """Count one turn of the loop."""
        self._latency_s[self._ticks % LATENCIES] = tick.acting_s
        self._ticks += 1
        self._acting_s += tick.acting_s
        self._waiting_s += tick.waiting_s
        self._learning_s += tick.learning_s
        self._storing_s += tick.storing_s
        self._steps, self._updates = tick.steps, tick.updates

    def take(self) -> dict[str, float]:
        """Return the rates of the interval under their TensorBoard tags and start the next interval.

        Shares add up to 1; what no phase accounts for (evaluation, checkpoints, logging) is `time/share_other`.
        Without a tick in it the interval goes on and the answer is {}.
        """
        now = self._clock()
        if self._ticks == 0 or now <= self._since:
            return {}
        phases_s = {
            "acting": self._acting_s,
            "simulating": self._waiting_s,
            "learning": self._learning_s,
            "storing": self._storing_s,
        }
        interval_s = now - self._since
        phases_s["other"] = max(0.0, interval_s - sum(phases_s.values()))
        total_s = sum(phases_s.values())
        p50, p95, p99 = 1e3 * np.percentile(self._latency_s[: min(self._ticks, LATENCIES)], [50, 95, 99])
        rates = {
            "time/fps": (self._steps - self._steps_begun) / (now - self._begun),
            "time/steps_per_s": (self._steps - self._steps_since) / interval_s,
            "time/updates_per_s": (self._updates - self._updates_since) / interval_s,
            # What overlap costs: while the games answer, so many updates change the policy that asked them.
            "rollout/policy_lag": (self._updates - self._updates_since) / self._ticks,
            "time/act_latency_p50": float(p50),
            "time/act_latency_p95": float(p95),
            "time/act_latency_p99": float(p99),
            "machine/host_memory_gib": self._process.memory_info().rss / 2**30,
        }
        rates |= {f"time/share_{phase}": seconds / total_s for phase, seconds in phases_s.items()}
        self._start_interval()
        return rates
