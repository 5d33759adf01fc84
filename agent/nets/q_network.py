"""The Q-network: a torso and a head, chosen from the settings and the shape of the observation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from agent.config import NetworkSettings
from agent.nets.fractions import CosineEmbedding, midpoints
from agent.nets.heads import DuelingHead, LinearHead, Stream
from agent.nets.impala import Impala
from agent.nets.noisy import Noise, NoisyLinear, factorised_noise
from agent.nets.spectral import SpectralConv2d
from agent.nets.torsos import MinAtar, Mlp, Nature, is_large

TORSOS = {"mlp": Mlp, "minatar": MinAtar, "nature": Nature, "impala": Impala}


class QNetwork(nn.Module):
    """Action values of observations: [N, *observation_shape] in the game's own dtype -> f32 [N, A].

    `distribution` says what lies behind a value: nothing ("none"), the return's quantiles at `fractions` ("quantile"),
    or at any fraction ("implicit"), where `embedding` turns a fraction into factors of the features. Noise is an
    argument: None means the mean weights.
    """

    fractions: torch.Tensor  # f32 [K], (i - 1/2) / K

    def __init__(
        self,
        torso: nn.Module,
        head: nn.Module,
        distribution: Literal["none", "quantile", "implicit"] = "none",
        num_fractions: int = 1,
        embedding: CosineEmbedding | None = None,
    ):
        super().__init__()
        self.torso = torso
        self.head = head
        self.embedding = embedding
        self.distribution = distribution
        self.register_buffer("fractions", midpoints(num_fractions), persistent=False)
        # Looked up once: walking over all modules would cost a small network as much as an update's arithmetic.
        noisy = [layer for layer in head.modules() if isinstance(layer, NoisyLinear)]
        self._noise_sizes = [size for layer in noisy for size in (layer.in_features, layer.out_features)]
        self._spectral = [layer for layer in torso.modules() if isinstance(layer, SpectralConv2d)]

    def forward(self, observation: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A], the mean over the fixed fractions."""
        quantiles = self.quantiles(observation, noise=noise)
        return quantiles.squeeze(1) if self.distribution == "none" else quantiles.mean(dim=1)

    def quantiles(
        self, observation: torch.Tensor, fractions: torch.Tensor | None = None, noise: Noise | None = None
    ) -> torch.Tensor:
        """[N, *observation_shape] and fractions [N, T] -> [N, T, A]; None: at the fixed fractions, T = K.

        Raises ValueError when fractions are given to a network whose distribution is not implicit.
        """
        features = self.torso(observation)  # [N, F]
        if self.embedding is None:
            if fractions is not None:
                raise ValueError("Only a network with network.distribution implicit has values at chosen fractions.")
            return self.head(features, noise)
        factors = self.embedding(self.fractions if fractions is None else fractions)  # [K, F] or [N, T, F]
        return self.head(features.unsqueeze(1) * factors, noise).squeeze(2)

    def draw_noise(self, generator: torch.Generator) -> Noise | None:
        """Return a fresh sample for every noisy layer, on the weights' device; None when there are no such layers."""
        if not self._noise_sizes:
            return None
        return factorised_noise(self._noise_sizes, generator, self.fractions.device)

    @property
    def statistics(self) -> list[torch.Tensor]:
        """What `power_iterate` moves and `fold` does not make anew."""
        return [vector for layer in self._spectral for vector in (layer.u, layer.v)]

    def power_iterate(self) -> None:
        """Improve the estimate of every spectral norm by one step, and fold; once per update, before the loss."""
        for convolution in self._spectral:
            convolution.power_iterate()

    def fold(self) -> None:
        """Renew the weights that are used without autograd, after weights were written in place."""
        for convolution in self._spectral:
            convolution.fold()


def torso_kind(settings: NetworkSettings, shape: Sequence[int], pixels: bool) -> str:
    """Return which torso `auto` stands for: nature for large pictures, minatar for other small grids, else mlp."""
    if settings.torso != "auto":
        return settings.torso
    if pixels:
        return "nature" if is_large(shape) else "mlp"
    return "minatar" if len(shape) == 3 and min(shape[1:]) >= 3 and not is_large(shape) else "mlp"


def make_q_network(
    settings: NetworkSettings, shape: Sequence[int], pixels: bool, num_actions: int, generator: torch.Generator
) -> QNetwork:
    """Build a Q-network for observations of `shape`, its weights drawn from `generator` alone.

    `pixels` says that observations are camera pictures, 0 .. 255. Initialisation is torch's own for linear and
    convolution layers (He et al. 2015 with a = sqrt 5).
    Raises ValueError when the torso does not fit the observation or no action exists.
    """
    if num_actions < 1:
        raise ValueError("A Q-network needs discrete actions; for continuous ones use --algo sac, td3 or tqc.")
    *widths, last = settings.hidden  # the head owns the last layer
    kind, distribution = torso_kind(settings, shape, pixels), settings.distribution
    only_impala = {"width": settings.width, "max_pool": settings.max_pool, "spectral_norm": settings.spectral_norm}
    # torch initialises layers from its global generator: borrow it, seed it from ours, and give it back untouched.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        torso = TORSOS[kind](
            shape, widths, pixels=pixels, layer_norm=settings.layer_norm, **(only_impala if kind == "impala" else {})
        )
        sigma = settings.noisy_sigma if settings.noisy else None
        stream = partial(Stream, torso.features, last, layer_norm=settings.layer_norm, sigma=sigma)
        quantiles = settings.quantiles if distribution == "quantile" else 1
        head = (DuelingHead if settings.dueling else LinearHead)(stream, num_actions, quantiles)
        embedding = CosineEmbedding(torso.features, settings.cosines) if distribution == "implicit" else None
    return QNetwork(torso, head, distribution, 1 if distribution == "none" else settings.quantiles, embedding)
