"""A weak model of a disk: records what a program asks of it and lists every state a power cut could leave.

Weaker than any common file system. Until a file is synced, any crash may leave its data whole, half, empty or zeroed.
Until a directory is synced, each of its names may, apart from the others, be what it was or anything it became since;
so a rename may leave both names, either, or none. After ALICE (Pillai et al., OSDI 2014).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent import durable, segments

Tree = dict[str, Any]  # name -> bytes of a file, or Tree


class RecordingOs:
    """Stands in for the module `os` in the code under test: does all of it for real (but fsync) and keeps a trace."""

    def __init__(self, root: Path, ignore_fsync: str = "") -> None:
        """Record operations below `root`; `ignore_fsync` forgets that kind, as a mutation.

        "file", "directory", and of those in and of the folder of segments "segment" and "segment folder".
        """
        self.trace: list[tuple] = []
        self._root = root
        self._ignore_fsync = ignore_fsync
        self._opened: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _inside(self, path: Path | str) -> str:
        return Path(path).relative_to(self._root).as_posix()

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags, mode)
        self._opened[descriptor] = self._inside(path)
        if flags & os.O_CREAT:
            self.trace.append(("create", self._inside(path)))
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        written = os.write(descriptor, data)
        self.trace.append(("write", self._opened[descriptor], bytes(data[:written])))
        return written

    def fsync(self, descriptor: int) -> None:
        path = self._opened[descriptor]
        is_folder = (self._root / path).is_dir()
        kinds = {"directory" if is_folder else "file"}
        if segments.FOLDER in Path(path).parts:
            kinds.add("segment folder" if is_folder else "segment")
        if self._ignore_fsync not in kinds:
            self.trace.append(("fsync", path))

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)
        self.trace.append(("mkdir", self._inside(path)))

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)
        self.trace.append(("rename", self._inside(source), self._inside(target)))

    replace = rename  # on every system but Windows

    def unlink(self, path: Path) -> None:
        os.unlink(path)
        self.trace.append(("unlink", self._inside(path)))

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)
        self.trace.append(("unlink", self._inside(path)))


def put_in(patch: pytest.MonkeyPatch, module: ModuleType, stand_in: Any) -> None:
    """Let a module, and those which write for it, use a stand-in for the module `os`."""
    for each in (module, durable, segments):
        patch.setattr(each, "os", stand_in)


class _File:
    def __init__(self) -> None:
        self.data = self.durable = b""

    def sync(self) -> None:
        self.durable = self.data

    def states(self, hide: str) -> list[bytes]:
        if self.data == self.durable:
            return [self.data]
        half = self.data[: (len(self.durable) + len(self.data)) // 2]
        return list(dict.fromkeys([self.durable, half, self.data, bytes(len(self.data))]))


class _Directory:
    def __init__(self) -> None:
        self.names: dict[str, _File | _Directory] = {}
        self.durable: dict[str, _File | _Directory] = {}
        self.pending: dict[str, list[_File | _Directory | None]] = {}  # what each name was since the last sync

    def put(self, name: str, node: _File | _Directory | None) -> None:
        self.names.pop(name, None)
        if node is not None:
            self.names[name] = node
        self.pending.setdefault(name, []).append(node)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.names), {}

    def states(self, hide: str) -> Iterator[Tree]:
        """Yield every tree that a crash now could leave here, without the names that start with `hide`."""
        names = [name for name in {**self.durable, **self.pending} if not (hide and name.startswith(hide))]
        options = []
        for name in names:
            nodes = {id(node): node for node in [self.durable.get(name), *self.pending.get(name, [])]}.values()
            options.append([state for node in nodes for state in ([None] if node is None else node.states(hide))])
        for choice in itertools.product(*options):
            yield {name: state for name, state in zip(names, choice, strict=True) if state is not None}


class WeakDisk:
    """Replays a trace; `states()` are the crashes possible at this moment."""

    def __init__(self) -> None:
        self.root = _Directory()

    def _at(self, path: str) -> Any:
        node: Any = self.root
        for name in Path(path).parts:
            node = node.names[name]
        return node

    def apply(self, verb: str, path: str, *rest: Any) -> None:
        """Carry out one operation of a trace."""
        parent, name = self._at(str(Path(path).parent)), Path(path).name
        if verb == "write":
            self._at(path).data += rest[0]
        elif verb == "fsync":
            self._at(path).sync()
        elif verb == "rename":
            node = self._at(path)
            parent.put(name, None)
            self._at(str(Path(rest[0]).parent)).put(Path(rest[0]).name, node)
        else:
            parent.put(name, {"create": _File, "mkdir": _Directory, "unlink": lambda: None}[verb]())

    def states(self, hide: str = "") -> Iterator[Tree]:
        """Yield every tree that a crash now could leave, some more than once."""
        yield from self.root.states(hide)

    def current(self) -> Tree:
        """Return the tree as a running program sees it."""

        def walk(node: _File | _Directory) -> Tree | bytes:
            return node.data if isinstance(node, _File) else {name: walk(child) for name, child in node.names.items()}

        return walk(self.root)


def write_tree(path: Path, tree: Tree) -> None:
    """Put a crash state on a real disk below `path`."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(path / name, content)
        else:
            (path / name).write_bytes(content)


def read_tree(path: Path) -> Tree:
    """Return what lies below `path` on a real disk."""
    return {child.name: read_tree(child) if child.is_dir() else child.read_bytes() for child in path.iterdir()}


def freeze(tree: Tree | bytes) -> Any:
    """Return a tree as something hashable."""
    return tree if isinstance(tree, bytes) else frozenset((name, freeze(content)) for name, content in tree.items())
