"""Nodes against the file that they become."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from agent.freeze.emit.onnx_nodes import IR_VERSION, OPSET, Described, Nodes
from onnx_runs import answers, file_of


def affine(nodes: Nodes, x: str) -> str:
    """x * 2 + 2, and another constant 2 of another type on the way."""
    doubled = nodes.add("Mul", x, np.float32(2))
    return nodes.add("Flatten", nodes.add("Add", nodes.cast(doubled, np.float64), np.float64([2])))


def test_a_file_computes_what_its_nodes_say() -> None:
    """Any batch goes through, of the shape and type that were described."""
    data = file_of(affine, (2, 3), "float32", (6,), "float64")
    for count in (1, 4):
        x = np.random.default_rng(count).normal(size=(count, 2, 3)).astype(np.float32)
        output, _ = answers(data, x)
        assert output.dtype == np.float64
        np.testing.assert_array_equal(output, (x * 2).astype(np.float64).reshape(count, 6) + 2)


def test_equal_constants_are_kept_once() -> None:
    """The same number of the same type and shape is one constant; scalars stay scalars; rows may lie anyhow."""
    nodes = Nodes()
    weight = np.arange(6, dtype=np.int8).reshape(2, 3)
    names = [nodes.constant(each) for each in (np.float32(1), np.float32(1), np.float64(1), np.float32([1]), weight.T)]
    assert names == [names[0], names[0], *names[2:]]
    assert len(set(names)) == 4
    y = nodes.add("Identity", names[0])
    graph = onnx.load_from_string(nodes.model({"x": Described("float32")}, {"y": (y, Described("float32"))})).graph
    arrays = [numpy_helper.to_array(each) for each in graph.initializer]
    assert [each.shape for each in arrays] == [(), (), (1,), (3, 2)]
    np.testing.assert_array_equal(arrays[-1], weight.T)


def test_equal_nodes_are_kept_once() -> None:
    """The same operator on the same values with the same attributes is one node; another attribute is another node."""
    nodes = Nodes()
    first = nodes.add("Concat", "x", np.float32([1]), axis=0)
    assert nodes.add("Concat", "x", np.float32([1]), axis=0) == first
    others = [nodes.add("Concat", "x", np.float32([2]), axis=0), nodes.add("Concat", "x", np.float32([1]), axis=-1)]
    assert len({first, *others}) == 3


def test_the_file_is_plain() -> None:
    """ONNX's own operators only, no data in other files, the batch free, nothing in it that tells where it was made."""
    data = file_of(affine, (2, 3), "float32", (6,), "float64")
    model = onnx.load_from_string(data)
    assert model.ir_version == IR_VERSION
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert not model.functions and not model.metadata_props and not model.doc_string
    assert all(not each.external_data and each.raw_data for each in model.graph.initializer)
    assert [each.dim_param for each in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "", ""]
    assert data == file_of(affine, (2, 3), "float32", (6,), "float64")
