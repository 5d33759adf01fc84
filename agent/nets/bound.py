"""A network as the losses ask it: with one sample of its noise, and the precision it computes in, bound to it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch

from agent.nets.noisy import Noise
from agent.nets.q_network import QNetwork

Precision = Literal["none", "bf16"]


class Bound(NamedTuple):
    """A network with its noise bound. In bf16 the layers where torch holds that to be safe compute in it.

    Values come out as f32 in any case, so that losses, soft-maxima and priorities stay in 32 bits.
    """

    network: QNetwork
    noise: Noise | None
    autocast: Precision

    @property
    def fractions(self) -> torch.Tensor:
        """The network's fixed fractions, f32 [K]."""
        return self.network.fractions

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A]."""
        with self._precision(observation):
            return self.network(observation, self.noise).float()

    def quantiles(self, observation: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """[N, *observation_shape], [N, T] -> [N, T, A]."""
        with self._precision(observation):
            return self.network.quantiles(observation, fractions, self.noise).float()

    def _precision(self, observation: torch.Tensor) -> AbstractContextManager[object]:
        if self.autocast == "none":
            return nullcontext()
        return torch.autocast(observation.device.type, torch.bfloat16)


def bind(network: QNetwork, noise: Noise | None, autocast: Precision) -> QNetwork | Bound:
    """Return the network with both bound to it; itself when there is nothing to bind."""
    return network if noise is None and autocast == "none" else Bound(network, noise, autocast)
