"""What the player does before it plays: every file compared with the manifest, and nothing hostile handed on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from policies import artefact_of, dense_files, dense_graph, dense_onnx, golden_of

from agent.freeze.artefact import _npz, manifest_of, write
from agent.freeze.player import MANIFEST, Player, canonical, check_onnx, read_card, read_files, read_golden


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound artefact."""
    write(tmp_path / "a", artefact_of(dense_graph(), dense_files(dense_graph())))
    return tmp_path / "a"


def resign(folder: Path, name: str, data: bytes) -> None:
    """Change a file and write the manifest anew."""
    (folder / name).write_bytes(data)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(manifest_of(files))


def manifest(folder: Path, **changed: Any) -> None:
    """Change keys of the manifest."""
    facts = json.loads((folder / MANIFEST).read_bytes()) | changed
    (folder / MANIFEST).write_bytes(canonical(facts))


def swap(folder: Path, name: str, target: str) -> None:
    """Put a link in place of a file."""
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(target)


RECORD = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (lambda f: (f / "policy.c").unlink(), "policy.c is missing"),
        (lambda f: (f / MANIFEST).unlink(), "MANIFEST.json is missing"),
        (lambda f: (f / "extra.txt").write_text("x"), "'extra.txt' does not belong"),
        (lambda f: (f / "policy.so").mkdir(), "'policy.so' does not belong"),
        (lambda f: swap(f, "policy.onnx", "../policy.onnx"), "policy.onnx is a symbolic link"),
        (lambda f: swap(f, "README.md", "/etc/passwd"), "README.md is a symbolic link"),
        (lambda f: swap(f, MANIFEST, f"../{MANIFEST}"), "MANIFEST.json is a symbolic link"),
        (lambda f: (f / "policy.h").unlink() or (f / "policy.h").mkdir(), "policy.h is not a regular file"),
        (lambda f: (f / "policy.h").unlink() or os.mkfifo(f / "policy.h"), "policy.h is not a regular file"),
        (lambda f: (f / "policy.c").write_bytes(b""), "policy.c is damaged: it has 0 bytes"),
        (lambda f: os.truncate(f / "golden.npz", 2**31), "golden.npz has 2147483648 bytes"),
        (lambda f: os.truncate(f / MANIFEST, 2**20), "MANIFEST.json has 1048576 bytes"),
        (lambda f: manifest(f, version=2), "version 2; this reads version 1"),
        (lambda f: manifest(f, version=True), "version|damaged"),
        (lambda f: manifest(f, version=[9] * 9999), "version"),
        (lambda f: manifest(f, format="icebox-checkpoint"), "not that of a frozen policy"),
        (lambda f: manifest(f, more=1), "MANIFEST.json is damaged"),
        (lambda f: manifest(f, files=None), "MANIFEST.json is damaged"),
        (lambda f: manifest(f, files={}), "does not list README.md"),
        (lambda f: manifest(f, files={name: 1 for name in os.listdir(f)}), "MANIFEST.json is damaged"),
        (lambda f: manifest(f, files=dict.fromkeys(os.listdir(f), RECORD)), "names 'MANIFEST.json'"),
        (lambda f: manifest(f, files=records(f) | {"../../etc/passwd": RECORD}), r"names '\.\./\.\./etc/passwd'"),
        (lambda f: manifest(f, files=records(f) | {"/etc/passwd": RECORD}), "names '/etc/passwd'"),
        (lambda f: manifest(f, files=records(f) | {"policy.c\0": RECORD}), "which is no file of a frozen policy"),
        (lambda f: manifest(f, files=records(f) | {"policy.c": RECORD | {"bytes": True}}), "damaged"),
        (lambda f: manifest(f, files=records(f) | {"policy.c": RECORD | {"bytes": "1"}}), "damaged"),
        (lambda f: manifest(f, files=records(f) | {"policy.c": RECORD | {"url": "x"}}), "damaged"),
        (lambda f: (f / MANIFEST).write_bytes((f / MANIFEST).read_bytes() + b"\n"), "MANIFEST.json is damaged"),
        (lambda f: (f / MANIFEST).write_bytes(b'{"a":' * 10_000), "MANIFEST.json cannot be read as JSON"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff"), "MANIFEST.json cannot be read as JSON"),
    ],
)
def test_damaged_folders(folder: Path, hurt: Callable[[Path], Any], message: str) -> None:
    """Whatever is missing, added, linked, of another kind or another version is named before anything is used."""
    hurt(folder)
    with pytest.raises(ValueError, match=message) as error:
        Player(folder)
    assert len(str(error.value)) < 600


