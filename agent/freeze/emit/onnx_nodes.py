"""Nodes and constants of one ONNX graph, written down one call at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

# The oldest opset with LayerNormalization, and the file version of its time: old runtimes read it too.
OPSET, IR_VERSION = 17, 8
PRODUCER = "icebox"

Operand = str | np.ndarray | np.generic  # the name of a value, or a constant


class Described(NamedTuple):
    """What goes in or comes out, [N, *shape]; N is free."""

    dtype: str
    shape: tuple[int, ...] = ()


class Nodes:
    """The nodes so far. Names count up, and what is equal is kept once: the same calls give the same bytes."""

    def __init__(self) -> None:
        """No nodes yet."""
        self._nodes: list[NodeProto] = []
        self._values: dict[tuple[str, tuple[str, ...], str], str] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}

    def constant(self, value: np.ndarray | np.generic) -> str:
        """Return the name of a constant."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))  # the former makes [1] of a scalar
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        return self._constants[key].name

    def add(self, kind: str, *inputs: Operand, **attributes: Any) -> str:
        """Add a node of ONNX's own operators and return the name of its one output."""
        names = tuple(each if isinstance(each, str) else self.constant(each) for each in inputs)
        key = (kind, names, repr(attributes))
        if key not in self._values:
            self._values[key] = f"v{len(self._nodes)}"
            self._nodes.append(helper.make_node(kind, names, [self._values[key]], **attributes))
        return self._values[key]

    def cast(self, x: Operand, dtype: type[np.generic]) -> str:
        """Add a conversion; what has a fraction loses it."""
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def model(self, inputs: dict[str, Described], outputs: dict[str, tuple[str, Described]]) -> bytes:
        """Return the file; `outputs` says which value each of them is."""
        names = {value: name for name, (value, _) in outputs.items()}
        for node in self._nodes:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        graph = helper.make_graph(
            self._nodes,
            "policy",
            [_described(name, what) for name, what in inputs.items()],
            [_described(name, what) for name, (_, what) in outputs.items()],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, producer_name=PRODUCER, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        return model.SerializeToString(deterministic=True)


def _described(name: str, what: Described) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(what.dtype))
    return helper.make_tensor_value_info(name, kind, ["batch", *what.shape])
