"""Integer policies of random numbers whose layers neither die nor always saturate, for the tests of the emitters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from agent.freeze.graph import Discrete, MaxPool
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
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
    run_layers,
)


class Builder:
    """Appends layers to a policy, each scaled by what a few random states give it."""

    def __init__(self, shape: tuple[int, ...], dtype: str, seed: int = 0, *, channels_last: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.dtype, self.channels_last = shape, dtype, channels_last
        self.layers: list[IntLayer] = []
        q = self.states(8)
        self.q = np.moveaxis(q, -1, 1) if channels_last else q
        if dtype == "float32":
            inner = self.q.shape[1:]
            exponent = self.rng.integers(8, 14, inner).astype(np.int8)
            high = self.rng.integers(20000, S16[1] + 1, inner).astype(np.int16)
            self.add(Quantize(exponent, -high, high))

    def states(self, count: int) -> np.ndarray:
        """Random observations."""
        if self.dtype == "uint8":
            return self.rng.integers(0, 256, (count, *self.shape)).astype(np.uint8)
        return self.rng.standard_normal((count, *self.shape)).astype(np.float32)

    def add(self, *layers: IntLayer) -> Builder:
        """Append layers as they are."""
        self.layers += layers
        self.q = run_layers(layers, self.q)
        return self

    def weight(self, *shape: int, bits: int = 8) -> np.ndarray:
        """A random weight with both of its limits in it."""
        most = 2 ** (bits - 1) - 1
        weight = np.clip(self.rng.standard_normal(shape) * most / 3, -most, most)
        weight.reshape(-1)[:2] = most, -most
        return weight.astype(np.int8 if bits == 8 else np.int16)

    def factors(self, sums: np.ndarray, limits: tuple[int, int], bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Multipliers below 2^bits and shifts that take sums, [N, out, ...], a little beyond the limits."""
        axes = tuple(axis for axis in range(sums.ndim) if axis != 1)
        want = 1.3 * limits[1] / np.maximum(np.abs(sums).max(axes), 1)
        shift = np.clip(bits - 1 - np.floor(np.log2(want)), 0, 17 if bits == 6 else 45)
        multiplier = np.clip(np.floor(want * 2.0**shift), 1, 2**bits - 1)
        return multiplier.astype(np.int32), shift.astype(np.int8)

    def dense(self, out: int, limits: tuple[int, int] = U8, bits: int = 8, multiplier_bits: int = 6) -> Builder:
        """A dense layer."""
        weight = self.weight(out, self.q.shape[1], bits=bits)
        wide = bits == 16 or np.abs(self.q).max() > 255
        sums = self.q @ weight.T.astype(np.int64)
        bias = (self.rng.standard_normal(out) * np.abs(sums).max() / 8).astype(np.int64 if wide else np.int32)
        multiplier, shift = self.factors(sums + bias, limits, multiplier_bits)
        return self.add(IntDense(weight, bias, multiplier, shift, *limits))

    def conv(
        self,
        out: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        limits: tuple[int, int] = U8,
        bits: int = 8,
        multiplier_bits: int = 6,
    ) -> Builder:
        """A convolution."""
        weight = self.weight(out, self.q.shape[1], size, size, bits=bits)
        one, zero = np.ones(out, np.int32), np.zeros(out, np.int8)
        bias = np.zeros(out, np.int64)
        plain = IntConv(weight, bias, one, zero, -(2**62), 2**62, stride, padding)
        sums = run_layers([plain], self.q)
        bias = (self.rng.standard_normal(out) * np.abs(sums).max() / 8).astype(np.int64 if bits == 16 else np.int32)
        multiplier, shift = self.factors(sums + bias[:, None, None], limits, multiplier_bits)
        return self.add(IntConv(weight, bias, multiplier, shift, *limits, stride, padding))

    def norm(self, limits: tuple[int, int] = U8, *, center: bool = False) -> Builder:
        """A norm over all entries, scaled by channel."""
        count = self.q.shape[1]
        scale = self.rng.integers(-(2**15), 2**15, count).astype(np.int32)
        bias = self.rng.integers(-(2**30), 2**30, count).astype(np.int64)
        epsilon = int(self.rng.integers(1, 2**20))
        loud = 2.0**35 / np.sqrt(self.q[0].size)
        places = max(1, int(np.log2(loud / limits[1])))
        return self.add(IntNorm(scale, bias, epsilon, places, *limits, center))

    def table(self) -> Builder:
        """An activation by table."""
        return self.add(IntTable(np.sort(self.rng.integers(-32767, 32768, 257)).astype(np.int16)))

    def residual(self, layers: Sequence[IntLayer], limits: tuple[int, int]) -> Builder:
        """A residual connection around layers."""
        return self.add(IntResidual(tuple(layers), 37, 55, 6, *limits))

    def flatten(self) -> Builder:
        """A vector."""
        return self.add(IntFlatten())

    def rescale(self, limits: tuple[int, int] = U8, multiplier: int = 45, shift: int = 6) -> Builder:
        """Another step."""
        return self.add(IntRescale(multiplier, shift, *limits))

    def pool(self, size: int, stride: int, padding: int = 0) -> Builder:
        """A pooling."""
        return self.add(MaxPool(size, stride, padding))

    def head(self, out: int) -> IntHead:
        """A last layer for what there is now."""
        weight = self.weight(out, self.q.shape[1])
        multiplier = self.rng.integers(1, 50, out).astype(np.int32)
        return IntHead(weight, multiplier, self.rng.integers(-9999, 9999, out).astype(np.int32))

    def fractions(self, number: int, out: int) -> Builder:
        """Several fractions and a last layer behind each."""
        factors = self.rng.integers(-(2**15) + 1, 2**15, (number, self.q.shape[1])).astype(np.int16)
        inner = Builder((1,), "uint8")
        inner.q = run_layers([IntRescale(1, 0, *S8)], self.q)
        inner.dense(9)
        layers = (*inner.layers, inner.head(out))
        return self.add(IntFractions(factors, 15, *S8, layers))

    def done(self, out: int = 5, *, head: bool = True) -> IntegerGraph:
        """The policy, with a last layer unless it has one."""
        if head:
            self.add(self.head(out))
        dtype: Literal["uint8", "float32"] = "uint8" if self.dtype == "uint8" else "float32"
        return IntegerGraph(
            self.shape, dtype, tuple(self.layers), Discrete(out), 1.0, channels_last=self.channels_last
        )
