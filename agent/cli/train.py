"""icebox train GAME: a new run, from nothing to its last checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.cli.control import Control
from agent.cli.drive import drive, drive_stock
from agent.cli.record import Record
from agent.cli.session import Session, family_settings
from agent.cli.settings import TrainArguments
from agent.cli.stock_session import StockSession
from agent.cli.stop import Stop
from agent.cli.watch import viewer_beside
from agent.cli.words import command as command_line
from agent.cli.words import tell
from agent.config import Settings
from agent.replay import demonstrations
from agent.replay.prefill import fill
from agent.telemetry.run_folder import RunFolder

DEVICES = {"cpu": "on the CPU", "cuda": "on the GPU"}


def run(arguments: TrainArguments) -> int:
    """Train as the arguments say; return 0 when finished or asked to end by SIGTERM or SIGHUP, 130 by Ctrl-C."""
    return train(arguments)[0]


def train(arguments: TrainArguments) -> tuple[int, RunFolder]:
    """Train a new run; return its exit code and its folder."""
    settings, game = arguments.settings, arguments.game
    if arguments.demonstrations is not None and settings.algo != "icebox":
        raise ValueError(f"--demonstrations: only for our own agent (--algo icebox), not {settings.algo}.")
    played = [] if arguments.demonstrations is None else demonstrations.read(arguments.demonstrations)
    session = make_session(game, settings)
    with Stop() as stop, closing(session):
        family = family_settings(settings).get(game.partition("/")[0], {})
        taken = fill(session.replay, played, session.spec, family) if played else None
        folder = _new_folder(arguments)
        with folder.hold(), viewer_beside(folder.path, arguments.runs_dir, wanted=arguments.watch):
            if taken is not None:
                folder.note(demonstrations={"path": str(arguments.demonstrations), "taken": str(taken)})
            return play_out(session, folder, stop, quiet=arguments.quiet), folder


def _new_folder(arguments: TrainArguments) -> RunFolder:
    settings, command = arguments.settings, ["icebox", *sys.argv[1:]]
    try:
        return RunFolder.create(
            arguments.runs_dir, arguments.game, settings.seed, arguments.name, settings, command
        )
    except OSError as error:
        reason = error.strerror or error
        raise RuntimeError(
            f"No run can be kept in {arguments.runs_dir}: {reason}. Nothing was trained. Make room there or make it "
            "writable, or keep runs elsewhere with --runs-dir."
        ) from error


def make_session(game: str, settings: Settings) -> Session | StockSession:
    """Return the agent that `settings.algo` names, with its games."""
    return Session(game, settings) if settings.algo == "icebox" else StockSession(game, settings)


def play_out(
    session: Session | StockSession,
    folder: RunFolder,
    stop: Stop,
    *,
    quiet: bool,
    resumed: Mapping[str, Any] | None = None,
) -> int:
    """Train `session` in `folder`, which is held, until its end or a stop; say what comes next; return the exit code.

    `resumed` is the checkpoint that `session` was restored from.
    """
    settings, game, where = session.settings, folder.game, shown_path(folder.path)
    stop.resume = command_line("resume", where)
    folder.note(total_steps=settings.steps)
    record = Record(folder, game, settings, ["icebox", *sys.argv[1:]], quiet=quiet, resumed=resumed, stop=stop)
    try:
        record.progress.say(_opening(session, folder, game, settings))
        if resumed is None and (known := folder.meta().get("demonstrations")) is not None:
            record.progress.say(f"replay starts with {known['taken']}")
        if resumed is not None:
            record.progress.say(f"resumed at {resumed['steps']:,} of {settings.steps:,} steps")
        with Control(session, record, stop) as control:
            if isinstance(session, Session):
                finished = drive(session, record, stop, control)
            else:
                finished = drive_stock(session, record, stop, control)
        best = record.evaluations.best
        if finished and best is not None:
            record.board.finish(settings, session.steps, best)
    except Exception:
        if stop.newest is not None:
            record.warn(f"Broken off. {stop.newest} is safe. Go on from it with: {stop.resume}")
        raise
    finally:
        record.close()
    try:
        folder.set_status("done" if finished else "stopped")
    except OSError as error:  # it is all in the checkpoint
        tell(f"meta.json could not be written: {error}")
    if not finished:
        tell(f"Stopped and saved. Go on with: {stop.resume}")
        return 0 if stop.terminated else 130
    best_score = "" if best is None else f" Best evaluation: {best:.1f}."
    tell(f"Done.{best_score} Judge it on unseen episodes: {command_line('eval', where)}")
    return 0


def shown_path(path: Path) -> Path:
    """Return a path as a person would type it here: relative where it lies below the working directory."""
    here = Path.cwd()
    return path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path


def _opening(session: Session | StockSession, folder: RunFolder, game: str, settings: Settings) -> str:
    """Return what a person wants to know before it starts: which game, who plays, what it takes, where it is kept."""
    games = f"{settings.game.num_games} games at once" if settings.game.num_games > 1 else "1 game at once"
    if settings.game.realtime is not None:
        games = f"1 game by the clock, {settings.game.realtime:g} decisions a second"
    lines = [
        f"{game}: {settings.steps:,} steps in {games}, seed {settings.seed}",
        f"  plays   {_player(session)}",
        f"  sees    {_seen(session)}",
    ]
    if isinstance(session, Session):
        lines.append(f"  memory  {session.memory}")
    lines.append(f"  folder  {shown_path(folder.path)}")
    if isinstance(session, Session) and session.clock.learning_starts >= settings.steps:
        starts = f"learning starts after {session.clock.learning_starts} steps (--learner.learning-starts)"
        lines.append(f"warning: nothing will be learned: {starts}, the run has {settings.steps}")
    return "\n".join(lines)


def _player(session: Session | StockSession) -> str:
    """Who learns, in words: 'double DQN with 3-step returns, 68,868 weights on the CPU'."""
    if isinstance(session, StockSession):
        source = type(session.algorithm).__module__.partition(".")[0].replace("_", "-")
        return f"{type(session.algorithm).__name__} of {source} {DEVICES[session.algorithm.device.type]}"
    settings = session.settings
    network, learner = settings.network, settings.learner
    kind = {"none": "DQN", "quantile": "QR-DQN", "implicit": "IQN"}[network.distribution]
    adjectives = ["Munchausen"] if learner.munchausen else ["double"] * learner.double
    adjectives += ["dueling"] * network.dueling + ["noisy"] * network.noisy
    details = [f"{settings.replay.n_step}-step returns"] if settings.replay.n_step > 1 else []
    details += ["prioritized replay"] if settings.replay.priority_exponent else []
    weights = sum(weight.numel() for weight in session.network.parameters())
    with_details = f" with {' and '.join(details)}" if details else ""
    return f"{' '.join([*adjectives, kind])}{with_details}, {weights:,} weights {DEVICES[session.device.type]}"


def _seen(session: Session | StockSession) -> str:
    """What comes in and goes out: '8 numbers (float32), chooses one of 4 actions'."""
    spec = session.spec
    shape = " x ".join(map(str, spec.observation_shape))
    seen = f"{shape} numbers" if len(spec.observation_shape) == 1 else shape
    chosen = f"one of {spec.num_actions} actions" if spec.num_actions else "continuous actions"
    return f"{seen} ({spec.observation_dtype}), chooses {chosen}"
