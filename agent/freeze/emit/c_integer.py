"""Integer layers as C: agent/freeze/integer.py bit for bit, the width of every sum proven before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.freeze.emit.c_program import (
    Buffer,
    Program,
    Tensor,
    columns,
    flattened,
    interleaved,
    natural,
    patches,
    pool,
    seen_by,
    spread,
)
from agent.freeze.emit.c_text import kernel, smallest
from agent.freeze.graph import MaxPool
from agent.freeze.integer import (
    IntConv,
    IntDense,
    IntFlatten,
    IntFractions,
    IntHead,
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
)

COLUMNS = (6, 5, 4)  # of a convolution that AVX2's registers hold the sums of, for 16 outputs each
ROW = 8  # the kernels take rows of weights in eights: what Helium loads at once
LIMITS = {
    "uint8_t": (0, 255),
    "int8_t": (-128, 127),
    "int16_t": (-(2**15), 2**15 - 1),
    "int32_t": (-(2**31), 2**31 - 1),  # only of the last layer
}


def lower(program: Program, layers: Sequence[IntLayer], x: Tensor) -> Tensor:
    """Append what the layers compute of `x` to the program and return where the result lies."""
    for layer in layers:
        x = _lower(program, layer, x)
    return x


def _lower(program: Program, layer: IntLayer, x: Tensor) -> Tensor:
    if x.ctype == "int32_t":
        raise ValueError("Only the last layer of an integer policy may give 32 bits: quantize it again.")
    if (x.ctype == "float") != isinstance(layer, Quantize):
        raise ValueError("An integer policy starts with Quantize when its observations are float32, and only then.")
    match layer:
        case Quantize():
            return _quantize(program, layer, x)
        case IntFlatten():
            return flattened(x)
        case IntDense():
            return _dense(program, layer, x)
        case IntConv():
            return _conv(program, layer, x)
        case IntHead():
            return _head(program, layer, x)
        case IntTable():
            return _table(program, layer, x)
        case IntNorm():
            return _norm(program, layer, interleaved(program, x))
        case IntRescale():
            bound = x.largest * abs(layer.multiplier)
            product = f"({{wide}})x[i] * {layer.multiplier}"
            value = _rounded(program, product, bound, layer.shift, layer.low, layer.high)
            return _each(program, x, value, layer.low, layer.high)
        case IntResidual():
            return _residual(program, layer, interleaved(program, natural(program, x)))
        case IntFractions():
            return _fractions(program, layer, x)
        case MaxPool():
            return pool(program, layer, interleaved(program, x), str(LIMITS[x.ctype][0]))
    raise ValueError(f"{type(layer).__name__} is no layer that becomes C.")


def ctype_of(low: int, high: int) -> str:
    """Return the narrowest C type for the integers low .. high; ValueError when 32 bits do not hold them."""
    for ctype, (least, most) in LIMITS.items():
        if least <= low and high <= most:
            return ctype
    raise ValueError(f"Integers of {low} .. {high} do not fit 32 bits: quantize the policy again.")


def _rounded(program: Program, value: str, bound: int, shift: int, low: int, high: int) -> str:
    """Return the C text that rounds a value of up to `bound` by a shift and limits it, in as few bits as it needs.

    {wide} in the text of the value becomes the type that holds it.
    """
    if bound + 2**shift >= 2**63:
        raise ValueError("A sum of this policy does not fit 64 bits: quantize it again.")
    bits = 32 if bound + 2**shift < 2**31 else 64
    program.need("int_round", bits=bits)
    rounded = f"policy_round_{bits}({value.format(wide=f'int{bits}_t')}, {shift})"
    if (bound >> shift) + 1 < 2**31:
        return _limited(program, f"(int32_t){rounded}" if bits == 64 else rounded, 32, low, high)
    return _limited(program, rounded, 64, low, high)


def _limited(program: Program, value: str, bits: int, low: int, high: int) -> str:
    program.need("int_limit", bits=bits)
    return f"policy_limit_{bits}({value}, {low}, {high})"


def _each(program: Program, x: Tensor, value: str, low: int, high: int, **others: Buffer) -> Tensor:
    """Append y[i] = value, the C text of a function of x[i] and of the same entry of other buffers."""
    y = program.buffer(ctype_of(low, high), x.size)
    buffers = {"x": x.buffer, **others}
    arguments = ", ".join(f"const {buffer.ctype} *{name}" for name, buffer in buffers.items())
    own = program.function("int_each", arguments=arguments, out=y.ctype, count=x.size, value=value)
    program.call(f"{own}({', '.join('{' + name + '}' for name in buffers)}, {{y}});", **buffers, y=y)
    return replace(x, buffer=y, low=low, high=high, kept=False)


def _quantize(program: Program, layer: Quantize, x: Tensor) -> Tensor:
    order = (1, 2, 0) if len(x.shape) == 3 and not x.planar else tuple(range(len(x.shape)))
    exponent, low, high = (each.transpose(order) for each in (layer.exponent, layer.low, layer.high))
    y = program.buffer(ctype_of(int(low.min()), int(high.max())), x.size)
    program.need("int_limit", bits=32)
    name = program.function(
        "int_quantize",
        out=y.ctype,
        count=x.size,
        factor=program.constant(np.ldexp(np.float32(1), exponent.astype(np.int32)), "factor"),
        least=program.constant(low, "least"),
        most=program.constant(high, "most"),
    )
    program.call(name + "({x}, {y});", x=x.buffer, y=y)
    return replace(x, buffer=y, low=int(low.min()), high=int(high.max()), kept=False)


def _table(program: Program, layer: IntTable, x: Tensor) -> Tensor:
    table = program.constant(layer.table, "table", "int16_t")
    program.need("int_interpolate")
    return _each(program, x, f"policy_interpolate({table}, x[i])", int(layer.table.min()), int(layer.table.max()))


def _norm(program: Program, layer: IntNorm, x: Tensor) -> Tensor:
    scale, bias = (each.reshape(-1) for each in (layer.scale, layer.bias))
    if len(x.shape) == 1 and x.pixels > 1:
        scale, bias = scale[x.flat_order()], bias[x.flat_order()]
    bound = int(np.max(np.abs(scale.astype(object)) * 2**20 + np.abs(bias.astype(object))))
    program.need("int_root")
    mean = "0"
    if layer.center:
        program.need("int_mean", **{"in": x.ctype})
        mean = f"policy_mean_{x.ctype}(x, {x.size})"
    y = program.buffer(ctype_of(layer.low, layer.high), x.size)
    name = program.function(
        "int_norm",
        **{"in": x.ctype},
        out=y.ctype,
        count=x.size,
        channels=len(scale),
        mean=mean,
        epsilon=layer.epsilon,
        scale=program.constant(scale, "scale"),
        bias=program.constant(bias, "bias"),
        limited=_rounded(program, "scaled", max(bound, 2**31), layer.places, layer.low, layer.high),
    )
    program.call(name + "({x}, {y});", x=x.buffer, y=y)
    return replace(x, buffer=y, low=layer.low, high=layer.high, kept=False)


def _residual(program: Program, layer: IntResidual, x: Tensor) -> Tensor:
    branch = natural(program, lower(program, layer.layers, replace(x, kept=True)))
    bound = x.largest * abs(layer.multiplier) + branch.largest * abs(layer.inner)
    total = f"({{wide}})x[i] * {layer.multiplier} + ({{wide}})branch[i] * {layer.inner}"
    value = _rounded(program, total, bound, layer.shift, layer.low, layer.high)
    return _each(program, x, value, layer.low, layer.high, branch=branch.buffer)


def _fractions(program: Program, layer: IntFractions, x: Tensor) -> Tensor:
    outputs = len(layer.layers[-1].weight)  # type: ignore[union-attr]
    factors = layer.factors[:, x.flat_order()] if x.pixels > 1 else layer.factors
    ctype = smallest(factors)
    name = program.constant(factors, "factors", ctype)
    total = program.buffer("int32_t", outputs)
    program.call(f"for (i = 0; i < {outputs}; i++) ({{sum}})[i] = 0;", sum=total)
    program.call(f"for (k = 0; k < {len(factors)}; k++) {{{{")
    bound = x.largest * int(np.abs(factors.astype(np.int64)).max())
    value = _rounded(program, "({wide})x[i] * factor[i]", bound, layer.shift, layer.low, layer.high)
    row = Buffer(ctype, x.size, outside=f"{name} + k * {x.size}")
    inner = lower(program, layer.layers, _each(program, x, value, layer.low, layer.high, factor=row))
    program.need("int_sum", **{"in": inner.ctype})
    program.call(f"policy_add_{inner.ctype}({{x}}, {outputs}, {{sum}});", x=inner.buffer, sum=total)
    # Named once more behind the last call of the loop: the next turn reads it again.
    program.call("}}", x=x.buffer)
    return replace(inner, buffer=total)


@dataclass(frozen=True)
class _Matrix:
    """A matrix in the program, [out, in] padded to whole fours of rows and eights of columns."""

    words: dict[str, object]  # of the kernels that multiply by it
    stride: int
    bound: int  # of the largest sum, bias included


def _matrix(program: Program, name: str, rows: np.ndarray, bias: np.ndarray, x: Tensor) -> _Matrix:
    """Define a matrix, its columns in the order in which x lies, and the kernel `name` that multiplies by it.

    Partial sums are at most the sum of magnitudes, so that the bound holds in whatever order they are added.
    """
    magnitudes = np.abs(rows.astype(np.int64)).sum(1) * x.largest
    bound = int((magnitudes + np.abs(bias.astype(np.int64))).max())
    outputs, inputs = rows.shape
    padded = np.zeros((-(-outputs // 4) * 4, -(-inputs // ROW) * ROW), rows.dtype)
    padded[:outputs, :inputs] = rows
    bits, total = rows.dtype.itemsize * 8, 32 if bound < 2**31 else 64
    ctype = f"int{bits}_t"
    words: dict[str, object] = {
        "tag": f"{bits}_{total}",
        "bits": bits,
        "sum": total,
        "weight": ctype,
        "total": f"int{total}_t",
        "load": "vldrbq_s16" if bits == 8 else "vldrhq_s16",
        "accumulate": "vmladavaq_s16" if total == 32 else "vmlaldavaq_s16",
    }
    program.need("int_avx2")
    if total == 64:
        program.need(f"int_far_{bits}")
    quick = "bytes" if (bits, total) == (8, 32) else "pairs"
    loops = {"dsp": f"{name}_{quick}", "plain": f"{name}_{total}"}
    program.need(name, **words, **{word: kernel(file, **words).rstrip("\n") for word, file in loops.items()})
    words |= {
        "weight": program.constant(padded, "weight", ctype, "static POLICY_ALIGNED "),
        "inputs": inputs,
        "outputs": outputs,
        "block": "i < 16" if outputs % 16 == 0 else f"i < 16 && o + i < {outputs}",
        "fours": "16" if outputs % 16 == 0 else f"{outputs} - o < 16 ? {outputs} - o : 16",
        "row": padded.shape[1],
    }
    return _Matrix(words, padded.shape[1], bound)


def _requantised(program: Program, layer: IntDense | IntConv, bound: int) -> dict[str, object]:
    """Return the C text that takes a sum q[i] of output o + i, up to `bound`, to the next layer.

    Every output gets the largest shift of the layer, its multiplier as many times 2, which changes nothing. Where a
    sum beyond `most` meets the limits in any case, it is cut there first, so that its product fits 32 bits.
    """
    shift = int(layer.shift.max())
    multiplier = layer.multiplier.astype(np.int64) << (shift - layer.shift.astype(np.int64))
    largest = int(multiplier.max())
    most = (2**31 - 1 - 2**shift) // largest if shift < 31 else 0
    factor, bias = program.constant(multiplier, "multiplier"), program.constant(layer.bias, "bias")
    total, product = f"q[i] + {bias}[o + i]", f"v * {factor}[o + i]"
    if bound > most and bound < 2**31 and most * int(multiplier.min()) >> shift > max(-layer.low, layer.high):
        total, bound = _limited(program, total, 32, -most, most), most
    narrow = bound <= most
    limited = _rounded(program, product, bound * largest, shift, layer.low, layer.high)
    return {"scaled": "int32_t" if narrow else "int64_t", "value": total, "limited": limited}


def _row(program: Program, x: Tensor, matrix: _Matrix) -> Buffer:
    """Append the widening of a flat input to a row of 16-bit numbers."""
    row = program.buffer("int16_t", matrix.stride)
    bits = matrix.words["bits"]
    program.need(f"int_row_{bits}", **{"in": x.ctype})
    program.call(f"policy_row_{bits}_{x.ctype}({{x}}, {x.size}, {row.count}, {{y}});", x=x.buffer, y=row)
    return row


def _dense(program: Program, layer: IntDense, x: Tensor) -> Tensor:
    matrix = _matrix(program, "int_rows", columns(layer.weight, x), layer.bias, x)
    scaling = _requantised(program, layer, matrix.bound)
    row, y = _row(program, x, matrix), program.buffer(ctype_of(layer.low, layer.high), len(layer.weight))
    name = program.function("int_dense", **matrix.words, **scaling, out=y.ctype)
    program.call(name + "({x}, {y});", x=row, y=y)
    return Tensor(y, (y.count,), layer.low, layer.high)


def _head(program: Program, layer: IntHead, x: Tensor) -> Tensor:
    matrix = _matrix(program, "int_rows", columns(layer.weight, x), np.zeros(1, np.int64), x)
    bias = layer.bias.astype(np.int64)
    if matrix.bound * int(layer.multiplier.max()) + int(np.abs(bias).max()) >= 2**63:
        raise ValueError("An output of this policy does not fit 64 bits: quantize it again.")
    row, y = _row(program, x, matrix), program.buffer("int32_t", len(layer.weight))
    factor = program.constant(layer.multiplier, "multiplier")
    name = program.function("int_head", **matrix.words, multiplier=factor, bias=program.constant(bias, "bias"))
    program.call(name + "({x}, {y});", x=row, y=y)
    return Tensor(y, (y.count,))


def _conv(program: Program, layer: IntConv, x: Tensor) -> Tensor:
    matrix = _matrix(program, "int_columns", patches(layer.weight, x), layer.bias, x)
    scaling = _requantised(program, layer, matrix.bound)
    program.need(f"int_row_{matrix.words['bits']}", **{"in": x.ctype})
    seen, down, across = seen_by(x, layer.weight.shape[2:], layer.stride, layer.padding)
    patch = program.buffer(x.ctype, int(np.prod(layer.weight.shape[1:])))
    rows = program.buffer("int16_t", 4 * matrix.stride)
    y = program.buffer(ctype_of(layer.low, layer.high), len(layer.weight) * down * across)
    words = matrix.words | seen | scaling | {"out": y.ctype}
    if matrix.words["sum"] == 32:
        columns = min(COLUMNS, key=lambda number: -(-down * across // number) * (number + 0.5))
        program.need("int_pairs_steps")
        program.need("int_pairs", columns=columns)
        program.need("int_pack", bits=words["bits"])
        words |= {"columns": columns, "blocks": -(-len(layer.weight) // 16)}
        files = ("int_conv_pairs", "gather", "int_conv", "conv_end")
        name = program.function(*files, **words, **spread(program, x, layer.padding))
    else:
        name = program.function("gather", "int_conv", **words)
    program.call(name + "({x}, {patch}, {rows}, {y});", x=x.buffer, patch=patch, rows=rows, y=y)
    return Tensor(y, (len(layer.weight), down, across), layer.low, layer.high)
