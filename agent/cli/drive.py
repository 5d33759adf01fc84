"""Drives a training from where it stands to its end: our agent's ticks, or stable-baselines3's callbacks."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from agent.cli.record import Beat, Record, Stop
from agent.cli.session import Session, evaluation_seed
from agent.cli.stock_session import StockSession
from agent.sb3 import stock
from agent.telemetry.plateau import budgets_spent
from agent.telemetry.rates import Rates
from agent.types import Episode


def drive(session: Session, record: Record, stop: Stop) -> bool:
    """Train until the steps are played, the score is reached, a plateau ends it or `stop` is asked; return if finished.

    The end is evaluated (unless stopped) and always saved.
    """
    settings = session.settings
    steps = session.clock.steps
    evaluate = Beat(settings.evaluation.interval_steps, record.judged)
    save = Beat(settings.checkpoint.interval_steps, steps)
    rates = Rates(steps, session.learner.updates)

    def values() -> dict[str, float]:
        return rates.take() | session.metrics()

    session.learner.say = record.progress.say
    if session.pace is not None:
        session.pace.say = record.progress.say
    _lower(session, record)  # as often as the evaluations before a resume say
    record.progress.update(steps)
    done = _evaluate(session, record, stop, evaluate, steps)  # one that was owed when the run was stopped
    ticks = session.ticks()
    while not done and stop.signal is None:
        tick = next(ticks)
        steps = tick.steps
        rates.add(tick)
        record.monitor.record(tick.step.episodes)
        record.progress.update(steps)
        record.flush(steps, values)
        done = _evaluate(session, record, stop, evaluate, steps)
        if save.due(steps) and not done and stop.signal is None:
            record.checkpoint(steps, session.state_dict)
    record.flush(steps, values, now=True)
    _end(session, record, stop, steps)
    return done


def drive_stock(session: StockSession, record: Record, stop: Stop) -> bool:
    """Train one of stable-baselines3's own algorithms in the same way; return whether it was finished."""
    settings, algorithm = session.settings, session.algorithm
    steps = algorithm.num_timesteps
    evaluate = Beat(settings.evaluation.interval_steps, record.judged)
    save = Beat(settings.checkpoint.interval_steps, steps)
    since, steps_since = time.perf_counter(), steps

    def speed(steps: int) -> dict[str, float]:
        nonlocal since, steps_since
        now = time.perf_counter()
        rate = (steps - steps_since) / (now - since)
        since, steps_since = now, steps
        return {"time/steps_per_s": rate}

    def on_beat(steps: int, episodes: list[Any]) -> bool:
        record.monitor.record(episodes)
        record.progress.update(steps)
        record.flush(steps, partial(speed, steps))
        return stop.signal is None and not done

    def on_settled(steps: int) -> None:
        nonlocal done
        done = done or _evaluate(session, record, stop, evaluate, steps)
        if save.due(steps) and not done and stop.signal is None:
            record.checkpoint(steps, session.state_dict)

    record.progress.update(steps)
    done = _evaluate(session, record, stop, evaluate, steps)
    if not done:
        stock.train(
            algorithm,
            settings.steps,
            on_beat=on_beat,
            on_settled=on_settled,
            on_scalars=lambda steps, values: record.flush(steps, lambda: values, now=True),
            interval_s=settings.telemetry.interval_s,
        )
    _end(session, record, stop, algorithm.num_timesteps)
    return done


def _end(session: Session | StockSession, record: Record, stop: Stop, steps: int) -> None:
    """Save, whether finished or stopped; a large replay takes a while to write, so a person who stops it is told."""
    record.show_average(steps)
    if stop.signal is not None:
        record.progress.say("stopping: one last checkpoint is written")
    record.checkpoint(steps, session.state_dict, last=True)


class _Stopped(Exception):
    """Leaves an evaluation between two steps of its games."""


def _evaluate(session: Session | StockSession, record: Record, stop: Stop, due: Beat, steps: int) -> bool:
    """Evaluate when it is time; return whether the run has come to its end: all steps, its score or a plateau.

    A stop ends an evaluation at once, and with it what is left of the run; it is owed when the run goes on.
    """
    settings = session.settings
    ended = steps >= settings.steps
    if not due.due(steps) and not (ended and settings.evaluation.interval_steps and record.judged != steps):
        return ended
    try:
        episodes = _play(session, stop, steps)
        seen = _play(session, stop, steps, seen=True) if settings.game.seeds is not None else []
    except _Stopped:
        return False
    mean = record.evaluation(steps, episodes, session.weights, seen)
    target = settings.evaluation.stop_at_score
    return ended or (target is not None and mean >= target) or _ends_on_plateau(session, record)


def _ends_on_plateau(session: Session | StockSession, record: Record) -> bool:
    """Heed the plateau rule after an evaluation; return whether it ends the run.

    What counts is that this evaluation completes a budget: a run that is resumed after its end goes on to the next one.
    """
    plateau, history = session.settings.evaluation.plateau, _history(session, record)
    if plateau.action == "none":
        return False
    spent, before = (budgets_spent(known, plateau.budget_steps) for known in (history, history[:-1]))
    if spent == before:
        return False
    found = f"plateau: no improvement for {plateau.budget_steps:,} steps (evaluation.plateau)"
    if plateau.action == "stop":
        record.progress.say(f"{found}: the run ends here")
        return True
    _lower(session, record)
    record.progress.say(f"{found}: the learning rate is now multiplied by {plateau.factor**spent:.3g}")
    return False


def _history(session: Session | StockSession, record: Record) -> list[tuple[int, list[float]]]:
    """The evaluations since learning began, at the steps at which they were due: many games overshoot them a little."""
    interval, starts = session.settings.evaluation.interval_steps, session.settings.learner.learning_starts
    return [(steps // interval * interval, scores) for steps, scores in record.evaluations.history if steps > starts]


def _lower(session: Session, record: Record) -> None:
    """Scale the learning rate by what the evaluations so far say, so that a resumed run needs no state for it."""
    plateau = session.settings.evaluation.plateau
    if plateau.action == "lower":
        spent = budgets_spent(_history(session, record), plateau.budget_steps)
        session.learner.rate_scale = plateau.factor**spent


def _play(session: Session | StockSession, stop: Stop, steps: int, *, seen: bool = False) -> list[Episode]:
    settings = session.settings
    seed = evaluation_seed(settings, steps)
    act = session.act(seed)

    def act_unless_stopped(observation: np.ndarray) -> np.ndarray:
        if stop.signal is not None:
            raise _Stopped
        return act(observation)

    return session.judge.play(act_unless_stopped, settings.evaluation.episodes, seed, seen=seen)
