"""Who plays in a room: what a trainer learns at this moment, an artefact, or any live policy, all of them greedy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.graph import Continuous, Discrete, decide
from agent.freeze.player import Player

REFRESH_S = 1.0  # newer weights are asked for so often
Scores = Literal["values", "logits"]  # what the numbers behind an action are: returns, or how much it is preferred


@dataclass
class Facts:
    """What a page is told of a policy, and what its TD error needs."""

    described: str
    scores: Scores | None  # None: the actions are continuous
    discount: float | None = None  # None: not known, so there is no TD error
    reward_clip: float | None = None  # of the rewards that the values count
    updates: int | None = None  # with how many its weights were learned
    frozen: dict[str, Any] | None = field(default=None)  # agreement, precision and bytes of an artefact


class Policy(Protocol):
    """Whoever chooses actions. Used by one thread."""

    facts: Facts
    network: Callable[[torch.Tensor], torch.Tensor] | None  # what gradients go through, where there is one

    def q(self, observation: np.ndarray) -> tuple[np.ndarray | None, Any]:
        """[1, *shape] -> one number for each action, f64 [A], and the action: an int, or f32 [n]."""

    def scores(self, observations: np.ndarray) -> np.ndarray:
        """[N, *shape] -> [N, A]; for perturbation saliency."""

    def refresh(self) -> None:
        """Take newer weights where there are any; called before every step, so it must cost nothing."""


class LivePolicy:
    """A network as it was trained: a run's, or that of a stable-baselines3 zip."""

    def __init__(
        self,
        outputs: Callable[[np.ndarray], np.ndarray],
        head: Discrete | Continuous,
        facts: Facts,
        network: torch.nn.Module | None = None,
        choose: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """`outputs` takes observations [N, *shape] to f32 [N, outputs], `choose` these to actions, as `head` else."""
        self.facts, self.network, self.scores = facts, network, outputs
        self._choose = choose or (lambda outputs: decide(head, outputs))

    def q(self, observation: np.ndarray) -> tuple[np.ndarray | None, Any]:
        """[1, *shape] -> one number for each action, and the action."""
        outputs = self.scores(observation)
        return _answer(outputs, self._choose(outputs))

    def refresh(self) -> None:
        """Nothing changes."""


class LatestPolicy:
    """A run's network with the newest weights that its trainer has published, written into it in place."""

    def __init__(
        self,
        network: torch.nn.Module,
        num_actions: int,
        facts: Facts,
        newest: Callable[[], tuple[Mapping[str, Any], np.ndarray] | None],
        load: Callable[[torch.nn.Module, np.ndarray], None],
    ) -> None:
        """`newest` returns what the trainer published last, `load` puts such weights into the network.

        ValueError from `load`, when they do not fit, leaves the old ones playing.
        """
        self.facts, self.network = facts, network
        self._head, self._newest, self._load = Discrete(num_actions), newest, load
        self._asked = -REFRESH_S

    @torch.inference_mode()
    def scores(self, observations: np.ndarray) -> np.ndarray:
        """[N, *shape] -> f32 [N, A]."""
        return self.network(torch.from_numpy(np.ascontiguousarray(observations))).numpy()

    def q(self, observation: np.ndarray) -> tuple[np.ndarray | None, Any]:
        """[1, *shape] -> the value of each action, and the best."""
        outputs = self.scores(observation)
        return _answer(outputs, decide(self._head, outputs))

    def refresh(self) -> None:
        """About once a second, take the newest weights."""
        now = time.monotonic()
        if now - self._asked < REFRESH_S:
            return
        self._asked = now
        found = self._newest()
        if found is None or found[0].get("updates") == self.facts.updates:
            return
        try:
            self._load(self.network, found[1])
        except ValueError:
            return  # of a run with another network that has taken this folder's place: the old weights go on
        self.facts.updates = int(found[0]["updates"])


class ArtefactPolicy:
    """An artefact as it was emitted, played by one of its runtimes."""

    network = None

    def __init__(self, player: Player, policy: FrozenPolicy, facts: Facts) -> None:
        self.facts = facts
        self._player, self._policy = player, policy

    def scores(self, observations: np.ndarray) -> np.ndarray:
        """[N, *shape] -> f64 [N, outputs], integers brought back to their scale."""
        return self._policy.outputs(self._player.outputs(observations))

    def q(self, observation: np.ndarray) -> tuple[np.ndarray | None, Any]:
        """[1, *shape] -> one number for each action, and the action that the emitted policy takes."""
        raw = self._player.outputs(observation)
        return _answer(self._policy.outputs(raw), self._policy.decide(raw))

    def refresh(self) -> None:
        """Nothing changes: it is frozen."""


def scores_of(algorithm: str, continuous: bool) -> Scores | None:
    """Return what the outputs of a policy are, by the name of the algorithm that trained it."""
    if continuous:
        return None
    return "values" if "DQN" in algorithm.upper() or "IQN" in algorithm.upper() else "logits"


def _answer(outputs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray | None, Any]:
    if actions.ndim == 2:  # continuous: the outputs are the action, not a choice among several
        return None, actions[0]
    return np.asarray(outputs[0], np.float64), int(actions[0])
