"""The Q-network: a torso and a head, chosen from the settings and the shape of the observation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agent.config import NetworkSettings
from agent.nets.heads import DuelingHead, LinearHead
from agent.nets.torsos import MinAtar, Mlp, Nature, is_large

TORSOS = {"mlp": Mlp, "minatar": MinAtar, "nature": Nature}


class QNetwork(nn.Module):
    """Action values of observations: [N, *observation_shape] in the game's own dtype -> f32 [N, A]."""

    def __init__(self, torso: nn.Module, head: nn.Module):
        super().__init__()
        self.torso = torso
        self.head = head

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A]."""
        return self.head(self.torso(observation))


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
    # torch initialises layers from its global generator: borrow it, seed it from ours, and give it back untouched.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        torso = TORSOS[torso_kind(settings, shape, pixels)](shape, widths, pixels=pixels)
        head = (DuelingHead if settings.dueling else LinearHead)(torso.features, last, num_actions)
    return QNetwork(torso, head)
