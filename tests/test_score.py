"""Score counts as a person with a pencil would, and its state is all it knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.score import Score
from envs.step import Episode, Step


def answers(draw_seed: int, steps: int, num_envs: int) -> list[tuple[np.ndarray, ...]]:
    """Random answers of games with next-step autoreset: observation, reward, terminated, truncated."""
    random = np.random.default_rng(draw_seed)
    ended = np.zeros(num_envs, dtype=bool)
    result = []
    for _ in range(steps):
        ends = (random.random(num_envs) < 0.3) & ~ended
        terminated = ends & (random.random(num_envs) < 0.5)
        reward = np.where(ended, 0.0, random.normal(size=num_envs) * 10)
        result.append((random.random((num_envs, 2)), reward, terminated, ends & ~terminated))
        ended = ends
    return result


def assert_same_step(one: Step, other: Step) -> None:
    """Compare two steps bit for bit."""
    for name, left, right in zip(Step._fields, one, other, strict=True):
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype and np.array_equal(left, right), name
        else:
            assert left == right, name


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=60)
def test_episodes_equal_a_slow_count(seed: int, steps: int, num_envs: int) -> None:
    """Scores are sums of raw rewards, lengths leave out the row that begins an episode, and each end counts once."""
    score = Score(num_envs)
    assert score.start(np.zeros((num_envs, 2))).first.all()
    open_rewards: list[list[float]] = [[] for _ in range(num_envs)]
    ended = [False] * num_envs
    for observation, reward, terminated, truncated in answers(seed, steps, num_envs):
        step = score.step(observation, reward, terminated, truncated)
        expected = []
        for game in range(num_envs):
            assert step.first[game] == ended[game]
            if not ended[game]:
                open_rewards[game].append(float(reward[game]))
            ended[game] = bool(terminated[game] or truncated[game])
            if ended[game]:
                expected.append(Episode(game, pytest.approx(sum(open_rewards[game])), len(open_rewards[game])))
                open_rewards[game] = []
        assert list(step.episodes) == expected
        assert step.reward.dtype == np.float32
        assert step is score.current


def test_rewards_are_counted_in_double_precision() -> None:
    """A long episode's score does not suffer from the rewards being handed out as float32."""
    score = Score(1)
    score.start(np.zeros((1, 1)))
    no, yes = np.array([False]), np.array([True])
    score.step(np.zeros((1, 1)), np.array([2.0**24]), no, no)
    score.step(np.zeros((1, 1)), np.array([1.0]), no, no)
    assert score.step(np.zeros((1, 1)), np.array([1.0]), yes, no).episodes == (Episode(0, 2.0**24 + 2, 3),)


@given(st.integers(0, 2**32), st.integers(0, 20))
@settings(max_examples=30)
def test_state_continues_the_open_episodes(seed: int, cut: int) -> None:
    """A new Score with the state of an old one goes on exactly as the old one, `current` included."""
    rows = answers(seed, 40, 3)
    straight = Score(3)
    straight.start(np.zeros((3, 2)))
    for row in rows[:cut]:
        straight.step(*row)
    resumed = Score(3)
    resumed.load_state_dict(straight.state_dict())
    assert_same_step(straight.current, resumed.current)
    for row in rows[cut:]:
        assert_same_step(straight.step(*row), resumed.step(*row))


def test_state_is_a_copy() -> None:
    """A state that was taken does not change when the games play on."""
    score = Score(2)
    score.start(np.zeros((2, 1)))
    state = score.state_dict()
    no = np.zeros(2, dtype=bool)
    score.step(np.zeros((2, 1)), np.ones(2), ~no, no)
    assert state["score"].tolist() == [0, 0] and not state["ended"].any()


def test_state_of_another_size_is_refused() -> None:
    """A state of three games does not fit a vector of two, and the message says so."""
    score = Score(3)
    score.start(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="holds 3 games, but this vector has 2"):
        Score(2).load_state_dict(score.state_dict())
    with pytest.raises(RuntimeError, match="before its first reset"):
        Score(2).state_dict()


def test_reset_forgets_open_episodes() -> None:
    """After a reset in the middle of an episode its rewards are not counted into the next."""
    score = Score(1)
    no, yes = np.array([False]), np.array([True])
    score.start(np.zeros((1, 1)))
    score.step(np.zeros((1, 1)), np.array([5.0]), no, no)
    score.start(np.zeros((1, 1)))
    assert score.step(np.zeros((1, 1)), np.array([1.0]), no, yes).episodes == (Episode(0, 1.0, 1),)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_reward_that_is_no_number_does_not_spoil_a_score(value: float, recwarn: pytest.WarningsRecorder) -> None:
    """It adds nothing to its episode's score, without a warning, and is told as it is: not finite."""
    score, no = Score(2), np.zeros(2, bool)
    score.start(np.zeros((2, 1)))
    rewards = [[1.0, 5.0], [value, 6.0], [2.0, 1e30]]
    for reward in rewards:
        step = score.step(np.zeros((2, 1)), np.array(reward), no | (reward == rewards[-1]), no)
        assert np.isfinite(step.reward).tolist() == [reward != rewards[1], True]
    assert step.episodes == (Episode(0, 3.0, 3), Episode(1, 11.0 + 1e30, 3)) and not len(recwarn)
