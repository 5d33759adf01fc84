"""What turns features into action values. A head owns the last hidden layer, so that streams can split before it.

Every head gives `quantiles` values per action.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from agent.nets.noisy import Noise, NoisyLinear


class Stream(nn.Sequential):
    """A hidden layer with ReLU, then a linear one.

    `sigma` is the noise with which both begin to explore, None leaves them plain. The noise itself is an argument of
    `forward`; without it the mean weights count.
    """

    def __init__(
        self, features: int, width: int, outputs: int, *, layer_norm: bool = False, sigma: float | None = None
    ):
        linear = nn.Linear if sigma is None else partial(NoisyLinear, sigma=sigma)
        norm = [nn.LayerNorm(width)] if layer_norm else []
        super().__init__(linear(features, width), *norm, nn.ReLU(), linear(width, outputs))

    def forward(self, features: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """[..., F] and the noise of both layers -> [..., outputs]."""
        if noise is None:
            return super().forward(features)
        hidden, *between, output = self
        x = hidden(features, noise[:2])
        for layer in between:
            x = layer(x)
        return output(x, noise[2:])


class LinearHead(nn.Module):
    """One hidden layer, then the values of every action; `stream` makes a Stream with so many outputs."""

    def __init__(self, stream: Callable[[int], Stream], num_actions: int, quantiles: int = 1):
        super().__init__()
        self.action_values = stream(quantiles * num_actions)
        self.shape = (quantiles, num_actions)

    def forward(self, features: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """[..., F] -> [..., K, A]."""
        return self.action_values(features, noise).unflatten(-1, self.shape)


class DuelingHead(nn.Module):
    """State value plus advantages less their mean over actions (Wang et al. 2016, equation 9), for each quantile."""

    def __init__(self, stream: Callable[[int], Stream], num_actions: int, quantiles: int = 1):
        super().__init__()
        self.state_value = stream(quantiles)
        self.advantages = stream(quantiles * num_actions)
        self.shape = (quantiles, num_actions)

    def forward(self, features: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """[..., F] -> [..., K, A]."""
        of_value, of_advantages = (None, None) if noise is None else (noise[:4], noise[4:])  # two layers each
        state_value = self.state_value(features, of_value).unsqueeze(-1)  # [..., K, 1]
        advantages = self.advantages(features, of_advantages).unflatten(-1, self.shape)  # [..., K, A]
        return state_value + advantages - advantages.mean(dim=-1, keepdim=True)
