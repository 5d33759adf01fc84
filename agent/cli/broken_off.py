"""What a training leaves behind when it cannot go on: a last checkpoint where one can be had, and a sentence."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from agent.cli.errors import OUT_OF, MachineError, first_line, trouble
from agent.cli.record import Record
from agent.cli.session import Session
from agent.cli.stock_session import StockSession
from agent.cli.stop import Left
from agent.guard import NonFinite
from agent.memory import compressible, size
from envs.workers import GameFailure


@contextmanager
def breaking_off(session: Session | StockSession, record: Record) -> Iterator[None]:
    """Save what was played when what is inside fails for a known reason, then raise that: MachineError for the machine.

    A game or a compiler that was left because the run is to end is no failure: the block ends there.
    """
    failure: Exception | None = None
    try:
        with record.stop.leaving():
            yield
    except Left:
        record.progress.say("it does not answer and is left where it stands: open episodes are lost")
        session.lose_games()
    except Exception as error:
        if trouble(error) is None and not isinstance(error, (GameFailure, NonFinite)):
            raise
        failure = error
    if failure is None:
        return
    kind, doing = trouble(failure), _doing(failure)
    traceback.clear_frames(failure.__traceback__)  # they hold what the memory is needed for
    gc.collect()
    if kind == "GPU":
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    session.lose_games()
    _save(session, record)
    if kind is None:
        raise failure
    raise MachineError(f"{OUT_OF[kind]} {doing} ({first_line(failure)}). {_remedy(kind, doing, session)}") from failure


def _save(session: Session | StockSession, record: Record) -> None:
    """Write a checkpoint of this moment if the machine still can; weights that are no numbers are not kept."""
    try:
        if not session.sound():
            record.warn("The weights are not finite: no checkpoint is written of them.")
        elif record.saved != session.steps:
            record.checkpoint(session.steps, session.state_dict)
    except Exception as error:  # noqa: BLE001 - whatever a broken device raises, the checkpoints before are there
        record.warn(f"No checkpoint of this moment can be written: {first_line(error)}.")


def _doing(error: Exception) -> str:
    """Say what was being done, from the files of ours that the error has come through."""
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__)]
    for part, words in (("agent/evaluation.py", "in an evaluation"), ("agent/checkpoint.py", "in a checkpoint")):
        if any(file.endswith(part) for file in files):
            return words
    updates = ("agent/learner.py", "agent/slices.py", "/on_policy_algorithm.py", "/off_policy_algorithm.py")
    return "in an update" if any(file.endswith(updates) for file in files) else "while it plays"


def _remedy(kind: str, doing: str, session: Session | StockSession) -> str:
    """Return what to change; a run that goes on keeps its settings, so the first of it needs none."""
    if kind == "failed":
        return (
            "A failed GPU does nothing more for this process. Resume; if it comes back, nvidia-smi and the system's "
            "log say more, and --device cpu works without it."
        )
    first = "Close other programs that use it and resume, or start a run with "
    settings = session.settings
    if isinstance(session, StockSession):
        return f"{first}a smaller batch_size or buffer_size under sb3.{settings.algo}."
    replay, place = settings.replay, session.memory.replay_device
    ways = []
    if place == ("cuda" if kind == "GPU" else "cpu"):
        if kind == "GPU":
            ways.append("replay on the host (--replay.device cpu)")
        elif compressible(session.spec, settings):
            ways.append("compressed replay (--replay.compression lz4)")
        held = size(session.memory.replay_bytes)
        ways.append(f"a smaller replay (--replay.capacity below {replay.capacity}, which is {held})")
    if doing == "in an evaluation":
        ways.append(f"fewer games in it (--evaluation.num-games below {settings.evaluation.num_games})")
    else:
        ways.append(f"a smaller batch (--learner.batch-size below {settings.learner.batch_size})")
    return first + ", or ".join(ways) + "."

