"""Messages between a vector and its worker processes: fixed heads, plain bytes, and trees of JSON and raw arrays.

A broken game may leave anything in its worker's socket. Nothing that arrives is executed, allocated or waited for
beyond what it may be: what does not fit is `Garbled`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

HEAD = struct.Struct("<2sBIQ")  # magic, kind, number of the request, bytes that follow
MAGIC = b"ib"
SLICE_S = 0.25  # of a long wait; see Patience
LARGEST = 1 << 29  # bytes of one message; a saved game of a million steps has a tenth of it


class Garbled(Exception):
    """What arrived is no answer to what was asked; the text says what it is."""


class Patience:
    """Seconds that may be waited for answers, counted anew from every new one; TimeoutError when they are over.

    Of many games on few cores each is slow while the others play, but as long as one after the other answers none of
    them hangs. `answered` says which have, whoever is waited for.

    The seconds are spent in slices, none of which counts for more than its length: while this process itself is stopped
    or the machine sleeps, nobody can answer, and that is not held against anyone.
    """

    def __init__(self, seconds: float, answered: Callable[[], set[int]] = set) -> None:
        self.seconds = self.left = seconds
        self._answered = answered
        self._known: set[int] = set()

    def slice(self) -> float:
        """Return how long to wait at most before `spend` is called again, never 0."""
        return min(SLICE_S, max(self.left, 1e-3))

    def spend(self, seconds: float) -> None:
        """Count a wait of so many seconds in which who was waited for did not answer."""
        self.left -= min(seconds, SLICE_S)
        answered = self._answered()
        if not answered <= self._known:
            self._known |= answered
            self.left = self.seconds
        elif self.left <= 0:
            raise TimeoutError


class Channel:
    """One end of a socket between a vector and a worker; `size` is that of the largest usual answer."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(HEAD.size + size))
        self._timeout: float | None = None
        sock.settimeout(None)

    def send(self, kind: int, number: int, payload: bytes = b"", patience: Patience | None = None) -> None:
        """Send one message; without patience wait for ever. OSError when nobody is there, TimeoutError."""
        message = memoryview(HEAD.pack(MAGIC, kind, number, len(payload)) + payload)
        while message:
            message = message[self._patiently(self._sock.send, message, patience) :]

    def recv(self, patience: Patience | None = None) -> tuple[int, int, memoryview]:
        """Return kind, number and payload of the next message, valid until the next call; EOFError at the end.

        Without patience wait for ever; TimeoutError, Garbled.
        """
        buffer, filled = self._buffer, 0
        while filled < HEAD.size:
            filled += self._into(buffer[filled:], patience)
        magic, kind, number, length = HEAD.unpack_from(buffer)
        if magic != MAGIC or length > LARGEST:
            raise Garbled(f"it sent {bytes(buffer[: min(filled, 8)])!r}..., which is no answer")
        total = HEAD.size + length
        if filled > total:
            raise Garbled(f"it sent {filled - total} bytes more than its answer")
        if total > len(buffer):
            buffer = memoryview(bytearray(total))
            buffer[:filled] = self._buffer[:filled]
        while filled < total:
            filled += self._into(buffer[filled:total], patience)
        return kind, number, buffer[HEAD.size : total]

    def fileno(self) -> int:
        """Return the number of this end's file."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this end; the other one reads its end."""
        self._sock.close()

    def _into(self, buffer: memoryview, patience: Patience | None) -> int:
        got = self._patiently(self._sock.recv_into, buffer, patience)
        if not got:
            raise EOFError
        return got

    def _patiently(self, move: Callable[[memoryview], int], data: memoryview, patience: Patience | None) -> int:
        """Return how many bytes were moved; a wait of one slice that was in vain is counted and begun again."""
        if patience is None:
            return move(data)
        while True:
            seconds = patience.slice()
            if seconds != self._timeout:  # it costs a system call
                self._sock.settimeout(seconds)
                self._timeout = seconds
            began = time.monotonic()
            try:
                moved = move(data)
            except TimeoutError:
                patience.spend(time.monotonic() - began)
            else:
                patience.left -= time.monotonic() - began
                return moved


def readable(channels: Iterable[Channel]) -> set[int]:
    """Return the files of those channels at which something has arrived, if only the end."""
    if not hasattr(select, "poll"):
        return {channel.fileno() for channel in select.select(list(channels), [], [], 0)[0]}
    poll = select.poll()
    for channel in channels:
        poll.register(channel.fileno(), select.POLLIN)
    return {file for file, _ in poll.poll(0)}


def packed(tree: Any) -> bytes:
    """Return a tree of dicts, lists, plain values and arrays as bytes."""
    arrays: list[bytes] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value).tobytes())
            return {"": [value.dtype.str, list(value.shape)]}
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(plain(tree)).encode()
    return b"".join((struct.pack("<Q", len(text)), text, *arrays))


def unpacked(data: memoryview | bytes) -> Any:
    """Return the tree that `packed` was given, with arrays of its own; Garbled when it is no such tree."""
    data = memoryview(data)
    try:
        (length,) = struct.unpack_from("<Q", data)
        at = 8 + length
        text = json.loads(bytes(data[8:at]))

        def made(value: Any) -> Any:
            nonlocal at
            if isinstance(value, list):
                return [made(item) for item in value]
            if not isinstance(value, dict):
                return value
            if "" not in value:
                return {name: made(item) for name, item in value.items()}
            dtype, shape = np.dtype(value[""][0]), value[""][1]
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
            at += array.nbytes
            return array

        return made(text)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, struct.error) as error:
        raise Garbled(f"it sent a message that cannot be read: {error}") from error
