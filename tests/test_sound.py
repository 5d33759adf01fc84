"""Sound graphs: shapes and ranges as the reference finds them, and everything else refused by layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze import sound
from agent.freeze.graph import (
    Clip,
    Continuous,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Graph,
    MaxPool,
    Norm,
    Residual,
)
from agent.freeze.integer import IntDense, IntegerGraph, IntFractions, IntHead, IntTable, Quantize
from agent.freeze.sound import check
from policies import GRAPHS, integer_graph, integer_picture_graph, observations, picture_graph, vector_graph


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("name", GRAPHS)
def test_shapes_are_those_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind every layer the shape is the one that running it gives, and integers lie within the limits found."""
    graph, flows = GRAPHS[name](), []
    through = sound._after

    def noted(layer: Any, flow: Any, at: str, widest: Any) -> Any:
        flows.append((at, through(layer, flow, at, widest)))
        return flows[-1][1]

    monkeypatch.setattr(sound, "_after", noted)
    check(graph)
    found = [flow for at, flow in flows if at.count(".") == 1]
    assert len(found) == len(graph.layers)
    x = observations(graph, 50)
    x = np.moveaxis(x, -1, 1) if graph.channels_last else x
    x = x.astype(np.float32) if isinstance(graph, Graph) else x
    for layer, flow in zip(graph.layers, found, strict=True):
        x = (floats if isinstance(graph, Graph) else integers).apply(layer, x)
        assert x.shape[1:] == flow.shape
        if isinstance(graph, IntegerGraph) and not isinstance(layer, IntHead | IntFractions):
            assert flow.low <= x.min() and x.max() <= flow.high


def with_layers(*layers: Any, shape: tuple[int, ...] = (3,), dtype: str = "float32") -> Graph:
    """A float policy of these layers and four actions."""
    return Graph(shape, dtype, layers, Discrete(4))


DENSE = Dense(zeros(4, 3), zeros(4))
CONV = Conv(zeros(4, 2, 3, 3), zeros(4))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (with_layers(), "has 0 layers"),
        (with_layers(*[floats.Activate("relu")] * 1001, DENSE), "1002 layers"),
        (with_layers(floats.Activate("gelu"), DENSE), "gelu"),
        (with_layers(DENSE, Clip(zeros(4), zeros(4))), "Clip can only be the first"),
        (with_layers(Clip(zeros(3), zeros(3) - 1), DENSE), "low must not"),
        (with_layers(Clip(zeros(2), zeros(2)), DENSE), r"layers\.0 \(Clip\): its low"),
        (with_layers(Dense(zeros(4, 5), zeros(4))), r"its weight is float32 \(4, 5\)"),
        (with_layers(Dense(zeros(4, 3), zeros(3))), "its bias"),
        (with_layers(Dense(zeros(5, 3), zeros(5))), r"gives \(5,\), and the head takes \(4,\)"),
        (with_layers(Dense(zeros(4, 3).astype(np.float64), zeros(4))), "float64"),
        (with_layers(Dense(zeros(4, 3) + np.inf, zeros(4))), "diverged"),
        (with_layers(Norm(zeros(3), zeros(3), 0), DENSE), "count"),
        (with_layers(Norm(zeros(3), zeros(3), 3, -1.0), DENSE), "epsilon"),
        (with_layers(Norm(zeros(3), zeros(3), 3, float("nan")), DENSE), "epsilon"),
        (with_layers(Fractions(zeros(2, 3), (DENSE,)), Flatten()), "Fractions can only be the last"),
        (with_layers(Residual((DENSE,)), DENSE), "added to"),
        (with_layers(DENSE, shape=(3, 1)), "a vector"),
        (with_layers(CONV, shape=(2, 2, 2)), "do not fit"),
        (with_layers(CONV, shape=(3, 8, 8)), "its weight"),
        (with_layers(CONV, shape=(8,)), "cannot slide"),
        (with_layers(replace(CONV, stride=0), shape=(2, 8, 8)), "cannot slide"),
        (with_layers(replace(CONV, stride=1.5), shape=(2, 8, 8)), "cannot slide"),
        (with_layers(replace(CONV, padding=-1), shape=(2, 8, 8)), "cannot slide"),
        (with_layers(replace(CONV, padding=10**6), shape=(2, 8, 8)), "do not fit"),
        (with_layers(MaxPool(2, 2, 2), shape=(2, 8, 8)), "half of the kernel"),
        (with_layers(DENSE, shape=(10**9,)), "shape of the observation"),
        (with_layers(DENSE, shape=(0,)), "shape of the observation"),
        (with_layers(DENSE, dtype="float64"), "float64"),
        (replace(vector_graph(), channels_last=True), "channels last"),
        (replace(vector_graph(), head=Discrete(0)), "number of actions"),
        (replace(vector_graph(), head=Continuous((0.0,), (1.0, 2.0), "tanh")), "limits of actions"),
        (replace(vector_graph(), head=Continuous((0.0,), (float("inf"),), "clip")), "limits of actions"),
        (replace(vector_graph(), head=Continuous((1.0,), (0.0,), "clip")), "limits of actions"),
        (replace(vector_graph(), layers=integer_graph().layers[:2]), "head takes"),
    ],
)  # fmt: skip
def test_float_graphs_that_are_not_sound(graph: Graph, message: str) -> None:
    """What does not fit is refused, by layer."""
    with pytest.raises(ValueError, match=message):
        check(graph)


