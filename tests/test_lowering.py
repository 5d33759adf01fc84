"""Single layers in integers: near the float layer, within their bits, and as onnxruntime's float32 computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agent.freeze import integer, lowering
from agent.freeze.calibrate import LIMITS
from agent.freeze.graph import ACTIVATIONS, Conv, Dense, Layer, Norm, apply
from agent.freeze.integer import (
    S8,
    S16,
    SQUASH_IN,
    SQUASH_OUT,
    U8,
    IntDense,
    IntHead,
    IntLayer,
    IntNorm,
    IntResidual,
    interpolate,
    requantize,
)
from agent.freeze.lowering import Signal


def signal(*shape: int, limits: tuple[int, int] = U8, largest: float = 5.0, seed: int = 0) -> Signal:
    """Correlated numbers up to `largest` as the float network has them, and rounded to all that the limits allow."""
    rng = np.random.default_rng(seed)
    size, step = int(np.prod(shape[1:])), largest / limits[1]
    real = (rng.normal(size=(shape[0], 4)) @ rng.normal(size=(4, size))).reshape(shape) * largest / 6
    real = np.clip(real, limits[0] * step, largest).astype(np.float32)
    return Signal(real, np.rint(real / step).astype(np.int32), step, *limits)


def dense(out: int, inputs: int, seed: int = 1) -> Dense:
    """A dense layer with rows of different size."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(out, inputs)) * np.exp(rng.normal(size=(out, 1))) / np.sqrt(inputs)
    return Dense(weight.astype(np.float32), rng.normal(size=out).astype(np.float32))


def error(layers: Sequence[IntLayer], x: Signal, step: float, wanted: np.ndarray) -> float:
    """How far the integers are from what is wanted, as a share of it."""
    given = x.through(layers) * step
    return float(np.sqrt(np.square(given - wanted).mean() / np.square(wanted).mean()))


def test_signal() -> None:
    """A signal knows the bits of its integers by their limits."""
    wanted = {(0, 255): 8, (-127, 127): 8, (0, 127): 8, (0, 4095): 12, (-2047, 2047): 12, (0, 32767): 16, S16: 16}
    assert {limits: Signal(np.zeros(1), np.zeros(1), 1.0, *limits).bits for limits in wanted} == wanted
    assert Signal(np.zeros(1), np.zeros(1), 1.0, -127, 90).largest == 127


@pytest.mark.parametrize("bits", LIMITS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs(activation: str, bits: int) -> None:
    """Behind any activation numbers are near what it makes of them, as near as the bits allow, within the limits."""
    before = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32) * 2
    output = lowering.output(activation, before, bits)
    q = np.clip(np.rint(before / output.step), output.low, output.high)
    for layer in output.activation:
        q = integer.apply(layer, q)
    limits = output.limits if output.activation else (output.low, output.high)
    assert limits == output.limits
    assert limits in LIMITS[bits]
    assert limits[0] <= q.min() <= q.max() <= limits[1]
    wanted = ACTIVATIONS[activation](before)
    largest = np.abs(wanted).max()
    assert np.sqrt(np.square(q * output.last_step - wanted).mean()) < largest * {8: 0.005, 12: 5e-4, 16: 3e-4}[bits]


@pytest.mark.parametrize("limits", [U8, S8, S16])
@pytest.mark.parametrize("bits", [8, 16])
def test_weighted(limits: tuple[int, int], bits: int) -> None:
    """A dense layer and a convolution answer nearly as in float, in the types that integer.py names."""
    layers: list[tuple[Layer, tuple[int, ...]]] = [
        (dense(12, 40), (800, 40)),
        (Conv(dense(5, 27).weight.reshape(5, 3, 3, 3), np.ones(5, np.float32), 2, 1), (200, 3, 9, 9)),
    ]
    for layer, shape in layers:
        x = signal(*shape, limits=limits)
        wanted = apply(layer, x.real)
        step = float(np.abs(wanted).max()) / 127
        found = lowering.weighted(layer, x, step, *S8, bits)  # type: ignore[arg-type]
        assert error([found], x, step, wanted) < 0.03
        assert found.weight.dtype == {8: np.int8, 16: np.int16}[bits]
        assert found.bias.dtype == (np.int32 if bits == 8 and x.bits == 8 else np.int64)
        assert np.abs(found.weight).max(axis=tuple(range(1, found.weight.ndim))).min() > (60 if bits == 8 else 10_000)
        found = lowering.weighted(layer, x, step / 200, *S16, bits)  # type: ignore[arg-type]
        assert error([found], x, step / 200, wanted) < (1e-3 if bits == 16 and limits == S16 else 0.02)


