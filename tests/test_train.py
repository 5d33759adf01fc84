"""Tests of agent/cli/train.py: what a run says, leaves behind, and does when it is stopped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import short_runs
from taught import play_cartpole

from agent import checkpoint
from agent.cli import train
from agent.cli.main import main
from agent.cli.session import Session
from agent.cli.settings import load_settings
from agent.config import Settings
from agent.replay import demonstrations
from agent.telemetry import run_folder
from agent.telemetry.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("steps", "warned"), [(100, True), (101, False)])
def test_a_run_that_never_learns_is_announced(steps: int, warned: bool) -> None:
    """A run that ends before learning starts says so, with both numbers and the setting; no other run does."""
    settings = Settings.model_validate({"steps": steps, "learner": {"learning_starts": 100}, "device": "cpu"})
    session = Session("cartpole", settings)
    opening = train._opening(session, SimpleNamespace(path=Path("runs/cartpole/x")), "cartpole", settings)
    session.close()
    expected = "warning: nothing will be learned: learning starts after 100 steps (--learner.learning-starts), the run has 100"
    assert (opening.splitlines()[-1] == expected) == warned == ("warning" in opening)


def test_a_run_leaves_what_the_map_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run ends with 0, says what to type next, and leaves settings, logs, events, weights and checkpoints."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--seed", "3", "--name", "mine")
    assert code == 0 and folder.path.name.endswith("_s3_mine")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("Done. Best evaluation: ")
    assert err.splitlines()[-1].endswith(f"Judge it on unseen episodes: icebox eval {folder.path}")
    assert "cartpole: 600 steps in 4 games at once, seed 3\n" in err and f"  folder  {folder.path}\n" in err
    names = {path.name for path in folder.path.iterdir()}
    assert names > {"config.yaml", "command.txt", "meta.json", "monitor.csv", "evaluations.npz", "train.log", "best"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert len(list(folder.checkpoints.glob("checkpoint-*"))) == 2
    meta = folder.meta()
    assert (meta["status"], meta["total_steps"], meta["seed"]) == ("done", 600, 3) and 600 <= meta["steps"] < 604
    assert folder.settings() == load_settings("cartpole", tmp_path / "tiny.yaml").model_copy(update={"seed": 3})


def test_a_run_never_overwrites_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one game, seed and second are two folders, and the first one is as it was."""
    clock = SimpleNamespace(now=lambda *zone: datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    clock.fromisoformat = datetime.fromisoformat
    monkeypatch.setattr(run_folder, "datetime", clock)
    flags = ("--steps", "120", "--evaluation.interval-steps", "0", "--quiet")
    _, first = short_runs.train(tmp_path / "runs", "cartpole", *flags)
    content = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    short_runs.train(tmp_path / "runs", "cartpole", *flags)
    assert sorted(path.name for path in first.path.parent.iterdir() if path.is_dir()) == [
        first.path.name,
        f"{first.path.name}-2",
    ]
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == content


def test_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet only the result is said."""
    _, folder = short_runs.train(tmp_path / "runs", "cartpole", "--steps", "250", "--quiet")
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Done. ") and err.count("\n") == 1
    assert "evaluation at" in folder.log.read_text()


def test_it_stops_at_its_score(tmp_path: Path) -> None:
    """stop_at_score ends a run early, as done."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--evaluation.stop-at-score", "1", "--quiet")
    assert (code, folder.status) == (0, "done")
    assert 200 <= folder.meta()["steps"] < 210


@pytest.mark.parametrize("algo", ["icebox", "ppo"])
def test_stable_baselines_reads_the_logs(algo: str, tmp_path: Path) -> None:
    """SB3's load_results and numpy, as its EvalCallback writes, read what a run of any algorithm logged."""
    pytest.importorskip("pandas")
    results = pytest.importorskip("stable_baselines3.common.results_plotter")
    _, folder = short_runs.train(tmp_path / "runs", "cartpole", "--algo", algo, "--quiet")
    frame = results.load_results(str(folder.path))
    assert {"r", "l", "t"} <= set(frame.columns) and len(frame) > 5
    assert (frame["r"] == frame["l"]).all() and frame["l"].sum() <= folder.meta()["steps"]
    with np.load(folder.evaluations) as arrays:
        assert arrays["results"].shape == arrays["ep_lengths"].shape == (len(arrays["timesteps"]), 3)
        assert (arrays["results"] == arrays["ep_lengths"]).all()


