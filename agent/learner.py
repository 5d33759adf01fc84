"""Sample, loss, step, priorities, target network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import nn

from agent.config import LearnerSettings
from agent.losses import Loss, Values
from agent.metrics import Means
from agent.types import Batch

LossFunction = Callable[[Values, Values, Batch], Loss]


class Samples(Protocol):
    """What the learner needs of replay."""

    def sample(self, batch_size: int, importance_exponent: float) -> Batch:
        """Draw a batch."""

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Take the errors back."""


class Learner:
    """Improves `network` in place from what `replay` returns.

    The network, its target and the optimizer's moments are written in place and never rebound: the actor shares the
    weights. `learning_rate` and `importance_exponent` are functions of the environment step.
    """

    def __init__(
        self,
        network: nn.Module,
        replay: Samples,
        loss: LossFunction,
        settings: LearnerSettings,
        *,
        learning_rate: Callable[[int], float],
        importance_exponent: Callable[[int], float],
    ):
        self.network = network
        self.target = deepcopy(network).requires_grad_(False)
        self.replay = replay
        self.loss = loss
        self.settings = settings
        self.learning_rate = learning_rate
        self.importance_exponent = importance_exponent
        self.updates = 0
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.device = self._parameters[0].device
        # The fused kernel steps all parameters in one call, on the CPU too.
        self.optimizer = torch.optim.Adam(
            self._parameters, lr=learning_rate(0), eps=settings.adam_epsilon, fused=self.device.type in ("cpu", "cuda")
        )
        names = ("train/loss", "train/td_error_abs", "train/grad_norm", "q/mean")
        self.metrics = Means(names, "q/max", self.device)

    def update(self, count: int, steps: int) -> None:
        """Launch `count` >= 1 updates; `steps` is the environment step that the schedules are asked for."""
        rate = self.learning_rate(steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        beta = self.importance_exponent(steps)
        for _ in range(count):
            result, grad_norm = self._update_once(beta)
        # One look per call is enough for a mean, and costs the others nothing.
        means = (result.loss, result.td_error.abs().mean(), grad_norm, result.q_tm1.mean())
        self.metrics.add(means, result.q_tm1.max())

    def _update_once(self, beta: float) -> tuple[Loss, torch.Tensor]:
        sampled = self.replay.sample(self.settings.batch_size, beta)
        # Replay may lie on the host and the network on the GPU; `index` means something to replay alone.
        batch = Batch(*(part.to(self.device, non_blocking=True) for part in sampled[:-1]), sampled.index)
        result = self.loss(self.network, self.target, batch)
        self.optimizer.zero_grad(set_to_none=False)
        result.loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.replay.update_priorities(batch.index, result.td_error.to(batch.index.device))
        self.updates += 1
        if self.updates % self.settings.target_interval == 0:
            self.copy_to_target()
        return Loss(result.loss.detach(), result.td_error, result.q_tm1), grad_norm

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Write the network's weights and buffers into the target network, in place."""
        for target, source in zip(self.target.state_dict().values(), self.network.state_dict().values(), strict=True):
            target.copy_(source)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, target weights, optimizer moments and the number of updates: the tensors, not copies."""
        moments = self.optimizer.state_dict()["state"]
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": {str(index): dict(moment) for index, moment in moments.items()},
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, in place; ValueError when it belongs to another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.target.load_state_dict(state["target"])
            self._load_moments(state["optimizer"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"This is not the state of a learner with this network: {error}") from error
        self.updates = int(state["updates"])

    def _load_moments(self, saved: Mapping[str, Any]) -> None:
        """Not the optimizer's own load_state_dict: that one rebinds the moments."""
        moments = self.optimizer.state  # by parameter; empty before the first update
        if not saved:
            moments.clear()
            return
        for position, parameter in enumerate(self._parameters):
            for name, value in saved[str(position)].items():
                if name not in moments[parameter]:
                    moments[parameter][name] = torch.empty_like(value, device=parameter.device)
                moments[parameter][name].copy_(value)