def records(folder: Path) -> dict[str, Any]:
    """What the manifest lists."""
    return json.loads((folder / MANIFEST).read_bytes())["files"]


def test_what_may_lie_there(folder: Path) -> None:
    """Measurements, the player, and what other programs hide do not hurt; a folder may be reached by a link."""
    for name in ("measured.json", "player.py", ".gitattributes"):
        (folder / name).write_text("x")
    (folder / "__pycache__").mkdir()
    (folder.parent / "link").symlink_to(folder)
    assert read_files(folder.parent / "link") == read_files(folder)
    assert "policy.c" in read_files(str(folder))
    for nothing in (folder / "policy.c", folder / "none"):
        with pytest.raises(ValueError, match="There is no folder"):
            read_files(nothing)


def test_a_swapped_action(folder: Path) -> None:
    """A golden action that was changed is found although its digest is right."""
    golden = golden_of(dense_graph())
    golden.action[7] = (golden.action[7] + 1) % 4
    resign(folder, "golden.npz", _npz(golden))
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="1 of 100 golden states, first on state 7"):
        Player(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"observation": None},
        {"observation": {}},
        {"observation": {"shape": [6], "dtype": "float64", "stack": 1}},
        {"observation": {"shape": [], "dtype": "float32", "stack": 1}},
        {"observation": {"shape": [2**40], "dtype": "float32", "stack": 1}},
        {"observation": {"shape": [2**13, 2**13], "dtype": "float32", "stack": 1}},
        {"observation": {"shape": [-6], "dtype": "float32", "stack": 1}},
        {"observation": {"shape": "6", "dtype": "float32", "stack": 1}},
        {"observation": {"shape": [6.0], "dtype": "float32", "stack": 1}},
        {"observation": {"shape": [6], "dtype": "float32", "stack": 4}},
        {"observation": {"shape": [6], "dtype": "float32", "stack": 0}},
        {"observation": {"shape": [6], "dtype": ["float32"], "stack": 1}},
        {"actions": {"kind": "any"}},
        {"actions": []},
        {"refused": True},
        {"version": 2},
        {"format": "x"},
    ],
)
def test_cards_that_cannot_be_played(folder: Path, change: dict[str, Any]) -> None:
    """A card that lacks what playing needs, or asks for absurd memory, is refused with a sentence."""
    facts = json.loads((folder / "policy.json").read_bytes())
    assert read_card(canonical(facts)) == facts
    resign(folder, "policy.json", canonical(facts | change))
    with pytest.raises(ValueError, match="policy.json"):
        Player(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation": np.zeros((100, 7), np.float32)}, "observations have the shape"),
        ({"observation": np.zeros((100, 6), np.uint8)}, "it holds uint8"),
        ({"output": np.zeros((100, 4), np.int64)}, "int64"),
        ({"output": np.zeros((99, 4), np.float32)}, "the same length"),
        ({"output": np.zeros(100, np.float32)}, "the same length"),
        ({"output": np.full((100, 4), np.inf, np.float32)}, "finite"),
        ({"action": np.zeros((100, 1), np.int64)}, "not discrete"),
        ({"action": np.full(100, 4)}, "actions that there are not"),
        ({"action": np.full(100, -1)}, "actions that there are not"),
        ({"observation": np.asfortranarray(np.ones((100, 6), np.float32))}, ""),
    ],
)
def test_golden_states_that_do_not_fit(folder: Path, change: dict[str, np.ndarray], message: str) -> None:
    """Golden states of another policy are refused; the order of the array in memory is no difference."""
    card = json.loads((folder / "policy.json").read_bytes())
    raw = _npz(golden_of(dense_graph())._replace(**change))
    if not message:
        assert (read_golden(raw, card).observation == 1).all()
        return
    with pytest.raises(ValueError, match=message):
        read_golden(raw, card)


