"""Artefacts: the same bytes each time, whole or absent, and every damage named before anything is used."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.crash_states import RecordingOs, WeakDisk, freeze, put_in, write_tree
from faults.failing_os import FailingOs
from policies import GRAPHS, artefact_of, dense_files, dense_graph, golden_of, integer_graph, vector_graph
from safetensors.numpy import load, save

from agent.freeze import artefact
from agent.freeze.artefact import Artefact, read, read_measured, write, write_measured
from agent.freeze.player import MANIFEST, canonical

FILES = {"policy.onnx": b"onnx", "policy.c": b"c", "policy.h": b"h"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_read_was_written(name: str, tmp_path: Path) -> None:
    """Card, golden states, files and graphs come back, and writing them again gives the same bytes."""
    made = artefact_of(GRAPHS[name](), FILES, source={"name": 'x"; system("y"); //', "n": [1, 2.5, None]})
    write(tmp_path / "a", made)
    back = read(tmp_path / "a")
    assert back.card == made.card and dict(back.emitted) == FILES
    for mine, theirs in zip(back.golden, made.golden, strict=True):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert [type(graph) for graph in back.graphs.values()] == [type(graph) for graph in made.graphs.values()]
    write(tmp_path / "b", back)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_live_policy_travels_along(tmp_path: Path) -> None:
    """A pruned policy's artefact holds the policy it was pruned from, apart from its own weights."""
    made = replace(artefact_of(vector_graph(), FILES), live=vector_graph())
    write(tmp_path / "a", made)
    assert read(tmp_path / "a").live is not None
    write(tmp_path / "a", replace(made, live=None))
    assert read(tmp_path / "a").live is None