@pytest.mark.parametrize(("limits", "places"), [(U8, 16), (S8, 17)])
def test_bytes_in_float32(limits: tuple[int, int], places: int) -> None:
    """What takes bytes to bytes is exact in float32, which is how onnxruntime requantizes: for every sum there is."""
    x = signal(500, 300)
    for size in (0.01, 1.0, 300.0):
        found = lowering.weighted(dense(6, 300), x, size, *limits, 8)
        assert isinstance(found, IntDense)
        assert found.multiplier.max() < 64
        assert found.shift.max() <= places
        for multiplier, shift in zip(found.multiplier, found.shift, strict=True):
            reach = min(2**31 - 1, int(400 * 2.0**shift / multiplier))
            sums = np.unique(np.linspace(-reach, reach, 100_001).astype(np.int32))
            scale = np.float32(multiplier / 2.0**shift)
            in_float = np.clip(np.rint(sums.astype(np.float32) * scale), *limits).astype(np.int64)
            assert np.array_equal(in_float, requantize(sums, multiplier, shift, *limits))


def test_dead_and_tiny_rows() -> None:
    """A row of zeros, or of next to nothing, keeps its bias."""
    layer = Dense(np.array([[0.0] * 9, [1e-12] * 9, [0.5] * 9], np.float32), np.array([0.75, -0.5, 0], np.float32))
    x = signal(300, 9)
    found = lowering.weighted(layer, x, 0.01, *S8, 8)
    assert np.abs(x.through([found])[:, :2] * 0.01 - [0.75, -0.5]).max() <= 0.005


def test_sums_that_do_not_fit() -> None:
    """A layer whose sum could pass 32 bits is refused in a sentence."""
    x = Signal(np.zeros((1, 70_000)), np.zeros((1, 70_000)), 1.0, *U8)
    with pytest.raises(ValueError, match="70000 products does not fit 32 bits"):
        lowering.require_fit(np.full((1, 70_000), 127.0), np.zeros(1), x, 31)
    lowering.require_fit(np.full((1, 60_000), 127.0), np.zeros(1), Signal(x.real, x.q, 1.0, *U8), 31)


@pytest.mark.parametrize(("limits", "kind"), [(U8, IntHead), ((0, 4095), IntHead), (S16, IntDense)])
@pytest.mark.parametrize("copies", [1, 32])
def test_head(limits: tuple[int, int], kind: type, copies: int) -> None:
    """A head gives 32-bit integers near the float outputs, and so many copies of them still fit."""
    x, layer = signal(800, 60, limits=limits), dense(4, 60)
    found, step = lowering.head(layer, x, copies)
    assert isinstance(found, kind)
    wanted = apply(layer, x.real)
    assert error([found], x, step, wanted) < (0.02 if limits == U8 else 1e-3)
    reach = np.abs(found.weight.astype(np.int64)).sum(1) * x.largest + np.abs(found.bias.astype(np.int64))
    if isinstance(found, IntHead):
        assert reach.max() * copies < 2**31
    else:
        assert found.high * copies < 2**31
        assert reach.max() < 2**53
    assert np.abs(wanted).max() / step > 2**14  # not coarse


@pytest.mark.parametrize("center", [False, True])
def test_norm(center: bool) -> None:
    """A norm answers as in float, on features and on pictures."""
    rng = np.random.default_rng(0)
    for shape in ((300, 50), (40, 6, 5, 5)):
        x = signal(*shape, limits=S16)
        units = shape[1]
        scale, shift = rng.normal(1, 0.4, (2, units)).astype(np.float32)
        layer = Norm(scale, shift, 40, 1e-5, center)
        wanted = apply(layer, x.real)
        output = lowering.output("none", wanted, 8)
        found = lowering.norm(layer, x, output)
        assert isinstance(found, IntNorm)
        assert np.abs(found.scale).max() < 2**16
        assert found.center == center
        assert error([found], x, output.step, wanted) < 0.02


def test_residual_and_rescale() -> None:
    """A sum of two signals and a change of step are near what they stand for."""
    x = signal(300, 30, limits=S8)
    real = apply(dense(30, 30), x.real)
    step = float(np.abs(real).max()) / 127
    inner = lowering.weighted(dense(30, 30), x, step, *S8, 8)
    branch = Signal(real, x.through([inner]), step, *S8)
    wanted = x.real + branch.real
    output = lowering.output("none", wanted, 8)
    found = lowering.residual((inner,), x, branch, output)
    assert isinstance(found, IntResidual)
    assert error([found], x, output.step, wanted) < 0.03
    fine = signal(300, 30, limits=S16)
    rescale, given = lowering.rescale(fine, lowering.output("relu", fine.real, 8))
    assert (rescale.low, rescale.high) == U8
    assert error([rescale], fine, given.last_step, np.maximum(fine.real, 0)) < 0.02


def test_squash() -> None:
    """The tanh of a head comes out with 15 places, whatever the step of the outputs."""
    for step in (1e-7, 0.003, 1.0):
        found = lowering.squash(step, 2)
        y = np.linspace(-4, 4, 2001)
        outputs = np.rint(y / step).astype(np.int64)
        inner = requantize(outputs, found.multiplier[0], found.shift[0], *S16)
        np.testing.assert_allclose(inner / 2**SQUASH_IN, outputs * step, atol=1e-3)
        unit = interpolate(found.table, inner) / 2**SQUASH_OUT
        np.testing.assert_allclose(unit, np.tanh(outputs * step), atol=1e-3)
