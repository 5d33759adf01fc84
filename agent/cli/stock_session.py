"""One of stable-baselines3's own algorithms on our games, built from the settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from agent.cli.session import Act, Judge, family_settings, make_games, news, set_threads
from agent.config import Settings
from agent.guard import Faults, finite_or_zero
from agent.sb3 import gym_env, state, stock
from agent.types import VectorEnv
from envs.make import spec
from envs.scenes import Scene


class StockSession:
    """An algorithm of stable-baselines3 or sb3-contrib with its games and its judge."""

    def __init__(self, game: str, settings: Settings, *, num_games: int | None = None):
        if settings.evaluation.plateau.action == "lower":
            raise ValueError(
                f"evaluation.plateau.action: lower cannot be had with {settings.algo}, whose learning rate is its own."
                " Take stop or none."
            )
        self.game = game
        self.settings = settings
        self.spec = spec(game, **family_settings(settings))
        set_threads(settings, self.spec)
        # Made alike, for one set of seeds; they differ because SB3 resets each with a seed of its own.
        one = partial(make_games, game, settings, 1, owner="games", seeds=settings.game.seeds)
        games = [one] * (num_games or settings.game.num_games)
        self.faults = Faults()
        self.venv = gym_env.make_vec_env(games, reward_clip=settings.replay.reward_clip, faults=self.faults)
        try:
            self.algorithm = stock.build(settings.algo, self.venv, settings)
            stock.skip_unsound_updates(self.algorithm, self.faults)
        except BaseException:
            self.venv.close()
            raise
        self.judge = Judge(game, settings)
        self.settled = 0  # steps at the last moment at which everything played was learned from

    def act(self, seed: int) -> Act:
        """Return how the policy plays when it is judged: its own deterministic action, whatever `seed`."""

        def predict(observation: np.ndarray) -> np.ndarray:
            return self.algorithm.predict(finite_or_zero(observation), deterministic=True)[0]

        return predict

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.algorithm.num_timesteps

    @property
    def games(self) -> VectorEnv:
        """The first game, as a vector of one."""
        return self.venv.unwrapped.envs[0].unwrapped.games

    def scene(self) -> Scene:
        """Return what an onlooker needs to draw game 0."""
        return self.games.scene(0)

    def figures(self) -> dict[str, Any]:
        """Return what an onlooker is told once a second: None for what this algorithm does not have."""
        buffer = getattr(self.algorithm, "replay_buffer", None)
        games = self.venv.num_envs  # a row of SB3's buffer is a step of all games
        return {
            "replay_size": None if buffer is None else buffer.size() * games,
            "replay_capacity": None if buffer is None else buffer.buffer_size * games,
            "epsilon": getattr(self.algorithm, "exploration_rate", None),
        }

    def weights(self) -> dict[str, Any]:
        """Return what acting needs and nothing else."""
        return {"policy": self.algorithm.policy.state_dict(), "steps": self.algorithm.num_timesteps}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that lasts but the games, which start anew after a resume."""
        return state.state_dict(self.algorithm) | {"faults": self.faults.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        state.load_state_dict(self.algorithm, tree)
        self.faults.load_state_dict(tree.get("faults", {}))  # older checkpoints have none

    def lose_games(self) -> None:
        """Take it that the games were left or have failed in the middle of a step: a resumed run starts them anew.

        An unfinished rollout is dropped, with the steps that it has played.
        """
        self.algorithm._last_obs = None  # so that their state is not asked for
        if hasattr(self.algorithm, "rollout_buffer"):
            self.algorithm.num_timesteps = self.settled

    def news(self) -> list[str]:
        """Return what has happened to the games since the last call, a sentence each."""
        told = [sentence for env in self.venv.unwrapped.envs for sentence in news(env.unwrapped.games)]
        return told + self.judge.news()

    def sound(self) -> bool:
        """Return whether all weights are numbers."""
        return all(bool(part.isfinite().all()) for part in self.algorithm.policy.state_dict().values())

    def close(self) -> None:
        """Close all games."""
        self.venv.close()
        self.judge.close()
