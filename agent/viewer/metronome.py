"""Deadlines at an even pace, for whoever must do something so many times a second and may be late."""

from __future__ import annotations

import threading
import time

LATE_S = 0.25  # who is later than this starts counting anew instead of catching up


class Metronome:
    """The next deadline lies one period after the last one, not after now: being late once does not slow the pace."""

    def __init__(self) -> None:
        self._due = time.monotonic()

    def reset(self) -> None:
        """Start anew: the last deadline is now."""
        self._due = time.monotonic()

    def next(self, period_s: float) -> float:
        """Return the deadline one period after the last, as `time.monotonic` counts."""
        now = time.monotonic()
        self._due = self._due + period_s if now - self._due < period_s + LATE_S else now
        return self._due

    @property
    def last(self) -> float:
        """The last deadline."""
        return self._due

    def hasten(self, by: float) -> None:
        """Move the deadlines so that the last is not after `by`."""
        self._due = min(self._due, by)


def wait_until(due: float, wake: threading.Event) -> bool:
    """Wait until `due` or until the event is set, whichever is first; return whether it was set."""
    while (left := due - time.monotonic()) > 0:
        if wake.wait(left):
            return True
    return wake.is_set()
