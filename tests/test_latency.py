"""Tests of agent/freeze/latency.py: what is timed is what was asked for; no assertion on speed itself."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from agent.freeze.latency import energy_per_decision, latencies, throughput

STATES = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_every_contender_decides_one_state_at_a_time() -> None:
    """All contenders get batches of one, in turn, and a slower one is measured as slower."""
    seen: dict[str, list[int]] = {"fast": [], "slow": []}

    def decide(name: str, seconds: float):
        def call(observation: np.ndarray) -> None:
            seen[name].append(len(observation))
            time.sleep(seconds)

        return call

    found = latencies({"fast": decide("fast", 0.0), "slow": decide("slow", 0.01)}, STATES, seconds=0.1)
    assert set(seen["fast"]) == set(seen["slow"]) == {1}
    assert found["fast"]["p50_us"] < found["slow"]["p50_us"] and found["slow"]["p50_us"] >= 10_000
    assert all(each["p50_us"] <= each["p99_us"] for each in found.values())


def test_throughput_counts_states() -> None:
    """At batch n each call has n states, and n times the calls are counted."""
    sizes = []
    found = throughput(lambda observation: (sizes.append(len(observation)), time.sleep(0.01)), STATES, (1, 32), 0.05)
    assert set(sizes) == {1, 32}
    assert found[32] > 20 * found[1] > 0


def test_energy_is_above_idling_and_only_where_the_machine_says_it(tmp_path: Path) -> None:
    """Without a counter nothing is made up; with one, what the work took beyond idling is divided by the decisions."""
    assert energy_per_decision(lambda observation: None, STATES, 0.01, tmp_path / "none") == "not measured"
    counter, calls = tmp_path / "energy_uj", 0
    counter.write_text("1000")

    def decide(observation: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.001)
        counter.write_text(str(1000 + 70 * calls))

    assert energy_per_decision(decide, STATES, 0.02, counter) == 70
    counter.write_text("5000")
    assert energy_per_decision(lambda observation: counter.write_text("3"), STATES, 0.01, counter) == "not measured"
