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

from agent.cli import freeze
from agent.cli.main import main
from agent.freeze import artefact
from agent.freeze.artefact import Artefact, manifest_of
from agent.freeze.player import FORMAT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 artefact of a short run on CartPole."""
    root = tmp_path_factory.mktemp("verify")
    folder = short_runs.train(root / "runs", "cartpole", "--quiet")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freeze, "STATES", 400)
        patch.setattr("agent.freeze.gate.TURNS", 50)
        patch.setattr(freeze.freeze_report, "measure", lambda source, folder, states, targets: {
            "latency": {"frozen, c": {"p50_us": 1.0, "p99_us": 1.0}}, "runtime": "c", "energy_uj_per_decision": None,
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
    """Files, emitted code, reference, both runtimes and the gate are checked, and the gate's score is that of freezing."""
    assert main(["verify", str(made), "--json"]) == 0
    out = capsys.readouterr().out
    for check in ("files", "emitted", "reference", "runtime onnx", "runtime c", "gate"):
        assert f"ok      {check}:" in out
    found = json.loads(out.splitlines()[-1])
    assert found["wrong"] == []
    recorded = artefact.read(made).card.gate["scores"]
    assert found["scores"]["frozen_mean"] == recorded["frozen_mean"]


@pytest.mark.parametrize("name", ["policy.onnx", "policy.c", "policy.safetensors", "golden.npz", "policy.json", "README.md"])
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
    assert "policy.c is not what" in capsys.readouterr().out


def test_bad_arguments_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A negative number of episodes, and a folder that is none."""
    assert main(["verify", str(tmp_path), "--episodes", "-1"]) == 2
    assert "--episodes" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none")]) == 3
    assert "none" in capsys.readouterr().out
