"""Tests of agent/cli/freeze.py: from a run to an artefact that is proven, refused when it does not play, and repeatable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import short_runs

from agent.cli import freeze
from agent.cli.main import main
from agent.freeze import artefact
from agent.freeze.graph import Graph
from agent.freeze.player import Player
from agent.seeding import seed_for
from agent.telemetry.run_folder import RunFolder

ZOO = Path(__file__).parent / "zoo"
QUICK = ("--episodes", "8", "--most-episodes", "8", "--distil-steps", "20")


@pytest.fixture(autouse=True)
def few_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of states instead of ten thousands, and blinks of an eye for every timing."""
    monkeypatch.setattr(freeze, "STATES", 400)
    monkeypatch.setattr(freeze, "TAUGHT", 900)
    monkeypatch.setattr("agent.freeze.gate.TURNS", 50)
    real = freeze.freeze_report.latencies
    monkeypatch.setattr(freeze.freeze_report, "latencies", lambda *arguments: real(*arguments, seconds=0.05))
    monkeypatch.setattr(freeze.freeze_report, "BATCHES", (1,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A short run of our agent on CartPole."""
    return short_runs.train(tmp_path_factory.mktemp("freeze") / "runs", "cartpole", "--quiet")[1]


def frozen(folder: RunFolder, out: Path, *flags: str) -> int:
    """Freeze the run into `out`; return the exit code."""
    return main(["freeze", str(folder.path), "--out", str(out), *QUICK, *flags])


def test_float32_plays_as_the_live_policy(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file is there, the last line is one JSON object, and the score is the live one's in every paired episode."""
    assert frozen(folder, tmp_path / "out", "--precision", "float32", "--json") == 0
    out = capsys.readouterr().out
    said = json.loads(out.splitlines()[-1])
    scores = said["card"]["gate"]["scores"]
    assert scores["episodes"] == 8 and abs(scores["difference"]) < 1e-6
    assert said["card"]["gate"]["choices"]["agree"] > 0.99
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "MANIFEST.json", "README.md", "golden.npz", "measured.json", "policy.c", "policy.h", "policy.json", "policy.onnx",
        "policy.safetensors",
    }  # fmt: skip
    made = artefact.read(tmp_path / "out")
    assert made.card.refused is None and made.card.game == "cartpole" and made.card.precision.name == "float32"
    assert "It plays as before" in out and "one decision, live, stable-baselines3 predict" in out


def test_freezing_twice_gives_the_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    """Two freezings of one run differ in nothing but the timings, which no digest covers."""
    for name in ("one", "two"):
        assert frozen(folder, tmp_path / name, "--precision", "int8", "--prune", "0.3", "--margin", "9") in (0, 3)
    names = sorted(path.name for path in (tmp_path / "one").iterdir() if path.name != "measured.json")
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_failed_gate_exits_3_and_marks_the_artefact(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the frozen policy scores less, the artefact says so in every place and the player will not take it."""
    real = freeze.Trial.gate

    def worse(self: Any, act: Any) -> Any:
        return real(self, lambda observation: 1 - act(observation))  # the other action: CartPole falls at once

    monkeypatch.setattr(freeze.Trial, "gate", worse)
    assert frozen(folder, tmp_path / "out", "--precision", "float32", "--margin", "0") in (0, 3)
    card = artefact.read(tmp_path / "out").card
    if card.refused is None:
        pytest.skip("the untrained policy is no better than its opposite")
    assert "REFUSED" in capsys.readouterr().out
    assert "**Refused" in (tmp_path / "out" / "README.md").read_text().splitlines()[0]
    with pytest.raises(ValueError, match="refused"):
        Player(tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--target", "tflite"), "--target"),
        (("--target", "onnx", "--board", "cortex-m4"), "--board needs the C file"),
        (("--prune", "most"), "--prune"),
        (("--prune", "1.5"), "--prune"),
        (("--prune", "0.99999"), "99.999% of this policy's multiply-accumulates cannot be pruned, only up to"),
        (("--margin", "-1"), "--margin"),
        (("--episodes", "1"), "--episodes"),
        (("--seed", "-1"), "--seed"),
        (("--most-episodes", "4"), "--most-episodes"),
    ],
)
def test_bad_flags_are_named(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    """Each is answered with its name and exit code 2 before anything is played or written."""
    assert frozen(folder, tmp_path / "out", *flags) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_empty_folder_is_taken(folder: RunFolder, tmp_path: Path) -> None:
    """A folder that somebody made for the artefact is where it goes; no --out that names none is taken for this one."""
    (tmp_path / "out").mkdir()
    assert frozen(folder, tmp_path / "out", "--precision", "float32") == 0
    assert artefact.read(tmp_path / "out").card.game == "cartpole"


@pytest.mark.parametrize("out", ["", "."])
def test_no_name_for_the_artefact_is_an_error(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    """Nothing is written into the folder in which the user happens to be."""
    monkeypatch.chdir(tmp_path)
    assert main(["freeze", str(folder.path), "--out", out, *QUICK]) == 2
    assert ("--out: name a folder" if out else "--out: got nothing") in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [("--precision", "auto"), ("--precision", "float32", "--prune", "auto")])
def test_the_gate_is_played_once_a_policy(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """The candidate that is returned has its scores already, and they are those on the card, unless pruning chose it."""
    asked: list[Any] = []
    real = freeze.Trial.gate

    def noting(self: Any, act: Any) -> Any:
        asked.append(real(self, act))
        return asked[-1]

    monkeypatch.setattr(freeze.Trial, "gate", noting)
    assert frozen(folder, tmp_path / "out", *flags, "--margin", "9") == 0
    card = artefact.read(tmp_path / "out").card
    played = [done["gate"] for done in card.passes if done["gate"]]
    if "--prune" in flags:  # what was chosen by some episodes is proven on others
        assert len(asked) == len(played) + 1 and card.gate["scores"] == asked[-1].figures()
    else:
        assert len(asked) == len(played) and card.gate["scores"] in played


@pytest.mark.parametrize(
    ("shape", "dtype", "many"),
    [((8,), "float32", 50_000), ((10, 10, 4), "uint8", 50_000), ((4, 84, 84), "uint8", 17_715)],
)
def test_distillation_gets_as_many_states_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: str, many: int
) -> None:
    """Fifty thousand, fewer pictures, never fewer than what is calibrated on; no more where nothing is distilled."""
    monkeypatch.setattr(freeze, "STATES", 10_000)
    monkeypatch.setattr(freeze, "TAUGHT", 50_000)
    source = SimpleNamespace(spec=SimpleNamespace(observation_shape=shape, observation_dtype=dtype))
    assert freeze._states_to_collect(source, distilled=True) == many
    assert freeze._states_to_collect(source, distilled=False) == 10_000
    source.spec.observation_shape = (10, 224, 224)
    assert freeze._states_to_collect(source, distilled=True) == 10_000


def test_what_is_no_artefact_is_never_replaced(folder: RunFolder, tmp_path: Path) -> None:
    """A folder with somebody's files is left alone; this is found before minutes of work."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    assert frozen(folder, tmp_path / "mine", "--precision", "float32") == 2
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear"


def test_a_live_network_is_left_as_it_is(folder: RunFolder, tmp_path: Path) -> None:
    """Freezing reads a run: not a byte of it changes. What it adds is the artefact's place on the dashboard."""
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    frozen(folder, tmp_path / "in the dashboard", "--precision", "float32")
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert before == {path: after.pop(path) for path in before}
    assert {path.parent for path in after} == {folder.path / "board" / "in the dashboard"}


def test_the_states_are_those_of_the_live_policy(folder: RunFolder, tmp_path: Path) -> None:
    """The golden states of CartPole lie where a pole can stand, and the outputs are those of the reference."""
    frozen(folder, tmp_path / "out", "--precision", "float32")
    golden = artefact.read(tmp_path / "out").golden
    assert golden.observation.shape == (100, 4) and np.abs(golden.observation[:, 2]).max() < 0.5


def test_pruning_too_much_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nearly all of a good policy taken away without distillation: exit code 3, and the artefact is marked."""
    zip_file = str(ZOO / "dqn-CartPole-v1.zip")
    flags = ("--precision", "int8", "--prune", "0.9994", "--episodes", "8", "--most-episodes", "8", "--distil-steps", "0")
    assert main(["freeze", zip_file, "--out", str(tmp_path / "out"), *flags]) == 3
    assert "REFUSED" in capsys.readouterr().out
    assert artefact.read(tmp_path / "out").card.refused
    assert main(["play", str(tmp_path / "out")]) == 2
    assert main(["verify", str(tmp_path / "out"), "--episodes", "0"]) == 3


def test_what_fails_on_fresh_episodes_is_pruned_less(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pruned policy that passed by luck is given up for the one before, whose proof is on the card with its seed."""

    def lucky(graph: Graph, *_: Any) -> list[Graph]:
        *layers, last = graph.layers
        return [graph, replace(graph, layers=(*layers, replace(last, weight=-last.weight)))]

    monkeypatch.setattr(freeze, "smaller", lucky)
    flags = ("--precision", "int8", "--prune", "auto", "--episodes", "8", "--most-episodes", "8")
    assert main(["freeze", str(ZOO / "dqn-CartPole-v1.zip"), "--out", str(tmp_path / "out"), *flags]) == 0
    assert "it fails there: the one pruned less is taken" in capsys.readouterr().err
    card = artefact.read(tmp_path / "out").card
    assert card.macs == card.passes[0]["macs"]
    assert card.gate["protocol"]["seed"] == seed_for(0, "proof")


def test_an_interrupted_gate_leaves_nothing(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the episodes are played: exit code 130, and no unjudged artefact that somebody could play."""

    def stop(self: Any, act: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(freeze.Trial, "gate", stop)
    assert frozen(folder, tmp_path / "out", "--precision", "float32") == 130
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named_first(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a folder must be is refused before anything is played."""
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file" / "out", Path("/proc/icebox")):
        assert frozen(folder, impossible) == 2
        assert "nothing can be written" in capsys.readouterr().err
