"""Gymnasium's games, in this process or in worker processes, with an exact state for any simulator that repeats itself.

Most simulators cannot give their state (Box2D has no such call), so a game's state is the random generator that its
episode began with and the actions since: putting it back plays them again and compares what comes out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import FlattenObservation

from envs.inline import InlineVector, check_same_game
from envs.scenes import Scene
from envs.score import Score
from envs.seeds import SeedPool
from envs.spec import GameSpec, checked_actions, game_seeds
from envs.step import Step

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
_ANSWER_TIMEOUT_S = 300.0
_CLOSE_TIMEOUT_S = 5.0
_NO_PICTURES = "This game was made without pictures: make_vector_env(..., render=True) draws them."


class Replayable(gymnasium.Wrapper):
    """One game that begins anew by itself on the step after an end, and whose state can be taken and put back.

    With `seeds` every episode starts from one of them.
    """

    def __init__(self, env: gymnasium.Env, row: int = 0, seeds: Sequence[int] | None = None) -> None:
        super().__init__(env)
        self._row = row
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
        return self._observation, float(reward), bool(terminated), bool(truncated), {}

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

    def state(self) -> dict[str, Any]:
        """As `state_dict`, under a name that a wrapped game is unlikely to have."""
        return self.state_dict()

    def load_own_state(self, states: Mapping[str, Any]) -> str | None:
        """Put back this game's own state out of those of the whole vector; return why not, as an error ends a worker."""
        try:
            self.load_state_dict(states[str(self._row)])
        except ValueError as error:
            return str(error)
        return None

    def _generator_state(self) -> dict[str, Any]:
        return self.unwrapped.np_random.bit_generator.state


class _Workers(AsyncVectorEnv):
    """Gymnasium's worker processes, of which one alone can be asked: `call` sends a message to each."""

    def call_one(self, row: int, name: str) -> Any:
        """Return what the method `name` of the game in column `row` answers."""
        pipe = self.parent_pipes[row]
        pipe.send(("_call", (name, (), {})))
        if not pipe.poll(_ANSWER_TIMEOUT_S):
            raise multiprocessing.TimeoutError
        answer, worked = pipe.recv()
        self._raise_if_errors([worked or other != row for other in range(self.num_envs)])
        return answer


