"""The run panel: what the trainer says of itself twice a second, its learning curve, and its answers to requests."""

from __future__ import annotations

import asyncio
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from agent.telemetry.run_folder import RunFolder
from agent.telemetry.statistics import bootstrap_ci
from agent.viewer.hub import Hub
from agent.viewer.live_reader import LiveReader
from agent.viewer.rooms import Room

FEED_S, ASKED_S = 0.5, 0.05  # between two looks, and while somebody waits for an answer
ANSWER_S = 5.0  # after which a request is told to be without an answer
SAVING_S = 120.0  # the same where a large replay is written before the answer
MERGED = ("checkpoint",)  # once does for all who wait for it
LOG_BYTES, LOG_EVENTS = 1 << 16, 50  # of train.log's end, and of what it tells
WATCH_S = 1.0  # how often the trainer is told that somebody looks
NEED_TRAINER = ("live", "latest")  # rooms that show what it publishes
LEFT_OUT = ("q", "scene", "acknowledged", "action", "reward", "step", "ended", "picture", "td_error")  # of the picture
ENDED = {
    "done": "The run is finished.",
    "stopped": "The run was stopped; 'icebox resume' goes on with it.",
    "crashed": "The run has crashed or was killed; 'icebox resume' goes on from its newest checkpoint.",
}


