"""A vector of games that are played one after the other in this process: for games quicker than a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from envs.scenes import Scene
from envs.score import Score
from envs.spec import GameSpec, checked_actions, game_seeds
from envs.step import Step


class Game(Protocol):
    """One game with Gymnasium's verbs, except that after an end the next step ignores its action and begins anew."""

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, from `seed` or from where the game's generator stands."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return observation, reward, terminated, truncated and nothing more."""

    def render(self) -> np.ndarray:
        """Return a picture, u8 [H, W, 3]."""

    def scene(self) -> Scene:
        """Return what another process needs to draw this moment."""

    def close(self) -> None:
        """Free what the game holds."""

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state, random generator included."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""


class InlineVector:
    """B games in this process with the verbs reset, send, recv; `recv` is where they play."""

    stateful = True

    def __init__(self, spec: GameSpec, games: Sequence[Game]) -> None:
        self.spec = spec
        self.num_envs = len(games)
        self._games = list(games)
        self._score = Score(len(games))
        self._action: np.ndarray | None = None

    @property
    def current(self) -> Step | None:
        """The newest step, None before the first reset."""
        return self._score.current

    def reset(self, seed: int) -> Step:
        """Start every game anew from `seed`; open episodes are dropped."""
        self._action = None
        observation = self._empty_observation()
        for row, (game, game_seed) in enumerate(zip(self._games, game_seeds(seed, self.num_envs), strict=True)):
            observation[row] = game.reset(seed=game_seed)[0]
        return self._score.start(observation)

    def send(self, action: np.ndarray) -> None:
        """Take the actions of the next step: i64 [B], or f32 [B, n] when they are continuous."""
        if self.current is None:
            raise RuntimeError("Reset the games before the first action.")
        self._action = checked_actions(self.spec, self.num_envs, action)

    def recv(self) -> Step:
        """Play one step of every game."""
        if self._action is None:
            raise RuntimeError("Send actions before receiving a step.")
        observation = self._empty_observation()
        reward = np.empty(self.num_envs)
        terminated = np.empty(self.num_envs, dtype=bool)
        truncated = np.empty(self.num_envs, dtype=bool)
        actions = self._action if self.spec.num_actions == 0 else self._action.tolist()
        self._action = None
        for row, (game, action) in enumerate(zip(self._games, actions, strict=True)):
            observation[row], reward[row], terminated[row], truncated[row], _ = game.step(action)
        return self._score.step(observation, reward, terminated, truncated)

    def render(self, game: int = 0) -> np.ndarray:
        """Return a picture of one game, u8 [H, W, 3]."""
        return self._games[game].render()

    def scene(self, game: int = 0) -> Scene:
        """Return what another process needs to draw one game."""
        if self.current is None:
            raise RuntimeError("Reset the games before asking for a scene.")
        return self._games[game].scene()

    def close(self) -> None:
        """Free the games; a second call does nothing."""
        for game in self._games:
            game.close()
        self._games = []

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state of every game, of the score and the newest step."""
        if self._action is not None:
            raise RuntimeError("Receive the step that was sent for before taking the state of the games.")
        return {
            "game": self.spec.name,
            "score": self._score.state_dict(),
            "games": {str(row): game.state_dict() for row, game in enumerate(self._games)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, from either kind of vector; ValueError when it is of other games."""
        check_same_game(self.spec, state)
        self._score.load_state_dict(state["score"])
        self._action = None
        for row, game in enumerate(self._games):
            game.load_state_dict(state["games"][str(row)])

    def _empty_observation(self) -> np.ndarray:
        return np.empty((self.num_envs, *self.spec.observation_shape), dtype=self.spec.observation_dtype)


def check_same_game(spec: GameSpec, state: Mapping[str, Any]) -> None:
    """Raise ValueError when `state` was taken from another game than `spec`."""
    if state["game"] != spec.name:
        raise ValueError(f"The saved state is of {state['game']}, but this vector plays {spec.name}.")
