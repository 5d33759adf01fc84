"""A policy in C as a function of arrays: compiled, loaded through ctypes, and told apart from the reference by it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.emit import c_compile
from agent.freeze.emit.c import emit_c
from agent.freeze.emit.c_compile import compile_shared
from agent.freeze.graph import Continuous, Conv, Dense, Discrete, Flatten, Graph, MaxPool, Norm
from agent.freeze.integer import S16, IntegerGraph, Squash
from integer_graphs import Builder

Policy = Graph | IntegerGraph


def real(*shape: int) -> np.ndarray:
    """A random weight, the same for the same shape."""
    rng = np.random.default_rng(shape)
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)).astype(np.float32)


def float_picture() -> Graph:
    """Every float kernel of a picture, discrete."""
    layers = (
        Conv(real(20, 2, 3, 3), real(20), 1, 1, "relu"),
        MaxPool(2, 2),
        Flatten(),
        Norm(real(60), real(60), 60, center=True, activation="elu"),
        Dense(real(4, 60), real(4)),
    )
    return Graph((2, 6, 2), "uint8", layers, Discrete(4))


def float_vector(squash: str = "tanh") -> Graph:
    """Continuous."""
    head = Continuous((-2.0, -0.1, 0.0), (2.0, 0.3, 7.5), squash)  # type: ignore[arg-type]
    return Graph((5,), "float32", (Dense(real(9, 5), real(9), "tanh"), Dense(3 * real(3, 9), real(3))), head)


def integer_picture() -> IntegerGraph:
    """Every kernel that an integer policy of a picture has, discrete."""
    builder = Builder((2, 6, 5), "uint8").conv(18, 3, 1, 1, S16).pool(2, 2).norm(S16, center=True).flatten()
    return builder.dense(7, bits=16, multiplier_bits=15).table().dense(6).fractions(3, 4).done(4, head=False)


def integer_vector(*, squash: bool = True) -> IntegerGraph:
    """Continuous."""
    graph = Builder((5,), "float32").dense(20, S16, multiplier_bits=15).table().dense(12).done(3)
    table = np.sort(np.random.default_rng(1).integers(-32767, 32768, 257)).astype(np.int16)
    found = Squash(np.int32([99, 2**15 - 1, 5]), np.int8([11, 19, 7]), table) if squash else None
    head = Continuous((-2.0, -0.1, 0.0), (2.0, 0.3, 7.5), "tanh" if squash else "clip")
    return replace(graph, head=head, squash=found, step=3.1e-6)


EVERY: dict[str, Policy] = {
    "float picture": float_picture(),
    "float vector": float_vector(),
    "integer picture": integer_picture(),
    "integer vector": integer_vector(),
}


@pytest.fixture(params=["-march=native", "-mno-avx2"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies are compiled for this processor, and for one without its wide vectors."""
    monkeypatch.setattr(c_compile, "NATIVE", request.param)


def states(graph: Policy, count: int, seed: int = 0) -> np.ndarray:
    """Random observations that the policy takes, [count, *shape]."""
    rng = np.random.default_rng(seed)
    if graph.dtype == "uint8":
        return rng.integers(0, 256, (count, *graph.shape)).astype(np.uint8)
    return rng.standard_normal((count, *graph.shape)).astype(np.float32)


def reference(graph: Policy, observations: np.ndarray) -> np.ndarray:
    """What the numpy reference gives."""
    return (integers if isinstance(graph, IntegerGraph) else floats).run(graph, observations)  # type: ignore[arg-type]


def emitted(graph: Policy, *, stack: int = 1, title: str = "test", golden: int = 4) -> dict[str, bytes]:
    """The policy in C with so many true recorded decisions."""
    observations = states(graph, golden)
    return emit_c(graph, stack=stack, golden=(observations, reference(graph, observations)), title=title)


class Compiled:
    """A compiled policy."""

    def __init__(
        self, graph: Policy, folder: Path, files: Mapping[str, bytes] | None = None, *, stack: int = 1
    ) -> None:
        files = emitted(graph, stack=stack) if files is None else files
        self.library = ctypes.CDLL(str(compile_shared(files, folder / f"{len(list(folder.iterdir()))}.so")))
        self.graph = graph
        self.input = np.uint8 if graph.dtype == "uint8" else np.float32
        self.output = np.int32 if isinstance(graph, IntegerGraph) else np.float32
        self.outputs = graph.head.num_actions if isinstance(graph.head, Discrete) else len(graph.head.low)

    def call(self, function: str, x: np.ndarray, dtype: type) -> np.ndarray:
        """Each row of x through a function from an array to an array of one number per output."""
        y = np.zeros((len(x), self.outputs), dtype)
        for row, out in zip(np.ascontiguousarray(x), y, strict=True):
            getattr(self.library, function)(row.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
        return y

    def forward(self, observations: np.ndarray) -> np.ndarray:
        """policy_forward, [N, *shape] -> [N, outputs]."""
        return self.call("policy_forward", observations.astype(self.input), self.output)

    def step(self, frames: np.ndarray) -> np.ndarray:
        """policy_step on one frame after the other, [N, ...] -> [N, outputs]."""
        return self.call("policy_step", frames.astype(self.input), self.output)


def require_exact(graph: IntegerGraph, folder: Path, count: int = 100) -> np.ndarray:
    """Assert that the C gives the reference's integers, and return them; they must not be all alike."""
    compiled, observations = Compiled(graph, folder), states(graph, count, seed=1)
    expected = reference(graph, observations)
    np.testing.assert_array_equal(compiled.forward(observations), expected)
    assert compiled.library.policy_self_test() == 0
    assert len(np.unique(expected)) > count / 2
    return expected


def require_close(graph: Graph, folder: Path, count: int = 50) -> None:
    """Assert that the C gives the reference's numbers to 1e-5 of a decision's largest, or of 1 where it is less."""
    compiled, observations = Compiled(graph, folder), states(graph, count, seed=1)
    expected = reference(graph, observations)
    apart = np.abs(compiled.forward(observations) - expected).max(1)
    assert (apart <= 1e-5 * np.maximum(1, np.abs(expected).max(1))).all()
    assert compiled.library.policy_self_test() == 0
    assert expected.std() > 1e-3


def build(files: Mapping[str, bytes], folder: Path, command: list[str], *, main: str = "") -> str:
    """Run a compiler's command in a folder with the files (and main.c); return what it says, or fail with it."""
    for name, text in files.items():
        (folder / name).write_bytes(text)
    (folder / "main.c").write_text(main or "int main(void) { return 0; }\n")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
