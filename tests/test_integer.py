"""The integer arithmetic against loops over Python's own integers, and its largest numbers against 64 bits."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.freeze.graph import Continuous, Discrete, MaxPool, Norm
from agent.freeze.graph import apply as apply_float
from agent.freeze.integer import (
    S8,
    S16,
    SQUASH_IN,
    SQUASH_OUT,
    U8,
    IntConv,
    IntDense,
    IntegerGraph,
    IntFlatten,
    IntFractions,
    IntHead,
    IntNorm,
    IntRescale,
    IntResidual,
    IntTable,
    Quantize,
    Squash,
    apply,
    decide,
    interpolate,
    product,
    reciprocal_root,
    requantize,
    run,
    squash,
)

EDGES = sorted({1, 2, 3, 5, 2**40, 2**60} | {4**k + d for k in range(1, 30) for d in (-1, 0, 1)})


def rounded(total: int, multiplier: int, shift: int, low: int, high: int) -> int:
    """Half to even, as Python rounds a fraction."""
    return min(max(round(Fraction(total * multiplier, 2**shift)), low), high)


def numbers(*shape: int, low: int = -127, high: int = 127, seed: int = 0) -> np.ndarray:
    """Whole numbers, low .. high, both ends among them where there is room."""
    x = np.random.default_rng(seed).integers(low, high + 1, shape)
    x.flat[0], x.flat[-1] = low, high
    return x


@given(st.integers(-(2**45), 2**45), st.integers(1, 2**15), st.integers(0, 45))
def test_requantize(total: int, multiplier: int, shift: int) -> None:
    """A sum is multiplied, divided by a power of two, rounded half to even and limited."""
    for low, high in (U8, S8, S16, (-(2**31) + 1, 2**31 - 1)):
        found = requantize(np.array([total]), multiplier, shift, low, high)
        assert found.tolist() == [rounded(total, multiplier, shift, low, high)]


def test_requantize_halves() -> None:
    """Halves go to the even neighbour above and below zero; a shift of 0 changes nothing."""
    halves = np.array([-5, -3, -1, 1, 3, 5])
    assert requantize(halves, 1, 1, *S8).tolist() == [-2, -2, 0, 0, 2, 2]
    assert requantize(halves, 1, 0, *S8).tolist() == halves.tolist()
    assert requantize(halves, 7, 0, *S8).tolist() == (7 * halves).tolist()


@settings(max_examples=50)
@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.49999997, -0.49999997, 0.5, -0.5, 2.5]), min_size=3, max_size=3),
    st.lists(st.integers(-100, 100) | st.just(0), min_size=3, max_size=3),
)
def test_quantize(x: list[float], exponent: list[int]) -> None:
    """An observation times a power of two is cut after half a step has been added in float32; NaN is 0."""
    low, high = np.array([-32767, 0, -300], np.int16), np.array([32767, 9, 300], np.int16)
    layer = Quantize(np.array(exponent, np.int8), low, high)
    found = apply(layer, np.array([x], np.float32))[0]
    for value, e, least, most, q in zip(x, exponent, low, high, found, strict=True):
        if math.isnan(value):
            value = 0.0
        scaled = Fraction(min(max(value, -1e38), 1e38)) * Fraction(2) ** e
        near = np.float32(min(max(scaled, -40000), 40000))  # far outside every limit
        cut = math.trunc(float(near + np.float32(-0.5 if scaled < 0 else 0.5)))
        assert q == min(max(cut, least), most)


def test_interpolate() -> None:
    """Between the entries of a table lies a straight line, rounded half up."""
    table = numbers(257, low=-32767, high=32767).astype(np.int16)
    q = np.arange(-32767, 32768)
    expected = []
    for place in range(1, 65536):
        index, part = divmod(place, 256)
        rise = (int(table[index + 1]) - int(table[index])) * part
        expected.append(int(table[index]) + math.floor(Fraction(rise, 256) + Fraction(1, 2)))
    assert interpolate(table, q).tolist() == expected
    assert apply(IntTable(table), q[None]).tolist() == [expected]


def slow_root(power: int) -> tuple[int, int]:
    """The reciprocal root as its docstring says it."""
    n = 0
    while power < 2**60:
        power, n = power * 4, n + 1
    return 2**61 // math.isqrt(power), n


@given(st.integers(1, 2**60) | st.integers(0, 60).map(lambda k: 2**k))
def test_reciprocal_root(power: int) -> None:
    """The root is exact, whatever float64 makes of it, and its reciprocal has 31 places."""
    r, n = (int(one[0]) for one in reciprocal_root(np.array([power])))
    assert (r, n) == slow_root(power)
    assert 2**30 <= r <= 2**31
    assert math.isclose(r * 2.0 ** (n - 61), power**-0.5, rel_tol=2**-29)


def test_reciprocal_root_at_edges() -> None:
    """Next to squares, where the rounding of a floating root could be wrong, it is right."""
    squares = [root * root + d for root in (2**30 - 1, 2**30, 2**29 + 12345, 2**27 + 1) for d in (-1, 0, 1)]
    powers = [power for power in EDGES + squares if power <= 2**60]
    r, n = reciprocal_root(np.array(powers))
    assert list(zip(r.tolist(), n.tolist(), strict=True)) == [slow_root(power) for power in powers]


def slow_norm(layer: IntNorm, q: np.ndarray) -> list[int]:
    """One state's norm, in loops; each entry has a scale of its own."""
    entries = [int(one) for one in q]
    if layer.center:
        total = sum(entries)
        mean = math.floor(Fraction(abs(total), len(entries)) + Fraction(1, 2)) * (1 if total >= 0 else -1)
        entries = [one - mean for one in entries]
    r, n = slow_root(sum(one * one for one in entries) + layer.epsilon)
    found = []
    for one, scale, bias in zip(entries, layer.scale, layer.bias, strict=True):
        v = abs(one) * r // 2 ** (41 - n) * (1 if one >= 0 else -1)
        assert abs(v) <= 2**20
        found.append(rounded(v * int(scale) + int(bias), 1, layer.places, layer.low, layer.high))
    return found


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("q", [numbers(2, 9, low=-32767, high=32767), numbers(2, 9, low=-3, high=2), np.zeros((2, 9))])
def test_norm(q: np.ndarray, center: bool) -> None:
    """A norm is exact integer arithmetic, for large numbers, small ones and none."""
    scale, bias = numbers(9, low=-65535, high=65535), numbers(9, low=-(2**40), high=2**40, seed=1)
    layer = IntNorm(scale.astype(np.int32), bias, 7, 27, *S16, center)
    assert apply(layer, q).tolist() == [slow_norm(layer, row) for row in q.astype(int)]


