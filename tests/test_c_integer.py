"""Integer layers in C against the numpy reference: equal to the last bit, on this machine's compiler."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.freeze.emit.c import emit_c
from agent.freeze.emit.c_integer import ctype_of
from agent.freeze.graph import Discrete
from agent.freeze.integer import (
    S8,
    S16,
    U8,
    IntConv,
    IntDense,
    IntegerGraph,
    IntFlatten,
    IntFractions,
    IntHead,
    IntNorm,
    IntRescale,
    Quantize,
    run,
    run_layers,
)
from compiled import Compiled, emitted, processor, reference, require_exact, states  # noqa: F401 (a fixture)
from integer_graphs import Builder

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.mark.usefixtures("processor")
def test_dense_layers_of_every_width(tmp_path: Path) -> None:
    """Inputs of 8 and 16 bits, weights of both, sums of 32 and 64: all kernels of rows, sizes no multiple of any."""
    builder = Builder((5,), "float32").dense(19, U8).dense(33, S8, bits=16, multiplier_bits=15).dense(7, S16)
    graph = builder.dense(18, S16, bits=16, multiplier_bits=15).dense(21, U8, multiplier_bits=15).done()
    require_exact(graph, tmp_path)
    text = emitted(graph)["policy.c"]
    assert all(b"void policy_rows_" + tag in text for tag in (b"8_32", b"16_32", b"16_64"))


def test_dense_layers_of_16_outputs(tmp_path: Path) -> None:
    """Whole blocks of outputs, whose loops have a fixed length."""
    require_exact(Builder((8,), "float32").dense(32, S8).dense(16, U8).done(4), tmp_path)


def test_bytes_whose_sums_need_64_bits(tmp_path: Path) -> None:
    """8-bit weights with a bias beyond 32 bits."""
    builder = Builder((6,), "uint8").dense(24, S16)
    weight = builder.weight(16, 24)
    sums = builder.q @ weight.T.astype(np.int64)
    bias = np.arange(16, dtype=np.int64) * 2**29 - sums.mean(0).astype(np.int64)
    graph = builder.add(IntDense(weight, bias, np.full(16, 3, np.int32), np.full(16, 21, np.int8), *S16)).done()
    require_exact(graph, tmp_path)
    assert b"void policy_rows_8_64" in emitted(graph)["policy.c"]


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bits", [8, 16])
def test_loudest_sums(tmp_path: Path, bits: int) -> None:
    """Every product as large as it can be, of one sign: parts of a sum that are added in 32 bits do not overflow."""
    inputs, most = 1100, 2 ** (bits - 1) - 1
    limits = np.full(inputs, 32767, np.int16)
    weight = np.full((3, inputs), -most, np.int8 if bits == 8 else np.int16)
    weight[1] = most
    weight[2, ::2] = most
    ones, far = np.ones(3, np.int32), (-(2**31) + 1, 2**31 - 1)
    dense = IntDense(weight, np.zeros(3, np.int64), ones, np.full(3, 14, np.int8), *far)
    layers = (Quantize(np.zeros(inputs, np.int8), -limits, limits), dense)
    graph = IntegerGraph((inputs,), "float32", layers, Discrete(3), 1.0)
    x = np.float32([[1e9], [-1e9], [3]]) * np.ones((1, inputs), np.float32)
    expected = run(graph, x)
    np.testing.assert_array_equal(Compiled(graph, tmp_path).forward(x), expected)
    assert np.abs(expected).max() == round(inputs * most * 32767 / 2**14)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bits", [8, 16])
def test_convolutions(tmp_path: Path, bits: int) -> None:
    """Odd sizes, channels and strides, with and without padding, sums of both widths; flattened in the end."""
    builder = Builder((3, 9, 7), "uint8").conv(5, 3, 2, 1, bits=bits, multiplier_bits=15).conv(
        18, 2, 1, 0, S16, bits=bits, multiplier_bits=15
    )
    graph = builder.conv(6, 3, 1, 2, U8, bits=bits, multiplier_bits=15).flatten().dense(10).done()
    require_exact(graph, tmp_path)
    tags = {8: (b"8_32",), 16: (b"16_32", b"16_64")}[bits]
    assert all(b"void policy_columns_" + tag in emitted(graph)["policy.c"] for tag in tags)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("seed", range(4))
def test_convolutions_of_random_sizes(tmp_path: Path, seed: int) -> None:
    """Channels, sides, windows, strides and padding as they come, of a raw picture and of one that lies by pixels."""
    rng = np.random.default_rng(seed)
    channels, *sides = rng.integers(1, 8, 1).tolist() + rng.integers(14, 19, 2).tolist()
    builder = Builder((channels, *sides), "uint8", seed)
    for limits in ([S8, U8, S16][seed % 3], U8):
        size = int(rng.integers(1, 5))
        stride, padding = int(rng.integers(1, 4)), int(rng.integers(0, size // 2 + 1))
        builder.conv(int(rng.integers(3, 40)), size, stride, padding, limits)
    require_exact(builder.flatten().done(), tmp_path)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("limits", [U8, S8, (-128, 127), S16], ids=str)
def test_loudest_convolutions(tmp_path: Path, limits: tuple[int, int]) -> None:
    """Inputs and weights at their limits, all of one sign or of both by turns, from one pixel to a whole window."""
    most = 127 if limits != S16 else 7  # sums of 32 bits
    weight = np.full((18, 3, 3, 3), most, np.int8)
    weight[1::2] *= -1
    weight[2, :, ::2] *= -1
    weight[3, ::2] *= -1
    conv = IntConv(weight, np.zeros(18, np.int32), np.ones(18, np.int32), np.full(18, 9, np.int8), *S16, 1, 2)
    scale = np.zeros((3, 5, 6))
    edge = Quantize(scale.astype(np.int8), *(np.full(scale.shape, limit, np.int16) for limit in limits))
    assert np.abs(weight.astype(int)).sum((1, 2, 3)).max() * max(-limits[0], limits[1]) < 2**31
    places = 7 * 8 * 18
    last = np.eye(places, dtype=np.int8)[:: places // 90]
    head = IntHead(last, np.ones(len(last), np.int32), np.zeros(len(last), np.int32))
    graph = IntegerGraph(scale.shape, "float32", (edge, conv, IntFlatten(), head), Discrete(len(last)), 1.0)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (8, *scale.shape))
    x = (1e6 * np.concatenate([np.ones((1, *scale.shape)), -np.ones((1, *scale.shape)), signs])).astype(np.float32)
    expected = run(graph, x)
    np.testing.assert_array_equal(Compiled(graph, tmp_path).forward(x), expected)
    assert np.abs(expected).max() == min(S16[1], round(27 * most * max(-limits[0], limits[1]) / 2**9))
    assert b"policy_pairs_" in emitted(graph, golden=1)["policy.c"]


def test_channels_last_and_a_picture_of_floats(tmp_path: Path) -> None:
    """A float picture whose channels lie last is quantized by its own entry's limits, then convolved."""
    require_exact(Builder((6, 5, 3), "float32", channels_last=True).conv(4, 3).flatten().done(), tmp_path)


