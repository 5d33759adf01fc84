"""Float layers in C against the numpy reference, to 1e-5."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.freeze.emit.c import emit_c
from agent.freeze.emit.c_float import EXPRESSIONS
from agent.freeze.graph import (
    ACTIVATIONS,
    Activate,
    Clip,
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
)
from compiled import Compiled, emitted, processor, reference, require_close, states  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


class Weights:
    """Random weights of a size at which activations do something."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, *shape: int) -> np.ndarray:
        """A weight, or a bias when it has one axis."""
        size = np.prod(shape[1:]) if len(shape) > 1 else 4
        return (self.rng.standard_normal(shape) / np.sqrt(size)).astype(np.float32)


def graph(shape: tuple[int, ...], dtype: str, *layers: Layer, outputs: int, last: bool = False) -> Graph:
    """A policy of these layers."""
    return Graph(shape, dtype, layers, Discrete(outputs), last)  # type: ignore[arg-type]


def test_every_activation_has_an_expression() -> None:
    """What the reference knows, C knows."""
    assert set(EXPRESSIONS) | {"none"} == set(ACTIVATIONS)


def test_dense_layers_and_activations(tmp_path: Path) -> None:
    """Outputs in blocks of 16, 8 and 4 and none of them, each activation fused and by itself."""
    w = Weights()
    layers: list[Layer] = []
    width = 7
    for kind, out in zip(ACTIVATIONS, (61, 12, 16, 5, 3, 33, 40), strict=True):
        layers += [Dense(w(out, width), w(out), kind), Activate(kind)]
        width = out
    require_close(graph((7,), "float32", *layers, Dense(2 * w(6, width), w(6)), outputs=6), tmp_path)


def test_bytes_into_a_dense_layer(tmp_path: Path) -> None:
    """A flattened picture of bytes keeps its order, whichever way it lies."""
    w = Weights()
    for last in (False, True):
        shape = (4, 3, 2) if last else (2, 4, 3)
        layers = (Flatten(), Dense(w(5, 24) / 255, w(5)))
        require_close(graph(shape, "uint8", *layers, outputs=5, last=last), tmp_path)


@pytest.mark.usefixtures("processor")
def test_convolutions(tmp_path: Path) -> None:
    """Odd sizes, channels, strides and paddings, pooling, and a flattened picture before a norm and a dense layer."""
    w = Weights()
    layers = (
        Conv(w(5, 3, 3, 3) / 100, w(5), 2, 1, "relu"),
        MaxPool(3, 2, 1),
        Conv(w(22, 5, 2, 2), w(22), 1, 2),
        Norm(w(22), w(22), 700, 1e-5, True, "elu"),
        Conv(w(16, 22, 3, 3), w(16)),
        Flatten(),
        Norm(w(192), w(192), 192, 1e-3, False, "tanh"),
        Dense(w(4, 192), w(4)),
    )
    for last in (False, True):
        require_close(graph((9, 8, 3) if last else (3, 9, 8), "uint8", *layers, outputs=4, last=last), tmp_path)


def test_limits_come_first(tmp_path: Path) -> None:
    """Observations are cut to their entry's limits, infinite ones included, and NaN stays NaN."""
    w = Weights()
    low, high = np.float32([-1, -np.inf, 0.5, -np.inf]), np.float32([1, 0.25, np.inf, np.inf])
    policy = graph((4,), "float32", Clip(low, high), Dense(w(3, 4), w(3)), outputs=3)
    require_close(policy, tmp_path)
    x = np.float32([[9, 9, 9, 9], [-9, -9, -9, -9], [0, np.nan, 0, 0]])
    np.testing.assert_allclose(Compiled(policy, tmp_path).forward(x), reference(policy, x), rtol=1e-5)
    picture = Clip(-np.arange(24, dtype=np.float32).reshape(2, 4, 3) / 9, np.ones((2, 4, 3), np.float32))
    layers = (picture, Conv(w(2, 2, 2, 2), w(2)), Flatten(), Dense(w(3, 12), w(3)))
    require_close(graph((4, 3, 2), "float32", *layers, outputs=3, last=True), tmp_path)


@pytest.mark.usefixtures("processor")
def test_residuals(tmp_path: Path) -> None:
    """Around convolutions, around nothing but an activation, nested, on a raw and on a flattened picture."""
    w = Weights()
    layers = (
        Residual((Activate("tanh"),)),
        Conv(w(4, 2, 3, 3), w(4), 1, 1),
        Residual((Activate("relu"), Conv(w(4, 4, 3, 3), w(4), 1, 1), Residual((Activate("silu"),), "tanh")), "elu"),
        Flatten(),
        Residual((Dense(w(9, 80), w(9), "relu"), Dense(w(80, 9), w(80)))),
        Dense(w(3, 80), w(3)),
    )
    require_close(graph((2, 5, 4), "float32", *layers, outputs=3), tmp_path)
    layers = (MaxPool(2, 2), Norm(w(2), w(2), 12), Residual((Activate("relu"),)), Flatten(), Dense(w(3, 8), w(3)))
    require_close(graph((2, 4, 4), "uint8", *layers, outputs=3), tmp_path)


def test_fractions(tmp_path: Path) -> None:
    """The mean over fractions of what follows them, of a vector and of a flattened picture."""
    w = Weights()
    inner = (Dense(w(9, 12), w(9), "relu"), Norm(w(9), w(9), 9), Dense(w(3, 9), w(3)))
    layers = (Dense(w(12, 5), w(12), "relu"), Fractions(2 * w(4, 12), inner))
    require_close(graph((5,), "float32", *layers, outputs=3), tmp_path)
    layers = (Conv(w(3, 2, 2, 2), w(3)), Flatten(), Fractions(4 * w(5, 12), (Dense(w(3, 12), w(3), "sigmoid"),)))
    require_close(graph((2, 3, 3), "float32", *layers, outputs=3), tmp_path)


def test_outputs_of_a_picture_in_their_own_order(tmp_path: Path) -> None:
    """A policy may end with a flattened picture."""
    w = Weights()
    require_close(graph((2, 3, 4), "float32", Conv(w(2, 2, 2, 2), w(2)), Flatten(), outputs=12), tmp_path)


def test_what_cannot_become_c() -> None:
    """Weights that are not finite, a dense layer on a picture and a head of another size are refused with words."""
    w = Weights()
    bad = w(3, 4)
    bad[1, 2] = np.nan
    for policy, words in (
        (graph((4,), "float32", Dense(bad, w(3)), outputs=3), "not finite"),
        (graph((4,), "float32", Dense(w(3, 4), np.float32([0, np.inf, 0])), outputs=3), "not finite"),
        (graph((2, 4), "float32", Dense(w(3, 4), w(3)), outputs=3), "flatten it first"),
        (graph((4,), "float32", Dense(w(3, 4), w(3)), outputs=4), "head takes 4"),
    ):
        with pytest.raises(ValueError, match=words):
            emit_c(policy, golden=(states(policy, 1), np.zeros((1, 3), np.float32)), title="")


def test_math_only_where_needed() -> None:
    """Without roots, exponentials and tanh the float path includes nothing but the header."""
    w = Weights()
    plain = emitted(graph((4,), "float32", Dense(w(3, 4), w(3), "relu"), outputs=3))["policy.c"]
    assert b"math.h" not in plain
    for layer in (Norm(w(4), w(4), 4), Activate("elu"), Activate("silu")):
        assert b"math.h" in emitted(graph((4,), "float32", layer, Dense(w(3, 4), w(3)), outputs=3))["policy.c"]
