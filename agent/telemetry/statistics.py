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


def iqm_curve(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `iqm` and the ends of its 95 % bootstrap interval over the seeds at every point of values [seeds, points].

    Each equals what `iqm` and `bootstrap_ci` say of the point's column; all points share their resamples.
    """
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile([_middle(values[row]) for row in rows], [2.5, 97.5], axis=0)
    return _middle(values), low, high


def _middle(values: np.ndarray) -> np.ndarray:
    """The interquartile mean of each column."""
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


def improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the probability that a seed of ours beats one of theirs on a random game; a tie counts half.

    Each is a list with an array of scores for every game (Agarwal et al. 2021, section 4.3).
    """
    wins = [np.sign(np.subtract.outer(our, their)).mean() for our, their in zip(ours, theirs, strict=True)]
    return float(np.mean(wins) / 2 + 0.5)


def improvement_ci(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of `improvement` when seeds are drawn anew on every game on its own."""
    generator = np.random.default_rng(seed)

    def drawn(games: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [generator.choice(scores, len(scores)) for scores in games]

    low, high = np.percentile([improvement(drawn(ours), drawn(theirs)) for _ in range(resamples)], [2.5, 97.5])
    return float(low), float(high)


def performance_profile(
    games: Sequence[np.ndarray], levels: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of runs whose score lies above each level, games weighing alike, and its 95 % interval."""
    generator = np.random.default_rng(seed)

    def above(drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean([(scores[:, None] > levels).mean(axis=0) for scores in drawn], axis=0)

    draws = [above([generator.choice(scores, len(scores)) for scores in games]) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return above(games), low, high


def _checked(x: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"A statistic needs a list of at least one value; this has the shape {values.shape}.")
    return values
