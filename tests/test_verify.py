"""Tests of agent/cli/verify.py: an artefact that is as it was passes, and every kind of damage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from policies import card_of, golden_of

from agent.cli import freeze
from agent.cli.artefacts import emit, game_facts
from agent.cli.main import main
from agent.cli.settings import load_settings
from agent.freeze import artefact
from agent.freeze.artefact import Artefact, manifest_of
from agent.freeze.card import Observation
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.graph import Conv, Dense, Discrete, Flatten, Graph
from agent.freeze.player import FORMAT, canonical


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 artefact of a short run on CartPole."""
    root = tmp_path_factory.mktemp("verify")
    folder = short_runs.train(root / "runs", "cartpole", "--quiet")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freeze, "STATES", 400)
        patch.setattr("agent.freeze.gate.TURNS", 50)
        patch.setattr(freeze.freeze_report, "measure", lambda source, folder, states, targets: {
            "latency": {name: {"p50_us": 1.0, "p99_us": 1.0} for name in ("frozen, c", "live, torch")}, "runtime": "c",
            "energy_uj_per_decision": None,
        })  # fmt: skip
        flags = ("--precision", "int8", "--episodes", "8", "--most-episodes", "8", "--margin", "9")
        assert main(["freeze", str(folder.path), "--out", str(root / "out"), *flags]) == 0
    return root / "out"


def reseal(folder: Path) -> None:
    """Write the manifest anew, as somebody who changes an artefact on purpose would."""
    names = json.loads((folder / "MANIFEST.json").read_text())["files"]
    (folder / "MANIFEST.json").write_bytes(manifest_of({name: (folder / name).read_bytes() for name in names}))
    assert json.loads((folder / "MANIFEST.json").read_text())["format"] == FORMAT


def test_an_intact_artefact_passes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, emitted code, reference, both runtimes and the gate are checked, and the score is that of freezing."""
    assert main(["verify", str(made), "--json"]) == 0
    out = capsys.readouterr().out
    for check in ("files", "game", "emitted", "reference", "runtime onnx", "runtime c", "gate"):
        assert f"ok      {check}:" in out
    found = json.loads(out.splitlines()[-1])
    assert found["wrong"] == []
    recorded = artefact.read(made).card.gate["scores"]
    assert found["scores"]["frozen_mean"] == recorded["frozen_mean"]


@pytest.mark.parametrize(
    "name", ["policy.onnx", "policy.c", "policy.safetensors", "golden.npz", "policy.json", "README.md"]
)
def test_one_changed_byte_is_found(made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit in any file is named, with exit code 3."""
    shutil.copytree(made, tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "copy" / name).write_bytes(data)
    assert main(["verify", str(tmp_path / "copy"), "--episodes", "0"]) == 3
    assert name in capsys.readouterr().out


def one_weight(layer: Any) -> Any:
    """The layer with its largest weight taken away."""
    weight = layer.weight.copy()
    weight.flat[np.abs(weight).argmax()] = 0
    return replace(layer, weight=weight)


def one_scale(layer: Any) -> Any:
    """The layer with one multiplier doubled."""
    multiplier = layer.multiplier.copy()
    multiplier[0] *= 2
    return replace(layer, multiplier=multiplier)


def swapped(layer: Any) -> Any:
    """The head with its first two actions exchanged."""
    order = [1, 0, *range(2, len(layer.weight))]
    return replace(layer, weight=layer.weight[order], multiplier=layer.multiplier[order], bias=layer.bias[order])


