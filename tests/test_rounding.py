"""Rounding of weights: each clever step against the slow and obvious one."""

from __future__ import annotations

import numpy as np
import pytest

from agent.freeze import rounding
from agent.freeze.rounding import Seen, dyadic, nearest_dyadic, rounded


def correlated(count: int, inputs: int, seed: int = 0) -> np.ndarray:
    """States whose entries go together, as those of a hidden layer do."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 5)) @ rng.normal(size=(5, inputs)) + 0.3 * rng.normal(size=(count, inputs))


def test_dyadic() -> None:
    """No smaller multiplier / 2^shift is at least the ratio; beyond the limits the nearest is taken."""
    ratios = np.exp(np.random.default_rng(0).uniform(np.log(1e-4), np.log(60), 200))
    multiplier, shift = dyadic(ratios, 6, 16)
    every = np.sort(np.arange(1, 64)[:, None] / 2.0 ** np.arange(17), axis=None)
    assert np.array_equal(multiplier / 2.0**shift, every[np.searchsorted(every, ratios)])
    multiplier, shift = dyadic(np.array([1e-9, 900.0]), 6, 16)
    assert (multiplier.tolist(), shift.tolist()) == ([1, 63], [16, 0])


def test_nearest_dyadic() -> None:
    """With 15 bits a ratio is met to one part in 2^15, with 5 to one in 2^5."""
    for ratio in np.exp(np.random.default_rng(0).uniform(np.log(1e-8), np.log(1e4), 200)):
        for bits in (5, 15):
            multiplier, shift = nearest_dyadic(ratio, bits)
            assert 1 <= multiplier < 2**bits
            assert 0 <= shift <= 45
            if ratio < 2**bits - 1:
                assert abs(multiplier / 2**shift / ratio - 1) <= 2**-bits


def test_least_squares() -> None:
    """Without damping the corrected weights and the bias are those of a regression with an intercept."""
    x = correlated(300, 8)
    targets = np.random.default_rng(1).normal(size=(300, 3)) + x @ np.ones((8, 3)) + 5
    seen = Seen(x, targets, 0.0)
    weight = seen.corrected(np.zeros((3, 8)))
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(300)]), targets, rcond=None)[0]
    np.testing.assert_allclose(weight, expected[:-1].T, rtol=1e-6)
    np.testing.assert_allclose(seen.bias(weight), expected[-1], rtol=1e-6)


def test_damping() -> None:
    """Strong damping leaves the weights as they are, and the bias makes the mean right in any case."""
    x = correlated(50, 80)
    weight, targets = np.random.default_rng(1).normal(size=(2, 80)), np.random.default_rng(2).normal(size=(50, 2))
    seen = Seen(x, targets, 1e9)
    np.testing.assert_allclose(seen.corrected(weight), weight, atol=1e-6)
    np.testing.assert_allclose((x @ weight.T + seen.bias(weight)).mean(0), targets.mean(0))


def slowly_rounded(weight: np.ndarray, covariance: np.ndarray, most: int) -> np.ndarray:
    """One row: after every column those left are solved for anew, so that the row answers as well as it still can."""
    order = np.argsort(-np.diag(covariance), kind="stable")
    whole = np.zeros_like(weight)
    for place, column in enumerate(order):
        done, left = order[:place], order[place:]
        felt = covariance[np.ix_(left, done)] @ (whole - weight)[done]
        missed = np.linalg.solve(covariance[np.ix_(left, left)], felt)
        whole[column] = np.clip(np.rint(weight[column] - missed[0]), -most, most)
    return whole


def test_rounded() -> None:
    """Errors are handed on as by solving anew after every column, across blocks, within the limits."""
    x = correlated(400, 2 * rounding.BLOCK + 10)
    covariance = Seen(x, x[:, :1], 1e-3).covariance
    weight = np.random.default_rng(1).normal(size=(3, x.shape[1])) * 4
    found = rounded(weight, covariance, 9)
    assert np.array_equal(found, [slowly_rounded(row, covariance, 9) for row in weight])
    assert np.abs(found).max() <= 9


def test_rounded_without_correlation() -> None:
    """Where inputs do not go together nothing can be made good: weights are rounded to the nearest."""
    weight = np.random.default_rng(1).normal(size=(3, 90)) * 4
    assert np.array_equal(rounded(weight, np.diag(np.linspace(1, 2, 90)), 99), np.rint(weight))


@pytest.mark.parametrize("seed", range(3))
def test_rounded_answers_better(seed: int) -> None:
    """On correlated inputs the answers miss by less than half of what rounding to the nearest misses by."""
    x = correlated(1000, 60, seed)
    weight = np.random.default_rng(seed).normal(size=(8, 60)) * 3
    found = rounded(weight, Seen(x, x, 1e-3).covariance, 127)
    nearest, handed_on = (np.square(x @ (each - weight).T).mean() for each in (np.rint(weight), found))
    assert handed_on < 0.25 * nearest
