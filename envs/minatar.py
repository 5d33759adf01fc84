"""MinAtar's five games, played in this process, with a time limit and an exact state (Young and Tian 2019)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from envs.host import counted
from envs.inline import InlineVector
from envs.scenes import Scene
from envs.seeds import SeedPool
from envs.spec import GameSpec
from envs.workers import DEADLINE_S, WorkerVector

_ACTION_NAMES = {"n": "noop", "l": "left", "u": "up", "r": "right", "d": "down", "f": "fire"}
_CONSTANT = {"random", "channels", "action_map"}  # attributes of a game that are no part of its changing state
_SCALE = 20  # screen pixels per cell
_DARK = (14, 17, 23)
_COLOURS = {  # by channel, lowest first; the colours of one game differ for the colour-blind too (a test holds it)
    "trail": (74, 82, 98),
    "speed1": (38, 52, 96),
    "speed2": (52, 80, 140),
    "speed3": (70, 112, 182),
    "speed4": (98, 148, 222),
    "speed5": (150, 192, 250),
    "brick": (213, 94, 0),
    "alien": (0, 158, 115),
    "alien_left": (0, 158, 115),
    "alien_right": (86, 180, 233),
    "oxygen_guage": (86, 180, 233),
    "diver_guage": (0, 158, 115),
    "diver": (150, 230, 160),
    "gold": (240, 228, 66),
    "enemy_fish": (165, 75, 240),
    "enemy_sub": (230, 159, 0),
    "enemy": (213, 94, 0),
    "car": (230, 159, 0),
    "enemy_bullet": (213, 94, 0),
    "friendly_bullet": (240, 228, 66),
    "ball": (240, 228, 66),
    "sub_back": (186, 190, 198),
    "sub_front": (245, 245, 245),
    "player": (245, 245, 245),
    "paddle": (245, 245, 245),
    "chicken": (245, 245, 245),
    "cannon": (245, 245, 245),
}


def load_games(rom: str) -> ModuleType:
    """Return MinAtar's own module of the game `rom`, such as `space_invaders`.

    It is read from the installed package without importing the package, whose first line of business is to import
    seaborn and with it two seconds of plotting and statistics.
    """
    package = importlib.util.find_spec("minatar")
    if package is None or not package.submodule_search_locations:
        raise ValueError(f'minatar/{rom} needs MinAtar: pip install minatar')
    path = Path(package.submodule_search_locations[0]) / "environments" / f"{rom}.py"
    source = importlib.util.spec_from_file_location(f"envs._minatar_{rom}", path)
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


class MinAtarGame:
    """One MinAtar game with sticky actions and a time limit; the steps are those of `minatar.Environment`.

    With `seeds` every episode starts from one of them, sticky actions included.
    """

    def __init__(
        self,
        rom: str,
        *,
        sticky_actions: float,
        ramping: bool,
        minimal_actions: bool,
        max_steps: int,
        seeds: Sequence[int] | None = None,
    ) -> None:
        self._env = load_games(rom).Env(ramping=ramping)
        self._sticky_actions = sticky_actions
        self._max_steps = max_steps
        self._pool = None if seeds is None else SeedPool(seeds)
        self._actions = self._env.minimal_action_set() if minimal_actions else list(range(len(self._env.action_map)))
        self._last_action = 0
        self._steps = 0
        self._ended = False
        self.action_names = tuple(_ACTION_NAMES[self._env.action_map[action]] for action in self._actions)
        self.num_channels = len(self._env.channels)
        lowest_first = sorted(self._env.channels, key=list(_COLOURS).index)
        self._palette = np.array([_DARK, *(_COLOURS[name] for name in lowest_first)], dtype=np.uint8)
        self._order = [self._env.channels[name] for name in lowest_first]
        self._heights = np.arange(1, self.num_channels + 1, dtype=np.uint8)

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode. Unlike in MinAtar, the sticky action of the old episode is forgotten."""
        if self._pool is not None:
            seed = self._pool.draw(seed)
        if seed is not None:
            self._env.random = np.random.RandomState(seed)
        self._env.reset()
        self._last_action = 0
        self._steps = 0
        self._ended = False
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play one step; after an end, begin anew and ignore the action."""
        if self._ended:
            return self.reset()[0], 0.0, False, False, {}
        action = self._actions[action]
        if self._env.random.rand() < self._sticky_actions:
            action = self._last_action
        self._last_action = action
        reward, terminated = self._env.act(action)
        self._steps += 1
        truncated = self._steps >= self._max_steps and not terminated
        self._ended = terminated or truncated
        return self._observation(), float(reward), terminated, truncated, {}

    def render(self) -> np.ndarray:
        """Return the board as it is drawn for people, u8 [200, 200, 3]."""
        return self._picture().repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)

    def scene(self) -> Scene:
        """Return the board's picture with one pixel per cell, u8 [10, 10, 3]."""
        return Scene("picture", {}, {"picture": self._picture()})

    def _picture(self) -> np.ndarray:
        return self._palette[(self._env.state()[:, :, self._order] * self._heights).max(axis=2)]

    def close(self) -> None:
        """Nothing is held."""

    def state_dict(self) -> dict[str, Any]:
        """Return every attribute of the game that can change, and its random generator."""
        random = self._env.random.get_state(legacy=False)
        state = {
            "attributes": {name: _plain(value) for name, value in vars(self._env).items() if name not in _CONSTANT},
            "random_key": random["state"]["key"].astype(np.int64),
            "random_position": int(random["state"]["pos"]),
            "last_action": self._last_action,
            "steps": self._steps,
            "ended": self._ended,
        }
        return state if self._pool is None else state | {"random_pool": self._pool.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError when MinAtar's attributes are others."""
        attributes = state["attributes"]
        expected = vars(self._env).keys() - _CONSTANT
        if attributes.keys() != expected:
            raise ValueError(
                f"The saved game has the attributes {sorted(attributes)}, but this version of MinAtar has"
                f" {sorted(expected)}: install the version of MinAtar that the state was saved with."
            )
        for name, value in attributes.items():
            # The games change their lists in place: what was given must not change with them.
            is_array = isinstance(getattr(self._env, name), np.ndarray)
            setattr(self._env, name, np.array(value) if is_array else _plain(value))
        key = np.asarray(state["random_key"]).astype(np.uint32)
        self._env.random = np.random.RandomState()
        self._env.random.set_state(("MT19937", key, state["random_position"]))
        self._last_action = state["last_action"]
        self._steps = state["steps"]
        self._ended = state["ended"]
        if self._pool is not None:
            self._pool.load_state_dict(state.get("random_pool"))

    def _observation(self) -> np.ndarray:
        return self._env.state().transpose(2, 0, 1)  # bool [C, 10, 10]


def _plain(value: Any) -> Any:
    """Return a copy of an attribute with numpy's numbers turned into Python's, which the games treat alike."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value


def make_minatar(
    rom: str, num_envs: int, *, vectorize: str = "inline", deadline_s: float = DEADLINE_S, **settings: Any
) -> InlineVector | WorkerVector:
    """Return `num_envs` copies of a MinAtar game, in this process or in workers; `settings` are `MinAtarGame`'s."""
    make = partial(MinAtarGame, rom, **settings)
    spec = minatar_spec(rom, make())
    host = partial(counted, spec, make)
    if vectorize == "workers":
        return WorkerVector(spec, num_envs, host, deadline_s=deadline_s)
    return InlineVector(spec, num_envs, host)


def minatar_spec(rom: str, game: MinAtarGame) -> GameSpec:
    """Describe a MinAtar game: boards u8 [C, 10, 10] of zeros and ones."""
    return GameSpec(
        name=f"minatar/{rom}",
        observation_shape=(game.num_channels, 10, 10),
        observation_dtype="uint8",
        stack=1,
        num_actions=len(game.action_names),
        action_names=game.action_names,
        frame_skip=1,
        fps=30.0,  # smooth; it has no pace of its own (minatar's display pauses 50 ms a step)
        gymnasium_id=None,  # MinAtar/* exists only after minatar.gym.register_envs(), with other axes
        pixels=False,
        solved_at=None,
    )
