"""A slot in a file: one process writes the newest packet, any number read it, and no reader can disturb the writer.

The file is written and read through the operating system, not mapped: both share the same pages of memory, a packet of
100 kB costs 10 us, and a disk that is full or a file that was cut short is an error that can be caught. In a mapped file
it is a signal that kills the trainer.

    bytes 0 .. 8     b"iceslot1"
    8 .. 16          u64, the sequence: odd while a packet is being written, 2 more for every packet
    16 .. 24         u64, the packet's length; 0: there is none
    24 ..            the packet

A reader takes sequence, length, packet and the sequence again: if it was even and still is the same, the packet is
whole. Each is a read of its own, for within one the order of the bytes is nobody's promise.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"iceslot1"
SEQUENCE, LENGTH, PACKET = 8, 16, 24  # where they lie
LARGEST = 1 << 30  # bytes of a packet: more is no packet of ours
MOST_AXES = 8
ATTEMPTS = 50  # to read a packet that is overwritten meanwhile, before a reader leaves it for its next look

# What an array may be made of: numbers, nothing that is an object.
DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}


class SlotWriter:
    """Writes the newest packet; every method raises OSError when the disk does not take it."""

    def __init__(self, path: Path):
        """Make the file, or go on where a writer that is gone left it: whoever reads it need not open it again."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
        head = _read(self._file, PACKET, 0)
        whole = len(head) == PACKET and head.startswith(MAGIC) and _number(head[SEQUENCE:LENGTH]) < 1 << 62
        self._sequence = _number(head[SEQUENCE:LENGTH]) + 1 & ~1 if whole else 0  # a packet that was begun is over
        try:
            if not whole:
                os.ftruncate(self._file, 0)
            _write(self._file, [MAGIC], 0)
            self.write()
        except BaseException:
            os.close(self._file)
            raise

    def write(self, *parts: bytes | memoryview) -> None:
        """Replace the packet by `parts`, one after the other; without any there is no packet."""
        length = sum(len(part) for part in parts)
        self._set_sequence(self._sequence + 1)  # again after an error: it is odd until a packet is whole
        _write(self._file, [_U64.pack(length), *parts], LENGTH)
        self._set_sequence(self._sequence + 2)
        self._sequence += 2

    def close(self) -> None:
        """Empty the slot and remove the file; a second call does nothing."""
        if self._file < 0:
            return
        with suppress(OSError):
            self.write()  # for those who have it open
        file, self._file = self._file, -1
        with suppress(OSError):
            os.close(file)
        with suppress(OSError):
            os.unlink(self.path)

    def _set_sequence(self, sequence: int) -> None:
        _write(self._file, [_U64.pack(sequence)], SEQUENCE)


