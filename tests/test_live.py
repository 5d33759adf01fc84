"""Tests of agent/viewer/live.py: what the trainer publishes is drawn, once, and nothing it does breaks the room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from room_fakes import Keeper, Seen, eventually

from agent.viewer.live import LiveRoom, live_facts
from agent.viewer.live_reader import LiveReader
from agent.viewer.slot import SlotWriter, pack
from envs.scenes import Painter


class Trainer:
    """Publishes pictures as a trainer does."""

    def __init__(self, run: Path) -> None:
        (run / "live").mkdir(parents=True, exist_ok=True)
        self.slot = SlotWriter(run / "live" / "now.slot")

    def publish(self, picture: int, *, kind: str = "picture", **more: Any) -> None:
        """A picture whose red is its number."""
        meta = {
            "picture": picture, "episode": 1, "steps": 10 * picture, "step": picture, "score": 2.5, "reward": 1.0,
            "action": 1, "q": [0.5, 2.0], "td_error": 0.25, "updates": 40, "act_ms": 1.5, "time": 123.0, "ended": False,
            "scene": {"kind": kind, "facts": {}},
        }  # fmt: skip
        self.slot.write(*pack(meta | more, {"picture": np.full((5, 7, 3), picture, np.uint8)}))


Make = Callable[..., tuple[LiveRoom, Seen]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes rooms that follow `tmp_path`, and closes them."""
    made: list[LiveRoom] = []

    def make(**options: Any) -> tuple[LiveRoom, Seen]:
        hub = Seen()
        room = LiveRoom(hub, LiveReader(tmp_path), lambda: Painter("minatar/breakout"), **options)
        made.append(room)
        room.start()
        return room, hub

    yield make
    for room in made:
        room.close()


def test_every_new_picture_is_shown_once(make: Make, tmp_path: Path) -> None:
    """With what was thought of it; figures that come with the same picture again show nothing new."""
    trainer = Trainer(tmp_path)
    room, hub = make()
    for picture in (1, 2):
        trainer.publish(picture)
        eventually(lambda picture=picture: [meta["red"] for meta in hub.metas] == list(range(1, picture + 1)))
        trainer.publish(picture, steps=99)
        time.sleep(0.1)
    assert len(hub.metas) == 2
    meta = hub.metas[1]
    assert (meta["step"], meta["score"], meta["action"], meta["q"], meta["value"]) == (2, 2.5, 1, [0.5, 2.0], 2.0)
    assert (meta["policy_updates"], meta["policy_age_updates"], meta["td_error"]) == (40, 0, 0.25)


def test_it_finds_a_trainer_that_comes_and_one_that_comes_again(make: Make, tmp_path: Path) -> None:
    """Started before the trainer, and through its end and its resumption, the room shows whatever is published."""
    room, hub = make()
    time.sleep(0.1)
    first = Trainer(tmp_path)
    first.publish(1)
    eventually(lambda: len(hub.metas) == 1)
    first.slot.close()
    time.sleep(0.1)
    second = Trainer(tmp_path)
    second.publish(7)
    eventually(lambda: hub.metas[-1]["red"] == 7)
    assert room.fault is None


def test_a_scene_that_cannot_be_drawn_is_told_once(make: Make, tmp_path: Path) -> None:
    """Its reason becomes a notice, and the next that can be drawn is."""
    told: list[str | None] = []
    trainer = Trainer(tmp_path)
    room, hub = make()
    room.on_change = lambda: told.append(room.notice)
    for picture in (1, 2, 3):
        trainer.publish(picture, kind="hologram")
        time.sleep(0.05)
    eventually(lambda: told)
    trainer.publish(4)
    eventually(lambda: hub.metas)
    assert len(told) == 1 and "hologram" in told[0] and room.fault is None


def test_nothing_is_read_while_nobody_looks(make: Make, tmp_path: Path) -> None:
    """And the newest is shown as soon as somebody does."""
    trainer = Trainer(tmp_path)
    room, hub = make()
    hub.open = False
    time.sleep(0.1)
    for picture in range(5):
        trainer.publish(picture)
        time.sleep(0.02)
    assert not hub.metas
    hub.open = True
    room.wake.set()
    eventually(lambda: [meta["red"] for meta in hub.metas] == [4])


def test_episodes_are_recorded(make: Make, tmp_path: Path) -> None:
    """Every picture that was shown, and the end with its score."""
    keeper, trainer = Keeper(), Trainer(tmp_path)
    hub = make(recorder=keeper)[1]
    for picture in (1, 2, 3):
        trainer.publish(picture, ended=picture == 3)
        eventually(lambda picture=picture: len(hub.metas) == picture)
    eventually(lambda: keeper.ended == [("live", 2.5, 3, None)])
    assert len(keeper.packets) == 3


def test_what_is_not_known_is_null() -> None:
    """Of stable-baselines3's algorithms there are no values."""
    facts = live_facts({"q": None, "steps": 3})
    assert facts["value"] is None and facts["q"] is None and facts["policy_updates"] is None
