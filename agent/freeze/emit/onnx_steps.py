"""Whole numbers in an ONNX graph, exact on a CPU, and their way from one step to another.

Bytes are uint8 with a zero point of 0 or 128, which onnxruntime's 8-bit kernels multiply. Everything else is float64
that holds whole numbers, exact below 2^53.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.freeze.emit.onnx_nodes import Nodes

U8, F32, F64, I32, I64 = np.uint8, np.float32, np.float64, np.int32, np.int64
EXACT_F32, EXACT_F64 = 1 << 24, 1 << 53  # whole numbers up to here have no gaps


@dataclass(frozen=True)
class Integers:
    """A value [N, *shape] of whole numbers low .. high: float64, int64, int32, or uint8 with a zero point."""

    name: str
    low: int
    high: int
    shape: tuple[int, ...]
    dtype: type[np.generic] = F64
    zero: int = 0

    @property
    def largest(self) -> int:
        """No entry is further from zero."""
        return max(-self.low, self.high)

    @property
    def fits_byte(self) -> bool:
        """Whether uint8 with a zero point can hold it."""
        return self.dtype is U8 or zero_point(self.low, self.high) is not None


def zero_point(low: int, high: int) -> int | None:
    """Return the zero point with which uint8 holds low .. high, or None."""
    return next((zero for zero in (0, 128) if -zero <= low and high <= 255 - zero), None)


def whole(nodes: Nodes, numbers: np.ndarray) -> str:
    """Return the name of constant integers as float64; the file holds them in as few bytes as they need."""
    kinds = (np.int8, np.int16, I32, I64)
    limits = ((kind, np.iinfo(kind)) for kind in kinds)
    smallest = next(kind for kind, most in limits if most.min <= numbers.min() and numbers.max() <= most.max)
    return nodes.cast(numbers.astype(smallest), F64)


def as_double(nodes: Nodes, q: Integers) -> str:
    """Return the name of the integers as float64."""
    if q.dtype is F64:
        return q.name
    wide = nodes.cast(q.name, F64)
    return nodes.add("Sub", wide, F64(q.zero)) if q.zero else wide


def as_int32(nodes: Nodes, q: Integers) -> str:
    """Return the name of the integers as int32."""
    return q.name if q.dtype is I32 else nodes.cast(as_double(nodes, q), I32)


def as_bytes(nodes: Nodes, q: Integers) -> Integers:
    """Return the integers as uint8."""
    if q.dtype is U8:
        return q
    zero = zero_point(q.low, q.high)
    assert zero is not None
    x = as_double(nodes, q)
    return replace(q, name=nodes.cast(nodes.add("Add", x, F64(zero)) if zero else x, U8), dtype=U8, zero=zero)


def inside(low: int, high: int, shift: np.ndarray | int) -> int:
    """Return how large total * multiplier can be where the limits do not bind; beyond this it need not be exact."""
    return (max(-low, high) + 1) << int(np.max(shift))


def requantize(
    nodes: Nodes, total: Integers, multiplier: np.ndarray | int, shift: np.ndarray | int, low: int, high: int
) -> Integers:
    """Add limit(round(total * multiplier / 2^shift)) behind float64 or int64; the factors are broadcast."""
    x, multiplier, shift = total.name, np.asarray(multiplier, I64), np.asarray(shift, I64)
    most = total.largest * int(np.abs(multiplier).max())
    if total.dtype is I64 or min(most, inside(low, high, shift)) > EXACT_F64:
        x, multiplier, shift = _shortened(nodes, total, multiplier, shift)
    factor = multiplier * 2.0**-shift
    if (factor != 1).any():
        x = nodes.add("Mul", x, factor)
    limited = nodes.add("Clip", nodes.add("Round", x), F64(low), F64(high))
    return replace(total, name=limited, low=low, high=high, dtype=F64)


def _shortened(
    nodes: Nodes, total: Integers, multiplier: np.ndarray, shift: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray]:
    """Return total * multiplier, cut to what a float64 holds, and what is left to multiply and to shift.

    The last bit is set if anything was lost; two bits behind the point stay, so that a half is still told from more.
    """
    places = np.clip(shift - 1, 0, 11)
    product = nodes.add("Mul", total.name if total.dtype is I64 else nodes.cast(total.name, I64), multiplier)
    cut = nodes.add("Div", product, I64(1) << places)  # towards zero
    lost = nodes.add("Sign", nodes.add("Sub", product, nodes.add("Mul", cut, I64(1) << places)))
    short = nodes.add("Add", nodes.add("Mul", cut, I64(2)), lost)
    return nodes.cast(short, F64), np.ones_like(multiplier), shift - places + 1


def rounded_to_bytes(nodes: Nodes, x: str, low: int, high: int, shape: tuple[int, ...]) -> Integers:
    """Add limit(round(x)), halves to even, behind f32 [N, *shape]; the limits must fit a byte."""
    zero = zero_point(low, high)
    assert zero is not None
    y = nodes.add("QuantizeLinear", x, F32(1), U8(zero))
    if (low, high) != (-zero, 255 - zero):
        y = nodes.add("Clip", y, U8(low + zero), U8(high + zero))
    return Integers(y, low, high, shape, U8, zero)