class WorkerVector:
    """B Gymnasium games, each in its own process, with the verbs reset, send, recv; they play from `send` on."""

    stateful = True

    def __init__(
        self, spec: GameSpec, num_envs: int, gymnasium_id: str, render: bool, seeds: Sequence[int] | None
    ) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self._score = Score(num_envs)
        self._waiting = False
        self._workers = _Workers(
            [partial(make_game, gymnasium_id, render, row, seeds) for row in range(num_envs)],
            shared_memory=True,
            copy=False,
            # Forked workers start at once and leave no helper process behind; elsewhere than on Linux fork is unsafe.
            context="fork" if sys.platform == "linux" else "spawn",
            daemon=True,
            # Replayable begins anew by itself, as it must after its state was put back at an end.
            autoreset_mode=AutoresetMode.DISABLED,
        )

    @property
    def current(self) -> Step | None:
        """The newest step, None before the first reset."""
        return self._score.current

    def reset(self, seed: int) -> Step:
        """Start every game anew from `seed`; open episodes are dropped."""
        if self._waiting:
            self._receive()
        observation, _ = self._answer("reset", seed=game_seeds(seed, self.num_envs))
        return self._score.start(np.array(observation, dtype=self.spec.observation_dtype))

    def send(self, action: np.ndarray) -> None:
        """Start the games on their next step without waiting: i64 [B], or f32 [B, n] when actions are continuous."""
        if self.current is None:
            raise RuntimeError("Reset the games before the first action.")
        self._answer("step_async", checked_actions(self.spec, self.num_envs, action))
        self._waiting = True

    def recv(self) -> Step:
        """Wait for the games and return their step."""
        if not self._waiting:
            raise RuntimeError("Send actions before receiving a step.")
        observation, reward, terminated, truncated, _ = self._receive()
        return self._score.step(
            np.array(observation, dtype=self.spec.observation_dtype), reward, terminated, truncated
        )

    def render(self, game: int = 0) -> np.ndarray:
        """Return a picture of one game, u8 [H, W, 3]."""
        if self._workers.render_mode is None:
            raise RuntimeError(_NO_PICTURES)
        return self._ask(game, "render")

    def scene(self, game: int = 0) -> Scene:
        """Return what another process needs to draw one game; only that game's worker is asked."""
        return self._ask(game, "scene")

    def close(self) -> None:
        """End the workers, by force when they do not answer; a second call does nothing."""
        if self._workers.closed:
            return
        try:
            if self._waiting:
                self._workers.step_wait(timeout=_CLOSE_TIMEOUT_S)
            self._workers.close(timeout=_CLOSE_TIMEOUT_S)
        except Exception:  # dead or hung: whatever state they are in, they must not outlive this call
            for process in self._workers.processes:
                process.kill()
                process.join()
            self._workers.closed = True

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state of every game, of the score and the newest step."""
        if self._waiting:
            raise RuntimeError("Receive the step that was sent for before taking the state of the games.")
        score = self._score.state_dict()
        games = self._answer("call", "state")
        return {
            "game": self.spec.name,
            "score": score,
            "games": {str(row): game for row, game in enumerate(games)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, from either kind of vector; ValueError when it is of other games."""
        check_same_game(self.spec, state)
        self._score.load_state_dict(state["score"])
        for error in self._answer("call", "load_own_state", dict(state["games"])):
            if error is not None:
                raise ValueError(error)

    def _ask(self, game: int, name: str) -> Any:
        if self.current is None or self._waiting:
            raise RuntimeError(f"Reset the games, and receive what was sent for, before asking one for its {name}.")
        return self._answer("call_one", game, name)

    def _receive(self) -> tuple[Any, ...]:
        answer = self._answer("step_wait", timeout=_ANSWER_TIMEOUT_S)
        self._waiting = False  # only now: a worker that did not answer cannot be closed by asking
        return answer

    def _answer(self, verb: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._workers, verb)(*arguments, **options)
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"A worker process of {self.spec.name} has died; start the vector again.") from error
        except multiprocessing.TimeoutError as error:
            raise RuntimeError(
                f"A worker process of {self.spec.name} did not answer within {_ANSWER_TIMEOUT_S:.0f} seconds."
            ) from error


def make_classic(
    name: str,
    gymnasium_id: str,
    num_envs: int,
    *,
    vectorize: str = "inline",
    render: bool = False,
    seeds: Sequence[int] | None = None,
) -> InlineVector | WorkerVector:
    """Return `num_envs` copies of a Gymnasium game; `vectorize` is inline, workers, or auto: whichever is faster.

    With `seeds` every episode of every copy starts from one of them.
    Both kinds answer the same seed and actions with the same steps, so the choice never shows in a result.
    """
    spec = classic_spec(name, gymnasium_id)
    if vectorize == "auto":
        several = num_envs > 1 and (os.cpu_count() or 1) > 1
        vectorize = "workers" if several and seconds_per_step(gymnasium_id) > _SLOW_STEP_S else "inline"
    if vectorize == "workers":
        return WorkerVector(spec, num_envs, gymnasium_id, render, seeds)
    return InlineVector(spec, [make_game(gymnasium_id, render, row, seeds) for row in range(num_envs)])


def classic_spec(name: str, gymnasium_id: str) -> GameSpec:
    """Describe a Gymnasium game under the name `name`; ValueError when its spaces are not ours."""
    with make_game(gymnasium_id, render=False) as game:
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


def make_game(gymnasium_id: str, render: bool, row: int = 0, seeds: Sequence[int] | None = None) -> Replayable:
    """Return one game, for column `row` of a vector; ValueError when it cannot be made, drawn, or has other spaces."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    if multiprocessing.parent_process() is not None:
        # Ctrl-C reaches every process of the terminal: it is for the parent, which finishes the step and saves.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        game = gymnasium.make(gymnasium_id, render_mode="rgb_array" if render else None, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        hint = " Atari games are called atari/<rom> here." if gymnasium_id.startswith("ALE/") else ""
        raise ValueError(f"Gymnasium cannot make {gymnasium_id!r}: {error}{hint}") from error
    try:
        if render and "rgb_array" not in game.metadata.get("render_modes", ()):
            raise ValueError(f"{gymnasium_id} cannot be watched: it draws no pictures (no render mode rgb_array).")
        return Replayable(_with_known_spaces(game), row, seeds)
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
