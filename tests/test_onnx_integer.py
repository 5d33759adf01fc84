"""Integer layers as nodes against the numpy reference: equal to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.freeze import integer
from agent.freeze.emit.onnx_integer import add_layers
from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.emit.onnx_steps import Integers, as_bytes, as_double
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.graph import Continuous, MaxPool
from agent.freeze.integer import (
    S8,
    S16,
    U8,
    IntegerGraph,
    IntFlatten,
    IntHead,
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
    Squash,
)
from integer_graphs import Builder
from onnx_runs import answers, file_of, kernels

RNG = np.random.default_rng(0)


def file(layers: tuple[IntLayer, ...], q: tuple[int, int], shape: tuple[int, ...], *, as_byte: bool = False) -> bytes:
    """A file of these layers; the integers come as float64, or are bytes before they reach them."""
    out = integer.run_layers(layers, np.zeros((1, *shape), np.int64)).shape[1:]

    def add(nodes: Nodes, x: str) -> str:
        value = Integers(x, *q, shape)
        return as_double(nodes, add_layers(nodes, layers, as_bytes(nodes, value) if as_byte else value))

    return file_of(add, shape, "float64", out, "float64")


def exact(layers: tuple[IntLayer, ...], x: np.ndarray, q: tuple[int, int]) -> int:
    """Check that the layers give the reference's integers; return how many different ones these are."""
    expected = integer.run_layers(layers, x)
    for as_byte in {False, q in (U8, S8)}:
        output, _ = answers(file(layers, q, x.shape[1:], as_byte=as_byte), x.astype(np.float64))
        np.testing.assert_array_equal(output, expected)
    return len(np.unique(expected))


def test_observations() -> None:
    """NaN is 0, infinities are limits, halves go away from zero, and the sum with the half is float32's."""
    odd = np.float32([np.nan, np.inf, 0.5, 0.49999997, 2.5, 1e-40, 3e38, 0.0, 8388609])
    odd = np.concatenate([odd, -odd])
    x = np.concatenate([np.stack([odd] * 3, 1), RNG.normal(size=(500, 3)) * 300]).astype(np.float32)
    for limits in (([-32767] * 3, [32767] * 3), ([-9, 0, -200], [7, 255, -3])):
        low, high = np.int16(limits)
        for exponent in (np.int8([0, 0, 0]), np.int8([7, -2, 100])):
            layer = Quantize(exponent, low, high)

            def add(nodes: Nodes, x: str, layer: Quantize = layer) -> str:
                return add_layers(nodes, [layer], Integers(x, 0, 255, (3,), np.float32)).name

            output, _ = answers(file_of(add, (3,), "float32", (3,), "float64"), x)
            np.testing.assert_array_equal(output, integer.apply(layer, x))


