"""A tree of state becomes files and comes back as it was, or is refused by key path."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import state_tree
from agent.state_tree import STATE, decode, encode

TORCH_DTYPES = [getattr(torch, name) for name in state_tree._DTYPES]
NUMPY_DTYPES = [np.dtype(name) for name in state_tree._DTYPES if name != "bfloat16" and "float8" not in name]


def through_bytes(tree: dict[str, Any]) -> dict[str, Any]:
    """Encode a tree, read the tensors with the safetensors library, and decode."""
    files = {name: b"".join(parts) for name, parts in encode(tree).items()}
    state = files.pop(STATE)
    tensors: dict[str, torch.Tensor] = {}
    for content in files.values():
        tensors.update(safetensors.torch.load(content))
    return decode(state, tensors)


def raw(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor in row-major order, so that NaN equals itself."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def same(a: Any, b: Any) -> bool:
    """Say whether two trees are equal in kind, order and every bit."""
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return type(b) is torch.Tensor and (a.dtype, a.shape) == (b.dtype, b.shape) and raw(a) == raw(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


keys = st.text(max_size=8) | st.sampled_from(
    ["", "a.b", "a/b", "~", "~1", "/", "..", "con", "A", "a", "dict", "tensor", "__metadata__", "key-0", "\0"]
)
shapes = st.lists(st.integers(0, 4), max_size=3)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**140), 2**140)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
)


@st.composite
def buffers(draw: st.DrawFn, dtypes: list) -> tuple[bytes, list[int], Any]:
    """Random bytes seen as some dtype and shape; bools stay 0 or 1."""
    dtype, shape = draw(st.sampled_from(dtypes)), draw(shapes)
    length = int(np.prod(shape, dtype=int)) * dtype.itemsize
    data = draw(st.binary(min_size=length, max_size=length))
    return bytes(byte & 1 for byte in data) if dtype in (torch.bool, np.dtype(bool)) else data, shape, dtype


def as_tensor(buffer: tuple[bytes, list[int], torch.dtype]) -> torch.Tensor:
    """Return a tensor of these bytes."""
    data, shape, dtype = buffer
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)


leaves = (
    plain
    | buffers(TORCH_DTYPES).map(as_tensor)
    | buffers(NUMPY_DTYPES).map(lambda b: np.frombuffer(b[0], b[2]).reshape(b[1]).copy())
)
trees = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=3)),
    max_size=4,
)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_a_tree_comes_back_as_it_was(tree: dict[str, Any]) -> None:
    """Kind, order, dtype, shape and every bit survive, whatever the keys; the library accepts the files."""
    assert same(tree, through_bytes(tree))


@given(trees)
@settings(max_examples=100, deadline=None)
def test_file_names_are_safe_everywhere(tree: dict[str, Any]) -> None:
    """File names differ without regard to case and mean nothing to a shell, Windows or a path."""
    names = list(encode(tree))
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z0-9_-]+\.(safetensors|json)", name)
        assert name.split(".")[0] not in ("con", "prn", "aux", "nul", "com1", "lpt1")


def test_special_leaves() -> None:
    """Huge ints, signed zeros, NaN payloads, empty and zero-dimensional arrays come back exactly."""
    nan = struct.unpack("<d", bytes.fromhex("0100000000fcff7f"))[0]
    tree = {
        "int": [2**53 - 1, 2**53, -(2**53), 2**127 + 1, -(10**5000), 0, True],
        "float": [0.0, -0.0, 5e-324, 0.1, 1e308, float("inf"), float("-inf"), float("nan"), nan],
        "arrays": [torch.tensor(3), np.array(2.5), torch.empty(0, 7), np.empty((3, 0), np.uint8), torch.zeros(1, 1, 0)],
        "empty": {"dict": {}, "list": []},
    }
    assert same(tree, through_bytes(tree))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_layout_in_memory_does_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed, strided, expanded, reversed, read-only, shared and conjugated leaves are saved by value."""
    monkeypatch.setattr(state_tree, "CHUNK_BYTES", chunk)
    base, array = torch.arange(60, dtype=torch.float64).reshape(3, 4, 5), np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    complex64 = torch.view_as_complex(torch.arange(6.0).reshape(3, 2))
    readonly = array.copy()
    readonly.flags.writeable = False
    tree = {
        "torch": {
            "whole": base, "again": base, "view": base[1], "t": base.permute(2, 0, 1), "step": base[::2, :, 1::3],
            "expanded": base[0, 0, :1].expand(4, 3), "grad": torch.nn.Parameter(base[0]), "conj": complex64.conj(),
        },
        "numpy": {"t": array.T, "reversed": array[::-1], "f": np.asfortranarray(array), "readonly": readonly},
    }  # fmt: skip
    back = through_bytes(tree)
    for name, leaf in tree["torch"].items():
        assert torch.equal(leaf, back["torch"][name]) and not back["torch"][name].requires_grad
    for name, leaf in tree["numpy"].items():
        assert np.array_equal(leaf, back["numpy"][name]) and leaf.dtype == back["numpy"][name].dtype


