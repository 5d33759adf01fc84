"""Any live network behind stable-baselines3's `predict`: what its users call, what a frozen policy is timed against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import nn


class Predictor(BasePolicy):
    """Plays greedily with `network`, raw observations [N, *shape] -> outputs [N, outputs].

    With `num_actions` 0 actions are continuous, between `low` and `high`, and the outputs themselves.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        dtype: str,
        num_actions: int,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
    ):
        bytes_only = dtype == "uint8"
        observations = spaces.Box(
            0 if bytes_only else -np.inf, 255 if bytes_only else np.inf, shape, np.dtype(dtype).type
        )
        actions = spaces.Discrete(num_actions) if num_actions else spaces.Box(np.float32(low), np.float32(high))
        super().__init__(observations, actions)
        self.network = network

    def _predict(self, observation: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        outputs = self.network(observation)
        return outputs.argmax(dim=1) if isinstance(self.action_space, spaces.Discrete) else outputs