def test_picture_into_a_dense_layer(tmp_path: Path) -> None:
    """A flattened raw picture keeps its order, whichever way it lies."""
    for last in (False, True):
        require_exact(Builder((3, 4, 2), "uint8", channels_last=last).flatten().dense(9).done(), tmp_path)


@pytest.mark.parametrize("center", [False, True])
def test_norms(tmp_path: Path, center: bool) -> None:
    """Over vectors, over pictures by channel, over a flattened picture by entry, of 16 and of 8 bits."""
    vector = Builder((6,), "float32").dense(20, S16).norm(S16, center=center).dense(9, S8).norm(U8, center=center)
    require_exact(vector.done(), tmp_path)
    picture = Builder((2, 5, 4), "uint8").norm(S16, center=center).conv(3, 2, 1, 0, S16).norm(S8, center=center)
    require_exact(picture.flatten().norm(U8, center=center).done(), tmp_path)


def test_norm_of_every_size_of_power(tmp_path: Path) -> None:
    """The reciprocal root from the smallest power to the largest, one input as loud as it can be."""
    one, zero = np.array([1, 2**15], np.int32), np.array([0, -(2**30)])
    for epsilon, places in ((1, 5), (2**39, 12)):
        layers = (Quantize(np.int8([0, 0]), np.int16([-32767] * 2), np.int16([32767] * 2)),)
        norm = IntNorm(one, zero, epsilon, places, *S16)
        head = IntHead(np.int8([[1, 3], [7, -2]]), np.int32([1, 5]), np.int32([0, 9]))
        graph = IntegerGraph((2,), "float32", (*layers, norm, head), Discrete(2), 1.0)
        x = np.float32([[0, 0], [0, 1], [1, 0], [-1, 1], [3, -2], [-255, 31], [2**11, -3], [32767, -32767], [32767, 0]])
        np.testing.assert_array_equal(Compiled(graph, tmp_path).forward(x), run(graph, x))


def test_tables(tmp_path: Path) -> None:
    """An activation by table, of 8 bits and of 16 with interpolation at every place between two entries."""
    builder = Builder((6,), "float32").dense(20, S8).table().dense(40, S16, multiplier_bits=15).table()
    require_exact(builder.done(), tmp_path)


@pytest.mark.usefixtures("processor")
def test_residuals_rescaling_and_pooling(tmp_path: Path) -> None:
    """A residual connection in a picture, behind a raw picture, and in a flattened one; poolings with padding."""
    outer = Builder((2, 8, 6), "uint8").conv(4, 3, 1, 1, S16).pool(3, 2, 1).rescale(S8, -30, 13)
    inner = Builder((2, 8, 6), "uint8")
    inner.q = outer.q
    inner.rescale(U8, 1, 0).conv(4, 3, 1, 1, S8)
    outer.residual(inner.layers, S16).flatten()
    inner = Builder((4 * 12,), "uint8")
    inner.q = outer.q
    outer.residual(inner.dense(7, S16, multiplier_bits=15).dense(48, S16).layers, U8)
    require_exact(outer.done(), tmp_path)


