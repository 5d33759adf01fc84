"""Episodes that a page has opened, held open: they can be watched and saved after newer games took their place."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

MOST = 16  # opened before the last so many, an episode is let go


class Held:
    """One episode's file, readable for as long as it is held, whatever becomes of its name."""

    def __init__(self, row: Mapping[str, Any], file: BinaryIO) -> None:
        self.row = row
        self._file, self._lock = file, threading.Lock()

    def read(self) -> bytes:
        """Return the whole file; ValueError when it was let go meanwhile."""
        with self._lock:
            self._file.seek(0)
            return self._file.read()

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._file.close()


class Lent:
    """The episodes that were opened last. From any thread."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, row: Mapping[str, Any], path: Path) -> Held:
        """Open an episode's file, or return it as it is held already; OSError when it is gone."""
        with self._lock:
            held = self._held.pop(row["id"], None) or Held(row, open(path, "rb"))  # noqa: SIM115: closed when let go
            self._held[row["id"]] = held
            while len(self._held) > MOST:
                self._held.popitem(last=False)[1].close()
            return held

    def get(self, id: str) -> Held | None:
        """Return the episode of that name, None when it is not held."""
        with self._lock:
            return self._held.get(id)

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()