def test_tables_of_bytes() -> None:
    """Every byte finds its place in a table for 16 bits, signed, never negative, and out of another table."""
    x, table = np.arange(-127, 128)[:, None], RNG.integers(-32767, 32768, 257).astype(np.int16)
    assert exact((IntTable(table),), x, S8) > 99
    exact((IntTable(table),), x[127:], (0, 127))
    exact((IntTable(np.abs(table // 258)), IntTable(table)), x, S8)
    exact((IntTable(table), IntRescale(37, 12, *U8)), x, S8)


def test_tables_of_words(tmp_path: Path) -> None:
    """Every s16 is interpolated as the reference does it, and what can be known beforehand is not computed anew."""
    x = np.arange(-32767, 32768)[:, None]
    for table in (RNG.integers(-32767, 32768, 257), np.sort(RNG.integers(-32767, 32768, 257)), np.arange(257)):
        exact((IntTable(table.astype(np.int16)),), x, S16)
        for rescale in (IntRescale(300, 16, *S8), IntRescale(9999, 14, *S16), IntRescale(1, 0, *U8)):
            layers = (IntTable(table.astype(np.int16)), rescale)
            exact(layers, x, S16)
            run = kernels(file(layers, S16, (1,)), tmp_path)
            assert run.count("Gather") == 1 and not {"Range", "Floor", "Round", "Clip", "Mul"} & set(run)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (128,), (3, 4, 5)])
def test_norms(shape: tuple[int, ...], center: bool) -> None:
    """Loud, soft and constant states are normalised as the reference does it, with and without their mean."""
    loudness = 2.0 ** RNG.integers(0, 16, (400, *[1] * len(shape)))
    x = np.clip(np.rint(RNG.normal(size=(400, *shape)) * loudness), *S16).astype(np.int64)
    x[:3] = np.int64([0, 32767, -32767]).reshape(-1, *[1] * len(shape))
    x[3:40] += RNG.integers(-99, 99, (37, *[1] * len(shape)))
    x = np.clip(x, *S16)
    found = 0
    for epsilon, limits, places in ((1, U8, 28), (2**39, S8, 27), (12345, S16, 20), (7, S16, 0)):
        scale = RNG.integers(-(2**15), 2**15, shape[0]).astype(np.int32)
        layer = IntNorm(scale, RNG.integers(-(2**30), 2**30, shape[0]), epsilon, places, *limits, center)
        long = replace(layer, bias=layer.bias << 24, places=places + 20)  # sums of more than 53 bits
        found += exact((layer,), x, S16) + exact((long,), x, S16)
    assert found > 99 or shape == (1,)


def test_norms_of_nearly_square_power() -> None:
    """The root is exact where float64 rounds it up to the next whole number, and where it is whole."""
    n = np.arange(1, 31)
    near = np.concatenate([2 ** (2 * n - 2) + 1, 4**n - 1, 4**n, 4**n + 1, (2 ** np.arange(1, 26) + 1) ** 2 - 1])
    epsilons = [int(power) for power in np.unique(near) if power < 2**40]
    scale, bias = np.int32([2**16, 2**15 + 1]), np.int64([3, -5])
    x = np.int64([[0, 1], [0, -1], [1, 3], [0, 32767], [0, 0]])
    for epsilon in epsilons:
        assert exact((IntNorm(scale, bias, max(epsilon - 1, 1), 16, *S16),), x, S16) > 1


def test_norms_of_long_sums() -> None:
    """A sum of more than 53 bits that is a little more than a half is rounded up, where float64 would see a half."""
    layer = IntNorm(np.int32([1]), np.int64([(2**11 + 1) * 2**44 + 1]), 1, 45, *S16)
    assert integer.apply(layer, np.int64([[0]])) == 2**10 + 1 != np.rint(float(layer.bias[0]) / 2**45)
    exact((layer,), np.int64([[0], [1], [-1]]), S16)


def test_bytes_whose_products_float32_does_not_have() -> None:
    """What a byte is multiplied by may make more than 24 bits: a little more than a half is rounded up."""
    x = np.int64([[200], [255], [0]])
    residual = IntResidual((IntRescale(1, 8, *U8),), 2**17, 2**16 + 1, 17, *U8)
    assert integer.apply(residual, x)[0] == 201
    exact((residual,), x, U8)
    wrong = 0
    for byte in range(201, 256, 2):
        rescale = IntRescale((2**19 + 1) * pow(byte, -1, 2**20) % 2**20, 20, *U8)  # a half and a little, in 2^20ths
        x = np.int64([[byte]])
        exact((rescale,), x, U8)
        wrong += integer.apply(rescale, x)[0, 0] != np.rint(np.float32(byte) * np.float32(rescale.multiplier / 2**20))
    assert wrong, "float32 would have been enough"


@pytest.mark.parametrize(
    "layer",
    [
        *(IntRescale(1, 0, *U8), IntRescale(4, 2, *S8), IntRescale(1, 0, -5, 300), IntRescale(45, 6, *U8)),
        *(IntRescale(3, 1, *S8), IntRescale(32767, 7, *S16), IntRescale(-3, 2, *S8), IntRescale(2**30, 33, *S8)),
        *(IntRescale(1, 0, 200, 300), MaxPool(3, 2, 1), MaxPool(2, 1), IntFlatten()),
    ],
)
@pytest.mark.parametrize("q", [U8, S8, S16])
def test_another_step_and_pooling(layer: IntLayer, q: tuple[int, int]) -> None:
    """Bytes are treated as wide numbers are; what lies outside a picture is less than anything in it."""
    x = RNG.integers(q[0], q[1] + 1, (40, 2, 7, 8))
    x[5:] >>= RNG.integers(0, 10, (35, 1, 1, 1))
    x[0] = q[0]
    out_of_reach = isinstance(layer, IntRescale) and layer.low > q[1]
    assert exact((layer,), x, q) > (0 if out_of_reach else 9)


@pytest.mark.parametrize("limits", [U8, S8, S16])
@pytest.mark.parametrize(("inner", "q"), [(U8, S8), (S8, S8), (S8, U8), (S16, S16)])
def test_residual_connections(
    tmp_path: Path, inner: tuple[int, int], q: tuple[int, int], limits: tuple[int, int]
) -> None:
    """Sums of bytes are the reference's, in one kernel; so are sums of wide numbers."""
    x = np.arange(q[0], q[1] + 1)[:, None].repeat(30, 1) if q != S16 else RNG.integers(*q, (500, 30))
    other = IntRescale(-5 if inner != U8 else 3, 1, *inner)
    for multiplier, factor, shift in ((3, 5, 2), (1, 1, 0), (1023, 700, 10), (8191, 16383, 14), (-7, 2**20, 21)):
        layers = (IntResidual((other,), multiplier, factor, shift, *limits),)
        exact(layers, x, q)
        if S16 not in (q, inner, limits) and shift < 20:
            assert "QLinearAdd" in kernels(file(layers, q, x.shape[1:], as_byte=True), tmp_path)


def test_fractions() -> None:
    """The outputs of all fractions are added up, with negative factors and with a norm behind them."""
    for seed in range(3):
        graph = Builder((4, 6, 6), "uint8", seed).conv(8, 3).flatten().dense(30).fractions(5, 4).done(4, head=False)
        x = Builder((4, 6, 6), "uint8", seed + 9).states(50)
        np.testing.assert_array_equal(answers(emit_onnx(graph), x)[0], integer.run(graph, x))


@pytest.mark.parametrize("squashed", [False, True])
def test_continuous_actions(squashed: bool) -> None:
    """Actions are the reference's to the last bit, limits included."""
    table = np.rint(32767 * np.tanh((np.arange(257) - 128) / 16)).astype(np.int16)
    squash = Squash(np.int32([2**14, 2**31 - 1, 9999]), np.int8([23, 45, 19]), table)
    head = Continuous((-2.0, 0.1, 5.0), (2.0, 1.0, 7.7), "tanh" if squashed else "clip")
    last = IntHead(np.int8([[1], [-1], [100]]), np.int32([2**15, 2**14, 500]), np.int32([3, 2**18, 2**21]))
    layers = (Quantize(np.int8([3]), np.int16([-127]), np.int16([127])), last)
    graph = IntegerGraph((1,), "float32", layers, head, 1.7e-6, squash if squashed else None)
    x = np.linspace(-17, 17, 999, dtype=np.float32)[:, None]
    output, action = answers(emit_onnx(graph), x)
    np.testing.assert_array_equal(output, integer.run(graph, x))
    expected = integer.decide(graph, output)
    np.testing.assert_array_equal(action, expected)
    assert action.dtype == np.float32 and all(len(np.unique(column)) > 9 for column in expected.T)
