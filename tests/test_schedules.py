"""Schedules against numpy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.schedules import Linear, constant

values = st.floats(-10.0, 10.0)


@given(values, values, st.integers(1, 10**9), st.integers(-10, 2 * 10**9))
def test_equals_interpolation(start: float, end: float, over: int, step: int) -> None:
    """The value is interpolated between start and end and stays at either beyond them."""
    assert Linear(start, end, over)(step) == pytest.approx(np.interp(step, [0, over], [start, end]), rel=1e-9, abs=1e-9)


def test_start_and_end_are_where_they_should_be() -> None:
    """Step 0 (and any before it) has the start, the end is reached at `over` and not one step before; both exactly."""
    schedule = Linear(1.0, 0.05, 10_000)
    assert schedule(-1) == schedule(0) == 1.0
    assert schedule(9_999) > schedule(10_000) == schedule(10_001) == schedule(10**12) == 0.05


@given(values, st.integers(0, 10**9), st.integers(1, 10**9))
def test_constant(value: float, step: int, over: int) -> None:
    """A constant, and a line between equal ends, is the same at every step, bit for bit."""
    assert constant(value)(step) == Linear(value, value, over)(step) == value
