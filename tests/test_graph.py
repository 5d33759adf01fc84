"""The graph in numpy is what torch computes, layer by layer, and knows its shapes, its cost and its choices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from agent.freeze.graph import (
    BATCH,
    Activate,
    Clip,
    Continuous,
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
    arrays,
    decide,
    in_blocks,
    multiply_accumulates,
    require_finite,
    run,
    run_layers,
    shapes,
)

TORCH = {
    "none": lambda x: x,
    "relu": F.relu,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers, f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same(layer: Layer, x: np.ndarray, expected: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The layer gives in f64 what torch gives in f64, and in f32 nearly that, as f32."""
    wanted = expected(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(apply(layer, x.astype(np.float64)), wanted, rtol=1e-12, atol=1e-12)
    single = apply(layer, x)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=1e-4, atol=1e-5)


def double(array: np.ndarray) -> torch.Tensor:
    """The array for torch, f64."""
    return torch.from_numpy(array.astype(np.float64))


@pytest.mark.parametrize("activation", TORCH)
def test_dense_and_every_activation(activation: str) -> None:
    """W x + b, then the activation of that name, also where its argument is large."""
    layer = Dense(30 * normal(6, 5), normal(6, seed=1), activation)
    weight, bias, expected = double(layer.weight), double(layer.bias), TORCH[activation]
    same(layer, normal(40, 5, seed=2), lambda x: expected(F.linear(x, weight, bias)))
    same(Activate(activation), 30 * normal(3, 2, 4, 5), TORCH[activation])


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 3), st.integers(0, 2), st.integers(3, 8),
    st.integers(3, 8),
)  # fmt: skip
def test_conv(kernel: tuple[int, int], stride: int, padding: int, height: int, width: int) -> None:
    """Convolutions of every kernel, stride and padding over maps of every size are torch's."""
    layer = Conv(normal(4, 3, *kernel), normal(4, seed=1), stride, padding, "relu")
    weight, bias = double(layer.weight), double(layer.bias)
    same(layer, normal(2, 3, height, width, seed=2), lambda x: F.relu(F.conv2d(x, weight, bias, stride, padding)))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers(3, 8), st.integers(3, 8))
def test_max_pool(kernel: int, stride: int, padding: int, height: int, width: int) -> None:
    """The largest of each window, in which the padding never counts even where all is negative."""
    padding = min(padding, kernel // 2)
    x = -1 - np.abs(normal(2, 3, height, width))
    same(MaxPool(kernel, stride, padding), x, lambda x: F.max_pool2d(x, kernel, stride, padding))


def test_norm_of_features_and_of_maps() -> None:
    """A centring norm is torch's layer norm over features, and its group norm of one group over maps."""
    scale, shift = normal(6), normal(6, seed=1)
    features = Norm(scale, shift, 6, 1e-3, center=True, activation="tanh")
    same(
        features, 3 + normal(4, 6, seed=2),
        lambda x: torch.tanh(F.layer_norm(x, (6,), double(scale), double(shift), 1e-3)),
    )  # fmt: skip
    maps = Norm(scale, shift, 6 * 4 * 5, 1e-3, center=True)
    same(maps, 3 + normal(2, 6, 4, 5), lambda x: F.group_norm(x, 1, double(scale), double(shift), 1e-3))


def test_norm_without_centring_counts_as_trained() -> None:
    """It divides by the root of the squares' sum over `count`, however many entries there are now; no mean is taken."""
    layer = Norm(normal(4), normal(4, seed=1), count=9, epsilon=0.5)
    x = 3 + normal(5, 4, seed=2)
    power = (x.astype(np.float64) ** 2).sum(1, keepdims=True) / 9 + 0.5
    same(layer, x, lambda given: given / double(power).sqrt() * double(layer.scale) + double(layer.shift))


def test_clip_and_flatten() -> None:
    """Limits hold entry by entry, infinite ones not at all; flattening keeps torch's order."""
    low, high = np.float32([[-1, -np.inf], [0, 2]]), np.float32([[1, np.inf], [0, 3]])
    clipped = apply(Clip(low, high), np.float32([[[-5, -5], [-5, -5]], [[5, 5], [5, 5]]]))
    np.testing.assert_array_equal(clipped, [[[-1, -5], [0, 2]], [[1, 5], [0, 3]]])
    same(Flatten(), normal(2, 3, 4, 5), lambda x: x.flatten(1))


def test_residual_and_fractions() -> None:
    """A residual adds its input to what its layers give; fractions are a mean over what each row of factors gives."""
    inner = Conv(normal(3, 3, 3, 3), normal(3), 1, 1)
    same(
        Residual((Activate("relu"), inner), "relu"), normal(2, 3, 4, 4),
        lambda x: F.relu(x + F.conv2d(F.relu(x), double(inner.weight), double(inner.bias), 1, 1)),
    )  # fmt: skip
    factors, hidden = normal(7, 5), Dense(normal(4, 5), normal(4), "relu")
    same(
        Fractions(factors, (hidden,)), normal(3, 5),
        lambda x: F.relu(F.linear(x[:, None] * double(factors), double(hidden.weight), double(hidden.bias))).mean(1),
    )  # fmt: skip


def picture_policy(*, channels_last: bool) -> Graph:
    """A policy with every kind of layer but Clip."""
    layers = (
        Conv(normal(4, 3, 3, 3), normal(4), 2, 1, "relu"),
        Norm(normal(4), normal(4), 4 * 4 * 5, center=True),
        MaxPool(2, 2),
        Residual((Activate("relu"), Conv(normal(4, 4, 3, 3), normal(4), 1, 1))),
        Flatten(),
        Dense(normal(6, 16), normal(6)),
        Norm(normal(6), normal(6), 6, activation="relu"),
        Fractions(normal(5, 6), (Dense(normal(7, 6), normal(7), "relu"), Dense(normal(2, 7), normal(2)))),
    )
    return Graph((8, 10, 3) if channels_last else (3, 8, 10), "uint8", layers, Discrete(2), channels_last)


def test_shapes_and_cost() -> None:
    """Every layer's shape is known, and each product with a weight is counted once, written out here."""
    graph = picture_policy(channels_last=False)
    assert shapes(graph) == [
        (3, 8, 10), (4, 4, 5), (4, 4, 5), (4, 2, 2), (4, 2, 2), (16,), (6,), (6,), (2,),
    ]  # fmt: skip
    convolution, residual = 4 * 3 * 9 * (4 * 5), 4 * 4 * 9 * (2 * 2)
    fractions = 5 * (6 + 6 * 7 + 7 * 2)
    assert multiply_accumulates(graph) == convolution + residual + 16 * 6 + fractions
    assert graph.num_outputs == 2
    assert Graph((2,), "float32", (), Continuous((0, 0, 0), (1, 1, 1), "clip")).num_outputs == 3


def test_channels_last() -> None:
    """Pictures [H, W, C] give what the same pictures [C, H, W] give, and have the same shapes inside."""
    last, first = picture_policy(channels_last=True), picture_policy(channels_last=False)
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), np.uint8)
    np.testing.assert_allclose(run(last, x), run(first, np.moveaxis(x, -1, 1)), rtol=1e-5)
    assert shapes(last) == shapes(first)


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 3 * BATCH])
def test_blocks_are_joined_in_order(count: int) -> None:
    """However many observations there are, each gets its own answer, and never more than BATCH are asked at once."""
    asked = []

    def double(block: np.ndarray) -> np.ndarray:
        asked.append(len(block))
        return 2 * block

    x = np.arange(2 * count).reshape(count, 2)
    np.testing.assert_array_equal(in_blocks(double, x), 2 * x)
    assert max(asked) <= BATCH and sum(asked) == count


