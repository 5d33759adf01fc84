"""Figures about learning that cost too much to be had with every update: looked at rarely, on a batch of replay.

What looks here draws from a generator of its own and writes nothing that lasts: a run with probes is the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from agent.learner import Learner
from agent.nets.bound import bind
from agent.nets.heads import Stream
from agent.nets.q_network import QNetwork
from agent.replay.replay import Replay
from agent.seeding import torch_generator
from agent.types import Batch, Step

SHARE = 0.004  # most of the run's time that probes may take
LEAST_S = 10.0  # between two of them, however cheap
STATES = 256
WINDOW = 100  # updates over which change is told
DORMANT = 0.025  # share of its layer's mean activation up to which a unit counts as dormant (Sokar et al. 2023)
RANK_LEFT = 0.01  # share of the singular values' sum that the effective rank leaves out (Kumar et al. 2021)
LEAVES = 65_536  # priorities that a percentile is taken of, at most


class Probes:
    """Looks at the learner between two ticks, as rarely as SHARE asks; `take` gives what was found since.

    A look takes STATES transitions of the present replay. WINDOW updates later the same states are asked again: that
    is the churn, and how far the weights have moved.
    """

    def __init__(
        self, learner: Learner, replay: Replay, seed: int, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._learner, self._replay, self._clock = learner, replay, clock
        self._draws = torch_generator(seed, "probes", replay.device)
        self._fractions = torch_generator(seed, "probes' fractions", learner.device)
        self._begun = clock()
        self._due = self._begun + LEAST_S
        self._cost_s = 0.0  # of the look that is under way
        self._asked: tuple[int, torch.Tensor, torch.Tensor, list[torch.Tensor]] | None = None
        self._found: dict[str, float] = {}
        self.spent_s = 0.0

    def after(self, steps: int) -> None:
        """Look if it is time; `steps` is the environment step that the schedules are asked for."""
        if self._asked is not None:
            if self._learner.updates - self._asked[0] >= WINDOW:
                with self._paid():
                    self._found |= self._changed(*self._asked)
                self._asked = None
                # When there will be time for all so far and for one more like this.
                paid = self._begun + (self.spent_s + self._cost_s) / SHARE
                self._due = max(self._clock() + LEAST_S, paid)
        elif self._clock() >= self._due and self._learner.updates and len(self._replay) >= STATES:
            self._cost_s = 0.0
            with self._paid():
                self._found |= self._look(steps)

    def take(self) -> dict[str, float]:
        """Return what was found since the last call, under its TensorBoard tags."""
        found, self._found = self._found, {}
        return found

    @contextmanager
    def _paid(self) -> Iterator[None]:
        started = self._clock()
        yield
        spent_s = self._clock() - started
        self._cost_s += spent_s
        self.spent_s += spent_s

    @torch.no_grad()
    def _look(self, steps: int) -> dict[str, float]:
        learner, replay = self._learner, self._replay
        draw = torch.rand(STATES, dtype=torch.float64, generator=self._draws, device=self._draws.device)
        places = (torch.arange(STATES, dtype=torch.float64, device=replay.device) + draw.to(replay.device)) / STATES
        sampled = replay.sample_at(places, 0.0, learner.n_step(steps), learner.discount(steps))
        batch = Batch(*(part.to(learner.device) for part in sampled[:-1]), None)  # type: ignore[arg-type]
        autocast = learner.settings.autocast
        loss = learner.loss(
            bind(learner.network, None, autocast), bind(learner.target, None, autocast), batch, self._fractions
        )
        q, activations = outputs_and_activations(learner.network, batch.s_tm1)
        best = q.topk(min(2, q.shape[1]), dim=1).values  # [N, 2]
        streams = sum(isinstance(module, Stream) for module in learner.network.head.modules())
        found = {
            "train/td_error_p95": torch.quantile(loss.td_error.abs(), 0.95),
            "q/action_gap": (best[:, 0] - best[:, -1]).mean(),
            "net/dormant_frac": dormant_share(activations),
            "net/srank": effective_rank(torch.cat([_per_state(each) for each in activations[-streams:]], dim=1)),
        }
        if replay.priority_exponent:
            leaves = replay.tree.leaves
            some = leaves[:: -(-len(leaves) // LEAVES)]
            found["replay/priority_p99"] = torch.quantile(some[some > 0.0], 0.99)
        weights = [parameter.detach().clone() for parameter in learner.network.parameters()]
        self._asked = learner.updates, batch.s_tm1, q.argmax(dim=1), weights
        return {tag: float(value) for tag, value in found.items()}

    @torch.no_grad()
    def _changed(
        self, updates: int, states: torch.Tensor, before: torch.Tensor, weights: list[torch.Tensor]
    ) -> dict[str, float]:
        learner = self._learner
        scale = WINDOW / (learner.updates - updates)  # a tick may owe several updates, so the window is a little longer
        size = _norm(weights)
        moved = _norm(torch._foreach_sub(list(learner.network.parameters()), weights))
        now = learner.network(states).argmax(dim=1)
        return {
            "policy/churn": scale * float((now != before).float().mean()),
            "train/update_ratio": scale * float(moved / size),
        }


class StartValues:
    """What the values at the start of an evaluation's episodes promised, beside what came: each game's first episode.

    Both in the learner's own terms: rewards clipped to plus or minus `reward_clip` (None: as they are) and discounted,
    up to the end that the learner knows. An episode that is cut off is worth the network's value from there on, as in
    training.
    """

    def __init__(self, network: QNetwork, discount: float, reward_clip: float | None) -> None:
        self._network, self._discount, self._clip = network, discount, reward_clip
        self._device = next(network.parameters()).device
        self._promised: np.ndarray | None = None  # f64 [B]

    def __call__(self, step: Step, action: np.ndarray, next_step: Step) -> None:
        """Take what `action`, i64 [B], led to; to be called for every step from the games' reset on."""
        if self._promised is None:
            games = len(action)
            self._promised = self._values(step.observation)[np.arange(games), action]
            self._came, self._weight = np.zeros(games), np.ones(games)  # weight: of the next reward, 0 behind the end
        reward = next_step.reward if self._clip is None else np.clip(next_step.reward, -self._clip, self._clip)
        self._came += self._weight * reward
        self._weight *= self._discount
        cut = next_step.truncated & ~next_step.terminated & (self._weight > 0.0)
        if cut.any():
            final = next_step.observation if next_step.final_observation is None else next_step.final_observation
            self._came[cut] += self._weight[cut] * self._values(final[cut]).max(axis=1)
        self._weight[next_step.terminated | next_step.truncated] = 0.0

    def figures(self) -> dict[str, float]:
        """Return means over the games under their tags; {} before the first step."""
        if self._promised is None:
            return {}
        promised, came = float(self._promised.mean()), float(self._came.mean())
        return {"q/start_value": promised, "q/start_return": came, "q/overestimation": promised - came}

    @torch.no_grad()
    def _values(self, observation: np.ndarray) -> np.ndarray:
        return self._network(torch.from_numpy(observation).to(self._device)).double().cpu().numpy()


