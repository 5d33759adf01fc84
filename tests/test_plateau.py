"""The plateau rule, against a slow one that looks at every evaluation anew."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry import plateau
from agent.telemetry.plateau import budgets_spent
from agent.telemetry.statistics import bootstrap_ci


def run(*means: float, spread: float = 1.0, every: int = 10) -> list[tuple[int, list[float]]]:
    """Evaluations of four episodes around these means, `every` steps apart."""
    return [(every * at, [mean - spread, mean, mean, mean + spread]) for at, mean in enumerate(means, start=1)]


@pytest.mark.parametrize(
    ("means", "budget", "spent"),
    [
        ([], 10, 0),
        ([0], 10, 0),
        ([0, 5, 10, 15], 10, 0),  # always better
        ([0, 0, 0], 20, 1),  # exactly one budget after the first
        ([0, 0, 0], 21, 0),
        ([0, 0, 0, 0, 0], 20, 2),  # again after every further budget
        ([0, 5, 5, 5], 20, 1),  # counted from the best, not from the start
        ([0, 0, 0, 5], 20, 1),  # what was spent stays spent after an improvement
        ([0, 0, 0, 5, 5, 5], 20, 2),
        ([0, 0.2, 0.4, 0.6, 0.8, 1.0], 30, 1),  # each within the interval, until their sum shows
        ([0, 0.5, 0.6, 0.4], 30, 1),  # better, but not by more than the interval
        ([5, 0, 0, 4, 3], 20, 2),  # better than before, but not than the best
    ],
)
def test_known_stories(means: list[float], budget: int, spent: int) -> None:
    """Each story of a run counts as a person would count it."""
    assert budgets_spent(run(*means), budget) == spent


@cache
def upper_end(scores: tuple[float, ...]) -> float:
    """Where the interval ends."""
    return bootstrap_ci(scores)[1]


def slow(evaluations: list[tuple[int, list[float]]], budget: int) -> int:
    """The same rule told backwards: walk to every evaluation and ask when a budget was complete."""
    improved = [0]
    for at, (_, scores) in enumerate(evaluations[1:], start=1):
        if np.mean(scores) > upper_end(tuple(evaluations[improved[-1]][1])):
            improved.append(at)
    total = 0
    for start, end in zip(improved, [*improved[1:], len(evaluations)], strict=True):
        steps = [steps for steps, _ in evaluations[start:end]]
        total += sum(1 for times in range(1, 100) if steps[-1] - steps[0] >= times * budget)
    return total


@settings(max_examples=40)  # each takes some bootstraps
@given(
    st.lists(st.tuples(st.integers(1, 30), st.tuples(*[st.integers(0, 6)] * 3)), min_size=1, max_size=8),
    st.integers(5, 40),
)
def test_equals_the_slow_rule_and_never_falls(gaps: list[tuple[int, tuple[int, ...]]], budget: int) -> None:
    """For any evaluations the count is that of the slow rule, and one more evaluation never lowers it."""
    steps = np.cumsum([gap for gap, _ in gaps]).tolist()
    evaluations = [(at, [float(score) for score in scores]) for at, (_, scores) in zip(steps, gaps, strict=True)]
    counts = [budgets_spent(evaluations[:known], budget) for known in range(len(evaluations) + 1)]
    assert counts[-1] == slow(evaluations, budget)
    assert counts == sorted(counts)


def test_an_interval_is_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking after every evaluation costs one bootstrap for each that improved."""
    asked = []
    monkeypatch.setattr(plateau, "bootstrap_ci", lambda scores: asked.append(scores) or bootstrap_ci(scores))
    evaluations = run(3, 3, 8, 8, 8, 2, spread=0.123)
    for known in range(len(evaluations) + 1):
        budgets_spent(evaluations[:known], 10)
    assert len(asked) == 2
