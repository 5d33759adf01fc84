"""Tests of agent/cli/runs.py: the list of runs as a table and as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.cli import runs
from agent.cli.main import main
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder, find


def test_no_runs_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without runs the list says how to start one; that is no error."""
    assert main(["runs", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"No runs in {tmp_path / 'runs'} yet. Start one: icebox train lunar-lander\n"


def test_a_run_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is one line, named so that other verbs find it, with its state and how far it is."""
    folder = RunFolder.create(tmp_path, "cartpole", 3, "mine", Settings(steps=2000), ["icebox"])
    folder.set_status("done", steps=1500)
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["RUN", "STATUS", "STEPS", "BEST", "STARTED"]
    name, status, *steps = line.split()
    assert (status, steps[:3]) == ("done", ["1,500", "of", "2,000"])
    assert find(tmp_path, name) == folder.path


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object with every run."""
    RunFolder.create(tmp_path, "minatar/breakout", 0, None, Settings(), ["icebox"]).set_status("stopped")
    assert main(["runs", "--json", "--runs-dir", str(tmp_path)]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["game"], run["status"], run["best"]) == ("minatar/breakout", "stopped", None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (86_400 * 3, "3 d")]
)
def test_ages(seconds: float, text: str) -> None:
    """An age is a whole number of its largest unit."""
    assert runs._age(seconds) == text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that this user cannot read")
def test_a_folder_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without permission is one sentence and code 1."""
    (tmp_path / "runs").mkdir(mode=0)
    assert main(["runs", "--runs-dir", str(tmp_path / "runs")]) == 1
    assert "Permission denied" in capsys.readouterr().err