def test_norm_of_pictures() -> None:
    """Before [C, H, W] a scale belongs to a channel, and sum and mean go over all entries."""
    q = numbers(2, 3, 4, 5, low=-300, high=900)
    layer = IntNorm(np.array([900, -70, 3], np.int32), np.array([5, 0, -9]) << 20, 3, 18, *S8, center=True)
    by_entry = IntNorm(np.repeat(layer.scale, 20), np.repeat(layer.bias, 20), 3, 18, *S8, center=True)
    assert apply(layer, q).reshape(2, -1).tolist() == [slow_norm(by_entry, row) for row in q.reshape(2, -1)]


@pytest.mark.parametrize("center", [False, True])
def test_norm_is_a_norm(center: bool) -> None:
    """With the constants of a float norm the integers are its outputs, to within their step."""
    rng = np.random.default_rng(0)
    q, step, out = numbers(50, 64, low=-9000, high=20000), 1e-4, 4 / 32767
    norm = Norm(rng.normal(1, 0.3, 64), rng.normal(size=64), 64, center=center)
    places, scale = 22, norm.scale * 8 / out
    layer = IntNorm(
        np.rint(scale * 2.0 ** (places - 20)).astype(np.int32),
        np.rint(norm.shift / out * 2.0**places).astype(np.int64),
        round(64 * norm.epsilon / step**2),
        places,
        *S16,
        center,
    )
    expected = np.clip(apply_float(norm, q * step), -4, 4)
    np.testing.assert_allclose(apply(layer, q) * out, expected, atol=2 * out)


