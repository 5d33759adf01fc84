"""Our Q-network as an SB3 policy: what `evaluate_policy`, `predict` and `save` expect to find."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space

from agent.config import NetworkSettings
from agent.nets.q_network import make_q_network
from agent.seeding import torch_generator


def network_dtype(space: spaces.Box) -> str:
    """Return the dtype in which the agent keeps observations of this space: bytes stay bytes, the rest is float32."""
    return "uint8" if space.dtype == "uint8" else "float32"


class QPolicy(BasePolicy):
    """A Q-network and its target network; plays greedily. The network scales pictures, SB3 does not.

    `network` is `agent.config.NetworkSettings` or the dict of it; weights are drawn from `seed`. With `average` there is
    a third network, the running average of the weights, and it is the one that plays.
    """

    observation_space: spaces.Box
    action_space: spaces.Discrete

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        network: NetworkSettings | Mapping[str, Any],
        seed: int,
        average: bool = False,
    ):
        super().__init__(observation_space, action_space)
        self.network_settings = NetworkSettings.model_validate(network)
        self.seed = seed
        self.q_net = make_q_network(
            self.network_settings,
            observation_space.shape,
            is_image_space(observation_space),
            int(action_space.n),
            torch_generator(seed, "network"),
        )
        self.q_net_target = deepcopy(self.q_net).requires_grad_(False)
        self.q_net_average = deepcopy(self.q_net).requires_grad_(False) if average else None

    def forward(self, observation: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        """Return the best action of every observation, [N, *shape] -> i64 [N]."""
        return self._predict(observation, deterministic)

    def _predict(self, observation: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        network = self.q_net if self.q_net_average is None else self.q_net_average
        return network(observation).argmax(dim=1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "network": self.network_settings.model_dump(mode="json"),
            "seed": self.seed,
            "average": self.q_net_average is not None,
        }
