"""Whole policies in integers: they choose as the float ones do, fit their bits, and come out the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from agent.freeze import graph as floats
from agent.freeze import integer
from agent.freeze.graph import (
    Activate,
    Clip,
    Continuous,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Graph,
    MaxPool,
    Norm,
    Residual,
)
from agent.freeze.integer import (
    IntConv,
    IntDense,
    IntegerGraph,
    IntFractions,
    IntHead,
    IntLayer,
    IntNorm,
    IntRescale,
    IntResidual,
    Quantize,
)
from agent.freeze.quantize import quantize, sensitivity


def array(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of a layer as it comes from training."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def dense(out: int, inputs: int, activation: str = "none") -> Dense:
    """A dense layer."""
    return Dense(array(out, inputs), array(out, 1)[:, 0] * np.float32(0.2), activation)


def conv(out: int, channels: int, activation: str = "none", padding: int = 0) -> Conv:
    """A 3x3 convolution."""
    return Conv(array(out, channels, 3, 3), array(out, 1)[:, 0] * np.float32(0.2), 1, padding, activation)


def norm(units: int, activation: str = "relu", *, center: bool = False, count: int = 0) -> Norm:
    """A layer norm."""
    rng = np.random.default_rng(units)
    scale, shift = rng.normal(1, 0.2, units), rng.normal(0, 0.3, units)
    return Norm(scale.astype(np.float32), shift.astype(np.float32), count or units, 1e-5, center, activation)


def block(channels: int) -> Residual:
    """A block as IMPALA has them."""
    return Residual((Activate("relu"), conv(channels, channels, "relu", 1), conv(channels, channels, "none", 1)))


ACT = Discrete(4)
GRAPHS = {
    "relu": Graph((8,), "float32", (dense(64, 8, "relu"), dense(64, 64, "relu"), dense(4, 64)), ACT),
    "tanh": Graph((8,), "float32", (dense(64, 8, "tanh"), dense(64, 64, "tanh"), dense(4, 64)), ACT),
    "others": Graph((8,), "float32", (dense(40, 8, "elu"), dense(40, 40, "silu"), dense(4, 40)), ACT),
    "norm": Graph((8,), "float32", (dense(64, 8), norm(64), dense(64, 64), norm(64, "tanh"), dense(4, 64)), ACT),
    "clip": Graph(
        (8,),
        "float32",
        (Clip(np.full(8, -0.5, np.float32), np.full(8, np.inf, np.float32)), dense(64, 8, "relu"), dense(4, 64)),
        ACT,
    ),
    "boards": Graph((4, 10, 10), "uint8", (conv(8, 4, "relu"), Flatten(), dense(32, 512), norm(32), dense(4, 32)), ACT),
    "impala": Graph(
        (3, 12, 12),
        "uint8",
        (
            conv(8, 3, "none", 1),
            norm(8, "none", center=True, count=8 * 144),
            MaxPool(3, 2, 1),
            block(8),
            Activate("relu"),
            Flatten(),
            dense(32, 288, "relu"),
            dense(4, 32),
        ),
        ACT,
    ),
    "pictures": Graph(
        (7, 7, 2), "float32", (conv(6, 2, "tanh"), Flatten(), dense(4, 150)), ACT, channels_last=True
    ),
    "last": Graph((7, 7, 2), "uint8", (conv(6, 2, "relu"), Flatten(), dense(4, 150)), ACT, channels_last=True),
    "fractions": Graph(
        (8,),
        "float32",
        (dense(32, 8, "relu"), Fractions(np.abs(array(8, 32)) * 3, (dense(32, 32, "relu"), dense(4, 32)))),
        ACT,
    ),
    "bottleneck": Graph((8,), "float32", (dense(32, 8, "relu"), dense(2, 32, "relu"), dense(4, 2)), ACT),
    "linear": Graph((8,), "float32", (dense(4, 8),), ACT),
    "flat": Graph((4, 2), "float32", (Flatten(), dense(32, 8, "relu"), dense(4, 32)), ACT),
    "activated": Graph((8,), "float32", (dense(32, 8, "relu"), dense(4, 32, "tanh")), ACT),
    "squashed": Graph(
        (8,), "float32", (dense(64, 8, "relu"), dense(2, 64)), Continuous((-2.0, 0.0), (2.0, 1.0), "tanh")
    ),
    "clipped": Graph(
        (8,), "float32", (dense(64, 8, "relu"), dense(2, 64)), Continuous((-2.0, 0.0), (2.0, 1.0), "clip")
    ),
}


def visited(graph: Graph, count: int = 600, seed: int = 0) -> np.ndarray:
    """States that go together as those of a game do; entries of a float32 one differ in size."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(graph.shape))
    mix = np.random.default_rng(99).normal(size=(5, size))
    x = (rng.normal(size=(count, 5)) @ mix).reshape(count, *graph.shape)
    if graph.dtype == "uint8":
        return (x > 1).astype(np.uint8) if graph.shape[0] == 4 else np.clip(60 * x + 90, 0, 255).astype(np.uint8)
    return (x * np.exp(np.linspace(-1, 1, size)).reshape(graph.shape)).astype(np.float32)


