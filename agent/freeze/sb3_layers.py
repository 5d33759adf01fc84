"""The acting half of a stable-baselines3 policy as plain layers, built from the shapes of its tensors alone."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

Kind = Literal["actor critic", "action values", "quantiles", "squashed actor", "deterministic actor"]
Extractor = Literal["flatten", "nature", "small grid", "combined"]

# What acting has no use for: critics, targets, the noise. Every other tensor must have found its layer.
IDLE: dict[Kind, str] = {
    "actor critic": r"((features|vf_features|sde_features)_extractor|value_net|mlp_extractor\.value_net)\..*|log_std",
    "action values": r"q_net_target\..*",
    "quantiles": r"quantile_net_target\..*",
    "squashed actor": r"(critic|critic_target)\..*|actor\.(log_std(\..*)?|sde_features_extractor\..*)",
    "deterministic actor": r"(actor_target|critic|critic_target)\..*",
}
# Place, kernel and stride of each convolution.
NATURE = (("cnn.0", 8, 4), ("cnn.2", 4, 2), ("cnn.4", 3, 1))  # Mnih et al. 2015
SMALL_GRID = (("torso.convolution", 3, 1),)  # agent/sb3/extractors.py


@dataclass(frozen=True)
class Acting:
    """Layers from observations [N, *shape] to outputs [N, A] before the head."""

    live: list[nn.Module]  # as stable-baselines3 computes
    plain: list[nn.Module]  # the same in layers that can be frozen
    parts: dict[str, list[nn.Module]]  # what each of several observations goes through before they are put together
    widths: list[int]  # of the hidden dense layers behind the extractor
    features: list[int]  # that leave each extractor with convolutions
    rows: int  # of the last dense layer


def acting_layers(
    kind: Kind,
    tensors: Mapping[str, np.ndarray],
    shape: tuple[int, ...] | Mapping[str, tuple[int, ...]],
    num_outputs: int,
    activation: type[nn.Module],
    *,
    extractor: Extractor,
    clip_mean: float,
    pictures: Collection[str] = (),
) -> Acting:
    """Return the layers of a policy for observations [*shape], channels first, behind an `extractor`.

    `shape` is that of each of several observations when they are "combined", in their order; those among `pictures` go
    through convolutions. `clip_mean` limits the mean of state-dependent noise. Raises ValueError naming the tensor that
    does not fit.
    """
    parts = _Parts(tensors)
    root = {"action values": "q_net.", "quantiles": "quantile_net."}.get(kind, "actor.")
    if kind == "actor critic":
        apart = any(name.startswith("pi_features_extractor.") for name in tensors)
        root = "pi_" if apart else ""
    name, apiece, convolved = f"{root}features_extractor", {}, []
    if isinstance(shape, Mapping):
        layers, features = [], 0
        for key, each in shape.items():
            kind_of_part: Extractor = "nature" if key in pictures else "flatten"
            apiece[key], width = parts.extractor(f"{name}.extractors.{key}", each, kind_of_part)
            features += width
            convolved += [width] if key in pictures else []
    else:
        layers, features = parts.extractor(name, shape, extractor)
        convolved = [features] if extractor != "flatten" else []
    plain = None
    match kind:
        case "actor critic":
            # Before 1.8 the first layers could be shared with the value.
            hidden = parts.hidden("mlp_extractor.shared_net", features, activation)
            hidden += parts.hidden("mlp_extractor.policy_net", _width(hidden, features), activation)
            last = [parts.linear("action_net", _width(hidden, features))]
        case "action values" | "quantiles":
            net = "q_net.q_net" if kind == "action values" else "quantile_net.quantile_net"
            *hidden, output = parts.hidden(net, features, activation, behind_last=False)
            last = [output]
            if kind == "quantiles":
                last, plain = _averaged(output, num_outputs)
        case "squashed actor":
            hidden = parts.hidden("actor.latent_pi", features, activation)
            if "actor.mu.0.weight" in tensors:
                output = parts.linear("actor.mu.0", _width(hidden, features))
                last, plain = [output, nn.Hardtanh(-clip_mean, clip_mean)], _clipped(output, clip_mean)
            else:
                last = [parts.linear("actor.mu", _width(hidden, features))]
        case "deterministic actor":  # its last tanh belongs to the head
            *hidden, output = parts.hidden("actor.mu", features, activation, behind_last=False)
            last = [output]
    parts.check_rest(IDLE[kind])
    given = (plain or last)[-1].out_features
    if given != num_outputs:
        raise ValueError(f"its last layer gives {given} numbers, but its actions need {num_outputs}.")
    widths = [layer.out_features for layer in hidden if isinstance(layer, nn.Linear)]
    body = [*layers, *hidden]
    live, frozen = [*body, *last], [*body, *(plain or last)]
    return Acting(live, frozen, apiece, widths, convolved, last[0].out_features)


def channels(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Return the channels that the acting convolutions take; None where there are none."""
    for root in ("pi_", "", "q_net.", "quantile_net.", "actor."):
        if (first := tensors.get(f"{root}features_extractor.cnn.0.weight")) is not None and first.ndim == 4:
            return first.shape[1]
    return None


class Quantiles(nn.Module):
    """The mean over quantiles, [N, K * A] -> [N, A]."""

    def __init__(self, num_actions: int):
        super().__init__()
        self.num_actions = num_actions

    def forward(self, quantiles: torch.Tensor) -> torch.Tensor:
        """[N, K * A] -> [N, A]"""
        return quantiles.view(len(quantiles), -1, self.num_actions).mean(dim=1)


