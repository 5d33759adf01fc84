"""A tree of state <-> the contents of files: JSON for the small, safetensors for the large, nothing executable."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from agent.appended import Appended, Growing

CHUNK_BYTES = 4 << 20  # what is copied from a GPU, hashed and written at a time
STATE = "state.json"

# What safetensors calls the types; numpy and torch agree on the names at the left.
_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
# Keys that make a file name on every system as they are (Windows reserves con, nul and others whatever the extension).
_PLAIN_KEY = re.compile(r"(?!(con|prn|aux|nul|com[0-9]|lpt[0-9])$)[a-z0-9_]{1,48}")


Place = Callable[[Growing], Any]  # sees to the records of a leaf, and says in JSON where they are
Placed = Callable[[Any], Appended]  # gives the leaf back


def encode(tree: Mapping[str, Any], place: Place | None = None) -> dict[str, Iterable[bytes | memoryview]]:
    """Return the files that hold `tree`, as name -> parts; parts are made when iterated over, once.

    The records of a `Growing` leaf are in none of them: `place` sees to those. Raises ValueError naming the key path of
    what cannot be kept, before any part is made.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"A checkpoint must be a dict of state, not a {type(tree).__name__}.")
    files: dict[str, Iterable[bytes | memoryview]] = {}
    nodes = {}
    for position, (key, value) in enumerate(tree.items()):
        tensors: dict[str, torch.Tensor | np.ndarray] = {}
        nodes[key] = _encode(value, _join("", key), tensors, place)
        if tensors:
            stem = key if _PLAIN_KEY.fullmatch(key) else f"key-{position}"  # a plain key holds no hyphen
            files[f"{stem}.safetensors"] = _safetensors(tensors)
    files[STATE] = [json.dumps({"dict": nodes}, allow_nan=False, separators=(",", ":")).encode()]
    return files


def decode(state: bytes, tensors: Mapping[str, torch.Tensor], placed: Placed | None = None) -> dict[str, Any]:
    """Return the tree of which `state` is the state file and `tensors` the contents of all its safetensors files.

    `placed` takes what `place` said. Raises ValueError when they do not describe a tree of state.
    """
    try:
        tree = _decode(json.loads(state), "", tensors, placed)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, struct.error) as error:
        raise ValueError(f"{STATE} does not describe a tree of state: {error!r}.") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{STATE} does not hold a dict.")
    return tree


def _encode(value: Any, at: str, tensors: dict[str, torch.Tensor | np.ndarray], place: Place | None) -> Any:
    """Return the JSON of `value`, which hangs at the pointer `at`, and collect its tensors.

    Every JSON object has one key that says what it is, so that no dict of the caller's can be taken for something else.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value, at)
    if kind is int:
        return value if abs(value) < 2**53 else {"int": hex(value)}  # JSON elsewhere is exact to 53 bits only
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if kind is list:
        return [_encode(item, f"{at}/{index}", tensors, place) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {"dict": {key: _encode(item, _join(at, key), tensors, place) for key, item in value.items()}}
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_meta or _dtype(value) not in _DTYPES:
            raise ValueError(f"The tensor at {at} ({value.dtype}, {value.layout}, {value.device}) cannot be kept.")
        tensors[at] = value.detach().resolve_conj().resolve_neg()
        return {"tensor": "torch"}
    if kind is np.ndarray:
        if value.dtype.kind not in "biufc" or not value.dtype.isnative or _dtype(value) not in _DTYPES:
            raise ValueError(f"The array at {at} has the dtype {value.dtype}, which cannot be kept.")
        tensors[at] = value
        return {"tensor": "numpy"}
    if isinstance(value, Growing) and place is not None:
        return {"appended": place(value)}
    raise ValueError(
        f"The value at {at} is a {kind.__module__}.{kind.__qualname__}, which cannot be kept: "
        "use a tensor, numpy array, dict, list, int, float, str, bool or None."
    )


def _decode(node: Any, at: str, tensors: Mapping[str, torch.Tensor], placed: Placed | None) -> Any:
    """Return the value that `_encode` made `node` of."""
    if isinstance(node, list):
        return [_decode(item, f"{at}/{index}", tensors, placed) for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    match list(node.items()):
        case [("dict", content)]:
            return {key: _decode(item, _join(at, key), tensors, placed) for key, item in content.items()}
        case [("int", content)]:
            return int(content, 16)
        case [("float", content)]:
            return struct.unpack(">d", bytes.fromhex(content))[0]
        case [("tensor", "torch")]:
            return tensors[at]
        case [("tensor", "numpy")]:
            return tensors[at].numpy()
        case [("appended", content)] if placed is not None:
            return placed(content)
    raise ValueError(f"the node at {at or '/'} is of no known kind")


def _join(at: str, key: Any) -> str:
    """Return the JSON pointer of `key` below `at`."""
    if type(key) is not str:
        raise ValueError(f"The key {key!r} below {at or '/'} is a {type(key).__name__}: keys must be strings.")
    return f"{at}/{_text(key, at).replace('~', '~0').replace('/', '~1')}"


def _text(text: str, at: str) -> str:
    """Return `text` if UTF-8 can hold it; JSON would join two lone surrogates to one character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The text {text!r} at {at or '/'} is not valid Unicode.") from error
    return text


def _dtype(leaf: torch.Tensor | np.ndarray) -> str:
    return str(leaf.dtype).removeprefix("torch.")


def _safetensors(tensors: Mapping[str, torch.Tensor | np.ndarray]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file part by part.

    Written here, not by the library, because that one moves every tensor to host memory at once, refuses tensors that
    share memory, hides the operating system's errors and leaves hashing for a second pass.
    """
    # Widest types first, which keeps every tensor aligned.
    order = sorted(tensors.items(), key=lambda item: -item[1].itemsize)
    header, end = {}, 0
    for name, leaf in order:
        start, end = end, end + leaf.nbytes
        header[name] = {"dtype": _DTYPES[_dtype(leaf)], "shape": list(leaf.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, leaf in order:
        yield from _chunks(leaf)


def _chunks(leaf: torch.Tensor | np.ndarray) -> Iterator[memoryview]:
    """Yield the bytes of a leaf in row-major order, copying at most a chunk or, if it is not contiguous, a row."""
    if leaf.nbytes == 0:
        return
    contiguous = leaf.is_contiguous() if isinstance(leaf, torch.Tensor) else leaf.flags.c_contiguous
    rows = leaf.reshape(-1) if contiguous or leaf.ndim == 0 else leaf
    step = max(1, CHUNK_BYTES * len(rows) // leaf.nbytes)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        if isinstance(part, torch.Tensor):
            part = part.cpu().contiguous().view(torch.uint8).numpy()
        yield memoryview(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
