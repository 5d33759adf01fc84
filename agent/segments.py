"""Records that are only ever appended <-> segments: files that are written once and shared between checkpoints.

    segments/segment-00000123.bin
      u64, JSON             length of the header; the header: what a record is, and which ones of each column lie here
      group, group, ...     the records, column by column; where they differ in size, each group begins with the sizes
      u32, u32, ...         the table: of each group its length and the CRC-32 of its bytes

A checkpoint's manifest names the segments it needs, with the size of each and the SHA-256 of header and table: the
digest of a whole segment would take eight times as long as the CRC-32 of its groups.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.appended import Growing, Kept, Loaded, Records, Segment, groups, reach
from agent.durable import make_directory, sync_directory, write_parts

FOLDER = "segments"  # beside the checkpoints
FORMAT, VERSION = "icebox-segment", 1
SEGMENT_BYTES = 64 << 20  # so much more than the records that still count may lie on disk; compressed it is less
_NAME = re.compile(r"segment-([0-9]{8,})\.bin")


# --- writing ---------------------------------------------------------------------------------------------------------


class Shelf:
    """The segments of one save: `place` every leaf, then `write`, and at the end either `settle` or `undo`."""

    def __init__(self, directory: Path) -> None:
        """`directory` is that of the checkpoints."""
        self.folder = directory / FOLDER
        self._home = str(self.folder.resolve())
        self._placed: list[tuple[Growing, list[Segment], list[Segment]]] = []  # leaf, segments it has, and will have
        self._made: list[Path] = []

    @property
    def names(self) -> set[str]:
        """The segments that this save needs."""
        return {segment.name for _, kept, new in self._placed for segment in (*kept, *new)}

    def place(self, leaf: Growing) -> dict[str, Any]:
        """Decide which segments hold a leaf's records, and return the leaf as JSON. Writes nothing."""
        kept = [each for each in leaf.kept.segments if self._is_there(each)] if leaf.kept.home == self._home else []
        kept, missing = plan(leaf, kept)
        leaf.kept.used = max([leaf.kept.used, *map(_number, self.names), *map(_number, _names(self.folder))])
        new = []
        for first, stop in missing:
            leaf.kept.used += 1
            new.append(Segment(f"segment-{leaf.kept.used:08d}.bin", first, stop, {}))
        self._placed.append((leaf, kept, new))
        return {
            "layout": leaf.layout,
            "first": leaf.first.tolist(),
            "stop": leaf.stop.tolist(),
            "segments": [segment.name for segment in (*kept, *new)],
            "used": leaf.kept.used,
        }

    def write(self) -> dict[str, dict[str, Any]]:
        """Write what is new, durable on return; return the size and digest of every segment needed, for a manifest."""
        for leaf, _, new in self._placed:
            if new:
                make_directory(self.folder)
            for segment in new:
                self._made.append(self.folder / segment.name)
                segment.record.update(_write(self._made[-1], leaf, segment))
        if self._made:
            sync_directory(self.folder)
        return {segment.name: segment.record for _, kept, new in self._placed for segment in (*kept, *new)}

    def settle(self) -> None:
        """Take note that the checkpoint that names them is durable: they need not be written again."""
        for leaf, kept, new in self._placed:
            leaf.kept.home, leaf.kept.segments = self._home, [*kept, *new]

    def undo(self) -> None:
        """Remove what was written; what cannot be removed is left for the next save."""
        for path in self._made:
            with suppress(OSError):
                os.unlink(path)

    def _is_there(self, segment: Segment) -> bool:
        """Return whether a segment is still what was written, as far as size, header and table say."""
        try:
            with open(self.folder / segment.name, "rb") as file:
                ends = _ends(np.memmap(file, np.uint8, "r"))
        except (FileNotFoundError, ValueError):
            return False
        return ends.record == segment.record


