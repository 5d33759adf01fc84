"""Tests of agent/cli/tables.py: columns that line up, and JSON that any reader takes."""

from __future__ import annotations

import json

import pytest

from agent.cli.tables import print_json, table


def test_columns_line_up() -> None:
    """Each column is as wide as its widest cell, and no line ends in blanks."""
    assert table(("A", "B"), [("long", "x"), ("s", "")]) == "A     B\nlong  x\ns"


def test_a_table_without_rows_is_its_header() -> None:
    """No rows leave the header."""
    assert table(("A", "B"), []) == "A  B"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that JSON does not know become null, at any depth."""
    print_json({"a": [1.5, float("nan")], "b": {"c": float("inf")}, "d": (1, None, "x")})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None], "b": {"c": None}, "d": [1, None, "x"]}
