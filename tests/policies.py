"""Small frozen policies of every kind, and stand-ins for the emitters: C and ONNX of one dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.artefact import Artefact
from agent.freeze.card import Card, Observation, Precision, Score
from agent.freeze.graph import (
    Activate,
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
from agent.freeze.integer import (
    IntConv,
    IntDense,
    IntegerGraph,
    IntFlatten,
    IntFractions,
    IntHead,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
    Squash,
)
from agent.freeze.player import Golden


def _f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _whole(dtype: type, most: int, *shape: int, seed: int = 0, least: int | None = None) -> np.ndarray:
    least = -most if least is None else least
    return np.random.default_rng(seed).integers(least, most + 1, shape).astype(dtype)


def vector_graph() -> Graph:
    """Two dense layers behind a clip: the simplest policy."""
    clip = Clip(np.float32([-np.inf, -2, -1]), np.float32([np.inf, 2, 1]))
    layers = (clip, Dense(_f32(5, 3), _f32(5), "tanh"), Norm(_f32(5), _f32(5), 5), Dense(_f32(4, 5), _f32(4)))
    return Graph((3,), "float32", layers, Discrete(4))


def picture_graph() -> Graph:
    """Convolution, pooling, residual, quantiles, channels last: every other kind of layer."""
    layers = (
        Conv(_f32(4, 2, 3, 3), _f32(4), 1, 1, "relu"),
        MaxPool(3, 2, 1),
        Residual((Conv(_f32(4, 4, 3, 3), _f32(4), padding=1), Norm(_f32(4), _f32(4), 64, 1e-6, True, "elu")), "relu"),
        Flatten(),
        Activate("silu"),
        Fractions(_f32(3, 64), (Dense(_f32(3, 64), _f32(3)),)),
    )
    return Graph((8, 8, 2), "uint8", layers, Discrete(3), channels_last=True)


def continuous_graph(squash: str = "tanh") -> Graph:
    """One dense layer before a continuous head."""
    return Graph((3,), "float32", (Dense(_f32(2, 3), _f32(2)),), Continuous((-2.0, 0.0), (2.0, 1.0), squash))


def _limits(outputs: int, shift: int = 8) -> dict[str, Any]:
    return {
        "bias": _whole(np.int64, 99, outputs),
        "multiplier": _whole(np.int32, 60, outputs, least=1),
        "shift": np.full(outputs, shift, np.int8),
        "low": 0,
        "high": 255,
    }


def integer_graph() -> IntegerGraph:
    """The simplest policy in 8 bits: vectors, two dense layers."""
    layers = (
        Quantize(np.int8([7, 6, 5]), np.int16([-32767, -128, -300]), np.int16([32767, 128, 300])),
        IntDense(_whole(np.int8, 127, 5, 3), **_limits(5, 14)),
        IntHead(_whole(np.int8, 127, 4, 5), np.ones(4, np.int32), _whole(np.int32, 999, 4)),
    )
    return IntegerGraph((3,), "float32", layers, Discrete(4), 0.0123)


def integer_picture_graph() -> IntegerGraph:
    """Every other kind of integer layer, before a head that squashes."""
    wide = {"low": -32767, "high": 32767}
    conv = _limits(4) | wide
    rescale = IntRescale(3, 9, -127, 127)
    layers = (
        IntConv(_whole(np.int16, 32767, 4, 2, 3, 3), **conv, padding=1),
        MaxPool(2, 2),
        IntResidual((IntConv(_whole(np.int8, 127, 4, 4, 3, 3), **conv, padding=1),), 3, 5, 9, -32767, 32767),
        IntNorm(_whole(np.int32, 2**14, 4), _whole(np.int64, 2**30, 4), 5, 20, -32767, 32767, True),
        IntTable(_whole(np.int16, 32767, 257)),
        rescale,
        IntTable(_whole(np.int16, 127, 257)),
        IntFlatten(),
        IntFractions(
            _whole(np.int16, 32767, 3, 64), 15, -32767, 32767,
            (IntDense(_whole(np.int16, 300, 2, 64), **_limits(2, 2) | {"low": -(2**29), "high": 2**29}),),
        ),
    )  # fmt: skip
    squash = Squash(np.int32([3, 5]), np.int8([20, 21]), np.sort(_whole(np.int16, 32767, 257)))
    return IntegerGraph((2, 8, 8), "uint8", layers, Continuous((-2.0, 0.0), (2.0, 1.0), "tanh"), 0.5, squash)


GRAPHS = {
    "vector": vector_graph,
    "picture": picture_graph,
    "continuous": continuous_graph,
    "clipped": lambda: continuous_graph("clip"),
    "integer": integer_graph,
    "integer picture": integer_picture_graph,
}


def observations(graph: Graph | IntegerGraph, count: int, seed: int = 0) -> np.ndarray:
    """Random observations, [count, *shape]."""
    if graph.dtype == "uint8":
        return np.random.default_rng(seed).integers(256, size=(count, *graph.shape), dtype=np.uint8)
    return _f32(count, *graph.shape, seed=seed)


def golden_of(graph: Graph | IntegerGraph, count: int = 100) -> Golden:
    """States with the reference's answers."""
    x = observations(graph, count)
    if isinstance(graph, Graph):
        y = floats.run(graph, x)
        return Golden(x, y, floats.decide(graph.head, y))
    y = integers.run(graph, x)
    return Golden(x, y, integers.decide(graph, y))


