"""The Atari vector: raw scores, zero-filled stacks, time limits, and lives that end episodes for learning only."""

from __future__ import annotations

import numpy as np
import pytest

from agent.config import AtariSettings
from envs.atari import AtariVector, make_atari
from envs.step import Step

SETTINGS = {**AtariSettings().model_dump(), "threads": 1}


def make(rom: str, num_envs: int = 1, **changes) -> AtariVector:
    """A vector with the default settings and these changes, reset with seed 1."""
    vector = AtariVector(rom, num_envs, **{**SETTINGS, **changes})
    vector.reset(1)
    return vector


def play(vector: AtariVector, chosen: np.ndarray) -> list[Step]:
    """The steps that answer `chosen`, the newest step before them included."""
    steps = [vector.current]
    for action in chosen:
        vector.send(action)
        steps.append(vector.recv())
    return steps


def breakout_actions(count: int, num_envs: int) -> np.ndarray:
    """FIRE half of the time, so that balls are served and lost quickly."""
    random = np.random.default_rng(3)
    return np.where(random.random((count, num_envs)) < 0.5, 1, random.integers(4, size=(count, num_envs)))


def test_spec_follows_the_settings() -> None:
    """Stack, frame skip and action set shape the spec; names are ALE's; the id is Gymnasium's."""
    vector = make("space_invaders", stack=2, frame_skip=3, full_action_space=True)
    spec = vector.spec
    assert spec.observation_shape == (2, 84, 84) == vector.current.observation.shape[1:]
    assert (spec.num_actions, spec.frame_skip, spec.fps, spec.stack) == (18, 3, 20.0, 2)
    assert spec.action_names[:3] == ("NOOP", "FIRE", "UP") and spec.gymnasium_id == "ALE/SpaceInvaders-v5"
    assert make("space_invaders").spec.action_names == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


def test_frames_slide_through_the_stack_and_start_at_zero() -> None:
    """Each observation is the one before, one frame on; before an episode there is nothing but zeros."""
    vector = make("pong", max_frames=48)
    steps = play(vector, np.zeros((30, 1), dtype=np.int64))
    history: list[np.ndarray] = []
    for step in steps:
        history = [] if step.first[0] else history
        history.append(step.observation[0, -1])
        blank = [np.zeros_like(history[0])] * 4
        assert np.array_equal(step.observation[0], np.stack((blank + history)[-4:]))
    assert sum(step.first[0] for step in steps) == 3


def test_rewards_are_raw_and_the_limit_truncates() -> None:
    """Points are not clipped, and after max_frames emulator frames the episode is truncated, not terminated."""
    vector = make("space_invaders", max_frames=600)
    steps = play(vector, np.random.default_rng(0).integers(6, size=(150, 1)))
    assert max(step.reward[0] for step in steps) >= 5
    assert steps[150].truncated[0] and not any(step.truncated[0] for step in steps[:150])
    (episode,) = steps[150].episodes
    assert episode.length == 150 and episode.score == sum(float(step.reward[0]) for step in steps)


def test_threads_do_not_show_in_the_steps() -> None:
    """One thread and two give the same steps for the same seed."""
    chosen = breakout_actions(40, 3)
    for one, two in zip(play(make("breakout", 3), chosen), play(make("breakout", 3, threads=2), chosen), strict=True):
        assert one.observation.tobytes() == two.observation.tobytes() and one.reward.tobytes() == two.reward.tobytes()


@pytest.mark.parametrize("changes", [{}, {"life_loss_ends": True, "noop_max": 30, "sticky_actions": 0.25}])
def test_workers_play_the_same_games(changes: dict) -> None:
    """A process per game and one C++ vector give the same steps for the same seed, lost lives and ends included."""
    settings = {**SETTINGS, **changes, "max_frames": 400}
    chosen = breakout_actions(230, 3)
    threads, workers = make_atari("breakout", 3, **settings), make_atari("breakout", 3, vectorize="workers", **settings)
    try:
        for vector in (threads, workers, threads, workers):
            vector.reset(4)
        assert threads.spec == workers.spec and not workers.stateful
        ends = lost = 0
        for one, other in zip(play(threads, chosen), play(workers, chosen), strict=True):
            for name in ("observation", "reward", "terminated", "truncated", "first", "restarted"):
                left, right = getattr(one, name), getattr(other, name)
                assert left.dtype == right.dtype and left.tobytes() == right.tobytes(), name
            assert one.episodes == other.episodes
            ends += len(one.episodes)
            lost += one.terminated.sum()
        assert ends >= 6 and (lost > ends if changes else True)
        assert np.array_equal(threads.render(1), workers.render(1))
        assert np.array_equal(threads.scene(2).arrays["picture"], workers.scene(2).arrays["picture"])
        with pytest.raises(RuntimeError, match="cannot give its state"):
            workers.state_dict()
    finally:
        workers.close()


