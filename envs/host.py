"""One game as a vector keeps it: its answers are checked for what a broken game may send, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from envs.scenes import Scene
from envs.score import LARGEST
from envs.spec import GameSpec


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


class Row(NamedTuple):
    """What one game answers to one action or to a reset: its row of the vector's Step."""

    observation: np.ndarray  # [*observation_shape], of a type that fits the spec's; not a copy
    reward: float
    terminated: bool
    truncated: bool
    first: bool
    episode: tuple[float, int] | None  # score and length of the one that ended


class Host(Protocol):
    """What a vector asks of one game; `CountedGame` makes one of any `Game`."""

    last: Row

    def reset(self, seed: int) -> Row:
        """Begin an episode from `seed`."""

    def step(self, action: Any) -> Row:
        """Play one step; after an end, begin anew."""

    def render(self) -> np.ndarray:
        """Return a picture, u8 [H, W, 3]."""

    def scene(self) -> Scene:
        """Return what another process needs to draw this moment."""

    def close(self) -> None:
        """Free what the game holds."""

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state, score included."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""


class Fallen(Exception):
    """One game cannot go on; the text says what it did, such as "its process died"."""


class CountedGame:
    """A game whose answers are checked, and whose raw score and length are counted below every clipping.

    Raises Fallen where the game answers with something else than its spec promises.
    """

    last: Row

    def __init__(self, spec: GameSpec, game: Game) -> None:
        self._game = game
        self._shape, self._dtype = spec.observation_shape, np.dtype(spec.observation_dtype)
        self._fitting = {self._dtype}  # number types whose every value fits; it takes a while to ask
        self._score = 0.0
        self._length = 0
        self._ended = False

    def reset(self, seed: int) -> Row:
        """Begin an episode from `seed`; the open one is forgotten."""
        observation = self._checked(self._game.reset(seed=seed)[0])
        self._score, self._length, self._ended = 0.0, 0, False
        self.last = Row(observation, 0.0, False, False, True, None)
        return self.last

    def step(self, action: Any) -> Row:
        """Play one step; after an end, begin anew."""
        observation, reward, terminated, truncated, _ = self._game.step(action)
        observation = self._checked(observation)
        if type(reward) is not float:
            reward = number(reward)
        if type(terminated) is not bool or type(truncated) is not bool:
            terminated, truncated = truth(terminated), truth(truncated)
        first, self._ended = self._ended, terminated or truncated
        if -LARGEST <= reward <= LARGEST:  # as in Score: no episode's score may be one that nothing compares with
            self._score += reward
        self._length += not first
        episode = None
        if self._ended:
            episode, self._score, self._length = (self._score, self._length), 0.0, 0
        self.last = Row(observation, reward, terminated, truncated, first, episode)
        return self.last

    def render(self) -> np.ndarray:
        """Return the game's picture, u8 [H, W, 3]."""
        return self._game.render()

    def scene(self) -> Scene:
        """Return what another process needs to draw this moment."""
        return self._game.scene()

    def close(self) -> None:
        """Free what the game holds."""
        self._game.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state of the game, the open episode's score and length, and whether it has ended."""
        counted = {"score": self._score, "length": self._length, "ended": self._ended}
        return {**counted, "game": self._game.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._game.load_state_dict(state["game"])
        self._score, self._length = float(state["score"]), int(state["length"])
        self._ended = bool(state["ended"])

    def _checked(self, observation: Any) -> np.ndarray:
        """Return an observation as an array; that of another number type may come, as long as it fits the spec's."""
        try:
            seen = np.asarray(observation)
        except ValueError as error:  # lists of unequal lengths
            raise Fallen(f"its observation is no array: {error}") from error
        if seen.shape != self._shape:
            raise Fallen(f"its observation has shape {seen.shape}, not {self._shape}")
        if seen.dtype is not self._dtype and seen.dtype not in self._fitting:
            if np.can_cast(seen.dtype, self._dtype, "same_kind"):
                self._fitting.add(seen.dtype)
            elif not (self._dtype == np.uint8 and seen.dtype.kind in "iu" and ((seen >= 0) & (seen <= 255)).all()):
                raise Fallen(f"its observation is of type {seen.dtype}, which is no {self._dtype}")
        return seen


def number(reward: Any) -> float:
    """Return a reward as a float, whether it is finite or not; Fallen when it is not one number."""
    if not isinstance(reward, (int, float, np.generic, np.ndarray)) or np.size(reward) != 1:
        raise Fallen(f"its reward is not a number but {_shown(reward)}")
    if np.asarray(reward).dtype.kind not in "fiub":
        raise Fallen(f"its reward is not a number but {_shown(reward)}")
    return float(np.asarray(reward).reshape(()))


def truth(flag: Any) -> bool:
    """Return one of a step's two ends as a bool; Fallen when it is neither a bool nor 0 or 1."""
    if not isinstance(flag, (int, np.generic, np.ndarray)) or np.size(flag) != 1 or not (flag == 0 or flag == 1):
        raise Fallen(f"its end is not a bool but {_shown(flag)}")
    return bool(flag)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


def counted(spec: GameSpec, make: Callable[[], Game]) -> CountedGame:
    """Make a game and return it counted; with functools.partial, what a vector makes its games with."""
    return CountedGame(spec, make())
