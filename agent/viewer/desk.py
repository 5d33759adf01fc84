"""The viewer's desk: all rooms, the run and the freeze of one viewer, and what each command of a page does to them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent.viewer.episodes import EpisodeLog
from agent.viewer.feed import Feed
from agent.viewer.freezing import Freezing
from agent.viewer.hub import Hub
from agent.viewer.messages import SPEEDS
from agent.viewer.rooms import PlayRoom, Room
from agent.viewer.you import YouRoom
from envs.keys import key_map
from envs.spec import GameSpec

SEEDS = 2**31  # emulators take seeds below it
MODES = {"pause": "Paused.", "go on": "Going on."}


class Desk:
    """Obeys commands; every answer is a sentence."""

    def __init__(
        self,
        title: str,
        spec: GameSpec,
        hub: Hub,
        rooms: Sequence[Room],
        feed: Feed | None = None,
        freezing: Freezing | None = None,
        episodes: EpisodeLog | None = None,
    ) -> None:
        self.hub, self.feed, self.freezing, self.episodes = hub, feed, freezing, episodes
        self._title, self._spec = title, spec
        self._rooms = {room.id: room for room in rooms}
        self._started = False

    def start(self) -> None:
        """Open all rooms."""
        self.hub.on_look = self._wake
        self.hub.set_rooms(self._rooms)
        self._started = True
        self.greet()
        self.list_episodes()
        for room in [*self._rooms.values(), *([self.feed] if self.feed else [])]:
            self._open(room)

    async def close(self) -> None:
        """Close everything that this viewer opened; the training goes on."""
        if self.freezing is not None:
            await self.freezing.close()
        rooms = [*self._rooms.values(), *([self.feed] if self.feed else [])]
        await asyncio.gather(*(asyncio.to_thread(room.close) for room in rooms))
        if self.episodes is not None:
            self.episodes.close()

    def add(self, room: Room) -> None:
        """Open one more room, beside those of its kind. From any thread."""
        order = ("live", "latest", "frozen", "you")
        rooms = sorted([*self._rooms.values(), room], key=lambda each: order.index(each.kind))
        self._rooms = {each.id: each for each in rooms}
        self.hub.set_rooms(self._rooms)
        if self._started:
            self._open(room)
            self.greet()

    def _open(self, room: Room) -> None:
        room.on_change, room.on_episode = self.greet, self.list_episodes
        room.start()

    def list_episodes(self) -> None:
        """Tell all pages which episodes there are. From any thread."""
        if self.episodes is not None:
            self.hub.say("episodes", {"list": self.episodes.list()})

    def room(self, id: str) -> Room | None:
        """The room of that name."""
        return self._rooms.get(id)

    def greet(self) -> None:
        """Tell all pages which rooms there are. From any thread."""
        facts = {
            "title": self._title,
            "run": self.feed is not None,
            "freezes": self.freezing is not None,
            "rooms": [self._described(room) for room in self._rooms.values()],
        }
        for right in ("control", "watch"):
            self.hub.say("hello", {**facts, "controls": right == "control"}, to=right)

    def _described(self, room: Room) -> dict[str, Any]:
        spec, policy = self._spec, room.policy if isinstance(room, PlayRoom) else None
        facts = None if policy is None else policy.facts
        return {
            "id": room.id,
            "kind": room.kind,
            "title": room.title,
            "game": spec.name,
            "actions": spec.action_names,
            "keys": [[sorted(codes), action] for codes, action in key_map(spec)] if spec.num_actions else [],
            "steps_per_s": spec.fps,
            "range": [] if spec.num_actions else [min(spec.action_low), max(spec.action_high)],
            "advice": room.is_advising if isinstance(room, YouRoom) and room.has_advisor else None,
            "frozen": None if facts is None else facts.frozen,
            "policy": None if facts is None else facts.described,
            "scores": "values" if room.kind == "live" else None if facts is None else facts.scores,
            "saliency": facts is not None and room.kind != "you" and len(spec.observation_shape) == 3,
            "fault": room.fault or room.notice,
        }

    def _wake(self) -> None:
        for room in self._rooms.values():
            room.wake.set()

    # --- what pages ask ----------------------------------------------------------------------------------------------

    def keys(self, client: object, room: str, held: list[str]) -> None:
        """Let the keys that this client holds reach the game."""
        if isinstance(found := self._rooms.get(room), YouRoom):
            found.press(client, held)

    def saliency(self, room: str, how: str) -> None:
        """Show what the policy looks at, or no longer."""
        if isinstance(found := self._rooms.get(room), PlayRoom):
            found.looker.how = how

    def gone(self, client: object) -> None:
        """Let go of the keys of a client that has left."""
        for room in self._rooms.values():
            if isinstance(room, YouRoom):
                room.release(client)

    async def do(self, what: str, room: str | None, value: float | None) -> str:
        """Do it and return what to say; ValueError with a sentence when it was not done."""
        found = self._rooms.get(room) if room is not None else None
        if room is not None and found is None:
            raise ValueError(f"There is no room {room!r} here.")
        if what in ("restart", "speed"):
            if not isinstance(found, PlayRoom):
                raise ValueError("The live game belongs to the trainer, which goes at its own pace.")
            return self._restart(found, value) if what == "restart" else self._speed(found, value)
        if what == "advise":
            return self._advise(found, value)
        if what in MODES and isinstance(found, PlayRoom):
            found.set_paused(what == "pause")
            return MODES[what]
        if what == "same seed":
            return self._same_seed(value)
        if what == "freeze":
            return self._freeze()
        if self.feed is None:
            raise ValueError("There is no run here that could do this.")
        return await self.feed.ask(what)

    def _restart(self, room: PlayRoom, value: float | None) -> str:
        seed = _seed(value)
        room.restart(seed)
        room.set_paused(False)
        return "A new game." if seed is None else f"A new game with seed {seed}."

    def _advise(self, room: Room | None, value: float | None) -> str:
        if not isinstance(room, YouRoom) or not room.has_advisor:
            raise ValueError("There is no policy here that could say what it thinks of your game.")
        room.advise(bool(value))
        return "What the agent thinks of your game is shown." if value else "What the agent thinks is hidden."

    def _speed(self, room: PlayRoom, value: float | None) -> str:
        low, high = SPEEDS
        if value is None or not low <= value <= high:
            raise ValueError(f"The speed lies between {low:g} and {high:g} times the normal one.")
        room.set_speed(float(value))
        return f"{value:g} times the normal speed."

    def _same_seed(self, value: float | None) -> str:
        seed = _seed(value)
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        playing = [room for room in self._rooms.values() if isinstance(room, PlayRoom)]
        if not playing:
            raise ValueError("There is no room here that plays a game of its own.")
        for room in playing:
            room.restart(seed)
        return f"All rooms but the live one start the game of seed {seed}."

    def _freeze(self) -> str:
        if self.freezing is None:
            raise ValueError("Only the agent of a run can be frozen here; 'icebox freeze' freezes a zip.")
        before: Callable[[], Awaitable[str]] | None = None
        if self.feed is not None and self.feed.alive:
            before = self._checkpoint
        return self.freezing.start(before)

    async def _checkpoint(self) -> str:
        return await self.feed.ask("checkpoint")


def _seed(value: float | None) -> int | None:
    if value is None:
        return None
    if value != int(value) or not 0 <= value < SEEDS:
        raise ValueError(f"A seed is a whole number from 0 to {SEEDS - 1:,}.")
    return int(value)
