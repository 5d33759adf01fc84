"""Tests of agent/freeze/gate.py: which choices count as the same, and which scores pass."""

from __future__ import annotations

import numpy as np
import pytest

from agent.freeze.gate import TIE, agreement, compare, paired, visited
from agent.freeze.graph import Continuous, Discrete
from envs.fakes import CountingGame
from envs.step import Episode, Step


def still(observation: np.ndarray) -> np.ndarray:
    """Always the first action."""
    return np.zeros(len(observation), np.int64)


class Dice:
    """Games of one step: game i of the round begun from `seed` scores a number of its own, times 1 + the action."""

    num_envs = 5

    def __init__(self) -> None:
        self.played: list[tuple[int, float]] = []

    def reset(self, seed: int) -> None:
        self.seed = seed
        self.luck = np.random.default_rng(seed).random(self.num_envs)
        no = np.zeros(self.num_envs, bool)
        self.current = Step(np.zeros((self.num_envs, 1)), np.zeros(self.num_envs, np.float32), no, no, no)

    def send(self, action: np.ndarray) -> None:
        self.played.append((self.seed, float(action[0])))
        self.scores = self.luck * (1 + action)

    def recv(self) -> Step:
        episodes = tuple(Episode(game, float(self.scores[game]), 1) for game in reversed(range(self.num_envs)))
        return self.current._replace(episodes=episodes)


def constant(value: float):
    """A policy that always answers `value`."""
    return lambda observation: np.full(len(observation), value)


def test_agreement_counts_ties_and_regret() -> None:
    """A changed choice is a tie when the live policy's own values lie within TIE, else it costs the gap over the spread."""
    live = np.array([[1.0, 0.0], [1.0, 1.0 - TIE / 2], [1.0, 0.5], [2.0, 0.0]], np.float32)
    frozen = live.copy()
    frozen[1], frozen[2] = (0.0, 1.0), (0.25, 0.5)
    found = agreement(live, frozen, Discrete(2), live.argmax(axis=1), frozen.argmax(axis=1))
    assert (found.states, found.agree, found.ties) == (4, 0.5, 1)
    assert found.regret == pytest.approx((1 + 1) / 4, rel=1e-3)  # each changed choice loses its state's whole spread


def test_agreement_ignores_a_constant_per_state() -> None:
    """Outputs that differ by one number per state agree exactly: a dropped value stream is no difference."""
    live = np.random.default_rng(0).normal(size=(50, 3))
    shifted = live + np.arange(50)[:, None]
    found = agreement(live, shifted, Discrete(3), live.argmax(axis=1), shifted.argmax(axis=1))
    assert found.agree == 1 and found.largest_difference < 1e-12
    shifted[7, 1] += 3
    apart = agreement(live, shifted, Discrete(3), live.argmax(axis=1), shifted.argmax(axis=1))
    assert apart.largest_difference == pytest.approx(2)  # 3 less its mean over three actions


def test_continuous_actions_agree_within_a_hundredth_of_the_range() -> None:
    """Every entry must be near; the largest difference is that of the actions."""
    head = Continuous((-2.0, 0.0), (2.0, 1.0), "clip")
    live = np.zeros((3, 2), np.float32)
    frozen = np.array([[0.03, 0.009], [0.05, 0.0], [0.0, 0.02]], np.float32)
    found = agreement(live, frozen, head, live, frozen)
    assert found.agree == pytest.approx(1 / 3) and found.largest_difference == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("lost", "passes"), [(0.0, True), (4.0, True), (6.0, False), (-50.0, True)], ids=["equal", "little", "much", "better"]
)
def test_the_lower_end_of_the_interval_decides(lost: float, passes: bool) -> None:
    """A policy passes when the interval of the mean difference ends above minus the margin, also with negative scores."""
    noise = np.random.default_rng(0).normal(size=400)
    for live in (np.full(400, 100.0), np.full(400, -100.0)):
        assert compare(live, live - lost + noise, 0.05).passed == passes
    wide = compare(live, live + 60 * noise, 0.05)
    assert wide.low < wide.difference < wide.high and not wide.passed  # on average equal, but nobody can tell


def test_paired_episodes_begin_alike() -> None:
    """Both policies play the same seeds, so that luck cancels: the difference of equal policies is exactly zero."""
    games = Dice()
    scores = paired(games, {"live": constant(1), "frozen": constant(1)}, 3, margin=0.05, episodes=20, most=20)
    assert (scores.episodes, scores.difference, scores.low, scores.high) == (20, 0, 0, 0) and scores.passed
    assert len({seed for seed, _ in games.played}) == 4 and len(games.played) == 8


def test_a_worse_policy_fails_at_once_and_a_doubtful_one_plays_on() -> None:
    """Clearly below the margin no more is played; in doubt the number is doubled up to the limit."""
    worse = paired(Dice(), {"live": constant(1), "frozen": constant(0)}, 3, margin=0.05, episodes=10, most=160)
    assert worse.episodes == 10 and not worse.passed
    turn = iter(np.random.default_rng(1).choice([0.0, 2.0], 1000))
    swings = {"live": constant(1), "frozen": lambda observation: constant(next(turn))(observation)}
    doubtful = paired(Dice(), swings, 3, margin=0.05, episodes=10, most=160)
    assert doubtful.episodes in (20, 40, 80, 160)


def test_the_live_policy_plays_each_round_once() -> None:
    """With the scores of the first comparison at hand a second one asks only the other policy."""
    kept: dict[int, np.ndarray] = {}
    games = Dice()
    first = paired(games, {"live": constant(1), "frozen": constant(1)}, 3, margin=0, episodes=10, most=10, live=kept)
    games.played.clear()
    again = paired(games, {"live": constant(7), "frozen": constant(1)}, 3, margin=0, episodes=10, most=10, live=kept)
    assert {action for _, action in games.played} == {1.0} and again == first


def test_states_come_from_whole_stretches_of_play() -> None:
    """So many states of every game as asked for, spread over the play, the same for the same seed."""
    games = CountingGame(4, end_probability=0.02)
    states = visited(games, still, 40, seed=1)
    assert states.shape == (40, 3)
    assert {int(game) for game in states[:, 0]} == {0, 1, 2, 3} and states[:, 2].max() > 40
    np.testing.assert_array_equal(states, visited(games, still, 40, seed=1))
    assert not np.array_equal(states, visited(games, still, 40, seed=2))


def test_a_share_of_the_actions_is_random() -> None:
    """With epsilon some actions are others than the policy's, and all are actions of the game."""
    games, sent = CountingGame(4), []
    send = games.send
    games.send = lambda action: (sent.append(action.copy()), send(action))[1]
    visited(games, still, 400, seed=1, epsilon=0.5, num_actions=2)
    assert 0.2 < np.mean(np.concatenate(sent)) < 0.3
    sent.clear()
    visited(games, still, 40, seed=1)
    assert not np.concatenate(sent).any()
