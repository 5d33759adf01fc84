"""A policy on QEMU's models of a Cortex-M4 and a Cortex-M55: the same integers, and figures that can be repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.freeze import board
from agent.freeze.board import BOARDS, run_on_board
from agent.freeze.emit.c import emit_c, memory
from agent.freeze.graph import Dense, Discrete, Graph, Norm
from agent.freeze.integer import S8, S16, U8, IntConv, IntDense, IntegerGraph, apply
from compiled import emitted, reference, states
from integer_graphs import Builder

needs_tools = pytest.mark.skipif(bool(board.missing_tools()), reason=f"needs {board.INSTALL}")


def far(weight: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bias, multiplier and shift for sums around 2^31 to 2^32, which take 64 bits."""
    out = len(weight)
    axes = tuple(axis for axis in range(sums.ndim) if axis != 1)
    bias = 2**31 + np.arange(out, dtype=np.int64) * 2**27 - sums.mean(axes).astype(np.int64)
    return weight, bias, np.full(out, 3, np.int32), np.full(out, 19, np.int8)


def every_kernel() -> list[IntegerGraph]:
    """Policies that together use the kernels of rows and columns in every width, and every other kind of layer."""
    picture = Builder((3, 9, 8), "uint8").conv(7, 3, 1, 1).conv(6, 2, 2, 1, S16, bits=16, multiplier_bits=15)
    picture.conv(5, 2, 1, 0, S16, bits=16, multiplier_bits=15)
    weight = picture.weight(6, 5, 2, 2)
    plain = IntConv(weight, np.zeros(6, np.int64), np.ones(6, np.int32), np.zeros(6, np.int8), -(2**62), 2**62)
    picture.add(IntConv(*far(weight, apply(plain, picture.q)), *S16))
    picture.norm(S8).pool(2, 1).flatten().dense(9, S8).table().rescale(U8).fractions(3, 4)
    vector = Builder((5,), "float32").dense(18, S16).norm(S16, center=True).dense(13, S16, multiplier_bits=15).table()
    vector.dense(20, U8, bits=16, multiplier_bits=15).dense(9, S16, bits=16, multiplier_bits=15)
    weight = vector.weight(9, 9)
    vector.add(IntDense(*far(weight, vector.q @ weight.T.astype(np.int64)), *S16))
    return [picture.done(4, head=False), vector.done()]


def test_every_kernel_is_among_them() -> None:
    """The policies below use rows and columns of every width."""
    text = b"".join(emitted(graph)["policy.c"] for graph in every_kernel())
    wanted = [f"{name}_{bits}_{sums}" for name in ("rows", "columns") for bits in (8, 16) for sums in (32, 64)]
    assert [name for name in wanted if f"void policy_{name}(".encode() not in text] == []


@needs_tools
@pytest.mark.parametrize("name", BOARDS)
def test_the_same_integers(name: str) -> None:
    """The fast paths of both cores give the reference's integers, and the self-test says so."""
    for graph in every_kernel():
        x = states(graph, 100, seed=1)
        report = run_on_board(emitted(graph), name, x)
        np.testing.assert_array_equal(report.outputs, reference(graph, x))
        assert report.self_test_failures == 0 and report.outputs.dtype == np.int32
        kept = memory(graph)
        assert kept.arena <= report.ram_bytes <= kept.arena + 4 * (x[0].size + 32)
        assert kept.constants < report.flash_bytes < kept.constants + 16384
        assert 50 < report.stack_bytes < 2048


@needs_tools
@pytest.mark.parametrize(("name", "most"), [("cortex-m4", 2), ("cortex-m55", 1)])
def test_instructions_of_dense_layers(name: str, most: float) -> None:
    """A decision of dense layers takes at most 2 instructions per multiply-accumulate on the M4 and 1 on the M55."""
    graph = Builder((8,), "float32").dense(128).dense(128).done(4)
    files = emitted(graph)
    first, second = (run_on_board(files, name, states(graph, 1)).figures() for _ in range(2))
    assert first == second
    assert 0.2 < int(first["instructions_per_decision"]) / (8 * 128 + 128 * 128 + 128 * 4) <= most


@needs_tools
@pytest.mark.parametrize("name", BOARDS)
def test_floats(name: str) -> None:
    """Floats come out to 1e-5, and a wrong recorded decision is counted."""
    rng = np.random.default_rng(0)
    w = [rng.standard_normal(shape).astype(np.float32) for shape in ((21, 6), (21,), (21,), (3, 21), (3,))]
    layers = (Dense(w[0], w[1], "tanh"), Norm(w[1], w[2], 21, center=True, activation="elu"), Dense(w[3], w[4]))
    graph = Graph((6,), "float32", layers, Discrete(3))
    x = states(graph, 20)
    golden = reference(graph, x)
    golden[7] += 1
    report = run_on_board(emit_c(graph, golden=(x, golden), title=""), name, x)
    np.testing.assert_allclose(report.outputs, reference(graph, x), rtol=1e-5, atol=1e-5)
    assert report.self_test_failures == 1


@needs_tools
def test_too_large_and_too_slow() -> None:
    """What does not fit the board's memory, or does not end in time, is refused with words."""
    graph = Builder((3,), "uint8").dense(4).done()
    files = emitted(graph)
    ballast = b'#include "policy.h"\nstatic const unsigned char ballast[9999999] = {1};\n'
    grown = files["policy.c"].replace(b'#include "policy.h"\n', ballast)
    grown = grown.replace(b"    policy_copy", b"    outputs[0] = ballast[observation[0]];\n    policy_copy")
    with pytest.raises(ValueError, match="bytes too large for the memory of cortex-m4"):
        run_on_board({**files, "policy.c": grown}, "cortex-m4")
    endless = files["policy.c"].replace(b"    policy_copy", b"    for (;;)\n        ;\n    policy_copy")
    with pytest.raises(ValueError, match="did not finish on mps2-an386 within 1 s"):
        run_on_board({**files, "policy.c": endless}, "cortex-m4", seconds=1)


def test_missing_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what is missing and what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="arm-none-eabi-gcc.*qemu-system-arm: apt install gcc-arm-none-eabi"):
        run_on_board({}, "cortex-m4")


def test_no_such_board() -> None:
    """The boards there are are named."""
    with pytest.raises(ValueError, match="cortex-m4, cortex-m55"):
        run_on_board({}, "cortex-m0")
