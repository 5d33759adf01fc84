"""The one integer arithmetic of a frozen policy: what every emitter must reproduce bit for bit, defined in numpy.

A number x is stored as an integer q with x = q * step. There is no zero point: zero is zero. What lies between two
layers has 8 bits, u8 0 .. 255 behind a ReLU and s8 -127 .. 127 elsewhere, or 16 bits, s16 -32767 .. 32767. A sum of
products is taken to the next layer's step by a multiplication, a division by a power of two rounded half to even, and
the limits of the next layer:

    q' = limit(round(sum * multiplier / 2^shift))

Rounding half to even is what onnxruntime does; with at most 16 places behind the point for u8 and 17 for s8 the product
of a float32 is exact wherever the limits do not bind, so that its kernels give these very integers.

The last layer gives 32-bit integers of one common step: an `IntHead`, not rounded at all, behind up to 12 bits, and an
`IntDense` with limits of up to 32 bits behind 16. Nothing here overflows: sums of a layer with 8-bit weights and inputs
fit 32 bits, so do those of an `IntHead`; all others and every product fit 64 (`quantize` refuses what would not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent.freeze.graph import Continuous, Discrete, MaxPool, windows

U8, S8, S16 = (0, 255), (-127, 127), (-32767, 32767)

# Tanh of a continuous head: an s16 with 12 places behind the point in, one with 15 out.
SQUASH_IN, SQUASH_OUT = 12, 15


@dataclass(frozen=True, eq=False)
class Quantize:
    """f32 [*shape] -> s16: limit(trunc(x * 2^exponent + 0.5)), - 0.5 below zero, the sum in float32; limits by entry.

    Only ever first, and only for float32 observations (a picture with the channels moved to the front); the exponents
    are whole so that the product is exact on any machine. NaN counts as 0. The limits are those of a `Clip`, or s16's.
    """

    exponent: np.ndarray  # i8 [*shape], -100 .. 100
    low: np.ndarray  # i16 [*shape]
    high: np.ndarray  # i16 [*shape]


@dataclass(frozen=True, eq=False)
class IntFlatten:
    """[C, H, W] -> [C * H * W]."""


@dataclass(frozen=True, eq=False)
class IntDense:
    """limit(round((W q + b) * multiplier / 2^shift)), [in] -> [out].

    As the last layer (of the policy, or inside `IntFractions`) its limits may have up to 32 bits.
    """

    weight: np.ndarray  # i8 or i16 [out, in]
    bias: np.ndarray  # i32 [out]; i64 when weight or input has 16 bits
    multiplier: np.ndarray  # i32 [out], positive, below 2^15; below 2^6 where input, weight and output have 8 bits
    shift: np.ndarray  # i8 [out]
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class IntConv:
    """As IntDense, over windows; zeros around. [in, H, W] -> [out, H', W']."""

    weight: np.ndarray  # i8 or i16 [out, in, height, width]
    bias: np.ndarray
    multiplier: np.ndarray  # i32 [out]
    shift: np.ndarray  # i8 [out]
    low: int
    high: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, eq=False)
class IntTable:
    """An activation that is no ReLU, from s16 to s16: `interpolate` between 257 entries.

    Where 8 bits are wanted behind it an `IntRescale` follows.
    """

    table: np.ndarray  # i16 [257]


@dataclass(frozen=True, eq=False)
class IntNorm:
    """limit(round((v * scale + shift) / 2^places)), v = q / sqrt(sum(q^2) + epsilon) with 20 places behind the point.

    q has up to 16 bits. The reciprocal of the root is taken once for all entries, see `reciprocal_root`; v is cut
    towards zero. With `center` q less its mean over all entries stands for q, the mean rounded half away from zero.
    """

    scale: np.ndarray  # i32 [F], or [C] before [C, H, W]; at most 16 bits and sign
    bias: np.ndarray  # i64, as scale
    epsilon: int  # at least 1, below 2^40
    places: int
    low: int
    high: int
    center: bool = False


@dataclass(frozen=True, eq=False)
class IntRescale:
    """limit(round(q * multiplier / 2^shift)): another step or a ReLU; entry by entry, one factor for all."""

    multiplier: int
    shift: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class IntResidual:
    """limit(round((q * multiplier + layers(q) * inner) / 2^shift))."""

    layers: tuple[IntLayer, ...]
    multiplier: int
    inner: int
    shift: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class IntFractions:
    """The sum over k of layers(limit(round(q * factors[k] / 2^shift))), in 32 bits; `layers` end as a policy does."""

    factors: np.ndarray  # i16 [K, F]
    shift: int
    low: int
    high: int
    layers: tuple[IntLayer, ...]


@dataclass(frozen=True, eq=False)
class IntHead:
    """(W q) * multiplier + b, not rounded, [in] -> [outputs]; every sum fits 32 bits, in whatever order it is taken."""

    weight: np.ndarray  # i16 [outputs, in], or i8
    multiplier: np.ndarray  # i32 [outputs], at least 1
    bias: np.ndarray  # i32 [outputs]


IntLayer = (
    Quantize | IntFlatten | IntDense | IntConv | IntTable | IntNorm | IntRescale | IntResidual | IntFractions | IntHead
    | MaxPool
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Squash:
    """A continuous head: integers of the last layer -> s16 with SQUASH_IN places, tanh -> s16 with SQUASH_OUT."""

    multiplier: np.ndarray  # i32 [outputs]
    shift: np.ndarray  # i8 [outputs]
    table: np.ndarray  # i16 [257]


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A policy in integers. `step` turns the last integers into the float network's outputs: y = q * step.

    uint8 observations enter as they are; float32 ones pass a `Quantize` first.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    layers: tuple[IntLayer, ...]
    head: Discrete | Continuous
    step: float
    squash: Squash | None = None  # for a head that squashes by tanh
    channels_last: bool = False


def run(graph: IntegerGraph, observation: np.ndarray) -> np.ndarray:
    """Return the integers that leave the last layer, [N, *shape] -> i32 [N, outputs]; ValueError for a wrong shape."""
    if observation.shape[1:] != graph.shape:
        raise ValueError(f"This policy takes observations of shape {graph.shape}, not {observation.shape[1:]}.")
    x = np.moveaxis(observation, -1, 1) if graph.channels_last else observation
    return run_layers(graph.layers, x).astype(np.int32)


def run_layers(layers: Sequence[IntLayer], q: np.ndarray) -> np.ndarray:
    """Return what the layers make of a batch, [N, ...] -> i64 [N, ...]."""
    for layer in layers:
        q = apply(layer, q)
    return q


def apply(layer: IntLayer, q: np.ndarray) -> np.ndarray:
    """Return what one layer makes of a batch, [N, ...] -> i64 [N, ...]."""
    if isinstance(layer, Quantize):
        return quantize(layer, q)
    q = q.astype(np.int64)
    match layer:
        case IntFlatten():
            return q.reshape(len(q), -1)
        case IntDense():
            total = product(q, layer.weight) + layer.bias
            return requantize(total, layer.multiplier, layer.shift, layer.low, layer.high)
        case IntConv():
            return _convolve(layer, q)
        case IntTable():
            return interpolate(layer.table, q)
        case IntNorm():
            return _normalise(layer, q)
        case IntRescale():
            return requantize(q, layer.multiplier, layer.shift, layer.low, layer.high)
        case IntResidual():
            total = q * layer.multiplier + run_layers(layer.layers, q) * layer.inner
            return requantize(total, 1, layer.shift, layer.low, layer.high)
        case IntFractions():
            scaled = [requantize(q, factor, layer.shift, layer.low, layer.high) for factor in layer.factors]
            return np.sum([run_layers(layer.layers, each) for each in scaled], axis=0)
        case IntHead():
            return product(q, layer.weight) * layer.multiplier + layer.bias
        case MaxPool():
            lowest = np.iinfo(np.int64).min
            seen = windows(q, layer.kernel, layer.stride, layer.padding, lowest)
            return seen.max(axis=(-2, -1))
    raise TypeError(f"{type(layer).__name__} is no layer of an integer policy.")


def product(q: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return W q exactly, whole numbers [..., in] and [out, in] -> i64 [..., out].

    Through float64, whose sums of integers are exact below 2^53 and which has a fast matrix product.
    """
    return np.rint(q.astype(np.float64, copy=False) @ weight.T.astype(np.float64)).astype(np.int64)


