"""Drives a training from where it stands to its end: our agent's ticks, or stable-baselines3's callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

from agent.cli.control import Control
from agent.cli.broken_off import breaking_off
from agent.cli.record import Beat, Record
from agent.cli.session import Session, evaluation_seed
from agent.cli.stock_session import StockSession
from agent.cli.stop import Left, Stop
from agent.probes import Probes, StartValues
from agent.sb3 import stock
from agent.seeding import seed_for
from agent.telemetry.machine import Machine
from agent.telemetry.plateau import budgets_spent
from agent.telemetry.rates import Rates
from agent.types import Episode, Step


def drive(session: Session, record: Record, stop: Stop, control: Control | None = None) -> bool:
    """Train until the steps are played, the score is reached, a plateau ends it or `stop` is asked; return if finished.

    The end is evaluated (unless stopped) and always saved. `control` shows the run to onlookers and lets them steer it.
    """
    settings = session.settings
    steps = session.clock.steps
    evaluate = Beat(settings.evaluation.interval_steps, record.judged)
    save = Beat(settings.checkpoint.interval_steps, steps)
    clock = time.perf_counter if control is None else control.clock
    rates = Rates(steps, session.learner.updates, session.spec.action_names, clock=clock)
    # By the wall clock there is no moment for them: a look takes longer than a step of the game may wait.
    probes = Probes(session.learner, session.replay, settings.seed) if session.pace is None else None

    def values() -> dict[str, float]:
        if probes is None:
            return rates.take(record.telemetry_s) | session.metrics()
        return rates.take(record.telemetry_s + probes.spent_s) | session.metrics() | probes.take()

    session.learner.say = session.faults.say = record.progress.say
    if session.pace is not None:
        session.pace.say = record.progress.say
    _lower(session, record)  # as often as the evaluations before a resume say
    record.progress.update(steps)
    done = False
    with breaking_off(session, record):
        done = _evaluate(session, record, stop, evaluate, steps, control)  # one that was owed when the run was stopped
        ticks = session.ticks()
        while not done and stop.signal is None:
            tick = next(ticks)
            steps = tick.steps
            rates.add(tick)
            record.monitor.record(tick.step.episodes)
            record.progress.update(steps)
            if probes is not None:
                probes.after(steps)
            record.flush(steps, values)
            done = _evaluate(session, record, stop, evaluate, steps, control)
            if save.due(steps) and not done and stop.signal is None:
                record.checkpoint(steps, session.state_dict)
            if control is not None and not done:
                control.after(tick)
            for sentence in session.news():
                record.progress.say(sentence)
        record.flush(steps, values, now=True)
    if session.pace is not None:
        record.progress.say(session.pace.summary())
    _end(session, record, stop, steps)
    return done


def drive_stock(session: StockSession, record: Record, stop: Stop, control: Control | None = None) -> bool:
    """Train one of stable-baselines3's own algorithms in the same way; return whether it was finished."""
    settings, algorithm = session.settings, session.algorithm
    steps = algorithm.num_timesteps
    evaluate = Beat(settings.evaluation.interval_steps, record.judged)
    save = Beat(settings.checkpoint.interval_steps, steps)
    clock = time.perf_counter if control is None else control.clock
    since, steps_since, machine = clock(), steps, Machine()

    def speed(steps: int) -> dict[str, float]:
        nonlocal since, steps_since
        now = clock()
        rate = (steps - steps_since) / max(now - since, 1e-9)
        since, steps_since = now, steps
        return {"time/steps_per_s": rate} | session.faults.figures() | machine.figures()

    def on_beat(steps: int, episodes: list[Any]) -> bool:
        record.monitor.record(episodes)
        record.progress.update(steps)
        record.flush(steps, partial(speed, steps))
        if control is not None and not done:
            control.after_beat(steps)
        for sentence in session.news():
            record.progress.say(sentence)
        return stop.signal is None and not done

    def on_settled(steps: int) -> None:
        nonlocal done
        session.settled = steps
        done = done or _evaluate(session, record, stop, evaluate, steps, control)
        if save.due(steps) and not done and stop.signal is None:
            record.checkpoint(steps, session.state_dict)
        if control is not None:
            control.settled(steps)

    session.faults.say = record.progress.say
    record.progress.update(steps)
    session.settled, done = steps, False
    with breaking_off(session, record), _left_between_updates(record.stop):
        done = _evaluate(session, record, stop, evaluate, steps, control)
        if not done and stop.signal is None:
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


