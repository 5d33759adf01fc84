"""Tests of agent/cli/doctor.py: what it finds, with and without the things it looks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import doctor
from agent.cli.main import main


def report(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["doctor", "--seconds", "0.05", *argv]) == 0
    return capsys.readouterr().out


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object: machine, devices, versions, what is missing, and speeds above zero."""
    pytest.importorskip("envs.make")
    found = json.loads(report(capsys, "--json", "--runs-dir", str(tmp_path / "not" / "yet")))
    assert {"machine", "devices", "versions", "commit", "missing", "speed"} == found.keys()
    assert found["machine"]["disk"] == str(tmp_path) and found["machine"]["disk_writable"] is True
    assert found["machine"]["cores"] >= found["machine"]["usable_cores"] >= 1
    assert found["machine"]["memory_free_gib"] > 0
    assert found["devices"][0]["name"] == "cpu"
    assert found["versions"]["torch"]
    assert found["speed"]["game"] > 0
    trained = found["speed"]["training"]["cpu"]
    assert trained["steps_per_s"] > 0 and trained["updates_per_s"] > 0 and 0 < trained["share_learning"] < 1
    assert 0 < trained["act_latency_p50"] <= trained["act_latency_p99"]


def test_a_missing_extra_comes_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not installed is named with the command that installs it; that is no error."""
    monkeypatch.setattr(doctor, "is_installed", lambda module: module != "ale_py")
    out = report(capsys)
    assert 'missing; pip install ale-py' in out
    assert "extra minatar" not in out


def test_without_cuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without CUDA is measured on its CPU and told so."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    out = report(capsys)
    assert "no CUDA device: training runs on the CPU" in out
    assert "training on cpu" in out


def test_what_is_broken_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A game that cannot start is a line of the report; the rest is still there."""

    def broken(seconds: float) -> float:
        raise ImportError("no Box2D here")

    monkeypatch.setattr(doctor, "game_steps_per_s", broken)
    out = report(capsys)
    assert "not measured: no Box2D here" in out
    assert "updates/s" in out


def test_measuring_leaves_the_threads_alone() -> None:
    """Torch's number of threads is what it was."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    doctor.training("cpu", 0.01)
    assert torch.get_num_threads() == before
