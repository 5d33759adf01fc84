"""Gymnasium's games, in this process or in worker processes, with an exact state for any simulator that repeats itself.

Most simulators cannot give their state (Box2D has no such call), so a game's state is the random generator that its
episode began with and the actions since: putting it back plays them again and compares what comes out.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FlattenObservation

from envs.host import counted
from envs.inline import InlineVector
from envs.scenes import Scene
from envs.seeds import SeedPool
from envs.spec import GameSpec
from envs.workers import DEADLINE_S, WorkerVector

_ACTION_NAMES = {  # as Gymnasium's documentation has them
    "CartPole-v1": ("push cart to the left", "push cart to the right"),
    "Acrobot-v1": ("apply -1 torque", "apply 0 torque", "apply 1 torque"),
    "MountainCar-v0": ("accelerate to the left", "don't accelerate", "accelerate to the right"),
    "LunarLander-v3": ("do nothing", "fire left engine", "fire main engine", "fire right engine"),
}
# pygame would greet on stdout, among the results, and look for a screen and a loudspeaker that nobody asked for.
_QUIET = {"PYGAME_HIDE_SUPPORT_PROMPT": "1", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
_SLOW_STEP_S = 1e-3  # a message to a worker and back costs about a tenth of this
_TIMED_STEPS = 50
_NO_PICTURES = "This game was made without pictures: make_vector_env(..., render=True) draws them."


class Replayable(gymnasium.Wrapper):
    """One game that begins anew by itself on the step after an end, and whose state can be taken and put back.

    With `seeds` every episode starts from one of them.
    """

    def __init__(self, env: gymnasium.Env, seeds: Sequence[int] | None = None) -> None:
        super().__init__(env)
        self._pool = None if seeds is None else SeedPool(seeds)
        self._first_action = int(env.action_space.start) if isinstance(env.action_space, Discrete) else None
        self._seed: int | None = None
        self._random: dict[str, Any] | None = None
        dtype = np.float32 if self._first_action is None else np.min_scalar_type(int(env.action_space.n) - 1)
        self._actions = np.empty((512, *env.action_space.shape), dtype=dtype)  # grows; a list takes a scene too long
        self._length = 0  # of the episode so far
        self._observation: np.ndarray | None = None
        self._ended = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and remember what it began from."""
        return self._begin(seed if self._pool is None else self._pool.draw(seed)), {}

    def begin(self, seed: int | None, random: Mapping[str, Any] | None) -> Any:
        """Begin the episode that once began from `seed` or, without one, from the generator's state `random`."""
        if seed is None:
            self.unwrapped.np_random.bit_generator.state = random
        return self._begin(seed)

    def _begin(self, seed: int | None) -> Any:
        self._seed = seed
        self._random = None if seed is not None else self._generator_state()
        self._length = 0
        self._ended = False
        self._observation, _ = self.env.reset(seed=seed)
        return self._observation

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step; after an end, begin anew and ignore the action."""
        if self._ended:
            return self.reset()[0], 0.0, False, False, {}
        if self._first_action is None:
            action = np.array(action, dtype=np.float32)
            answer = self.env.step(action.astype(self.env.action_space.dtype))
        else:
            action = int(action)
            answer = self.env.step(action + self._first_action)
        if self._length == len(self._actions):
            self._actions = np.concatenate((self._actions, np.empty_like(self._actions)))
        self._actions[self._length] = action
        self._length += 1
        self._observation, reward, terminated, truncated, _ = answer
        self._ended = bool(terminated or truncated)
        return self._observation, reward, terminated, truncated, {}

    def render(self) -> np.ndarray:
        """Return a picture, u8 [H, W, 3]; RuntimeError when the game was not made for it."""
        if self.env.render_mode is None:
            raise RuntimeError(_NO_PICTURES)
        return np.asarray(self.env.render(), dtype=np.uint8)

    def scene(self) -> Scene:
        """Return what another process needs to draw this moment; costs no drawing, whatever the game."""
        if self._observation is None:
            raise RuntimeError("Reset the games before asking for a scene.")
        seen = np.array(self._observation)
        if seen.dtype == np.uint8 and seen.shape[2:] in ((1,), (3,)):
            return Scene("picture", {}, {"picture": seen.repeat(3 // seen.shape[2], axis=2)})
        facts = {"seed": self._seed, "random": _plain(self._random)}
        return Scene("replay", facts, {"actions": self._actions[: self._length].copy(), "observation": seen})

    def state_dict(self) -> dict[str, Any]:
        """Return how the open episode began, its actions, and what it has come to."""
        state = {
            "seed": self._seed,
            "random_at_start": self._random,
            "actions": self._actions[: self._length].astype(np.float32 if self._first_action is None else np.int64),
            "observation": np.array(self._observation),
            "random": self._generator_state(),
            "ended": self._ended,
        }
        return state if self._pool is None else state | {"random_pool": self._pool.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the saved episode again; ValueError when the game does not come to the same observation."""
        self.begin(state["seed"], state["random_at_start"])
        for action in np.asarray(state["actions"]):
            if self._ended:
                break
            self.step(action)
        wanted, found = np.asarray(state["observation"]), np.asarray(self._observation)
        same = (
            wanted.tobytes() == found.tobytes()
            and self._ended == state["ended"]
            and self._length == len(state["actions"])
            and _plain(self._generator_state()) == _plain(state["random"])
        )
        if not same:
            raise ValueError(
                f"{self.unwrapped.spec.id} is not deterministic: the same"
                " seed and actions led to another observation, so its exact state cannot be put back."
            )
        if self._pool is not None:
            self._pool.load_state_dict(state.get("random_pool"))

    def _generator_state(self) -> dict[str, Any]:
        return self.unwrapped.np_random.bit_generator.state