class Feed(Room):
    """Follows one run folder, through ends, resumptions and restarts of its trainer."""

    kind = "live"

    def __init__(self, hub: Hub, folder: RunFolder) -> None:
        super().__init__("run", "run", hub)
        self.folder = folder
        self.updates: int | None = None  # with how many the trainer's own weights are learned by now
        self.alive = False
        self.on_alive: Callable[[], None] = lambda: None  # a trainer has begun, or begun anew
        self.on_ended: Callable[[], None] = lambda: None  # it is gone, and what it leaves is in its last checkpoint
        self._reader = LiveReader(folder.path)
        self._meta: dict[str, Any] = {}
        self._bands: dict[tuple[int, bytes], tuple[float, float]] = {}
        self._curve_of: tuple[int, int] | None = None
        self._told: tuple[Any, list[list[Any]]] = None, []  # of which state of train.log, and what it told
        self._answers: dict[int, asyncio.Future[tuple[bool, str]]] = {}
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._turn_asking = asyncio.Lock()
        self._said_at, self._watched_at = -FEED_S, -WATCH_S

    async def ask(self, what: str) -> str:
        """Ask the trainer for something; return what it says when it is done, ValueError with its reason when not.

        However many ask for a checkpoint while another request is answered, it is asked for one.
        """
        if what not in MERGED:
            return await self._ask(what)
        if what not in self._waiting:
            self._waiting[what] = asyncio.ensure_future(self._ask(what))
        return await asyncio.shield(self._waiting[what])

    async def last_word(self) -> None:
        """Tell at once how the run stands."""
        self._said_at = -FEED_S
        end = time.monotonic() + ANSWER_S
        while self._said_at < 0 and time.monotonic() < end:
            self.wake.set()
            await asyncio.sleep(0.02)

    async def _ask(self, what: str) -> str:
        async with self._turn_asking:
            if what in MERGED:
                self._waiting.pop(what, None)  # whoever asks from now on wants to have it later than this
            if not self.alive:
                raise ValueError("The run does not train at the moment, so there is nobody to ask.")
            loop = asyncio.get_running_loop()
            try:
                number = self._reader_for_asking().ask(what)
            except OSError as error:
                raise ValueError(f"The trainer cannot be asked: {error.strerror or error}.") from None
            answer: asyncio.Future[tuple[bool, str]] = loop.create_future()
            self._answers[number] = answer
            self.wake.set()
            wait_s = SAVING_S if what in ("checkpoint", "stop") else ANSWER_S
            try:
                ok, said = await asyncio.wait_for(answer, wait_s)
            except asyncio.TimeoutError:
                raise ValueError(
                    f"The trainer has not answered within {wait_s:g} s. It may be busy with something long, such as "
                    "compiling, and will obey after that."
                ) from None
            finally:
                self._answers.pop(number, None)
        if not ok:
            raise ValueError(said)
        return said

    def _reader_for_asking(self) -> LiveReader:
        return LiveReader(self.folder.path)  # that of the thread is the thread's

    def _shut(self) -> None:
        self._reader.close()

    def _turn(self) -> None:
        found = self._reader.read()
        if found is not None:
            self._meta = found[0]
            self.updates = found[0].get("updates")
            self._answer(found[0].get("acknowledged"))
        now = time.monotonic()
        if now - self._watched_at >= WATCH_S and any(map(self.hub.looked, NEED_TRAINER)):
            self._watched_at = now
            self._reader.watch()
        if now - self._said_at >= FEED_S:
            self._say()
            self._said_at = now
        self.wake.wait(ASKED_S if self._answers else FEED_S)
        self.wake.clear()

    def _answer(self, acknowledged: Mapping[str, Any] | None) -> None:
        if not acknowledged:
            return
        for number, answer in list(self._answers.items()):
            if acknowledged["id"] < number:
                continue
            if acknowledged["id"] == number:
                said = bool(acknowledged["ok"]), str(acknowledged["said"])
            else:  # another viewer has asked later, and requests are taken in their order
                said = True, "The trainer has taken this request."
            answer.get_loop().call_soon_threadsafe(_settle, answer, said)

    def _say(self) -> None:
        try:
            kept = self.folder.meta()
            status = self.folder.status
        except (OSError, ValueError):  # in the moment of its being replaced, or damaged
            return
        before, self.alive = self.alive, status == "running" and self._reader.alive
        if self.alive and not before:
            self.on_alive()
        if before and not self.alive:
            self.on_ended()
        facts = {key: value for key, value in self._meta.items() if key not in LEFT_OUT}
        facts = {"game": kept["game"], "steps": kept.get("steps"), "total_steps": kept.get("total_steps")} | facts
        silent_s = max(0.0, time.time() - facts.get("time", time.time()))
        facts |= {"alive": self.alive, "status": status, "silent_s": silent_s}
        facts.setdefault("mode", "starting")
        if not self.alive:
            facts |= {"mode": status if status != "running" else "starting", "ended": ENDED.get(status)}
            facts["steps"] = max(facts["steps"] or 0, kept.get("steps") or 0)
            facts["events"] = self._logged(kept["game"]) or facts.get("events", [])
        self.hub.say("run", facts, self._curve())

    def _logged(self, game: str) -> list[list[Any]]:
        """What train.log tells of a run that is over, read when it has changed."""
        try:
            about = self.folder.log.stat()
            state = about.st_mtime_ns, about.st_size
            if self._told[0] != state:
                self._told = state, read_log(self.folder.log, game)
        except OSError:
            return []
        return self._told[1]

    def _curve(self) -> dict[str, Any] | None:
        """The evaluations as [steps, mean, low, high], None when there are no others than before."""
        path = self.folder.evaluations
        try:
            about = path.stat()
            key = about.st_mtime_ns, about.st_size
            if key == self._curve_of:
                return None
            rows = read_evaluations(path)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None if self._curve_of is not None else {"curve": []}
        self._curve_of = key
        curve = []
        for steps, scores in rows:
            known = steps, scores.tobytes()
            if known not in self._bands:
                self._bands[known] = bootstrap_ci(scores)  # that of the events and the dashboard
            curve.append([steps, float(scores.mean()), *self._bands[known]])
        return {"curve": curve}


def read_evaluations(path: Path) -> list[tuple[int, np.ndarray]]:
    """Return the steps and the scores, f64 [E], of each evaluation in an evaluations.npz."""
    with np.load(path, allow_pickle=False) as arrays:
        return [(int(steps), np.asarray(row, np.float64)) for steps, row in zip(arrays["timesteps"], arrays["results"])]


def read_log(path: Path, game: str) -> list[list[Any]]:
    """Return the newest events of a train.log as [[seconds since 1970, text], ...], without its progress lines."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    events = []
    for line in lines[size > LOG_BYTES :]:
        found = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  (\S.*)", line)
        if found is not None and not found[2].startswith(f"{game}  "):
            try:
                events.append([datetime.fromisoformat(found[1]).timestamp(), found[2]])
            except (ValueError, OverflowError, OSError):
                continue
    return events[-LOG_EVENTS:]


def _settle(answer: asyncio.Future[tuple[bool, str]], said: tuple[bool, str]) -> None:
    if not answer.done():
        answer.set_result(said)
