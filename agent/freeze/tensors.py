"""The tensors of a file that `torch.save` wrote, in either format, read without torch and without unpickling."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from agent.freeze.archive import Archive
from agent.freeze.symbols import MOST_BYTES, Name, Node, Persistent, as_integers, is_made_by, read, read_whole

# What `torch.save` puts into its zip, below one folder.
MEMBERS = re.compile(
    r"(?!\.)[\w.-]+/"
    r"(data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)",
    re.ASCII,
)
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
OLD_MAGIC, OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # before torch 1.6 there was no zip
MOST_SHARING = 8  # times the size of the file; torch shares the tensors of a shared extractor under three names

Storage = Callable[[str, np.dtype], np.ndarray]  # key, dtype -> [numel]


def read_tensors(data: bytes | memoryview) -> dict[str, np.ndarray]:
    """Return the tensors of a state dict by name, not to be written to.

    Raises ValueError for whatever is no sound state dict of dense tensors, and for numbers that are not finite.
    """
    node, storage = _open_zip(data) if data[:2] == b"PK" else _open_old(data)
    tensors: dict[str, np.ndarray] = {}
    size = 0
    for name, each in _named(node).items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w. -]{1,400}", name, re.ASCII):
            raise ValueError(f"it has a tensor named {ascii(name)[:80]}.")
        placed = _placed(name, each)
        tensor = _view(name, placed, storage(placed.key, placed.dtype))
        size += tensor.nbytes
        if size > MOST_SHARING * len(data):
            raise ValueError("its tensors claim far more numbers than the file holds.")
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ValueError(f"its tensor {name!r} has numbers that are not finite: this policy has diverged.")
        tensors[name] = tensor
    return tensors


class _Placed(NamedTuple):
    """Where a tensor lies."""

    key: str
    dtype: np.dtype
    offset: int
    shape: list[int]
    strides: list[int]


def _named(node: Node) -> dict[Any, Node]:
    named = node.items if is_made_by(node, Name("collections", "OrderedDict")) else node
    if not isinstance(named, dict):
        raise ValueError("it holds something other than tensors with names.")
    return named


def _placed(name: Any, node: Node) -> _Placed:
    if is_made_by(node, REBUILD):
        match node.args:
            case (Persistent(key=key), int(offset), tuple() as shape, tuple() as strides, *_):
                return _Placed(*_located(key), offset, as_integers(shape), as_integers(strides))
    raise ValueError(f"its {ascii(name)[:80]} is no dense tensor.")


def _located(key: Node) -> tuple[str, np.dtype]:
    """Return key and dtype of the storage that a persistent identifier means."""
    match key:
        case ("storage", Name(module="torch") as kind, str(own), str(), int(), *rest) if rest in ([], [None]):
            if kind.name not in STORAGES:
                raise ValueError(f"it has numbers of {kind}, which are not read.")
            return own, np.dtype(STORAGES[kind.name])
    raise ValueError("it has a tensor without a storage.")


def _view(name: str, placed: _Placed, numbers: np.ndarray) -> np.ndarray:
    shape, strides = placed.shape, placed.strides
    size, dense = 1, []
    for side in reversed(shape):
        dense.insert(0, size)
        size *= side
    is_dense = len(strides) == len(shape) and all(
        side == 1 or stride == expected for side, stride, expected in zip(shape, strides, dense, strict=True)
    )
    if not is_dense or min(shape, default=1) < 1:
        raise ValueError(f"its tensor {name!r} of {shape} has strides {strides}: it is expanded or not dense.")
    if not 0 <= placed.offset <= placed.offset + size <= len(numbers):
        raise ValueError(f"its tensor {name!r} of {shape} does not lie within its {len(numbers)} numbers.")
    return numbers[placed.offset : placed.offset + size].reshape(shape)


def _open_zip(data: bytes | memoryview) -> tuple[Node, Storage]:
    archive = Archive(data, MEMBERS, packed=False)
    folders = {name.partition("/")[0] for name in archive.members}
    if len(folders) != 1:
        raise ValueError("it has more than one folder.")
    folder = folders.pop()
    if f"{folder}/byteorder" in archive and archive.read(f"{folder}/byteorder") != b"little":
        raise ValueError("it was written by a machine of the other byte order.")

    def storage(key: str, dtype: np.dtype) -> np.ndarray:
        return _numbers(archive.read(f"{folder}/data/{key}"), dtype)

    return read_whole(archive.read(f"{folder}/data.pkl", most=MOST_BYTES)), storage


def _open_old(data: bytes | memoryview) -> tuple[Node, Storage]:
    """Four pickles, one with the keys of the storages, then these: how many numbers, and the numbers."""
    heads, position = [], 0
    for _ in range(5):
        node, position = read(data, position)
        heads.append(node)
        if heads[0] != OLD_MAGIC:
            raise ValueError("it is not a file of torch.")
    _, protocol, system, tensors, keys = heads
    if protocol != OLD_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was written by an unknown torch, or by a machine of the other byte order.")
    dtypes = {each.key: each.dtype for each in (_placed(*item) for item in _named(tensors).items())}
    places: dict[str, memoryview] = {}
    if not isinstance(keys, list):
        raise ValueError("it does not say which tensors follow.")
    for key in keys:
        if not isinstance(key, str) or key not in dtypes or key in places or len(data) < position + 8:
            raise ValueError("it does not hold the tensors that it names.")
        (count,) = struct.unpack_from("<q", data, position)
        start = position + 8
        position = start + count * dtypes[key].itemsize
        if count < 0 or position > len(data):
            raise ValueError("it is cut short.")
        places[key] = memoryview(data)[start:position]

    def storage(key: str, dtype: np.dtype) -> np.ndarray:
        if key not in places:
            raise ValueError("it does not hold the tensors that it names.")
        return _numbers(places[key], dtype)

    return tensors, storage


def _numbers(content: memoryview, dtype: np.dtype) -> np.ndarray:
    if len(content) % dtype.itemsize:
        raise ValueError("it has a storage that ends within a number.")
    return np.frombuffer(content, dtype)
