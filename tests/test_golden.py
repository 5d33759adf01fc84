"""Files of every released version, kept in tests/golden: they answer as on the day of their release, or are refused.

`tests/golden/make.py` made them and asked `tests/golden/answers.py` then; here the same is asked again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import answers, make
from safetensors.numpy import load_file, save_file

from agent import checkpoint
from agent.cli.main import main
from agent.freeze import artefact
from agent.freeze.player import MANIFEST, Player, canonical
from agent.replay import demonstrations
from agent.telemetry.run_folder import RunFolder
from agent.viewer.episodes import EpisodeLog

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))
# Sums of float32 depend on the order in which a machine's BLAS and compiler take them. Everything else here is read
# from files or counted in integers, and must not differ in one bit.
ROUNDED = ("output", "value", "batch.r_t", "batch.weight")
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def expected(folder: Path) -> tuple[dict[str, answers.Answers], dict[str, dict[str, str]]]:
    """Return what was answered on the day of the release, by thing, and the hashes."""
    found: dict[str, answers.Answers] = {}
    with np.load(folder / "expected.npz", allow_pickle=False) as arrays:
        for name in arrays:
            thing, _, question = name.partition(":")
            found.setdefault(thing, {})[question] = arrays[name]
    return found, json.loads((folder / "expected.json").read_text())["hashes"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the newest version's files."""
    return Path(shutil.copytree(GOLDEN / VERSIONS[-1], tmp_path / "golden"))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_released_file_was_changed(version: str) -> None:
    """Each has the bytes that it was released with, and none was added or lost: git changed no line's end."""
    folder = GOLDEN / version
    kept = json.loads((folder / "expected.json").read_text())["files"]
    found = contents(folder)
    assert found.keys() == kept.keys() | {"expected.json"}
    assert {name: hashlib.sha256(found[name]).hexdigest() for name in kept} == kept
    assert sum(map(len, found.values())) <= make.LARGEST_SUM_BYTES
    assert max(map(len, found.values())) <= make.LARGEST_BYTES


def test_a_released_version_is_not_made_again() -> None:
    """The script that makes these files refuses when the version's folder exists, and leaves it alone."""
    before = contents(GOLDEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "version", lambda package: VERSIONS[-1].removeprefix("v"))
        with pytest.raises(SystemExit, match="never made again"):
            make.main()
    assert contents(GOLDEN) == before


@pytest.mark.parametrize("version", VERSIONS)
def test_every_format_answers_as_released(version: str, tmp_path: Path) -> None:
    """Weights, replay, games, artefacts, episodes and demonstrations come back bit for bit, and every action is the
    same; only sums of float32 may be rounded otherwise on another machine."""
    torch.set_num_threads(1)
    folder = Path(shutil.copytree(GOLDEN / version, tmp_path / version))
    before = contents(folder)
    arrays, hashes = expected(folder)
    found = make.ask(folder)
    assert {thing: hashed for thing, (_, hashed) in found.items()} == hashes
    assert {thing for thing, (answered, _) in found.items() if answered} == set(arrays)
    for thing, wanted in arrays.items():
        answered = found[thing][0]
        assert set(answered) == set(wanted), thing
        for name, value in wanted.items():
            assert (answered[name].dtype, answered[name].shape) == (value.dtype, value.shape), (thing, name)
            if name in ROUNDED and value.dtype.kind == "f":
                np.testing.assert_allclose(answered[name], value, **NEAR, err_msg=f"{thing} {name}")
            else:
                np.testing.assert_array_equal(answered[name], value, err_msg=f"{thing} {name}")
    assert contents(folder) == before, "reading changed a file"


