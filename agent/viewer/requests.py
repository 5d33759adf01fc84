"""What a viewer asks of the process that trains: one small file per request in RUN/live/requests.

    requests/N.json    {"id": N, "what": "pause"}      N: microseconds since 1970, so later ones are larger

The trainer removes a request as it takes it, and says what it did in the meta that it publishes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

WHATS = ("pause", "go on", "inference only", "train", "checkpoint", "stop")
LOOK_S = 0.1  # between two looks at the folder
SETTLED_S = 2.0  # a file system's clock may be as coarse: until then a second change may hide behind the first
LARGEST = 4096  # bytes of a request


class Request(NamedTuple):
    """One thing asked."""

    id: int
    what: str  # one of WHATS


def ask(folder: Path, what: str) -> int:
    """Leave a request in `folder` (RUN/live/requests) and return its id; OSError when nobody trains there."""
    if what not in WHATS:
        raise ValueError(f"Unknown request {what!r}. There are: {', '.join(WHATS)}.")
    while True:
        number = time.time_ns() // 1000
        temporary = folder / f".{number}.tmp"
        try:  # only one of two viewers can make it
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        try:
            os.write(file, json.dumps({"id": number, "what": what}).encode())
        finally:
            os.close(file)
        os.replace(temporary, folder / f"{number}.json")
        return number


class Requests:
    """The trainer's side: takes the requests in the order in which they were made.

    What was asked before this process began is removed, and so is what is malformed or another user's.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic):
        """Make the folder if need be; OSError when that cannot be done."""
        self.folder = folder
        self._clock = clock
        self._next_look = -1.0
        self._settled: int | None = None  # the folder's time of change when nothing was in it
        self._waiting: list[Request] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.clear()

    def next(self, only: str | None = None) -> Request | None:
        """Return the next request, None when there is none; looks at the folder every 0.1 s at most.

        `only`: nothing but this, and the others wait on.
        """
        now = self._clock()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_S
        self._look()
        for number, request in enumerate(self._waiting):
            if only is None or request.what == only:
                return self._waiting.pop(number)
        return None

    def clear(self) -> None:
        """Remove all requests."""
        self._waiting.clear()
        with suppress(OSError):
            for name in os.listdir(self.folder):
                with suppress(OSError):
                    os.unlink(self.folder / name)

    def close(self) -> None:
        """Remove the folder: nobody will answer there any more."""
        self.clear()
        with suppress(OSError):
            self.folder.rmdir()

    def _look(self) -> None:
        try:
            changed = os.stat(self.folder).st_mtime_ns
            if changed == self._settled:
                return
            self._settled = changed if abs(time.time() - changed / 1e9) > SETTLED_S else None
            names = sorted(os.listdir(self.folder))
        except OSError:
            return
        for name in names:
            if name.endswith(".tmp"):
                continue  # about to be renamed
            request = self._read(name)
            try:
                os.unlink(self.folder / name)
            except OSError:
                continue  # what cannot be removed would be done again and again
            if request is not None:
                self._waiting.append(request)

    def _read(self, name: str) -> Request | None:
        """Return the request in a file, None when it is none of ours."""
        if not re.fullmatch(r"[0-9]{1,18}\.json", name):
            return None
        try:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            file = os.open(self.folder / name, flags)
            try:
                about = os.fstat(file)
                foreign = hasattr(os, "geteuid") and about.st_uid not in (os.geteuid(), 0)
                if foreign or not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                    return None
                found = json.loads(os.read(file, LARGEST))
            finally:
                os.close(file)
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("what") not in WHATS or found.get("id") != int(name[:-5]):
            return None
        return Request(int(name[:-5]), found["what"])