@pytest.mark.parametrize("damage", [one_weight, one_scale, swapped])
def test_a_changed_policy_is_found_though_the_manifest_was_renewed(
    made: Path, tmp_path: Path, damage: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One weight, one scale or a swapped action in the layers contradicts the golden states and the emitted files."""
    shutil.copytree(made, tmp_path / "copy")
    whole: Artefact = artefact.read(made)
    assert whole.integer is not None
    layers = (*whole.integer.layers[:-1], damage(whole.integer.layers[-1]))
    changed = replace(whole, integer=replace(whole.integer, layers=layers))
    artefact.write(tmp_path / "copy", changed)
    assert main(["verify", str(tmp_path / "copy"), "--episodes", "0"]) == 3
    assert "WRONG   reference" in capsys.readouterr().out


def test_other_code_is_found_though_it_plays_alike(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C that gives every golden output but is not what the layers give is not this policy's, and is not run."""
    shutil.copytree(made, tmp_path / "copy")
    with (tmp_path / "copy" / "policy.c").open("a") as file:
        file.write("\n/* more */\n")
    reseal(tmp_path / "copy")
    assert main(["verify", str(tmp_path / "copy"), "--episodes", "0"]) == 3
    out = capsys.readouterr().out
    assert "policy.c is not what" in out and "runtime" not in out


# --- a stack of frames -----------------------------------------------------------------------------------------------

PONG = "atari/pong"


def stacked(frames: int, targets: list[str], **observation: Any) -> Artefact:
    """A policy of Pong that sees so many frames; `observation` says other things of them than are so."""
    rng, settings = np.random.default_rng(0), load_settings(PONG)
    conv = Conv(rng.normal(size=(2, frames, 12, 12)).astype(np.float32) / 999, np.zeros(2, np.float32), 12, 0, "relu")
    head = Dense(rng.normal(size=(6, 2 * 7 * 7)).astype(np.float32), np.zeros(6, np.float32))
    graph = Graph((frames, 84, 84), "uint8", (conv, Flatten(), head), Discrete(6))
    golden = golden_of(graph, 3)
    facts = {"layout": "frames, height, width", "low": 0.0, "high": 255.0, "stack": frames, "frame_skip": 4}
    card = card_of(
        graph,
        game=PONG,
        source={"name": "pong", "games": game_facts(settings)},
        observation=Observation(**(facts | {"preprocessing": "None."} | observation)),
    )
    stack = card.observation.stack if frames % card.observation.stack == 0 else frames
    files = emit(FrozenPolicy(graph), targets, golden, stack=stack, title="pong")
    return Artefact(card, graph, golden, files)


@pytest.mark.parametrize("targets", [["onnx"], ["c"]])
def test_a_missing_frame_of_the_stack_is_found(
    tmp_path: Path, targets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A card that says two frames for four, or a whole policy of three frames, contradicts the game, by name."""

    def said(made: Artefact, code: int) -> str:
        artefact.write(tmp_path / "a", made)
        assert main(["verify", str(tmp_path / "a"), "--episodes", "0"]) == code
        return capsys.readouterr().out

    whole = stacked(4, targets)
    assert "ok      game: observations and actions are those of atari/pong" in said(whole, 0)
    frames = "WRONG   game: policy.json says frames in an observation: 2; atari/pong has 4."
    assert frames in said(stacked(4, targets, stack=2), 3)
    assert "frames for which an action is held: 1; atari/pong has 4" in said(stacked(4, targets, frame_skip=1), 3)
    assert "observations: uint8 (3, 84, 84); atari/pong has uint8 (4, 84, 84)" in said(stacked(3, targets), 3)
    fewer = stacked(3, targets)
    assert f"WRONG   emitted: policy.{targets[0]}" in said(replace(whole, emitted=fewer.emitted), 3)


def test_a_stack_that_no_observation_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three frames to an observation of four pictures are no stack."""
    artefact.write(tmp_path / "a", stacked(4, ["onnx"]))
    facts = json.loads((tmp_path / "a" / "policy.json").read_bytes())
    facts["observation"]["stack"] = 3
    (tmp_path / "a" / "policy.json").write_bytes(canonical(facts))
    reseal(tmp_path / "a")
    assert main(["verify", str(tmp_path / "a"), "--episodes", "0"]) == 3
    assert "WRONG   files: policy.json has a stack of 3 frames" in capsys.readouterr().out


def test_bad_arguments_are_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A negative number of episodes, no folder, a file, and a folder of something else are no damaged artefact."""
    assert main(["verify", str(made), "--episodes", "-1"]) == 2
    assert "--episodes" in capsys.readouterr().err
    (tmp_path / "README.md").touch()
    for path in (tmp_path / "none", tmp_path / "README.md", tmp_path):
        assert main(["verify", str(path)]) == 2
        assert f"{path} is no artefact: name a folder that 'icebox freeze' wrote." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["MANIFEST.json", "policy.json", "README.md", "policy.onnx"])
def test_a_file_that_is_gone(made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An artefact that lacks one of its files is one, and is not as it was."""
    shutil.copytree(made, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    assert main(["verify", str(tmp_path / "copy"), "--episodes", "0"]) == 3
    assert f"WRONG   files: {name} is missing" in capsys.readouterr().out
