"""Files that a crash or a power cut leaves either as they were or as they shall be.

Durable means: as far as the operating system's fsync tells the truth. Every change goes through `os`, where
tests/faults stands in.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

LEFT_S = 86_400.0


def write_new(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file that is not there yet, its data durable on return; return its size and SHA-256 for a manifest.

    Its name lasts only once `sync_directory` was called on the folder.
    """
    digest = hashlib.sha256()

    def digested() -> Iterator[bytes | memoryview]:
        for part in parts:
            digest.update(part)
            yield part

    size = write_parts(path, digested())
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Do what `write_new` does, but for the digest, which may take longer than the disk; return the size."""
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for part in parts:
            size += len(part)
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` in one step, durable on return. Text is written as UTF-8 with the newlines it has."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # a crash left it, and in a container every run has the same process number
    try:
        write_new(temporary, [data.encode() if isinstance(data, str) else data])
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files (.NAME.tmp) that nobody has written to for a day: a crash left them."""
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFT_S:
                    os.unlink(path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Windows cannot: there a rename is as durable as NTFS makes it."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each durable in the one above; one that is there is left as it is."""
    if not path.is_dir():
        make_directory(path.parent)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():  # else another process was faster
                raise
        sync_directory(path.parent)