def test_a_run_that_breaks_off_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the last checkpoint fails the code is 1, the run has crashed, and an older checkpoint can be resumed."""
    save = checkpoint.save

    def full_at_the_end(directory: Path, number: int, tree: dict, **options: object) -> None:
        if tree["steps"] >= 600 and directory.name == "checkpoints":
            raise checkpoint.CheckpointError("The disk is full.")
        save(directory, number, tree, **options)

    monkeypatch.setattr(checkpoint, "save", full_at_the_end)
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet")
    assert (code, folder.status) == (1, "crashed")
    steps = folder.meta()["steps"]
    assert capsys.readouterr().err.splitlines() == [
        f"icebox: Broken off. Checkpoint 2 at {steps} steps is safe. Go on from it with: icebox resume {folder.path}",
        "icebox: The disk is full.",
    ]
    monkeypatch.undo()
    assert main(["resume", str(folder.path), "--quiet"]) == 0
    assert folder.status == "done"


def test_an_agent_that_cannot_play_the_game_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An algorithm for other actions is refused in one sentence with code 2, before a run folder is made."""
    assert main(["train", "cartpole", "--algo", "sac", "--runs-dir", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("icebox: sac chooses continuous actions") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_demonstrations_are_in_replay_and_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a person played is in the replay of the last checkpoint and in that of the resumed run; it is no step."""
    play_cartpole(tmp_path / "played", 5)
    played = demonstrations.read(tmp_path / "played")
    taught, runs = sum(each.facts["length"] for each in played), tmp_path / "runs"
    flags = ["--replay.capacity", "4000", "--demonstrations", str(tmp_path / "played")]
    code, folder = short_runs.train(runs, "cartpole", *flags)
    assert code == 0 and 600 <= folder.meta()["steps"] < 604  # as without them
    assert f"replay starts with {taught:,} steps of 5 demonstrations" in capsys.readouterr().err
    assert folder.meta()["demonstrations"]["path"] == str(tmp_path / "played")
    assert main(["resume", "latest", "--steps", "800", "--runs-dir", str(runs), "--quiet"]) == 0
    for number in checkpoint.numbers(folder.checkpoints):
        film = checkpoint.load(folder.checkpoints / f"checkpoint-{number:08d}")["agent"]["replay"]["film"]
        seen = set(film["frames"].records().values())
        assert all(frame.tobytes() in seen for each in played for frame in each.load().observation)
        assert film["cursor"].sum() >= taught + 600


def test_demonstrations_that_do_not_fit_leave_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another game, another agent, no file: a sentence, exit code 2 and no run folder."""
    play_cartpole(tmp_path / "played", 1)
    runs, given = str(tmp_path / "runs"), ["--demonstrations", str(tmp_path / "played")]
    assert main(["train", "acrobot", "--runs-dir", runs, *given]) == 2
    assert 'its game is "cartpole", this run\'s is "acrobot"' in capsys.readouterr().err
    assert main(["train", "cartpole", "--algo", "ppo", "--runs-dir", runs, *given]) == 2
    assert "--demonstrations: only for our own agent" in capsys.readouterr().err
    assert main(["train", "cartpole", "--runs-dir", runs, "--demonstrations", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process")
def test_signals_stop_a_run_that_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal Ctrl-C ends with 130, SIGTERM with 0; both save and name a command that goes on."""
    (tmp_path / "tiny.yaml").write_text(str(short_runs.TINY).replace("'", '"'))
    words = "train cartpole --config tiny.yaml --steps 100000000 --evaluation.interval-steps 0".split()
    runs = {signal.SIGINT: "my runs", signal.SIGTERM: "others"}
    started = {
        number: subprocess.Popen(
            [sys.executable, "-m", "agent.cli.main", *words, "--runs-dir", name],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, name in runs.items()
    }
    monkeypatch.chdir(tmp_path)
    try:
        for number, process in started.items():
            assert any(line.endswith("is safe\n") for line in process.stderr)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out) == (130 if number == signal.SIGINT else 0, "")
            assert "Traceback" not in err
            last = err.splitlines()[-1]
            assert last.startswith("Stopped and saved. Go on with: icebox resume ")
            program, *line = shlex.split(last.removeprefix("Stopped and saved. Go on with: "))
            folder = RunFolder.open(Path(line[1]))
            assert folder.status == "stopped"
            played = folder.meta()["steps"]
            assert main([*line, "--steps", str(played + 50), "--quiet"]) == 0
            assert folder.status == "done" and played + 50 <= folder.meta()["steps"] < played + 60
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_the_flagship_plays_atari_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2,000 steps of Pong with IMPALA, spectral norm, noisy dueling Munchausen-IQN and prioritized replay: the preset
    `short`, made small, trains, is judged, and can be resumed and judged again by the verbs a person uses."""
    pytest.importorskip("ale_py")
    runs = tmp_path / "runs"
    small = {
        "steps": 2_000, "seed": 1, "device": "cpu", "game.num-games": 8, "game.atari.max-frames": 400, "network.width": 1,
        "network.hidden": 64, "replay.capacity": 3_000, "learner.batch-size": 16, "learner.samples-per-insert": 0.2,
        "learner.learning-starts": 1_000, "learner.target-interval": 5, "evaluation.interval-steps": 2_000,
        "evaluation.episodes": 2, "evaluation.num-games": 2,
    }  # fmt: skip
    flags = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    assert main(["train", "atari/pong", "--preset", "short", *flags, "--runs-dir", str(runs)]) == 0
    err = capsys.readouterr().err
    assert "plays   Munchausen dueling noisy IQN with 3-step returns and prioritized replay" in err
    assert main(["resume", "latest", "--steps", "2100", "--runs-dir", str(runs)]) == 0
    assert main(["eval", "latest", "--episodes", "2", "--runs-dir", str(runs)]) == 0
    assert "over 2 unseen episodes" in capsys.readouterr().out
