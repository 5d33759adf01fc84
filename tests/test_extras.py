"""Tests of agent/cli/extras.py."""

from __future__ import annotations

from agent.cli.extras import is_installed, remedy


def test_what_is_installed() -> None:
    """A module that can be imported is installed, any other is not."""
    assert is_installed("json") and not is_installed("no_such_module_here")


def test_the_remedy_is_a_command() -> None:
    """The remedy is a line that can be pasted into a shell."""
    assert remedy("atari") == 'pip install ale-py'
