"""The layers of an integer policy as ONNX nodes that give its very integers on a CPU, not one step beside them.

That is so at onnxruntime's default level of optimization, which puts the 8-bit layers together from their parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.emit.onnx_product import add_head, add_product
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
    as_int32,
    requantize,
    rounded_to_bytes,
    whole,
    zero_point,
)
from agent.freeze.graph import Continuous, MaxPool
from agent.freeze.integer import (
    S16,
    SQUASH_OUT,
    IntConv,
    IntDense,
    IntegerGraph,
    IntFlatten,
    IntFractions,
    IntHead,
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
    apply,
)


def add_policy(nodes: Nodes, graph: IntegerGraph, x: str, shape: tuple[int, ...]) -> str:
    """Add all layers: `x`, observations [N, *shape], uint8 or f32, -> i32 [N, outputs]."""
    # float32 observations are no integers before their `Quantize`, which is the first to read them.
    dtype = U8 if graph.dtype == "uint8" else F32
    return as_int32(nodes, add_layers(nodes, graph.layers, Integers(x, 0, 255, shape, dtype)))


def add_layers(nodes: Nodes, layers: Sequence[IntLayer], q: Integers) -> Integers:
    """Add the layers behind `q`."""
    todo = list(layers)
    while todo:
        layer = todo.pop(0)
        shape = apply(layer, np.zeros((1, *q.shape), F32)).shape[1:]
        if isinstance(layer, IntTable):
            rescale = todo.pop(0) if todo and isinstance(todo[0], IntRescale) else None
            q = _add_table(nodes, layer.table, rescale, q)
        else:
            q = replace(_add_layer(nodes, layer, q), shape=shape)
    return q


def _add_layer(nodes: Nodes, layer: IntLayer, q: Integers) -> Integers:
    match layer:
        case Quantize():
            return _add_quantize(nodes, layer, q)
        case IntFlatten():
            return replace(q, name=nodes.add("Flatten", q.name))
        case MaxPool():
            kernel, stride, padding = [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 4
            return replace(q, name=nodes.add("MaxPool", q.name, kernel_shape=kernel, strides=stride, pads=padding))
        case IntDense() | IntConv():
            return add_product(nodes, layer, q)
        case IntHead():
            return add_head(nodes, layer, q)
        case IntNorm():
            return _add_norm(nodes, layer, q)
        case IntRescale():
            return _add_rescale(nodes, layer, q)
        case IntResidual():
            return _add_residual(nodes, layer, q)
        case IntFractions():
            return _add_fractions(nodes, layer, q)
    raise TypeError(f"{type(layer).__name__} is no layer of an integer policy.")


def _add_quantize(nodes: Nodes, layer: Quantize, q: Integers) -> Integers:
    finite = nodes.add("Where", nodes.add("IsNaN", q.name), F32(0), q.name)
    scaled = nodes.add("Mul", finite, np.ldexp(F32(1), layer.exponent))
    # Limited before it is rounded, not after: the limits are whole, so that this gives the same.
    if np.ptp(layer.low) == np.ptp(layer.high) == 0:
        limited = nodes.add("Clip", scaled, F32(layer.low.flat[0]), F32(layer.high.flat[0]))
    else:
        limited = nodes.add("Min", nodes.add("Max", scaled, F32(layer.low)), F32(layer.high))
    half = nodes.add("Mul", nodes.add("Sign", limited), F32(0.5))
    cut = nodes.cast(nodes.add("Add", limited, half), I32)
    return Integers(nodes.cast(cut, F64), int(layer.low.min()), int(layer.high.max()), q.shape)


def _add_table(nodes: Nodes, table: np.ndarray, rescale: IntRescale | None, q: Integers) -> Integers:
    """Add a look-up, and the change of step behind it, if there is one, in the table."""
    start = -(1 << 15)
    found = Integers(_interpolated(nodes, table), int(table.min()), int(table.max()), ())
    if rescale is not None:
        found = _add_rescale(nodes, rescale, found)
    found = as_bytes(nodes, found) if found.fits_byte else found
    if q.dtype is U8:
        index = nodes.add("Sub", nodes.cast(q.name, I32), I32(q.zero + start))
    else:
        index = nodes.cast(nodes.add("Sub", as_double(nodes, q), F64(start)), I32)
    return replace(found, name=nodes.add("Gather", found.name, index), shape=q.shape)


def _interpolated(nodes: Nodes, table: np.ndarray) -> str:
    """Add the 65536 entries between the 257 of a table, in float64."""
    # They are constant: onnxruntime computes them once, when it loads the policy, and a file need not hold them.
    place = nodes.add("Range", I32(0), I32(1 << 16), I32(1))
    index = nodes.add("Div", place, I32(256))
    part = nodes.cast(nodes.add("Sub", place, nodes.add("Mul", index, I32(256))), F64)
    entries = whole(nodes, table)
    below, above = nodes.add("Gather", entries, index), nodes.add("Gather", entries, nodes.add("Add", index, I32(1)))
    step = nodes.add("Sub", above, below)
    rise = nodes.add("Floor", nodes.add("Add", nodes.add("Mul", nodes.add("Mul", step, part), F64(1 / 256)), F64(0.5)))
    return nodes.add("Add", below, rise)


def _add_norm(nodes: Nodes, layer: IntNorm, q: Integers) -> Integers:
    axes, entries = list(range(1, len(q.shape) + 1)), math.prod(q.shape)
    x = as_double(nodes, q)
    if layer.center:
        total = nodes.add("ReduceSum", x, I64(axes), keepdims=1)
        size = nodes.add("Div", nodes.add("Add", nodes.add("Abs", total), F64(entries // 2)), F64(entries))
        x = nodes.add("Sub", x, nodes.add("Mul", nodes.add("Sign", total), nodes.add("Floor", size)))
    power = nodes.add("Add", nodes.add("ReduceSumSquare", x, axes=axes, keepdims=1), F64(layer.epsilon))
    v = nodes.cast(nodes.add("Mul", x, _reciprocal_root(nodes, power)), I32)  # cut towards zero; |v| <= 2^20
    channels = (-1,) + (1,) * (len(q.shape) - 1)
    numbers = layer.scale.astype(I64).reshape(channels), layer.bias.reshape(channels)
    bound = (int(np.abs(numbers[0]).max()) << 20) + int(np.abs(numbers[1]).max())
    if bound > EXACT_F64:
        dtype, places, (scale, bias) = I64, layer.places, numbers
    else:
        dtype, places, unit = F64, 0, F64(2.0**-layer.places)
        scale, bias = (nodes.add("Mul", whole(nodes, each), unit) for each in numbers)
    total = nodes.add("Add", nodes.add("Mul", nodes.cast(v, dtype), scale), bias)
    return requantize(nodes, Integers(total, -bound, bound, q.shape, dtype), 1, places, layer.low, layer.high)


def _reciprocal_root(nodes: Nodes, power: str) -> str:
    """Add `integer.reciprocal_root` with 20 places behind the point: r * 2^n / 2^41, exact in float64."""
    # power times 4^n is times 2^n twice, which float64 does exactly; of the 2^n that power asks for the largest counts.
    n = np.arange(1, 31)
    asked = nodes.add("Mul", nodes.cast(nodes.add("Less", power, 2.0 ** (62 - 2 * n)), F64), 2.0**n)
    growth = nodes.add("ReduceMax", asked, axes=[-1], keepdims=1)
    grown = nodes.add("Mul", nodes.add("Mul", power, growth), growth)
    # Being rounded this root can be 1 too large, never too small; only then is the quotient below it, and right.
    root = nodes.cast(nodes.add("Sqrt", grown), I64)
    root = nodes.add("Min", root, nodes.add("Div", nodes.cast(grown, I64), root))
    reciprocal = nodes.cast(nodes.add("Div", I64(1 << 61), root), F64)
    return nodes.add("Mul", nodes.add("Mul", reciprocal, growth), F64(2.0**-41))


def _add_rescale(nodes: Nodes, layer: IntRescale, q: Integers) -> Integers:
    low, high = layer.low, layer.high
    same_step = layer.multiplier == 1 << layer.shift
    if same_step and max(low, q.low) <= min(high, q.high):  # as a ReLU is: the limits are all there is to do
        low, high = max(low, q.low), min(high, q.high)
        limits = q.dtype(low + q.zero), q.dtype(high + q.zero)
        return replace(q, name=nodes.add("Clip", q.name, *limits), low=low, high=high)
    if q.dtype is U8 and zero_point(low, high) is not None and q.largest * abs(layer.multiplier) <= EXACT_F32:
        x = nodes.cast(q.name, F32)
        x = nodes.add("Sub", x, F32(q.zero)) if q.zero else x
        x = nodes.add("Mul", x, F32(layer.multiplier * 2.0**-layer.shift))
        return rounded_to_bytes(nodes, x, low, high, q.shape)
    wide = Integers(as_double(nodes, q), q.low, q.high, q.shape)
    return requantize(nodes, wide, layer.multiplier, layer.shift, low, high)


def _add_residual(nodes: Nodes, layer: IntResidual, q: Integers) -> Integers:
    inner, low, high = add_layers(nodes, layer.layers, q), layer.low, layer.high
    terms = ((q, layer.multiplier), (inner, layer.inner))
    factors = abs(layer.multiplier) + abs(layer.inner)
    in_bytes = q.fits_byte and inner.fits_byte and zero_point(low, high) is not None
    if in_bytes and 384 * factors + (128 << layer.shift) <= EXACT_F32:  # all of it, with the zero points of the bytes
        parts = [(as_bytes(nodes, each), F32(factor * 2.0**-layer.shift)) for each, factor in terms]
        total = nodes.add("Add", *(nodes.add("DequantizeLinear", b.name, scale, U8(b.zero)) for b, scale in parts))
        return rounded_to_bytes(nodes, total, low, high, q.shape)
    bound = sum(each.largest * abs(factor) for each, factor in terms)
    total = nodes.add("Add", *(nodes.add("Mul", as_double(nodes, each), F64(factor)) for each, factor in terms))
    return requantize(nodes, Integers(total, -bound, bound, q.shape), 1, layer.shift, low, high)


def _add_fractions(nodes: Nodes, layer: IntFractions, q: Integers) -> Integers:
    count = len(layer.factors)
    each = Integers(nodes.add("Unsqueeze", as_double(nodes, q), I64([1])), q.low, q.high, q.shape)
    scaled = requantize(nodes, each, layer.factors, layer.shift, layer.low, layer.high)  # [N, K, *shape]
    y = add_layers(nodes, layer.layers, replace(scaled, name=nodes.add("Reshape", scaled.name, I64([-1, *q.shape]))))
    by_fraction = nodes.add("Reshape", as_int32(nodes, y), I64([-1, count, *y.shape]))
    return replace(y, name=nodes.add("ReduceSum", by_fraction, I64([1]), keepdims=0), dtype=I32)


def add_actions(nodes: Nodes, graph: IntegerGraph, output: str) -> str:
    """Add what the last integers mean: i32 [N, outputs] -> i64 [N], or f32 [N, n] for a continuous head."""
    if not isinstance(graph.head, Continuous):
        return nodes.add("ArgMax", output, axis=1, keepdims=0)
    low, high = F64(graph.head.low), F64(graph.head.high)
    y = nodes.cast(output, F64)
    if graph.squash is None:
        y = nodes.add("Mul", y, F64(graph.step))
    else:
        most = np.iinfo(I32)
        outputs = Integers(y, most.min, most.max, low.shape)
        inner = requantize(nodes, outputs, graph.squash.multiplier, graph.squash.shift, *S16)
        squashed = as_double(nodes, _add_table(nodes, graph.squash.table, None, inner))
        unit = nodes.add("Add", squashed, F64(2**SQUASH_OUT))
        y = nodes.add("Add", nodes.add("Mul", nodes.add("Mul", unit, F64(2.0 ** -(SQUASH_OUT + 1))), high - low), low)
    return nodes.cast(nodes.add("Min", nodes.add("Max", y, low), high), F32)
