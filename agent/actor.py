"""Observation to action, in inference mode, with exploration drawn for every game on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from agent.capture import Mode, make_fast, try_out
from agent.guard import finite_or_zero
from agent.nets.noisy import Noise
from agent.nets.q_network import QNetwork
from agent.seeding import numpy_state, set_numpy_state

TRIED_CALLS = 30  # on which both forms of the network are compared and timed


class Actor:
    """Chooses actions with a network it shares with the learner; weights change in place, so it never copies them.

    Game i of B explores with epsilon^(1 + ladder * i / (B - 1)), so that some are bold and some careful (Horgan et al.
    2018, whose ladder is 7). With `noise`, a generator, noisy layers explore as well: one fresh sample of their noise
    per call, shared by its games.
    """

    def __init__(
        self,
        network: QNetwork,
        num_actions: int,
        epsilon: Callable[[int], float],
        generator: np.random.Generator,
        device: torch.device,
        *,
        ladder: float = 0.0,
        noise: torch.Generator | None = None,
    ):
        self.network = network
        self.num_actions = num_actions
        self.epsilon = epsilon
        self.ladder = ladder
        self._generator = generator
        self._noise = noise
        self._device = device
        self._values = self._eager
        self._to_try: Mode | None = None
        # What the network was asked last and its answer, [B, *shape] and [B, A]; None while exploration chose alone.
        self.last: tuple[np.ndarray, torch.Tensor] | None = None

    def accelerate(self, mode: Mode) -> None:
        """Let the network act in this form from the next observation on, if it gives the same values there, and faster."""
        self._values, self._to_try = self._eager, None if mode == "eager" else mode

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Return the best action for each observation without noise, [B, *shape] -> i64 [B]; waits for the device."""
        return self._best(observation, None)

    @torch.inference_mode()
    def _best(self, observation: np.ndarray, noise: Noise | None) -> np.ndarray:
        observation = finite_or_zero(observation)  # a network has no answer to what is not a number
        given = torch.from_numpy(observation).to(self._device), noise
        if self._to_try is not None:
            self._try_out(given)
        values = self._values(*given)  # [B, A]
        self.last = observation, values
        return values.argmax(dim=1).cpu().numpy()

    def _eager(self, observation: torch.Tensor, noise: Noise | None) -> torch.Tensor:
        return self.network(observation, noise)

    def _try_out(self, given: tuple[torch.Tensor, Noise | None]) -> None:
        fast, self._to_try = make_fast(self._eager, self._to_try), None
        try:
            trial = try_out(self._eager, fast, [given] * TRIED_CALLS, [])
        except Exception:  # whatever torch's compiler raises: the learner has said what there is to say
            return
        if trial.agrees and trial.fast_s < trial.eager_s:
            self._values = fast

    def act(self, observation: np.ndarray, steps: int) -> np.ndarray:
        """Return an epsilon-greedy action for every observation, [B, *shape] -> i64 [B].

        `steps` is the environment step that the exploration schedule is asked for. Coin and random action are drawn for
        every game in every call, and so is the noise, so that the generators' positions depend on nothing but the
        number of calls.
        """
        games, epsilon = len(observation), self.epsilon(steps)
        if self.ladder:
            epsilon = epsilon ** (1.0 + self.ladder * np.arange(games) / max(games - 1, 1))  # [B]
        explore = self._generator.random(games) < epsilon
        random_action = self._generator.integers(self.num_actions, size=games)  # i64 [B]
        noise = None if self._noise is None else self.network.draw_noise(self._noise)
        if explore.all():
            self.last = None
            return random_action
        return np.where(explore, random_action, self._best(observation, noise))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the exploration's generators; the network belongs to the learner."""
        state = {"generator": numpy_state(self._generator)}
        return state if self._noise is None else state | {"noise": self._noise.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError when only one of both explores by noise."""
        if ("noise" in state) != (self._noise is not None):
            raise ValueError("Of this actor and the saved one only one explores by noise.")
        set_numpy_state(self._generator, state["generator"])
        if self._noise is not None:
            self._noise.set_state(state["noise"].cpu())
