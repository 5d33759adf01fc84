"""Tests of agent/telemetry/rates.py."""

import numpy as np
import pytest

from agent.telemetry.rates import COUNTED, LATENCIES, Rates
from agent.telemetry.tags import TAGS
from agent.types import Tick


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _tick(steps: int, updates: int, *seconds: float) -> Tick:
    """Make a tick with seconds of acting, learning, waiting and storing; those not given are 0."""
    return Tick(steps, updates, None, np.zeros(1, np.int64), *seconds, *[0.0] * (4 - len(seconds)))


def test_rates_and_shares_of_an_interval() -> None:
    """Speeds, shares and percentiles are those of the interval; the shares add up to 1; fps goes over the whole run."""
    clock = Clock()
    rates = Rates(steps=1000, updates=500, clock=clock)
    for i in range(10):
        rates.add(_tick(1000 + 8 * (i + 1), 500 + 2 * (i + 1), 0.02, 0.04, 0.03, 0.005))
    clock.now += 2.0
    first = rates.take(telemetry_s=0.1)
    assert first["time/steps_per_s"] == first["time/fps"] == pytest.approx(40.0)
    assert first["time/updates_per_s"] == pytest.approx(10.0)
    assert first["rollout/policy_lag"] == pytest.approx(2.0)
    phases = ("acting", "simulating", "learning", "storing", "telemetry", "other")
    shares = [first[f"time/share_{phase}"] for phase in phases]
    assert shares == pytest.approx([0.1, 0.15, 0.2, 0.025, 0.05, 0.475])
    assert first["time/act_latency_p50"] == pytest.approx(20.0)
    assert 0.01 < first["machine/host_memory_gib"] < 1000

    rates.add(_tick(1088, 522, 0.5))
    clock.now += 1.0
    second = rates.take(telemetry_s=0.4)
    assert second["time/share_telemetry"] == pytest.approx(0.3)
    assert second["time/steps_per_s"] == pytest.approx(8.0)
    assert second["time/fps"] == pytest.approx(88 / 3)
    assert second["time/act_latency_p99"] == pytest.approx(500.0)
    assert second["time/share_acting"] == pytest.approx(0.5)
    assert set(first) == set(second) and set(first) <= set(TAGS)


def test_shares_never_exceed_one() -> None:
    """Where the phases' own clocks add up to more than the interval, the shares still add up to 1."""
    clock = Clock()
    rates = Rates(clock=clock)
    rates.add(_tick(1, 0, 0.6, 0.6))
    clock.now += 1.0
    taken = rates.take()
    assert sum(value for tag, value in taken.items() if "share" in tag) == pytest.approx(1.0)
    assert taken["time/share_other"] == 0.0


def test_the_shares_of_the_actions_and_their_entropy() -> None:
    """Of every action the share since the last time, over all games, and how evenly they are spread; not of a few."""
    clock = Clock()
    rates = Rates(0, 0, ["left", "wait", "right"], clock=clock)

    def taken(actions: list[list[int]]) -> dict[str, float]:
        for each in actions:
            rates.add(_tick(1, 0)._replace(action=np.array(each)))
        clock.now += 1.0
        return {tag: value for tag, value in rates.take().items() if "action" in tag}

    assert taken([[0, 0, 2, 2], [2, 0, 2, 2]] * 124) == {}  # of 992 actions
    entropy = -(3 / 8 * np.log(3 / 8) + 5 / 8 * np.log(5 / 8)) / np.log(3)
    assert taken([[0, 0, 2, 2], [2, 0, 2, 2]]) == {
        "rollout/action_share/0-left": 3 / 8,
        "rollout/action_share/1-wait": 0.0,
        "rollout/action_share/2-right": 5 / 8,
        "rollout/action_entropy": pytest.approx(entropy),
    }
    assert taken([[0, 1, 2]] * COUNTED)["rollout/action_entropy"] == pytest.approx(1.0)


def test_percentiles_equal_numpys_over_the_newest() -> None:
    """With more ticks than the buffer holds the percentiles are those of the newest."""
    clock = Clock()
    rates = Rates(clock=clock)
    acting = np.random.default_rng(0).exponential(0.001, LATENCIES + 1000)
    for i, seconds in enumerate(acting):
        rates.add(_tick(i, 0, seconds))
    clock.now += 100.0
    taken = rates.take()
    found = [taken[f"time/act_latency_p{p}"] for p in (50, 95, 99)]
    assert found == pytest.approx(1e3 * np.percentile(acting[1000:], [50, 95, 99]))


def test_an_interval_without_ticks_goes_on() -> None:
    """Nothing to tell gives {}, and the time that passed belongs to the next answer."""
    clock = Clock()
    rates = Rates(clock=clock)
    clock.now += 1.0
    assert rates.take() == {}
    rates.add(_tick(10, 0))
    clock.now += 1.0
    assert rates.take()["time/steps_per_s"] == pytest.approx(5.0)


def test_what_is_skipped_counts_nowhere() -> None:
    """An interval that begins anew, at other steps, knows nothing of what lies before."""
    clock = Clock()
    rates = Rates(clock=clock)
    rates.add(_tick(100, 10, 1.0))
    clock.now += 100.0
    rates.skip(5_000, 700)
    rates.add(_tick(5_030, 706, 0.01))
    clock.now += 3.0
    taken = rates.take()
    assert taken["time/steps_per_s"] == pytest.approx(10.0) and taken["time/updates_per_s"] == pytest.approx(2.0)
    assert taken["time/act_latency_p99"] == pytest.approx(10.0)
