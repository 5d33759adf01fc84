"""Judging a policy: whole episodes on separate games, raw scores, the same number of episodes from every game."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from agent.types import Episode, VectorEnv


def play_episodes(
    games: VectorEnv,
    act: Callable[[np.ndarray], np.ndarray],
    episodes: int,
    seed: int,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Return `episodes` finished episodes, started from `seed`, with actions from `act` ([B, *shape] -> [B]).

    `on_episode` hears of each as it ends.

    Every game plays its own quota and what it finishes beyond that is not counted: taking the first to finish would
    prefer short episodes. Where the quota does not divide, the first games play one more.
    """
    quota = [math.ceil((episodes - game) / games.num_envs) for game in range(games.num_envs)]
    finished: list[Episode] = []
    games.reset(seed)
    while len(finished) < episodes:
        games.send(act(games.current.observation))
        for episode in games.recv().episodes:
            if quota[episode.game] > 0:
                quota[episode.game] -= 1
                finished.append(episode)
                if on_episode is not None:
                    on_episode(episode)
    return finished
