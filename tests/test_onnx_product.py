"""Products of integers against the reference: equal to the last bit, by the fastest way that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.freeze import integer
from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.emit.onnx_product import FEW_WEIGHTS, MOST_INPUTS, add_head, add_product
from agent.freeze.emit.onnx_steps import Integers, as_bytes, as_double
from agent.freeze.integer import S8, S16, U8, IntConv, IntDense, IntHead
from onnx_runs import answers, file_of, kernels

S32 = (-(2**31) + 1, 2**31 - 1)


def states(q: tuple[int, int], *shape: int) -> np.ndarray:
    """Integers of which many stand at the limits, and the first and the last state altogether."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random(shape) < 0.3, q[1], rng.integers(q[0], q[1] + 1, shape))
    x[0], x[-1] = q
    return x


def weights(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Weights of which many are as large as can be, so that 16 bits would not hold the sum of two products of bytes."""
    most = 2 ** (bits - 1) - 1
    weight = np.where(rng.random(shape) < 0.3, most, rng.integers(-most, most + 1, shape))
    weight[0], weight[-1] = -most, most
    return weight.astype(np.int8 if bits == 8 else np.int16)


def fitted(layer: IntDense | IntConv, x: np.ndarray, most: int, places: int) -> IntDense | IntConv:
    """The layer with biases, multipliers and shifts that take most of its sums within its limits, and some beyond."""
    sums = integer.apply(replace(layer, low=-(2**62), high=2**62), x)
    axes = (0, *range(2, sums.ndim))
    spread = (layer.high - layer.low) / 3 / (sums.std(axis=axes) + 1)
    shift = np.clip(np.floor(np.log2(most / spread)), 0, places).astype(np.int8)
    multiplier = np.clip(spread * 2.0**shift, 1, most).astype(np.int32)
    middle = (layer.high + layer.low) / 2 * 2.0**shift / multiplier - sums.mean(axis=axes)
    return replace(layer, bias=middle.astype(np.int64), multiplier=multiplier, shift=shift)


def dense(out: int, into: int, q: tuple[int, int], limits: tuple[int, int], bits: int = 8, most: int = 63) -> IntDense:
    """A dense layer for what lies in `q`."""
    weight, none = weights(np.random.default_rng(out * into), (out, into), bits), np.zeros(out, np.int64)
    layer = IntDense(weight, none, none + 1, none.astype(np.int8), *limits)
    return fitted(layer, states(q, 40, into), most, 16 if most < 64 else 45)


def conv(out: int, into: int, q: tuple[int, int], limits: tuple[int, int], bits: int = 8, most: int = 63) -> IntConv:
    """A convolution for what lies in `q`."""
    weight, none = weights(np.random.default_rng(out * into), (out, into, 3, 2), bits), np.zeros(out, np.int64)
    layer = IntConv(weight, none, none + 1, none.astype(np.int8), *limits, stride=2, padding=1)
    return fitted(layer, states(q, 40, into, 9, 8), most, 16 if most < 64 else 45)


def file(layer: IntDense | IntConv | IntHead, q: tuple[int, int], shape: tuple[int, ...], *, as_byte: bool) -> bytes:
    """A file of one layer; the integers come as float64, or are bytes before they reach it."""
    out = integer.apply(layer, np.zeros((1, *shape), np.int64)).shape[1:]

    def add(nodes: Nodes, x: str) -> str:
        value = Integers(x, *q, shape)
        value = as_bytes(nodes, value) if as_byte else value
        add_layer = add_head if isinstance(layer, IntHead) else add_product
        return as_double(nodes, add_layer(nodes, layer, value))

    return file_of(add, shape, "float64", out, "float64")


def exact(layer: IntDense | IntConv | IntHead, q: tuple[int, int], *shape: int) -> bytes:
    """Check that the layer gives the reference's integers, for many states at once and for one; return a file of it."""
    x = states(q, 40, *shape)
    expected = integer.apply(layer, x)
    assert len(np.unique(expected)) > 20
    for as_byte in {False, q in (U8, S8)}:
        data = file(layer, q, shape, as_byte=as_byte)
        np.testing.assert_array_equal(answers(data, x.astype(np.float64))[0], expected)
        np.testing.assert_array_equal(answers(data, x[:1].astype(np.float64))[0], expected[:1])
    return data


@pytest.mark.parametrize("limits", [U8, S8, (0, 127)])
@pytest.mark.parametrize("q", [U8, S8])
@pytest.mark.parametrize("into", [1, 7, 64, 300])
def test_dense_in_bytes(tmp_path: Path, into: int, q: tuple[int, int], limits: tuple[int, int]) -> None:
    """Bytes by bytes to bytes is one kernel, and exact where every weight and every input is as large as can be."""
    data = exact(dense(33, into, q, limits), q, into)
    assert "QGemm" in kernels(data, tmp_path)


@pytest.mark.parametrize("limits", [U8, S8])
@pytest.mark.parametrize("q", [U8, S8])
def test_convolution_in_bytes(tmp_path: Path, q: tuple[int, int], limits: tuple[int, int]) -> None:
    """So is a convolution; around the picture is zero, whichever byte stands for it."""
    data = exact(conv(20, 6, q, limits), q, 6, 9, 8)
    assert "QLinearConv" in kernels(data, tmp_path)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("q", [U8, S8, S16])
@pytest.mark.parametrize("limits", [U8, S16])
def test_products_of_16_bits(q: tuple[int, int], bits: int, limits: tuple[int, int]) -> None:
    """Where inputs, weights or outputs have 16 bits the integers are the reference's too, in small and large layers."""
    exact(conv(5, 3, q, limits, bits, 2**15 - 1), q, 3, 9, 8)
    for out in (9, FEW_WEIGHTS // 100 + 1):
        exact(dense(out, 100, q, limits, bits, 2**15 - 1), q, 100)


def test_a_last_layer_of_32_bits() -> None:
    """The limits of a last layer may have 32 bits."""
    exact(dense(6, 50, S16, S32, 16, 2**15 - 1), S16, 50)


def test_many_inputs(tmp_path: Path) -> None:
    """More inputs than int32 can add up go through float64, and in a convolution are refused."""
    into = MOST_INPUTS + 3
    layer = dense(2, into, U8, S16, 16, 2**15 - 1)
    assert "MatMulInteger" not in kernels(file(layer, U8, (into,), as_byte=True), tmp_path)
    exact(layer, U8, into)
    wide = IntConv(layer.weight[:, :, None, None], layer.bias, layer.multiplier, layer.shift, *S16)
    with pytest.raises(ValueError, match="sums are too large"):
        file(wide, U8, (into, 3, 3), as_byte=True)


def test_places_that_float32_does_not_have(tmp_path: Path) -> None:
    """17 places behind the point of a u8 are one too many for the 8-bit kernels, which would miss a half."""
    total = 200 * 2**17 + 2**16 + 1  # 200.5 and a little: rounds to 201, and in float32 to 200
    layer = IntDense(np.int8([[1]]), np.int32([total]), np.int32([1]), np.int8([17]), *U8)
    data = file(layer, U8, (1,), as_byte=True)
    assert answers(data, np.float64([[0]]))[0] == integer.apply(layer, np.int64([[0]])) == 201
    assert "QGemm" not in kernels(data, tmp_path)


def test_biases_that_int32_does_not_have() -> None:
    """A bias of more than 31 bits keeps a layer of bytes out of the 8-bit kernels."""
    layer = IntDense(np.int8([[127]]), np.int64([2**33]), np.int32([1]), np.int8([0]), *U8)
    np.testing.assert_array_equal(answers(file(layer, U8, (1,), as_byte=True), np.float64([[0]]))[0], [[255]])


def test_products_that_float64_does_not_have() -> None:
    """A sum times its multiplier may have 62 bits: a little more than a half is told from a half."""
    multiplier = 2**15 - 1
    start = (2**29 + 1) * pow(multiplier, -1, 2**30) % 2**30  # times the multiplier: a half and a little, in 2^30ths
    bias = start + np.arange(2**14, 2**14 + 8) * 2**30
    ones, shift = np.ones((8, 1), np.int16), np.full(8, 30, np.int8)
    layer = IntDense(ones, bias, np.full(8, multiplier, np.int32), shift, *S32)
    x = np.int64([[0], [1], [-32767]])
    output, _ = answers(file(layer, S16, (1,), as_byte=False), x.astype(np.float64))
    np.testing.assert_array_equal(output, integer.apply(layer, x))
    assert (output[0] != np.rint(bias * float(multiplier) / 2**30)).any(), "float64 alone would have been enough"


@pytest.mark.parametrize("q", [U8, S8, (-200, 255)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("into", [64, FEW_WEIGHTS // 6 + 1])
def test_heads(into: int, bits: int, q: tuple[int, int]) -> None:
    """The last layer gives whole 32-bit integers, from weights of 8 bits and of 16."""
    rng = np.random.default_rng(3)
    weight = weights(rng, (6, into), bits) // (1 if bits == 8 else 50)
    most = max(2, (2**31 - 10**6) // (int(np.abs(weight.astype(np.int64)).max()) * 255 * into))
    multiplier, bias = rng.integers(1, most, 6).astype(np.int32), rng.integers(-9999, 9999, 6).astype(np.int32)
    exact(IntHead(weight, multiplier, bias), q, into)
