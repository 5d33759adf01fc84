"""Tests of agent/replay/prefill.py: replay holds what a person played, and only that, whatever its columns are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taught import Episode, counting, play
from witness import DISCOUNT, SIZE, make

from agent.config import Settings
from agent.replay.demonstrations import DemonstrationWriter, game_facts, read
from agent.replay.prefill import fill
from agent.replay.replay import Replay
from envs.shown import Shown
from envs.spec import GameSpec
from envs.step import Step


def slow(episode: Episode, length: int, n_step: int) -> list[tuple]:
    """Every transition of the first `length` steps, the slow way; behind them the game was stopped."""
    found = []
    for t in range(length):
        k = min(n_step, length - t)
        r_t = sum(DISCOUNT**j * episode.reward[t + j] for j in range(k))
        ended = t + k == len(episode.action) and episode.terminated
        discount_t = 0.0 if ended else DISCOUNT**k
        found.append((*episode.seen[t].flat, episode.action[t], r_t, discount_t, *episode.seen[t + k].flat))
    return found


def placed(episodes: list[Episode], replay: Replay) -> list[tuple[Episode, int]]:
    """Which episodes come in and how much of each: the newest first, into the emptiest column."""
    room, taken = [-(-replay.capacity // replay.num_games)] * replay.num_games, []
    for episode in reversed(episodes):
        column = room.index(max(room))
        length = min(len(episode.action), room[column] - 1)
        if length > 0:
            room[column] -= length + 1
            taken.append((episode, length))
    return taken


def go_on(replay: Replay, spec: GameSpec, ticks: int) -> None:
    """Let the games of the run play: every step opens the row that is then n steps old."""
    games = replay.num_games
    no, blank = np.zeros(games, bool), np.zeros((games, *spec.observation_shape), np.uint8)
    for tick in range(ticks):
        step = Step(blank, np.zeros(games, np.float32), no, no, np.full(games, tick == 0))
        replay.insert(step, np.zeros(games, np.int64), step._replace(first=no))


def rows(replay: Replay, index: torch.Tensor) -> list[tuple]:
    """The transitions at `index` as plain numbers."""
    columns = [field.reshape(len(index), -1).double() for field in replay.gather(index)]
    return sorted(map(tuple, torch.cat(columns, 1).tolist()))


def compare(replay: Replay, episodes: list[Episode], lengths: list[int]) -> None:
    """All that can be sampled are those steps of those episodes, with everything that belongs to them."""
    replay.check()
    index = replay.tree.leaves.nonzero()[:, 0]
    want = [each for episode, n in zip(episodes, lengths, strict=True) for each in slow(episode, n, replay.n_step)]
    assert len(replay) == len(index) == len(want)
    if want:
        np.testing.assert_allclose(rows(replay, index), sorted(want), rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 7),
    num_games=st.integers(1, 4),
    capacity=st.integers(1, 120),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 4),
    p_end=st.sampled_from([0.05, 0.2, 0.6]),
)
def test_replay_holds_what_was_played(
    seed: int, count: int, num_games: int, capacity: int, stack: int, n_step: int, p_end: float
) -> None:
    """Stacks and windows are a slow loop's over the file's own list, never across episodes, as far as there is room."""
    spec = counting(stack, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        episodes = play(Path(folder), count, stack=stack, size=SIZE, p_end=p_end, seed=seed)
        replay = make(num_games, capacity, stack, n_step, observation_shape=spec.observation_shape)
        taken = fill(replay, read(Path(folder)), spec, {})
    found = placed(episodes, replay)
    steps = sum(length for _, length in found)
    assert (taken.episodes, taken.steps) == (len(found), steps) and steps <= capacity
    assert taken.left_out_steps == sum(len(each.action) for each in episodes) - steps
    replay.check()
    go_on(replay, spec, n_step)
    compare(replay, [episode for episode, _ in found], [length for _, length in found])


def test_what_is_sampled_is_what_was_played(tmp_path: Path) -> None:
    """Batches drawn before the run's first step are transitions of the files, each at the largest priority."""
    episodes = play(tmp_path, 6, stack=3, size=SIZE)
    replay = make(2, 200, 3, 3, priority_exponent=0.5)
    fill(replay, read(tmp_path), counting(3, SIZE), {})
    want = {each for episode in episodes for each in slow(episode, len(episode.action), 3)}
    want = np.array(sorted(want))
    batch = replay.sample(64, 0.4)
    got = np.array(rows(replay, batch.index))
    distance = np.abs(got[:, None] - want[None]).max(2)  # [64, transitions]
    assert distance.min(1).max() < 1e-5
    assert (batch.weight == 1.0).all() and set(replay.tree.leaves.tolist()) == {0.0, 1.0}