def make_classic(
    name: str,
    gymnasium_id: str,
    num_envs: int,
    *,
    vectorize: str = "inline",
    render: bool = False,
    seeds: Sequence[int] | None = None,
    deadline_s: float = DEADLINE_S,
) -> InlineVector | WorkerVector:
    """Return `num_envs` copies of a Gymnasium game; `vectorize` is inline, workers, or auto: whichever is faster.

    With `seeds` every episode of every copy starts from one of them. `deadline_s` is for workers.
    Both kinds answer the same seed and actions with the same steps, so the choice never shows in a result.
    """
    spec = classic_spec(name, gymnasium_id, render)
    if vectorize == "auto":
        several = num_envs > 1 and (os.cpu_count() or 1) > 1
        vectorize = "workers" if several and seconds_per_step(gymnasium_id) > _SLOW_STEP_S else "inline"
    host = partial(counted, spec, partial(make_game, gymnasium_id, render, seeds))
    if vectorize == "workers":
        return WorkerVector(spec, num_envs, host, deadline_s=deadline_s)
    return InlineVector(spec, num_envs, host)


def classic_spec(name: str, gymnasium_id: str, render: bool = False) -> GameSpec:
    """Describe a Gymnasium game under the name `name`; ValueError when its spaces are not ours, or it cannot be drawn
    though `render` asks for it.
    """
    with make_game(gymnasium_id, render) as game:
        actions, observations = game.action_space, game.observation_space
        num_actions = int(actions.n) if isinstance(actions, Discrete) else 0
        threshold = game.unwrapped.spec.reward_threshold
        pixels = observations.dtype == np.uint8 and len(observations.shape) == 3
        return GameSpec(
            name=name,
            observation_shape=tuple(int(size) for size in observations.shape),
            observation_dtype="uint8" if observations.dtype == np.uint8 else "float32",
            stack=1,
            num_actions=num_actions,
            action_names=_ACTION_NAMES.get(gymnasium_id, tuple(str(action) for action in range(num_actions))),
            frame_skip=1,
            fps=float(game.metadata.get("render_fps") or 30.0),
            gymnasium_id=gymnasium_id,
            pixels=pixels,
            solved_at=None if threshold is None else float(threshold),
            action_low=None if num_actions else tuple(actions.low.tolist()),
            action_high=None if num_actions else tuple(actions.high.tolist()),
        )


def seconds_per_step(gymnasium_id: str) -> float:
    """Return the median time of a random step, measured on a copy of its own."""
    with make_game(gymnasium_id, render=False) as game:
        random = np.random.default_rng(0)
        game.reset(seed=0)
        times = []
        for _ in range(_TIMED_STEPS):
            space = game.action_space
            action = random.integers(space.n) if isinstance(space, Discrete) else np.clip(0.0, space.low, space.high)
            start = time.perf_counter()
            game.step(action)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def make_game(gymnasium_id: str, render: bool, seeds: Sequence[int] | None = None) -> Replayable:
    """Return one game; ValueError when it cannot be made, drawn, or has other spaces."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        game = gymnasium.make(gymnasium_id, render_mode="rgb_array" if render else None, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        hint = " Atari games are called atari/<rom> here." if gymnasium_id.startswith("ALE/") else ""
        raise ValueError(f"Gymnasium cannot make {gymnasium_id!r}: {error}{hint}") from error
    try:
        if render and "rgb_array" not in game.metadata.get("render_modes", ()):
            raise ValueError(f"{gymnasium_id} cannot be watched: it draws no pictures (no render mode rgb_array).")
        return Replayable(_with_known_spaces(game), seeds)
    except ValueError:
        game.close()
        raise


def _with_known_spaces(game: gymnasium.Env) -> gymnasium.Env:
    name = game.spec.id
    observations, actions = game.observation_space, game.action_space
    if isinstance(observations, Discrete):
        game = FlattenObservation(game)  # one-hot
    elif not isinstance(observations, Box) or not observations.shape:
        raise ValueError(f"{name} has observations of {observations}: only Box and Discrete spaces are supported.")
    if not isinstance(actions, Discrete) and not (isinstance(actions, Box) and len(actions.shape) == 1):
        raise ValueError(f"{name} has actions of {actions}: only Discrete and flat Box spaces are supported.")
    return game


def _plain(state: Any) -> Any:
    """Return a generator's state with its arrays as lists, so that two can be compared."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return np.asarray(state).tolist() if isinstance(state, np.ndarray) else state
