"""Tests of agent/cli/words.py."""

from __future__ import annotations

import shlex

import pytest

from agent.cli.words import command, complain


@pytest.mark.parametrize("called", [None, "", "./icebox", "/opt/ice box/icebox"])
def test_a_command_can_be_typed(called: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell reads back the words as they were meant, behind the program as the user called it."""
    monkeypatch.delenv("ICEBOX_COMMAND", raising=False)
    if called is not None:
        monkeypatch.setenv("ICEBOX_COMMAND", called)
    line = command("resume", "runs/my run", "--steps", 7)
    assert shlex.split(line) == [called or "icebox", "resume", "runs/my run", "--steps", "7"]


def test_a_complaint_names_the_program_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Complaints go to stderr, each line behind the program's name."""
    complain("one\ntwo")
    assert capsys.readouterr() == ("", "icebox: one\nicebox: two\n")