def test_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    """Columns of different length come back as they were, and both replays go on alike."""
    episodes = play(tmp_path, 3, stack=3, size=SIZE)
    replay, again = make(4, 400, 3, 2), make(4, 400, 3, 2)
    fill(replay, read(tmp_path), counting(3, SIZE), {})
    assert len(set(replay.film.cursor.tolist())) > 1
    again.load_state_dict(replay.state_dict())
    for each in (replay, again):
        go_on(each, counting(3, SIZE), 2)
        compare(each, episodes, [len(episode.action) for episode in episodes])


def test_rewards_are_clipped_as_any(tmp_path: Path) -> None:
    """The files hold raw rewards; replay clips them."""
    (episode,) = play(tmp_path, 1, stack=3, size=SIZE)
    replay = make(1, 100, 3, 1, reward_clip=0.5 * episode.reward[-1])
    fill(replay, read(tmp_path), counting(3, SIZE), {})
    assert replay.film.reward.max() == pytest.approx(0.5 * episode.reward[-1])
    assert read(tmp_path)[0].load().reward[-1] == np.float32(episode.reward[-1])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"name": "fake/other"}, 'its game is "fake/counting", this run\'s is "fake/other"'),
        ({"frame_skip": 4}, "its frame skip is 1, this run's is 4"),
        ({"action_names": ("wait", "count", "stop")}, r'its actions is \["wait", "count"\], this run'),
        ({"observation_shape": (3, 9, 9)}, r"its frame shape is \[3, 3\], this run's is \[9, 9\]"),
        ({"observation_dtype": "float32"}, 'its frame type is "uint8", this run\'s is "float32"'),
    ],
)
def test_another_game_is_refused_by_name(other: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What would put false transitions into replay is named with the file, and replay stays empty."""
    play(tmp_path, 2, stack=3, size=SIZE)
    replay, spec = make(1, 100, 3, 1), counting(3, SIZE)
    with pytest.raises(ValueError, match=f"0000.safetensors: {said}"):
        fill(replay, read(tmp_path), spec.__class__(**{**spec.__dict__, **other}), {})
    assert not replay.film.cursor.any()


def test_another_stack_is_no_matter(tmp_path: Path) -> None:
    """Files hold single frames: a run with a larger stack puts its own together."""
    (episode,) = play(tmp_path, 1, stack=2, size=SIZE)
    replay = make(1, 100, 4, 1)
    fill(replay, read(tmp_path), counting(4, SIZE), {})
    frames = np.concatenate([np.zeros((3, SIZE, SIZE), np.uint8), *(seen[-1:] for seen in episode.seen)])
    want = np.stack([frames[t : t + 4] for t in range(len(episode.seen))])
    np.testing.assert_array_equal(replay.film.stacks(torch.arange(len(want))), want)


def test_what_does_no_harm_is_said(tmp_path: Path) -> None:
    """Settings of the family that differ are named, the stack is not; the sentence counts steps and episodes."""
    (episode,) = play(tmp_path, 1, stack=3, size=SIZE, p_end=0.0, longest=7)
    taken = fill(make(1, 5, 3, 1), read(tmp_path), counting(3, SIZE), {"sticky_actions": 0.25, "stack": 3})
    assert str(taken) == (
        "4 steps of 1 demonstration (3 steps left out: replay.capacity has no room for them); "
        "the demonstrations were played with sticky_actions null, this run has 0.25"
    )


@pytest.mark.parametrize("name", ["minatar/breakout", "atari/pong", "cartpole"])
def test_replay_shows_what_the_person_saw(name: str, tmp_path: Path) -> None:
    """From the room's game through the file into replay: every observation is the one that was on the screen."""
    pytest.importorskip("minatar" if name.startswith("minatar") else "ale_py")
    settings = Settings().game
    family = {"atari": {**settings.atari.model_dump(), "max_frames": 160}, "minatar": settings.minatar.model_dump()}
    shown, rng = Shown(name, 3, **family), np.random.default_rng(0)
    spec, own = shown.spec, family.get(name.partition("/")[0], {})
    writer, seen, path = DemonstrationWriter(tmp_path, game_facts(spec, own, {})), [], None
    writer.begin(shown.observation, 3)
    while path is None:
        seen.append(shown.observation[0].copy())
        action = int(rng.integers(spec.num_actions))
        _, reward, terminated, truncated = shown.step(action)
        path = writer.step(action, reward, shown.observation, terminated, truncated)
    seen.append(shown.observation[0].copy())
    shown.close()
    replay = make(
        2, 4_000, spec.stack, 3, observation_shape=spec.observation_shape, observation_dtype=spec.observation_dtype
    )
    assert str(fill(replay, read(tmp_path), spec, own)) == f"{len(seen) - 1:,} steps of 1 demonstration"
    slots = torch.arange(len(seen)) * 2  # rows of the first column
    np.testing.assert_array_equal(replay.film.stacks(slots).numpy(), np.stack(seen))
