"""icebox resume RUN: go on with a run exactly where its newest intact checkpoint stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from agent.cli.record import load_checkpoint
from agent.cli.session import Session
from agent.cli.stop import Left, Stop
from agent.cli.train import make_session, play_out, shown_path
from agent.cli.words import command, complain, tell
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder, find


@dataclass(frozen=True)
class Arguments:
    """Go on with RUN: weights, optimizer, replay, exploration and games continue where they were saved."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run folder, 'latest', or 'GAME/latest'."""
    steps: int | None = None
    """Environment steps in total, those already played included; default: as it was last told."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """No progress line; only what goes wrong and the result."""


def run(arguments: Arguments) -> int:
    """Resume as the arguments say; return 0 when finished or terminated by SIGTERM, 130 after Ctrl-C."""
    if arguments.steps is not None and arguments.steps < 1:
        raise ValueError(f"--steps: must be a whole number, at least 1, got {arguments.steps}.")
    folder = RunFolder.open(find(arguments.runs_dir, arguments.run))
    before = folder.meta() | {"status": folder.status}
    # Held before anything is read: another process might be about to write a newer checkpoint.
    with Stop() as stop, folder.hold():
        stop.resume = command("resume", shown_path(folder.path))
        session = None
        try:
            loaded, skipped = load_checkpoint(folder)
            stop.newest = f"The checkpoint at {loaded['steps']:,} steps"
            for sentence in skipped:
                complain(sentence)
            settings = _settings(folder, before, loaded, arguments.steps)
            session = make_session(folder.game, settings)
            if isinstance(session, Session) and not arguments.quiet:  # it may compile, and the run's record opens later
                session.learner.say = partial(print, file=sys.stderr)
            with stop.leaving():
                session.load_state_dict(loaded["agent"])
        except BaseException as error:
            folder.note(**{fact: before.get(fact) for fact in ("status", "process", "ended")})  # nothing has happened
            stop.safe = True
            if session is not None:
                session.close()
            if not isinstance(error, Left):
                raise
            tell(f"Stopped before it went on: a game does not answer. {stop.newest} is safe: {stop.resume}")
            return 0 if stop.terminated else 130
        try:
            return play_out(session, folder, stop, quiet=arguments.quiet, resumed=loaded)
        finally:
            session.close()


def _settings(folder: RunFolder, meta: Mapping[str, Any], loaded: Mapping[str, Any], steps: int | None) -> Settings:
    """Return the settings to go on with; ValueError, saying how to go on, when the run has come to its end."""
    settings, played = folder.settings(), loaded["steps"]
    settings = settings.model_copy(update={"steps": steps or meta.get("total_steps") or settings.steps})
    evaluation = settings.evaluation
    judged = loaded["evaluations"]["timesteps"]
    owed = steps is None and evaluation.interval_steps > 0 and judged[-1:] != [played]  # it was stopped before its last
    if played >= settings.steps and not owed:
        more = settings.steps * (played // settings.steps + 1)
        has = f"its {settings.steps:,} steps" if steps is None else f"{played:,} steps, and --steps counts those too"
        raise ValueError(
            f"this run has played {has}. Train it further with: "
            + command("resume", shown_path(folder.path), "--steps", more)
        )
    best = max((float(np.mean(scores)) for scores in loaded["evaluations"]["results"]), default=None)
    if best is not None and evaluation.stop_at_score is not None and best >= evaluation.stop_at_score:
        if steps is None and meta["status"] == "done":
            raise ValueError(
                f"this run ended after {played:,} steps, when an evaluation reached {evaluation.stop_at_score:g} "
                "(evaluation.stop_at_score). Train it further with: "
                + command("resume", shown_path(folder.path), "--steps", settings.steps)
            )
        evaluation = evaluation.model_copy(update={"stop_at_score": None})  # reached already, it ends no more than once
    return settings.model_copy(update={"evaluation": evaluation})
