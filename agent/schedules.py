"""Functions of the environment step. A schedule is plain data plus a call, so it needs no state in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import Any, NamedTuple

from agent.config import ActorSettings, LearnerSettings, ReplaySettings, Settings


class Linear(NamedTuple):
    """A value that moves from `start` to `end` in a straight line over `over` environment steps, then stays."""

    start: float
    end: float
    over: int

    def __call__(self, step: int) -> float:
        """Return the value at environment step `step`."""
        if step >= self.over:
            return self.end
        return self.start + (self.end - self.start) * max(step, 0) / self.over


class Exponential(NamedTuple):
    """A value that approaches `end`, a factor e closer every `over` environment steps, and never arrives."""

    start: float
    end: float
    over: int

    def __call__(self, step: int) -> float:
        """Return the value at environment step `step`."""
        return self.end + (self.start - self.end) * exp(-max(step, 0) / self.over)


def constant(value: float) -> Linear:
    """Return the schedule that is `value` at every step."""
    return Linear(value, value, 1)


def epsilon_schedule(actor: ActorSettings) -> Callable[[int], float]:
    """Return the probability of a random action, before the ladder over the games."""
    kind = {"linear": Linear, "exponential": Exponential}[actor.epsilon_schedule]
    epsilon, off_after = kind(actor.epsilon_start, actor.epsilon_end, actor.epsilon_steps), actor.epsilon_off_after
    return epsilon if off_after is None else lambda step: epsilon(step) if step < off_after else 0.0


def discount_schedule(learner: LearnerSettings, steps: int) -> Callable[[int], float]:
    """Return gamma in a run of `steps`: 1 - gamma moves geometrically."""
    if learner.discount_end is None:
        return constant(learner.discount)
    away = Linear(log(1.0 - learner.discount), log(1.0 - learner.discount_end), steps)
    return lambda step: 1.0 - exp(away(step))


def n_step_schedule(replay: ReplaySettings, steps: int) -> Callable[[int], int]:
    """Return n in a run of `steps`: a straight line, rounded."""
    line = Linear(replay.n_step, replay.n_step if replay.n_step_end is None else replay.n_step_end, steps)
    return lambda step: round(line(step))


def learner_schedules(settings: Settings, steps: int) -> dict[str, Callable[[int], Any]]:
    """Return what the learner is asked to follow in a run of `steps`, by the names of its arguments."""
    replay, learner = settings.replay, settings.learner
    end_rate = learner.learning_rate if learner.learning_rate_end is None else learner.learning_rate_end
    return {
        "learning_rate": Linear(learner.learning_rate, end_rate, steps),
        "importance_exponent": Linear(replay.importance_exponent, replay.importance_exponent_end, steps),
        "discount": discount_schedule(learner, steps),
        "n_step": n_step_schedule(replay, steps),
    }
