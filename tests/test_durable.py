"""Files are written whole or not at all, on disks that fail and through power cuts at the worst moment."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import time
from pathlib import Path

import pytest
from faults.crash_states import RecordingOs, WeakDisk
from faults.failing_os import FailingOs

from agent import durable
from agent.durable import LEFT_S, make_directory, remove_leftovers, write_atomic, write_new


def test_a_new_file_and_its_record(tmp_path: Path) -> None:
    """Parts of any kind stand one after the other, size and digest are the file's, and nothing is overwritten."""
    record = write_new(tmp_path / "a", (bytes(part) if part[0] else part for part in (memoryview(b"\0on"), b"e\n")))
    assert (tmp_path / "a").read_bytes() == b"\0one\n"
    assert record == {"bytes": 5, "sha256": hashlib.sha256(b"\0one\n").hexdigest()}
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", [b"two"])
    assert (tmp_path / "a").read_bytes() == b"\0one\n"


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    """The new content stands under the name, and no temporary file stays, not even that of a crash before."""
    write_atomic(tmp_path / "a.txt", "één\n")
    assert (tmp_path / "a.txt").read_bytes() == "één\n".encode()
    (tmp_path / f".a.txt.{os.getpid()}.tmp").write_bytes(b"hal")
    write_atomic(tmp_path / "a.txt", b"two\n")
    assert (tmp_path / "a.txt").read_bytes() == b"two\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failing_disk_keeps_one_of_the_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever operation fails, the error is the disk's, and the file holds its old content or the new one whole."""
    seen, path = set(), tmp_path / "a.txt"
    for nth in itertools.count():
        write_atomic(path, "old")
        failing = FailingOs(nth, errno.ENOSPC)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", failing)
            try:
                write_atomic(path, "new")
            except OSError as error:
                assert error.errno == errno.ENOSPC
                seen.add(path.read_text())
            else:
                assert path.read_text() == "new"
        assert os.listdir(tmp_path) == ["a.txt"]
        if not failing.failed:
            break
    assert nth >= 7 and seen == {"old", "new"}  # new: the name may not last, so that it is no success


def crash_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str = "") -> list[set[bytes | None]]:
    """What may stand under the name after a power cut: while it is replaced, and once that has returned."""
    recorder = RecordingOs(tmp_path, ignore_fsync=mutation)
    monkeypatch.setattr(durable, "os", recorder)
    write_atomic(tmp_path / "a", b"old")
    done = len(recorder.trace)
    write_atomic(tmp_path / "a", b"new")
    disk, found = WeakDisk(), [set(), set()]
    for position, step in enumerate(recorder.trace, start=1):
        disk.apply(*step)
        if position >= done:
            found[position == len(recorder.trace)] |= {tree.get("a") for tree in disk.states(hide=".")}
    return found


def test_power_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut while a file is replaced leaves the old content or the new; after the return only the new."""
    during, after = crash_contents(tmp_path, monkeypatch)
    assert during == {b"old", b"new"} and after == {b"new"}


@pytest.mark.parametrize("mutation", ["file", "directory"])
def test_the_power_cut_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str) -> None:
    """Without one kind of fsync there are other contents."""
    during, after = crash_contents(tmp_path, monkeypatch, mutation)
    assert during | after > {b"old", b"new"} or after > {b"new"}


def test_a_directory_and_its_parents_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every directory that had to be made is durable in the one above; a file in the way is an error."""
    recorder = RecordingOs(tmp_path)
    monkeypatch.setattr(durable, "os", recorder)
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    disk = WeakDisk()
    for step in recorder.trace:
        disk.apply(*step)
    assert list(disk.states()) == [{"a": {"b": {}}}]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")


def test_what_a_crash_left_goes_after_a_day(tmp_path: Path) -> None:
    """Only hidden temporary files go, and only those that nobody has written to for a day; no folder is no error."""
    names = {".old.tmp": True, ".new.tmp": False, "old.tmp": True, ".old": True}
    for name, is_old in names.items():
        (tmp_path / name).write_bytes(b"x")
        if is_old:
            os.utime(tmp_path / name, (time.time() - LEFT_S - 60,) * 2)
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "none")
    assert {path.name for path in tmp_path.iterdir()} == set(names) - {".old.tmp"}
