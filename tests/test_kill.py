"""kill -9 at any moment, most of them while a checkpoint is written: the run always goes on from the last announced one."""

from __future__ import annotations

import mmap
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from agent import checkpoint
from agent.cli.drive import drive
from agent.cli.record import Record, load_checkpoint
from agent.cli.session import Session
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder

KILLS = 60
SETTINGS = Settings.model_validate(
    {
        "steps": 10**9,
        "device": "cpu",
        "game": {"num_games": 2},
        "replay": {"capacity": 60_000, "n_step": 3, "priority_exponent": 0.5},
        "network": {"hidden": [32, 32]},
        "learner": {"learning_starts": 64, "samples_per_insert": 4},
        "evaluation": {"interval_steps": 0},
        "checkpoint": {"interval_steps": 1, "keep": 2},
    }
)


class Never:
    """A run that nobody stops."""

    signal = None


def live(folder: RunFolder, saving: mmap.mmap, resumed: int) -> None:
    """Resume the run where it can be, tell through `resumed` from which checkpoint, and train until killed."""
    # The first life may have been killed while it saved for the first time.
    state = load_checkpoint(folder)[0] if checkpoint.numbers(folder.checkpoints) else None
    session = Session("cartpole", SETTINGS)
    record = Record(folder, "cartpole", SETTINGS, ["test"], quiet=True, resumed=state)
    if state is not None:
        session.load_state_dict(state["agent"])
        assert session.clock.steps == state["steps"]
    save = record.checkpoint

    def marked(*arguments: object, **options: object) -> None:
        saving[0] = 1
        save(*arguments, **options)  # type: ignore[arg-type]
        saving[0] = 0

    record.checkpoint = marked  # type: ignore[method-assign]
    os.write(resumed, f"{-1 if state is None else state['steps']}\n".encode())
    drive(session, record, Never())  # type: ignore[arg-type]


def announced(folder: RunFolder) -> int:
    """Return the step of the last checkpoint that the run has called safe; -1 when there is none."""
    steps = re.findall(r"checkpoint \d+ at ([\d,]+) steps is safe", folder.log.read_text() if folder.log.exists() else "")
    return int(steps[-1].replace(",", "")) if steps else -1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked, since importing torch 60 times takes minutes")
def test_a_killed_run_goes_on_from_the_last_announced_checkpoint(tmp_path: Path) -> None:
    """After each of 60 kills the next life resumes, and not before the checkpoint that was last called safe."""
    torch.set_num_threads(1)
    moments = random.Random(9)
    folder = RunFolder.create(tmp_path, "cartpole", 0, None, SETTINGS, ["test"])
    saving = mmap.mmap(-1, 1)
    while_saving = 0
    known = -1
    for kill in range(KILLS):
        reader, writer = os.pipe()
        saving[0] = 0
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                live(folder, saving, writer)
            except BaseException as error:
                os.write(writer, f"{error!r}\n".encode())
            finally:
                os._exit(1)
        os.close(writer)
        try:
            answer = os.read(reader, 10_000).decode().strip()
            assert re.fullmatch(r"-?\d+", answer), f"life {kill} could not go on: {answer}"
            assert int(answer) >= known, f"life {kill} lost an announced checkpoint"
            time.sleep(moments.uniform(0.02, 0.3))
            while_saving += saving[0]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
        known = announced(folder)
    assert known > 0
    assert while_saving > KILLS // 2, f"only {while_saving} of {KILLS} kills hit a save"
    print(f"{KILLS} kills, {while_saving} while saving; {known} steps announced", file=sys.stderr)
