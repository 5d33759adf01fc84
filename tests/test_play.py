"""Tests of agent/cli/play.py: episodes with a frozen policy, and no code of strangers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import short_runs
from test_verify import made, reseal  # noqa: F401

from agent.cli.main import main
from agent.cli.play import trusted_player
from agent.freeze import artefact


def test_episodes_are_played_and_reported(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """So many episodes as asked for, the same for the same seed, whatever runtime plays."""
    found = []
    for runtime in ("c", "onnx", "auto"):
        assert main(["play", str(made), "--episodes", "3", "--runtime", runtime, "--seed", "5", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert len(found[0]["scores"]) == 3
    assert found[0]["scores"] == found[1]["scores"] == found[2]["scores"]
    assert [each["runtime"] for each in found[:2]] == ["c", "onnx"]


def test_c_that_does_not_follow_from_the_layers_is_not_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    """A stranger's C that gives all golden outputs and does more besides is never compiled: ONNX plays instead."""
    shutil.copytree(made, tmp_path / "copy")
    marker = tmp_path / "ran"
    with (tmp_path / "copy" / "policy.c").open("a") as file:
        file.write(
            '\n#include <stdio.h>\n__attribute__((constructor)) static void evil(void) {'
            f' FILE *f = fopen("{marker}", "w"); if (f) fclose(f); }}\n'
        )
    reseal(tmp_path / "copy")
    assert trusted_player(tmp_path / "copy", "auto", allow_refused=False).runtime == "onnx"
    assert "not compiled" in capsys.readouterr().err
    assert main(["play", str(tmp_path / "copy"), "--runtime", "c"]) == 2
    assert not marker.exists()


def test_a_refused_policy(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """What failed its gate is played only with the flag that the error names."""
    whole = artefact.read(made)
    artefact.write(tmp_path / "a", replace(whole, card=whole.card.model_copy(update={"refused": "it lost 9 points"})))
    assert main(["play", str(tmp_path / "a")]) == 2
    assert "failed its gate: it lost 9 points. To play it nevertheless: --allow-refused." in capsys.readouterr().err
    assert main(["play", str(tmp_path / "a"), "--allow-refused"]) == 0


def test_bad_arguments_are_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """No episodes, a negative seed, and a folder that is no artefact."""
    assert main(["play", str(made), "--episodes", "0"]) == 2
    assert main(["play", str(made), "--seed", "-1"]) == 2
    assert main(["play", str(made.parent)]) == 2
    err = capsys.readouterr().err
    assert "--episodes" in err and "--seed" in err and "MANIFEST.json" in err
