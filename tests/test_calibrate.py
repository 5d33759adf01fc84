"""Calibration: layers made even compute the same, and what is sampled is what layers see."""

from __future__ import annotations

import numpy as np
import pytest

from agent.freeze import calibrate
from agent.freeze.calibrate import (
    Widths,
    at_fractions,
    balanced,
    batched,
    best_step,
    inputs_of,
    narrow,
    thinned,
)
from agent.freeze.graph import (
    Activate,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Graph,
    Layer,
    MaxPool,
    Norm,
    Residual,
    apply,
    run_layers,
)

EIGHT = Widths(8, 8)


def array(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers with rows of very different size."""
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(size=shape[0])).reshape(-1, *(1,) * (len(shape) - 1))
    return (rng.normal(size=shape) * rows / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def dense(out: int, inputs: int, activation: str = "relu", bias: float = 0.0, seed: int = 0) -> Dense:
    """A dense layer."""
    return Dense(array(out, inputs, seed=seed), array(out, seed=seed + 1) + np.float32(bias), activation)


def conv(out: int, channels: int, activation: str = "relu", padding: int = 0, stride: int = 1) -> Conv:
    """A 3x3 convolution."""
    return Conv(array(out, channels, 3, 3), array(out, seed=1) + np.float32(2), stride, padding, activation)


def branch() -> Residual:
    """A block as IMPALA has them."""
    return Residual((Activate("relu"), conv(4, 4, padding=1), conv(4, 4, "none", padding=1)))


STACKS: dict[str, tuple[tuple[int, ...], tuple[Layer, ...]]] = {
    "dense": ((6,), (dense(12, 6), dense(10, 12, bias=30), dense(3, 10, "none"))),
    "pictures": ((3, 9, 9), (conv(5, 3), conv(4, 5), MaxPool(3, 2, 1), Flatten(), dense(7, 36), dense(3, 7, "none"))),
    "padded": ((3, 6, 6), (conv(5, 3), conv(4, 5, padding=1), Flatten(), dense(3, 64, "none"))),
    "norm": ((6,), (dense(12, 6, "none"), Norm(array(12), array(12) + 9, 12, activation="relu"), dense(3, 12, "none"))),
    "residual": ((3, 6, 6), (conv(4, 3, padding=1), branch(), Activate("relu"), Flatten(), dense(3, 144, "none"))),
    "fractions": ((6,), (dense(8, 6), Fractions(np.abs(array(4, 8)), (dense(9, 8), dense(3, 9, "none"))))),
}


@pytest.mark.parametrize("name", STACKS)
def test_balanced(name: str) -> None:
    """Layers made even compute the same of the states they were made even on."""
    shape, layers = STACKS[name]
    x = np.random.default_rng(0).normal(size=(300, *shape)).astype(np.float32)
    found = balanced(layers, x, EIGHT, 16)
    assert [type(layer) for layer in found] == [type(layer) for layer in layers]
    np.testing.assert_allclose(run_layers(found, x), run_layers(layers, x), rtol=1e-4, atol=1e-4)


def test_balanced_is_even() -> None:
    """Units are nearer in range, one that never comes near zero is lowered, and one that is always zero is let be."""
    shape, layers = STACKS["dense"]
    x = np.random.default_rng(0).normal(size=(300, *shape)).astype(np.float32)
    first = layers[0]
    assert isinstance(first, Dense)
    dead = Dense(first.weight, np.where(np.arange(12) == 3, np.float32(-99), first.bias), "relu")
    layers = (dead, *layers[1:])
    found = balanced(layers, x, EIGHT, 16)
    before, after = (run_layers(each[:1], x).max(0) for each in (layers, found))
    assert after[3] == 0
    alive = np.arange(12) != 3
    assert np.ptp(np.log(after[alive])) < 0.5 * np.ptp(np.log(before[alive]))
    before, after = (run_layers(each[:2], x) for each in (layers, found))
    assert (before.min(0) > 10).all()  # its biases are about 30
    assert (after.min(0) < 0.5 * np.ptp(after, axis=0)).all()


def test_offsets_stop_at_zeros_around() -> None:
    """Before a padded convolution no channel is lowered: the zeros around the picture would no longer be zero."""
    shape, layers = STACKS["padded"]
    x = np.random.default_rng(0).uniform(1, 2, size=(50, *shape)).astype(np.float32)
    high = Conv(layers[0].weight, np.full(5, 50, np.float32), activation="relu")  # type: ignore[union-attr]
    found = balanced((high, *layers[1:]), x, EIGHT, 16)
    ratio = run_layers(found[:1], x) / run_layers((high,), x)  # [N, C, H, W]
    assert np.ptp(ratio, axis=(0, 2, 3)).max() < 1e-5


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_inputs_of(stride: int, padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches times weights are outputs of the convolution: all when there is room, some of every state otherwise."""
    layer, x = conv(5, 3, "none", padding, stride), np.random.default_rng(0).normal(size=(6, 3, 7, 8))
    expected = np.moveaxis(apply(layer, x), 1, -1).reshape(-1, 5)
    answers = inputs_of(layer, x) @ layer.weight.reshape(5, -1).T + layer.bias
    assert len(answers) == len(expected)
    np.testing.assert_allclose(np.sort(answers, axis=0), np.sort(expected, axis=0), rtol=1e-6)
    monkeypatch.setattr(calibrate, "ROWS", 18)
    some = inputs_of(layer, x) @ layer.weight.reshape(5, -1).T + layer.bias
    assert some.shape == (18, 5)
    for n, row in enumerate(some.reshape(6, 3, 5)):
        of_state = apply(layer, x[n : n + 1])[0].reshape(5, -1).T
        assert all(np.isclose(of_state, each, rtol=1e-6).all(axis=1).any() for each in row)


def test_best_step() -> None:
    """In 8 bits a lonely large value is cut off where that makes the rest better; in 16 there is room beyond it."""
    values = np.random.default_rng(0).normal(size=20_000)
    values[7] = 30.0

    def error(step: float) -> float:
        return float(np.square(np.clip(np.rint(values / step), -127, 127) * step - values).mean())

    step = best_step(values, -127, 127)
    assert error(step) < error(30 / 127)
    assert all(error(step) <= error(30 / 127 * share) + 1e-12 for share in np.linspace(0.3, 1, 36))
    assert 32767 * best_step(values, -32767, 32767) > 1.2 * 30
    assert best_step(np.zeros(3), 0, 255) > 0


def test_widths() -> None:
    """A norm reads 16 bits, a head of features 12, wide layers 16 and all others what was asked for."""
    layers = [conv(4, 3), Flatten(), dense(9, 4, "none"), Norm(array(9), array(9), 9), dense(8, 9), dense(2, 8, "none")]
    assert [EIGHT.output(layers, i, 16) for i in range(6)] == [8, 8, 16, 8, 12, 16]
    wide = Widths(8, 8, frozenset({2, 5}))
    assert [wide.output(layers, i, 8) for i in range(6)] == [16, 16, 16, 8, 16, 8]
    assert [wide.weight(i) for i in (0, 2, 5)] == [8, 16, 16]
    assert wide.inside(2) == Widths(16, 16)
    assert EIGHT.output([conv(4, 3), Flatten(), dense(2, 64, "none")], 0, 16) == 8  # the head of a picture


def test_narrow() -> None:
    """Bottlenecks have 16 bits: small layers of few inputs or outputs, not the first, not a head of many inputs."""
    layers = [dense(64, 3), dense(1, 64), dense(1, 1), dense(64, 1), dense(40, 64), dense(4, 40, "none")]
    assert narrow(layers) == {1, 2, 3}
    assert narrow([dense(64, 3), dense(16, 512), dense(4, 16, "none")]) == {2}  # 8,192 weights are not small


def test_thinned_and_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are thinned evenly until they fit the memory, and batches change nothing."""
    monkeypatch.setattr(calibrate, "ENTRIES", 640)
    graph = Graph((6,), "float32", (dense(64, 6), dense(3, 64, "none")), Discrete(3))
    x = np.arange(240, dtype=np.float32).reshape(40, 6)
    assert thinned(graph, x)[:, 0].tolist() == x[::4, 0].tolist()
    assert thinned(graph, x[:10]).shape == (10, 6)
    monkeypatch.setattr(calibrate, "AT_ONCE", 100)
    layer, pictures = conv(5, 3), np.random.default_rng(0).normal(size=(7, 3, 6, 6))
    sizes = []

    def counting(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return apply(layer, rows)

    np.testing.assert_allclose(batched(counting, layer, pictures), apply(layer, pictures))
    assert sizes == [1] * 7


def test_at_fractions() -> None:
    """The fractions take turns over the states."""
    found = at_fractions(np.array([[1.0, 2.0], [10.0, 20.0]]), np.ones((3, 2)))
    assert found.tolist() == [[1, 2], [10, 20], [1, 2]]