@contextmanager
def _left_between_updates(stop: Stop) -> Iterator[None]:
    """Leave stable-baselines3's updates where they are if a stop waits for them: a round of PPO's may take minutes."""

    def look(*given: Any) -> None:
        if stop.overdue:
            raise Left

    hook = register_optimizer_step_post_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _end(session: Session | StockSession, record: Record, stop: Stop, steps: int) -> None:
    """Save, whether finished or stopped; a large replay takes a while to write, so a person who stops it is told."""
    record.show_average(steps)
    if record.saved != steps:
        if stop.signal is not None:
            record.progress.say("stopping: one last checkpoint is written")
        record.checkpoint(steps, session.state_dict, last=True)
    record.stop.safe = True
    if stop.signal is None:
        _portray(session, record, steps, last=True)


def _portray(session: Session | StockSession, record: Record, steps: int, *, last: bool = False) -> None:
    """Show the policy at play on the dashboard, if it is time; the same game every time."""
    act = session.act(seed_for(session.settings.seed, "pictures"))
    record.portray(steps, act, session.q if isinstance(session, Session) else None, last=last)


class _Stopped(Exception):
    """Leaves an evaluation between two steps of its games."""


def _evaluate(
    session: Session | StockSession, record: Record, stop: Stop, due: Beat, steps: int, control: Control | None
) -> bool:
    """Evaluate when it is time; return whether the run has come to its end: all steps, its score or a plateau.

    A stop ends an evaluation at once, and with it what is left of the run; it is owed when the run goes on.
    """
    settings = session.settings
    ended = steps >= settings.steps
    if not due.due(steps) and not (ended and settings.evaluation.interval_steps and record.judged != steps):
        return ended
    try:
        with record.judging():
            promised = _start_values(session, steps)
            episodes = _play(session, stop, steps, control, on_step=promised)
            seen = _play(session, stop, steps, control, seen=True) if settings.game.seeds is not None else []
    except _Stopped:
        return False
    mean = record.evaluation(steps, episodes, session.weights, seen)
    if promised is not None:
        record.board.write(steps, promised.figures())
    _portray(session, record, steps)
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


def _start_values(session: Session | StockSession, steps: int) -> StartValues | None:
    """What tells whether an evaluation's start was overestimated; None where the values promise more than rewards."""
    if not isinstance(session, Session) or session.settings.learner.munchausen:  # whose bonus no game pays
        return None
    learner = session.learner
    return StartValues(learner.average, learner.discount(steps), session.settings.replay.reward_clip)


def _play(
    session: Session | StockSession,
    stop: Stop,
    steps: int,
    control: Control | None,
    *,
    seen: bool = False,
    on_step: Callable[[Step, np.ndarray, Step], object] | None = None,
) -> list[Episode]:
    settings = session.settings
    seed = evaluation_seed(settings, steps)
    act = session.act(seed)

    def act_unless_stopped(observation: np.ndarray) -> np.ndarray:
        if control is not None:
            control.breathe()
        if stop.signal is not None:
            raise _Stopped
        return act(observation)

    try:
        return session.judge.play(act_unless_stopped, settings.evaluation.episodes, seed, on_step=on_step, seen=seen)
    except Left:  # a game of the evaluation does not answer; those of training stand between two steps
        raise _Stopped from None
