"""Tests of agent/viewer/metronome.py: an even pace that neither drifts nor races."""

from __future__ import annotations

import threading
import time

import pytest

from agent.viewer import metronome as clocks
from agent.viewer.metronome import Metronome, wait_until


class Clock:
    """A clock that a test sets."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clocks, "time", clock)
    return clock


def test_being_a_little_late_does_not_slow_the_pace(clock: Clock) -> None:
    """A hundred periods with a late waking each end after a hundred periods."""
    metronome = Metronome()
    for beat in range(1, 101):
        due = metronome.next(0.1)
        assert due == pytest.approx(50.0 + 0.1 * beat)
        clock.now = due + 0.03  # woken late, but before the next


def test_long_lateness_is_not_made_up_for(clock: Clock) -> None:
    """After a second of standing still the pace goes on from now, without a burst."""
    metronome = Metronome()
    clock.now += 1.0
    assert metronome.next(0.1) == clock.now
    assert metronome.next(0.1) == pytest.approx(clock.now + 0.1)


def test_reset_and_hasten_move_the_beat(clock: Clock) -> None:
    """A reset counts from now; an earlier deadline moves those after it, a later one does not."""
    metronome = Metronome()
    metronome.next(5.0)
    metronome.hasten(51.0)
    assert metronome.last == 51.0
    metronome.hasten(99.0)
    assert metronome.last == 51.0
    clock.now = 60.0
    metronome.reset()
    assert metronome.next(1.0) == 61.0


def test_waiting_ends_in_time_or_when_woken() -> None:
    """A deadline is met within milliseconds, and an event ends the wait at once."""
    event = threading.Event()
    begun = time.monotonic()
    assert not wait_until(begun + 0.05, event)
    assert 0.05 <= time.monotonic() - begun < 1.0
    threading.Timer(0.02, event.set).start()
    assert wait_until(time.monotonic() + 30.0, event)
    assert time.monotonic() - begun < 10.0
    assert wait_until(0.0, event)  # past, but woken
