"""A graph becomes torch again where it must learn: a student to be distilled, and the graph that comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from agent.freeze import graph as frozen
from agent.freeze.convert import rounded
from agent.freeze.graph import Graph, Layer

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
}


class LayerModule(nn.Module):
    """One layer of a graph whose weights learn: parameters are named as in `like`, inner ones stand in `layers`."""

    def __init__(self, like: Layer):
        super().__init__()
        self.like = like
        for name, value in vars(like).items():
            if isinstance(value, np.ndarray):
                tensor = torch.tensor(value)
                if isinstance(like, frozen.Clip):
                    self.register_buffer(name, tensor)
                else:
                    self.register_parameter(name, nn.Parameter(tensor))
            elif isinstance(value, tuple):
                self.layers = nn.Sequential(*map(LayerModule, value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, ...] -> [N, ...], as `agent.freeze.graph.apply`."""
        like = self.like
        match like:
            case frozen.Clip():
                return torch.clamp(x, self.low, self.high)
            case frozen.Flatten():
                return x.flatten(1)
            case frozen.Dense():
                y = F.linear(x, self.weight, self.bias)
            case frozen.Conv():
                y = F.conv2d(x, self.weight, self.bias, like.stride, like.padding)
            case frozen.Norm():
                y = self._normalise(like, x)
            case frozen.MaxPool():
                return F.max_pool2d(x, like.kernel, like.stride, like.padding)
            case frozen.Activate():
                y = x
            case frozen.Residual():
                y = x + self.layers(x)
            case frozen.Fractions():
                return torch.stack([self.layers(x * factor) for factor in self.factors]).mean(0)
        return ACTIVATIONS[like.activation](y)

    def _normalise(self, like: frozen.Norm, x: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(1, x.ndim))
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        if like.center:
            x = x - x.mean(axes, keepdim=True)
        power = x.square().sum(axes, keepdim=True) / like.count + like.epsilon
        return x * power.rsqrt() * self.scale.reshape(per_channel) + self.shift.reshape(per_channel)

    def frozen(self) -> Layer:
        """Return the layer with the present weights."""
        changes: dict[str, object] = {}
        for name, value in vars(self.like).items():
            if isinstance(value, np.ndarray):
                changes[name] = np.array(getattr(self, name).detach().cpu().numpy())
            elif isinstance(value, tuple):
                changes[name] = tuple(module.frozen() for module in self.layers)
        return replace(self.like, **changes)


class Gain(nn.Module):
    """weight = parameter * gain; a parametrisation of torch's."""

    gain: torch.Tensor

    def __init__(self, gain: np.ndarray):
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))

    def forward(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the weight."""
        return parameter * self.gain

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the parameter."""
        return weight / self.gain


class Student(nn.Module):
    """A graph whose weights learn: raw observations [N, *shape] -> [N, outputs].

    Folding has put the scale of observations into the first weights: a step that suits all other weights would be far
    too large for those behind pixels. So these are a parameter of usual size times a constant gain.
    """

    def __init__(self, graph: Graph):
        super().__init__()
        self.like = graph
        self.layers = nn.Sequential(*map(LayerModule, graph.layers))
        for module in self.layers:
            if isinstance(module.like, (frozen.Dense, frozen.Conv)):
                gain = _gain(module.like.weight, per_input=graph.dtype == "float32")
                parametrize.register_parametrization(module, "weight", Gain(gain))
            if not isinstance(module.like, (frozen.Clip, frozen.Flatten, frozen.MaxPool)):
                break

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *shape] -> [N, outputs]."""
        x = observation.float()
        return self.layers(x.movedim(-1, 1) if self.like.channels_last else x)


def _gain(weight: np.ndarray, *, per_input: bool) -> np.ndarray:
    """Return powers of two, so that no bit is lost, by which weights are larger than torch would have begun with."""
    squares = np.square(weight, dtype=np.float64)
    others = tuple(axis for axis in range(weight.ndim) if not (per_input and axis == 1))
    power = squares.mean(axis=others, keepdims=True)
    power = np.where(power > 0, power, squares.mean())  # an input that nothing listens to yet
    usual = 1 / (3 * weight[0].size)  # of U(+-1 / sqrt(inputs))
    return np.exp2(np.round(0.5 * np.log2(np.where(power > 0, power, usual) / usual))).astype(np.float32)


def to_modules(graph: Graph) -> Student:
    """Return a torch module that computes what the graph does and can learn."""
    return Student(graph)


def from_trained(student: Student) -> Graph:
    """Return the graph with what the student has learned; ValueError when that is not finite."""
    return rounded(replace(student.like, layers=tuple(module.frozen() for module in student.layers)))