def _names(folder: Path) -> list[str]:
    """Return the names of the segments that lie in `folder`, needed or not."""
    try:
        return [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []


def _number(name: str) -> int:
    return int(_NAME.fullmatch(name)[1])  # type: ignore[index]


def remove_all_but(folder: Path, needed: AbstractSet[str], before: Callable[[], None]) -> None:
    """Remove the segments that are not `needed`, after `before()`; what cannot be removed is left for the next time."""
    names = [name for name in _names(folder) if name not in needed]
    if names:
        before()
    for name in names:
        with suppress(OSError):
            os.unlink(folder / name)


def plan(leaf: Growing, kept: list[Segment]) -> tuple[list[Segment], list[tuple[np.ndarray, np.ndarray]]]:
    """Return which of the `kept` segments a save still needs, and from where to where the new ones shall go.

    Small segments are written once more, into one with what is new, when that is as large: however often a run saves,
    a record is rarely written, and there are few files.
    """
    first, stop = leaf.first, leaf.stop
    kept = [segment for segment in kept if segment.live(first)]
    start = reach(kept, first)
    if start is None or (start > stop).any():  # somebody removed one
        kept, start = [], first
    most = max(1, SEGMENT_BYTES // leaf.most_bytes)
    new = int((stop - start).sum())
    while kept and (again := kept[-1].live(first)) <= new and again + new <= most:
        last = kept.pop()
        start = np.where(last.stop > last.first, np.minimum(start, np.maximum(first, last.first)), start)
        new = int((stop - start).sum())
    parts = -(-new // most)
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)] if parts else []
    return kept, [(low, high) for low, high in pairwise(edges) if (high > low).any()]


def _write(path: Path, leaf: Growing, segment: Segment) -> dict[str, Any]:
    """Write a new segment, its data durable on return; return its size and the digest of header and table."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "layout": leaf.layout,
        "group": leaf.group,
        "first": segment.first.tolist(),
        "stop": segment.stop.tolist(),
    }
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    head, table = len(text).to_bytes(8, "little") + text, bytearray()

    def parts() -> Iterator[bytes | memoryview]:
        yield head
        for records in leaf.between(segment.first, segment.stop):
            sizes = b"" if leaf.layout["record_bytes"] else records.sizes.astype("<u4").tobytes()
            data = memoryview(records.data)
            table.extend(struct.pack("<II", len(sizes) + len(data), zlib.crc32(data, zlib.crc32(sizes))))
            yield from (sizes, data) if sizes else (data,)
        yield bytes(table)

    size = write_parts(path, parts())
    return {"bytes": size, "sha256": hashlib.sha256(head + table).hexdigest()}


# --- reading ---------------------------------------------------------------------------------------------------------


class _Ends(NamedTuple):
    """What stands at both ends of a segment."""

    header: dict[str, Any]
    start: int  # of the groups
    table: np.ndarray  # u32 [groups, 2], length and CRC-32
    record: dict[str, Any]  # as a manifest has it


def _ends(content: np.ndarray) -> _Ends:
    """Return header and table of a segment, u8 [bytes]; ValueError when they are none."""
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    head = content[: min(start, len(content))].tobytes()
    try:
        header = json.loads(head[8:])
        if (header["format"], header["version"]) != (FORMAT, VERSION):
            raise ValueError("it is of another format")
        first, stop = spans(header)
        records = int((stop - first).sum())
        length = 8 * -(-records // int(header["group"]))
    except (TypeError, KeyError, OverflowError, RecursionError, ZeroDivisionError) as error:
        raise ValueError("its header makes no sense") from error
    if not 0 <= length <= len(content) - start or records > len(content):
        raise ValueError("it is too short")
    table = content[len(content) - length :].tobytes()
    record = {"bytes": len(content), "sha256": hashlib.sha256(head + table).hexdigest()}
    return _Ends(header, start, np.frombuffer(table, "<u4").reshape(-1, 2), record)


def spans(node: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return from where to where, i64 [columns], the JSON of a header or a leaf says that records go."""
    try:
        first, stop = np.array(node["first"], np.int64), np.array(node["stop"], np.int64)
    except OverflowError as error:
        raise ValueError("it has more records than there can be") from error
    if first.ndim != 1 or first.shape != stop.shape or (first < 0).any() or (first > stop).any():
        raise ValueError("its records are numbered backwards")
    if (stop >= 2**48).any():
        raise ValueError("it has more records than there can be")
    return first, stop


class SegmentFile:
    """A segment that was verified to the last byte. It is mapped: its records cost memory only while they are read."""

    def __init__(self, folder: Path, name: str, record: Any, *, lenient: bool = False) -> None:
        """Raise ValueError, naming the file and what is wrong, when it is not what a manifest's `record` says.

        A `lenient` one leaves out groups that are damaged.
        """
        said = f"{folder.name}/{name}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{said} is not the name of a segment.")
        try:
            status = os.lstat(folder / name)
        except FileNotFoundError:
            raise ValueError(f"{said} is missing.") from None
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{said} is not a regular file.")
        if not isinstance(record, dict) or record.get("bytes") != status.st_size or not status.st_size:
            raise ValueError(f"{said} has {status.st_size} bytes, not what the manifest says.")
        self._content = np.asarray(np.memmap(folder / name, np.uint8, "r"))
        try:
            self._ends = _ends(self._content)
            if self._ends.record != record:
                raise ValueError("its header or table is not the one that the manifest says")
            self.layout = self._ends.header["layout"]
            self.segment = Segment(name, *spans(self._ends.header), record)
            self._damaged = self._check()
            if self._damaged and not lenient:
                raise ValueError(f"group {self._damaged[0]} of {len(self._ends.table)} has not its CRC-32")
            for _ in self:  # the sizes add up
                pass
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"{said} is damaged: {error}.") from error

    @property
    def is_whole(self) -> bool:
        """Whether no group is damaged."""
        return not self._damaged

    def _check(self) -> list[int]:
        """Return which groups are not what the table says."""
        at, damaged = self._ends.start, []
        for index, (length, digest) in enumerate(self._ends.table.tolist()):
            if zlib.crc32(self._content[at : at + length]) != digest:
                damaged.append(index)
            at += length
        if at + self._ends.table.nbytes != len(self._content):
            raise ValueError("its groups have not the length that the table says")
        return damaged

    def __iter__(self) -> Iterator[Records]:
        """Yield the records of each group."""
        at, size = self._ends.start, self.layout["record_bytes"]
        numbered = groups(self.segment.first, self.segment.stop, self._ends.header["group"])
        lengths = self._ends.table[:, 0].tolist()
        for index, ((columns, numbers), length) in enumerate(zip(numbered, lengths, strict=True)):
            group = self._content[at : at + length]
            at += length
            if index in self._damaged:
                continue
            if size:
                sizes = np.full(len(columns), size, np.int64)
            else:
                sizes = group[: 4 * len(columns)].view("<u4").astype(np.int64)
                group = group[4 * len(columns) :]
            if len(sizes) != len(columns) or sizes.sum() != len(group):
                raise ValueError("the sizes of its records do not add up")
            yield Records(columns, numbers, sizes, group)


def loaded(node: Any, files: Mapping[str, SegmentFile], folder: Path, *, lenient: bool) -> Loaded:
    """Return the leaf of which `place` made the JSON `node`; ValueError when the segments do not hold its records.

    A `lenient` one has those that are there.
    """
    held = [files[name] for name in node["segments"] if name in files or not lenient]
    first, stop = spans(node)
    for file in held:
        if file.layout != node["layout"] or file.segment.first.shape != first.shape:
            raise ValueError(f"{file.segment.name} holds other records than it asks for")
    kept = Kept(str(folder.resolve()), [file.segment for file in held if file.is_whole])
    kept.used = max([int(node["used"]), *map(_number, _names(folder))])
    reached = reach(kept.segments, first)
    if not lenient and (reached is None or (reached < stop).any()):
        raise ValueError("a record is in none of its segments")
    return Loaded(node["layout"], first, stop, kept, held)
