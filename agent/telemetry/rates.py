"""How fast the loop runs, where its time goes and which actions it takes, counted from ticks over an interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from agent.telemetry.machine import Machine
from agent.telemetry.tags import action_tags
from agent.types import Tick

COUNTED = 1_000  # actions, before their shares are told: those of fewer are noise
LATENCIES = 16_384  # acting times kept per interval; the newest overwrite the oldest


class Rates:
    """Sums of ticks since the last `take`. `steps` and `updates` are where the run stands when it starts or resumes."""

    def __init__(
        self,
        steps: int = 0,
        updates: int = 0,
        action_names: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._machine = Machine()
        self._action_tags = action_tags(action_names)
        self._actions: list[np.ndarray] = []  # i64 [B] each
        self._latency_s = np.empty(LATENCIES)
        self._begun = clock()
        self._telemetry_s = 0.0  # as it stood when the interval began
        self._steps_begun = steps
        self._steps, self._updates = steps, updates
        self._start_interval()

    def skip(self, steps: int, updates: int) -> None:
        """Start the next interval here, at so many steps and updates: what was not added before counts nowhere."""
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
        if self._action_tags:
            self._actions.append(tick.action)  # counted all at once
        self._steps, self._updates = tick.steps, tick.updates

    def take(self, telemetry_s: float = 0.0) -> dict[str, float]:
        """Return the rates of the interval under their TensorBoard tags and start the next interval.

        `telemetry_s` is what the dashboard has taken so far, since the start or resume. Shares add up to 1; what no
        phase accounts for (evaluation, checkpoints) is `time/share_other`. Without a tick in it the interval goes on
        and the answer is {}.
        """
        now = self._clock()
        if self._ticks == 0 or now <= self._since:
            return {}
        phases_s = {
            "acting": self._acting_s,
            "simulating": self._waiting_s,
            "learning": self._learning_s,
            "storing": self._storing_s,
            "telemetry": telemetry_s - self._telemetry_s,
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
        } | self._machine.figures()
        rates |= {f"time/share_{phase}": seconds / total_s for phase, seconds in phases_s.items()}
        rates |= self._action_shares()
        self._telemetry_s = telemetry_s
        self._start_interval()
        return rates

    def _action_shares(self) -> dict[str, float]:
        """The share of each action and their entropy, 1 when all are equally frequent; {} while there are too few."""
        count = sum(map(len, self._actions))
        if count < COUNTED:
            return {}
        shares = np.bincount(np.concatenate(self._actions), minlength=len(self._action_tags)) / count
        self._actions.clear()
        found = dict(zip(self._action_tags, shares.tolist(), strict=True))
        if len(shares) > 1:
            taken = shares[shares > 0.0]
            found["rollout/action_entropy"] = float(-(taken * np.log(taken)).sum() / np.log(len(shares)))
        return found
