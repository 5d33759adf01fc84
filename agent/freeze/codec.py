"""Graphs of frozen policies <-> JSON values and named arrays: a closed vocabulary, nothing executed.

An object of a known class is `{"kind": its name, field: value, ...}`, an array in it `{"dtype": ..., "shape": ...}`;
the array itself hangs under its path, "layers.0.weight". What is read must be as sound as what is written, see
`sound.check`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.graph import Graph
from agent.freeze.integer import IntegerGraph
from agent.freeze.sound import check

Arrays = dict[str, np.ndarray]
Kinds = dict[str, type]


def _named(*kinds: type) -> Kinds:
    return {kind.__name__: kind for kind in kinds}


_POLICIES = _named(Graph, IntegerGraph)

# What may stand in a field, by the field's annotation; every other annotation is a plain value's, see `_plain`.
_LAYERS: dict[str, Kinds] = {
    "tuple[Layer, ...]": _named(*floats.Layer.__args__),
    "tuple[IntLayer, ...]": _named(*integers.IntLayer.__args__),
}
_OBJECTS: dict[str, Kinds] = {
    "Discrete | Continuous": _named(floats.Discrete, floats.Continuous),
    "Squash | None": _named(integers.Squash),
}
_DEEPEST = 8  # layers inside layers
_DTYPES = ("int8", "int16", "int32", "int64", "float32")


def encode(graph: Graph | IntegerGraph) -> tuple[dict[str, Any], Arrays]:
    """Return a graph as JSON values and its arrays by name; ValueError naming the layer that is not sound."""
    check(graph)
    arrays: Arrays = {}
    return _object_out(graph, "", arrays), arrays


def decode(tree: Any, arrays: Mapping[str, np.ndarray]) -> Graph | IntegerGraph:
    """Return the graph that `encode` wrote; ValueError naming what is unknown, missing, left over or not sound."""
    left = dict(arrays)
    graph = _object_in(tree, _POLICIES, "", left, _DEEPEST)
    if left:
        raise ValueError(f"There are arrays that belong to no layer: {', '.join(sorted(left))!s:.200}.")
    check(graph)
    return graph


def _object_out(value: Any, path: str, arrays: Arrays) -> dict[str, Any]:
    node: dict[str, Any] = {"kind": type(value).__name__}
    for field in fields(value):
        node[field.name] = _out(getattr(value, field.name), str(field.type), _join(path, field.name), arrays)
    return node


def _out(value: Any, annotation: str, path: str, arrays: Arrays) -> Any:
    """Return the JSON of one field's value."""
    if annotation == "np.ndarray":
        arrays[path] = np.ascontiguousarray(value)
        return {"dtype": value.dtype.name, "shape": list(value.shape)}
    if annotation in _LAYERS:
        return [_object_out(layer, _join(path, index), arrays) for index, layer in enumerate(value)]
    if annotation in _OBJECTS:
        return None if value is None else _object_out(value, path, arrays)
    convert = {"int": operator.index, "float": float, "bool": bool}.get(annotation, str)
    if annotation.startswith("tuple["):
        convert = float if "float" in annotation else operator.index
        return [convert(item) for item in value]
    return convert(value)


def _object_in(node: Any, kinds: Kinds, path: str, left: Arrays, depth: int) -> Any:
    """Return the object that `_object_out` wrote, which must be of one of `kinds`; its arrays are taken from `left`."""
    at = path or "the policy"
    if not isinstance(node, dict):
        raise ValueError(f"At {at} there must be a JSON object, not {type(node).__name__}.")
    name = node.get("kind")
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"At {at} the kind is {name!r:.100}, not one of {', '.join(kinds)}.")
    types = {field.name: str(field.type) for field in fields(kind)}
    for key in node:
        if key not in types and key != "kind":
            raise ValueError(f"At {at} ({name}) there is an unknown key {key!r:.100}.")
    for key in types:
        if key not in node:
            raise ValueError(f"At {at} ({name}) the key {key} is missing.")
    return kind(**{key: _in(node[key], types[key], _join(path, key), left, depth) for key in types})


def _in(node: Any, annotation: str, path: str, left: Arrays, depth: int) -> Any:
    """Return one field's value from its JSON."""
    if annotation == "np.ndarray":
        return _array_in(node, path, left)
    if annotation in _LAYERS:
        if not isinstance(node, list) or depth == 0:
            raise ValueError(f"At {path} there must be a list of layers, at most {_DEEPEST} deep.")
        kinds = _LAYERS[annotation]
        return tuple(_object_in(each, kinds, _join(path, index), left, depth - 1) for index, each in enumerate(node))
    if annotation in _OBJECTS:
        return None if node is None and "None" in annotation else _object_in(node, _OBJECTS[annotation], path, left, 0)
    if annotation.startswith("tuple["):
        wanted = float if "float" in annotation else int
        if not isinstance(node, list) or not all(type(item) is wanted for item in node):
            raise ValueError(f"At {path} there must be a list of {wanted.__name__}.")
        return tuple(node)
    wanted = {"int": int, "float": float, "bool": bool}.get(annotation, str)
    if type(node) is not wanted:
        raise ValueError(f"At {path} there must be a {wanted.__name__}, not {node!r:.100}.")
    return node


def _array_in(node: Any, path: str, left: Arrays) -> np.ndarray:
    if path not in left:
        raise ValueError(f"The array {path} is missing.")
    array = left.pop(path)
    found = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.dtype.name not in _DTYPES or array.size == 0 or array.ndim == 0 or node != found:
        raise ValueError(f"The array {path} is {array.dtype.name} {list(array.shape)}, described as {node!r:.100}.")
    return array


def _join(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)
