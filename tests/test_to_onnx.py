"""Whole policies as ONNX files against their references."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from agent.freeze import graph as floats
from agent.freeze import integer
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.graph import Dense, Graph
from agent.freeze.integer import S8, S16, IntConv, IntegerGraph, IntHead
from agent.freeze.player import check_onnx
from integer_graphs import Builder
from onnx_runs import answers
from policies import GRAPHS, observations, vector_graph


@pytest.mark.parametrize("name", GRAPHS)
def test_every_kind_of_policy(name: str) -> None:
    """Outputs and actions are the references', of the types that the format says; integers to the last bit."""
    graph = GRAPHS[name]()
    x = observations(graph, 200)
    output, action = answers(emit_onnx(graph), x)
    if isinstance(graph, IntegerGraph):
        assert output.dtype == np.int32
        np.testing.assert_array_equal(output, integer.run(graph, x))
        np.testing.assert_array_equal(action, integer.decide(graph, output))
    else:
        expected = floats.run(graph, x, np.float64)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
        np.testing.assert_allclose(action, floats.decide(graph.head, output), rtol=1e-6, atol=1e-6)
    assert action.dtype == (np.int64 if action.ndim == 1 else np.float32)


def policies(seed: int) -> dict[str, IntegerGraph]:
    """Integer policies as they come: vectors with norms or tables, pictures, residual networks of both widths."""
    vector, narrow, wide = (Builder((8,), "float32", seed) for _ in range(3))
    vector.dense(64, S16, multiplier_bits=15).norm().dense(64, S16, multiplier_bits=15).norm(center=True)
    narrow.dense(64, S8, multiplier_bits=15).table().dense(64, S8).table()
    wide.dense(64, S16, 16, 15).table().dense(64, S16, 16, 15).table().dense(5, (-(2**30), 2**30), 16, 15)
    small = Builder((4, 10, 10), "uint8", seed).conv(16, 3).flatten().dense(128, S16, multiplier_bits=15).norm()
    large = Builder((36, 36, 4), "uint8", seed, channels_last=True).conv(32, 8, 4).conv(64, 4, 2).flatten().dense(200)
    return {
        "norms": vector.done(),
        "tables of 8 bits": narrow.done(),
        "16 bits": wide.done(head=False),
        "a small picture": small.done(18),
        "a large picture": large.done(),
        "a residual network": residual(S8, seed),
        "a residual network of 16 bits": residual(S16, seed),
    }


def residual(limits: tuple[int, int], seed: int) -> IntegerGraph:
    """A residual network whose stream has 8 or 16 bits."""
    wide = {"limits": limits, "multiplier_bits": 6 if limits == S8 else 15}
    stream = Builder((2, 16, 16), "uint8", seed).conv(8, 3, padding=1, **wide).pool(3, 2, 1)
    inner = Builder(stream.q.shape[1:], "uint8", seed)
    inner.q = stream.q
    inner.rescale((0, limits[1]), 1, 0).rescale().conv(8, 3, padding=1).conv(8, 3, padding=1, **wide)
    return stream.residual(inner.layers, limits).rescale().flatten().dense(32).done()


@pytest.mark.parametrize("name", policies(0))
def test_integer_policies(name: str) -> None:
    """The file gives the reference's integers on every state, in a batch and one by one, and its choices."""
    for seed in range(3):
        graph = policies(seed)[name]
        x, data = Builder(graph.shape, graph.dtype, seed + 50).states(60), emit_onnx(graph)
        output, action = answers(data, x)
        expected = integer.run(graph, x)
        assert len(np.unique(expected)) > 60
        np.testing.assert_array_equal(output, expected)
        np.testing.assert_array_equal(action, integer.decide(graph, expected))
        np.testing.assert_array_equal(answers(data, x[:1])[0], expected[:1])


def test_the_first_of_equal_integers() -> None:
    """Of equal outputs the first is chosen."""
    graph = Builder((6,), "uint8").done(12)
    head = graph.layers[-1]
    assert isinstance(head, IntHead)
    same = IntHead(head.weight[[0, 1, 2] * 4] // 50, np.ones(12, np.int32), np.zeros(12, np.int32))
    graph = replace(graph, layers=(same,))
    x = np.random.default_rng(0).integers(0, 3, (200, 6)).astype(np.uint8)
    output, action = answers(emit_onnx(graph), x)
    np.testing.assert_array_equal(action, output.argmax(axis=1))
    assert set(action) == {0, 1, 2}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_policy_gives_the_same_bytes(name: str) -> None:
    """A file depends on its policy alone, is taken by the player, and names nothing but its inputs and outputs."""
    data = emit_onnx(GRAPHS[name]())
    assert data == emit_onnx(GRAPHS[name]())
    check_onnx(data)
    model = onnx.load_from_string(data)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    given = {name for name in names if not re.fullmatch(r"[vc]\d+", name)}
    assert given == {"observation", "output", "action"}
    assert not model.metadata_props and not any(node.name or node.doc_string for node in model.graph.node)


def test_weights_take_no_more_bytes_than_they_have_bits() -> None:
    """An 8-bit policy's file is about a quarter of the float policy's, however its layers are computed."""
    built = Builder((64,), "float32").dense(400, S16, multiplier_bits=15).norm().dense(300)
    graph = built.dense(50, S16, multiplier_bits=15).norm().done(7)
    weights = sum(layer.weight.size for layer in graph.layers if hasattr(layer, "weight"))
    assert len(emit_onnx(graph)) < 1.2 * weights


def test_what_cannot_be_written() -> None:
    """A diverged policy is refused, and so is one whose sums onnxruntime could not add up."""
    graph = vector_graph()
    last = graph.layers[-1]
    assert isinstance(last, Dense)
    weight = last.weight.copy()
    weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="diverged"):
        emit_onnx(Graph(graph.shape, graph.dtype, (*graph.layers[:-1], replace(last, weight=weight)), graph.head))
    built = Builder((4, 10, 10), "uint8").conv(2, 3, limits=S16, bits=16, multiplier_bits=15).flatten().done()
    huge = built.layers[0]
    assert isinstance(huge, IntConv)
    with pytest.raises(ValueError, match="sums are too large"):
        emit_onnx(replace(built, layers=(replace(huge, bias=huge.bias + 2**60), *built.layers[1:])))
