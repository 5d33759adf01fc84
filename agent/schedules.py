"""Functions of the environment step. A schedule is plain data plus a call, so it needs no state in a checkpoint."""

from __future__ import annotations

from typing import NamedTuple


class Linear(NamedTuple):
    """A value that moves from `start` to `end` in a straight line over `over` environment steps, then stays."""

    start: float
    end: float
    over: int

    def __call__(self, step: int) -> float:
        """Return the value at environment step `step`."""
        if step >= self.over:
            return self.end
        return self.start + (self.end - self.start) * max(step, 0) / self.over


def constant(value: float) -> Linear:
    """Return the schedule that is `value` at every step."""
    return Linear(value, value, 1)
