"""A game for watching is the game that was trained and judged: same steps, smooth pictures, whole games, known seed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from agent.config import AtariSettings, MinAtarSettings
from envs.atari import AtariVector
from envs.make import make_vector_env
from envs.shown import Shown

ATARI = AtariSettings().model_dump()
FAMILY = {"atari": ATARI, "minatar": MinAtarSettings().model_dump()}


@pytest.fixture
def show() -> Iterator[Callable[..., Shown]]:
    """Makes games to watch, and closes them at the end."""
    kept = []

    def make(name: str, seed: int = 1, **changes) -> Shown:
        kept.append(Shown(name, seed, **{**FAMILY, "atari": {**ATARI, **changes}}))
        return kept[-1]

    yield make
    for shown in kept:
        shown.close()
        shown.close()


@pytest.mark.parametrize(
    ("rom", "changes", "pictures"),
    [
        ("breakout", {"sticky_actions": 0.0}, 2),  # to its end
        ("breakout", {"max_frames": 402}, 2),  # truncated in the middle of a step
        ("seaquest", {"noop_max": 30, "fire_reset": True, "max_frames": 200}, 2),
        pytest.param(
            "space_invaders", {"frame_skip": 6, "stack": 3, "full_action_space": True}, 2, marks=pytest.mark.slow
        ),
        ("pong", {"frame_skip": 3, "stack": 1, "max_frames": 150}, 1),
        ("breakout", {"frame_skip": 2, "max_frames": 100}, 1),
    ],
)
def test_halved_steps_are_the_plain_vectors_steps(rom: str, changes: dict, pictures: int, show) -> None:
    """Observations, rewards and ends equal those of the plain vector with the same seed and actions, from the zeros
    before the first frame to the end; sticky actions, no-ops and FIRE at the start included."""
    plain = AtariVector(rom, 1, **{**ATARI, **changes, "threads": 1})
    shown = show(f"atari/{rom}", **changes)
    assert shown.spec == plain.spec and shown.steps_per_s == 60 / plain.spec.frame_skip
    step = plain.reset(7)
    shown.restart(7)
    assert not step.observation[0, :-1].any()
    random = np.random.default_rng(0)
    score = length = 0
    while not (step.terminated[0] or step.truncated[0]):
        assert np.array_equal(shown.observation, step.observation)
        assert shown.observation.flags.c_contiguous and shown.observation.dtype == np.uint8
        action = random.integers(plain.spec.num_actions, size=1)
        plain.send(action)
        step = plain.recv()
        seen, reward, terminated, truncated = shown.step(action[0])
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        assert len(seen) == pictures or terminated or truncated
        score, length = score + reward, length + 1
    # The newest frame of an end is what ALE saw last, and nobody acts on it.
    assert np.array_equal(shown.observation[:, :-1], step.observation[:, :-1])
    assert step.episodes == ((0, score, length),)
    plain.close()


def test_a_game_goes_on_after_a_lost_life_as_it_is_judged(show) -> None:
    """With life_loss_ends an episode is the whole game, and a policy sees what it saw in training and evaluation: after
    a lost life one ignored action, then a stack that begins anew; the score counts every point."""
    plain = AtariVector("breakout", 1, **{**ATARI, "life_loss_ends": True, "threads": 1})
    shown = show("atari/breakout", life_loss_ends=True)
    step = plain.reset(4)
    shown.restart(4)
    random = np.random.default_rng(3)
    lost = score = 0
    while not step.episodes:
        assert np.array_equal(shown.observation, step.observation)
        action = np.where(random.random(1) < 0.5, 1, random.integers(4, size=1))
        plain.send(action)
        step = plain.recv()
        _, reward, terminated, truncated = shown.step(int(action[0]))
        score += reward
        lost += bool(step.terminated[0])
        assert (terminated or truncated) == bool(step.episodes)
    assert lost >= 5 and score == step.episodes[0].score
    plain.close()


def test_atari_moves_thirty_times_a_second_in_colour(show) -> None:
    """Two pictures a step of a television's size, which follow each other; in gray they are what the policy sees."""
    shown = show("atari/seaquest")
    random = np.random.default_rng(0)
    changed = 0
    for _ in range(40):
        before = shown.picture
        (first, second), *_ = shown.step(random.integers(18))
        assert first.shape == second.shape == (210, 160, 3) and second.dtype == np.uint8
        assert shown.picture is second
        changed += not np.array_equal(before, first) and not np.array_equal(first, second)
        gray = second @ (0.299, 0.587, 0.114)
        rows, columns = np.arange(84) * 210 // 84, np.arange(84) * 160 // 84
        assert abs(gray[rows][:, columns] - shown.observation[0, -1]).mean() < 6, "both emulators play one game"
    assert changed > 25 and np.ptp(second, axis=2).max() > 100


