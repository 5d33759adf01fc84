"""The counting game says what it should, at every end, in every form."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.fakes import CountingGame, frame, reward

ACTION = np.zeros(3, dtype=np.int64)


def play(vector: CountingGame, steps: int) -> list:
    """The steps that answer `steps` actions."""
    result = []
    for _ in range(steps):
        vector.send(ACTION)
        result.append(vector.recv())
    return result


def stacked(game: int, episode: int, time: int, stack: int) -> np.ndarray:
    """The obvious stack: one frame per moment, zero before the episode."""
    blank = np.zeros((8, 8), dtype=np.uint8)
    return np.stack([frame(game, episode, t) if t >= 0 else blank for t in range(time - stack + 1, time + 1)])


@given(st.integers(0, 2**63), st.booleans(), st.floats(0.0, 1.0))
@settings(max_examples=40)
def test_next_step_observation_tells_game_episode_and_time(seed: int, pixels: bool, share: float) -> None:
    """A slow count of episodes and times, from the ends alone, predicts every observation and reward."""
    vector = CountingGame(3, pixels=pixels, end_probability=0.25, truncation_share=share)
    steps = [vector.reset(seed), *play(vector, 60)]
    episode, time, ended = [0] * 3, [-1] * 3, [False] * 3
    for step in steps:
        for game in range(3):
            if ended[game]:
                episode[game], time[game] = episode[game] + 1, -1
            time[game] += 1
            moment = (game, episode[game], time[game])
            assert step.first[game] == (time[game] == 0)
            assert step.reward[game] == (0.0 if time[game] == 0 else reward(*moment))
            assert np.array_equal(step.observation[game], stacked(*moment, stack=4) if pixels else moment)
            ended[game] = bool(step.terminated[game] or step.truncated[game])
    assert sum(len(step.episodes) for step in steps) == sum((s.terminated | s.truncated).sum() for s in steps)


@given(st.integers(0, 2**63), st.booleans())
@settings(max_examples=40)
def test_same_step_begins_together_with_the_end(seed: int, pixels: bool) -> None:
    """With same_step the end's row shows the new episode, final_observation the old one, and its reward counts."""
    vector = CountingGame(3, pixels=pixels, end_probability=0.25, same_step=True)
    vector.reset(seed)
    episode, time = [0] * 3, [0] * 3
    for step in play(vector, 60):
        assert np.array_equal(step.first, step.terminated | step.truncated)
        lengths = {end.game: end.length for end in step.episodes}
        for game in range(3):
            time[game] += 1
            moment = (game, episode[game], time[game])
            assert step.reward[game] == reward(*moment)
            assert np.array_equal(step.final_observation[game], stacked(*moment, stack=4) if pixels else moment)
            assert lengths.get(game) == (time[game] if step.first[game] else None)
            if step.first[game]:
                episode[game], time[game] = episode[game] + 1, 0
            moment = (game, episode[game], time[game])
            assert np.array_equal(step.observation[game], stacked(*moment, stack=4) if pixels else moment)


def test_frames_and_rewards_are_distinct() -> None:
    """No two moments look alike or pay alike, no frame is blank, and rewards are exact in float32."""
    moments = list(product(range(4), range(30), range(40)))
    assert len({frame(*moment).tobytes() for moment in moments}) == len(moments)
    assert len({reward(*moment) for moment in moments}) == len(moments)
    assert all(frame(*moment).min(initial=255) >= 0 and frame(*moment).any() for moment in moments)
    assert all(float(np.float32(reward(*moment))) == reward(*moment) for moment in moments)


def test_both_kinds_of_end_happen_at_their_share() -> None:
    """truncation_share 0 and 1 give one kind of end only; end_probability 0 gives none."""
    for share, probability in product((0.0, 1.0), (0.0, 0.5)):
        vector = CountingGame(3, truncation_share=share, end_probability=probability)
        vector.reset(1)
        steps = play(vector, 30)
        assert any(step.terminated.any() for step in steps) == (share == 0.0 and probability > 0)
        assert any(step.truncated.any() for step in steps) == (share == 1.0 and probability > 0)


def test_options_shape_the_spec() -> None:
    """Stack, size and action names are the caller's, and an unknown action is refused."""
    spec = CountingGame(2, pixels=True, stack=3, size=5, action_names=("a", "b", "c d")).spec
    assert spec.observation_shape == (3, 5, 5) and spec.stack == 3 and spec.pixels
    assert spec.action_names == ("a", "b", "c d") and spec.num_actions == 3
    assert CountingGame(2).spec.observation_shape == (3,)
    vector = CountingGame(3)
    with pytest.raises(RuntimeError, match="Reset"):
        vector.send(ACTION)
    vector.reset(0)
    with pytest.raises(RuntimeError, match="Send"):
        vector.recv()
    with pytest.raises(ValueError, match="0 .. 1"):
        vector.send(ACTION + 2)
    assert vector.render(1).shape == (8, 8, 3)


@pytest.mark.parametrize("same_step", [False, True])
def test_state_is_exact(same_step: bool) -> None:
    """A new vector with the state of an old one goes on with the same steps, final observations included."""
    straight = CountingGame(3, pixels=True, end_probability=0.3, same_step=same_step)
    straight.reset(5)
    for _ in range(6):
        play(straight, 7)
        resumed = CountingGame(3, pixels=True, end_probability=0.3, same_step=same_step)
        resumed.load_state_dict(straight.state_dict())
        both = zip([straight.current, *play(straight, 10)], [resumed.current, *play(resumed, 10)], strict=True)
        for one, other in both:
            assert one.episodes == other.episodes
            for left, right in zip(one, other, strict=True):
                assert np.array_equal(left, right)
