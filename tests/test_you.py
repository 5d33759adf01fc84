"""Tests of agent/viewer/you.py: keys reach the game, those of one page, and what is played is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from room_fakes import CountingGame, KnowingPolicy, Seen, eventually

from agent.replay import demonstrations
from agent.replay.demonstrations import DemonstrationWriter, game_facts
from agent.viewer.you import YouRoom

LEFT, RIGHT, BOTH = frozenset({"ArrowLeft"}), frozenset({"ArrowRight"}), frozenset({"ArrowLeft", "Space"})
KEYS = [(BOTH, 3), (LEFT, 1), (RIGHT, 2)]
Make = Callable[..., tuple[YouRoom, CountingGame, Seen]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes rooms with a game and a hub of their own, and closes them."""
    made: list[YouRoom] = []

    def make(idle: int | None = 0, game: Any = None, **options: Any) -> tuple[YouRoom, CountingGame, Seen]:
        hub, games = Seen(), game or CountingGame(0)
        room = YouRoom(hub, lambda seed: games, KEYS, idle, **options)
        made.append(room)
        room.start()
        return room, games, hub

    yield make
    for room in made:
        room.close()


def test_a_game_waits_for_its_first_key(make: Make) -> None:
    """The first picture is there and says that it waits; a key that means nothing does not begin it, one that does, does."""
    room, game, hub = make()
    eventually(lambda: hub.metas)
    assert hub.metas[0]["waiting"] is True and hub.metas[0]["step"] == 0
    room.press("me", ["KeyZ"])
    time.sleep(0.1)
    assert game.t == 0
    room.press("me", ["ArrowRight"])
    eventually(lambda: len(hub.metas) > 2)
    assert hub.metas[1]["waiting"] is False and hub.metas[1]["held"] == ["ArrowRight"]
    assert set(game.actions) == {2}


def test_held_keys_are_played_and_shown(make: Make) -> None:
    """The largest set that is held counts; when all keys are let go it is the idle action."""
    room, game, hub = make()
    room.press("me", ["Space", "ArrowLeft"])
    eventually(lambda: game.actions[-3:] == [3, 3, 3])
    assert hub.metas[-1]["held"] == ["ArrowLeft", "Space"]
    room.press("me", [])
    eventually(lambda: game.actions[-3:] == [0, 0, 0])


def test_without_an_idle_action_the_last_goes_on(make: Make) -> None:
    """CartPole must push somewhere: it goes on pushing where it did."""
    room, game, hub = make(idle=None)
    room.press("me", ["ArrowRight"])
    eventually(lambda: game.t > 2)
    room.press("me", [])
    at = game.t
    eventually(lambda: game.t > at + 3)
    assert set(game.actions) == {2}


def test_a_tap_between_two_steps_counts_for_one(make: Make) -> None:
    """Pressed and let go within one step, it is played once all the same."""
    room, game, hub = make(game=CountingGame(0, steps_per_s=10.0))
    room.press("me", ["ArrowLeft"])
    room.press("me", [])
    eventually(lambda: game.t >= 3)
    assert game.actions[:3] == [1, 0, 0]


def test_a_key_reaches_a_slow_game_within_a_tenth_of_a_second(make: Make) -> None:
    """Also in a game of four steps a second a key is played at once, and not at the next regular step."""
    room, game, hub = make(game=CountingGame(0, steps_per_s=4.0))
    room.press("me", ["ArrowLeft"])
    eventually(lambda: game.t >= 2)
    waits = []
    for key, action in (("ArrowRight", 2), ("ArrowLeft", 1)) * 3:
        at, pressed = game.t, time.monotonic()
        room.press("me", [key])
        eventually(lambda at=at: game.t > at)
        assert game.actions[at] == action
        waits.append(game.stepped_at[at] - pressed)
    assert sorted(waits)[-2] < 0.1  # one in six may meet a busy machine