def test_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another clock, another folder and another order of the given files change no byte."""
    made = artefact_of(vector_graph(), FILES)
    write(tmp_path / "a", made)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write(tmp_path / "other" / "b", replace(made, emitted=dict(reversed(FILES.items()))))
    assert contents(tmp_path / "a") == contents(tmp_path / "other" / "b")


def test_numpy_reads_the_golden_states(tmp_path: Path) -> None:
    """golden.npz is an ordinary npz with the three arrays."""
    made = artefact_of(integer_graph(), FILES)
    write(tmp_path / "a", made)
    with np.load(tmp_path / "a" / "golden.npz") as arrays:
        assert {name: arrays[name].dtype.name for name in arrays} == {
            "observation": "float32", "output": "int32", "action": "int64",
        }  # fmt: skip
        assert np.array_equal(arrays["output"], made.golden.output)


def test_policy_json_is_what_the_contract_says(tmp_path: Path) -> None:
    """The facts that the graph tells stand in policy.json beside those of the card."""
    made = artefact_of(GRAPHS["continuous"](), FILES, refused="it falls")
    write(tmp_path / "a", made)
    facts = json.loads((tmp_path / "a" / "policy.json").read_bytes())
    assert (facts["format"], facts["version"], facts["step"]) == ("icebox-policy", 1, None)
    assert facts["observation"]["shape"] == [3] and facts["observation"]["dtype"] == "float32"
    assert facts["actions"] == {
        "kind": "continuous", "names": ["turn 0", "turn 1"], "low": [-2, 0], "high": [2, 1], "squash": "tanh",
    }  # fmt: skip
    assert facts["refused"] == {"reason": "it falls"}
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_bytes())
    assert set(manifest["files"]) == set(contents(tmp_path / "a")) - {MANIFEST}
    for name, record in manifest["files"].items():
        data = (tmp_path / "a" / name).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


NAN = np.full((100, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: replace(made, emitted={}), "policy.onnx, or"),
        (lambda made: replace(made, emitted={"policy.c": b""}), "policy.onnx, or"),
        (lambda made: replace(made, emitted={"../x": b""}), "policy.onnx, or"),
        (lambda made: replace(made, integer=integer_graph()), "another observation or head|outputs of float32"),
        (lambda made: replace(made, golden=golden_of(integer_graph())), "golden.npz"),
        (lambda made: replace(made, golden=made.golden._replace(action=made.golden.action[:5])), "the same length"),
        (lambda made: replace(made, golden=made.golden._replace(action=made.golden.output)), "its actions are not"),
        (lambda made: replace(made, golden=made.golden._replace(observation=NAN)), "finite"),
        (lambda made: replace(made, card=made.card.model_copy(update={"macs": "many"})), "card is not.*macs"),
        (lambda made: replace(made, card=made.card.model_copy(update={"gate": {"p": float("nan")}})), "finite"),
        (lambda made: replace(made, card=made.card.model_copy(update={"gate": {"p": np.float32(1)}})), "gate"),
        (lambda made: replace(made, card=made.card.model_copy(update={"action_names": ["left"]})), "names 1 actions"),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_what_does_not_fit_together_is_not_written(
    change: Callable[[Artefact], Artefact], message: str, tmp_path: Path
) -> None:
    """An artefact that contradicts itself is refused with a sentence, and leaves nothing behind."""
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", change(artefact_of(vector_graph(), FILES)))
    assert list(tmp_path.iterdir()) == []


# --- replacing, and what goes wrong meanwhile ------------------------------------------------------------------------


def strange(folder: Path, name: str) -> None:
    """Put a file into a new folder."""
    folder.mkdir()
    (folder / name).write_text("mine")


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: folder.write_text("mine"),
        lambda folder: folder.symlink_to(folder.parent),
        lambda folder: strange(folder, "thesis.tex"),
        lambda folder: strange(folder, MANIFEST),
        lambda folder: strange(folder, "policy.json"),
        lambda folder: write(folder, artefact_of(vector_graph(), FILES)) or (folder / "notes.txt").write_text("mine"),
    ],
)
def test_nothing_but_an_artefact_is_replaced(make: Callable[[Path], Any], tmp_path: Path) -> None:
    """A folder of the user's, or an artefact with the user's files in it, stays as it is."""
    make(tmp_path / "a")
    before = sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="choose another|not replaced"):
        write(tmp_path / "a", artefact_of(dense_graph(), FILES))
    assert before == sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    """Who makes the folder first finds the artefact in it, and nothing beside it."""
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", artefact_of(vector_graph(), FILES))
    assert read(tmp_path / "a").emitted == FILES and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_artefact_is_replaced(tmp_path: Path) -> None:
    """The new one stands alone, without measurements of the old one and without leftovers."""
    write(tmp_path / "a", artefact_of(vector_graph(), FILES))
    write_measured(tmp_path / "a", {"p50_us": 4.5})
    assert read_measured(tmp_path / "a") == {"p50_us": 4.5}
    write(tmp_path / "a", artefact_of(dense_graph(), {"policy.onnx": b"new"}))
    assert dict(read(tmp_path / "a").emitted) == {"policy.onnx": b"new"}
    assert read_measured(tmp_path / "a") is None
    assert os.listdir(tmp_path) == ["a"]


def test_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever operation fails, the old artefact or the new one stands there whole, and the next write succeeds."""
    first, second = artefact_of(vector_graph(), FILES), artefact_of(dense_graph(), FILES)
    for nth in itertools.count():
        folder = tmp_path / str(nth) / "a"
        put_in(monkeypatch, artefact, FailingOs())
        write(folder, first)
        failing = FailingOs(nth, errno.ENOSPC)
        with monkeypatch.context() as patch:
            put_in(patch, artefact, failing)
            try:
                write(folder, second)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        assert read(folder).graph.shape in (first.graph.shape, second.graph.shape)
        write(folder, second)
        assert read(folder).graph.shape == second.graph.shape
        assert os.listdir(folder.parent) == ["a"]
        if not failing.failed:
            break
    assert nth > 30


