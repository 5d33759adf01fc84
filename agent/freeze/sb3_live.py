"""A policy of stable-baselines3 as it computes itself: the same operations of torch and numpy, in the same order.

Bit for bit means that: a sum in another order, or the largest of logits instead of probabilities, is another policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical
from torch.nn.functional import one_hot

from agent.freeze.convert import Statistics
from agent.freeze.sb3_layers import Kind
from agent.freeze.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Part

Observation = np.ndarray | Mapping[str, np.ndarray]


class Live(nn.Module):
    """One observation [N, *shape]: VecNormalize, choices as zeros and ones, pictures as shares of 255, the layers."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        space: Part,
        statistics: Statistics | None = None,
        *,
        scaled: bool = False,
        channels_last: bool = False,
    ):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.space, self.statistics, self.scaled, self.channels_last = space, statistics, scaled, channels_last

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *shape] -> [N, A]"""
        x = observation
        if self.statistics is not None:
            mean, var = (torch.from_numpy(one) for one in (self.statistics.mean, self.statistics.var))
            x = (x.double() - mean) / (var + self.statistics.epsilon).sqrt()
            x = x.clamp(-self.statistics.clip_obs, self.statistics.clip_obs)
        match self.space:
            case Discrete(n=n):
                x = one_hot(x.long(), n).float()  # [N, n]
            case MultiDiscrete(nvec=nvec):
                choices = x.long().unbind(1)
                x = torch.cat([one_hot(each, n).float() for each, n in zip(choices, nvec, strict=True)], 1)
            case _:
                x = x.float()
        if self.channels_last:
            x = x.movedim(-1, 1)  # [N, C, H, W]
        return self.layers(x / 255.0 if self.scaled else x)


class LiveParts(nn.Module):
    """Several observations, each through its own layers, then side by side through the others."""

    def __init__(self, parts: Mapping[str, Live], layers: Sequence[nn.Module]):
        super().__init__()
        self.names = list(parts)
        self.parts, self.layers = nn.ModuleList(parts.values()), nn.Sequential(*layers)

    def forward(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """{name: [N, *shape]} -> [N, A]"""
        seen = [part(observation[name]) for name, part in zip(self.names, self.parts, strict=True)]
        return self.layers(torch.cat(seen, dim=1))


class Choice:
    """What a network's outputs mean as actions of a space, as `predict(deterministic=True)` takes them."""

    def __init__(self, kind: Kind, space: Part, *, squashed: bool):
        self.kind, self.space, self.squashed = kind, space, squashed

    @torch.no_grad()
    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """[N, A] -> [N] or [N, *shape of the space]"""
        logits = torch.from_numpy(np.ascontiguousarray(outputs))
        match self.space:
            case Box(low=low, high=high):
                if self.squashed:
                    logits = torch.tanh(logits)
                actions = logits.numpy().reshape(-1, *self.space.shape)
                if self.squashed:
                    return low + (0.5 * (actions + 1.0) * (high - low))
                return np.clip(actions, low, high)
            case Discrete() if self.kind in ("action values", "quantiles"):
                return logits.argmax(dim=1).numpy()
            case Discrete():
                return _likeliest(logits).numpy()
            case MultiDiscrete(nvec=nvec):
                return torch.stack([_likeliest(each) for each in logits.split(list(nvec), dim=1)], dim=1).numpy()
            case MultiBinary():
                return torch.round(Bernoulli(logits=logits, validate_args=False).probs).numpy()
        raise AssertionError(self.space)


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Of probabilities, which can be equal where logits are not; [N, A] -> i64 [N]."""
    return torch.argmax(Categorical(logits=logits, validate_args=False).probs, dim=1)


def as_tensor(observation: np.ndarray, space: Part) -> torch.Tensor:
    """Return observations [N, *shape] for the network; pictures may have their channels last where it takes them first.

    ValueError when they are of another shape. They are copied, as stable-baselines3 does: sums depend on how memory is
    aligned, and numpy aligns what it allocates.
    """
    shape = space.shape if not isinstance(space, Discrete) else ()
    x = np.array(observation)
    if x.shape[1:] != shape and isinstance(space, Box) and space.is_picture and x.ndim == 4:
        x = np.transpose(x, (0, 3, 1, 2))
    if x.shape[1:] != shape:
        raise ValueError(f"This policy takes observations of shape {shape}, not {np.shape(observation)[1:]}.")
    return torch.from_numpy(x)