def card_of(graph: Graph | IntegerGraph, **others: Any) -> Card:
    """A card that fits a graph."""
    head = graph.head
    count = head.num_actions if isinstance(head, Discrete) else len(head.low)
    bits = 8 if isinstance(graph, IntegerGraph) else 32
    facts: dict[str, Any] = {
        "game": "corridor",
        "algorithm": "DQN",
        "source": {"name": "corridor_s0", "weights": "best evaluation"},
        "observation": Observation(
            layout="features", low=None, high=None, stack=1, frame_skip=1, preprocessing="As the game gives it."
        ),
        "action_names": [f"turn {index}" for index in range(count)],
        "precision": Precision(name=f"{bits} bits", weight_bits=bits, activation_bits=bits, wide=[]),
        "macs": 1000,
        "sizes": {"weights": 40},
        "arena_bytes": 64,
        "score": Score(mean=12.345, standard_deviation=1.5, episodes=100),
        "gate": {"choices": {"agree": 0.9991}, "scores": {"passed": True}},
        "passes": [{"name": "folded", "macs": 1000}],
        "refused": None,
        "versions": {"numpy": "2.0", "torch": None},
    }
    return Card(**(facts | others))


def artefact_of(graph: Graph | IntegerGraph, emitted: dict[str, bytes], **others: Any) -> Artefact:
    """An artefact of a graph and its emitted files; `others` are facts of its card."""
    card, golden = card_of(graph, **others), golden_of(graph)
    if isinstance(graph, Graph):
        return Artefact(card, graph, golden, emitted)
    return Artefact(card, float_twin(graph), golden, emitted, graph)


def float_twin(graph: IntegerGraph) -> Graph:
    """Some float policy with the observation and the head of an integer one."""
    outputs = graph.head.num_actions if isinstance(graph.head, Discrete) else len(graph.head.low)
    size = int(np.prod(graph.shape))
    return Graph(graph.shape, graph.dtype, (Flatten(), Dense(_f32(outputs, size), _f32(outputs))), graph.head)


# --- stand-ins for the emitters: dense layers only -------------------------------------------------------------------

