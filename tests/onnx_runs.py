"""ONNX files run on one thread, for the tests of what writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from agent.freeze.emit.onnx_nodes import Described, Nodes


def session(data: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """The file as onnxruntime plays it; what its optimizer made of it goes to `optimized`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def answers(data: bytes, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and actions on observations, after the checker has let the file pass."""
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    output, action = session(data).run(["output", "action"], {"observation": x})
    return output, action


def kernels(data: bytes, folder: Path) -> list[str]:
    """The operators that onnxruntime really runs."""
    session(data, folder / "optimized.onnx")
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def file_of(
    add: Callable[[Nodes, str], str], shape: tuple[int, ...], dtype: str, out: tuple[int, ...], out_dtype: str
) -> bytes:
    """A file whose "output" is what `add` makes of "observation"; its "action" is the same again."""
    nodes = Nodes()
    y, what = add(nodes, "observation"), Described(out_dtype, out)
    outputs = {"output": (y, what), "action": (nodes.add("Identity", y), what)}
    return nodes.model({"observation": Described(dtype, shape)}, outputs)
