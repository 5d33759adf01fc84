"""Tests of agent/viewer/desk.py: every command of a page does what it says, or says why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from room_fakes import CountingGame, KnowingPolicy, Seen, eventually

from agent.config import Settings
from agent.telemetry.run_folder import RunFolder
from agent.viewer.desk import Desk
from agent.viewer.episodes import EpisodeLog
from agent.viewer.feed import Feed
from agent.viewer.live import LiveRoom
from agent.viewer.live_reader import LiveReader
from agent.viewer.messages import CONTROLS
from agent.viewer.rooms import PlayRoom
from agent.viewer.you import YouRoom
from envs.make import spec
from envs.scenes import Painter

SPEC = spec("cartpole")


class Freezes:
    """A job that only notes that it was begun."""

    def __init__(self) -> None:
        self.befores: list[Any] = []

    def start(self, before: Any) -> str:
        self.befores.append(before)
        return "Freezing has begun."

    async def close(self) -> None: ...


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """All four rooms, of which the frozen one is missing at first, on a run that does not train."""
    hub = Seen()
    folder = RunFolder.create(tmp_path, "cartpole", 0, "x", Settings(), ["icebox"])
    games = {name: CountingGame(0) for name in ("latest", "you")}
    rooms = [
        LiveRoom(hub, LiveReader(folder.path), lambda: Painter("cartpole")),
        PlayRoom("latest", "latest", "Latest <b>policy</b>", hub, lambda seed: games["latest"], KnowingPolicy()),
        YouRoom(hub, lambda seed: games["you"], [(frozenset({"ArrowLeft"}), 1)], None),
    ]
    desk = Desk("a <run>", SPEC, hub, rooms, Feed(hub, folder), Freezes(), EpisodeLog(tmp_path / "episodes"))
    desk.games = games
    desk.start()
    yield desk
    asyncio.run(desk.close())
    assert all(game.closed for game in games.values())


def do(desk: Desk, what: str, room: str | None = None, value: float | None = None) -> str:
    """Give one command."""
    return asyncio.run(asyncio.wait_for(desk.do(what, room, value), 20))


def hello(desk: Desk, right: str = "control") -> dict[str, Any]:
    """The greeting that pages get now."""
    return json.loads(desk.hub.texts[right]["hello"].whole)


def test_pages_are_greeted_with_the_rooms(desk: Desk) -> None:
    """In their order, with actions, keys and what there is to know; markup in a name stays text."""
    facts = hello(desk)
    assert (facts["title"], facts["controls"], facts["run"], facts["freezes"]) == ("a <run>", True, True, True)
    assert not hello(desk, "watch")["controls"]
    assert [room["id"] for room in facts["rooms"]] == ["live", "latest", "you"]
    latest = facts["rooms"][1]
    assert latest["title"] == "Latest <b>policy</b>" and latest["game"] == "cartpole"
    assert latest["actions"] == list(SPEC.action_names) and [["ArrowLeft"], 0] in latest["keys"]
    assert (latest["scores"], latest["saliency"], latest["frozen"]) == ("values", False, None)
    assert json.loads(desk.hub.texts["watch"]["episodes"].whole)["list"] == []


def test_a_room_is_paused_restarted_and_hastened_on_its_own(desk: Desk) -> None:
    """The commands reach the one room that they name."""
    latest, you = desk.room("latest"), desk.room("you")
    assert do(desk, "pause", "latest") and latest.paused and not you.paused
    assert do(desk, "go on", "latest") and not latest.paused
    assert do(desk, "speed", "latest", 4) and latest.speed == 4.0 and you.speed == 1.0
    assert "77" in do(desk, "restart", "latest", 77)
    eventually(lambda: desk.games["latest"].seed == 77)
    assert desk.games["you"].seed == 0
    do(desk, "restart", "latest")
    eventually(lambda: desk.games["latest"].seed == 78)


def test_advice_is_given_while_it_is_wanted(desk: Desk) -> None:
    """Pages are told whether it can be had, and whether it is on."""
    assert [room["advice"] for room in hello(desk)["rooms"]] == [None] * 3
    hub, game = Seen(), CountingGame(0)
    you = YouRoom(hub, lambda seed: game, [(frozenset({"ArrowLeft"}), 1)], None, make_advisor=KnowingPolicy)
    advised = Desk("advised", SPEC, hub, [you])
    advised.start()
    try:
        assert hello(advised)["rooms"][0]["advice"] is False
        do(advised, "advise", "you", 1)
        eventually(lambda: hello(advised)["rooms"][0]["advice"])
        assert hello(advised)["rooms"][0]["scores"] == "values"
        do(advised, "advise", "you", 0)
        eventually(lambda: hello(advised)["rooms"][0]["advice"] is False)
    finally:
        asyncio.run(advised.close())


def test_the_same_seed_begins_in_all_rooms(desk: Desk) -> None:
    """The one that was asked for, or a new one that the answer names."""
    do(desk, "same seed", None, 1234)
    eventually(lambda: {game.seed for game in desk.games.values()} == {1234})
    said = do(desk, "same seed")
    seed = int(said.rstrip(".").split()[-1])
    eventually(lambda: {game.seed for game in desk.games.values()} == {seed})


@pytest.mark.parametrize(
    ("what", "room", "value", "reason"),
    [
        ("speed", "latest", 5.0, "between 0.25 and 4"),
        ("speed", "latest", None, "between 0.25 and 4"),
        ("speed", "live", 2.0, "belongs to the trainer"),
        ("restart", "live", None, "belongs to the trainer"),
        ("restart", "latest", 1.5, "whole number"),
        ("restart", "latest", -1, "whole number"),
        ("same seed", None, 2.0**40, "whole number"),
        ("restart", "attic", None, "no room 'attic'"),
        ("advise", "latest", 1, "no policy here"),
        ("advise", None, 1, "no policy here"),
        ("pause", None, None, "nobody to ask"),
        ("checkpoint", None, None, "nobody to ask"),
        ("stop", "live", None, "nobody to ask"),
    ],
)
def test_what_cannot_be_done_says_why(desk: Desk, what: str, room: str | None, value: Any, reason: str) -> None:
    """A sentence, and nothing has changed."""
    with pytest.raises(ValueError, match=reason):
        do(desk, what, room, value)
    assert desk.room("latest").speed == 1.0


def test_the_trainer_is_asked_for_what_concerns_the_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that is no room's; a freeze of a run that trains begins with a checkpoint, of one that rests not."""
    asked: list[str] = []

    async def ask(what: str) -> str:
        asked.append(what)
        return f"{what}: done"

    monkeypatch.setattr(desk.feed, "ask", ask)
    for what in CONTROLS[:6]:
        assert do(desk, what) == f"{what}: done"
    assert do(desk, "pause", "live") == "pause: done"
    assert asked == [*CONTROLS[:6], "pause"]
    assert do(desk, "freeze") == "Freezing has begun."
    assert desk.freezing.befores == [None]
    desk.feed.alive = True
    do(desk, "freeze")
    assert asyncio.run(desk.freezing.befores[1]()) == "checkpoint: done"