class SlotReader:
    """Reads the newest packet; a file that is not there yet, or no longer, is a slot without one."""

    def __init__(self, path: Path):
        self.path = path
        self._file = -1
        self._seen: int | None = None  # sequence of the packet that was read last

    def read(self) -> bytes | None:
        """Return the newest packet, whole; None where there is no newer one than at the last call."""
        try:
            self._follow()
            return self._newest() if self._file >= 0 else None
        except OSError:
            self.close()
            return None

    def close(self) -> None:
        """Close the file; the next `read` opens it again."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
        self._file, self._seen = -1, None

    def _follow(self) -> None:
        """Open the file that has the name now."""
        found = os.stat(self.path)
        if self._file >= 0:
            ours = os.fstat(self._file)
            if (ours.st_ino, ours.st_dev) == (found.st_ino, found.st_dev):
                return
            self.close()
        self._file = os.open(self.path, os.O_RDONLY | _BINARY)

    def _newest(self) -> bytes | None:
        for _ in range(ATTEMPTS):
            before = _read(self._file, 8, SEQUENCE)
            if len(before) < 8 or _number(before) == self._seen:
                return None
            length = _number(_read(self._file, 8, LENGTH))
            if _number(before) % 2 or length > LARGEST:
                continue
            packet = _read(self._file, length, PACKET)
            if _read(self._file, 8, SEQUENCE) != before or len(packet) != length:
                continue
            if _read(self._file, len(MAGIC), 0) != MAGIC:
                return None
            self._seen = _number(before)
            return packet or None
        return None


_U64 = struct.Struct("<Q")
_BINARY = getattr(os, "O_BINARY", 0)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _write(file: int, parts: list[bytes | memoryview], offset: int) -> None:
    """Write all of `parts` there."""
    if hasattr(os, "pwritev"):
        written = os.pwritev(file, parts, offset)
        if written == sum(len(part) for part in parts):
            return
        parts = [b"".join(parts)[written:]]  # a disk that is almost full took some of it
        offset += written
    os.lseek(file, offset, os.SEEK_SET)
    rest = memoryview(b"".join(parts))
    while rest:
        rest = rest[os.write(file, rest) :]


def _read(file: int, length: int, offset: int) -> bytes:
    """Return up to `length` bytes from there, fewer at the end of the file."""
    if hasattr(os, "pread"):
        return os.pread(file, length, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, length)


# --- what is in a packet ---------------------------------------------------------------------------------------------


def pack(meta: Mapping[str, Any] | bytes, arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """Return a packet in parts: u32 length, JSON {"meta": ..., "arrays": [[name, dtype, shape], ...]}, the arrays.

    `meta` may be JSON already. The arrays are not copied. ValueError for one that is not made of numbers, or a number
    in `meta` that is not finite.
    """
    contiguous = [(name, np.ascontiguousarray(array).reshape(array.shape)) for name, array in arrays.items()]
    table = [[name, array.dtype.str.lstrip("<|="), list(array.shape)] for name, array in contiguous]
    for name, dtype, _ in table:
        if dtype not in DTYPES:
            raise ValueError(f"The array {name} is {dtype}, which a packet does not hold.")
    text = meta if isinstance(meta, bytes) else json.dumps(meta, allow_nan=False).encode()
    head = b'{"arrays": ' + json.dumps(table).encode() + b', "meta": ' + text + b"}"
    parts: list[bytes | memoryview] = [struct.pack("<I", len(head)) + head]
    return parts + [memoryview(array.reshape(-1).view(np.uint8)) for _, array in contiguous if array.size]


def unpack(packet: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the meta and the arrays, read-only and without a copy; ValueError for what is no packet, said how.

    Nothing in it is executed, and no size in it is believed before it is checked.
    """
    if len(packet) < 4:
        raise ValueError(f"A packet of {len(packet)} bytes has no head.")
    start = 4 + int.from_bytes(packet[:4], "little")
    if start > len(packet):
        raise ValueError(f"A packet of {len(packet)} bytes cannot have a head of {start - 4}.")
    try:
        head = json.loads(packet[4:start])
        meta, table = head["meta"], [(name, dtype, tuple(shape)) for name, dtype, shape in head["arrays"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"The head of a packet is damaged: {error!r:.200}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"The meta of a packet is {type(meta).__name__}, not an object.")
    arrays = {}
    for name, dtype, shape in table:
        known = isinstance(name, str) and isinstance(dtype, str) and dtype in DTYPES
        if not known or not all(type(n) is int and 0 <= n <= LARGEST for n in shape) or len(shape) > MOST_AXES:
            raise ValueError(f"A packet names an array that cannot be: {[name, dtype, shape]!r:.200}")
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size > len(packet) - start:
            raise ValueError(f"The array {name:.100} of a packet is cut short.")
        arrays[name] = np.frombuffer(packet, f"<{dtype}", count, start).reshape(shape)
        start += size
    if start != len(packet):
        raise ValueError(f"{len(packet) - start} bytes of a packet belong to nothing.")
    return meta, arrays
