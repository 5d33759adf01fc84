"""Products of integers by weights as ONNX nodes: onnxruntime's 8-bit kernels where they are exact, else float64.

Weights are uint8 with zero point 128 there. With signed ones those kernels add pairs of products in 16 bits on x86
without VNNI, and saturate; the unsigned ones are exact everywhere. 16-bit numbers are taken apart into two bytes.
"""

from __future__ import annotations

import math

import numpy as np

from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.emit.onnx_steps import (
    EXACT_F32,
    EXACT_F64,
    F32,
    F64,
    I32,
    I64,
    U8,
    Integers,
    as_bytes,
    as_double,
    inside,
    requantize,
    rounded_to_bytes,
    whole,
    zero_point,
)
from agent.freeze.integer import IntConv, IntDense, IntHead

# A dense layer of at most this many weights that is not all bytes is quicker as one float64 product of fewer nodes.
FEW_WEIGHTS = 1 << 14
MOST_INPUTS = (1 << 31) // 255**2  # so many products of bytes fit int32


def add_product(nodes: Nodes, layer: IntDense | IntConv, q: Integers) -> Integers:
    """Add limit(round((W q + b) * multiplier / 2^shift)); ValueError when onnxruntime cannot add it up exactly."""
    low, high, bound = layer.low, layer.high, _bound(layer, q)
    in_bytes = q.fits_byte and layer.weight.dtype == np.int8 and zero_point(low, high) is not None
    if in_bytes and bound.max() < 1 << 31 and inside(low, high, layer.shift) <= EXACT_F32:
        return _add_fused(nodes, layer, as_bytes(nodes, q))
    too_many = math.prod(layer.weight.shape[1:]) > MOST_INPUTS
    if bound.max() > EXACT_F64 or (too_many and isinstance(layer, IntConv)):
        raise ValueError("A layer's sums are too large to be exact in onnxruntime: use fewer bits or a smaller layer.")
    if isinstance(layer, IntDense) and (layer.weight.size <= FEW_WEIGHTS or too_many):
        return _add_double(nodes, layer, q, bound)
    channels = (-1,) + (1,) * (layer.weight.ndim - 2)
    total = nodes.add("Add", _sum_of_parts(nodes, layer, q), whole(nodes, layer.bias.reshape(channels)))
    sums = Integers(total, -int(bound.max()), int(bound.max()), q.shape)
    return requantize(nodes, sums, layer.multiplier.reshape(channels), layer.shift.reshape(channels), low, high)


def add_head(nodes: Nodes, layer: IntHead, q: Integers) -> Integers:
    """Add (W q) * multiplier + b."""
    bias = whole(nodes, layer.bias)
    if layer.weight.size <= FEW_WEIGHTS or not q.fits_byte:
        weight = nodes.add("Mul", whole(nodes, layer.weight), whole(nodes, layer.multiplier[:, None]))
        y = nodes.add("Gemm", as_double(nodes, q), weight, bias, transB=1)
    else:
        product = nodes.add("Mul", _sum_of_parts(nodes, layer, q), whole(nodes, layer.multiplier))
        y = nodes.add("Add", product, bias)
    return Integers(y, np.iinfo(I32).min, np.iinfo(I32).max, q.shape)


def _bound(layer: IntDense | IntConv, q: Integers) -> np.ndarray:
    """Return how large each of the layer's sums can be, i64 [out]."""
    sums = np.abs(layer.weight.astype(I64)).reshape(len(layer.weight), -1).sum(axis=1)
    return sums * q.largest + np.abs(layer.bias.astype(I64))


def _add_fused(nodes: Nodes, layer: IntDense | IntConv, q: Integers) -> Integers:
    """Add what onnxruntime turns into one QGemm or QLinearConv, whose requantization in float32 is exact."""
    scale = F32(layer.multiplier * 2.0 ** -layer.shift.astype(F64))
    zeros = np.full(len(scale), 128, U8)
    [(weight, *_)] = _bytes_in(layer.weight)
    x = nodes.add("DequantizeLinear", q.name, F32(1), U8(q.zero))
    bias = nodes.add("DequantizeLinear", layer.bias.astype(I32), scale, np.zeros(len(scale), I32), axis=0)
    if isinstance(layer, IntConv):
        y = nodes.add("Conv", x, nodes.add("DequantizeLinear", weight, scale, zeros, axis=0), bias, **_window(layer))
    else:
        y = nodes.add("Gemm", x, nodes.add("DequantizeLinear", weight.T, scale, zeros, axis=1), bias)
    return rounded_to_bytes(nodes, y, layer.low, layer.high, q.shape)


def _add_double(nodes: Nodes, layer: IntDense, q: Integers, bound: np.ndarray) -> Integers:
    """Add a float64 product, with the requantization's factor in the weights where that is exact."""
    weight, bias, factors = whole(nodes, layer.weight), whole(nodes, layer.bias), (layer.multiplier, layer.shift)
    if max(int(b) * int(m) for b, m in zip(bound, layer.multiplier, strict=True)) <= EXACT_F64:
        scale = F32(layer.multiplier * 2.0 ** -layer.shift.astype(F64))  # has 15 bits
        weight = nodes.add("Mul", weight, nodes.cast(scale[:, None], F64))
        bias, factors = nodes.add("Mul", bias, nodes.cast(scale, F64)), (1, 0)
    total = nodes.add("Gemm", as_double(nodes, q), weight, bias, transB=1)
    most = int(bound.max())
    return requantize(nodes, Integers(total, -most, most, q.shape), *factors, layer.low, layer.high)


def _sum_of_parts(nodes: Nodes, layer: IntDense | IntConv | IntHead, q: Integers) -> str:
    """Add W q in float64, from products of bytes."""
    total = None
    for x, zero, places in _bytes_of(nodes, q):
        for weight, weight_zero, weight_places in _bytes_in(layer.weight):
            if isinstance(layer, IntConv):
                part = nodes.add("ConvInteger", x, weight, U8(zero), U8(weight_zero), **_window(layer))
            else:
                part = nodes.add("MatMulInteger", x, weight.T, U8(zero), U8(weight_zero))
            part = nodes.cast(part, F64)
            if places + weight_places:
                part = nodes.add("Mul", part, F64(2.0 ** (places + weight_places)))
            total = part if total is None else nodes.add("Add", total, part)
    assert total is not None
    return total


def _window(layer: IntConv) -> dict[str, list[int]]:
    return {"strides": [layer.stride] * 2, "pads": [layer.padding] * 4}


def _bytes_of(nodes: Nodes, q: Integers) -> list[tuple[str, int, int]]:
    """Return uint8 values, zero points and places: q is the sum of (value - zero) * 2^places."""
    if q.fits_byte:
        q = as_bytes(nodes, q)
        return [(q.name, q.zero, 0)]
    x = as_double(nodes, q)
    upper = nodes.add("Floor", nodes.add("Mul", x, F64(1 / 256)))
    lower = nodes.add("Sub", x, nodes.add("Mul", upper, F64(256)))
    return [(nodes.cast(nodes.add("Add", upper, F64(128)), U8), 128, 8), (nodes.cast(lower, U8), 0, 0)]


def _bytes_in(weight: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """Return the same for weights."""
    wide = weight.astype(I32)
    if weight.dtype == np.int8:
        return [((wide + 128).astype(U8), 128, 0)]
    return [(((wide >> 8) + 128).astype(U8), 128, 8), ((wide & 255).astype(U8), 0, 0)]
