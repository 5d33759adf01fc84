"""Episodes that were shown, kept as the packets they went out in: for each room the best, the worst and the latest.

    ID.ep        the packets one after the other, each with its length (u32 little-endian) before it
    ID.webp/gif  the same as an animation, made when somebody first asks
    index.json   what each is; a new file counts from the moment it stands here, an old one is deleted after that

A file that the index does not name, because a crash or another process came between, is taken in when a log is opened.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

from agent.durable import make_directory, remove_leftovers, write_atomic
from agent.viewer.clip import animate
from agent.viewer.lent import Lent
from agent.viewer.packet import LENGTH, packets_in, read_packets, unpack

FORMAT, VERSION, INDEX = "icebox-episodes", 1, "index.json"
MOST_BYTES, MOST_PICTURES = 64 << 20, 40_000  # of one episode; what comes later is not kept
FEWEST_PICTURES = 3  # fewer are no episode: a viewer caught the end of a game
SETTLE_S = 1.0  # of a room whose games end more often than this, only the best and the worst are kept at once
USUAL_PER_S = 30.0  # pictures, where nothing is known
FORMS = ("webp", "gif")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass
class _Open:
    """An episode that goes on."""

    number: Any  # what the packets call it
    path: Path
    file: BinaryIO | None  # None: it could not be written
    pictures: int = 0
    bytes: int = 0
    first_step: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)  # meta of the newest packet
    full: bool = False
    times: list[float] = field(default_factory=list)


class EpisodeLog:
    """The episodes in one folder. Every method may be called from any thread, and several processes may use a folder.

    Nothing that the disk does ends a game: a full disk, a damaged index or file is a sentence to `say`, and what it is
    about is left out.
    """

    _newer = False  # the index is of a version that this one does not know

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda sentence: None) -> None:
        self.folder, self._say = Path(folder), say
        self._lock, self._keeping, self._rendering = threading.Lock(), threading.Lock(), threading.Lock()
        self._open: dict[str, _Open] = {}
        self._kept_at: dict[str, float] = {}
        self._said: set[str] = set()
        self._lent = Lent()
        remove_leftovers(self.folder)
        self._adopt()

    # --- while it is played ------------------------------------------------------------------------------------------

    def add(self, room: str, packet: bytes) -> None:
        """Add a picture to the open episode of a room; the first of another episode ends the open one.

        One that had not come to its end by then is kept as cut.
        """
        meta = unpack(packet)[0]
        open_ = self._open.get(room)
        if open_ is not None and open_.number != meta.get("episode"):
            self._keep(room, self._take(room), None)
        with self._lock:
            episode = self._open.get(room)
            if episode is None:
                episode = self._open[room] = self._begin(room, meta)
            episode.last = meta
            if episode.file is None or episode.full:
                return
            if episode.pictures >= MOST_PICTURES or episode.bytes + len(packet) > MOST_BYTES:
                episode.full = True
                return
            try:
                episode.file.write(LENGTH.pack(len(packet)) + packet)
            except OSError as error:
                self._fail(episode, error)
                return
            episode.pictures += 1
            episode.bytes += LENGTH.size + len(packet)
            episode.times.append(time.monotonic())

    def end(
        self,
        room: str,
        score: float,
        length: int,
        seed: int | None,
        *,
        pictures_per_s: float | None = None,
        keep: bool = False,
        finished: bool = True,
    ) -> dict[str, Any] | None:
        """Close the open episode of a room; return its row, None when it is not kept.

        `pictures_per_s` is how fast it should be shown, None: as fast as it came. `keep`: it stays whatever its score.
        Not `finished`: it was left before its end.
        """
        facts = {"score": float(score), "length": int(length), "seed": seed, "keep": keep, "finished": finished}
        return self._keep(room, self._take(room), facts, pictures_per_s)

    def drop(self, room: str) -> None:
        """Forget the open episode of a room."""
        if (episode := self._take(room)) is not None:
            _discard(episode)

    def _take(self, room: str) -> _Open | None:
        with self._lock:
            return self._open.pop(room, None)

    def close(self) -> None:
        """Forget what is open, and let go of what was opened."""
        for room in list(self._open):
            self.drop(room)
        self._lent.close()

    def _begin(self, room: str, meta: Mapping[str, Any]) -> _Open:
        slug = re.sub(r"[^a-z0-9]+", "-", room.lower()).strip("-")[:24] or "room"
        id = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(3)}"
        episode = _Open(meta.get("episode"), self.folder / f".{id}.tmp", None, first_step=_count(meta.get("step")))
        try:
            self._require_known()
            make_directory(self.folder)
            episode.file = open(episode.path, "xb")  # noqa: SIM115: closed when the episode ends
        except OSError as error:
            self._fail(episode, error)
        return episode

    def _fail(self, episode: _Open, error: OSError) -> None:
        self._once(f"Episodes cannot be kept in {self.folder}: {error.strerror or error}.")
        _discard(episode)

    def _keep(
        self, room: str, episode: _Open | None, facts: dict[str, Any] | None, per_s: float | None = None
    ) -> dict[str, Any] | None:
        if episode is None or episode.file is None:
            return None
        last, now = episode.last, time.time()
        if facts is None:  # nobody has ended it: what its last picture says
            facts = {
                "score": _number(last.get("score")) or 0.0,
                "length": _count(last.get("step")),
                "seed": last.get("seed"),
                "keep": False,
                "finished": last.get("ended") is True,
            }
        row = {
            "id": episode.path.name.removeprefix(".").removesuffix(".tmp"),
            "room": room,
            **facts,
            "time": now,
            "cut": _cut(episode, facts),
            "pictures": episode.pictures,
            "pictures_per_s": per_s or _rate(episode.times),
            "bytes": episode.bytes,
        }
        with self._keeping:
            rows = self._read()
            others = [each for each in rows if each["room"] == room and each["finished"] and not each["keep"]]
            settled = now - self._kept_at.get(room, -math.inf) >= SETTLE_S
            outstanding = facts["finished"] and not _low(others) <= facts["score"] <= _high(others)
            if episode.pictures < FEWEST_PICTURES or not (facts["keep"] or settled or outstanding):
                _discard(episode)
                return None
            try:
                episode.file.close()
                os.replace(episode.path, self._file(row["id"], "ep"))
                self._write([*rows, row])
            except OSError as error:
                self._fail(episode, error)
                return None
            self._kept_at[room] = now
        return row

    # --- what is kept ------------------------------------------------------------------------------------------------

    def list(self) -> list[dict[str, Any]]:
        """Return a row for each episode, the newest first: id, room, score, length (steps), seed, time, why and others.

        `why` is best, worst, latest or recorded; `cut` is a sentence on what is missing, empty when nothing is.
        """
        rows = self._read()
        reasons = _reasons(rows)
        return [{**row, "why": reasons.get(row["id"], "latest")} for row in sorted(rows, key=lambda row: -row["time"])]

    def path(self, id: str, form: str) -> Path:
        """Return where an episode's file lies; FileNotFoundError when there is none of that name."""
        self._row(id)
        if form not in ("ep", *FORMS):
            raise FileNotFoundError(f"Episodes are kept as ep, webp or gif, not {form!r:.20}.")
        return self._file(id, form)

    def content(self, id: str) -> bytes:
        """Return an episode's .ep file, and hold it: it can be saved although a newer game takes its place."""
        held = self._lent.get(id) or self._lent.hold(self._row(id), self._file(id, "ep"))
        return held.read()

    def animation(self, id: str, form: str, on_share: Callable[[float], None] = lambda share: None) -> bytes:
        """Return an episode as an animated "webp" or "gif"; FileNotFoundError or ValueError in a sentence.

        `on_share` is told how much of it is done, 0 .. 1, when it has to be made.
        """
        held = self._lent.get(id)
        row, path = self._row(id) if held is None else held.row, self._file(id, form)
        with self._rendering:  # one at a time: each takes a core
            if path.is_file():
                return path.read_bytes()
            packets = packets_in(io.BytesIO(held.read())) if held else read_packets(self._file(id, "ep"))
            data = animate(packets, form, row["pictures_per_s"], row["pictures"], on_share)
            with self._keeping:
                if any(each["id"] == id for each in self._read()):  # beside what was replaced nothing is left
                    try:
                        write_atomic(path, data)
                    except OSError as error:
                        self._once(f"{path} cannot be written: {error.strerror or error}.")
            return data

    def _row(self, id: str) -> dict[str, Any]:
        for row in self._read():
            if row["id"] == id:
                return row
        raise FileNotFoundError(f"There is no episode {id!r:.80}; it may have been replaced by a newer one.")

    def _file(self, id: str, form: str) -> Path:
        return self.folder / f"{id}.{form}"

    def _read(self) -> list[dict[str, Any]]:
        """The index's rows that are sound and whose files are there."""
        try:
            found = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            self._newer = found["format"] == FORMAT and found["version"] != VERSION
            if found["format"] != FORMAT or self._newer:
                raise ValueError(f"it is of version {found['version']!r:.20}, this Icebox reads {VERSION}")
            rows = list(found["episodes"])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._once(f"{self.folder / INDEX} is damaged and passed over: {error!r:.100}.")
            return []
        sound = [row for row in rows if _is_row(row)]
        if len(sound) < len(rows):
            self._once(f"{self.folder / INDEX}: {len(rows) - len(sound)} damaged rows are passed over.")
        return [row for row in sound if self._file(row["id"], "ep").is_file()]

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Keep of each room what should be kept, name it in the index, then delete the others."""
        self._require_known()
        reasons = _reasons(rows)
        kept = [row for row in rows if row["id"] in reasons]
        index = {"format": FORMAT, "version": VERSION, "episodes": kept}
        write_atomic(self.folder / INDEX, json.dumps(index, indent=1) + "\n")
        for row in rows:
            if row["id"] not in reasons:
                for form in ("ep", *FORMS):
                    with suppress(OSError):
                        self._file(row["id"], form).unlink()

    def _adopt(self) -> None:
        """Take in files that the index does not name."""
        rows = self._read()
        known, found = {row["id"] for row in rows}, []
        for path in sorted(self.folder.glob("*.ep")):
            if _ID.fullmatch(path.stem) and path.stem not in known:
                try:
                    found.append(_row_of(path))
                except (OSError, ValueError) as error:
                    self._once(f"{path} is damaged and passed over: {error}")
        if found:
            try:
                self._write([*rows, *found])
            except OSError as error:
                self._once(f"{self.folder / INDEX} cannot be written: {error.strerror or error}.")

    def _require_known(self) -> None:
        if self._newer:  # written over, it would lose what this version does not know, and the games that it keeps
            raise OSError("their index is of another version")

    def _once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)


def _row_of(path: Path) -> dict[str, Any]:
    """The row of a file that lost it, from its own packets; ValueError when they do not tell."""
    pictures, last = 0, None
    for packet in read_packets(path):
        last, pictures = unpack(packet)[0], pictures + 1
    if last is None:
        raise ValueError("it holds no picture.")
    finished = last.get("ended") is True
    row = {
        "id": path.stem, "room": last.get("room"), "score": last.get("score"), "length": last.get("step"),
        "seed": last.get("seed"), "keep": False, "finished": finished, "time": path.stat().st_mtime,
        "cut": "" if finished else "It was left before its end.", "pictures": pictures, "pictures_per_s": USUAL_PER_S,
        "bytes": path.stat().st_size,
    }  # fmt: skip
    if not _is_row(row):
        raise ValueError("its packets do not say which room and score it is of.")
    return row


def _is_row(row: Any) -> bool:
    """Whether a row holds what is used of it."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not _ID.fullmatch(row["id"]):
        return False
    numbers = all(_number(row.get(name)) is not None for name in ("score", "time"))
    numbers = numbers and 0.1 <= (_number(row.get("pictures_per_s")) or 0.0) <= 1000.0
    counts = all(type(row.get(name)) is int and row[name] >= 0 for name in ("length", "pictures", "bytes"))
    words = all(isinstance(row.get(name), str) and len(row[name]) <= 200 for name in ("room", "cut"))
    seed = row.get("seed") is None or type(row["seed"]) is int
    return numbers and counts and words and seed and all(type(row.get(name)) is bool for name in ("keep", "finished"))


