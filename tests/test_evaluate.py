"""Tests of agent/cli/evaluate.py: which weights play, on which games, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
import torch

from agent import checkpoint
from agent.cli import drive, evaluate
from agent.cli.main import main
from agent.telemetry.run_folder import RunFolder
from agent.telemetry.statistics import iqm
from envs.step import Episode

MEANS = {200: 5.0, 400: 9.0, 600: 3.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[int, torch.Tensor]]:
    """A run whose second evaluation of three is said to be the best, and the network's weights at each."""
    seen: dict[int, torch.Tensor] = {}

    def pretend(session: Any, stop: Any, steps: int, *_: Any, **__: Any) -> list[Episode]:
        mark = steps // 200 * 200
        seen[mark] = torch.nn.utils.parameters_to_vector(session.network.parameters()).detach().clone()
        return [Episode(0, MEANS[mark], 10)] * 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "_play", pretend)
        code, folder = short_runs.train(tmp_path_factory.mktemp("trained") / "runs", "cartpole", "--quiet")
    assert code == 0
    return folder, seen


def judged(folder: RunFolder, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """Run `icebox eval --json` in this process and return its last line as an object."""
    capsys.readouterr()
    assert main(["eval", str(folder.path), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_is_reported(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line is one JSON object with what scripts need, and it says what the lines above it say."""
    folder, _ = trained
    assert main(["eval", str(folder.path), "--json", "--episodes", "7"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result.keys() >= {"game", "episodes", "mean", "std", "iqm", "ci95", "steps", "protocol"}
    assert (result["game"], result["episodes"]) == ("cartpole", 7)
    assert result["min"] <= result["ci95"][0] <= result["mean"] <= result["ci95"][1] <= result["max"]
    assert lines[0] == f"cartpole: mean score {result['mean']:.1f} over 7 unseen episodes"
    assert any(result["protocol"] in line for line in lines)
    assert "greedy" in result["protocol"] and "sticky" not in result["protocol"]


def test_the_statistics_are_those_of_the_scores(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean, deviation, interquartile mean, extremes and mean length are numpy's of the episodes that were played."""
    scores = [1.0, 2.0, 3.0, 10.0, 50.0]
    episodes = [Episode(0, score, int(score) * 2) for score in scores]
    monkeypatch.setattr(evaluate.Judge, "play", lambda *arguments: episodes)
    result = evaluate.judge(trained[0], 5, 0)
    expected = {"mean": np.mean(scores), "std": np.std(scores), "iqm": iqm(scores), "min": 1.0, "max": 50.0}
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["mean_length"] == pytest.approx(2 * np.mean(scores))


def test_the_seed_decides(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed gives the same result twice, another seed another one."""
    first, second, other = (
        judged(trained[0], capsys, "--episodes", "20", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert first == second
    assert first["mean"] != other["mean"]


@pytest.mark.parametrize(("flags", "mark"), [((), 400), (("--weights", "best"), 400), (("--weights", "last"), 600)])
def test_which_weights_play(
    flags: tuple[str, ...], mark: int, trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of the best evaluation play unless the last are asked for, and the report says from which step."""
    folder, seen = trained
    used = []
    real = evaluate.evaluating

    def spy(network: torch.nn.Module, *arguments: Any) -> Any:
        used.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return real(network, *arguments)

    monkeypatch.setattr(evaluate, "evaluating", spy)
    result = judged(folder, capsys, "--episodes", "2", *flags)
    assert torch.equal(used[0], seen[mark])
    assert not any(torch.equal(used[0], weights) for other, weights in seen.items() if other != mark)
    assert mark <= result["steps"] < mark + 4
    assert ("best evaluation during training (9.0 over 3 episodes)" in result["weights"]) == (mark == 400)


def test_damaged_best_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When the best weights cannot be read the last ones play, and that is said on stderr."""
    _, folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet", "--steps", "200")
    for path in (folder.path / "best").glob("checkpoint-*/*"):
        path.write_bytes(b"")
    capsys.readouterr()
    assert main(["eval", str(folder.path), "--episodes", "2"]) == 0
    out, err = capsys.readouterr()
    assert "The last weights are taken instead of the best." in err and "steps, the last" in out


def test_it_changes_nothing_and_runs_beside_training(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """No file of the run changes, and a run that a process holds can be judged."""
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    judged(folder, capsys, "--episodes", "2")
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    with folder.hold():
        judged(folder, capsys, "--episodes", "2")
        folder.set_status("done")


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_the_best_of_stable_baselines_plays(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy of stable-baselines3 is judged with its best weights, reproducibly, and the protocol fits it."""
    _, folder = short_runs.train(tmp_path / "runs", "cartpole", "--algo", algo, "--quiet")
    best = checkpoint.load_newest(folder.path / "best").tree
    first, second = (judged(folder, capsys, "--episodes", "4", "--seed", "5") for _ in range(2))
    assert first == second
    assert first["steps"] == best["steps"] == best["weights"]["steps"]
    assert "deterministic actions" in first["protocol"] and "greedy" not in first["protocol"]


def test_a_run_from_a_gpu_is_judged_without_one(
    trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no GPU, a run that asked for one plays on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = trained[0].settings().model_copy(update={"device": "cuda"})
    monkeypatch.setattr(RunFolder, "settings", lambda self: settings)
    assert judged(trained[0], capsys, "--episodes", "2")["episodes"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--episodes", "0"], "--episodes: must be a whole number, at least 1, got 0."),
        (["--seed", "-1"], "--seed: must be a whole number, at least 0, got -1."),
    ],
)
def test_mistakes(flags: list[str], message: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers out of range are one sentence and code 2."""
    assert main(["eval", str(trained[0].path), *flags]) == 2
    assert capsys.readouterr() == ("", f"icebox: {message}\n")
