"""The interquartile mean and bootstrap confidence intervals, as Agarwal et al. 2021 recommend for scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def iqm(x: Sequence[float] | np.ndarray) -> float:
    """Return the mean of the middle half of `x`: a quarter of the values, rounded down, is left out at either end.

    With fewer than four values this is the plain mean. Equals `scipy.stats.trim_mean(x, 0.25)`.
    """
    values = np.sort(_checked(x))
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_ci(
    x: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval (low, high) of `statistic(x)`; it is a function of `seed`."""
    values = _checked(x)
    generator = np.random.default_rng(seed)
    draws = [statistic(generator.choice(values, values.size)) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def stratified_bootstrap_ci(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], float] = iqm,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of `statistic` over scores [seeds, games], of which it is given all at once.

    Seeds are drawn anew for every game on its own, so that each resample has every game equally often (Agarwal et al.
    2021, section 4.1).
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"Scores are a table [seeds, games]; this has the shape {table.shape}.")
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(table), size=(resamples, *table.shape))
    low, high = np.percentile([statistic(np.take_along_axis(table, row, axis=0).ravel()) for row in rows], [2.5, 97.5])
    return float(low), float(high)


def _checked(x: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"A statistic needs a list of at least one value; this has the shape {values.shape}.")
    return values
