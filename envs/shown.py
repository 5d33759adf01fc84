"""One copy of a game for a person who watches or plays: smooth pictures, whole games, a known seed for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.atari import AtariScreen, AtariVector, Lives, atari_spec
from envs.make import canonical, make_vector_env
from envs.scenes import first_use
from envs.spec import checked_actions
from envs.step import Step


class Shown:
    """A game that begins only when told to, in which the same seed and actions are the same game for every policy.

    `atari` and `minatar` are the settings of that family, as for `envs.make.make_vector_env`; ValueError as there, and
    for games that draw no pictures. A policy sees what it sees in an evaluation, and an episode is a whole game.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        *,
        atari: Mapping[str, Any] | None = None,
        minatar: Mapping[str, Any] | None = None,
    ) -> None:
        with first_use:
            name = canonical(name)
            if name.startswith("atari/") and atari is not None:
                self._game = _Atari(name.removeprefix("atari/"), atari)
            else:
                self._game = _Other(name, atari, minatar)
            self.spec = self._game.spec
            self.steps_per_s = self.spec.fps
            self.seed = seed
            self.restart(seed)

    @property
    def observation(self) -> np.ndarray:
        """The newest, [1, *observation_shape]."""
        return self._game.observation

    @property
    def picture(self) -> np.ndarray:
        """The newest, u8 [H, W, 3]; MinAtar's has one pixel per cell."""
        return self._game.picture

    def restart(self, seed: int | None = None) -> None:
        """Begin the game of `seed`, or of the seed that follows from the last one; an open game is dropped."""
        if seed is None:
            seed = int(np.random.SeedSequence(self.seed).generate_state(1)[0]) % 2**31
        self.seed = seed
        self._game.restart(seed)
        self._ended = False

    def step(self, action: Any) -> tuple[list[np.ndarray], float, bool, bool]:
        """Play one step and return its pictures in the order to show, the raw reward, terminated and truncated."""
        if self._ended:
            raise RuntimeError(f"This game of {self.spec.name} has ended: restart() begins the next one.")
        action = np.asarray(action)
        action = checked_actions(self.spec, 1, action.reshape(1) if self.spec.num_actions else action.reshape(1, -1))
        pictures, reward, terminated, truncated = self._game.step(action)
        self._ended = terminated or truncated
        return pictures, reward, terminated, truncated

    def close(self) -> None:
        """Free the game; a second call does nothing."""
        self._game.close()


class _Other:
    """A game that gives one picture per step."""

    def __init__(self, name: str, atari: Mapping[str, Any] | None, minatar: Mapping[str, Any] | None) -> None:
        drawn = not name.startswith(("atari/", "minatar/"))
        vectorize = "inline" if drawn else "auto"
        self._vector = make_vector_env(name, 1, 0, vectorize=vectorize, atari=atari, minatar=minatar, render=drawn)
        self.spec = self._vector.spec
        self.picture: np.ndarray | None = None

    @property
    def observation(self) -> np.ndarray:
        return self._vector.current.observation

    def restart(self, seed: int) -> None:
        self._vector.reset(seed)
        self.picture = self._draw()

    def step(self, action: np.ndarray) -> tuple[list[np.ndarray], float, bool, bool]:
        self._vector.send(action)
        step = self._vector.recv()
        self.picture = self._draw()
        return [self.picture], float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0])

    def close(self) -> None:
        self._vector.close()

    def _draw(self) -> np.ndarray:
        scene = self._vector.scene()
        return scene.arrays["picture"] if scene.kind == "picture" else self._vector.render()


class _Atari:
    """An Atari game in colour, with two pictures per step where the frame skip allows it.

    At a frame skip of 4 a step is a fifteenth of a second, in which motion stutters. So a step is played as two of half
    the frame skip with the same action, on a stack twice as deep of which every other frame is the game's own. Sticky
    actions are drawn for every frame, so it is the same game. Only the last frame of an episode may differ from the
    plain vector's, and no action answers that: ALE does not look at it, and pools what it saw last.
    """

    def __init__(self, rom: str, settings: Mapping[str, Any]) -> None:
        self.spec = atari_spec(rom, **settings)
        frame_skip, stack = self.spec.frame_skip, self.spec.stack
        # Half of 2 is 1, at which ALE pools no two frames that follow each other; 30 steps a second are smooth anyway.
        self._parts = 2 if frame_skip >= 4 and frame_skip % 2 == 0 else 1
        halved = {"frame_skip": frame_skip // self._parts, "stack": stack * self._parts}
        halved = {**settings, **halved, "life_loss_ends": False, "threads": 1}
        self._vector = AtariVector(rom, 1, **halved)
        self._screen = AtariScreen(rom, **halved)
        # Whole games: a lost life shows only in the observation and in one ignored action, as in an evaluation.
        self._lives = Lives(1) if settings["life_loss_ends"] else None
        self.observation: np.ndarray | None = None  # u8 [1, stack, 84, 84]
        self.picture: np.ndarray | None = None

    def restart(self, seed: int) -> None:
        observation = self._vector.reset(seed).observation
        self.observation = observation[:, self._parts - 1 :: self._parts].copy()  # zeros before the start
        self.picture = self._screen.reset(seed)
        if self._lives:
            self._lives.start(self._vector.lives)

    def step(self, action: np.ndarray) -> tuple[list[np.ndarray], float, bool, bool]:
        if self._lives and self._lives.lost[0]:
            action = np.zeros_like(action)
        pictures, reward = [], 0.0
        for _ in range(self._parts):
            self._vector.send(action)
            pictures.append(self._screen.step(action))
            step = self._vector.recv()
            reward += float(step.reward[0])
            if step.terminated[0] or step.truncated[0]:
                break
        depth = step.observation.shape[1]
        older = range(depth - 1 - len(pictures), -1, -self._parts)  # the steps before; the newest may be cut short
        chosen = [*reversed(older[: self.spec.stack - 1]), depth - 1]
        self.observation = step.observation[:, chosen]  # a copy
        self.picture = pictures[-1]
        if self._lives:
            self.observation = self._lives.mark(self._whole(step), np.zeros(1, bool), self._vector.lives).observation
        return pictures, reward, bool(step.terminated[0]), bool(step.truncated[0])

    def close(self) -> None:
        self._vector.close()
        self._screen.close()

    def _whole(self, part: Step) -> Step:
        return part._replace(observation=self.observation, first=np.zeros(1, bool))
