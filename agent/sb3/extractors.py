"""Features extractors for observations that SB3's own cannot take."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from agent.nets.torsos import MinAtar


class SmallGrid(BaseFeaturesExtractor):
    """MinAtar's network (Young and Tian 2019) for grids [C, H, W] that are too small for SB3's NatureCNN."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128):
        super().__init__(observation_space, features_dim)
        self.torso = MinAtar(observation_space.shape, (features_dim,))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, features_dim]."""
        return self.torso(observations)
