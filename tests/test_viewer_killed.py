"""Viewers that are killed at random moments of their lives do not change one bit of the run that they look at."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import short_runs
from lives import differences, live, what_lasts
from room_fakes import eventually

from agent.cli.main import main
from agent.telemetry.run_folder import RunFolder

SETTINGS = short_runs.settings(
    steps=50_000_000,
    learner={"execution": "eager"},  # compiled where a clock says that it pays: not the same bits in two runs
    evaluation={"interval_steps": 0},
    checkpoint={"interval_steps": 50_000},
)
LIFE_S = 2.0  # a forked viewer starts within one second: some die while they start, some while they show the run


def viewer(folder: Path) -> int:
    """Start a viewer as a child that has everything imported already; return its process id."""
    child = os.fork()
    if child == 0:
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            main(["play", str(folder)])
        finally:
            os._exit(1)
    return child


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked, since importing torch 100 times takes minutes")
@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.night)])
def test_killed_viewers_never_disturb_a_run(tmp_path: Path, kills: int) -> None:
    """A run goes on while they die around it, and is bit for bit the run that nobody looked at."""
    moments = random.Random(5)
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(SETTINGS.model_dump(mode="json", exclude_unset=True)))
    words = ["train", "cartpole", "--config", str(config), "--runs-dir", str(tmp_path / "runs"), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "agent.cli.main", *words], stderr=subprocess.PIPE, text=True)
    started = 0
    try:
        path = eventually(lambda: next((tmp_path / "runs").glob("cartpole/*/live/now.slot"), None), 120).parents[1]
        for _ in range(kills):
            child = viewer(path)
            try:
                end = time.monotonic() + moments.uniform(0.0, LIFE_S)
                while time.monotonic() < end:
                    with suppress(FileNotFoundError):
                        (path / "live" / "watched").touch()  # pictures and weights are published all the time
                    time.sleep(0.05)
                started += os.waitpid(child, os.WNOHANG) == (0, 0)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(child, 0)
            assert process.poll() is None, "the run has ended"
        process.send_signal(signal.SIGINT)
        process.wait(120)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
    assert started == kills, f"only {started} of {kills} viewers lived until they were killed"
    watched = RunFolder.open(path)
    left = what_lasts(watched)
    assert left["steps"] > 1_000 and left["episodes"]
    alone = live(tmp_path / "alone", "cartpole", watched.settings(), [left["steps"]])
    assert differences(left, what_lasts(alone)) == []
