"""What turns observations into features. Every torso takes the game's own dtype.

`pixels` says that observations are camera pictures, 0 .. 255, which the torso scales to 0 .. 1 itself, once. The dtype
cannot say it: MinAtar's boards are bytes too, of zeros and ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

LEAST_SIDE = 36  # of a picture: below it nothing is left for the third convolution of the nature torso


def mlp_layers(features: int, widths: Sequence[int], layer_norm: bool = False) -> tuple[list[nn.Module], int]:
    """Return fully connected layers, each with ReLU (layer norm before it), and how many features leave them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), *([nn.LayerNorm(width)] if layer_norm else []), nn.ReLU()]
        features = width
    return layers, features


def has_channels_last(shape: Sequence[int]) -> bool:
    """Return whether pictures of this shape are [height, width, channels], as Gymnasium has them."""
    return len(shape) == 3 and shape[0] >= LEAST_SIDE and shape[-1] in (1, 3, 4)


def is_large(shape: Sequence[int]) -> bool:
    """Return whether this is the shape of pictures, channels first or last, that the nature torso can take."""
    sides = shape[:2] if has_channels_last(shape) else shape[1:]
    return len(shape) == 3 and min(sides) >= LEAST_SIDE


def as_float(observation: torch.Tensor, pixels: bool) -> torch.Tensor:
    """Return the observation as f32, pictures scaled to 0 .. 1."""
    return observation.float() / 255.0 if pixels else observation.float()


class Mlp(nn.Module):
    """Fully connected torso over flattened vectors; with `widths` empty it only flattens."""

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], *, pixels: bool = False, layer_norm: bool = False
    ):
        super().__init__()
        self.pixels = pixels
        layers, self.features = mlp_layers(math.prod(shape), widths, layer_norm)
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *shape] -> [N, features]."""
        return self.layers(as_float(observation, self.pixels).flatten(1))


class MinAtar(nn.Module):
    """One 3x3 convolution of 16 channels over a small grid of 0/1 planes (Young and Tian 2019)."""

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], *, pixels: bool = False, layer_norm: bool = False
    ):
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 3:
            raise ValueError(
                "The minatar torso needs grids [channels, height >= 3, width >= 3], "
                f"this game's observations are {tuple(shape)}: --network.torso mlp takes every shape."
            )
        channels, height, width = shape
        self.pixels = pixels
        self.convolution = nn.Conv2d(channels, 16, kernel_size=3)
        layers, self.features = mlp_layers(16 * (height - 2) * (width - 2), widths, layer_norm)
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, features]."""
        return self.layers(torch.relu(self.convolution(as_float(observation, self.pixels))).flatten(1))


class Nature(nn.Module):
    """The three convolutions of Mnih et al. 2015 over frames of at least 36x36, channels (or a stack) first or last."""

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], *, pixels: bool = False, layer_norm: bool = False
    ):
        super().__init__()
        if not is_large(shape):
            raise ValueError(
                f"The nature torso needs frames [channels, height >= {LEAST_SIDE}, width >= {LEAST_SIDE}], or channels "
                f"last, this game's observations are {tuple(shape)}: --network.torso mlp takes every shape."
            )
        self.pixels = pixels
        self.channels_last = has_channels_last(shape)
        self.convolutions = nn.Sequential(
            nn.Conv2d(shape[-1 if self.channels_last else 0], 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
        )
        with torch.no_grad():
            flat = self._convolve(torch.zeros(1, *shape)).numel()
        layers, self.features = mlp_layers(flat, widths, layer_norm)
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] or [N, H, W, C] -> [N, features]."""
        return self.layers(self._convolve(observation))

    def _convolve(self, observation: torch.Tensor) -> torch.Tensor:
        if self.channels_last:
            observation = observation.movedim(-1, 1)
        return self.convolutions(as_float(observation, self.pixels)).flatten(1)
