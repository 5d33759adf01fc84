"""Tests of agent/cli/report.py: from run folders to files, and a sentence for everything that is no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reported

from agent.cli import report
from agent.cli.main import main
from agent.config import Settings
from agent.telemetry.report.references import References


@pytest.fixture(autouse=True)
def nobody_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random play is known, and the defaults of every game are those of the code, as in these runs."""
    monkeypatch.setattr(report, "_defaults", lambda game: Settings())
    monkeypatch.setattr(report, "references", lambda game, settings: References(1, 475.0, 22.0, ""))


def said(*words: object) -> int:
    return main(["report", *map(str, words)])


def test_the_files_are_written_beside_the_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Page, picture, JSON and CSV are in report/ of the first RUN, and the result is said; a second replaces them."""
    paths = [reported.run(tmp_path, [100.0, 400.0 + seed], seed=seed) for seed in range(2)]
    for _ in range(2):
        assert said(*paths, "--runs-dir", tmp_path) == 0
    written = sorted(path.name for path in (paths[0] / "report").iterdir())
    assert written == ["curves.csv", "final.csv", "report.html", "report.png", "results.json"]
    output = capsys.readouterr().out
    assert "IQM 400.5 of 2 seeds, 95% interval [400.0, 401.0]" in output and "note: Fewer than 5 seeds" in output


def test_several_games_have_a_picture_each(tmp_path: Path) -> None:
    """Pictures are named after their games, and three games have a performance profile."""
    games = ("cartpole", "minatar/breakout", "gym:Pendulum-v1")
    paths = [reported.run(tmp_path, [50.0], game=game) for game in games]
    assert said(*paths, "--out", tmp_path / "out") == 0
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [
        "profile.png",
        "report_cartpole.png",
        "report_gym-Pendulum-v1.png",
        "report_minatar-breakout.png",
    ]


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    """However it is spelled, a run is one run, and a baseline is not compared with itself."""
    path = reported.run(tmp_path, [50.0])
    other = reported.run(tmp_path, [40.0], seed=1, settings={"algo": "ppo"})
    words = [
        path,
        f"cartpole/{path.name}",
        "latest",
        "--baseline",
        other,
        "--runs-dir",
        tmp_path,
        "--out",
        tmp_path / "o",
    ]
    assert said(*words) == 0
    tree = json.loads((tmp_path / "o" / "results.json").read_text())
    settings = tree["games"]["cartpole"]["settings"]
    assert {label: len(each["runs"]) for label, each in settings.items()} == {"Icebox": 1, "PPO (SB3)": 1}
    assert [each["baseline"] for each in tree["settings"]] == [False, True]


def test_damaged_and_empty_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report of what is left is written, and each run that is not in it stands in it by name."""
    good, broken, empty = (reported.run(tmp_path, scores, seed=n) for n, scores in enumerate(([1.0], [2.0], [])))
    (broken / "evaluations.npz").write_bytes(b"not an archive")
    (empty / "meta.json").write_text("{")
    assert said(good, broken, empty, "--out", tmp_path / "o") == 0
    text = (tmp_path / "o" / "report.html").read_text()
    assert "evaluations.npz is damaged" in text and "meta.json is damaged" in text
    assert broken.name in text and empty.name in text
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which runs? Usage: icebox report RUN..."),
        (["nonsense"], "There is no run 'nonsense'"),
        (["latest", "--baseline", "nonsense"], "There is no run 'nonsense'"),
        (["latest", "--baseline", "latest"], "every RUN is also a --baseline"),
        (["latest", "--oot", "x"], "unknown flag --oot. Did you mean --out?"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be done as written is one sentence and code 2."""
    reported.run(tmp_path, [1.0])
    assert said(*words, "--runs-dir", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_show_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs without an evaluation write no file."""
    path = reported.run(tmp_path, [])
    assert said(path) == 2
    assert "There is nothing to report yet" in capsys.readouterr().err and not (path / "report").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a file stands in the way, it is named, with code 2, before anything is played or drawn."""
    (tmp_path / "taken").write_text("")
    assert said(reported.run(tmp_path, [1.0]), "--out", tmp_path / "taken" / "x") == 2
    out, err = capsys.readouterr()
    assert "taken" in err and "--out" in err and out == ""
