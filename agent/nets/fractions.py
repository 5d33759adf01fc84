"""Fractions of the return's distribution: the fixed ones, and how a network is told an arbitrary one."""

from __future__ import annotations

import math

import torch
from torch import nn


def midpoints(count: int) -> torch.Tensor:
    """Return the fractions (i - 1/2) / count, i = 1 .. count, f32 [count] (Dabney et al. 2018a, lemma 2)."""
    return (torch.arange(count) + 0.5) / count


class CosineEmbedding(nn.Module):
    """e(t) = ReLU(W c + b) with c_k = cos(pi k t), k = 0 .. cosines - 1 (Dabney et al. 2018b, equation 4)."""

    def __init__(self, features: int, cosines: int):
        super().__init__()
        self.linear = nn.Linear(cosines, features)
        self.register_buffer("frequencies", math.pi * torch.arange(cosines), persistent=False)

    def forward(self, fractions: torch.Tensor) -> torch.Tensor:
        """[...] -> [..., features]."""
        return torch.relu(self.linear(torch.cos(fractions.unsqueeze(-1) * self.frequencies)))
