"""Sums on the device against numpy's means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.metrics import Means


def means() -> Means:
    return Means(("loss", "norm"), "q/max", torch.device("cpu"))


def add_all(metrics: Means, rows: np.ndarray) -> None:
    """Add rows of (loss, norm, q), f32 [M, 3]."""
    for row in torch.from_numpy(rows):
        metrics.add(torch.cat((torch.ones(1), row)))


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_equals_numpy(seed: int, sizes: list[int]) -> None:
    """Each look gives numpy's means in float64, and numpy's maximum, of what came since the last look."""
    rng = np.random.default_rng(seed)
    metrics = means()
    for size in sizes:
        rows = (rng.normal(size=(size, 3)) * 10.0 ** rng.integers(-3, 8) - 5.0).astype(np.float32)
        add_all(metrics, rows)
        taken = metrics.take()
        assert list(taken) == ["loss", "norm", "q/max"]
        assert taken["loss"] == pytest.approx(rows[:, 0].astype(np.float64).mean(), rel=1e-9, abs=1e-6)
        assert taken["norm"] == pytest.approx(rows[:, 1].astype(np.float64).mean(), rel=1e-9, abs=1e-6)
        assert taken["q/max"] == rows[:, 2].max()


def test_nothing_added_is_nothing_said() -> None:
    """Before the first value, and right after a look, there is nothing to report rather than a zero or a NaN."""
    metrics = means()
    assert metrics.take() == {}
    add_all(metrics, np.ones((1, 3), np.float32))
    assert metrics.take() != {}
    assert metrics.take() == {}


def test_nothing_counts_for_none() -> None:
    """What stands for a skipped update moves no mean and no maximum, and alone there is nothing to say."""
    metrics = means()
    metrics.add(metrics.nothing)
    assert metrics.take() == {}
    add_all(metrics, np.array([[1, 2, -3]], np.float32))
    metrics.add(metrics.nothing)
    assert metrics.take() == {"loss": 1.0, "norm": 2.0, "q/max": -3.0}


def test_long_sums_do_not_drift() -> None:
    """A small value after a very large one still counts: sums are kept in float64."""
    metrics = means()
    add_all(metrics, np.array([[1e9, 0, 0], [1, 0, 0], [-1e9, 0, 0]], np.float32))
    assert metrics.take()["loss"] == pytest.approx(1 / 3, abs=1e-9)


def test_a_nan_is_seen() -> None:
    """A NaN reaches whoever looks, in the mean and in the maximum, and is gone after the look."""
    metrics = means()
    add_all(metrics, np.array([[1, 2, 3], [math.nan, 2, math.nan], [1, 2, 5]], np.float32))
    taken = metrics.take()
    assert math.isnan(taken["loss"]) and math.isnan(taken["q/max"]) and taken["norm"] == 2.0
    add_all(metrics, np.ones((1, 3), np.float32))
    assert metrics.take() == {"loss": 1.0, "norm": 1.0, "q/max": 1.0}
