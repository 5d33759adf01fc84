"""Torch layers one after the other become a graph's layers, with everything folded that can be folded exactly.

All is computed in float64; whoever finishes rounds once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from agent.freeze.graph import Activate, Conv, Dense, Flatten, Layer, MaxPool, Norm, Residual, apply
from agent.nets import impala
from agent.nets.noisy import NoisyLinear
from agent.nets.spectral import SpectralConv2d

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.LeakyReLU: "leaky_relu",
    nn.SiLU: "silu",
}
MONOTONE = {"relu", "tanh", "sigmoid", "elu", "leaky_relu"}  # the largest of activations is that of the largest
KNOWN = (
    "Linear, Conv2d, BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm(1), MaxPool2d, AdaptiveMaxPool2d, Flatten, "
    "Identity, ReLU, Tanh, Sigmoid, ELU, LeakyReLU, SiLU and Sequential of these"
)


def array(tensor: torch.Tensor | None, default: float = 0.0, size: int = 0) -> np.ndarray:
    """Return the numbers as f64 of their own; `size` times `default` where there is no tensor."""
    return np.full(size, default) if tensor is None else np.array(tensor.detach().cpu().double().numpy())


class Folding:
    """Layers over [*shape] as they are collected, and what the input is multiplied by and raised by before the next.

    `shape` follows: it is that of what leaves the last layer. Every method raises ValueError, naming the layer, for
    what cannot be expressed.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.layers: list[Layer] = []
        self.shape = shape
        self.factor = np.ones(shape)  # waiting for the next layer with weights
        self.offset = np.zeros(shape)

    def affine(self, factor: np.ndarray | float, offset: np.ndarray | float = 0.0) -> None:
        """x * factor + offset, [*shape]: into the next layer with weights."""
        self.factor = self.factor * factor
        self.offset = self.offset * factor + offset

    def add(self, modules: Iterable[nn.Module]) -> None:
        """Torch layers, one after the other."""
        for module in modules:
            self._add(module)

    def _add(self, module: nn.Module) -> None:
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(f"{_named(module)} has hooks, whose work cannot be frozen: remove them first.")
        kind = type(module)
        if kind in ACTIVATIONS:
            self.activate(_activation(module))
        elif kind is nn.Sequential:
            self.add(module)
        elif kind in (nn.Linear, NoisyLinear):  # without noise: the mean weights
            self.dense(array(module.weight), array(module.bias, size=module.out_features))
        elif kind in (nn.Conv2d, SpectralConv2d):
            self._convolution(module)
        elif kind in (nn.LayerNorm, nn.GroupNorm):
            self._norm(module)
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._batch_norm(module)
        elif kind is nn.MaxPool2d:
            self._max_pool(module)
        elif kind is nn.AdaptiveMaxPool2d:
            self._adaptive_pool(module)
        elif kind is nn.Flatten:
            if (module.start_dim, module.end_dim) != (1, -1):
                raise ValueError(f"{_named(module)} keeps some axes; only a Flatten() of all of them can be frozen.")
            self.flatten()
        elif kind is impala.Residual:
            inner = Folding(self.shape)
            inner.add([nn.ReLU(), module.first, nn.ReLU(), module.second])
            self.append(Residual(tuple(inner.finished())))
        elif kind is not nn.Identity:
            raise ValueError(f"{_named(module)} cannot be frozen: the layers that can are {KNOWN}.")

    def append(self, layer: Layer) -> None:
        """A layer as it is; nothing may wait to be folded."""
        if not self._nothing_waits():
            raise ValueError(
                f"What scales or shifts the input of {type(layer).__name__} cannot be folded into it: a dense or "
                "convolution layer must come first."
            )
        self._append(layer)

    def _append(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.shape = apply(layer, np.zeros((1, *self.shape))).shape[1:]
        self.factor, self.offset = np.ones(self.shape), np.zeros(self.shape)

    def _nothing_waits(self) -> bool:
        return bool((self.factor == 1).all() and (self.offset == 0).all())

    def finished(self) -> list[Layer]:
        """Return the layers; ValueError when something waits for a layer that did not come."""
        if not self._nothing_waits():
            raise ValueError("Behind the last batch norm or scaling stands no layer that it could be folded into.")
        return self.layers

    def flatten(self) -> None:
        """[C, H, W] -> [C * H * W]; nothing for what is flat."""
        if len(self.shape) > 1:
            factor, offset = self.factor, self.offset
            self._append(Flatten())
            self.factor, self.offset = factor.reshape(-1), offset.reshape(-1)

    def dense(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """W x + b, [in] -> [out]."""
        if self.shape != weight.shape[1:]:
            raise ValueError(f"Linear takes {weight.shape[1]} features, not {self.shape}: is a Flatten missing?")
        self._append(Dense(weight * self.factor, bias + weight @ self.offset))

    def convolution(self, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> None:
        """[in, H, W] -> [out, H', W']."""
        if len(self.shape) != 3 or self.shape[0] != weight.shape[1]:
            raise ValueError(f"Conv2d takes [{weight.shape[1]}, height, width], not {self.shape}.")
        if min(side + 2 * padding - size for side, size in zip(self.shape[1:], weight.shape[2:], strict=True)) < 0:
            raise ValueError(f"Conv2d of {weight.shape[2:]} is larger than the maps that it gets, {self.shape}.")
        factor, offset = (one.reshape(len(one), -1) for one in (self.factor, self.offset))  # [in, H * W]
        if (factor != factor[:, :1]).any() or (offset != offset[:, :1]).any():
            raise ValueError(
                "Statistics that differ from place to place cannot be folded into a convolution: normalise channels as "
                "a whole."
            )
        if padding and (offset != 0).any():
            raise ValueError(
                "A shift of the observation cannot be folded into a convolution with padding, whose edge is zero: use "
                "padding 0, or scale without shifting."
            )
        folded = weight * factor[:, :1, None]
        raised = bias + (weight * offset[:, :1, None]).sum(axis=(1, 2, 3))
        self._append(Conv(folded, raised, stride, padding))

    def norm(self, scale: np.ndarray, shift: np.ndarray, epsilon: float) -> None:
        """Layer norm over all entries; behind a dense layer the mean is taken out of that layer's weights."""
        center = True
        if self.layers and isinstance(last := self.layers[-1], Dense) and last.activation == "none":
            self.layers[-1] = replace(last, weight=last.weight - last.weight.mean(0), bias=last.bias - last.bias.mean())
            center = False
        self.append(Norm(scale, shift, math.prod(self.shape), epsilon, center))

    def activate(self, activation: str) -> None:
        """activation(x), fused into the layer with weights before it, through a Flatten or pooling between them."""
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            if isinstance(layer, (Dense, Conv, Norm, Residual)):
                if layer.activation == "none" and self._nothing_waits():
                    self.layers[index] = replace(layer, activation=activation)
                    return
                break
            if not (isinstance(layer, Flatten) or (isinstance(layer, MaxPool) and activation in MONOTONE)):
                break
        self.append(Activate(activation))

    def _convolution(self, module: nn.Conv2d) -> None:
        stride, dilation = module.stride, module.dilation
        padding = (0, 0) if module.padding == "valid" else module.padding
        if padding == "same" and stride == (1, 1) and module.kernel_size[0] == module.kernel_size[1]:
            padding = tuple(size // 2 if size % 2 else -1 for size in module.kernel_size)
        if isinstance(padding, str) or stride[0] != stride[1] or padding[0] != padding[1] or padding[0] < 0:
            raise ValueError(f"{_named(module)} has a stride or padding that differs between axes or sides.")
        if module.groups != 1 or dilation != (1, 1) or module.padding_mode != "zeros":
            raise ValueError(f"{_named(module)} has groups, dilation or a padding other than zeros.")
        weight = array(module.weight)
        if isinstance(module, SpectralConv2d):
            # Not `folded`: it is stale when someone has written the weight since.
            weight = weight / (array(module.u) @ weight.reshape(len(weight), -1) @ array(module.v))
        self.convolution(weight, array(module.bias, size=module.out_channels), stride[0], padding[0])

    def _norm(self, module: nn.LayerNorm | nn.GroupNorm) -> None:
        if isinstance(module, nn.GroupNorm):
            fits = module.num_groups == 1 and module.num_channels == self.shape[0]
            size = self.shape[0]
        else:
            fits = module.normalized_shape == self.shape and (len(self.shape) == 1 or module.weight is None)
            size = self.shape[0]
        if not fits:
            raise ValueError(
                f"{_named(module)} on {self.shape} cannot be frozen: only one norm over all entries, with one scale "
                "per feature or channel, can. That is LayerNorm behind Linear, GroupNorm(1) behind Conv2d."
            )
        self.norm(array(module.weight, 1.0, size), array(module.bias, 0.0, size), module.eps)

    def _batch_norm(self, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        if module.training or module.running_mean is None or module.running_var is None:
            raise ValueError(f"{_named(module)} depends on the batch: call eval() first, and keep running statistics.")
        if len(self.shape) != (1 if isinstance(module, nn.BatchNorm1d) else 3) or module.num_features != self.shape[0]:
            raise ValueError(f"{_named(module)} does not fit {self.shape}.")
        factor = array(module.weight, 1.0, self.shape[0]) / np.sqrt(array(module.running_var) + module.eps)
        offset = array(module.bias, 0.0, self.shape[0]) - array(module.running_mean) * factor
        last = self.layers[-1] if self.layers else None
        if isinstance(last, (Dense, Conv)) and last.activation == "none" and self._nothing_waits():
            per_output = factor.reshape(-1, *(1,) * (last.weight.ndim - 1))
            self.layers[-1] = replace(last, weight=last.weight * per_output, bias=last.bias * factor + offset)
        else:
            per_channel = (-1,) + (1,) * (len(self.shape) - 1)
            self.affine(factor.reshape(per_channel), offset.reshape(per_channel))

    def _max_pool(self, module: nn.MaxPool2d) -> None:
        kernel, stride, padding = (_one(size) for size in (module.kernel_size, module.stride, module.padding))
        if None in (kernel, stride, padding) or _one(module.dilation) != 1 or module.ceil_mode or module.return_indices:
            raise ValueError(
                f"{_named(module)}: only square kernels, strides and paddings without dilation, ceil_mode and indices "
                "can be frozen."
            )
        self._pool(MaxPool(kernel, stride, padding))

    def _adaptive_pool(self, module: nn.AdaptiveMaxPool2d) -> None:
        wanted = module.output_size
        wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
        if len(self.shape) != 3:
            raise ValueError(f"{_named(module)} pools [channels, height, width], not {self.shape}.")
        sides = [(side, side if out is None else out) for side, out in zip(self.shape[1:], wanted, strict=True)]
        if all(side == out for side, out in sides):
            return
        pool = _as_max_pool(sides)
        if pool is None or module.return_indices:
            raise ValueError(
                f"{_named(module)} on maps of {self.shape[1]}x{self.shape[2]} has windows of unequal size or distance, "
                "which no MaxPool has: train with --network.max-pool None, or a side that divides that of the maps."
            )
        self._pool(pool)

    def _pool(self, layer: MaxPool) -> None:
        if len(self.shape) != 3 or min(self.shape[1:]) + 2 * layer.padding < layer.kernel:
            raise ValueError(f"A MaxPool2d of {layer.kernel} does not fit {self.shape}.")
        self.append(layer)


def _named(module: nn.Module) -> str:
    return f"The layer {type(module).__name__}({module.extra_repr()})"


def _activation(module: nn.Module) -> str:
    if getattr(module, "alpha", 1.0) != 1.0 or getattr(module, "negative_slope", 0.01) != 0.01:
        raise ValueError(f"{_named(module)} cannot be frozen: only ELU(1.0) and LeakyReLU(0.01) can.")
    return ACTIVATIONS[type(module)]


def _one(size: int | tuple[int, ...]) -> int | None:
    """Return the one number that holds for both axes, None when they differ."""
    sizes = {size} if isinstance(size, int) else set(size)
    return sizes.pop() if len(sizes) == 1 else None


def _as_max_pool(sides: list[tuple[int, int]]) -> MaxPool | None:
    """Return the MaxPool with the windows of an adaptive one from sides to sides, the smallest; None without one."""
    windows = [_adaptive_windows(side, out) for side, out in sides]
    largest = max(stop - start for of_axis in windows for start, stop in of_axis)
    for stride in range(1, max(side for side, _ in sides) + 1):
        for padding in range(largest // 2 + 1):
            found = [_windows(side, largest, stride, padding) for side, _ in sides]
            if found == windows:
                return MaxPool(largest, stride, padding)
    return None


def _adaptive_windows(side: int, out: int) -> list[tuple[int, int]]:
    return [(i * side // out, -(-(i + 1) * side // out)) for i in range(out)]


def _windows(side: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    starts = range(-padding, side + padding - kernel + 1, stride)
    return [(max(0, start), min(side, start + kernel)) for start in starts]
