"""Games, losses and gradients that are not finite at chosen moments, and the same runs with those moments left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agent.learner import Learner
from agent.losses import Loss, LossFunction
from agent.replay.returns import n_step_return
from agent.types import Batch
from envs.step import Step

VALUES = {"nan": np.nan, "+inf": np.inf, "-inf": -np.inf, "1e30": 1e30}
At = Mapping[int, Mapping[int, tuple[str, float]]]  # tick -> game -> "observation" or "reward", and what stands there


class Spoilt:
    """Games in whose answers a number is exchanged at some ticks; what they really do does not change."""

    def __init__(self, games: Any, at: At):
        self._games, self._at, self._tick = games, at, -1
        self.current = games.current

    def __getattr__(self, name: str) -> Any:
        return getattr(self._games, name)

    def reset(self, seed: int) -> Step:
        self.current = self._games.reset(seed)
        return self.current

    def recv(self) -> Step:
        self._tick += 1
        self.current = self._games.recv()
        for game, (place, value) in self._at.get(self._tick, {}).items():
            spoilt = getattr(self.current, place).copy()
            spoilt[game] = value
            self.current = self.current._replace(**{place: spoilt})
        return self.current


@dataclass
class Row:
    """What one game did in one tick."""

    observation: np.ndarray
    action: int
    reward: float
    terminated: bool
    truncated: bool
    is_there: bool  # False: the game did not play, or what it did is left out


class Rows:
    """Replay as lists of all that happened, without the transitions `left_out`, (tick, game)."""

    device, traceable = torch.device("cpu"), False

    def __init__(self, n_step: int, exponent: float, generator: torch.Generator, left_out: set[tuple[int, int]]):
        self.n_step, self.exponent, self.generator, self.left_out = n_step, exponent, generator, left_out
        self.rows: list[Row] = []  # of tick 0, of tick 1, ...
        self.priority: list[float] = []  # of each row, 0 while it cannot be sampled
        self.largest = 1.0
        self.sampled: torch.Tensor | None = None

    def insert(self, step: Step, action: np.ndarray, next_step: Step) -> int:
        self.games = len(action)
        tick = len(self.rows) // self.games
        for game in range(self.games):
            has_played = bool(step.first[game] or not (step.terminated[game] or step.truncated[game]))
            is_there = has_played and (tick, game) not in self.left_out
            if has_played and not is_there and not step.first[game]:
                self.rows[-self.games].truncated = True
            told = next_step.reward, next_step.terminated, next_step.truncated
            reward, terminated, truncated = (each[game].item() if is_there else 0 for each in told)
            row = step.observation[game], int(action[game]), float(reward), bool(terminated), bool(truncated), is_there
            self.rows.append(Row(*row))
            due = len(self.rows) - 1 - self.n_step * self.games
            self.priority += [self.largest if self.rows[due].is_there else 0.0] if due >= 0 else []
        return sum(row.is_there for row in self.rows[-self.games :])

    def draw(self, batch_size: int) -> torch.Tensor:
        share = torch.rand(batch_size, dtype=torch.float64, generator=self.generator)
        return torch.add(torch.arange(batch_size, dtype=torch.float64) / batch_size, share, alpha=1.0 / batch_size)

    def sample_at(self, draw: torch.Tensor, importance_exponent: float, n_step: int, discount: float) -> Batch:
        every, games = self.rows, self.games
        priorities = torch.tensor(self.priority, dtype=torch.float64)
        index = torch.searchsorted(priorities.cumsum(0), draw * priorities.sum(), right=True)
        windows = [[every[at + k * games] for k in range(n_step)] for at in index.tolist()]
        columns = [torch.tensor([[getattr(row, name) for row in window] for window in windows]) for name in ENDS]
        r_t, discount_t, k = n_step_return(*columns, discount)
        first = [every[at] for at in index.tolist()]
        behind = [every[at + steps * games] for at, steps in zip(index.tolist(), k.tolist(), strict=True)]
        s_tm1, s_t = (torch.from_numpy(np.stack([row.observation for row in rows])) for rows in (first, behind))
        action = torch.tensor([row.action for row in first])
        weight = ((priorities[index].amin() / priorities[index]) ** importance_exponent).float()
        return Batch(s_tm1, action, r_t, discount_t, s_t, weight, index)

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        new = (td_error.abs().double() + 1e-6) ** self.exponent
        self.largest = max(self.largest, float(new.max()))
        for at, priority in sorted(zip(index.tolist(), new.tolist(), strict=True)):
            self.priority[at] = priority  # of several for one row the largest stays


ENDS = "reward", "terminated", "truncated"


class _Gradient(torch.autograd.Function):
    """A number as it is, whose gradient is multiplied."""

    @staticmethod
    def forward(context: Any, number: torch.Tensor, factor: float) -> torch.Tensor:
        context.factor = factor
        return number.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * context.factor, None


def spoilt_loss(loss: LossFunction, calls: set[int], place: str, value: float) -> LossFunction:
    """Return `loss` with `value` added to it, or with a gradient multiplied by `value`, in those of its calls."""
    count = 0

    def spoilt(*given: Any) -> Loss:
        nonlocal count
        count += 1
        result = loss(*given)
        if count not in calls:
            return result
        if place == "gradient":
            return result._replace(loss=_Gradient.apply(result.loss, value))
        return result._replace(loss=result.loss + value)  # the gradient stays as it was

    return spoilt


def undo_updates(learner: Learner, numbers: set[int]) -> None:
    """Let the learner make those of its updates, counted from 1, for their random numbers alone; undo the rest."""
    make, average = learner._update_once, learner._update_average
    learner._update_average = lambda *given: None if learner.updates in numbers else average(*given)

    def made(*given: Any, **named: Any) -> Any:
        if learner.updates + 1 not in numbers:
            return make(*given, **named)
        tensors = [*learner.network.state_dict().values(), *learner.optimizer.written, *learner.replay.written]
        values, copy = [tensor.detach().clone() for tensor in tensors], learner.copy_to_target
        learner.copy_to_target = lambda: _put_back(tensors, values, copy)
        figures = make(*given, **named)
        learner.copy_to_target = copy
        _put_back(tensors, values, lambda: None)
        return figures

    learner._update_once = made


@torch.no_grad()
def _put_back(tensors: list[torch.Tensor], values: list[torch.Tensor], then: Callable[[], None]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
    then()


class Told:
    """One game that itself says what SB3 is told of a spoilt step: a truncation where it stood, and then it goes on."""

    def __init__(self, games: Any, at: At):
        self._games, self._at, self._tick = games, at, -1
        self._held: Step | None = None  # what the next episode begins with
        self.current = games.current

    def __getattr__(self, name: str) -> Any:
        return getattr(self._games, name)

    def reset(self, seed: int) -> Step:
        self.current = self._games.reset(seed)
        return self.current

    def send(self, action: np.ndarray) -> None:
        self._action = action

    def recv(self) -> Step:
        held, self._held = self._held, None
        begins = held is not None or bool(self.current.terminated[0] or self.current.truncated[0])
        if held is not None and not (held.terminated[0] or held.truncated[0]):
            self.current = held._replace(first=np.ones(1, bool), reward=np.zeros(1, np.float32))
            return self.current
        before = self.current.observation
        spoilt = place = self._play(self._action)
        while place == "observation":  # the next one is what an episode can begin with
            place = self._play(np.zeros_like(self._action))
        self.current = self._games.current
        if begins and spoilt:
            self.current = self.current._replace(first=np.ones(1, bool), reward=np.zeros(1, np.float32))
        elif spoilt:
            self._held, no = self.current, np.zeros(1, bool)
            self.current = Step(before, np.zeros(1, np.float32), no, ~no, no, self.current.episodes)
        return self.current

    def _play(self, action: np.ndarray) -> str:
        """Play a step; return what is spoilt of it."""
        self._tick += 1
        self._games.send(action)
        self._games.recv()
        return self._at.get(self._tick, {}).get(0, ("", 0.0))[0]
