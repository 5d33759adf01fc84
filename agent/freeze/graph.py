"""A frozen policy as plain arrays: the layers between a raw observation and its action, and what they compute.

Everything that freezing does is a function from one `Graph` to another; `run` in numpy is the reference that every
runtime is held to. Nothing here can train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

BATCH = 256  # observations at a time, so that the maps of large pictures fit any memory
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x * 0.5 * (1 + np.tanh(0.5 * x)),
}


@dataclass(frozen=True, eq=False)
class Clip:
    """Limits every entry of the observation, [*shape]; only ever the first layer."""

    low: np.ndarray  # f32 [*shape], channels first as in every layer, -inf where there is no limit
    high: np.ndarray  # f32 [*shape]


@dataclass(frozen=True, eq=False)
class Flatten:
    """[C, H, W] -> [C * H * W]."""


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(W x + b), [in] -> [out]."""

    weight: np.ndarray  # f32 [out, in]
    bias: np.ndarray  # f32 [out]
    activation: str = "none"


@dataclass(frozen=True, eq=False)
class Conv:
    """activation(W * x + b), [in, H, W] -> [out, H', W'], zeros around, the same stride and padding on both axes."""

    weight: np.ndarray  # f32 [out, in, height, width]
    bias: np.ndarray  # f32 [out]
    stride: int = 1
    padding: int = 0
    activation: str = "none"


@dataclass(frozen=True, eq=False)
class Norm:
    """activation(scale * (x - mean) / sqrt(sum((x - mean)^2) / count + epsilon) + shift), over all entries of x.

    Layer norm (Ba et al. 2016), and group norm with one group. `center` says whether the mean is subtracted: behind a
    dense layer it need not be, folding has moved the subtraction into that layer's weights. `count` is the number of
    entries of x as it was trained; a pruned x has fewer.
    """

    scale: np.ndarray  # f32 [F], or [C] before [C, H, W]
    shift: np.ndarray  # f32, as scale
    count: int
    epsilon: float = 1e-5
    center: bool = False
    activation: str = "none"


@dataclass(frozen=True, eq=False)
class MaxPool:
    """[C, H, W] -> [C, H', W']; what lies outside counts as minus infinity."""

    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, eq=False)
class Activate:
    """activation(x), where it cannot be fused into the layer before."""

    activation: str


@dataclass(frozen=True, eq=False)
class Residual:
    """activation(x + layers(x))."""

    layers: tuple[Layer, ...]
    activation: str = "none"


@dataclass(frozen=True, eq=False)
class Fractions:
    """The mean over k of layers(x * factors[k]): an implicit quantile network at fixed fractions; only ever last."""

    factors: np.ndarray  # f32 [K, F]
    layers: tuple[Layer, ...]


Layer = Clip | Flatten | Dense | Conv | Norm | MaxPool | Activate | Residual | Fractions


@dataclass(frozen=True)
class Discrete:
    """The action is the index of the largest output, the first of several."""

    num_actions: int


@dataclass(frozen=True)
class Continuous:
    """squash "tanh": low + (tanh(y) + 1) / 2 * (high - low). "clip": y, limited to low .. high."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: Literal["tanh", "clip"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A policy: raw observations [*shape] of `dtype`, not scaled and not normalised, through `layers` to `head`."""

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    layers: tuple[Layer, ...]
    head: Discrete | Continuous
    channels_last: bool = field(default=False)  # pictures come as [H, W, C] and are turned to [C, H, W] first

    @property
    def num_outputs(self) -> int:
        """Numbers that leave the last layer."""
        return self.head.num_actions if isinstance(self.head, Discrete) else len(self.head.low)


def in_blocks(function: Callable[[np.ndarray], np.ndarray], observation: np.ndarray) -> np.ndarray:
    """Return what a function gives for observations, BATCH of them at a time, [N, *shape] -> [N, ...]."""
    starts = range(0, max(1, len(observation)), BATCH)
    return np.concatenate([function(observation[start : start + BATCH]) for start in starts])


