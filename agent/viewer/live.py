"""The live room: the trainer's own game 0, exploration and all, drawn here from what the trainer publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from agent.viewer.hub import Hub
from agent.viewer.live_reader import LiveReader
from agent.viewer.metronome import Metronome, wait_until
from agent.viewer.rooms import IDLE_S, Recorder, Room
from envs.scenes import Scene

READ_PER_S = 60.0  # so that a picture waits a 60th of a second at most; the trainer publishes 30
COPIED = ("step", "episode", "score", "reward", "action", "q", "td_error", "act_ms", "time", "ended")


class Painting(Protocol):
    """Draws scenes (envs/scenes.py)."""

    def paint(self, scene: Scene) -> np.ndarray: ...
    def close(self) -> None: ...


class LiveRoom(Room):
    """Shows every new picture that the trainer has published, while somebody looks and while it trains."""

    kind = "live"

    def __init__(
        self, hub: Hub, reader: LiveReader, make_painter: Callable[[], Painting], recorder: Recorder | None = None
    ) -> None:
        """`reader` is this room's own; `make_painter` is called in its thread."""
        super().__init__("live", "Live training", hub)
        self._reader, self._make_painter, self._recorder = reader, make_painter, recorder
        self._painter: Painting | None = None
        self._metronome = Metronome()
        self._shown: tuple[Any, Any] = (None, None)
        self._refused: str | None = None

    def _open(self) -> None:
        self._painter = self._make_painter()

    def _shut(self) -> None:
        self._reader.close()
        if self._painter is not None:
            self._painter.close()

    def _turn(self) -> None:
        if not self.hub.looked(self.id):
            self.wake.wait(IDLE_S)
            self.wake.clear()
            self._metronome.reset()
            return
        found = self._reader.read()
        if found is not None:
            self._show(*found)
        if wait_until(self._metronome.next(1 / READ_PER_S), self.wake):
            self.wake.clear()

    def _show(self, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        scene = meta.get("scene")
        moment = meta.get("picture"), meta.get("episode")
        if not isinstance(scene, dict) or moment == self._shown:  # figures go out with the picture before
            return
        self._shown = moment
        try:
            picture = self._painter.paint(Scene(scene["kind"], scene["facts"], dict(arrays)))
        except (ValueError, KeyError) as error:
            # The trainer's game cannot be drawn (or another run has begun here); figures go on, and so does the room.
            if str(error) != self._refused:
                self._refused = self.notice = str(error)
                self.on_change()
            return
        frame = self.hub.offer(self.id, live_facts(meta), picture)
        if self._recorder is not None:
            self._recorder.add(self.id, frame.packet())
            if meta.get("ended"):
                self._recorder.end(self.id, meta["score"], meta["step"], None)
                self.on_episode()


def live_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page is told with a picture, from the meta that a trainer publishes."""
    values = meta.get("q")
    return {name: meta.get(name) for name in COPIED} | {
        "value": max(values) if values else None,
        "policy_updates": meta.get("updates"),
        "policy_age_updates": 0,
        "seed": None,
        "held": None,
    }
