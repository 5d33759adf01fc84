"""Linear layers that explore by noise in their weights. The noise is an argument, never a state of the layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

Noise = tuple[torch.Tensor, ...]  # per noisy layer eps_in [in] and eps_out [out], one layer after the other


def factorised_noise(sizes: Sequence[int], generator: torch.Generator, device: torch.device) -> Noise:
    """Return vectors of sign(x) sqrt|x|, x standard normal, drawn on the generator's device, moved to `device`."""
    # One draw and one transfer for all layers.
    x = torch.randn(sum(sizes), generator=generator, device=generator.device)
    return (x.sign() * x.abs().sqrt()).to(device, non_blocking=True).split(list(sizes))


class NoisyLinear(nn.Linear):
    """y = (mu_w + sigma_w * eps_out eps_in^T) x + mu_b + sigma_b * eps_out (Fortunato et al. 2018, equations 9 to 11).

    `weight` and `bias` are the means mu, so that without noise this is the plain linear layer that it inherits. torch's
    own initialisation is the paper's: U(+-1/sqrt(inputs)). All noise starts with the scale sigma / sqrt(inputs).
    """

    def __init__(self, in_features: int, out_features: int, sigma: float):
        super().__init__(in_features, out_features)
        scale = sigma * in_features**-0.5
        self.weight_sigma = nn.Parameter(torch.full_like(self.weight, scale))
        self.bias_sigma = nn.Parameter(torch.full_like(self.bias, scale))

    def forward(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """[..., in] and (eps_in [in], eps_out [out]) -> [..., out]; without noise the mean weights."""
        if noise is None:
            return super().forward(x)
        eps_in, eps_out = noise
        weight = torch.addcmul(self.weight, self.weight_sigma, torch.outer(eps_out, eps_in))  # [out, in]
        return F.linear(x, weight, torch.addcmul(self.bias, self.bias_sigma, eps_out))
