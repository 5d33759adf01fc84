"""Tests of agent/cli/out.py: a folder that cannot be written to is refused before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.out import checked_out


def test_a_folder_that_can_be_written_to_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is there or would be made, nothing is made or left by the test of it."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", Path("c"), Path(".")):
        assert checked_out(folder) == folder
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_is_named(tmp_path: Path) -> None:
    """Below a file, on a link that leads nowhere, or where the system lets nobody write."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link" / "x", Path("/proc/x")):
        with pytest.raises(ValueError, match=f"nothing can be written to {folder}: .*--out"):
            checked_out(folder)
