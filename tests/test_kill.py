"""kill -9 at any moment, most of them while a checkpoint is written: the run always goes on from the last announced one."""

from __future__ import annotations

import mmap
import os
import random
import re
import select
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from agent import checkpoint
from agent.cli.control import Control
from agent.cli.drive import drive
from agent.cli.record import Record, load_checkpoint
from agent.cli.session import Session
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder
from agent.viewer.live_reader import LiveReader

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
JUDGED = SETTINGS.model_copy(
    update={"evaluation": SETTINGS.evaluation.model_copy(update={"interval_steps": 8, "episodes": 2})}
)
SAVING, SAVED = 0, 1  # places of the memory that a life shares with its killer: in a save now; has saved in this life
LIMIT_S = 120.0


def live(folder: RunFolder, shared: mmap.mmap, resumed: int, watched: bool) -> None:
    """Resume the run where it can be, tell through `resumed` from which checkpoint, and train until killed.

    `watched`: somebody looks on, so that pictures and weights are published, and evaluations are played between.
    """
    # The first life may have been killed while it saved for the first time.
    state = load_checkpoint(folder)[0] if checkpoint.numbers(folder.checkpoints) else None
    settings = JUDGED if watched else SETTINGS
    session = Session("cartpole", settings)
    record = Record(folder, "cartpole", settings, ["test"], quiet=True, resumed=state)
    if state is not None:
        session.load_state_dict(state["agent"])
        assert session.clock.steps == state["steps"]
    save = record.checkpoint

    def marked(*arguments: object, **options: object) -> None:
        shared[SAVING] = 1
        save(*arguments, **options)  # type: ignore[arg-type]
        shared[SAVING], shared[SAVED] = 0, 1

    record.checkpoint = marked  # type: ignore[method-assign]
    control = Control(session, record, record.stop) if watched else None
    if watched:
        reader = LiveReader(folder.path)
        assert reader.alive
        reader.watch()
    os.write(resumed, f"{-1 if state is None else state['steps']}\n".encode())
    drive(session, record, record.stop, control)


def announced(folder: RunFolder) -> int:
    """Return the step of the last checkpoint that the run has called safe; -1 when there is none."""
    steps = re.findall(r"checkpoint \d+ at ([\d,]+) steps is safe", folder.log.read_text() if folder.log.exists() else "")
    return int(steps[-1].replace(",", "")) if steps else -1


def until(shared: mmap.mmap, place: int, answers: int) -> None:
    """Wait for a life to be where it is to be killed; what it wrote instead is why it is not."""
    deadline = time.monotonic() + LIMIT_S
    while not shared[place]:
        if time.monotonic() > deadline or select.select([answers], [], [], 0.0005)[0]:
            said = os.read(answers, 10_000).decode() if select.select([answers], [], [], 0)[0] else "nothing"
            raise AssertionError(f"a life did not save; it said {said}")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked, since importing torch 60 times takes minutes")
@pytest.mark.parametrize(
    ("kills", "watched"),
    [
        (60, False),
        pytest.param(500, False, marks=pytest.mark.night),
        pytest.param(2_000, False, marks=pytest.mark.night),
        pytest.param(500, True, marks=pytest.mark.night),
    ],
)
def test_a_killed_run_goes_on_from_the_last_announced_checkpoint(tmp_path: Path, kills: int, watched: bool) -> None:
    """After each kill the next life resumes, and not before the checkpoint that was last called safe.

    The moments are random. A quarter of the lives, the first among them, are let live until they have saved, so that
    the run gets on however busy the machine is, and a quarter are killed in a save, whenever it comes.
    """
    torch.set_num_threads(1)
    Session("cartpole", SETTINGS).close()  # what making one imports takes two seconds, which no life need pay again
    moments = random.Random(9)
    folder = RunFolder.create(tmp_path, "cartpole", 0, None, SETTINGS, ["test"])
    shared = mmap.mmap(-1, 2)
    while_saving = resumed = 0
    known = -1
    for life in range(kills + 1):  # the last one shows that the last kill was survived
        reader, writer = os.pipe()
        shared[SAVING] = shared[SAVED] = 0
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                live(folder, shared, writer, watched)
            except BaseException as error:
                os.write(writer, f"{error!r}\n".encode())
            finally:
                os._exit(1)
        os.close(writer)
        try:
            answer = os.read(reader, 10_000).decode().strip()
            assert re.fullmatch(r"-?\d+", answer), f"life {life} could not go on: {answer}"
            assert int(answer) >= known, f"life {life} lost an announced checkpoint"
            resumed += int(answer) >= 0
            if life % 4 == 0:
                until(shared, SAVED, reader)
            time.sleep(moments.uniform(0.0, 0.3))
            if life % 4 == 1:
                until(shared, SAVING, reader)
            while_saving += shared[SAVING]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
        known = announced(folder)
    assert known > 0 and resumed == kills
    assert while_saving >= kills // 4
    print(f"{kills} kills, {while_saving} while saving; {resumed} resumed; {known} steps announced", file=sys.stderr)