def test_run_takes_raw_bytes_in_any_precision() -> None:
    """Bytes are taken as numbers, not wrapped around; f64 agrees with f32; one state gives what it gives in a batch."""
    graph = picture_policy(channels_last=False)
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 10), np.uint8)
    exact = run(graph, x, np.float64)
    assert exact.dtype == np.float64 and run(graph, x).dtype == np.float32
    np.testing.assert_allclose(run(graph, x), exact, rtol=1e-4)
    np.testing.assert_allclose(exact, run_layers(graph.layers, x.astype(np.float64)))
    np.testing.assert_allclose(run(graph, x[2:3], np.float64)[0], exact[2], rtol=1e-12)


def test_wrong_shapes_are_refused() -> None:
    """An observation of another shape is refused with both shapes, not broadcast."""
    graph = Graph((3,), "float32", (Dense(normal(2, 3), normal(2)),), Discrete(2))
    with pytest.raises(ValueError, match=r"\(3,\), not \(1,\)"):
        run(graph, np.zeros((5, 1), np.float32))


def test_decide() -> None:
    """Discrete: the first of the largest. tanh: spread over the limits. clip: cut at the limits."""
    assert decide(Discrete(3), np.float32([[1, 2, 2], [0, 0, 0], [-3, -2, -1]])).tolist() == [1, 0, 2]
    low, high = (-2.0, 0.0), (2.0, 10.0)
    squashed = decide(Continuous(low, high, "tanh"), np.float32([[0, 0], [50, -50], [np.arctanh(0.5)] * 2]))
    np.testing.assert_allclose(squashed, [[0, 5], [2, 0], [1, 7.5]], atol=1e-6)
    cut = decide(Continuous(low, high, "clip"), np.float32([[-3, 4], [1, 11]]))
    np.testing.assert_array_equal(cut, [[-2, 4], [1, 10]])
    assert squashed.dtype == cut.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    """One such number anywhere, inner layers too, is refused naming layer and array."""
    require_finite(picture_policy(channels_last=False))
    for index, layer in enumerate(picture_policy(channels_last=False).layers):
        for place, (name, _) in enumerate(arrays(layer)):
            graph = picture_policy(channels_last=False)
            arrays(graph.layers[index])[place][1].flat[0] = value
            with pytest.raises(ValueError, match=rf"Layer {index} \({type(layer).__name__}\) has {name} "):
                require_finite(graph)


def test_limits_may_be_infinite_only_where_nothing_is_limited() -> None:
    """A Clip may hold infinities but not nan; the limits of actions must be finite."""
    limit = np.float32([np.inf])
    dense = Dense(normal(1, 1), normal(1))
    require_finite(Graph((1,), "float32", (Clip(-limit, limit), dense), Discrete(1)))
    with pytest.raises(ValueError, match="Clip"):
        require_finite(Graph((1,), "float32", (Clip(limit * np.nan, limit), dense), Discrete(1)))
    with pytest.raises(ValueError, match="limits"):
        require_finite(Graph((1,), "float32", (dense,), Continuous((-np.inf,), (1.0,), "clip")))


def test_arrays_of_inner_layers_are_named_by_place() -> None:
    """Every array is found once, and inner ones say where they stand."""
    names = [name for name, _ in arrays(picture_policy(channels_last=False).layers[-1])]
    assert names == ["factors", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
