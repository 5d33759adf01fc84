"""Schedules against numpy's interpolation and against their own definition, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ActorSettings, LearnerSettings, ReplaySettings, Settings
from agent.schedules import (
    Exponential,
    Linear,
    constant,
    discount_schedule,
    epsilon_schedule,
    learner_schedules,
    n_step_schedule,
)

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


@pytest.mark.parametrize(("start", "end", "over"), [(1.0, 0.01, 50), (0.2, 0.8, 7), (0.5, 0.5, 3)])
def test_exponential_closes_the_same_share_of_the_gap_in_every_step(start: float, end: float, over: int) -> None:
    """It starts at the start, each step leaves the factor e^(-1/over) of the gap, and over steps leave 1/e of it."""
    schedule, value = Exponential(start, end, over), start
    assert schedule(-1) == schedule(0) == pytest.approx(start, rel=1e-12)
    for step in range(1, 5 * over):
        value = end + (value - end) * np.exp(-1.0 / over)
        assert schedule(step) == pytest.approx(value, rel=1e-9)
    assert schedule(over) - end == pytest.approx((start - end) / np.e)


def test_epsilon_follows_its_settings() -> None:
    """Linear or exponential between the same ends, and 0 from the step on at which it is turned off."""
    settings = {"epsilon_start": 0.8, "epsilon_end": 0.1, "epsilon_steps": 50}
    for kind, schedule in (("linear", Linear(0.8, 0.1, 50)), ("exponential", Exponential(0.8, 0.1, 50))):
        epsilon = epsilon_schedule(ActorSettings(**settings, epsilon_schedule=kind))
        cut = epsilon_schedule(ActorSettings(**settings, epsilon_schedule=kind, epsilon_off_after=30))
        for step in range(200):
            assert epsilon(step) == schedule(step)
            assert cut(step) == (schedule(step) if step < 30 else 0.0)
    assert epsilon_schedule(ActorSettings(epsilon_off_after=0))(0) == 0.0


def test_discount_follows_its_settings() -> None:
    """Constant to the bit, or with 1 - gamma falling by equal factors from one end to the other."""
    assert {discount_schedule(LearnerSettings(discount=0.997), 100)(step) for step in (0, 50, 100, 101)} == {0.997}
    discount = discount_schedule(LearnerSettings(discount=0.97, discount_end=0.997), 100)
    assert [discount(step) for step in (0, 50, 100, 1000)] == pytest.approx(
        [0.97, 1 - (0.03 * 0.003) ** 0.5, 0.997, 0.997], rel=1e-12
    )


def test_n_follows_its_settings() -> None:
    """Whole numbers along a straight line: each is kept as long as the line is nearest to it."""
    assert {n_step_schedule(ReplaySettings(n_step=3), 100)(step) for step in (0, 50, 100, 101)} == {3}
    n_step = n_step_schedule(ReplaySettings(n_step=10, n_step_end=3), 700)
    found = [n_step(step) for step in range(0, 900)]
    assert all(type(n) is int for n in found)
    assert found[0] == 10 and set(found[651:]) == {3} and sorted(found, reverse=True) == found
    assert all(found[100 * i + 51 : 100 * i + 150] == [9 - i] * 99 for i in range(6))


def test_the_learner_follows_its_settings() -> None:
    """Each schedule has its own start at the first step and its own end at the last; the step size may be constant."""
    replay = ReplaySettings(n_step=5, n_step_end=2, importance_exponent=0.3, importance_exponent_end=0.8)
    learner = LearnerSettings(learning_rate=1e-3, learning_rate_end=1e-5, discount=0.9, discount_end=0.99)
    schedules = learner_schedules(Settings(replay=replay, learner=learner), 1000)
    ends = {"learning_rate": (1e-3, 1e-5), "importance_exponent": (0.3, 0.8), "discount": (0.9, 0.99), "n_step": (5, 2)}
    assert {name: (at(0), at(1000)) for name, at in schedules.items()} == {k: pytest.approx(v) for k, v in ends.items()}
    assert learner_schedules(Settings(), 1000)["learning_rate"](1000) == LearnerSettings().learning_rate
