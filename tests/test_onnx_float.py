"""Float layers as nodes against the numpy reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.freeze import graph as floats
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.graph import (
    ACTIVATIONS,
    Activate,
    Clip,
    Continuous,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Graph,
    Layer,
    MaxPool,
    Norm,
    Residual,
)
from onnx_runs import answers, kernels

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    """Random numbers."""
    return RNG.normal(size=shape).astype(np.float32)


def policy(shape: tuple[int, ...], *layers: Layer) -> Graph:
    """A policy of these layers; what they give are its outputs."""
    graph = Graph(shape, "float32", layers, Discrete(1))
    outputs = floats.shapes(graph)[-1]
    flat = () if len(outputs) == 1 else (Flatten(),)
    return Graph(shape, "float32", (*layers, *flat), Discrete(int(np.prod(outputs))))


def close(graph: Graph, x: np.ndarray) -> None:
    """The file gives what the reference gives in float64, and the action that its own outputs mean."""
    output, action = answers(emit_onnx(graph), x)
    expected = floats.run(graph, x, np.float64)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    assert output.dtype == np.float32
    np.testing.assert_allclose(action, floats.decide(graph.head, output), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    """Every activation, fused into its layer or alone, far from zero too."""
    graph = policy((6,), Dense(f32(7, 6), f32(7), activation), Activate(activation), Dense(f32(3, 7), f32(3)))
    close(graph, f32(50, 6) * 4)


@pytest.mark.parametrize(
    "layers",
    [
        (Clip(np.float32([[-1] * 4] * 5), np.float32([[np.inf] * 4] * 5)),),
        (Conv(f32(3, 2, 3, 2), f32(3), 2, 1, "relu"), MaxPool(2, 1, 1)),
        (Conv(f32(2, 2, 3, 3), f32(2), 1, 1), Residual((Activate("relu"), Conv(f32(2, 2, 3, 3), f32(2), 1, 1)), "elu")),
        (Norm(f32(2), f32(2), 2 * 9 * 8, center=True, activation="relu"),),
        (Norm(f32(2), f32(2), 99, 0.3),),
        (Flatten(), Fractions(f32(5, 144), (Dense(f32(8, 144), f32(8), "relu"), Dense(f32(3, 8), f32(3))))),
    ],
)
def test_layers(layers: tuple[Layer, ...]) -> None:
    """Every kind of layer behaves as the reference does."""
    shape = (5, 4) if isinstance(layers[0], Clip) else (2, 9, 8)
    close(policy(shape, *layers), f32(20, *shape) * 2)


def centred(out: int, into: int) -> Dense:
    """A dense layer whose outputs have no mean."""
    weight, bias = f32(out, into), f32(out)
    return Dense(weight - weight.mean(0), bias - bias.mean())


@pytest.mark.parametrize(
    ("before", "norm", "kernel"),
    [
        (centred(16, 4), Norm(f32(16), f32(16), 16), "LayerNormalization"),
        (centred(16, 4), Norm(f32(16), f32(16), 20), "SimplifiedLayerNormalization"),
        (Dense(f32(16, 4), f32(16)), Norm(f32(16), f32(16), 16), "SimplifiedLayerNormalization"),
        (Dense(f32(16, 4), f32(16), "relu"), Norm(f32(16), f32(16), 16), "SimplifiedLayerNormalization"),
        (Dense(f32(16, 4), f32(16)), Norm(f32(16), f32(16), 16, center=True), "LayerNormalization"),
        (Dense(f32(16, 4), f32(16)), Norm(f32(16), f32(16), 20, 0.1, center=True), "LayerNormalization"),
    ],
)
def test_norms_have_a_kernel(tmp_path: Path, before: Dense, norm: Norm, kernel: str) -> None:
    """A norm is one of onnxruntime's kernels: the one with a mean only where there is none to speak of, or is meant."""
    graph = policy((4,), before, norm)
    close(graph, f32(50, 4))
    assert kernel in kernels(emit_onnx(graph), tmp_path)


def test_dense_layers_and_convolutions_are_fused(tmp_path: Path) -> None:
    """A layer with its ReLU is one kernel."""
    conv, dense = Conv(f32(8, 1, 3, 3), f32(8), activation="relu"), Dense(f32(4, 288), f32(4), "relu")
    graph = policy((1, 8, 8), conv, Flatten(), dense)
    assert "Relu" not in kernels(emit_onnx(graph), tmp_path)
    close(graph, f32(9, 1, 8, 8))


@pytest.mark.parametrize("squash", ["tanh", "clip"])
def test_continuous_actions(squash: str) -> None:
    """Continuous outputs are squashed or limited as the reference does it."""
    head = Continuous((-2.0, 0.0, 5.0), (2.0, 1.0, 7.5), squash)
    close(Graph((4,), "float32", (Dense(f32(3, 4), f32(3)),), head), f32(99, 4) * 3)


def test_the_first_of_equals() -> None:
    """Of equal outputs the first is chosen, wherever they stand and however many there are."""
    for outputs in (2, 5, 18, 33):
        graph = policy((outputs,), Dense(np.eye(outputs, dtype=np.float32), np.zeros(outputs, np.float32)))
        x = RNG.integers(0, 3, (300, outputs)).astype(np.float32)
        data = emit_onnx(graph)
        np.testing.assert_array_equal(answers(data, x)[1], x.argmax(axis=1))
        np.testing.assert_array_equal([answers(data, one[None])[1][0] for one in x[:20]], x[:20].argmax(axis=1))
