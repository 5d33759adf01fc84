"""Between the rooms' threads and the pages: the newest packet of every room, encoded once and only when somebody looks.

A client gets the newest of everything and never a queue: the next packet of a room goes out only after it has
acknowledged the last one, and one that says nothing for a while is told nothing more. So a client that never reads
costs two packets. `offer`, `looked` and `say` may be called from any thread; all else belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from agent.viewer.access import Right
from agent.viewer.packet import encode_picture, pack, plain

SILENT_S = 10.0  # a client that owes an answer for longer is not looking
UNHEARD = 20  # texts to a client that says nothing
REPLIES = 32  # answers to commands that wait for one client


class Frame:
    """A picture with its facts, made into a packet when somebody first asks for it."""

    __slots__ = ("n", "meta", "_picture", "_saliency", "_lock", "_packet")

    def __init__(self, n: int, meta: Mapping[str, Any], picture: np.ndarray, saliency: bytes = b"") -> None:
        self.n, self.meta = n, meta
        self._picture, self._saliency = picture, saliency  # u8 [H, W, 3], PNG
        self._lock, self._packet = threading.Lock(), b""

    def packet(self) -> bytes:
        """Return the packet; the first caller encodes it."""
        with self._lock:
            if not self._packet:
                image, form = encode_picture(self._picture)
                height, width = self._picture.shape[:2]
                self._packet = pack(
                    {**self.meta, "n": self.n, "width": width, "height": height, "format": form}, image, self._saliency
                )
            return self._packet


class Text(NamedTuple):
    """The newest message of one type; `whole` is `brief` with `rare` in it, for those who have not seen `version`."""

    version: int
    brief: str
    whole: str
    rare: Mapping[str, Any]


class Client:
    """One page: what it looks at, what it has been sent and what it has answered."""

    __slots__ = ("right", "looks", "replies", "heard", "unheard", "_hub", "_owed", "_sent", "_told", "_wake")

    def __init__(self, hub: Hub, right: Right) -> None:
        self.right = right
        self.looks: frozenset[str] = frozenset()
        self.replies: deque[str] = deque(maxlen=REPLIES)
        self.heard, self.unheard = time.monotonic(), 0
        self._hub = hub
        self._owed: dict[str, int] = {}  # room -> n of the packet that is not yet acknowledged
        self._sent: dict[str, int] = {}  # room -> n of the last packet
        self._told: dict[str, tuple[int, str]] = {}  # type -> version and text of the last message
        self._wake = asyncio.Event()

    async def deliver(self, send: Callable[[str | bytes], Awaitable[None]]) -> None:
        """Send what is new, for ever; what becomes old while `send` waits is never sent."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self._next()) is not None:
                await send(message)

    def wake(self) -> None:
        """Have `deliver` look for news."""
        self._wake.set()

    def speaks(self) -> None:
        """Note that the page has said something."""
        self.heard, self.unheard = time.monotonic(), 0
        self._wake.set()

    def got(self, room: str, n: int) -> None:
        """Note that a packet was painted."""
        if self._owed.get(room) == n:
            del self._owed[room]
            self._hub.await_frame(room, self)
            self._wake.set()

    def look(self, rooms: Iterable[str]) -> None:
        """Look at these rooms and no others."""
        self.looks = frozenset(rooms) & self._hub.rooms
        self._owed = {room: n for room, n in self._owed.items() if room in self.looks}
        for room in self.looks:
            self._sent.pop(room, None)  # the page may have thrown it away: the newest is sent again
            self._owed.pop(room, None)
            self._hub.await_frame(room, self)
        self._hub.count_looks()
        self._wake.set()

    def reply(self, message: Mapping[str, Any]) -> None:
        """Send an answer to this client alone."""
        self.replies.append(json.dumps(plain(message)))
        self._wake.set()

    def has_heard(self, kind: str) -> bool:
        """Whether it was sent the newest message of a kind."""
        text = self._hub.texts[self.right].get(kind)
        return text is None or self._told.get(kind, (0, ""))[1] is text.brief

    def is_looking(self, now: float) -> bool:
        """Whether the page still takes what it is sent."""
        return bool(self.looks) and (not self._owed or now - self.heard < SILENT_S)

    def _next(self) -> str | bytes | None:
        if self.unheard < UNHEARD:
            if self.replies:
                self.unheard += 1
                return self.replies.popleft()
            for kind, text in list(self._hub.texts[self.right].items()):
                version, told = self._told.get(kind, (-1, ""))
                if told is not text.brief:
                    self._told[kind] = text.version, text.brief
                    self.unheard += 1
                    return text.brief if version == text.version else text.whole
        for room in self.looks:
            if room not in self._owed and (frame := self._hub.newest(room)) and frame.n != self._sent.get(room):
                self._owed[room] = self._sent[room] = frame.n
                self._hub.has_frame(room, self)
                return frame.packet()
        return None


