"""Tests of agent/cli/record_games.py: what is recorded is what the policy played, with what it thought of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from PIL import Image
from test_verify import made  # noqa: F401

from agent.cli import record_games
from agent.cli.main import main
from agent.telemetry.run_folder import RunFolder
from agent.viewer.episodes import EpisodeLog
from agent.viewer.packet import read_packets, unpack
from agent.viewer.policies import Facts
from envs.fakes import CountingGame

ZOO = Path(__file__).parent / "zoo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A short run on CartPole."""
    return short_runs.train(tmp_path_factory.mktemp("record") / "runs", "cartpole", "--quiet")[1]


def metas(log: EpisodeLog, id: str) -> list[dict[str, Any]]:
    """What the packets of an episode say."""
    return [unpack(packet)[0] for packet in read_packets(log.path(id, "ep"))]


def test_a_run_is_recorded(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """So many games lie where the viewer looks, each with its animations; a line for each names score and files."""
    assert main(["record", str(folder.path), "--episodes", "3", "--seed", "7", "--webp", "--gif"]) == 0
    log, lines = EpisodeLog(folder.path / "episodes"), capsys.readouterr().out.splitlines()
    rows = log.list()[::-1]
    assert [row["seed"] for row in rows] == [7, 8, 9] and {row["why"] for row in rows} == {"recorded"}
    assert len(lines) == 5 and "DQN after" in lines[0]
    for number, (row, line) in enumerate(zip(rows, lines[1:4], strict=True), 1):
        assert f"episode {number}: score {row['score']:g} in {row['length']:,} steps, seed {row['seed']}: " in line
        for form in ("webp", "gif"):
            assert str(log.path(row["id"], form)) in line
            with Image.open(log.path(row["id"], form)) as image:
                assert image.size == (600, 400) and image.n_frames > 3


def test_the_packets_tell_the_game(folder: RunFolder, tmp_path: Path) -> None:
    """Steps, score and times follow each other at the game's pace, the best value is the action, TD errors are a slow
    loop's over the packets' own values."""
    assert main(["record", str(folder.path), "--episodes", "1", "--out", str(tmp_path)]) == 0
    log = EpisodeLog(tmp_path)
    (row,) = log.list()
    found, discount = metas(log, row["id"]), folder.settings().learner.discount
    assert [meta["step"] for meta in found] == list(range(row["length"] + 1))
    assert [meta["score"] for meta in found] == list(range(row["length"] + 1)) and row["score"] == row["length"]
    assert [meta["ended"] for meta in found] == [False] * row["length"] + [True]
    assert found[0]["action"] is None and all(meta["action"] == int(np.argmax(meta["q"])) for meta in found[1:])
    np.testing.assert_allclose(np.diff([meta["time"] for meta in found]), 1 / 50, atol=1e-4)
    assert (row["pictures"], row["pictures_per_s"], row["cut"]) == (row["length"] + 1, 50.0, "")
    for meta, following in zip(found[1:], found[2:], strict=False):
        expected = meta["reward"] + discount * max(following["q"]) - meta["q"][meta["action"]]
        assert meta["td_error"] == pytest.approx(expected, abs=1e-4)
    assert found[-1]["td_error"] == pytest.approx(1.0 - max(found[-1]["q"]), abs=1e-4)  # nothing follows
    assert {*found[1]} >= {"room", "n", "width", "height", "format", "value", "act_ms", "held", "policy_updates"}


def test_the_same_seed_is_the_same_game(folder: RunFolder, tmp_path: Path) -> None:
    """Twice the same seed gives the same pictures and thoughts, another one another game."""
    played = []
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["record", str(folder.path), "--episodes", "1", "--seed", seed, "--out", str(tmp_path / out)]) == 0
        log = EpisodeLog(tmp_path / out)
        (row,) = log.list()
        played.append([(unpack(each)[0]["q"], unpack(each)[1]) for each in read_packets(log.path(row["id"], "ep"))])
    assert played[0] == played[1] != played[2]