def _reasons(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return why each is kept, by id; what is not named is not kept."""
    reasons, rooms = {}, {}
    for row in rows:
        rooms.setdefault(row["room"], []).append(row)
    for found in rooms.values():
        reasons |= {row["id"]: "recorded" for row in found if row["keep"]}
        played = sorted((row for row in found if not row["keep"]), key=lambda row: row["time"])
        finished = [row for row in played if row["finished"]]
        if finished:  # of equals the oldest
            reasons[min(finished, key=lambda row: row["score"])["id"]] = "worst"
        if played:
            reasons[played[-1]["id"]] = "latest"
        if finished:
            reasons[max(finished, key=lambda row: row["score"])["id"]] = "best"
    return reasons


def _low(rows: Iterable[Mapping[str, Any]]) -> float:
    return min((row["score"] for row in rows), default=math.inf)


def _high(rows: Iterable[Mapping[str, Any]]) -> float:
    return max((row["score"] for row in rows), default=-math.inf)


def _cut(episode: _Open, facts: Mapping[str, Any]) -> str:
    """What is missing as a sentence, empty when nothing is."""
    missing = []
    if episode.first_step > max(1, facts["length"] // 10):
        missing.append(f"its first {episode.first_step:,} steps were not seen")
    if episode.full:
        missing.append(f"only its first {episode.pictures:,} pictures are kept")
    if not facts["finished"]:
        missing.append("it was left before its end")
    said = "; ".join(missing)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _rate(times: list[float]) -> float:
    """Pictures per second, by the usual time between two."""
    gaps = [after - before for before, after in zip(times, times[1:])]
    usual = median(gaps) if gaps else 0.0
    return 1.0 / usual if 1 / 120 <= usual <= 2.0 else USUAL_PER_S


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _discard(episode: _Open) -> None:
    with suppress(OSError):
        if episode.file is not None:
            episode.file.close()
    episode.file = None
    with suppress(OSError):
        episode.path.unlink()
