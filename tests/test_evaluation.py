"""Episodes counted by quota, so that short ones are not preferred."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.evaluation import play_episodes
from envs.step import Episode, Step


class FixedLengths:
    """Game i always lasts `lengths[i]` steps and scores 100 i + the actions of that episode; episodes are counted."""

    def __init__(self, lengths: list[int]):
        self.lengths, self.num_envs = lengths, len(lengths)
        self.seeds: list[int] = []

    def reset(self, seed: int) -> Step:
        self.seeds.append(seed)
        self.age = np.zeros(self.num_envs, int)
        self.score = 100.0 * np.arange(self.num_envs)
        self.sends = 0
        return self._step(())

    def send(self, action: np.ndarray) -> None:
        self.sends += 1
        self.age += 1
        self.score += action

    def recv(self) -> Step:
        over = [game for game in range(self.num_envs) if self.age[game] == self.lengths[game]]
        episodes = tuple(Episode(game, float(self.score[game]), int(self.age[game])) for game in over)
        self.age[over] = 0
        self.score[over] = 100.0 * np.array(over)
        return self._step(episodes)

    def _step(self, episodes: tuple[Episode, ...]) -> Step:
        no = np.zeros(self.num_envs, bool)
        self.current = Step(self.age.copy()[:, None], np.zeros(self.num_envs, np.float32), no, no, no, episodes)
        return self.current


def still(observation: np.ndarray) -> np.ndarray:
    return np.zeros(len(observation), np.int64)


def test_slow_games_count_as_often_as_fast_ones() -> None:
    """The mean length is that over games, though the short episodes of one game finish first."""
    games = FixedLengths([1, 50])
    finished = play_episodes(games, still, 10, seed=0)
    assert Counter(episode.game for episode in finished) == {0: 5, 1: 5}
    assert np.mean([episode.length for episode in finished]) == (1 + 50) / 2


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 20))
def test_every_game_plays_its_quota(lengths: list[int], episodes: int) -> None:
    """Exactly the episodes that were asked for, spread evenly, the remainder over the first games, and no step more."""
    games = FixedLengths(lengths)
    finished = play_episodes(games, still, episodes, seed=0)
    quota = Counter(game % len(lengths) for game in range(episodes))
    assert len(finished) == episodes and Counter(episode.game for episode in finished) == quota
    assert all(episode.length == lengths[episode.game] for episode in finished)
    assert games.sends == max(quota[game] * lengths[game] for game in quota)


def test_the_policy_plays_from_the_seed() -> None:
    """Games are reset once, from the seed; the policy sees every newest observation and its actions are played."""
    games = FixedLengths([2, 3])
    seen = []

    def act(observation: np.ndarray) -> np.ndarray:
        seen.append(observation[:, 0].tolist())
        return np.array([1, 10])

    finished = play_episodes(games, act, 2, seed=41)
    assert games.seeds == [41]
    assert seen == [[0, 0], [1, 1], [0, 2]]
    assert finished == [Episode(0, 2.0, 2), Episode(1, 130.0, 3)]


@pytest.mark.parametrize("episodes", [1, 5])
def test_each_counted_episode_is_told(episodes: int) -> None:
    """Who listens hears of exactly the returned episodes, in their order, each before the next step is played."""
    games = FixedLengths([1, 2, 3])
    heard, at = [], []

    def listen(episode: Episode) -> None:
        heard.append(episode)
        at.append(games.sends)

    assert play_episodes(games, still, episodes, 0, listen) == heard
    assert at == ([1] if episodes == 1 else [1, 2, 2, 3, 4])