def test_a_room_that_is_added_plays_and_is_announced(desk: Desk) -> None:
    """The frozen room comes between the others while the viewer runs."""
    game = CountingGame(0)
    desk.games["frozen"] = game
    policy = KnowingPolicy()
    policy.facts.frozen = {"agreement": 0.99, "precision": "int8", "bytes": 10}
    desk.add(PlayRoom("frozen", "frozen", "Frozen", desk.hub, lambda seed: game, policy))
    assert [room["id"] for room in hello(desk)["rooms"]] == ["live", "latest", "frozen", "you"]
    assert hello(desk)["rooms"][2]["frozen"]["agreement"] == 0.99
    eventually(lambda: game.t > 1)
    assert "frozen" in desk.hub.rooms


def test_keys_and_saliency_reach_their_rooms(desk: Desk) -> None:
    """And only those that have use for them; a client that leaves lets go of its keys."""
    desk.keys("me", "you", ["ArrowLeft"])
    desk.keys("me", "latest", ["ArrowLeft"])
    desk.keys("me", "attic", [])
    eventually(lambda: desk.games["you"].actions[-1:] == [1])
    desk.saliency("latest", "gradient")
    desk.saliency("live", "gradient")
    assert desk.room("latest").looker.how == "gradient"
    desk.gone("me")
    assert desk.room("you")._held == frozenset()


def test_a_fault_is_announced(desk: Desk) -> None:
    """The page hears why a room stands still."""
    desk.games["latest"].step = None
    eventually(lambda: hello(desk)["rooms"][1]["fault"])
    assert "not callable" in hello(desk)["rooms"][1]["fault"]
