"""What turns features into action values. A head owns the last hidden layer, so that streams can split before it."""

from __future__ import annotations

import torch
from torch import nn


def _stream(features: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs))


class LinearHead(nn.Module):
    """One hidden layer, then one value per action."""

    def __init__(self, features: int, width: int, num_actions: int):
        super().__init__()
        self.action_values = _stream(features, width, num_actions)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, F] -> [N, A]."""
        return self.action_values(features)


class DuelingHead(nn.Module):
    """A state value plus advantages whose mean over actions is taken out (Wang et al. 2016, equation 9)."""

    def __init__(self, features: int, width: int, num_actions: int):
        super().__init__()
        self.state_value = _stream(features, width, 1)
        self.advantages = _stream(features, width, num_actions)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, F] -> [N, A]."""
        advantages = self.advantages(features)  # [N, A]
        return self.state_value(features) + advantages - advantages.mean(dim=-1, keepdim=True)
