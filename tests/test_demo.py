"""Tests of agent/cli/demo.py: from nothing to plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import short_runs

from agent.cli import demo, freeze
from agent.cli.main import main
from agent.freeze import artefact
from agent.telemetry.run_folder import RunFolder, find


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (250.0, "counts as solved (200)"),
        (200.0, "counts as solved (200)"),
        (199.9, "not yet reliably"),
        (100.0, "not yet reliably"),
        (99.9, "lands sometimes"),
        (0.0, "lands sometimes"),
        (-0.1, "still crashes"),
        (-300.0, "still crashes"),
    ],
)
def test_verdicts(mean: float, words: str) -> None:
    """Each range of scores has its words, and every one names what counts as solved."""
    verdict = demo.verdict(mean)
    assert words in verdict and "200" in verdict


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains, judges and freezes, says the score in plain words and where all lies, and names commands to type."""
    monkeypatch.setattr(demo, "load_settings", lambda game: short_runs.settings())
    monkeypatch.setattr(freeze, "STATES", 400)
    monkeypatch.setattr("agent.freeze.gate.TURNS", 5)
    monkeypatch.setattr(demo, "FROZEN", {"episodes": 4, "most_episodes": 4, "margin": 9.0})
    monkeypatch.setattr(demo, "EPISODES", 6)
    monkeypatch.setenv("ICEBOX_COMMAND", "./icebox")
    assert main(["demo", "--steps", "400", "--seed", "2", "--runs-dir", str(tmp_path / "my runs"), "--json"]) == 0
    out, err = capsys.readouterr()
    folder = RunFolder.open(find(tmp_path / "my runs", "latest"))
    assert folder.game == "lunar-lander" and folder.status == "done" and 400 <= folder.meta()["steps"] < 410
    assert folder.settings().seed == 2
    assert "for 400 steps" in err and "6 episodes it has never seen" in err
    *lines, last = [line for line in out.splitlines() if line]
    result = json.loads(last)
    assert result["episodes"] == 6 and result["run"] == str(folder.path)
    assert lines[0].startswith(f"The agent scores {result['mean']:.0f} on average (95% interval ")
    assert lines[1] == demo.verdict(result["mean"])
    assert f"The run lies in {folder.path}:" in out
    todo = lines[lines.index("What next:") + 1 :]
    verbs = ("play", "verify", "board", "resume", "train", "games")
    assert [line.split()[:2] for line in todo] == [["./icebox", verb] for verb in verbs]
    frozen = artefact.read(folder.path / "frozen").card
    assert result["frozen"]["gate"] == frozen.gate and frozen.refused is None
    for row in ("precision", "the C needs", "same choice", "score", "one decision, frozen, c", "One episode of the frozen"):
        assert any(line.startswith(row) for line in lines), row
    assert f"  ./icebox resume '{folder.path}' --steps 800  " in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps: must be a whole number, at least 1, got 0."),
        (["--seed", "-1"], "--seed: must be a whole number, at least 0, got -1."),
    ],
)
def test_mistakes(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers out of range are one sentence and code 2, before anything is made."""
    assert main(["demo", *flags]) == 2
    assert capsys.readouterr() == ("", f"icebox: {message}\n")


def test_a_stopped_demo_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When training was stopped the demo ends with its code and says no score."""
    folder = RunFolder.create(tmp_path, "lunar-lander", 0, None, short_runs.settings(), ["test"])
    folder.set_status("stopped")
    monkeypatch.setattr(demo, "train", lambda arguments: (130, folder))
    monkeypatch.setattr(demo, "judge", lambda *arguments: pytest.fail("judged"))
    assert main(["demo"]) == 130
    assert capsys.readouterr().out == ""
