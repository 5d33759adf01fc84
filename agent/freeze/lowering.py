"""One float layer becomes its integer layer, fitted to what comes in: weights, multipliers, norms, tables, outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from agent.freeze import integer
from agent.freeze.calibrate import LIMITS, batched, best_step, inputs_of
from agent.freeze.graph import ACTIVATIONS, Conv, Dense, Layer, Norm, apply
from agent.freeze.integer import (
    S16,
    SQUASH_IN,
    SQUASH_OUT,
    IntConv,
    IntDense,
    IntHead,
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Squash,
)
from agent.freeze.rounding import Seen, dyadic, nearest_dyadic, rounded

FINE = 2**23  # of 32-bit outputs behind 16 bits, the largest seen: as fine as float32


@dataclass(frozen=True)
class Signal:
    """What lies between two layers on the calibration states: of the float network, and of the integer one."""

    real: np.ndarray  # f32 [N, ...]
    q: np.ndarray  # integers [N, ...]
    step: float
    low: int
    high: int

    @property
    def bits(self) -> int:
        """How many bits its integers need: 8, 12 or 16."""
        return min(bits for bits, (most, signed) in LIMITS.items() if signed[0] <= self.low and self.high <= most[1])

    @property
    def largest(self) -> int:
        """The largest magnitude that one of its integers can have."""
        return max(-self.low, self.high)

    def through(self, layers: Collection[IntLayer]) -> np.ndarray:
        """Return the integers behind more layers, [N, ...]."""
        q = self.q
        for layer in layers:
            q = batched(lambda rows, layer=layer: integer.apply(layer, rows).astype(np.int32), layer, q)
        return q


@dataclass(frozen=True)
class Output:
    """What a layer gives: limits and step before its activation, the activation's layers, and step and limits then."""

    step: float
    low: int
    high: int
    activation: tuple[IntLayer, ...]
    last_step: float
    limits: tuple[int, int]


def output(activation: str, before: np.ndarray, bits: int) -> Output:
    """Choose what a layer gives with so many bits: `before` its activation, f32 [N, ...]."""
    function = ACTIVATIONS[activation]
    unsigned, signed = LIMITS[bits]
    if activation in ("relu", "none"):
        limits = unsigned if activation == "relu" else signed
        step = best_step(function(before), *limits)
        return Output(step, *limits, (), step, limits)
    step = best_step(np.clip(before, -8, 8) if activation in ("tanh", "sigmoid") else before, *S16)
    knots = function((np.arange(257) * 256 - 32768) * step)
    limits = unsigned if knots.min() >= 0 else signed
    table_step = float(np.abs(knots).max()) / S16[1]
    table = IntTable(np.rint(knots / table_step).astype(np.int16))
    if bits == 16:
        return Output(step, *S16, (table,), table_step, limits)
    multiplier, shift = nearest_dyadic(table_step / best_step(function(before), *limits))
    narrower = IntRescale(multiplier, shift, *limits)
    return Output(step, *S16, (table, narrower), table_step * 2.0**shift / multiplier, limits)


