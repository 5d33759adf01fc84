"""Convolutions whose weight is divided by its largest singular value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

START_ITERATIONS = 15  # before the first use: with a random u and v the estimate means nothing (torch takes as many)


def _fold_after_load(module: SpectralConv2d, incompatible_keys: object) -> None:
    module.fold()


class SpectralConv2d(nn.Conv2d):
    """A convolution with the weight W / sigma, [N, C, H, W] -> [N, out, H', W'].

    W is [out, in * height * width]; sigma = u^T W v estimates its largest singular value (Miyato et al. 2018; for
    Q-networks Gogianu et al. 2021). The gradient flows through sigma, u and v are constants. They move only in
    `power_iterate`, never in a forward pass: acting must not change the network. Without autograd the folded weight is
    taken as it stands, so whoever writes weights in place calls `fold`; loading a state does it by itself.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", torch.zeros(self.weight[0].numel()))  # the first iteration writes it
        self.register_buffer("folded", torch.empty_like(self.weight), persistent=False)
        self.register_load_state_dict_post_hook(_fold_after_load)
        for _ in range(START_ITERATIONS):
            self.power_iterate()

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, out, H', W']."""
        weight = self._normalised() if torch.is_grad_enabled() else self.folded
        return self._conv_forward(observation, weight, self.bias)

    @torch.no_grad()
    def power_iterate(self) -> None:
        """Move u and v one step towards the singular vectors of the largest singular value, and fold."""
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))
        self.fold()

    @torch.no_grad()
    def fold(self) -> None:
        """Write W / sigma of the present W, u and v into the weight that is used without autograd."""
        self.folded.copy_(self._normalised())

    def _normalised(self) -> torch.Tensor:
        return self.weight / self.u.dot(self.weight.flatten(1) @ self.v)
