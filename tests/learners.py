"""A learner with stand-ins for its network and its replay, and what compares two of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from agent.config import LearnerSettings
from agent.learner import Learner
from agent.losses import LossFunction, q_learning
from agent.schedules import Linear, constant
from agent.types import Batch

N, FEATURES, ACTIONS = 6, 3, 2


class Network(nn.Module):
    """Two layers, a buffer that shifts the values, and noise that shifts them too; notes what else it was told."""

    def __init__(self, seed: int, noisy: bool = False):
        super().__init__()
        self.noisy, self.name, self.log, self.statistics = noisy, "network", [], ()
        self.fractions = torch.tensor([0.5])
        self.layers = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, ACTIONS))
        self.register_buffer("shift", torch.zeros(()))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, observation: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(observation) + (self.shift if noise is None else self.shift + noise)

    def quantiles(self, observation: torch.Tensor, fractions: Any = None, noise: Any = None) -> torch.Tensor:
        return self(observation, noise)[:, None] + fractions[:, :, None]

    def draw_noise(self, generator: torch.Generator) -> torch.Tensor | None:
        return torch.randn(ACTIONS, generator=generator) if self.noisy else None

    def power_iterate(self) -> None:
        self.log.append(f"{self.name} iterates")

    def fold(self) -> None:
        self.log.append(f"{self.name} folds")


class Replay:
    """Random batches from a generator; notes what it was asked and told."""

    device, traceable, sampled = torch.device("cpu"), False, None
    written: tuple[torch.Tensor, ...] = ()

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)
        self.log: list[tuple] = []
        self.batches: list[Batch] = []

    def sample(self, batch_size: int, importance_exponent: float, n_step: int = 1, discount: float = 0.9) -> Batch:
        return self.sample_at(self.draw(batch_size), importance_exponent, n_step, discount)

    def draw(self, batch_size: int) -> torch.Tensor:
        return torch.empty(batch_size)

    def sample_at(self, draw: torch.Tensor, importance_exponent: float, n_step: int, discount: float) -> Batch:
        batch_size = len(draw)
        self.log.append(("sample", batch_size, importance_exponent, n_step, discount))
        draw = partial(torch.randn, generator=self.generator)
        batch = Batch(
            s_tm1=draw(batch_size, FEATURES),
            a_tm1=torch.randint(ACTIONS, (batch_size,), generator=self.generator),
            r_t=3 * draw(batch_size),
            discount_t=torch.rand(batch_size, generator=self.generator),
            s_t=draw(batch_size, FEATURES),
            weight=torch.rand(batch_size, generator=self.generator),
            index=torch.randint(1000, (batch_size,), generator=self.generator),
        )
        self.batches.append(batch)
        return batch

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        self.log.append(("priorities", index, td_error.clone()))


def make(
    seed: int = 0,
    *,
    network: Network | None = None,
    replay: Replay | None = None,
    loss: LossFunction = partial(q_learning, double=True, kind="huber"),
    rate: Linear = constant(1e-2),
    noise_seed: int = 0,
    **changes: Any,
) -> Learner:
    return Learner(
        Network(seed) if network is None else network,
        Replay() if replay is None else replay,
        loss,
        LearnerSettings(**{"batch_size": N, "target_interval": 3} | changes),
        learning_rate=rate,
        importance_exponent=Linear(0.4, 1.0, 100),
        generator=torch.Generator().manual_seed(noise_seed),
        discount=Linear(0.9, 0.99, 100),
        n_step=lambda steps: 3 - (steps >= 50),
    )


def leaves(tree: Any) -> list[Any]:
    """All leaves of a state, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [tree]


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    ours, theirs = leaves(one), leaves(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)
        for a, b in zip(ours, theirs, strict=True)
    )


def addresses(learner: Learner) -> list[int]:
    """Where weights, buffers, target and Adam's moments lie."""
    tensors = [*learner.network.state_dict().values(), *learner.target.state_dict().values()]
    tensors += learner.optimizer.written
    return [tensor.data_ptr() for tensor in tensors]
