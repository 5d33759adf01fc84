"""Which process holds a run folder: an identity that no reused pid fools, and a lock that no crash leaves shut."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

WRITING_S = 10.0  # a lock without an owner is being written if it is younger than this


def this_process() -> dict[str, Any]:
    """Return what identifies this process: host, pid, and the moment it started."""
    return {"host": platform.node(), "pid": os.getpid(), "start": _start(os.getpid())}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Say whether a process as `this_process` described it may still run.

    True for a process of another host, of which nothing can be known. False after a restart of the machine, and when
    another process has been given the same pid.
    """
    if not process.get("pid"):
        return False
    if process.get("host") != platform.node():
        return True
    return _start(process["pid"]) == process.get("start")


def _start(pid: int) -> str | None:
    """Return a text that no other process on this machine has or had, None when no such process runs."""
    try:
        if sys.platform == "linux":  # psutil's time moves when the system clock is set; these two do not
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return None if state in "ZX" else f"{boot}:{fields[18]}"
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None


class Lock:
    """One process at a time may hold a directory.

    The lock is a file `.lock-N` that names its owner. The highest N counts. Whoever finds its owner dead creates N + 1,
    which only one can (O_EXCL), so that two processes which find the same dead owner do not both win. A released lock
    stays as a file without an owner: were it removed, a number could be created twice.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mine: Path | None = None

    def acquire(self) -> None:
        """Take the lock; RuntimeError names the process that holds it."""
        number = self._newest()
        self._refuse_if_held(number)
        mine = self._file(number + 1)
        try:
            with open(mine, "x", encoding="utf-8") as file:
                json.dump(this_process(), file)
        except FileExistsError:
            raise RuntimeError(f"Another process has just started in {self._directory}.") from None
        except OSError:  # a lock that names nobody would keep others out for a while
            mine.unlink(missing_ok=True)
            raise
        try:  # while this process slept, the number may have been used and removed, or the old owner become known
            self._refuse_if_held(number)
            if self._newest() != number + 1:
                raise RuntimeError(f"Another process has just started in {self._directory}.")
        except RuntimeError:
            mine.unlink(missing_ok=True)
            raise
        self._mine = mine
        for older in self._numbers():
            if older <= number:
                self._file(older).unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._mine is not None:
            with suppress(OSError):  # the folder was removed, or nothing can be written: the owner will be found dead
                self._mine.write_text("{}", encoding="utf-8")
            self._mine = None

    def _refuse_if_held(self, number: int) -> None:
        path = self._file(number)
        try:
            text, age_s = path.read_text(encoding="utf-8"), time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return
        try:
            owner = json.loads(text)
            held = is_alive(owner)
        except ValueError:
            owner, held = {}, abs(age_s) < WRITING_S  # of the future when the clock was set back
        if held:
            who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this machine')}"
            raise RuntimeError(
                f"{self._directory} is in use by {who}. Stop that process first; "
                f"if it is certain that it no longer runs, delete {path}."
            )

    def _file(self, number: int) -> Path:
        return self._directory / f".lock-{number}"

    def _numbers(self) -> list[int]:
        suffixes = (path.name.removeprefix(".lock-") for path in self._directory.glob(".lock-*"))
        return [int(suffix) for suffix in suffixes if suffix.isdecimal()]

    def _newest(self) -> int:
        return max(self._numbers(), default=0)
