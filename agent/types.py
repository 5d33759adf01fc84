"""The shapes that walk between the rooms: Step, Batch, Tick, and the protocols of what produces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch


class Episode(Protocol):
    """A finished game as it was really scored, below every clipping."""

    game: int  # column of the vector
    score: float  # sum of raw rewards
    length: int  # environment steps


class Step(Protocol):
    """What B games answer to one vector of actions (or to a reset), as numpy arrays on the host.

    Next-step autoreset: when `terminated` or `truncated` is set, `observation` is the terminal one; the following
    action is ignored for that game and answered with `first` set, reward 0 and the new episode's observation.

    Same-step autoreset (a foreign vector): `first` is set together with the end, `observation` already belongs to the
    new episode and `final_observation` holds the terminal one.

    Where `restarted` is set the game failed and a fresh one plays in its place: its open episode is discarded, the
    action was played by nobody, and the row is a first one: nothing may be learned from the step before to this one.
    """

    observation: np.ndarray  # [B, *observation_shape]
    reward: np.ndarray  # f32 [B], raw
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    first: np.ndarray  # bool [B]
    episodes: Sequence[Episode]  # those that ended with this step
    final_observation: np.ndarray | None  # [B, *observation_shape]; rows that did not end are meaningless
    restarted: np.ndarray  # bool [B]


@runtime_checkable
class VectorEnv(Protocol):
    """B copies of a game with the verbs reset, send, recv."""

    num_envs: int
    current: Step  # the newest step: what the next action answers

    def reset(self, seed: int) -> Step:
        """Start every game anew from `seed`; open episodes are dropped."""

    def send(self, action: np.ndarray) -> None:
        """Start the games on their next step without waiting. `action` is i64 [B]."""

    def recv(self) -> Step:
        """Wait for the games and return their step; also kept as `current`."""

    def close(self) -> None:
        """Free processes and emulators; a second call does nothing."""


@runtime_checkable
class Stateful(Protocol):
    """An object whose whole state can be taken out, written as tensors and JSON, and put back."""

    def state_dict(self) -> dict[str, Any]:
        """Return a tree of dicts with string keys whose leaves are tensors, numbers, strings, bools, lists or None."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, in place; raise ValueError when it does not fit."""


class Batch(NamedTuple):
    """N transitions as the losses take them; `s_t` lies up to n steps behind `s_tm1`."""

    s_tm1: torch.Tensor  # [N, *observation_shape], the game's own dtype
    a_tm1: torch.Tensor  # i64 [N]
    r_t: torch.Tensor  # f32 [N], discounted sum of k <= n rewards
    discount_t: torch.Tensor  # f32 [N], gamma^k, 0 when the window ends in a termination
    s_t: torch.Tensor  # [N, *observation_shape]
    weight: torch.Tensor  # f32 [N], importance weights, 1 when sampling is uniform
    index: torch.Tensor  # i64 [N], where to write priorities back


class Tick(NamedTuple):
    """One turn of the loop: every game acted once and the updates that were owed were launched."""

    steps: int  # environment steps so far, over all games
    updates: int  # gradient updates so far
    step: Step  # what the games answered
    action: np.ndarray  # i64 [B]
    acting_s: float  # seconds spent choosing the actions, including the one wait for the device
    learning_s: float  # seconds spent launching updates
    waiting_s: float  # seconds spent waiting for the games
    storing_s: float  # seconds spent appending to replay