def test_lost_lives_end_episodes_for_learning_only() -> None:
    """Against a vector without life loss that plays NOOP after each lost life: same game, same scores; a lost life is a
    termination, the row after it is a first row of reward 0, and no stack reaches back over it."""
    learner, whole = make("breakout", 2, life_loss_ends=True), make("breakout", 2)
    history: list[list[np.ndarray]] = [[], []]
    lost = np.zeros(2, dtype=bool)
    ended = np.ones(2, dtype=bool)
    losses = games = 0
    learner_step, whole_step = learner.current, whole.current
    for action in breakout_actions(420, 2):
        assert np.array_equal(learner_step.first, ended)
        assert np.array_equal(learner_step.first, whole_step.first | lost)
        assert learner_step.episodes == whole_step.episodes
        games += len(whole_step.episodes)
        assert np.array_equal(learner_step.reward, np.where(learner_step.first, 0, whole_step.reward))
        assert np.array_equal(learner_step.truncated, whole_step.truncated)
        lost = learner_step.terminated & ~whole_step.terminated
        losses += lost.sum()
        ended = learner_step.terminated | learner_step.truncated
        assert not (ended & learner_step.first).any()
        for row in range(2):
            history[row] = [] if learner_step.first[row] else history[row]
            history[row].append(whole_step.observation[row, -1])
            blank = [np.zeros((84, 84), dtype=np.uint8)] * 4
            assert np.array_equal(learner_step.observation[row], np.stack((blank + history[row])[-4:]))
        learner.send(action)
        whole.send(np.where(lost, 0, action))
        learner_step, whole_step = learner.recv(), whole.recv()
    assert games >= 2 and losses >= 4 * games, "breakout has five lives, the last of which ends the game"


def test_a_game_that_ends_right_after_a_lost_life_begins_the_next() -> None:
    """When the game ends under the ignored action, that row scores the whole game and begins the next one at once."""
    chosen = breakout_actions(100, 2)
    free = play(make("breakout", 2, life_loss_ends=True), chosen)
    number = next(number for number, step in enumerate(free) if step.terminated.sum() == 1)  # one game loses a life
    row = int(np.flatnonzero(free[number].terminated)[0])
    vector = make("breakout", 2, life_loss_ends=True, max_frames=4 * (number + 1))
    start = vector.current.observation[row, -1]
    step = play(vector, chosen[: number + 1])[-1]
    assert step.first[row] and not step.terminated[row] and not step.truncated[row] and step.reward[row] == 0
    assert [(episode.game, episode.length) for episode in step.episodes] == [(0, number + 1), (1, number + 1)]
    assert not step.observation[row, :-1].any() and np.array_equal(step.observation[row, -1], start)
    assert step.truncated[1 - row] and not step.first[1 - row], "the other game ends as ever"
    # Not the newest frame: ALE stops before it looks at the last frame of an episode.
    assert np.array_equal(step.observation[1 - row, :-1], free[number + 1].observation[1 - row, :-1])
    again = play(vector, chosen[:9])
    assert not any(step.first[row] for step in again[1:]) and again[1].first[1 - row]
    assert again[-1].observation[row].any(axis=(1, 2)).all()


def test_life_loss_needs_lives() -> None:
    """A game without lives goes on as without the setting."""
    chosen = np.random.default_rng(0).integers(6, size=(60, 1))
    for one, other in zip(play(make("pong", life_loss_ends=True), chosen), play(make("pong"), chosen), strict=True):
        assert np.array_equal(one.terminated, other.terminated) and np.array_equal(one.observation, other.observation)


def test_noops_and_fire_change_the_start() -> None:
    """noop_max makes games of one vector start at different moments; fire_reset serves the ball."""
    starts = make("ms_pacman", 8, noop_max=30, sticky_actions=0.0).current.observation
    assert len({row.tobytes() for row in starts}) > 1
    starts = make("ms_pacman", 8, noop_max=0, sticky_actions=0.0).current.observation
    assert len({row.tobytes() for row in starts}) == 1
    stay = np.zeros((25, 1), dtype=np.int64)
    served, waiting = make("breakout", fire_reset=True), make("breakout", fire_reset=False)
    assert play(served, stay)[-1].observation.tobytes() != play(waiting, stay)[-1].observation.tobytes()


def test_render_is_the_newest_frame() -> None:
    """The picture is the newest frame of that game in gray."""
    vector = make("pong", 2)
    play(vector, np.array([[2, 3]] * 20))
    picture = vector.render(1)
    assert picture.shape == (84, 84, 3) and picture.dtype == np.uint8
    assert all(np.array_equal(picture[..., colour], vector.current.observation[1, -1]) for colour in range(3))


def test_verbs_out_of_order_are_refused() -> None:
    """Sending twice, and sending or drawing before a reset, are answered with a sentence."""
    vector = AtariVector("pong", 1, **SETTINGS)
    for verb in (lambda: vector.send(np.array([0])), vector.render):
        with pytest.raises(RuntimeError, match="Reset the games"):
            verb()
    vector.reset(0)
    vector.send(np.array([0]))
    with pytest.raises(RuntimeError, match="before sending again"):
        vector.send(np.array([0]))
    vector.close()
