"""The plateau rule: when a run has stopped improving, read off its evaluations and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from agent.telemetry.statistics import bootstrap_ci

Evaluation = tuple[int, Sequence[float]]  # environment steps, raw scores


def budgets_spent(evaluations: Iterable[Evaluation], budget_steps: int) -> int:
    """Return how many times `budget_steps` have passed without an improvement, over the whole run; it never falls.

    An evaluation improves when its mean lies above the 95 % interval of the last one that did; the first one does.
    Gains too small to show in one evaluation therefore count as soon as their sum shows.
    """
    closed = current = since = 0
    ceiling = -np.inf
    for steps, scores in evaluations:
        if np.mean(scores) > ceiling:
            closed, current, since, ceiling = closed + current, 0, steps, _upper_end(tuple(scores))
        else:
            current = (steps - since) // budget_steps
    return closed + current


@lru_cache(maxsize=1024)  # the rule asks again for the same evaluations after every new one
def _upper_end(scores: tuple[float, ...]) -> float:
    return bootstrap_ci(scores)[1]
