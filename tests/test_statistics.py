"""Tests of agent/telemetry/statistics.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.telemetry.statistics import (
    bootstrap_ci,
    improvement,
    improvement_ci,
    iqm,
    iqm_curve,
    performance_profile,
    stratified_bootstrap_ci,
)

scipy_stats = pytest.importorskip("scipy.stats")


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)))
def test_iqm_equals_scipy(x: np.ndarray) -> None:
    """The interquartile mean is scipy's mean trimmed by a quarter at either end."""
    assert iqm(x) == pytest.approx(scipy_stats.trim_mean(x, 0.25), rel=1e-9, abs=1e-6)


def test_bootstrap_agrees_with_scipy() -> None:
    """The interval is scipy's percentile bootstrap, up to the randomness of resampling."""
    x = np.random.default_rng(3).normal(10.0, 2.0, 60)
    expected = scipy_stats.bootstrap((x,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0))
    interval = expected.confidence_interval
    assert bootstrap_ci(x, resamples=4000) == pytest.approx((interval.low, interval.high), abs=0.06)


def test_bootstrap_covers_the_true_mean() -> None:
    """Of 200 samples of 40 from a known distribution about 95 % have the true mean in their interval."""
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_ci(generator.normal(1.0, 1.0, 40), resamples=200)
        hits += low <= 1.0 <= high
    assert 178 <= hits <= 199


def test_bootstrap_repeats_and_takes_a_statistic() -> None:
    """The same seed gives the same interval, another statistic gives its own."""
    x = [1.0, 2.0, 3.0, 4.0, 100.0]
    assert bootstrap_ci(x) == bootstrap_ci(x)
    assert len({bootstrap_ci(x, resamples=50, seed=seed) for seed in range(5)}) > 1
    assert bootstrap_ci(x, np.max) == (3.0, 100.0)
    assert bootstrap_ci([7.0]) == (7.0, 7.0)


@pytest.mark.parametrize("x", [[], [[1.0, 2.0]]])
def test_what_is_no_list_of_values_is_refused(x: list) -> None:
    """No values, or a table, is an error that says so."""
    with pytest.raises(ValueError, match="at least one value"):
        iqm(x)


# Scores [seeds, games] and what rliable 1.2.0 says of them (get_interval_estimates of aggregate_iqm, 20,000 resamples, in
# an environment of its own with pandas 2 and arch 7.2: today's do not import it).
TABLE = [
    [0.834, 0.869, 1.073, 1.873],
    [0.554, 1.391, 1.403, 1.815],
    [0.232, 0.32, 0.754, 1.939],
    [0.802, 0.384, 1.432, 1.413],
    [0.413, 1.744, 1.263, 1.875],
]
RLIABLE_IQM, RLIABLE_CI95 = 1.1234, (0.89959, 1.336)


def test_stratified_bootstrap_equals_rliable() -> None:
    """Interquartile mean and interval are rliable's, the latter up to the randomness of resampling."""
    assert iqm(np.ravel(TABLE)) == pytest.approx(RLIABLE_IQM, abs=1e-9)
    assert stratified_bootstrap_ci(np.array(TABLE), resamples=20_000) == pytest.approx(RLIABLE_CI95, abs=0.006)


def test_stratified_bootstrap_keeps_every_game() -> None:
    """Games whose seeds all agree leave nothing to chance, however far they lie apart; mixing them would."""
    table = np.tile([0.0, 1.0, 50.0, 100.0], (5, 1))
    assert stratified_bootstrap_ci(table, np.mean) == (37.75, 37.75)


def test_stratified_bootstrap_wants_a_table() -> None:
    """A list is an error that says so."""
    with pytest.raises(ValueError, match="table"):
        stratified_bootstrap_ci(np.ones(3))


def test_a_curve_is_iqm_and_interval_of_every_point() -> None:
    """All points at once give exactly what one after the other gives."""
    values = np.random.default_rng(2).normal(size=(9, 6))
    middle, low, high = iqm_curve(values, resamples=300, seed=4)
    assert middle == pytest.approx([iqm(column) for column in values.T])
    expected = [bootstrap_ci(column, iqm, resamples=300, seed=4) for column in values.T]
    assert np.stack([low, high], axis=1) == pytest.approx(np.array(expected))


# A second table, with three seeds, and what the same rliable says of both: probability_of_improvement with 20,000
# resamples, and create_performance_profile at these levels.
OTHER = [[0.5, 0.869, 1.1, 1.2], [0.6, 0.9, 1.403, 1.9], [0.3, 0.2, 0.7, 1.0]]
RLIABLE_IMPROVEMENT, RLIABLE_IMPROVEMENT_CI95 = 0.65, (0.425, 0.85)
LEVELS = np.array([0.0, 0.4, 0.8, 1.2, 1.6, 2.0])
RLIABLE_PROFILE = [1.0, 0.85, 0.7, 0.5, 0.25, 0.0]
RLIABLE_PROFILE_CI95 = [[1.0, 0.7, 0.5, 0.35, 0.15, 0.0], [1.0, 1.0, 0.85, 0.65, 0.35, 0.0]]


def test_probability_of_improvement_equals_rliable() -> None:
    """Value and interval are rliable's; ties, of which the tables hold one, count half."""
    ours, theirs = list(np.transpose(TABLE)), list(np.transpose(OTHER))
    assert improvement(ours, theirs) == pytest.approx(RLIABLE_IMPROVEMENT, abs=1e-12)
    assert improvement(theirs, ours) == pytest.approx(1 - RLIABLE_IMPROVEMENT, abs=1e-12)
    assert improvement_ci(ours, theirs, resamples=5_000) == pytest.approx(RLIABLE_IMPROVEMENT_CI95, abs=0.02)


def test_performance_profile_equals_rliable() -> None:
    """Shares and intervals are rliable's; a score that only reaches a level is not above it."""
    share, low, high = performance_profile(list(np.transpose(TABLE)), LEVELS, resamples=5_000)
    assert share == pytest.approx(RLIABLE_PROFILE, abs=1e-12)
    assert np.stack([low, high]) == pytest.approx(np.array(RLIABLE_PROFILE_CI95), abs=0.051)  # one run of twenty
    assert performance_profile([np.array([1.0])], np.array([1.0]))[0].tolist() == [0.0]
