"""How long one decision takes, of several policies side by side, and what it costs in energy where that can be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Decide = Callable[[np.ndarray], object]  # observations [N, *shape] -> anything; waits until it is there

ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # Intel and AMD packages; Linux lets root alone read it


def latencies(
    contenders: Mapping[str, Decide], states: np.ndarray, seconds: float = 1.0
) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of one decision in microseconds, for each contender, at batch 1 on `states` in turn.

    The contenders alternate in short blocks, so that a disturbance of the machine meets all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    singles = [states[index : index + 1] for index in range(len(states))]
    for decide in contenders.values():  # first calls allocate
        for single in singles[:5]:
            decide(single)
    block = seconds / 10
    for _ in range(10):
        for name, decide in contenders.items():
            ends = time.perf_counter() + block
            index, found = 0, times[name]
            while (start := time.perf_counter()) < ends or index < 3:
                decide(singles[index % len(singles)])
                found.append(time.perf_counter() - start)
                index += 1
    return {
        name: {"p50_us": float(np.median(found) * 1e6), "p99_us": float(np.percentile(found, 99) * 1e6)}
        for name, found in times.items()
    }


def throughput(decide: Decide, states: np.ndarray, batches: tuple[int, ...], seconds: float = 0.2) -> dict[int, float]:
    """Return decisions per second at each batch size."""
    found = {}
    for batch in batches:
        observation = np.ascontiguousarray(np.resize(states, (batch, *states.shape[1:])))
        decide(observation)
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            decide(observation)
            calls += 1
        found[batch] = calls * batch / (time.perf_counter() - start)
    return found


def energy_per_decision(decide: Decide, states: np.ndarray, seconds: float = 1.0, counter: Path = ENERGY) -> Any:
    """Return microjoules of the processor's package per decision above idling; "not measured" where it does not say."""
    try:
        idle = _energy(counter, lambda: time.sleep(seconds))
        calls = 0

        def busy() -> None:
            nonlocal calls
            ends = time.perf_counter() + seconds
            while time.perf_counter() < ends:
                decide(states[calls % len(states) :][:1])
                calls += 1

        return max(0.0, (_energy(counter, busy) - idle) / calls)
    except (OSError, ValueError):
        return "not measured"


def _energy(counter: Path, work: Callable[[], None]) -> float:
    """Return the microjoules that the package took during `work`; ValueError when its counter began anew meanwhile."""
    before = int(counter.read_text())
    work()
    spent = int(counter.read_text()) - before
    if spent < 0:
        raise ValueError("The energy counter ran over.")
    return float(spent)