def crash_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str = "") -> dict[str, int]:
    """Write an artefact and replace it; count the states that a power cut could leave, and those that lose one."""
    recorder = RecordingOs(tmp_path, ignore_fsync=mutation)
    versions = [artefact_of(dense_graph(), {"policy.onnx": bytes([number])}) for number in (1, 2)]
    marks = []
    with monkeypatch.context() as patch:
        put_in(patch, artefact, recorder)
        for made in versions:
            write(tmp_path / "a", made)
            marks.append(len(recorder.trace))
    disk, report, known, hide = WeakDisk(), {"states": 0, "damaged": 0, "lost": 0}, {}, ""
    for position, step in enumerate(recorder.trace, start=1):
        disk.apply(*step)
        durable = 2 if position >= marks[1] else 1 if position >= marks[0] else 0
        hide = {"mkdir": ".a.icebox-new", "rename": ""}.get(step[0], hide)  # half written it multiplies the states
        for tree in disk.states(hide):
            if (key := freeze(tree)) not in known:
                known[key] = recovered(tmp_path / "scratch", tree)
            report["states"] += 1
            report["damaged"] += known[key] is None
            report["lost"] += known[key] is not None and known[key] < durable
            if mutation and report["damaged"] + report["lost"]:
                return report
    return report


def recovered(scratch: Path, tree: dict[str, Any]) -> int | None:
    """Which version a crash state holds, 0 for none, None when what lies under the name is damaged."""
    write_tree(scratch, tree)
    try:
        found = [name for name in ("a", ".a.icebox-old", ".a.icebox-new") if (scratch / name).exists()]
        return read(scratch / found[0]).emitted["policy.onnx"][0] if found else 0
    except ValueError:
        return None
    finally:
        shutil.rmtree(scratch)


def test_power_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no crash state is there half an artefact, and none that was written is lost."""
    report = crash_report(tmp_path, monkeypatch)
    assert report.pop("states") > 30
    assert report == {"damaged": 0, "lost": 0}


@pytest.mark.parametrize("mutation", ["file", "directory"])
def test_the_power_cut_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str) -> None:
    """Without one kind of fsync the enumeration finds what breaks."""
    report = crash_report(tmp_path, monkeypatch, mutation)
    assert report["damaged"] + report["lost"] > 0


def test_a_power_cut_between_the_two_renamings(tmp_path: Path) -> None:
    """The next write puts the old artefact back before it does anything else."""
    write(tmp_path / "a", artefact_of(vector_graph(), FILES))
    os.rename(tmp_path / "a", tmp_path / ".a.icebox-old")
    with pytest.raises(ValueError):
        write(tmp_path / "a", replace(artefact_of(vector_graph(), FILES), emitted={}))
    write(tmp_path / "a", artefact_of(dense_graph(), FILES))
    assert os.listdir(tmp_path) == ["a"]


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound artefact."""
    write(tmp_path / "a", artefact_of(dense_graph(), dense_files(dense_graph())))
    return tmp_path / "a"


def test_one_byte(folder: Path) -> None:
    """One changed, added or missing byte anywhere in any file is found, and the file is named."""
    for name, data in contents(folder).items():
        places = np.random.default_rng(0).integers(len(data), size=8)
        hurt = [data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :] for place in places]
        for changed in [*hurt, data + b" ", data[:-1], b""]:
            (folder / name).write_bytes(changed)
            with pytest.raises(ValueError, match=name if name != MANIFEST else None) as error:
                read(folder)
            assert len(str(error.value)) < 600
        (folder / name).write_bytes(data)
    assert read(folder).card.game == "corridor"


def resign(folder: Path, **changed: bytes) -> None:
    """Change files (`policy_json` is policy.json) and write the manifest anew: what malice does, not damage."""
    for name, data in changed.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    files = {name: data for name, data in contents(folder).items() if name != MANIFEST}
    (folder / MANIFEST).write_bytes(artefact.manifest_of(files))


def facts_of(folder: Path) -> dict[str, Any]:
    """The contents of policy.json."""
    return json.loads((folder / "policy.json").read_bytes())