HEADER = """#ifndef POLICY_H
#define POLICY_H
#include <stdint.h>
#define POLICY_OBSERVATION_SIZE {size}
#define POLICY_FRAME_SIZE {size}
#define POLICY_STACK 1
#define POLICY_OUTPUTS {outputs}
#define POLICY_ACTIONS {outputs}
typedef {input} policy_input;
typedef {output} policy_output;
void policy_forward(const policy_input *observation, policy_output *outputs);
int policy_action(const policy_output *outputs);
void policy_actions(const policy_output *outputs, float *actions);
#endif
"""
DENSE = """#include "policy.h"
#include <math.h>
static const float weight[] = {weight}, bias[] = {bias}, low[] = {low}, high[] = {high};
void policy_forward(const policy_input *x, policy_output *y) {{
  for (int i = 0; i < POLICY_OUTPUTS; i++) {{
    float sum = bias[i];
    for (int j = 0; j < POLICY_OBSERVATION_SIZE; j++) sum += weight[i * POLICY_OBSERVATION_SIZE + j] * (float)x[j];
    y[i] = (policy_output)sum;
  }}
}}
int policy_action(const policy_output *y) {{
  int best = 0;
  for (int i = 1; i < POLICY_OUTPUTS; i++) if (y[i] > y[best]) best = i;
  return best;
}}
void policy_actions(const policy_output *y, float *action) {{
  for (int i = 0; i < POLICY_ACTIONS; i++) action[i] = low[i] + 0.5f * (tanhf(y[i]) + 1.0f) * (high[i] - low[i]);
}}
"""


def dense_graph(squash: bool = False, dtype: str = "float32") -> Graph:
    """One dense layer, which the stand-ins below can emit."""
    layer = Dense(_f32(4, 6), _f32(4, seed=1))
    layers = (layer,) if dtype == "float32" else (Flatten(), layer)
    head = Continuous((-2.0, 0.0, -1.0, 0.0), (2.0, 1.0, 1.0, 3.0), "tanh") if squash else Discrete(4)
    return Graph((6,) if dtype == "float32" else (2, 3), dtype, layers, head)


def dense_c(graph: Graph) -> dict[str, bytes]:
    """C of a policy of one dense layer."""
    layer, head = graph.layers[-1], graph.head
    rows = (
        ("weight", layer.weight), ("bias", layer.bias),
        ("low", getattr(head, "low", (0,))), ("high", getattr(head, "high", (0,))),
    )  # fmt: skip
    numbers = {name: "{" + ",".join(float(x).hex() + "f" for x in np.ravel(values)) + "}" for name, values in rows}
    types = {"input": "float" if graph.dtype == "float32" else "uint8_t", "output": "float"}
    header = HEADER.format(size=layer.weight.shape[1], outputs=len(layer.weight), **types)
    return {"policy.c": DENSE.format(**numbers).encode(), "policy.h": header.encode()}


def dense_onnx(graph: Graph) -> bytes:
    """ONNX of a policy of one dense layer."""
    layer, head = graph.layers[-1], graph.head
    constants = {"w": layer.weight.T.copy(), "b": layer.bias}
    nodes = [
        helper.make_node("Cast", ["observation"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["output"]),
    ]
    if isinstance(head, Discrete):
        nodes.append(helper.make_node("ArgMax", ["output"], ["action"], axis=1, keepdims=0))
        action = helper.make_tensor_value_info("action", TensorProto.INT64, ["N"])
    else:
        low, high = np.float32(head.low), np.float32(head.high)
        constants |= {"half": (high - low) / 2, "middle": (high + low) / 2}
        nodes += [helper.make_node("Tanh", ["output"], ["t"]), helper.make_node("Mul", ["t", "half"], ["m"])]
        nodes.append(helper.make_node("Add", ["m", "middle"], ["action"]))
        action = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["N", len(low)])
    seen = TensorProto.FLOAT if graph.dtype == "float32" else TensorProto.UINT8
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", len(layer.bias)])
    model = helper.make_graph(
        nodes, "policy", [helper.make_tensor_value_info("observation", seen, ["N", *graph.shape])], [output, action],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(model, opset_imports=opset, ir_version=9).SerializeToString()


def dense_files(graph: Graph) -> dict[str, bytes]:
    """All emitted files of a policy of one dense layer."""
    return {"policy.onnx": dense_onnx(graph)} | dense_c(graph)
