"""Tests of agent/cli/resume.py as a verb: how a run goes on, and what it says when it cannot."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import short_runs

from agent import checkpoint
from agent.cli import drive
from agent.cli.main import main
from agent.cli.record import load_checkpoint
from agent.learner import Learner
from agent.telemetry.run_folder import RunFolder

QUICK = ("--quiet", "--steps", "300", "--evaluation.interval-steps", "0", "--checkpoint.interval-steps", "100")


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> RunFolder:
    """A finished run of 300 steps."""
    code, made = short_runs.train(tmp_path / "runs", "cartpole", *QUICK)
    assert code == 0
    capsys.readouterr()
    return made


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line that must say one sentence on stderr; return its exit code and the sentence."""
    code = main(argv)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return code, err


def test_a_finished_run_says_how_to_go_on(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Code 2, a command that works, and the run stays done; with it the run plays on to the new end."""
    meta = folder.meta()
    code, err = sentence(["resume", str(folder.path)], capsys)
    assert code == 2
    command = f"resume {folder.path} --steps 600"
    assert err == f"icebox: this run has played its 300 steps. Train it further with: icebox {command}\n"
    assert folder.meta() == meta
    assert main([*command.split(), "--quiet"]) == 0
    after = folder.meta()
    assert (after["status"], after["total_steps"]) == ("done", 600) and 600 <= after["steps"] < 604


def test_fewer_steps_than_played(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A total that lies behind the run is refused with one that does not."""
    code, err = sentence(["resume", str(folder.path), "--steps", "100"], capsys)
    assert code == 2 and err.endswith(f"icebox resume {folder.path} --steps 400\n")
    code, err = sentence(["resume", str(folder.path), "--steps", "0"], capsys)
    assert (code, err) == (2, "icebox: --steps: must be a whole number, at least 1, got 0.\n")


def test_a_stopped_run_keeps_the_end_it_was_last_told(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in a resume with --steps, it goes on to that end with the command it prints, which has no --steps."""
    asked: list[int] = []

    def ctrl_c(beat: drive.Beat, steps: int) -> bool:
        if steps >= 400 and not asked:
            asked.append(steps)
            signal.raise_signal(signal.SIGINT)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(drive.Beat, "due", ctrl_c)
        code, err = sentence(["resume", str(folder.path), "--steps", "500", "--quiet"], capsys)
    assert (code, err) == (130, f"Stopped and saved. Go on with: icebox resume {folder.path}\n")
    stopped = folder.meta()
    assert stopped["status"] == "stopped" and 400 <= stopped["steps"] < 404
    assert main(["resume", str(folder.path)]) == 0
    assert f"resumed at {stopped['steps']} of 500 steps\n" in capsys.readouterr().err
    assert 500 <= folder.meta()["steps"] < 504


def test_what_is_compiled_before_the_first_step_is_said(
    folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed compiled tells why nothing moves, before its log is open; not with --quiet."""
    load = Learner.load_state_dict

    def as_if_compiled(learner: Learner, state: Mapping[str, Any]) -> None:
        load(learner, state | {"execution": "compiled"})

    monkeypatch.setattr(Learner, "load_state_dict", as_if_compiled)
    monkeypatch.setattr(Learner, "settle", lambda learner, steps: learner.say("compiling the update"))
    for steps, quiet, said in ((400, [], 1), (500, ["--quiet"], 0)):
        assert main(["resume", str(folder.path), "--steps", str(steps), *quiet]) == 0
        assert capsys.readouterr().err.split("resumed at")[0].count("compiling the update\n") == said


def test_a_damaged_checkpoint_is_said_and_passed_over(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """When the newest checkpoint is damaged the run goes on from the one before, and the file is named."""
    newest = max(folder.checkpoints.glob("checkpoint-*"))
    older = checkpoint.load(min(folder.checkpoints.glob("checkpoint-*")))
    (newest / "state.json").write_bytes(b"{}")
    assert main(["resume", str(folder.path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"icebox: Skipped {newest.name}: state.json ")
    assert f"resumed at {older['steps']} of 300 steps\n" in err
    assert load_checkpoint(folder)[1] == [] and load_checkpoint(folder)[0]["steps"] >= 300


def test_a_run_without_a_checkpoint(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any intact checkpoint nothing is started, and the run's status is as it was."""
    meta = folder.meta()
    for path in folder.checkpoints.glob("checkpoint-*/state.json"):
        path.unlink()
    code, err = sentence(["resume", str(folder.path)], capsys)
    assert code == 2 and "Start a new run with: icebox train cartpole" in err
    assert folder.meta() == meta


def test_a_run_that_is_held_is_left_alone(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """While a process holds the run another one is refused, in one sentence with code 1 that names the process."""
    with folder.hold():
        code, err = sentence(["resume", str(folder.path), "--steps", "600"], capsys)
        assert code == 1 and "is in use by process" in err
        assert folder.status == "running" and folder.meta()["total_steps"] == 300


def test_a_score_ends_a_run_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that ended by its score says so; told to go on, it plays all its steps, whatever it scores."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet", "--evaluation.stop-at-score", "1")
    assert code == 0
    capsys.readouterr()
    played = folder.meta()["steps"]
    code, err = sentence(["resume", str(folder.path)], capsys)
    assert code == 2 and played < 300
    command = f"resume {folder.path} --steps 600"
    said = f"icebox: this run ended after {played} steps, when an evaluation reached 1 (evaluation.stop_at_score)."
    assert err == f"{said} Train it further with: icebox {command}\n"
    assert main([*command.split(), "--quiet"]) == 0
    assert 600 <= folder.meta()["steps"] < 604


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_stable_baselines_goes_on(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PPO and DQN of stable-baselines3 train, are judged and go on through the same verbs."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--algo", algo, "--quiet", "--steps", "300")
    played = folder.meta()["steps"]
    assert code == 0 and played >= 300
    assert main(["resume", str(folder.path), "--steps", "500"]) == 0
    err = capsys.readouterr().err
    assert f"resumed at {played} of 500 steps\n" in err and folder.meta()["steps"] >= 500
    assert main(["eval", str(folder.path), "--episodes", "3", "--weights", "last"]) == 0
    assert f"after {folder.meta()['steps']} steps, the last" in capsys.readouterr().out


def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is not there is code 2."""
    code, err = sentence(["resume", "nothing", "--runs-dir", str(tmp_path)], capsys)
    assert code == 2 and err.startswith("icebox: There is no run 'nothing'")
