"""What a trainer copies so that another process can draw its game, and who draws it there.

Most simulators can only draw themselves, which takes milliseconds that a trainer does not have. But a game of
Gymnasium repeats itself exactly from its beginning and its actions, so these few numbers are its scene, and the
viewer's own copy plays them again. Games whose observation is a picture hand that over.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from envs.make import CLASSIC, canonical

if TYPE_CHECKING:
    from envs.classic import Replayable


# Gymnasium's games and pygame import parts of themselves when a game is made and when it is first drawn, and imports of
# several threads break each other: whoever draws in a thread holds this for so long.
first_use = threading.Lock()


class Scene(NamedTuple):
    """One moment of one game, of JSON's values and plain arrays only; the arrays never change afterwards.

    `picture`: arrays["picture"], u8 [H, W, 3]. `replay`: how the episode began, facts["seed"] or else the generator's
    state facts["random"]; its actions so far, arrays["actions"] [T] or [T, n]; what it came to, arrays["observation"].
    """

    kind: str  # "picture" or "replay"
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Painter:
    """Draws the scenes of one game, as cheaply as one comes after the other; not for several threads at once.

    `family` carries the settings that `envs.make.make_vector_env` takes, none of which Gymnasium's games need.
    """

    def __init__(self, name: str, **_family: Any) -> None:
        self._name = canonical(name)
        self._game: Replayable | None = None
        self._began: dict[str, Any] | None = None  # facts of the episode that the copy plays
        self._actions = np.zeros(0)  # what it has played
        self._observation = b""  # what it came to
        self._picture: np.ndarray | None = None  # of this moment, None until it is drawn
        self._refused: str | None = None

    def paint(self, scene: Scene) -> np.ndarray:
        """Return the picture of a scene, u8 [H, W, 3]; ValueError when it cannot be drawn, and why."""
        if scene.kind == "picture":
            return scene.arrays["picture"]
        if scene.kind != "replay":
            raise ValueError(f"A scene of {self._name} is a picture or a replay, not {scene.kind!r}.")
        if self._refused:
            raise ValueError(self._refused)  # it would be no truer, and playing takes time
        self._follow(scene)
        if self._observation != scene.arrays["observation"].tobytes():
            self._refused = (
                f"{self._name} is not deterministic: the same beginning and actions led to another observation, so a"
                " trainer's game cannot be drawn from outside. Watch the policy in a game of its own instead."
            )
            raise ValueError(self._refused)
        if self._picture is None:
            self._picture = self._game.render()
        return self._picture

    def close(self) -> None:
        """Free the copy of the game; a second call does nothing."""
        if self._game is not None:
            self._game.close()
        self._game = None
        self._began = None

    def _follow(self, scene: Scene) -> None:
        """Bring the copy to the scene, from where it stands if the scene goes on from there."""
        if self._game is None:
            self._game = self._make()
        actions = np.array(scene.arrays["actions"])
        known = len(self._actions)
        if self._began != scene.facts or not np.array_equal(self._actions, actions[:known]):
            self._picture = None
            known = 0
        self._began = None  # while it plays: after an error nobody could tell where the copy stands
        if known == 0:
            self._observation = self._game.begin(scene.facts["seed"], scene.facts["random"]).tobytes()
        for action in actions[known:]:
            self._observation = self._game.step(action)[0].tobytes()
            self._picture = None
        self._began = scene.facts
        self._actions = actions

    def _make(self) -> Replayable:
        if "/" in self._name and not self._name.startswith("gym:"):
            raise ValueError(f"{self._name} gives pictures, and this scene is to be played: it is of another game.")
        with first_use:
            from envs.classic import make_game

            game = make_game(CLASSIC.get(self._name, self._name.removeprefix("gym:")), render=True)
            game.reset(seed=0)
            game.render()
        return game