def outputs(graph: Graph, policy: IntegerGraph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What both give, less the mean over actions."""
    ours, theirs = floats.run(graph, x), integer.run(policy, x) * policy.step
    if not isinstance(graph.head, Discrete):
        return ours, theirs
    return ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", GRAPHS)
def test_policy(name: str, bits: int) -> None:
    """On states that it has not seen an integer policy gives nearly what the float one gives, and chooses alike."""
    graph = GRAPHS[name]
    policy = quantize(graph, visited(graph), weight_bits=bits, activation_bits=bits)
    x = visited(graph, 300, seed=1)
    wanted, given = outputs(graph, policy, x)
    assert np.sqrt(np.square(wanted - given).mean() / np.square(wanted).mean()) < (0.05 if bits == 8 else 0.02)
    ours, theirs = floats.decide(graph.head, floats.run(graph, x)), integer.decide(policy, integer.run(policy, x))
    if isinstance(graph.head, Discrete):
        assert (ours == theirs).mean() > (0.95 if bits == 8 else 0.985)
    else:
        assert np.abs(ours - theirs).mean() < (0.02 if bits == 8 else 0.004)
    assert integer.run(policy, x).dtype == np.int32


def largest_sums(layers: tuple[IntLayer, ...], largest: int) -> int:
    """Assert that no sum or product can overflow, whatever the observation; return the largest number that leaves."""
    for layer in layers:
        match layer:
            case Quantize():
                largest = 32767
            case IntDense() | IntConv():
                in_bytes = layer.weight.dtype == np.int8 and largest <= 255
                rows = np.abs(layer.weight.astype(object)).reshape(len(layer.weight), -1).sum(1)
                sums = [int(row) * largest + abs(int(bias)) for row, bias in zip(rows, layer.bias, strict=True)]
                assert max(sums) < (2**31 if in_bytes else 2**53)
                assert max(total * int(m) for total, m in zip(sums, layer.multiplier, strict=True)) < 2**62
                largest = max(-layer.low, layer.high)
            case IntHead():
                rows = np.abs(layer.weight.astype(object)).sum(1) * layer.multiplier
                largest = max(int(row) * largest + abs(int(bias)) for row, bias in zip(rows, layer.bias, strict=True))
                assert largest < 2**31
            case IntNorm():
                assert layer.epsilon < 2**40
                assert 2**20 * int(np.abs(layer.scale).max()) + int(np.abs(layer.bias).max()) < 2**62
                largest = max(-layer.low, layer.high)
            case IntResidual():
                inner = largest_sums(layer.layers, largest)
                assert largest * layer.multiplier + inner * layer.inner < 2**31
                largest = max(-layer.low, layer.high)
            case IntFractions():
                inner = largest_sums(layer.layers, max(-layer.low, layer.high))
                assert inner * len(layer.factors) < 2**31
                largest = inner * len(layer.factors)
            case IntRescale():
                largest = max(-layer.low, layer.high)
    return largest


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_overflows(name: str) -> None:
    """Sums of bytes fit 32 bits, all others 53, products 62 and outputs 32, for any observation whatever."""
    graph = GRAPHS[name]
    for wide in ((), (1,), tuple(range(len(graph.layers)))):
        policy = quantize(graph, visited(graph, 200), wide=wide)
        assert largest_sums(policy.layers, 255) < 2**31
    extreme = np.where(np.arange(2 * np.prod(graph.shape)) % 3, 1e30, -1e30).reshape(2, *graph.shape)
    x = extreme.astype(np.float32) if graph.dtype == "float32" else np.full((2, *graph.shape), 255, np.uint8)
    assert np.isfinite(integer.run(policy, x)).all()


@pytest.mark.parametrize("name", ["norm", "boards", "fractions"])
def test_repeatable(name: str) -> None:
    """The same policy and states give the same integers."""
    graph = GRAPHS[name]
    ours, again = (quantize(graph, visited(graph, 300)) for _ in range(2))
    assert repr(ours) == repr(again)
    assert all(
        np.array_equal(value, getattr(other, key))
        for one, other in zip(ours.layers, again.layers, strict=True)
        for key, value in vars(one).items()
        if isinstance(value, np.ndarray)
    )


def test_bits() -> None:
    """Weights and what lies between layers have 8 bits, 16 where asked for; the head's input 12 and its weights 16."""
    graph = GRAPHS["relu"]
    x = visited(graph)

    def found(**asked: object) -> list[tuple[str, int]]:
        layers = quantize(graph, x, **asked).layers[1:]  # type: ignore[arg-type]
        return [(str(layer.weight.dtype), getattr(layer, "high", 0)) for layer in layers]  # type: ignore[union-attr]

    assert found() == [("int8", 255), ("int8", 4095), ("int16", 0)]
    assert found(wide=(1,)) == [("int8", 32767), ("int16", 4095), ("int16", 0)]
    assert found(wide=(0, 2)) == [("int16", 255), ("int8", 32767), ("int16", 2**31 - 1)]
    assert found(weight_bits=16) == [("int16", 255), ("int16", 4095), ("int16", 0)]
    assert found(activation_bits=16) == [("int8", 32767), ("int8", 32767), ("int16", 2**31 - 1)]


def test_observations() -> None:
    """Observations enter with an exponent per entry, and are limited where the policy clips them."""
    graph = GRAPHS["clip"]
    x = visited(graph)
    policy = quantize(graph, x, wide=(2,))
    entrance = policy.layers[0]
    assert isinstance(entrance, Quantize)
    largest = np.abs(np.maximum(x, -0.5)).max(0)
    assert (largest * 2.0**entrance.exponent <= 32767 / 1.5).all()
    assert (largest * 2.0 ** (entrance.exponent + 1) > 32767 / 1.5).all()
    assert np.array_equal(entrance.low, np.clip(-0.5 * 2.0**entrance.exponent, -32767, None))
    assert (entrance.high == 32767).all()
    assert np.array_equal(integer.run(policy, x), integer.run(policy, np.maximum(x, -0.5)))


def test_pictures_of_floats() -> None:
    """Before a convolution, which has one weight for all places, a channel has one exponent."""
    policy = quantize(GRAPHS["pictures"], visited(GRAPHS["pictures"]))
    entrance = policy.layers[0]
    assert isinstance(entrance, Quantize)
    assert entrance.exponent.shape == (2, 7, 7)
    assert all(len(np.unique(channel)) == 1 for channel in entrance.exponent)


def test_centred() -> None:
    """What all actions have in common takes no room in the head: without it the outputs are finer."""
    graph = GRAPHS["relu"]
    last = graph.layers[-1]
    assert isinstance(last, Dense)
    raised = Dense(last.weight + 50 * np.abs(array(64, 1)).T, last.bias + 1e3, "none")
    common = Graph(graph.shape, graph.dtype, (*graph.layers[:-1], raised), ACT)
    x = visited(graph)
    policy, plain = quantize(common, x), quantize(graph, x)
    assert policy.step == pytest.approx(plain.step, rel=1e-3)
    agree = integer.run(policy, x).argmax(1) == integer.run(plain, x).argmax(1)
    assert agree.mean() > 0.995


def test_sensitivity() -> None:
    """The layer that 8 bits spoil comes first: one in which a weight of an unused input dwarfs the others."""
    first, middle, last = GRAPHS["relu"].layers
    assert isinstance(first, Dense)
    assert isinstance(middle, Dense)
    weight, bias = first.weight.copy(), first.bias.copy()
    weight[5], bias[5] = 0, -1.0  # never active
    dwarfed = middle.weight.copy()
    dwarfed[:, 5] = 40.0
    layers = (Dense(weight, bias, "relu"), Dense(dwarfed, middle.bias, "relu"), last)
    graph = Graph((8,), "float32", layers, ACT)
    found = sensitivity(graph, visited(graph))
    assert [index for index, _ in found][0] == 1
    assert sorted(index for index, _ in found) == [0, 1, 2]
    assert [size for _, size in found] == sorted((size for _, size in found), reverse=True)
    assert found[0][1] > 3 * found[1][1]
    assert [index for index, _ in sensitivity(GRAPHS["clip"], visited(GRAPHS["clip"], 200))] in ([1, 2], [2, 1])
    assert {index for index, _ in sensitivity(GRAPHS["bottleneck"], visited(graph, 200))} == {0}


def test_refused() -> None:
    """No states, states that are no numbers, other bits and clipped bytes are refused in a sentence."""
    graph = GRAPHS["relu"]
    x = visited(graph, 50)
    with pytest.raises(ValueError, match="needs states that the policy visits"):
        quantize(graph, x[:0])
    with pytest.raises(ValueError, match="finite ones"):
        quantize(graph, np.where(x == x[3], np.nan, x))
    with pytest.raises(ValueError, match="8 or 16 bits, not 8 and 4"):
        quantize(graph, x, activation_bits=4)
    boards = GRAPHS["boards"]
    limits = Clip(np.zeros(boards.shape, np.float32), np.ones(boards.shape, np.float32))
    clipped = Graph(boards.shape, "uint8", (limits, *boards.layers), ACT)
    with pytest.raises(ValueError, match="Only float32 observations can be clipped"):
        quantize(clipped, visited(boards, 50))
