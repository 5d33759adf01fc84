"""Tests of agent/telemetry/files.py."""

from pathlib import Path

import pytest

from agent.telemetry.files import write_atomic


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    """The new content stands under the name, and no temporary file stays."""
    write_atomic(tmp_path / "a.txt", "one\n")
    write_atomic(tmp_path / "a.txt", b"two\n")
    assert (tmp_path / "a.txt").read_bytes() == b"two\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the old file is whole and the temporary one is gone."""
    write_atomic(tmp_path / "a.txt", "old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.telemetry.files.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
