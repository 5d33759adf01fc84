"""Real weights become whole ones: least squares before, errors handed on while rounding, and steps that are dyadic.

Everything is linear algebra in float64 over what a layer sees on calibration states; nothing is drawn at random.
"""

from __future__ import annotations

import numpy as np

BLOCK = 64  # columns that are rounded before the others hear of their errors: one matrix product instead of many sums


def dyadic(ratio: np.ndarray, bits: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest multiplier / 2^shift that is at least `ratio`, i32 and i8, or the nearest within the limits.

    The multiplier is 1 .. 2^bits - 1, the shift 0 .. places.
    """
    most = 2**bits - 1
    shift = np.clip(np.floor(np.log2(most / ratio)), 0, places).astype(np.int64)
    multiplier = np.clip(np.ceil(np.ldexp(ratio, shift)), 1, most)
    return multiplier.astype(np.int32), shift.astype(np.int8)


def nearest_dyadic(ratio: float, bits: int = 15) -> tuple[int, int]:
    """Return the multiplier / 2^shift of so many bits, and at most 45 places, that is nearest to `ratio`."""
    most = 2**bits - 1
    shift = int(np.clip(np.floor(np.log2(most / ratio)), 0, 45))
    return int(np.clip(np.rint(np.ldexp(ratio, shift)), 1, most)), shift


class Seen:
    """What a layer sees in integers and should answer, on calibration states: the judge of its weights.

    `damping`, as a share of the mean variance of an input, is how far least squares hold on to the weights they are
    given; with few states they would otherwise learn them by heart.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, damping: float):
        self._mean, self._target_mean = inputs.mean(0), targets.mean(0)
        self._centred, self._targets = inputs - self._mean, targets - self._target_mean  # [N, in], [N, out]
        covariance = self._centred.T @ self._centred / len(inputs)
        diagonal = np.diag_indices_from(covariance)
        covariance[diagonal] += damping * covariance[diagonal].mean() + 1e-12
        self.covariance = covariance  # [in, in], damped

    def corrected(self, weight: np.ndarray) -> np.ndarray:
        """Return the weights near `weight` that answer best to inputs with all their rounding errors, [out, in]."""
        missed = self._targets - self._centred @ weight.T
        return weight + np.linalg.solve(self.covariance, self._centred.T @ missed / len(missed)).T

    def bias(self, weight: np.ndarray) -> np.ndarray:
        """Return the bias with which `weight` answers right on average, [out]."""
        return self._target_mean - weight @ self._mean


def rounded(weight: np.ndarray, covariance: np.ndarray, most: int) -> np.ndarray:
    """Return whole weights within -most .. most, [out, in], whose answers are near those of `weight`.

    Column by column, the least predictable input first; each column's error is made good, as far as the inputs go
    together, by the columns not yet rounded (GPTQ: Frantar et al. 2022, after Hassibi & Stork 1993).
    """
    order = np.argsort(-np.diag(covariance), kind="stable")
    flipped = np.linalg.cholesky(covariance[np.ix_(order, order)][::-1, ::-1])
    hand_on = np.linalg.inv(flipped[::-1, ::-1])  # upper triangular, its square the inverse of the covariance
    left = weight[:, order].astype(np.float64)
    whole = np.empty_like(left)
    for start in range(0, left.shape[1], BLOCK):
        stop = min(start + BLOCK, left.shape[1])
        errors = np.empty((len(left), stop - start))
        for column in range(start, stop):
            whole[:, column] = np.clip(np.rint(left[:, column]), -most, most)
            errors[:, column - start] = (left[:, column] - whole[:, column]) / hand_on[column, column]
            left[:, column:stop] -= np.outer(errors[:, column - start], hand_on[column, column:stop])
        left[:, stop:] -= errors @ hand_on[start:stop, stop:]
    result = np.empty_like(whole)
    result[:, order] = whole
    return result