def test_an_artefact_is_recorded(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """A frozen policy plays its game; its values are there, a TD error is not, as it does not know the discount."""
    assert main(["record", str(made), "--episodes", "1", "--runs-dir", str(tmp_path)]) == 0
    log = EpisodeLog(tmp_path / "played" / "cartpole" / "episodes")
    (row,) = log.list()
    assert all(len(meta["q"]) == 2 and meta["td_error"] is None for meta in metas(log, row["id"]))
    assert log.path(row["id"], "webp").is_file() and not log.path(row["id"], "gif").is_file()
    assert "int8" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "actions"), [("dqn-CartPole-v1", 2), ("sac-Pendulum-v1", None)])
def test_a_zip_is_recorded(name: str, actions: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's policy plays, with a value for each action where it chooses among some."""
    monkeypatch.setattr(record_games, "LONGEST", 30)
    assert main(["record", str(ZOO / f"{name}.zip"), "--episodes", "1", "--out", str(tmp_path)]) == 0
    log = EpisodeLog(tmp_path)
    (row,) = log.list()
    for meta in metas(log, row["id"])[1:]:
        assert meta["td_error"] is None and (meta["value"] is None) == (actions is None)
        assert meta["q"] is None if actions is None else len(meta["q"]) == actions
        assert isinstance(meta["action"], list if actions is None else int)


class Fake:
    """A counting game that shows two pictures per step."""

    steps_per_s = 15.0

    def __init__(self, p_end: float) -> None:
        self._games = CountingGame(1, pixels=True, end_probability=p_end)
        self.observation = self._games.reset(0).observation

    @property
    def picture(self) -> np.ndarray:
        return self._games.render()

    def restart(self, seed: int) -> None:
        self.observation = self._games.reset(seed).observation

    def step(self, action: Any) -> tuple[list[np.ndarray], float, bool, bool]:
        self._games.send(np.array([0]))
        step = self._games.recv()
        self.observation = step.observation
        ends = bool(step.terminated[0]), bool(step.truncated[0])
        return [self.picture, 255 - self.picture], float(step.reward[0]), *ends


class Silent:
    """A policy of a game with continuous actions."""

    facts = Facts("silent", None)

    def q(self, observation: np.ndarray) -> tuple[None, np.ndarray]:
        return None, np.array([0.5], np.float32)


def test_smooth_games_and_continuous_actions(tmp_path: Path) -> None:
    """Every picture between two steps is kept, half a step apart; an action may be numbers without values."""
    log = EpisodeLog(tmp_path)
    row = record_games.play(log, Fake(0.2), Silent(), 4, 0)
    found = metas(log, row["id"])
    assert row["pictures"] == 2 * row["length"] + 1 and row["pictures_per_s"] == 30.0
    np.testing.assert_allclose(np.diff([meta["time"] for meta in found]), 1 / 30, atol=1e-4)
    assert found[1]["action"] == [0.5] and found[1]["q"] is None
    assert [meta["ended"] for meta in found[-2:]] == [False, True]


def test_a_game_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that keeps a game going for ever does not keep the recorder for ever, and the row says so."""
    monkeypatch.setattr(record_games, "LONGEST", 30)
    row = record_games.play(EpisodeLog(tmp_path), Fake(0.0), Silent(), 4, 0)
    assert (row["length"], row["finished"], row["cut"]) == (30, False, "It was left before its end.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--episodes", "0"], "--episodes: must be a whole number, at least 1, got 0."),
        (["--seed", "-1"], "--seed: must be a whole number from 0 to"),
        (["--seed", str(2**31)], "--seed: must be a whole number from 0 to"),
        (["--game", "cartpole"], "--game is for zips"),
    ],
)
def test_bad_arguments_are_named(
    words: list[str], said: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence and exit code 2, and nothing is played."""
    before = len(EpisodeLog(folder.path / "episodes").list())
    assert main(["record", str(folder.path), *words]) == 2
    assert said in capsys.readouterr().err and len(EpisodeLog(folder.path / "episodes").list()) == before


def test_what_is_not_there_and_what_cannot_be_written(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such run, zip or folder to write to: a sentence, never a traceback."""
    assert main(["record", "nothing.zip"]) == 2 and "nothing.zip does not exist" in capsys.readouterr().err
    assert main(["record", "nobody", "--runs-dir", str(tmp_path)]) == 2 and "no run" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["record", str(folder.path), "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err