def test_maps_that_are_too_large() -> None:
    """A convolution that would fill the memory is refused before it runs."""
    wide = Conv(zeros(4000, 2, 1, 1), zeros(4000))
    with pytest.raises(ValueError, match="entries"):
        check(Graph((2, 80, 80), "uint8", (wide,), Discrete(4)))


def changed(index: int, **fields: Any) -> IntegerGraph:
    """The small integer policy with fields of one layer changed."""
    graph = integer_graph()
    layers = list(graph.layers)
    layers[index] = replace(layers[index], **fields)
    return replace(graph, layers=tuple(layers))


def pictured(index: int, **fields: Any) -> IntegerGraph:
    """The large integer policy with fields of one layer changed."""
    graph = integer_picture_graph()
    layers = list(graph.layers)
    layers[index] = replace(layers[index], **fields)
    return replace(graph, layers=tuple(layers))


LAST = integer_picture_graph().layers[8].layers[0]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (replace(integer_graph(), step=0.0), "step"),
        (replace(integer_graph(), step=float("nan")), "step"),
        (replace(integer_graph(), layers=integer_graph().layers[1:]), "starts with Quantize"),
        (replace(integer_picture_graph(), squash=None), "squash"),
        (replace(integer_graph(), squash=integer_picture_graph().squash), "squash"),
        (replace(integer_graph(), layers=integer_graph().layers[:1], head=Discrete(3)), "must be an IntHead"),
        (changed(0, low=np.int16([9, 9, 9]), high=np.int16([9, 9, 8])), "low must not lie above"),
        (changed(0, exponent=np.int8([0, 0, 101])), "its exponent has numbers beyond"),
        (changed(1, low=-40000), "limits -40000 .. 255 do not lie within -32767"),
        (changed(1, low=255), "limits"),
        (changed(1, shift=np.full(5, 63, np.int8)), "its shift has numbers beyond 0 .. 62"),
        (changed(1, shift=np.full(5, -1, np.int8)), "its shift"),
        (changed(1, multiplier=np.zeros(5, np.int32)), "its multiplier"),
        (changed(1, weight=np.full((5, 3), -128, np.int8)), "its weight has numbers"),
        (changed(1, bias=np.full(5, 2**31 - 1, np.int32)), "its sums can leave"),
        (changed(1, bias=np.full(5, 2**61, np.int64)), "its sums can leave"),
        (changed(2, multiplier=np.zeros(4, np.int32)), "its multiplier"),
        (changed(2, weight=np.zeros((4, 5), np.int32)), "int8 or int16"),
        (changed(2, bias=np.full(4, 2**31 - 1, np.int32)), "what leaves 32"),
        (pictured(3, epsilon=0), "epsilon"),
        (pictured(3, places=63), "places"),
        (pictured(3, scale=np.full(4, 2**20, np.int32)), "its scale"),
        (pictured(4, table=np.zeros(256, np.int16)), "its table"),
        (pictured(5, shift=-1), "its shift is -1"),
        (pictured(5, multiplier=2**40), "its multiplier"),
        (pictured(8, layers=(IntTable(np.zeros(257, np.int16)),)), "end with an IntHead"),
        (pictured(8, layers=(replace(LAST, high=2**30),)), "its sum can leave 32"),
        (pictured(2, layers=(Quantize(np.int8([1]), 0, 255),)), "exponent"),
    ],
)
def test_integer_graphs_that_are_not_sound(graph: IntegerGraph, message: str) -> None:
    """What could overflow, miss a table or fall out of its type is refused, by layer."""
    with pytest.raises(ValueError, match=message):
        check(graph)


def test_sums_at_the_limit() -> None:
    """The largest sums that fit 32 bits pass, and the reference agrees that they fit."""
    weight, bias = np.full((1, 3), 127, np.int8), np.int32([2**31 - 1 - 3 * 127 * 255])
    dense = IntDense(weight, bias, np.int32([1]), np.int8([24]), 0, 255)
    head = IntHead(np.ones((4, 1), np.int8), np.ones(4, np.int32), np.zeros(4, np.int32))
    check(IntegerGraph((3,), "uint8", (dense, head), Discrete(4), 1.0))
    assert (integers.product(np.full((1, 3), 255), weight) + bias).max() == 2**31 - 1
    assert picture_graph().channels_last