def run(graph: Graph, observation: np.ndarray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Return what leaves the last layer, [N, *shape] -> [N, outputs], computed in `dtype`."""
    return run_layers(graph.layers, as_input(graph, observation).astype(dtype))


def as_input(graph: Graph, observation: np.ndarray) -> np.ndarray:
    """Return the observations as the first layer takes them, [N, *shape] -> [N, ...]; ValueError for a wrong shape."""
    if observation.shape[1:] != graph.shape:
        raise ValueError(f"This policy takes observations of shape {graph.shape}, not {observation.shape[1:]}.")
    return np.moveaxis(observation, -1, 1) if graph.channels_last else observation


def run_layers(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """Return what the layers make of a batch, [N, ...] -> [N, ...]."""
    for layer in layers:
        x = apply(layer, x)
    return x


def apply(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return what one layer makes of a batch, [N, ...] -> [N, ...], in the batch's own dtype."""
    match layer:
        case Clip():
            return np.clip(x, layer.low.astype(x.dtype), layer.high.astype(x.dtype))
        case Flatten():
            return x.reshape(len(x), -1)
        case Dense():
            y = x @ layer.weight.T.astype(x.dtype) + layer.bias.astype(x.dtype)
        case Conv():
            y = _convolve(layer, x)
        case Norm():
            y = _normalise(layer, x)
        case MaxPool():
            return windows(x, layer.kernel, layer.stride, layer.padding, -np.inf).max(axis=(-2, -1))
        case Activate():
            y = x
        case Residual():
            y = x + run_layers(layer.layers, x)
        case Fractions():
            factors = layer.factors.astype(x.dtype)  # [K, F]
            ys = [run_layers(layer.layers, x * factor) for factor in factors]
            return np.mean(ys, axis=0, dtype=x.dtype)
    return ACTIVATIONS[layer.activation](y).astype(x.dtype)


def windows(x: np.ndarray, kernel: int | tuple[int, int], stride: int, padding: int, outside: float) -> np.ndarray:
    """Return the windows that a kernel sees, [N, C, H, W] -> [N, C, H', W', height, width]."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    if padding:
        edge = (padding, padding)
        x = np.pad(x, ((0, 0), (0, 0), edge, edge), constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))[:, :, ::stride, ::stride]


def _convolve(layer: Conv, x: np.ndarray) -> np.ndarray:
    out, _, height, width = layer.weight.shape
    seen = windows(x, (height, width), layer.stride, layer.padding, 0.0)  # [N, C, H', W', h, w]
    rows = seen.transpose(0, 2, 3, 1, 4, 5).reshape(*seen.shape[0:1], *seen.shape[2:4], -1)  # [N, H', W', C * h * w]
    y = rows @ layer.weight.reshape(out, -1).T.astype(x.dtype) + layer.bias.astype(x.dtype)
    return np.ascontiguousarray(np.moveaxis(y, -1, 1))


def _normalise(layer: Norm, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, x.ndim))
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    if layer.center:
        x = x - x.mean(axis=axes, keepdims=True)
    power = (x * x).sum(axis=axes, keepdims=True) / x.dtype.type(layer.count) + x.dtype.type(layer.epsilon)
    scale, shift = (array.reshape(per_channel).astype(x.dtype) for array in (layer.scale, layer.shift))
    return x / np.sqrt(power) * scale + shift


def decide(head: Discrete | Continuous, outputs: np.ndarray) -> np.ndarray:
    """Return the actions, [N, outputs] -> i64 [N], or f32 [N, n] when they are continuous."""
    if isinstance(head, Discrete):
        return outputs.argmax(axis=1)
    low, high = np.float32(head.low), np.float32(head.high)
    if head.squash == "tanh":
        return (low + np.float32(0.5) * (np.tanh(outputs) + np.float32(1)) * (high - low)).astype(np.float32)
    return np.clip(outputs, low, high).astype(np.float32)


def shapes(graph: Graph) -> list[tuple[int, ...]]:
    """Return the shape before the first layer and after each one, without the batch."""
    x = as_input(graph, np.zeros((1, *graph.shape), np.float32))
    found = [x.shape[1:]]
    for layer in graph.layers:
        x = apply(layer, x)
        found.append(x.shape[1:])
    return found


def multiply_accumulates(graph: Graph) -> int:
    """Return the multiplications by a weight that one decision takes."""
    return _macs(graph.layers, shapes(graph)[0])


def _macs(layers: Sequence[Layer], shape: tuple[int, ...]) -> int:
    total = 0
    x = np.zeros((1, *shape), np.float32)
    for layer in layers:
        after = apply(layer, x)
        match layer:
            case Dense():
                total += layer.weight.size
            case Conv():
                total += layer.weight.size * after.shape[2] * after.shape[3]
            case Residual():
                total += _macs(layer.layers, x.shape[1:])
            case Fractions():
                total += len(layer.factors) * (x[0].size + _macs(layer.layers, x.shape[1:]))
        x = after
    return total


def require_finite(graph: Graph) -> None:
    """Raise ValueError naming the layer when a number is not finite: in generated code it would be a name.

    Only a Clip may be infinite: where it limits nothing.
    """
    for index, layer in enumerate(graph.layers):
        for name, value in arrays(layer):
            wrong = np.isnan(value) if isinstance(layer, Clip) else ~np.isfinite(value)
            if wrong.any():
                raise ValueError(
                    f"Layer {index} ({type(layer).__name__}) has {name} that are not finite: this policy has diverged "
                    "and cannot be frozen."
                )
    if isinstance(graph.head, Continuous) and not np.isfinite([graph.head.low, graph.head.high]).all():
        raise ValueError("This game's actions have no limits, and those of a frozen policy need some.")


def arrays(layer: Layer) -> list[tuple[str, np.ndarray]]:
    """Return every array of a layer and of the layers inside it, with its name."""
    found = []
    for name, value in vars(layer).items():
        if isinstance(value, np.ndarray):
            found.append((name, value))
        elif isinstance(value, tuple):
            for index, each in enumerate(value):
                found += [(f"{name}.{index}.{inner}", array) for inner, array in arrays(each)]
    return found
