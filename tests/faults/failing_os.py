"""A module `os` whose Nth operation fails, as on a full or dying disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agent.segments import FOLDER

OPERATIONS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir", "listdir", "lstat")


class FailingOs:
    """Stands in for the module `os` in the code under test: operation number `nth` (from 0) raises `error`.

    With `lasting` every later one fails too, except close. A failing write leaves half of its data, a failing close
    closes, as real ones do. fsync is counted and not done: these tests do not cut the power.
    """

    def __init__(self, nth: int | None = None, error: int = 0, lasting: bool = False) -> None:
        self.calls = 0
        self.failed: list[tuple[str, str]] = []  # operation, and "segments" or "other"
        self._opened: dict[int, str] = {}
        self._nth, self._error, self._lasting = nth, error, lasting

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *args, **kwargs: self._call(name, real, args, kwargs)) if name in OPERATIONS else real

    def _call(self, name: str, real: Any, args: tuple, kwargs: dict) -> Any:
        now, self.calls = self.calls, self.calls + 1
        if self._nth is not None and (now == self._nth or (self._lasting and now > self._nth and name != "close")):
            self.failed.append((name, self._where(args[0])))
            if name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            elif name == "close":
                real(*args)
            raise OSError(self._error, os.strerror(self._error), str(args[0]))
        if name == "fsync":
            return None
        result = real(*args, **kwargs)
        if name == "open":
            self._opened[result] = str(args[0])
        return result

    def _where(self, what: Any) -> str:
        path = Path(self._opened[what] if isinstance(what, int) else what)
        return "segments" if FOLDER in path.parts else "other"