def test_layers_on_the_raw_picture(tmp_path: Path) -> None:
    """Pooling, a norm and a residual connection straight on a picture whose channels lie first."""
    builder = Builder((3, 6, 4), "uint8").residual([IntRescale(-3, 1, *S8)], S16).pool(2, 2).norm(S8).flatten()
    require_exact(builder.done(), tmp_path)
    require_exact(Builder((3, 6, 4), "uint8").pool(2, 1).flatten().done(), tmp_path)


def test_fractions(tmp_path: Path) -> None:
    """Outputs summed over fractions, of a flattened picture too; 32 bits wrap around."""
    require_exact(Builder((7,), "uint8").dense(24, U8).fractions(5, 3).done(3, head=False), tmp_path)
    require_exact(Builder((3, 4, 5), "uint8").conv(6, 2).flatten().fractions(4, 3).done(3, head=False), tmp_path)


def test_last_layer_of_32_bits(tmp_path: Path) -> None:
    """A policy may end with a dense layer whose limits have 32 bits, also inside fractions."""
    limits = (-(2**31) + 1, 2**31 - 1)
    last = Builder((4,), "float32").dense(12, S16)
    last.dense(3, limits, bits=16, multiplier_bits=15)
    require_exact(last.done(3, head=False), tmp_path)
    builder = Builder((4,), "float32").dense(12, U8)
    inner = Builder((12,), "uint8")
    inner.q = run_layers([IntRescale(1, 0, *S8)], builder.q)
    layers = tuple(inner.dense(3, (-(2**20), 2**20), bits=16, multiplier_bits=15).layers)
    builder.add(IntFractions(np.int16([[700] * 12, [-90] * 12]), 9, *S8, layers))
    require_exact(builder.done(3, head=False), tmp_path)


def test_strange_observations(tmp_path: Path) -> None:
    """NaN, infinities, halves and denormals are quantized as the reference does."""
    low, high = np.int16([-32767, -100, 5, -9, -1]), np.int16([32767, 7, 99, 9, 1])
    layer = Quantize(np.int8([0, 3, -5, 100, -100]), low, high)
    head = IntHead(np.int8(np.eye(5)), np.ones(5, np.int32), np.zeros(5, np.int32))
    graph = IntegerGraph((5,), "float32", (layer, head), Discrete(5), 1.0)
    odd = [np.nan, np.inf, -np.inf, 0.5, -0.5, 1.5, 0.49999997, 8388609, 1e-40, -3e38, 2.5, -0.0]
    x = np.stack([np.roll(np.float32(odd), shift) for shift in range(5)], axis=1)
    np.testing.assert_array_equal(Compiled(graph, tmp_path).forward(x), run(graph, x))


def test_rounding_at_every_half(tmp_path: Path) -> None:
    """Halves go to even and limits bind on both sides, with 32 bits and with 64, every output with its own factor."""
    few, many, far = ([1, 3, 5, 1], [1, 2, 3, 0]), ([32767, 32767, 1, 5], [17, 16, 9, 3]), ([9, 1, 1, 5], [40, 8, 1, 3])
    for multiplier, shift in (few, many, far):
        weight = np.array([[1], [-1], [127], [-3]], np.int8)
        dense = IntDense(weight, np.zeros(4, np.int32), np.int32(multiplier), np.int8(shift), -127, 127)
        head = IntHead(np.int8(np.eye(4)), np.ones(4, np.int32), np.zeros(4, np.int32))
        graph = IntegerGraph((1,), "uint8", (dense, head), Discrete(4), 1.0)
        x = np.arange(256, dtype=np.uint8)[:, None]
        np.testing.assert_array_equal(Compiled(graph, tmp_path).forward(x), reference(graph, x))


def test_narrowest_type() -> None:
    """Unsigned before signed, 16 bits before 32, more refused."""
    found = [ctype_of(*limits) for limits in (U8, S8, S16, (0, 256), (-1, 255), (-(2**31), 5))]
    assert found == ["uint8_t", "int8_t", "int16_t", "int16_t", "int16_t", "int32_t"]
    with pytest.raises(ValueError, match="32 bits"):
        ctype_of(0, 2**31)


def test_what_does_not_fit_is_refused() -> None:
    """Sums beyond 64 bits and a layer behind the last are refused with words."""
    graph = Builder((4,), "uint8").dense(6, S16).done()
    dense, head = graph.layers
    assert isinstance(dense, IntDense)
    wide = replace(dense, bias=np.full(6, 2**61), multiplier=np.full(6, 2**14, np.int32))
    for layers, words in (
        ((wide, head), "64 bits"),
        ((dense, head, head), "last layer"),
        ((Quantize(*(np.zeros(4, np.int16),) * 3), dense, head), "starts with Quantize"),
    ):
        with pytest.raises(ValueError, match=words):
            broken = replace(graph, layers=layers)
            emit_c(broken, golden=(states(graph, 1), np.zeros((1, 5), np.int32)), title="")
    assert emitted(graph)