def requantize(
    total: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, low: int, high: int
) -> np.ndarray:
    """Return limit(round(total * multiplier / 2^shift)), halves to even, i64."""
    scaled = total.astype(np.int64) * np.asarray(multiplier, np.int64)
    shift = np.asarray(shift, np.int64)
    whole = scaled >> shift
    rest = scaled - (whole << shift)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    up = (shift > 0) & ((rest > half) | ((rest == half) & (whole & 1 == 1)))
    return np.clip(whole + up, low, high)


def quantize(layer: Quantize, x: np.ndarray) -> np.ndarray:
    """Return float32 observations as integers, i64."""
    # The product is exact or beyond the limits (or far below 0.5), so that a fused sum gives the same.
    low, high = layer.low.astype(np.float32), layer.high.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.clip(np.ldexp(np.nan_to_num(x.astype(np.float32), nan=0.0), layer.exponent), low - 1, high + 1)
    away = np.trunc(scaled + np.where(scaled < 0, np.float32(-0.5), np.float32(0.5)))
    return np.clip(away, low, high).astype(np.int64)


def interpolate(table: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return table[i] + round((table[i + 1] - table[i]) * f / 256), i = (q + 32768) >> 8 and f the low 8 bits, i64."""
    place = q.astype(np.int64) + 32768
    index, part = place >> 8, place & 255
    below, above = table[index].astype(np.int64), table[index + 1].astype(np.int64)
    return below + (((above - below) * part + 128) >> 8)


def reciprocal_root(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (r, n) with 1 / sqrt(power) = r * 2^(n - 61), cut: r i64 in 2^30 .. 2^31, n how often power times 4.

    power, 1 .. 2^60, is multiplied by 4 until it reaches 2^60; r is 2^61 by the whole part of its root.
    """
    n = np.zeros_like(power)
    for j in range(1, 31):
        n += power < np.int64(1) << (60 - 2 * (j - 1))
    n = np.maximum(n, 0)
    grown = power << (2 * n)
    root = np.sqrt(grown.astype(np.float64)).astype(np.int64)
    root -= root * root > grown
    root += (root + 1) * (root + 1) <= grown
    return (np.int64(1) << 61) // root, n


def _normalise(layer: IntNorm, q: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, q.ndim))
    if layer.center:
        total = q.sum(axis=axes, keepdims=True)
        entries = q[0].size
        q = q - np.sign(total) * ((np.abs(total) + entries // 2) // entries)
    r, n = reciprocal_root((q * q).sum(axis=axes, keepdims=True) + layer.epsilon)
    wide = q * r
    v = np.sign(wide) * (np.abs(wide) >> (41 - n))
    per_channel = (-1,) + (1,) * (q.ndim - 2)
    total = v * layer.scale.astype(np.int64).reshape(per_channel) + layer.bias.astype(np.int64).reshape(per_channel)
    return requantize(total, 1, layer.places, layer.low, layer.high)


def _convolve(layer: IntConv, q: np.ndarray) -> np.ndarray:
    out, _, height, width = layer.weight.shape
    seen = windows(q.astype(np.float64), (height, width), layer.stride, layer.padding, 0)  # [N, C, H', W', h, w]
    rows = seen.transpose(0, 2, 3, 1, 4, 5).reshape(*seen.shape[0:1], *seen.shape[2:4], -1)
    total = product(rows, layer.weight.reshape(out, -1)) + layer.bias
    return np.moveaxis(requantize(total, layer.multiplier, layer.shift, layer.low, layer.high), -1, 1)


def squash(graph: IntegerGraph, outputs: np.ndarray) -> np.ndarray:
    """Return tanh of a continuous head's outputs with SQUASH_OUT places behind the point, i32 -> i64 [N, outputs]."""
    assert graph.squash is not None
    inner = requantize(outputs, graph.squash.multiplier, graph.squash.shift, *S16)
    return interpolate(graph.squash.table, inner)


def decide(graph: IntegerGraph, outputs: np.ndarray) -> np.ndarray:
    """Return the actions that the last integers mean, i32 [N, outputs] -> i64 [N], or f32 [N, n] if continuous."""
    if isinstance(graph.head, Discrete):
        return outputs.argmax(axis=1)
    low, high = np.float64(graph.head.low), np.float64(graph.head.high)
    if graph.squash is None:
        return np.clip(outputs * graph.step, low, high).astype(np.float32)
    unit = (squash(graph, outputs) + 2**SQUASH_OUT) / 2 ** (SQUASH_OUT + 1)
    return np.clip(low + unit * (high - low), low, high).astype(np.float32)
