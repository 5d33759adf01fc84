"""Tests of agent/viewer/lent.py: what a page has opened stays readable, but not for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.viewer.lent import MOST, Lent


def test_what_is_held_outlives_its_name(tmp_path: Path) -> None:
    """The content is that of when it was opened, as often as it is asked for, and whatever stands there now."""
    lent, path = Lent(), tmp_path / "a.ep"
    path.write_bytes(b"first")
    held = lent.hold({"id": "a"}, path)
    path.unlink()
    path.write_bytes(b"second")
    assert [held.read(), lent.hold({"id": "a"}, path).read(), lent.get("a").read()] == [b"first"] * 3
    lent.close()
    assert lent.get("a") is None and lent.hold({"id": "a"}, path).read() == b"second"


def test_only_the_last_opened_are_held(tmp_path: Path) -> None:
    """The one that was opened longest ago is let go; one that is opened again stays."""
    lent = Lent()
    for number in range(MOST):
        (tmp_path / f"{number}.ep").write_bytes(b"%d" % number)
        lent.hold({"id": str(number)}, tmp_path / f"{number}.ep")
    first = lent.hold({"id": "0"}, tmp_path / "0.ep")
    lent.hold({"id": "more"}, tmp_path / "3.ep")
    assert lent.get("0") is first and first.read() == b"0" and lent.get("1") is None and lent.get("2").read() == b"2"
    with pytest.raises(FileNotFoundError):
        lent.hold({"id": "none"}, tmp_path / "none.ep")
