"""What a game is, seen from outside: its shapes, its actions, and the seeds of its copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GameSpec:
    """A game as an agent needs to know it before the first step."""

    name: str
    """As the table of games spells it, or `gym:ID`."""
    observation_shape: tuple[int, ...]
    """Of one observation; stacked frames are its first axis."""
    observation_dtype: str
    """`uint8` or `float32`."""
    stack: int
    """Frames per observation, 1 when there is no stack. Frames before the start of an episode are zero."""
    num_actions: int
    """Actions are i64 [B] in 0 .. num_actions - 1; 0 when they are continuous, then f32 [B, len(action_low)]."""
    action_names: tuple[str, ...]
    """One per action, empty when they are continuous."""
    frame_skip: int
    """Emulator frames per environment step, 1 where the notion does not exist."""
    fps: float
    """Environment steps per second at which a person would watch the game."""
    gymnasium_id: str | None
    """What `gymnasium.make` takes for the bare game (for ALE ids after `import ale_py`); None when it cannot."""
    pixels: bool
    """Whether an observation is a camera picture with values 0 .. 255."""
    solved_at: float | None
    """Mean score at which Gymnasium calls the game solved, None when nobody has said."""
    action_low: tuple[float, ...] | None = None
    """Lowest value of each continuous action (may be -inf); None when actions are discrete."""
    action_high: tuple[float, ...] | None = None
    """Highest value of each continuous action (may be inf); None when actions are discrete."""


def game_seeds(seed: int, num_envs: int) -> list[int]:
    """Return one seed per game, distinct within the vector, each below 2^31 as the emulators want it.

    The vector's seed is hashed first: with plain seed + i, game 1 of seed 0 would be game 0 of seed 1.
    """
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [(start + game) % 2**31 for game in range(num_envs)]


def check_same_game(spec: GameSpec, state: Mapping[str, Any]) -> None:
    """Raise ValueError when `state` was taken from another game than `spec`."""
    if state["game"] != spec.name:
        raise ValueError(f"The saved state is of {state['game']}, but this vector plays {spec.name}.")


def checked_actions(spec: GameSpec, num_envs: int, action: np.ndarray) -> np.ndarray:
    """Return `action` as i64 [B], or f32 [B, n] when actions are continuous; raise ValueError when it does not fit.

    An emulator may wait for ever after an action that it does not know, so nothing unchecked gets through.
    """
    if spec.action_low is not None:
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (num_envs, len(spec.action_low)):
            raise ValueError(
                f"{spec.name}: actions must have shape {(num_envs, len(spec.action_low))}, not {action.shape}."
            )
        return action
    action = np.asarray(action)
    if action.shape != (num_envs,) or action.dtype.kind not in "iu":
        raise ValueError(
            f"{spec.name}: actions must be whole numbers of shape {(num_envs,)}, not {action.dtype} {action.shape}."
        )
    if action.min() < 0 or action.max() >= spec.num_actions:
        raise ValueError(f"{spec.name}: actions lie in 0 .. {spec.num_actions - 1}, not {action.tolist()}.")
    return action.astype(np.int64, copy=False)
