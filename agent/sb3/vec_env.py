"""An SB3 VecEnv as games for our loop: same-step autoreset, with the terminal observations where SB3 keeps them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize, is_vecenv_wrapped

from agent.guard import finite_or_zero, single


class FinishedEpisode(NamedTuple):
    """A finished game, as agent.types.Episode."""

    game: int
    score: float
    length: int


class SameStep(NamedTuple):
    """One step of a VecEnv, as agent.types.Step: `first` is set together with the end."""

    observation: np.ndarray  # [B, *observation_shape]
    reward: np.ndarray  # f32 [B]
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    first: np.ndarray  # bool [B]
    episodes: tuple[FinishedEpisode, ...]
    final_observation: np.ndarray | None  # [B, *observation_shape], rows that did not end are meaningless
    restarted: np.ndarray  # bool [B], never: an SB3 VecEnv replaces no game


def require_playable(venv: VecEnv) -> None:
    """Raise ValueError, with the remedy, for a VecEnv whose observations or actions our agent cannot take."""
    if not isinstance(venv.observation_space, spaces.Box):
        raise ValueError(
            f"Icebox takes array observations (a Box space), not {venv.observation_space}: "
            "flatten them with gymnasium.wrappers.FlattenObservation."
        )
    if not isinstance(venv.action_space, spaces.Discrete):
        raise ValueError(
            f"Icebox takes discrete actions, not {venv.action_space}: use SAC, TD3 or TQC (--algo sac, td3 or tqc)."
        )
    if venv.action_space.start != 0:
        raise ValueError(f"Icebox takes actions counted from 0, not {venv.action_space}.")
    if is_vecenv_wrapped(venv, VecNormalize):
        raise ValueError(
            "Icebox does not take a VecNormalize: its statistics move while replay keeps what they once gave. "
            "Normalise inside the environment with fixed numbers, or not at all."
        )


class VecEnvAsGames:
    """A VecEnv under the verbs reset, send, recv of agent.types.VectorEnv.

    Episodes are those of SB3's Monitor or VecMonitor where there is one, else they are counted here from the rewards.
    `infos` holds SB3's dicts of the newest step. Raises ValueError as `require_playable` does.
    """

    def __init__(self, venv: VecEnv):
        require_playable(venv)
        self.venv = venv
        self.num_envs = venv.num_envs
        self.current: SameStep
        self._dtype = np.uint8 if venv.observation_space.dtype == np.uint8 else np.float32  # what replay keeps
        self.infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._monitored = is_vecenv_wrapped(venv, VecMonitor) or all(venv.env_is_wrapped(Monitor))
        self._forget_episodes()

    def reset(self, seed: int) -> SameStep:
        """Start every game anew; game i is seeded with `seed` + i, as VecEnv.seed does."""
        self.venv.seed(seed)
        return self.adopt(self.venv.reset())

    def adopt(self, observation: np.ndarray) -> SameStep:
        """Go on from `observation`, [B, *shape], that somebody else got by resetting the VecEnv."""
        self._forget_episodes()
        no, yes = np.zeros(self.num_envs, bool), np.ones(self.num_envs, bool)
        reward = np.zeros(self.num_envs, np.float32)
        self.current = SameStep(self._own(observation), reward, no, no, yes, (), None, no)
        return self.current

    def send(self, action: np.ndarray) -> None:
        """Start the games on their next step; `action` is i64 [B]."""
        self.venv.step_async(action)

    def recv(self) -> SameStep:
        """Wait for the games and return their step."""
        observation, reward, done, self.infos = self.venv.step_wait()
        observation = self._own(observation)
        done = np.array(done, bool)
        timeout = np.array([bool(info.get("TimeLimit.truncated", False)) for info in self.infos])
        final = None
        if done.any():
            final = observation.copy()
            for game in np.flatnonzero(done):
                terminal = self.infos[game].get("terminal_observation")
                if terminal is None:
                    raise ValueError(
                        "This VecEnv ended an episode without infos[i]['terminal_observation']; SB3 requires it, "
                        "and without it the value of a truncated episode would be that of the next one's start."
                    )
                final[game] = terminal
        reward = single(reward)
        episodes = self._count_episodes(reward, done)
        ends = done & ~timeout, done & timeout, done
        self.current = SameStep(observation, reward, *ends, episodes, final, np.zeros(self.num_envs, bool))
        return self.current

    def close(self) -> None:
        """Close the VecEnv."""
        self.venv.close()

    def _own(self, observation: np.ndarray) -> np.ndarray:
        """Return a copy: some VecEnvs hand out the memory of their next step, or a transposed view."""
        return single(observation) if self._dtype == np.float32 else np.array(observation, self._dtype, order="C")

    def _forget_episodes(self) -> None:
        self._scores = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def _count_episodes(self, reward: np.ndarray, done: np.ndarray) -> tuple[FinishedEpisode, ...]:
        if self._monitored:
            return tuple(
                FinishedEpisode(game, float(info["episode"]["r"]), int(info["episode"]["l"]))
                for game, info in enumerate(self.infos)
                if "episode" in info
            )
        self._scores += finite_or_zero(reward)
        self._lengths += 1
        ended = np.flatnonzero(done).tolist()
        episodes = tuple(FinishedEpisode(game, float(self._scores[game]), int(self._lengths[game])) for game in ended)
        self._scores[ended] = 0.0
        self._lengths[ended] = 0
        return episodes
