"""A frozen policy as one ONNX file, from raw observations to actions."""

from __future__ import annotations

import numpy as np

from agent.freeze.emit import onnx_float, onnx_integer
from agent.freeze.emit.onnx_nodes import Described, Nodes
from agent.freeze.graph import Discrete, Graph, require_finite
from agent.freeze.integer import IntegerGraph


def emit_onnx(graph: Graph | IntegerGraph) -> bytes:
    """Return the file; ValueError when a weight is not finite.

    "observation", [N, *shape] as the game gives it, becomes "output", f32 or i32 [N, outputs], and "action", i64 [N],
    or f32 [N, n] for a continuous head. N is free. The same graph gives the same bytes.
    """
    nodes = Nodes()
    x, shape = "observation", graph.shape
    if graph.channels_last:
        x, shape = nodes.add("Transpose", x, perm=[0, 3, 1, 2]), (shape[2], *shape[:2])
    if isinstance(graph, Graph):
        require_finite(graph)
        x = nodes.cast(x, np.float32) if graph.dtype == "uint8" else x
        output, dtype = onnx_float.add_layers(nodes, graph.layers, x, shape)[0], "float32"
        action = onnx_float.add_actions(nodes, graph.head, output)
    else:
        output, dtype = onnx_integer.add_policy(nodes, graph, x, shape), "int32"
        action = onnx_integer.add_actions(nodes, graph, output)
    if isinstance(graph.head, Discrete):
        outputs, choice = graph.head.num_actions, Described("int64")
    else:
        outputs, choice = len(graph.head.low), Described("float32", (len(graph.head.low),))
    return nodes.model(
        {"observation": Described(graph.dtype, graph.shape)},
        {"output": (output, Described(dtype, (outputs,))), "action": (action, choice)},
    )