@pytest.mark.parametrize("name", ["cartpole", "lunar-lander", "minatar/breakout", "gym:Pendulum-v1"])
def test_other_games_are_the_plain_vectors_steps(name: str, show) -> None:
    """One picture a step; observations, rewards and ends of the plain vector with the same seed and actions."""
    plain = make_vector_env(name, 1, 3, render="minatar" not in name, **FAMILY)
    shown = show(name, 99)
    shown.restart(3)
    random = np.random.default_rng(0)
    step, ended = plain.current, False
    assert shown.spec == plain.spec and shown.steps_per_s == plain.spec.fps
    while not ended:
        assert np.array_equal(shown.observation, step.observation)
        action = random.integers(shown.spec.num_actions) if shown.spec.num_actions else random.uniform(-2, 2, 1)
        plain.send(np.array([action]) if shown.spec.num_actions else action[None])
        step = plain.recv()
        (picture,), reward, terminated, truncated = shown.step(action)
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        scale = 20 if "minatar" in name else 1
        assert np.array_equal(picture.repeat(scale, 0).repeat(scale, 1), plain.render()) and shown.picture is picture
        ended = terminated or truncated
    assert np.array_equal(shown.observation, step.observation)
    plain.close()


@pytest.mark.parametrize("name", ["cartpole", "minatar/seaquest", "atari/breakout"])
def test_one_seed_is_one_game(name: str, show) -> None:
    """Two copies told the same seed play the same game whatever they played before, and go on to the same next ones."""
    one, other = show(name, 1), show(name, 2)
    for number in range(17):
        one.step(number % 2)
    for seed in (5, None):
        one.restart(seed)
        other.restart(seed)
        assert one.seed == other.seed and (seed is None or one.seed == seed)
        for number in range(20):
            results = [shown.step(number % 3 % one.spec.num_actions) for shown in (one, other)]
            assert results[0][1:] == results[1][1:] and np.array_equal(one.observation, other.observation)
            assert all(np.array_equal(*pair) for pair in zip(results[0][0], results[1][0], strict=True))
            if results[0][2] or results[0][3]:
                break
    assert one.seed not in (1, 2, 5)


def test_games_can_be_made_in_several_threads() -> None:
    """Rooms that open at once, each in its thread, do not break each other's first imports; in a fresh process."""
    code = """
import threading
from envs.shown import Shown

def room(name):
    shown = Shown(name, 1)
    for _ in range(5):
        shown.step(0)
    print(f"{name} {shown.picture.shape[0]}\\n", end="")  # in one piece
    shown.close()

rooms = [threading.Thread(target=room, args=[name]) for name in ("cartpole", "acrobot", "mountain-car", "lunar-lander")]
for thread in rooms:
    thread.start()
for thread in rooms:
    thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert sorted(done.stdout.splitlines()) == ["acrobot 500", "cartpole 400", "lunar-lander 400", "mountain-car 400"]
    assert done.stderr == ""


def test_steps_after_an_end_and_unknown_actions_are_refused(show) -> None:
    """An ended game says that restart begins the next; actions that the game does not know never reach it."""
    shown = show("cartpole")
    while not (shown.step(1)[2]):
        pass
    with pytest.raises(RuntimeError, match=r"cartpole has ended: restart\(\)"):
        shown.step(1)
    shown.restart()
    shown.step(np.int64(1))
    with pytest.raises(ValueError, match="lie in 0 .. 1"):
        shown.step(2)
    with pytest.raises(ValueError, match="pass atari="):
        Shown("atari/pong", 1)
    with pytest.raises(ValueError, match="no game 'chess'"):
        Shown("chess", 1)