def test_the_game_belongs_to_who_pressed_last(make: Make) -> None:
    """Another page that presses takes over with nothing held by the first; one that only lets go does not; leaving lets go."""
    room, game, hub = make()
    room.press("me", ["ArrowLeft"])
    eventually(lambda: game.t > 2)
    room.press("other", [])
    room.press("other", ["KeyZ"])
    at = game.t
    eventually(lambda: game.t > at + 2)
    assert game.actions[-1] == 1
    room.press("other", ["ArrowRight"])
    eventually(lambda: game.actions[-1] == 2)
    room.press("me", [])
    room.release("me")
    at = game.t
    eventually(lambda: game.t > at + 2)
    assert game.actions[-1] == 2
    room.release("other")
    eventually(lambda: game.actions[-2:] == [0, 0])


def test_every_game_waits_anew(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an end the next game stands still until a key is pressed anew, not merely still held."""
    monkeypatch.setattr("agent.viewer.rooms.END_S", 0.02)
    room, game, hub = make(game=CountingGame(0, length=3))
    room.press("me", ["ArrowLeft"])
    eventually(lambda: game.seeds[-1] == 1)
    time.sleep(0.1)
    room.press("me", ["ArrowLeft"])  # the same key, still held
    time.sleep(0.1)
    assert game.t == 0
    room.press("me", [])
    room.press("me", ["ArrowLeft"])
    eventually(lambda: game.seeds[-1] == 2)


def test_an_advisor_thinks_along(make: Make) -> None:
    """When asked, its values stand beside what the person did, with the person's error; before and after nothing does."""
    room, game, hub = make(make_advisor=KnowingPolicy)
    assert room.has_advisor and not room.is_advising
    eventually(lambda: hub.metas)
    assert hub.metas[0]["q"] is None
    room.advise(True)
    eventually(lambda: len(hub.metas) > 1)  # at once, although the game has not begun
    assert hub.metas[1]["q"] == [0, 0, 1] and hub.metas[1]["waiting"] and room.is_advising
    room.press("me", ["ArrowRight"])
    eventually(lambda: len(hub.metas) > 3)
    assert hub.metas[2]["q"] == [0, 0, 1] and hub.metas[2]["action"] == 2
    assert hub.metas[2]["td_error"] == pytest.approx(2 + 0.5 - 1)
    room.advise(False)
    eventually(lambda: hub.metas[-1]["q"] is None)


def test_an_advisor_that_cannot_be_had(make: Make) -> None:
    """It is told, and the game goes on without."""

    def missing() -> KnowingPolicy:
        raise ValueError("there is no policy yet")

    room, game, hub = make(make_advisor=missing)
    room.advise(True)
    room.press("me", ["ArrowRight"])
    eventually(lambda: game.t > 2)
    assert "no policy yet" in room.notice and not room.is_advising and room.fault is None


class Buttons(CountingGame):
    """With all that a demonstration says of a game."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.spec.__dict__.update(
            observation_shape=(2,), observation_dtype="float32", stack=1, frame_skip=1, fps=40.0
        )


def test_what_is_played_is_kept(make: Make, tmp_path: Path) -> None:
    """A finished game is a demonstration with every step of it, and the seed that it began from."""
    game = Buttons(0, length=4)
    writer = DemonstrationWriter(tmp_path, game_facts(game.spec, {}, {}))
    room, game, hub = make(game=game, writer=writer, seed=9)
    room.press("me", ["ArrowRight"])
    eventually(lambda: list(tmp_path.glob("*.safetensors")))
    (demonstration,) = demonstrations.read(tmp_path)
    played = demonstration.load()
    assert played.action.tolist() == [2] * 4 and played.reward.tolist() == [2.0] * 4
    assert played.observation.tolist() == [[9, t] for t in range(5)]
    assert demonstration.facts["complete"] is True and demonstration.facts["seed"] == 9


def test_a_game_that_cannot_be_kept_goes_on(make: Make) -> None:
    """A full disk costs the demonstration, not the game, and the page is told."""

    class Full:
        def begin(self, observation: np.ndarray, seed: int) -> None:
            raise OSError("the disk is full")

    room, game, hub = make(writer=Full())
    room.press("me", ["ArrowLeft"])
    eventually(lambda: game.t > 3)
    assert room.notice == "Your games are not kept: the disk is full" and room.fault is None