def test_largest_norm() -> None:
    """A norm over 2^20 entries of the largest numbers stays within 64 bits, and so does everything inside it.

    Entries less their mean are below 2^16, their squares below 2^32, the sum of 2^28 of them below 2^60; an entry times
    a reciprocal root is below 2^47, v at most 2^20, v times a scale below 2^37.
    """
    q = np.where(np.arange(2**20) % 2**19 == 0, -32767, 32767)[None]
    layer = IntNorm(np.full(1, 65535, np.int32), np.zeros(1, np.int64), 2**40 - 1, 0, -(2**40), 2**40, True)
    found = apply(layer, q[:, None, None])  # one channel
    mean = round(float(q.mean()))
    power = sum(count * (value - mean) ** 2 for value, count in ((-32767, 2), (32767, 2**20 - 2))) + 2**40 - 1
    r, n = slow_root(power)
    assert found.min() == -((32767 + mean) * r // 2 ** (41 - n)) * 65535
    assert power < 2**60
    assert (2**16 * 2**31).bit_length() < 63


def test_dense_and_head() -> None:
    """A dense layer is its sums, requantized; a head its sums times a multiplier, with a bias and not rounded."""
    q, weight = numbers(3, 7, low=0, high=255), numbers(4, 7, seed=1).astype(np.int8)
    bias, multiplier, shift = np.array([9, -9, 3000, 0]), np.array([63, 1, 40, 33]), np.array([12, 4, 9, 0])
    found = apply(IntDense(weight, bias, multiplier, shift, *U8), q)
    head = apply(IntHead(weight, multiplier, bias), q)
    for row, given, outputs in zip(q, found, head, strict=True):
        for i in range(4):
            total = sum(int(a) * int(b) for a, b in zip(row, weight[i], strict=True))
            assert given[i] == rounded(total + int(bias[i]), int(multiplier[i]), int(shift[i]), *U8)
            assert outputs[i] == total * multiplier[i] + bias[i]


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 2)])
def test_convolution(stride: int, padding: int) -> None:
    """A convolution is a dense layer over every window, with zeros around the picture."""
    q, weight = numbers(2, 3, 7, 6, low=-32767, high=32767), numbers(4, 3, 3, 2, seed=1, low=-32767, high=32767)
    layer = IntConv(weight, np.arange(4) - 2, np.array([3, 5, 7, 9]), np.array([20, 21, 22, 23]), *S16, stride, padding)
    found = apply(layer, q)
    assert found.shape == (2, 4, (7 + 2 * padding - 3) // stride + 1, (6 + 2 * padding - 2) // stride + 1)
    for n, out, top, left in np.ndindex(found.shape):
        total = int(layer.bias[out])
        for channel, down, across in np.ndindex(3, 3, 2):
            y, x = top * stride + down - padding, left * stride + across - padding
            if 0 <= y < 7 and 0 <= x < 6:
                total += int(weight[out, channel, down, across]) * int(q[n, channel, y, x])
        expected = rounded(total, int(layer.multiplier[out]), int(layer.shift[out]), *S16)
        assert found[n, out, top, left] == expected


def test_product_of_the_largest() -> None:
    """The sum of 2^22 products of the largest 16-bit numbers is exact, although it is taken in float64."""
    q, weight = np.full((1, 2**22), 32767), np.full((2, 2**22), [[32767], [-32767]], np.int16)
    weight[0, 0] -= 1
    assert product(q, weight).tolist() == [[2**22 * 32767**2 - 32767, -(2**22) * 32767**2]]


def test_residual_rescale_and_pool() -> None:
    """Of a residual both paths are rounded once, together; a pool takes the largest, whatever the sign."""
    q = numbers(3, 2, 4, 4, low=-127, high=-1)
    inner = (IntRescale(3, 1, *S8),)
    found = apply(IntResidual(inner, 11, -5, 4, *S8), q)
    pooled = apply(MaxPool(3, 2, 1), q)
    for n, channel, y, x in np.ndindex(q.shape):
        one = int(q[n, channel, y, x])
        assert found[n, channel, y, x] == rounded(one * 11 + rounded(one, 3, 1, *S8) * -5, 1, 4, *S8)
    assert pooled.shape == (3, 2, 2, 2)
    for n, channel, y, x in np.ndindex(pooled.shape):
        window = q[n, channel, max(0, 2 * y - 1) : 2 * y + 2, max(0, 2 * x - 1) : 2 * x + 2]
        assert pooled[n, channel, y, x] == window.max()


def test_fractions() -> None:
    """Fractions are the sum of their layers' outputs over all of them, each input rounded by itself."""
    q, factors = numbers(3, 5, low=0, high=255), numbers(4, 5, low=0, high=32767, seed=1).astype(np.int16)
    head = IntHead(numbers(2, 5, seed=2).astype(np.int16), np.array([1, 3]), np.array([7, -7]))
    found = apply(IntFractions(factors, 14, *U8, (head,)), q)
    for row, given in zip(q, found, strict=True):
        total = [0, 0]
        for factor in factors:
            scaled = [rounded(int(a), int(b), 14, *U8) for a, b in zip(row, factor, strict=True)]
            for i in range(2):
                products = sum(int(a) * int(b) for a, b in zip(head.weight[i], scaled, strict=True))
                total[i] += products * int(head.multiplier[i]) + int(head.bias[i])
        assert given.tolist() == total


def policy(head: Discrete | Continuous, weight: list[list[int]], **others: object) -> IntegerGraph:
    """One head over four bytes."""
    layer = IntHead(np.array(weight, np.int16), np.ones(len(weight), np.int32), np.zeros(len(weight), np.int32))
    return IntegerGraph((2, 1, 2), "uint8", (IntFlatten(), layer), head, 0.25, **others)  # type: ignore[arg-type]


def test_run() -> None:
    """A policy runs its layers over pictures, channels last or first, and refuses other shapes."""
    graph = policy(Discrete(2), [[1, 2, 3, 4], [0, 0, 1, 0]])
    x = numbers(3, 2, 1, 2, low=0, high=255).astype(np.uint8)
    outputs = run(graph, x)
    assert outputs.dtype == np.int32
    assert outputs.tolist() == [[a + 2 * b + 3 * c + 4 * d, c] for a, b, c, d in x.reshape(3, 4).astype(int)]
    last = policy(Discrete(2), [[1, 2, 3, 4], [0, 0, 1, 0]], channels_last=True)
    assert run(last, x).tolist() == [[a + 2 * c + 3 * b + 4 * d, b] for a, b, c, d in x.reshape(3, 4).astype(int)]
    with pytest.raises(ValueError, match=r"takes observations of shape \(2, 1, 2\), not \(2, 2\)"):
        run(graph, x[:, :, 0])


def test_decide() -> None:
    """The first of the largest outputs is chosen; continuous ones are limited, or squashed by their table."""
    assert decide(policy(Discrete(3), [[0] * 4] * 3), np.array([[1, 5, 5], [7, 7, 2]])).tolist() == [1, 0]
    clipped = policy(Continuous((-1.0, 0.0), (1.0, 9.0), "clip"), [[0] * 4] * 2)
    assert decide(clipped, np.array([[3, 3], [9, -9]])).tolist() == [[0.75, 0.75], [1.0, 0.0]]
    knots = np.tanh((np.arange(257) * 256 - 32768) / 2**SQUASH_IN) * 2**SQUASH_OUT
    table = np.clip(np.rint(knots), *S16).astype(np.int16)
    places = Squash(np.full(1, 2**SQUASH_IN // 4), np.zeros(1, np.int8), table)  # outputs are quarters
    tanh = policy(Continuous((-2.0,), (6.0,), "tanh"), [[0] * 4], squash=places)
    outputs = np.arange(-40, 41)[:, None]
    np.testing.assert_allclose(squash(tanh, outputs) / 2**SQUASH_OUT, np.tanh(outputs / 4), atol=4e-4)
    expected = -2 + (squash(tanh, outputs) + 2**15) / 2**16 * 8
    assert np.array_equal(decide(tanh, outputs), expected.astype(np.float32))