# --- ONNX ------------------------------------------------------------------------------------------------------------


def model() -> onnx.ModelProto:
    """A sound model to spoil."""
    return onnx.load_from_string(dense_onnx(dense_graph()))


def external(made: onnx.ModelProto) -> None:
    """Let the weights come from another file."""
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], location="../../etc/passwd")


def sparse(made: onnx.ModelProto) -> None:
    """Add weights of which few are not zero."""
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))


def in_attribute(made: onnx.ModelProto) -> None:
    """Hide a tensor that lies in another file in a node."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "t")
    onnx.external_data_helper.set_external_data(tensor, location="secret")
    made.graph.node.append(helper.make_node("Constant", [], ["t"], value=tensor))


def in_branch(made: onnx.ModelProto) -> None:
    """Hide it in a branch of a condition."""
    body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [3])])
    made.graph.node.append(helper.make_node("If", ["c"], ["t"], then_branch=body, else_branch=body))


def function(made: onnx.ModelProto) -> None:
    """Bring an operator of one's own."""
    opset = [helper.make_opsetid("", 17)]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    made.functions.append(helper.make_function("mine", "f", ["x"], ["y"], nodes, opset))


HOSTILE = {
    external: "another file",
    in_attribute: "another file",
    sparse: "sparse",
    in_branch: "a graph inside a node",
    function: "functions",
    lambda made: made.opset_import.append(helper.make_opsetid("com.microsoft", 1)): "operators of b'com.microsoft'",
    lambda made: setattr(made.graph.node[0], "domain", "ai.onnx.ml"): "operators of b'ai.onnx.ml'",
    lambda made: made.training_info.add().SetInParent(): "training information",
    lambda made: setattr(made.graph.initializer[0], "data_location", TensorProto.EXTERNAL): "another file",
}


@pytest.mark.parametrize("hurt", HOSTILE)
def test_hostile_onnx(hurt: Callable[[onnx.ModelProto], Any], folder: Path) -> None:
    """A model that reads other files, or brings more than plain operators, reaches no runtime, whichever is wanted."""
    made = model()
    check_onnx(made.SerializeToString())
    hurt(made)
    resign(folder, "policy.onnx", made.SerializeToString())
    for runtime in ("onnx", "c", "auto"):
        with pytest.raises(ValueError, match=f"policy.onnx is refused: .*{HOSTILE[hurt]}"):
            Player(folder, runtime)


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_hide_external_data(data: st.DataObject) -> None:
    """Whatever bytes are changed, a model that protobuf still reads as one with external data is refused."""
    made = model()
    external(made)
    raw = bytearray(made.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_onnx(bytes(raw))
    except ValueError:
        return
    try:
        parsed = onnx.load_from_string(bytes(raw))
    except Exception:  # protobuf's own error class
        return
    assert not any(each.external_data or each.data_location for each in parsed.graph.initializer)


@pytest.mark.parametrize(
    "raw", [b"\x3a", b"\x3a\xff", b"\x3a\x05ab", b"\x3b", b"\x3c", b"\xff" * 20, b"\xba\x80\x80\x80\x80\x80\x00\x00"]
)
def test_damaged_onnx(raw: bytes) -> None:
    """Protocol buffers that end early, or hold fields of no kind, are refused."""
    with pytest.raises(ValueError, match="policy.onnx is damaged"):
        check_onnx(raw)