class Hub:
    """The meeting place of rooms and clients."""

    def __init__(self) -> None:
        self.rooms: frozenset[str] = frozenset()
        self.texts: dict[Right, dict[str, Text]] = {"control": {}, "watch": {}}
        self._clients: set[Client] = set()
        self._newest: dict[str, Frame] = {}
        self._waiting: dict[str, set[Client]] = {}  # room -> clients that want its next packet
        self._looked: frozenset[str] = frozenset()
        self._count = itertools.count(1)
        self._versions = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_look: Callable[[], None] = lambda: None  # wakes the rooms' threads

    # --- from any thread ---------------------------------------------------------------------------------------------

    def looked(self, room: str) -> bool:
        """Whether somebody looks at a room."""
        return room in self._looked

    def offer(self, room: str, meta: Mapping[str, Any], picture: np.ndarray, saliency: bytes = b"") -> Frame:
        """Make a picture, u8 [H, W, 3] that nobody changes any more, the newest of its room."""
        frame = Frame(next(self._count), {"room": room, **meta}, picture, saliency)
        self._newest[room] = frame
        if self._waiting.get(room):
            frame.packet()  # in the room's thread: the event loop has better things to do
            self._call(self._wake_waiting, room)
        return frame

    def say(
        self, kind: str, facts: Mapping[str, Any], rare: Mapping[str, Any] | None = None, *, to: Right | None = None
    ) -> None:
        """Tell every client, or those with one right, now and when they come; only the newest of a kind is told.

        `rare` goes only to those who have not seen its newest value; None: it has not changed since the last message.
        """
        message = {"type": kind} | plain(facts)
        brief, shown = json.dumps(message), None if rare is None else plain(rare)
        for right in ("control", "watch") if to is None else (to,):
            old = self.texts[right].get(kind)
            version = next(self._versions) if shown is not None or old is None else old.version
            kept = shown if shown is not None else {} if old is None else old.rare
            self.texts[right][kind] = Text(version, brief, json.dumps(message | kept), kept)
        self._call(self._wake_all)

    # --- in the event loop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Belong to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def join(self, right: Right) -> Client:
        """Return a new client; it is told the newest of everything."""
        client = Client(self, right)
        self._clients.add(client)
        client.wake()
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)
        for waiting in self._waiting.values():
            waiting.discard(client)
        self.count_looks()

    def set_rooms(self, rooms: Iterable[str]) -> None:
        """Say which rooms there are."""
        self.rooms = frozenset(rooms)

    def newest(self, room: str) -> Frame | None:
        """The newest frame of a room."""
        return self._newest.get(room)

    def await_frame(self, room: str, client: Client) -> None:
        """Wake the client when the room offers its next picture."""
        self._waiting.setdefault(room, set()).add(client)

    def has_frame(self, room: str, client: Client) -> None:
        """Leave the client alone until it has acknowledged what it was sent."""
        self._waiting.get(room, set()).discard(client)

    def count_looks(self) -> None:
        """Find out anew which rooms somebody looks at; to be called about once a second, for clients fall silent."""
        now = time.monotonic()
        looked = frozenset(room for client in self._clients if client.is_looking(now) for room in client.looks)
        if looked - self._looked:
            self._looked = looked
            self.on_look()
        self._looked = looked

    def clients(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    async def told(self, kind: str, seconds: float) -> None:
        """Wait until every client has been sent the newest of a kind, but no longer than so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(client.has_heard(kind) for client in self._clients):
            await asyncio.sleep(0.01)

    def _wake_waiting(self, room: str) -> None:
        for client in self._waiting.get(room, ()):
            client.wake()

    def _wake_all(self) -> None:
        for client in self._clients:
            client.wake()

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
