"""Sample, loss, step, priorities, target network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch

from agent.config import LearnerSettings
from agent.losses import Loss, LossFunction, Values
from agent.metrics import Means
from agent.nets.noisy import Noise
from agent.nets.q_network import QNetwork
from agent.types import Batch


class Samples(Protocol):
    """What the learner needs of replay."""

    def sample(self, batch_size: int, importance_exponent: float, n_step: int, discount: float) -> Batch:
        """Draw a batch."""

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Take the priorities back."""


class Noisy(NamedTuple):
    """A network with one sample of its noise bound, as the losses ask it."""

    network: QNetwork
    noise: Noise

    @property
    def fractions(self) -> torch.Tensor:
        """The network's fixed fractions, f32 [K]."""
        return self.network.fractions

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A]."""
        return self.network(observation, self.noise)

    def quantiles(self, observation: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """[N, *observation_shape], [N, T] -> [N, T, A]."""
        return self.network.quantiles(observation, fractions, self.noise)


class Learner:
    """Improves `network` in place from what `replay` returns.

    The network, its target, the gradients and the optimizer's moments are written in place and never rebound: the actor
    shares the weights. `learning_rate`, `importance_exponent`, `discount` and `n_step` are functions of the environment
    step. `generator` draws the noise of both networks, independently, and the loss's random fractions; where double
    Q-learning asks the online network for an action, it is with the noise of its prediction.

    `rate_scale` multiplies the learning rate; whoever sets it keeps it. `average` is the network that is judged and
    frozen: a running average of the weights when the settings ask for one, else `network` itself.
    """

    def __init__(
        self,
        network: QNetwork,
        replay: Samples,
        loss: LossFunction,
        settings: LearnerSettings,
        *,
        learning_rate: Callable[[int], float],
        importance_exponent: Callable[[int], float],
        generator: torch.Generator,
        discount: Callable[[int], float],
        n_step: Callable[[int], int],
    ):
        self.network = network
        self.target = deepcopy(network).requires_grad_(False)
        self.average = network if settings.average_updates is None else deepcopy(network).requires_grad_(False)
        self.replay = replay
        self.loss = loss
        self.settings = settings
        self.learning_rate = learning_rate
        self.importance_exponent = importance_exponent
        self.generator = generator
        self.discount = discount
        self.n_step = n_step
        self.rate_scale = 1.0
        self.updates = 0
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.device = self._parameters[0].device
        # The fused kernel steps all parameters in one call, on the CPU too.
        self.optimizer = torch.optim.Adam(
            self._parameters, lr=learning_rate(0), eps=settings.adam_epsilon, fused=self.device.type in ("cpu", "cuda")
        )
        names = ("train/loss", "train/td_error_abs", "train/grad_norm", "q/mean")
        self.metrics = Means(names, "q/max", self.device)

    def update(self, count: int, steps: int) -> None:
        """Launch `count` >= 1 updates; `steps` is the environment step that the schedules are asked for."""
        rate = self.learning_rate(steps) * self.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        asked = self.settings.batch_size, self.importance_exponent(steps), self.n_step(steps), self.discount(steps)
        for _ in range(count):
            result, grad_norm = self._update_once(self.replay.sample(*asked))
        self.network.fold()
        if self.settings.average_updates is not None:
            self._update_average(count, self.settings.average_updates)
        # One look per call is enough for a mean, and costs the others nothing.
        means = (result.loss.detach(), result.td_error.abs().mean(), grad_norm, result.q_tm1.mean())
        self.metrics.add(means, result.q_tm1.max())

    def _update_once(self, sampled: Batch) -> tuple[Loss, torch.Tensor]:
        # Replay may lie on the host and the network on the GPU; `index` means something to replay alone.
        batch = Batch(*(part.to(self.device, non_blocking=True) for part in sampled[:-1]), sampled.index)
        self.network.power_iterate()
        online, target = self._with_noise(self.network), self._with_noise(self.target)
        result = self.loss(online, target, batch, self.generator)
        gradients = [parameter.grad for parameter in self._parameters]
        torch._foreach_zero_(gradients)
        result.loss.backward()
        grad_norm = clip_norm(gradients, self.settings.max_grad_norm)
        self.optimizer.step()
        self.replay.update_priorities(batch.index, result.priority.to(batch.index.device))
        self.updates += 1
        if self.updates % self.settings.target_interval == 0:
            self.copy_to_target()
        return result, grad_norm

    def _with_noise(self, network: QNetwork) -> Values:
        noise = network.draw_noise(self.generator)
        return network if noise is None else Noisy(network, noise)

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Write the network's weights and buffers into the target network, in place."""
        for target, source in zip(self.target.state_dict().values(), self.network.state_dict().values(), strict=True):
            target.copy_(source)
        self.target.fold()

    @torch.no_grad()
    def _update_average(self, count: int, over: int) -> None:
        """Take in the weights after `count` more updates; until `over` updates were made it is their plain mean."""
        share = max(count / self.updates, 1.0 - (1.0 - 1.0 / over) ** count)
        torch._foreach_lerp_(list(self.average.parameters()), self._parameters, share)
        for ours, newest in zip(self.average.buffers(), self.network.buffers(), strict=True):
            ours.copy_(newest)
        self.average.fold()

    def state_dict(self) -> dict[str, Any]:
        """Return weights, target weights, moments, generator and the number of updates: the tensors, not copies."""
        moments = self.optimizer.state_dict()["state"]
        averaged = {} if self.average is self.network else {"average": self.average.state_dict()}
        return averaged | {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": {str(index): dict(moment) for index, moment in moments.items()},
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, in place; ValueError when it belongs to another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.target.load_state_dict(state["target"])
            if self.average is not self.network:
                self.average.load_state_dict(state["average"])
            self._load_moments(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
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


def clip_norm(gradients: list[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Scale all `gradients` in place so that their common norm is at most `max_norm`; return the norm before, f32 [].

    torch's clip_grad_norm_ to the bit, in half its time: that one first sorts small tensors by device and type.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_max(1.0))
    return norm