class _Activations(TorchDispatchMode):
    """Keeps what leaves every ReLU while it is on, whichever module or function called it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.relu.default:
            self.kept.append(out)
        return out


def outputs_and_activations(network: QNetwork, observation: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the values [N, A] and what left each ReLU, in their order: [N, C, H, W], [N, F], [N, K, F] or [K, F]."""
    with _Activations() as watching:
        q = network(observation)
    return q, watching.kept


def dormant_share(activations: list[torch.Tensor]) -> float:
    """Return the share of all units whose mean activation is at most DORMANT of their layer's (Sokar et al. 2023).

    A channel of a convolution is one unit. The activations are those behind ReLUs.
    """
    dormant = units = 0
    for each in activations:
        last = each.movedim(1, -1) if each.ndim == 4 else each
        mean = last.flatten(0, -2).double().mean(dim=0)  # [units]
        dormant += int((mean <= DORMANT * mean.mean()).sum())
        units += len(mean)
    return dormant / units


def effective_rank(features: torch.Tensor) -> int:
    """Return the fewest singular values of features [N, F] that add up to 1 - RANK_LEFT of all (Kumar et al. 2021)."""
    values = torch.linalg.svdvals(features.double())
    return int((values.cumsum(0) < (1.0 - RANK_LEFT) * values.sum()).sum()) + 1


def _per_state(activation: torch.Tensor) -> torch.Tensor:
    """A hidden layer's activations [N, F]; where it has them per fraction, [N, K, F], their means."""
    return activation.mean(dim=1) if activation.ndim == 3 else activation


def _norm(tensors: Any) -> torch.Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