def test_contiguous_leaves_are_not_copied() -> None:
    """A large contiguous leaf is handed on as views of its own memory, at most a chunk each."""
    for leaf in (torch.arange(3 << 20), np.arange(3 << 20)):
        parts = list(itertools.islice(encode({"x": leaf})["x.safetensors"], 1, None))
        assert len(parts) == 6 and all(len(part) <= state_tree.CHUNK_BYTES for part in parts)
        whole = leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf
        assert all(np.shares_memory(np.frombuffer(part, np.uint8), whole) for part in parts)


def test_state_dict_of_a_module_and_its_optimizer_state() -> None:
    """What torch gives out, an OrderedDict with dotted keys, comes back as a dict that torch takes."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = net.state_dict()
    assert isinstance(state, OrderedDict)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    other.load_state_dict(through_bytes({"net": state})["net"])
    assert same(dict(state), dict(other.state_dict()))


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        ((1, 2), "builtins.tuple"),
        ({1, 2}, "builtins.set"),
        (b"x", "builtins.bytes"),
        (np.float64(1), "numpy.float64"),
        (object(), "builtins.object"),
        (np.array(["a"]), "dtype <U1"),
        (np.array([None]), "dtype object"),
        (np.arange(3, dtype=">i4"), "dtype >i4"),
        (np.zeros(2, np.complex128), "dtype complex128"),
        (torch.zeros(2, dtype=torch.complex128), "torch.complex128"),
        (torch.zeros(2).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "meta"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_what_cannot_be_kept_is_named(leaf: Any, said: str) -> None:
    """An unknown leaf is a ValueError with its key path and its kind."""
    with pytest.raises(ValueError, match=re.escape("/learner/a.b/c~1d/1")) as error:
        encode({"learner": {"a.b": {"c/d": [0, leaf]}}})
    assert said in str(error.value)


@pytest.mark.parametrize("key", [1, None, b"x", "\udfff"])
def test_keys_must_be_strings(key: Any) -> None:
    """A key that JSON would change is refused, with the place where it is."""
    with pytest.raises(ValueError, match="/learner"):
        encode({"learner": {key: 1}})
    with pytest.raises(ValueError, match="key|text"):
        encode({key: 1})
    with pytest.raises(ValueError, match="must be a dict"):
        encode([1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "node",
    [
        3, [1], {}, {"dict": 3}, {"dict": {}, "int": "1"}, {"tensor": "torch"}, {"dict": {"a": {"tensor": "torch"}}},
        {"dict": {"a": {"tensor": "pickle"}}}, {"dict": {"a": {"int": 3}}}, {"dict": {"a": {"float": "00"}}},
        {"dict": {"a": {"object": "os.system"}}},
    ],
)  # fmt: skip
def test_a_foreign_state_file_is_refused(node: Any) -> None:
    """Whatever JSON stands in the state file, the answer is a tree or a ValueError."""
    with pytest.raises(ValueError, match="state.json"):
        decode(json.dumps(node).encode(), {})
    with pytest.raises(ValueError, match="state.json"):
        decode(b"[" * 100_000, {})
