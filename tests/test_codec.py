"""Graphs as JSON and arrays: exact, canonical, and closed to everything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.codec import decode, encode
from agent.freeze.graph import Dense, Graph
from policies import GRAPHS, integer_graph, observations, vector_graph


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the bit, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return a == b


@pytest.mark.parametrize("name", GRAPHS)
def test_round_trip(name: str) -> None:
    """What comes back through JSON and safetensors is the same to the bit, computes the same, is written the same."""
    graph = GRAPHS[name]()
    tree, arrays = encode(graph)
    text, packed = json.dumps(tree, allow_nan=False), save(arrays)
    back = decode(json.loads(text), load(packed))
    assert same(graph, back)
    again = encode(back)
    assert (json.dumps(again[0]), save(again[1])) == (text, packed)
    run = floats.run if isinstance(graph, Graph) else integers.run
    x = observations(graph, 20)
    assert run(graph, x).tobytes() == run(back, x).tobytes()


def test_the_vocabulary_is_whole() -> None:
    """The graphs of tests/policies.py hold every kind of layer, so that none escapes the tests here."""
    seen = {node["kind"] for make in GRAPHS.values() for node in objects(encode(make())[0])}
    layers = {kind.__name__ for union in (floats.Layer, integers.IntLayer) for kind in union.__args__}
    assert layers <= seen
    assert {"Discrete", "Continuous", "Squash"} <= seen


def objects(node: Any) -> list[dict[str, Any]]:
    """Every object with a kind in a tree, the tree itself first."""
    if isinstance(node, dict):
        inside = [found for value in node.values() for found in objects(value)]
        return [node, *inside] if "kind" in node else inside
    return [found for item in node for found in objects(item)] if isinstance(node, list) else []


@pytest.mark.parametrize("name", GRAPHS)
def test_missing_and_unknown_keys(name: str) -> None:
    """Every key of every object is needed, no other is allowed, and the message names it."""
    tree, arrays = encode(GRAPHS[name]())
    for index, node in enumerate(objects(tree)):
        for key in node:
            hurt = copy.deepcopy(tree)
            del objects(hurt)[index][key]
            with pytest.raises(ValueError, match=key):
                decode(hurt, arrays)
        hurt = copy.deepcopy(tree)
        objects(hurt)[index]["wieght"] = 1
        with pytest.raises(ValueError, match="wieght"):
            decode(hurt, arrays)


@pytest.mark.parametrize("kind", ["Lambda", "os.system", "", None, 3, ["Dense"], {"Dense": 1}, "Graph", "IntDense"])
def test_unknown_kinds(kind: Any) -> None:
    """A layer of no known kind, or of the other arithmetic, is refused by name."""
    tree, arrays = encode(vector_graph())
    tree["layers"][1]["kind"] = kind
    with pytest.raises(ValueError, match=r"layers\.1"):
        decode(tree, arrays)


@pytest.mark.parametrize("value", [None, True, 1, -1, 1.5, "x", [], {}, [1], 2**70, 1e308, "relu" * 100])
@pytest.mark.parametrize("name", GRAPHS)
def test_wrong_types(name: str, value: Any) -> None:
    """Any value in any place either means the very same graph or another sound one, or is refused with a sentence."""
    tree, arrays = encode(GRAPHS[name]())
    for index, node in enumerate(objects(tree)):
        for key in node:
            hurt = copy.deepcopy(tree)
            objects(hurt)[index][key] = value
            try:
                graph = decode(hurt, arrays)
            except ValueError as error:
                assert str(error).endswith((".", "'")) and len(str(error)) < 500
            else:
                assert encode(graph)[0] == hurt, f"{key} was read as something else"


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))


@settings(max_examples=50)
@given(JSON)
def test_anything_else(tree: Any) -> None:
    """No other JSON is taken for a policy."""
    with pytest.raises(ValueError):
        decode(tree, {})


def deep(tree: dict[str, Any]) -> None:
    """A residual in a residual, and so on."""
    for _ in range(400):
        tree["layers"] = [{"kind": "Residual", "layers": tree["layers"], "activation": "none"}]


def test_deep_nesting() -> None:
    """Layers inside layers inside layers end somewhere."""
    tree, arrays = encode(vector_graph())
    deep(tree)
    with pytest.raises(ValueError, match="at most 8 deep"):
        decode(tree, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("layers.1.bias"), r"layers\.1\.bias is missing"),
        (lambda arrays: arrays.update(extra=np.zeros(3, np.float32)), "belong to no layer: extra"),
        (lambda arrays: arrays.update({"layers.1.bias": np.zeros(5, np.float64)}), "float64"),
        (lambda arrays: arrays.update({"layers.1.bias": np.zeros((5, 1), np.float32)}), r"\[5, 1\]"),
        (lambda arrays: arrays.update({"layers.1.bias": np.float32([0, 0, np.nan, 0, 0])}), "not all of its bias"),
        (lambda arrays: arrays.update({"layers.0.low": np.float32([np.nan, 0, 0])}), "low must not lie above"),
    ],
)
def test_wrong_arrays(change: Callable[[dict[str, np.ndarray]], Any], message: str) -> None:
    """An array that is missing, left over, of another type or shape than described, or not finite is named."""
    tree, arrays = encode(vector_graph())
    change(arrays)
    with pytest.raises(ValueError, match=message):
        decode(tree, arrays)


@pytest.mark.parametrize("shape", [[], [0], [0, 3]])
def test_arrays_without_entries(shape: list[int]) -> None:
    """An array without axes or entries is refused even when it is described as such."""
    tree, arrays = encode(integer_graph())
    arrays["layers.2.weight"] = np.zeros(shape, np.int8)
    tree["layers"][2]["weight"]["shape"] = shape
    with pytest.raises(ValueError, match=r"layers\.2\.weight"):
        decode(tree, arrays)


def test_numpy_numbers_are_written_as_numbers() -> None:
    """A stride that came out of numpy, or an array that is a view, is written as any other."""
    graph = vector_graph()
    dense = graph.layers[3]
    wide = np.repeat(dense.weight, 2, axis=1)[:, ::2]
    norm = replace(graph.layers[2], count=np.int64(5), epsilon=np.float32(0.5))
    odd = replace(graph, layers=(*graph.layers[:2], norm, Dense(wide, dense.bias)))
    tree, arrays = encode(odd)
    assert type(tree["layers"][2]["count"]) is int and type(tree["layers"][2]["epsilon"]) is float
    assert np.array_equal(decode(json.loads(json.dumps(tree)), load(save(arrays))).layers[3].weight, dense.weight)
