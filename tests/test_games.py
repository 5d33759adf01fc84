"""Tests of agent/cli/games.py: the table of games, its filter and its JSON."""

from __future__ import annotations

import json

import pytest

make = pytest.importorskip("envs.make")

from agent.cli import games
from agent.cli.main import main


def listed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict]:
    assert main(["games", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["games"]


def test_every_game_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has one line per game of envs/make.py, in its order."""
    assert main(["games"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert lines[0].split()[:3] == ["GAME", "OBSERVATION", "ACTIONS"]
    assert [line.split()[0] for line in lines[1:]] == list(make.games())


def test_what_is_known_of_a_game(capsys: pytest.CaptureFixture[str]) -> None:
    """A game's line says what it looks like, what it takes, and whether its settings ship."""
    (game,) = listed(capsys, "lunar-lander")
    assert (game["observation_shape"], game["num_actions"], game["config"]) == ([8], 4, "game")
    assert (game["extra"], game["installed"], game["solved_at"]) == (None, True, 200.0)


def test_one_atari_game_in_a_long_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A long list leaves out the actions of Atari games, the list of one has them; the rest is the same."""
    pytest.importorskip("ale_py")
    (pong,) = listed(capsys, "atari/pong")
    assert (pong["num_actions"], pong["observation_shape"], pong["extra"]) == (6, [4, 84, 84], "atari")
    in_list = next(game for game in listed(capsys, "atari") if game["name"] == "atari/pong")
    assert in_list == pong | {"num_actions": None, "action_names": []}


def test_the_filter(capsys: pytest.CaptureFixture[str]) -> None:
    """Only games with the filter in their name are listed, whatever its case."""
    names = [game["name"] for game in listed(capsys, "MinAtar")]
    assert names and all(name.startswith("minatar/") for name in names)


def test_a_filter_that_fits_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No match is a mistake, said in one line."""
    assert main(["games", "qqq"]) == 2
    assert capsys.readouterr().err == "icebox: no game has 'qqq' in its name. 'icebox games' lists all.\n"


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Games of a missing extra are named with the command that installs it."""
    monkeypatch.setattr(games, "is_installed", lambda module: module != "minatar")
    monkeypatch.setattr(make, "games", lambda: ("cartpole", "minatar/breakout"))
    assert main(["games"]) == 0
    out = capsys.readouterr().out
    assert 'minatar/* games need: pip install minatar' in out
    assert "minatar (missing)" in out
    monkeypatch.setattr(make, "games", lambda: ("cartpole",))
    assert main(["games", "minatar"]) == 2
    expected = 'icebox: minatar games are not installed: pip install minatar.\n'
    assert capsys.readouterr().err == expected
