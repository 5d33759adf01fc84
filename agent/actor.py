"""Observation to action, in inference mode, with exploration drawn for every game on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from agent.seeding import numpy_state, set_numpy_state


class Actor:
    """Chooses actions with a network it shares with the learner; weights change in place, so it never copies them."""

    def __init__(
        self,
        network: nn.Module,
        num_actions: int,
        epsilon: Callable[[int], float],
        generator: np.random.Generator,
        device: torch.device,
    ):
        self.network = network
        self.num_actions = num_actions
        self.epsilon = epsilon
        self._generator = generator
        self._device = device

    @torch.inference_mode()
    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Return the best action of every observation, [B, *shape] -> i64 [B]; waits for the device."""
        values = self.network(torch.from_numpy(observation).to(self._device))  # [B, A]
        return values.argmax(dim=1).cpu().numpy()

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        """Return an epsilon-greedy action for every observation, [B, *shape] -> i64 [B].

        `steps` is the environment step that the exploration schedule is asked for. Coin and random action are drawn for
        every game in every call, so that the generator's position depends on nothing but the number of calls.
        """
        games = len(observation)
        explore = self._generator.random(games) < self.epsilon(steps)  # [B]
        random_action = self._generator.integers(self.num_actions, size=games)  # i64 [B]
        if explore.all():
            return random_action
        return np.where(explore, random_action, self.greedy(observation))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the exploration's generator; the network belongs to the learner."""
        return {"generator": numpy_state(self._generator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        set_numpy_state(self._generator, state["generator"])
