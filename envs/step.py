"""What a vector of games answers: Step and Episode, and their form in a saved state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Episode(NamedTuple):
    """A finished game as it was really scored, below every clipping."""

    game: int  # column of the vector
    score: float  # sum of raw rewards
    length: int  # environment steps


class _Fields(NamedTuple):
    observation: np.ndarray  # [B, *observation_shape]
    reward: np.ndarray  # f32 [B], raw
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    first: np.ndarray  # bool [B]
    episodes: tuple[Episode, ...]  # those that ended with this step
    final_observation: np.ndarray | None  # [B, *observation_shape]; rows that did not end are meaningless
    restarted: np.ndarray  # bool [B], all False unless it is given


class Step(_Fields):
    """What B games answer to one vector of actions (or to a reset), as numpy arrays on the host.

    Next-step autoreset: when `terminated` or `truncated` is set, `observation` is the terminal one; the following
    action is ignored for that game and answered with `first` set, reward 0 and the new episode's observation.

    Same-step autoreset (a foreign vector): `first` is set together with the end, `observation` already belongs to the
    new episode and `final_observation` holds the terminal one.

    Where `restarted` is set the game failed and a fresh one plays in its place: its open episode is discarded, the
    action was played by nobody, and the row is a first one: nothing may be learned from the step before to this one.
    """

    __slots__ = ()

    def __new__(
        cls,
        observation: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        first: np.ndarray,
        episodes: tuple[Episode, ...] = (),
        final_observation: np.ndarray | None = None,
        restarted: np.ndarray | None = None,
    ) -> Step:
        if restarted is None:
            restarted = np.zeros(len(first), dtype=bool)
        fields = (observation, reward, terminated, truncated, first, episodes, final_observation, restarted)
        return tuple.__new__(cls, fields)


def step_state(step: Step) -> dict[str, Any]:
    """Return `step` as a tree of arrays and plain values."""
    return {**step._asdict(), "episodes": [list(episode) for episode in step.episodes]}


def step_from_state(state: Mapping[str, Any]) -> Step:
    """Return the step that `step_state` was given."""
    final, restarted = state["final_observation"], state.get("restarted")  # saved before games were replaced: None
    return Step(
        observation=np.array(state["observation"]),
        reward=np.array(state["reward"]),
        terminated=np.array(state["terminated"]),
        truncated=np.array(state["truncated"]),
        first=np.array(state["first"]),
        episodes=tuple(Episode(int(game), float(score), int(length)) for game, score, length in state["episodes"]),
        final_observation=None if final is None else np.array(final),
        restarted=None if restarted is None else np.array(restarted),
    )