def _averaged(output: nn.Linear, num_actions: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the live end of a quantile network, and the one layer that it is: the mean is over weights as well."""
    rows, inputs = output.weight.shape
    if rows % num_actions:
        raise ValueError(f"its last layer gives {rows} numbers, not as many for each of {num_actions} actions.")
    weight = output.weight.double().view(-1, num_actions, inputs).mean(0)  # [A, in]
    bias = output.bias.double().view(-1, num_actions).mean(0)  # [A]
    return [output, Quantiles(num_actions)], [_linear(weight.float(), bias.float())]


def _clipped(output: nn.Linear, limit: float) -> list[nn.Module]:
    """Return layers for clip(W x + b, -c, c): relu(2c - relu(c - y)) - c, which is exact where it clips."""
    eye = torch.eye(output.out_features)
    to_top = _linear(-output.weight.data, limit - output.bias.data)  # c - y
    return [
        to_top,
        nn.ReLU(),
        _linear(-eye, torch.full((len(eye),), 2 * limit)),
        nn.ReLU(),
        _linear(eye, torch.full((len(eye),), -limit)),
    ]


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # no memory, and no random numbers drawn
    layer.weight, layer.bias = (nn.Parameter(tensor.contiguous(), requires_grad=False) for tensor in (weight, bias))
    return layer


def _width(layers: list[nn.Module], inputs: int) -> int:
    """Return how many numbers leave the layers, `inputs` when there are none."""
    return next((layer.out_features for layer in reversed(layers) if isinstance(layer, nn.Linear)), inputs)


class _Parts:
    """The tensors of a policy, as they are taken into layers."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = tensors
        self.taken: dict[str, tuple[int, int]] = {}  # and where each lies

    def tensor(self, name: str, ndim: int) -> torch.Tensor:
        """Return a tensor of so many axes, of its own memory."""
        if name not in self.tensors:
            raise ValueError(f"its policy has no tensor {name!r}.")
        array = self.tensors[name]
        if array.dtype != np.float32 or array.ndim != ndim:
            raise ValueError(f"its tensor {name!r} is {array.dtype} {array.shape}, not float32 with {ndim} axes.")
        start, end = np.lib.array_utils.byte_bounds(array)
        # Each is copied: tensors that share their numbers would take up far more than the file.
        if any(start < other_end and other_start < end for other_start, other_end in self.taken.values()):
            raise ValueError(f"its tensor {name!r} shares numbers with another that acts.")
        self.taken[name] = (start, end)
        return torch.from_numpy(array.copy())

    def linear(self, name: str, inputs: int) -> nn.Linear:
        """Return the dense layer of this name."""
        weight, bias = self.tensor(f"{name}.weight", 2), self.tensor(f"{name}.bias", 1)
        if weight.shape[1] != inputs or len(bias) != len(weight):
            raise ValueError(
                f"its layer {name!r} has weights {tuple(weight.shape)} and {len(bias)} biases, but {inputs} numbers "
                "arrive."
            )
        return _linear(weight, bias)

    def hidden(
        self, name: str, inputs: int, activation: type[nn.Module], *, behind_last: bool = True
    ) -> list[nn.Module]:
        """Return Linear, activation, Linear, activation ...; ending with a Linear when nothing is `behind_last`."""
        places = re.compile(rf"{re.escape(name)}\.(\d+)\.weight")
        found = sorted(int(match[1]) for match in map(places.fullmatch, self.tensors) if match)
        if found != list(range(0, 2 * len(found), 2)) or not (found or behind_last):
            raise ValueError(f"its layers {name!r} are not dense ones with activations between them.")
        layers: list[nn.Module] = []
        for place in found:
            layers += [self.linear(f"{name}.{place}", _width(layers, inputs)), activation()]
        return layers if behind_last else layers[:-1]

    def extractor(self, name: str, shape: tuple[int, ...], kind: Extractor) -> tuple[list[nn.Module], int]:
        """Return FlattenExtractor, NatureCNN or our SmallGrid, and how many features leave it."""
        if kind == "flatten":
            if any(each.startswith(f"{name}.") for each in self.tensors):
                raise ValueError("its features extractor has weights, but is said to be FlattenExtractor.")
            return [nn.Flatten()], math.prod(shape)
        extractor = "NatureCNN" if kind == "nature" else "SmallGrid"
        if len(shape) != 3:
            raise ValueError(f"its features extractor is {extractor}, but its observations are {shape}.")
        convolutions, dense_name = NATURE, f"{name}.linear.0"
        if kind == "small grid":
            convolutions, dense_name = SMALL_GRID, f"{name}.torso.layers.0"
        layers: list[nn.Module] = []
        maps, *sides = shape
        for place, kernel, stride in convolutions:
            weight, bias = self.tensor(f"{name}.{place}.weight", 4), self.tensor(f"{name}.{place}.bias", 1)
            sides = [(side - kernel) // stride + 1 for side in sides]
            if tuple(weight.shape) != (len(bias), maps, kernel, kernel) or min(sides) < 1:
                raise ValueError(f"its layer '{name}.{place}' does not fit {extractor} on observations {shape}.")
            maps = len(bias)
            layer = nn.Conv2d(weight.shape[1], maps, kernel, stride, device="meta")
            layer.weight, layer.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))
            layers += [layer, nn.ReLU()]
        dense = self.linear(dense_name, maps * math.prod(sides))
        return [*layers, nn.Flatten(), dense, nn.ReLU()], dense.out_features

    def check_rest(self, idle: str) -> None:
        """Raise ValueError when a tensor has found no layer and is none that acting has no use for."""
        for name in self.tensors:
            if name not in self.taken and not re.fullmatch(idle, name):
                raise ValueError(f"its tensor {name!r} is of a layer that no policy of its class has.")