def real_output(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return what a float layer makes of x, [N, ...] -> f32 [N, ...]."""
    return batched(lambda rows: apply(layer, rows.astype(np.float32)), layer, x)


def weighted(layer: Dense | Conv, signal: Signal, step: float, low: int, high: int, bits: int) -> IntDense | IntConv:
    """Return the layer with weights of so many bits, and outputs of that step within the limits.

    ValueError when its sums do not fit.
    """
    in_bytes = bits == 8 and signal.bits == 8 and -128 <= low and high <= 255
    bias_type = np.int32 if bits == 8 and signal.bits == 8 else np.int64
    seen, weight = _seen(layer, signal)
    most = LIMITS[bits][1][1]
    finest = np.maximum(
        np.abs(weight).max(1) / most, np.abs(seen.bias(weight)) / 2.0 ** (30 if bias_type is np.int32 else 45)
    )
    ratio = finest / step
    ratio = np.where(ratio > 0, ratio, ratio.max() or 1.0)
    # In bytes onnxruntime computes this in float32: see integer.py.
    multiplier, shift = dyadic(ratio, 6, 17 if high <= 127 else 16) if in_bytes else dyadic(ratio, 8, 45)
    unit = np.ldexp(multiplier * step, -shift.astype(np.int32))  # what 1 of a sum is worth
    whole = rounded(weight / unit[:, None], seen.covariance, most)
    bias = np.rint(seen.bias(whole * unit[:, None]) / unit)
    require_fit(whole, bias, signal, 31 if bias_type is np.int32 else 53)
    whole = whole.reshape(layer.weight.shape).astype(np.int8 if bits == 8 else np.int16)
    if isinstance(layer, Dense):
        return IntDense(whole, bias.astype(bias_type), multiplier, shift, low, high)
    return IntConv(whole, bias.astype(bias_type), multiplier, shift, low, high, layer.stride, layer.padding)


def require_fit(weight: np.ndarray, bias: np.ndarray, signal: Signal, places: int, copies: int = 1) -> None:
    """Raise ValueError when so many copies of a sum can reach 2^places."""
    if (np.abs(weight).sum(1) * signal.largest + np.abs(bias)).max() * copies >= 2.0**places:
        raise ValueError(f"The sum of {weight.shape[1]} products does not fit {places + 1} bits: use a smaller layer.")


def _seen(layer: Dense | Conv, signal: Signal) -> tuple[Seen, np.ndarray]:
    """Return what judges the layer's weights, and these, corrected, for integer inputs, f64 [out, in]."""
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    targets = inputs_of(layer, signal.real) @ weight.T + layer.bias
    # A thousand states bear a hundredth, ten thousand a ten-thousandth: measured on held-out states.
    damping = float(np.clip(0.01 * (1000 / len(signal.q)) ** 2, 1e-4, 0.1))
    seen = Seen(inputs_of(layer, signal.q), targets, damping)
    return seen, seen.corrected(weight * signal.step)


def head(layer: Dense, signal: Signal, copies: int) -> tuple[IntHead | IntDense, float]:
    """Return the last layer and the step of its outputs, so many copies of which can be added in 32 bits."""
    if signal.bits == 16:
        largest = float(np.abs(real_output(layer, signal.real)).max()) or 1.0
        most = (2**31 - 1) // copies
        step = largest / min(FINE, most // 4)
        return weighted(layer, signal, step, -most, most, 16), step
    seen, weight = _seen(layer, signal)
    reach = np.abs(weight).sum(1) * signal.largest + np.abs(seen.bias(weight))
    step = max(float(np.abs(weight).max()) / S16[1], float(reach.max()) * copies / 2**30) or 1.0
    whole = rounded(weight / step, seen.covariance, S16[1])
    bias = np.rint(seen.bias(whole * step) / step)
    require_fit(whole, bias, signal, 31, copies)
    return IntHead(whole.astype(np.int16), np.ones(len(whole), np.int32), bias.astype(np.int32)), step


def norm(layer: Norm, signal: Signal, wanted: Output) -> IntNorm:
    """Return the norm with the outputs that are wanted."""
    scale = layer.scale.astype(np.float64) * np.sqrt(layer.count) / wanted.step
    places = int(np.clip(20 + np.floor(np.log2((2**16 - 1) / max(np.abs(scale).max(), 1e-9))), 0, 40))
    epsilon = int(np.clip(np.rint(layer.count * layer.epsilon / signal.step**2), 1, 2**40 - 1))
    bias = np.ldexp(layer.shift.astype(np.float64) / wanted.step, places)
    return IntNorm(
        np.rint(np.ldexp(scale, places - 20)).astype(np.int32),
        np.rint(bias).astype(np.int64),
        epsilon,
        places,
        wanted.low,
        wanted.high,
        layer.center,
    )


def residual(inner: tuple[IntLayer, ...], signal: Signal, branch: Signal, wanted: Output) -> IntResidual:
    """Return the sum of a signal and of what the inner layers make of it, with the outputs that are wanted."""
    straight, through = signal.step / wanted.step, branch.step / wanted.step
    # 13 bits are fine enough for bytes, and onnxruntime adds them in float32 exactly.
    most = 2 ** (13 if wanted.high <= 255 else 15) - 1
    shift = int(np.clip(np.floor(np.log2(most / max(straight, through))), 0, 16))
    factors = [int(np.rint(np.ldexp(ratio, shift))) for ratio in (straight, through)]
    return IntResidual(inner, *factors, shift, wanted.low, wanted.high)


def rescale(signal: Signal, wanted: Output) -> tuple[IntRescale, Output]:
    """Return what takes a signal near the step that is wanted, and the output with the step that it then really has."""
    multiplier, shift = nearest_dyadic(signal.step / wanted.step)
    if not wanted.activation:
        step = signal.step * 2.0**shift / multiplier
        wanted = replace(wanted, step=step, last_step=step)
    return IntRescale(multiplier, shift, wanted.low, wanted.high), wanted


def squash(step: float, outputs: int) -> Squash:
    """Return the tanh behind a continuous head whose outputs have that step."""
    multiplier, shift = nearest_dyadic(step * 2**SQUASH_IN)
    knots = np.tanh((np.arange(257) * 256 - 32768) / 2**SQUASH_IN) * 2**SQUASH_OUT
    table = np.clip(np.rint(knots), *S16).astype(np.int16)
    return Squash(np.full(outputs, multiplier, np.int32), np.full(outputs, shift, np.int8), table)
