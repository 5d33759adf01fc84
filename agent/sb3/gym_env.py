"""Our games for stable-baselines3's own algorithms: one game as a gymnasium.Env, several of them as an SB3 VecEnv.

Our vectors reset a game in the step after its end and step the other games meanwhile, SB3 wants the reset inside the
ending step. With one game per vector both are exact: the answer to `reset` is the beat whose action is ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from agent.guard import RESTARTS, Faults, finite_rows
from agent.types import VectorEnv


class GameAsEnv(gymnasium.Env):
    """One game as a `gymnasium.Env`; `games` is a vector of exactly one, with a `spec` that says what it is.

    `reset()` after an end lets the game go on to its next episode by itself; `reset(seed)` starts it anew. Episodes
    that really ended, with their raw score, stand in `info["episodes"]`, which `ScoreMonitor` reads.

    A step whose observation or reward is not finite, or in which the game was replaced, is told as a truncation with
    the observation before it and reward 0: SB3 has no way to leave one out. The next episode then begins where the game
    stands, or as soon as its observation is finite again. Such steps are counted in `faults`, under this `number`.

    Raises NonFinite as `Faults.check` does, and ValueError when the vector has another length.
    """

    def __init__(self, games: VectorEnv, faults: Faults | None = None, number: int = 0):
        if games.num_envs != 1:
            raise ValueError(f"GameAsEnv needs a vector of one game, not of {games.num_envs}.")
        spec = games.spec  # type: ignore[attr-defined]
        self.games = games
        low, high = (0, 255) if spec.observation_dtype == "uint8" else (-np.inf, np.inf)
        self.observation_space = spaces.Box(low, high, spec.observation_shape, np.dtype(spec.observation_dtype).type)
        self.action_space: spaces.Space
        if spec.num_actions:
            self.action_space = spaces.Discrete(spec.num_actions)
        else:
            self.action_space = spaces.Box(np.float32(spec.action_low), np.float32(spec.action_high))
        self._started = False
        self._cut = False  # whether the game goes on behind an episode that was cut short
        self._faults = Faults() if faults is None else faults
        self._number = np.array([number])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Return the first observation of a new episode; `options` are ignored."""
        super().reset(seed=seed)
        if seed is not None or not (self._cut or (self._started and self._has_ended())):
            # A game in the middle of an episode (or not yet started) can only be reset through a seed.
            self.games.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._started, self._cut = True, False
        while self._has_ended() or not finite_rows(self.games.current.observation)[0]:
            self._beat(np.zeros(self.action_space.shape))  # behind an end its action is ignored
        return self.games.current.observation[0].copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play one step; the reward is the raw one."""
        # Copied because the vector may reuse its memory at the next beat.
        before = self.games.current.observation[0].copy()
        is_finite = self._beat(action)
        step = self.games.current
        info = {"episodes": list(step.episodes)}
        if not is_finite or step.restarted[0]:
            self._cut = True
            return before, 0.0, False, True, info
        observation = step.observation[0].copy()
        return observation, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def close(self) -> None:
        """Close the game."""
        self.games.close()

    def _has_ended(self) -> bool:
        return bool(self.games.current.terminated[0] or self.games.current.truncated[0])

    def _beat(self, action: Any) -> bool:
        """Play one step; return whether all that it tells is finite."""
        self.games.send(np.asarray(action, self.action_space.dtype)[None])
        step = self.games.recv()
        finite = finite_rows(step.observation) & finite_rows(step.reward)
        if not step.first[0] or not finite[0]:
            self._faults.steps(self._number, ~finite)
        if step.restarted[0]:
            self._faults.add(RESTARTS)
        self._faults.check()
        return bool(finite[0])


class ScoreMonitor(Monitor):
    """SB3's Monitor for `GameAsEnv`: an episode is what the game itself counts as one, below every clipping.

    With `life_loss_ends` the learner sees an end at every lost life; Monitor would take each life for an episode.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one step; when a game is over `info["episode"]` is {"r": score, "l": steps, "t": seconds}."""
        if self.needs_reset:
            raise RuntimeError("The episode is over: call reset() before step().")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.needs_reset = terminated or truncated
        self.total_steps += 1
        for episode in info.pop("episodes"):
            elapsed = time.time() - self.t_start
            self.episode_returns.append(episode.score)
            self.episode_lengths.append(episode.length)
            self.episode_times.append(elapsed)
            info["episode"] = {"r": round(float(episode.score), 6), "l": int(episode.length), "t": round(elapsed, 6)}
        return observation, reward, terminated, truncated, info


class ClipReward(VecEnvWrapper):
    """Limits rewards to plus or minus `limit` for the algorithm; the monitors below keep the raw scores."""

    def __init__(self, venv: VecEnv, limit: float):
        super().__init__(venv)
        self.limit = limit

    def reset(self) -> Any:
        """Reset all games."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Return the step with clipped rewards."""
        observation, reward, done, infos = self.venv.step_wait()
        return observation, np.clip(reward, -self.limit, self.limit), done, infos


def make_vec_env(
    factories: Sequence[Callable[[], VectorEnv | gymnasium.Env]],
    *,
    reward_clip: float | None = None,
    faults: Faults | None = None,
) -> VecEnv:
    """Return an SB3 VecEnv with one monitored game per factory, stepped one after the other in this process.

    Each factory makes a vector of one game, or a `gymnasium.Env`. `seed` and `reset` of the VecEnv are SB3's: game i
    starts from seed + i. `reward_clip` limits what the algorithm sees, only. `faults` counts what was not finite.
    """

    def monitored(number: int, make: Callable[[], VectorEnv | gymnasium.Env]) -> gymnasium.Env:
        game = make()
        return Monitor(game) if isinstance(game, gymnasium.Env) else ScoreMonitor(GameAsEnv(game, faults, number))

    venv: VecEnv = DummyVecEnv([partial(monitored, *each) for each in enumerate(factories)])
    return venv if reward_clip is None else ClipReward(venv, reward_clip)
