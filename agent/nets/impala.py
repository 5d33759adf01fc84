"""The residual torso for pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agent.nets.spectral import SpectralConv2d
from agent.nets.torsos import as_float, has_channels_last, mlp_layers

CHANNELS = (16, 32, 32)  # of the three blocks, at width 1
SHRINK = 2 ** len(CHANNELS)  # every block halves the maps, rounding up
LEAST_SIDE = SHRINK  # of a picture: below it the last block pools what is one pixel already


class Residual(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), 3x3 (He et al. 2016b: activation first)."""

    def __init__(self, channels: int, spectral_norm: bool):
        super().__init__()
        convolution = SpectralConv2d if spectral_norm else nn.Conv2d
        self.first = convolution(channels, channels, kernel_size=3, padding=1)
        self.second = convolution(channels, channels, kernel_size=3, padding=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return maps + self.second(torch.relu(self.first(torch.relu(maps))))


def _block(channels: int, wider: int, spectral_norm: bool, layer_norm: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wider, kernel_size=3, padding=1),
        *([nn.GroupNorm(1, wider)] if layer_norm else []),  # one group: layer norm over channels and places
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        Residual(wider, spectral_norm),
        Residual(wider, spectral_norm),
    )


class Impala(nn.Module):
    """Three residual blocks of 16, 32 and 32 channels times `width` (Espeholt et al. 2018, figure 3, right).

    `max_pool` is the side to which the last maps are pooled (Clark et al. 2024); None leaves them as they come.
    `spectral_norm` concerns the convolutions inside the residuals alone: on linear layers it hurts. Channels (or a
    stack) stand first or last.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        *,
        pixels: bool = False,
        layer_norm: bool = False,
        width: int = 1,
        max_pool: int | None = 6,
        spectral_norm: bool = False,
    ):
        super().__init__()
        self.pixels = pixels
        self.channels_last = has_channels_last(shape)
        sides = shape[:-1] if self.channels_last else shape[1:]
        if len(shape) != 3 or min(sides) < LEAST_SIDE:
            raise ValueError(
                f"The impala torso needs pictures [channels, height >= {LEAST_SIDE}, width >= {LEAST_SIDE}], or larger "
                "ones with channels last, "
                f"this game's observations are {tuple(shape)}: --network.torso mlp takes every shape."
            )
        maps = [-(-side // SHRINK) for side in sides]  # height and width of the last maps
        if max_pool is not None and max_pool > min(maps):
            raise ValueError(
                f"network.max_pool ({max_pool}) is larger than the impala torso's last maps, {maps[0]}x{maps[1]} for "
                f"observations {tuple(shape)}: --network.max-pool {min(maps)} or less, or None."
            )
        channels = [shape[-1 if self.channels_last else 0], *(width * count for count in CHANNELS)]
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.blocks = nn.Sequential(*(_block(before, after, spectral_norm, layer_norm) for before, after in pairs))
        self.pool = nn.Identity() if max_pool is None else nn.AdaptiveMaxPool2d(max_pool)
        flat = channels[-1] * (maps[0] * maps[1] if max_pool is None else max_pool**2)
        layers, self.features = mlp_layers(flat, widths, layer_norm)
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] or [N, H, W, C] -> [N, features]."""
        if self.channels_last:
            observation = observation.movedim(-1, 1)
        maps = torch.relu(self.blocks(as_float(observation, self.pixels)))
        return self.layers(self.pool(maps).flatten(1))
