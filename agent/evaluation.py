"""Judging a policy: whole episodes on separate games, raw scores, the same number of episodes from every game."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from agent.types import Episode, Step, VectorEnv


def play_episodes(
    games: VectorEnv,
    act: Callable[[np.ndarray], np.ndarray],
    episodes: int,
    seed: int,
    on_episode: Callable[[Episode], None] | None = None,
    on_step: Callable[[Step, np.ndarray, Step], object] | None = None,
) -> list[Episode]:
    """Return `episodes` finished episodes, started from `seed`, with actions from `act` ([B, *shape] -> [B]).

    `on_episode` hears of each as it ends, `on_step` of what every action led to.

    Every game plays its own quota and what it finishes beyond that is not counted: taking the first to finish would
    prefer short episodes. Where the quota does not divide, the first games play one more.
    """
    quota = [math.ceil((episodes - game) / games.num_envs) for game in range(games.num_envs)]
    finished: list[Episode] = []
    games.reset(seed)
    while len(finished) < episodes:
        step = games.current
        action = act(step.observation)
        games.send(action)
        next_step = games.recv()
        if on_step is not None:
            on_step(step, action, next_step)
        for episode in next_step.episodes:
            if quota[episode.game] > 0:
                quota[episode.game] -= 1
                finished.append(episode)
                if on_episode is not None:
                    on_episode(episode)
    return finished
