"""The layers of a float32 policy as ONNX nodes, in the forms that onnxruntime fuses or has a kernel for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.graph import (
    Activate,
    Clip,
    Continuous,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Layer,
    MaxPool,
    Norm,
    Residual,
    apply,
)

F32 = np.float32


def add_layers(nodes: Nodes, layers: Sequence[Layer], x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Add the layers behind f32 `x`, [N, *shape]; return the name and shape of what they give."""
    for before, layer in pairwise((None, *layers)):
        assert layer is not None
        x = _add_layer(nodes, layer, x, shape, before)
        shape = apply(layer, np.zeros((1, *shape), F32)).shape[1:]
    return x, shape


def _add_layer(nodes: Nodes, layer: Layer, x: str, shape: tuple[int, ...], before: Layer | None) -> str:
    match layer:
        case Clip():
            return nodes.add("Min", nodes.add("Max", x, layer.low), layer.high)
        case Flatten():
            return nodes.add("Flatten", x)
        case Dense():
            y = nodes.add("Gemm", x, layer.weight, layer.bias, transB=1)
        case Conv():
            y = nodes.add(
                "Conv", x, layer.weight, layer.bias, strides=[layer.stride] * 2, pads=[layer.padding] * 4
            )
        case Norm():
            y = _add_norm(nodes, layer, x, shape, before)
        case MaxPool():
            return nodes.add(
                "MaxPool", x, kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, pads=[layer.padding] * 4
            )
        case Activate():
            y = x
        case Residual():
            y = nodes.add("Add", x, add_layers(nodes, layer.layers, x, shape)[0])
        case Fractions():
            scaled = nodes.add("Mul", nodes.add("Unsqueeze", x, np.int64([1])), layer.factors)  # [N, K, *shape]
            y, after = add_layers(nodes, layer.layers, nodes.add("Reshape", scaled, np.int64([-1, *shape])), shape)
            by_fraction = nodes.add("Reshape", y, np.int64([-1, len(layer.factors), *after]))
            return nodes.add("ReduceMean", by_fraction, axes=[1], keepdims=0)
    return _add_activation(nodes, layer.activation, y)


def _add_activation(nodes: Nodes, activation: str, x: str) -> str:
    match activation:
        case "none":
            return x
        case "leaky_relu":
            return nodes.add("LeakyRelu", x, alpha=0.01)
        case "silu":
            return nodes.add("Mul", x, nodes.add("Sigmoid", x))
    return nodes.add({"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "elu": "Elu"}[activation], x)


def _add_norm(nodes: Nodes, layer: Norm, x: str, shape: tuple[int, ...], before: Layer | None) -> str:
    # ONNX takes the mean over the entries there are; a pruned x was trained with more.
    share = np.prod(shape) / layer.count
    scale, shift = F32(layer.scale / np.sqrt(share)), layer.shift
    epsilon = layer.epsilon / share
    channels = (-1,) + (1,) * (len(shape) - 1)
    if layer.center or (share == 1 and _has_no_mean(before)):
        # One node where the other form takes three: what has no mean loses nothing by its subtraction.
        entries = [np.broadcast_to(array.reshape(channels), shape) for array in (scale, shift)]
        return nodes.add("LayerNormalization", x, *entries, axis=1, epsilon=epsilon)
    # This order of nodes is what onnxruntime fuses into SimplifiedLayerNormalization.
    power = nodes.add("ReduceMean", nodes.add("Pow", x, F32(2)), axes=list(range(-len(shape), 0)), keepdims=1)
    root = nodes.add("Sqrt", nodes.add("Add", power, F32(epsilon)))
    scaled = nodes.add("Mul", nodes.add("Div", x, root), scale.reshape(channels))
    return nodes.add("Add", scaled, shift.reshape(channels))


def _has_no_mean(layer: Layer | None) -> bool:
    """Whether the mean over a dense layer's outputs is 0 but for rounding, whatever comes in."""
    if not isinstance(layer, Dense) or layer.activation != "none":
        return False
    rows = np.column_stack([layer.weight, layer.bias]).astype(np.float64)
    return bool((np.abs(rows.mean(0)) <= 1e-6 * np.abs(rows).mean(0)).all())


def add_actions(nodes: Nodes, head: Discrete | Continuous, output: str) -> str:
    """Add the choice: f32 [N, outputs] -> i64 [N], or f32 [N, n] for a continuous head."""
    if isinstance(head, Discrete):
        return nodes.add("ArgMax", output, axis=1, keepdims=0)
    low, high = F32(head.low), F32(head.high)
    if head.squash == "clip":
        return nodes.add("Min", nodes.add("Max", output, low), high)
    unit = nodes.add("Mul", nodes.add("Add", nodes.add("Tanh", output), F32(1)), F32(0.5))
    return nodes.add("Add", nodes.add("Mul", unit, high - low), low)