@pytest.mark.parametrize("value", [None, True, -1, 0.5, 2**70, "x", [], {}, [[[]]], {"a": 1}])
def test_hostile_facts(folder: Path, value: Any) -> None:
    """Any value in place of any of policy.json's is refused with a sentence, or was as good."""
    facts = facts_of(folder)
    for place in [*((key,) for key in facts), *(("observation", key) for key in facts["observation"]), ("gate", "x")]:
        changed = json.loads(json.dumps(facts))
        node = changed[place[0]] if len(place) == 2 else changed
        node[place[-1]] = value
        resign(folder, policy_json=canonical(changed))
        try:
            back = read(folder)
        except ValueError as error:
            assert len(str(error)) < 600
        else:
            assert artefact._facts(back)[0] == changed


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": NaN}',
        b"1" * 10_000,
        b'{"format": "icebox-policy", "format": "icebox-policy"}',
    ],
)
def test_hostile_json(folder: Path, raw: bytes) -> None:
    """What is no JSON of ours, or nested without end, is refused with a sentence, as a card and as a manifest."""
    (folder / "policy.json").write_bytes(raw)
    resign(folder)
    with pytest.raises(ValueError, match="policy.json"):
        read(folder)
    (folder / MANIFEST).write_bytes(raw)
    with pytest.raises(ValueError, match=MANIFEST):
        read(folder)


def test_nested_figures(folder: Path) -> None:
    """Figures nested as deep as JSON reads them are refused with a sentence or come back, and end in no traceback."""
    facts = facts_of(folder)
    for depth in (100, 300, 900):
        facts["gate"] = {"deep": json.loads("[" * depth + "]" * depth)}
        try:
            raw = json.dumps(facts).encode()
            resign(folder, policy_json=raw)
            read(folder)
        except ValueError as error:
            assert "policy.json" in str(error)


def test_unknown_keys_and_contradictions(folder: Path) -> None:
    """A key that this version does not know, or a fact that the graph contradicts, is refused."""
    for change in ({"macros": 1}, {"step": 0.5}):
        resign(folder, policy_json=canonical(facts_of(folder) | change))
        with pytest.raises(ValueError, match="policy.json"):
            read(folder)


def test_hostile_arrays(folder: Path) -> None:
    """Arrays that belong to nothing, are of another shape, or no safetensors at all are refused by name."""
    good = load((folder / "policy.safetensors").read_bytes())
    for arrays, message in (
        (good | {"extra": np.zeros(3)}, "belong to no graph"),
        (good | {"integer.layers.0.weight": np.zeros(3, np.float32)}, "policy.json"),
        ({}, "missing"),
        (good | {"float.layers.0.weight": np.zeros((2, 2), np.float32)}, "described as"),
    ):
        resign(folder, policy_safetensors=save(arrays))
        with pytest.raises(ValueError, match=message):
            read(folder)
    for raw in (b"", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}", save(good)[:-1]):
        resign(folder, policy_safetensors=raw)
        with pytest.raises(ValueError, match="policy.safetensors"):
            read(folder)


def test_hostile_golden_states(folder: Path) -> None:
    """An npz that is compressed, pickled, cut off, doubled or absurdly large is refused before it is unpacked."""
    golden = golden_of(dense_graph())
    arrays = golden._asdict()

    def npz(save: Callable[..., None] = np.savez, **arrays: np.ndarray) -> bytes:
        file = io.BytesIO()
        save(file, **arrays)
        return file.getvalue()

    huge = npz(**arrays).replace(b"'shape': (100, 6), ", b"'shape': (99999999,)")
    pickled = npz(**arrays | {"action": np.array([print], object)})
    others = npz(observation=golden.action)
    for raw in (npz(np.savez_compressed, **arrays), pickled, huge, others, npz(**arrays)[:-9], b""):
        resign(folder, golden_npz=raw)
        with pytest.raises(ValueError, match="golden.npz"):
            read(folder)