@pytest.mark.parametrize("name", make.RUNS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_released_run_goes_on(
    version: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`icebox resume` takes a run of that version, trains further and leaves an intact checkpoint of today's."""
    run = Path(shutil.copytree(GOLDEN / version / "runs" / name, tmp_path / "run"))
    before = checkpoint.load_newest(run / "checkpoints").tree
    assert main(["resume", str(run), "--steps", "520"]) == 0
    assert f"resumed at {before['steps']} of 520 steps" in capsys.readouterr().err
    after = checkpoint.load_newest(run / "checkpoints")
    assert after.skipped == [] and after.tree["steps"] >= 520
    weights = ["learner"] if "learner" in before["agent"] else ["modules"]
    old, new = ([answers.hash_of(tree["agent"][part]) for part in weights] for tree in (before, after.tree))
    assert old != new, "nothing was learned"
    scores = after.tree["evaluations"]["timesteps"]
    assert scores[: len(before["evaluations"]["timesteps"])] == before["evaluations"]["timesteps"]
    assert len(scores) > len(before["evaluations"]["timesteps"])


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_released_artefacts_are_verified(
    version: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`icebox verify` finds nothing wrong with an artefact of that version, its emitted files and its score included.

    Where a later version emits other bytes from the same layers, verify must learn to say so without condemning it.
    """
    folder = shutil.copytree(GOLDEN / version / "frozen" / precision, tmp_path / "a")
    assert main(["verify", str(folder)]) == 0
    assert "The artefact is as it was frozen." in capsys.readouterr().err


# --- versions that are yet to come ------------------------------------------------------------------------------------

FUTURE = 99


def future_checkpoint(run: Path) -> None:
    """Let every checkpoint of a run say that it is of a later version, with digests that are right."""
    for manifest in run.glob("checkpoints/*/MANIFEST.json"):
        facts = json.loads(manifest.read_bytes()) | {"version": FUTURE}
        del facts["sha256"]
        manifest.write_bytes(checkpoint._manifest_bytes(facts))


def test_a_later_checkpoint_is_refused_by_its_version(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loading and resuming name the version; the run's files, its status and its checkpoints stay as they were."""
    run = copy / "runs" / "cartpole"
    future_checkpoint(run)
    (newest,) = (run / "checkpoints").iterdir()
    with pytest.raises(checkpoint.UnknownFormat, match=f"version {FUTURE}"):
        checkpoint.load(newest)
    with pytest.raises(FileNotFoundError, match=f"version {FUTURE}"):
        checkpoint.load_newest(run / "checkpoints")
    meta, quiet = RunFolder.open(run).meta(), {"meta.json", ".lock-1"}  # the lock stays, and says that it is free
    before = {name: data for name, data in contents(run).items() if name not in quiet}
    assert main(["resume", str(run), "--steps", "520"]) == 2
    assert f"version {FUTURE}" in capsys.readouterr().err
    assert RunFolder.open(run).meta() == meta
    assert {name: data for name, data in contents(run).items() if name not in quiet} == before
    with pytest.raises(ValueError, match=f"version {FUTURE}"):
        checkpoint.save(run / "checkpoints", 1, {"steps": 0}, keep=1)  # nor is it written over
    assert {name: data for name, data in contents(run).items() if name not in quiet} == before


def of_manifest(folder: Path) -> None:
    """A later version in the manifest."""
    facts = json.loads((folder / MANIFEST).read_bytes()) | {"version": FUTURE}
    (folder / MANIFEST).write_bytes(canonical(facts))


def of_card(folder: Path) -> None:
    """A later version in policy.json, under a manifest of today's."""
    card = json.loads((folder / "policy.json").read_bytes()) | {"version": FUTURE}
    (folder / "policy.json").write_bytes(canonical(card))
    names = json.loads((folder / MANIFEST).read_bytes())["files"]
    (folder / MANIFEST).write_bytes(artefact.manifest_of({name: (folder / name).read_bytes() for name in names}))


@pytest.mark.parametrize(("hurt", "said"), [(of_manifest, f"version {FUTURE}"), (of_card, r"policy\.json")])
def test_a_later_artefact_is_refused(
    hurt: Callable[[Path], None], said: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reader, player and verify refuse it before anything of it is used."""
    folder = copy / "frozen" / "int8"
    hurt(folder)
    before = contents(folder)
    for use in (artefact.read, Player):
        with pytest.raises(ValueError, match=said):
            use(folder)
    assert main(["verify", str(folder)]) == 3
    out, err = capsys.readouterr()
    assert (f"version {FUTURE}" if hurt is of_manifest else "policy.json") in out + err
    assert contents(folder) == before


def test_later_demonstrations_are_refused_by_their_version(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder with one file of a later version nothing is taken, and no run is begun."""
    folder = copy / "demonstrations"
    path = max(folder.iterdir())
    facts: dict[str, Any] = dict(demonstrations.read(path)[0].facts) | {"version": FUTURE}
    save_file(load_file(path), path, metadata={"demonstration": json.dumps(facts)})
    with pytest.raises(ValueError, match=f"{path.name}.*version is {FUTURE}"):
        demonstrations.read(folder)
    runs = copy / "new"
    assert main(["train", "cartpole", "--demonstrations", str(folder), "--runs-dir", str(runs), "--quiet"]) == 2
    assert f"version is {FUTURE}" in capsys.readouterr().err and not runs.exists()


def test_a_later_index_of_episodes_is_left_alone(copy: Path) -> None:
    """The version is named, and neither the index nor a kept game is written over or removed, whatever is played."""
    folder = copy / "episodes"
    index = json.loads((folder / "index.json").read_text()) | {"version": FUTURE, "later": ["facts"]}
    (folder / "index.json").write_text(json.dumps(index))
    (kept,) = folder.glob("*.ep")
    packet = next(iter(make.answers.read_packets(kept)))
    for number in range(3):
        shutil.copyfile(kept, folder / f"other-{number}.ep")
    before, said = contents(folder), []
    log = EpisodeLog(folder, said.append)
    assert log.list() == []
    for _ in range(5):
        log.add("recorded", packet)
    assert log.end("recorded", 1.0, 5, 0) is None
    log.close()
    assert f"version {FUTURE}" in said[0] and "cannot be kept" in said[-1]
    assert contents(folder) == before
