"""Tests of agent/telemetry/report/findings.py: what counts, what is compared, and what the reader is warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reported

from agent.telemetry.report.findings import curve, laid_over, points
from agent.telemetry.report.references import References
from agent.telemetry.statistics import bootstrap_ci, iqm

PPO = {"algo": "ppo"}


def test_final_scores_are_of_the_last_evaluation(tmp_path: Path) -> None:
    """The last one counts, not the best; the IQM and its interval are over seeds."""
    paths = [reported.run(tmp_path, [400.0, 100.0 + seed], seed=seed) for seed in range(5)]
    (line,) = reported.found(*paths).games[0].lines
    assert line.final.tolist() == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert line.iqm == iqm(line.final) == 102.0
    assert 100.0 <= line.ci95[0] < 102.0 < line.ci95[1] <= 104.0


def test_the_budget_is_what_all_settings_reached(tmp_path: Path) -> None:
    """A longer setting is judged at the shorter one's budget, a little overshoot aside, and the reader is told."""
    short = reported.run(tmp_path, [10.0, 20.0])
    longer = reported.run(tmp_path, [1.0, 2.0, 3.0, 4.0], every=1024, settings=PPO)
    game = reported.found(short, longer).games[0]
    assert game.budget_steps == 2000 and [line.final.tolist() for line in game.lines] == [[20.0], [2.0]]
    assert any("Not all settings were trained equally long" in note for note in game.notes)
    assert game.budget == "2,000 steps"


def test_an_unfinished_seed_is_shown_and_does_not_count(tmp_path: Path) -> None:
    """A run that stopped early is named; scores and bands are of the others."""
    done = [reported.run(tmp_path, [1.0, 2.0, 3.0], seed=seed) for seed in range(2)]
    stopped = reported.run(tmp_path, [9.0], seed=2, status="stopped")
    found = reported.found(*done, stopped)
    (line,) = found.games[0].lines
    assert len(line.runs) == 3 and line.final.tolist() == [3.0, 3.0]
    assert curve(line, "frames", 1)[1].tolist() == [1.0, 2.0, 3.0]
    said = " ".join(found.cautions)
    assert "run2_s2: it was stopped" in said and "1,000 of 3,000 steps" in said


def test_the_same_seed_twice_is_no_second_seed(tmp_path: Path) -> None:
    """Of two runs with one seed the one that went further is shown, and the other named."""
    short, longer = (reported.run(tmp_path, [1.0] * length) for length in (1, 2))
    (line,) = reported.found(short, longer).games[0].lines
    assert [run.path for run in line.runs] == [longer]
    assert "a repetition says nothing new" in reported.found(short, longer).games[0].notes[0]


def test_few_seeds_and_one_game_are_said(tmp_path: Path) -> None:
    """Fewer than five seeds is a warning, five are not; one game is always one."""
    paths = [reported.run(tmp_path, [1.0], seed=seed) for seed in range(5)]
    assert "Fewer than 5 seeds: at least one setting has 4 seeds" in reported.found(*paths[:4]).cautions[0]
    assert [said.split(":")[0] for said in reported.found(*paths).cautions] == ["One game"]
    assert "has one seed" in reported.found(paths[0]).cautions[0]
    assert reported.found(paths[0]).games[0].lines[0].ci95 is None


def test_curves_are_iqm_and_bootstrap_of_every_point(tmp_path: Path) -> None:
    """Over frames each point is what `iqm` and `bootstrap_ci` say of it; over seconds they are laid over each other."""
    rows = np.random.default_rng(0).uniform(0, 9, (5, 4))
    paths = [reported.run(tmp_path, row.tolist(), seed=seed) for seed, row in enumerate(rows)]
    (line,) = reported.found(*paths).games[0].lines
    x, middle, low, high = curve(line, "frames", 4)
    assert x.tolist() == [4000.0, 8000.0, 12000.0, 16000.0]
    for column, each in enumerate(rows.T):
        assert middle[column] == pytest.approx(iqm(each))
        assert (low[column], high[column]) == pytest.approx(bootstrap_ci(each, iqm), abs=0.3)
    seconds = curve(line, "seconds", 4)[0]  # of seed s: 2 + s, 4 + s, ...
    assert (seconds[0], seconds[-1]) == (6.0, 8.0)


def test_lines_are_laid_over_each_other() -> None:
    """Only where all have values, interpolated."""
    x, values = laid_over([([0.0, 2.0], [0.0, 2.0]), ([1.0, 3.0], [5.0, 7.0])], 3)
    assert x.tolist() == [1.0, 1.5, 2.0] and values.tolist() == [[1.0, 1.5, 2.0], [5.0, 5.5, 6.0]]


def test_points_without_a_known_time_are_left_out(tmp_path: Path) -> None:
    """A run that has no times has no curve over seconds, and still one over frames."""
    (line,) = reported.found(reported.run(tmp_path, [1.0, 2.0], seconds=False)).games[0].lines
    assert len(points(line.runs[0], "seconds", 1)[0]) == 0 and curve(line, "seconds", 1) is None
    assert len(points(line.runs[0], "frames", 1)[0]) == 2


def test_baselines_are_what_the_others_are_compared_with(tmp_path: Path) -> None:
    """Without baselines every pair is compared; with them only each other setting with each of them."""
    ours = [reported.run(tmp_path, [10.0 + seed], seed=seed) for seed in range(5)]
    ppo = [reported.run(tmp_path, [1.0 + seed], seed=seed, settings=PPO) for seed in range(5)]
    a2c = [reported.run(tmp_path, [2.0 + seed], seed=seed, settings={"algo": "a2c"}) for seed in range(2)]
    assert len(reported.found(*ours, *ppo, *a2c).comparisons) == 3
    first, second = reported.found(*ours, baselines=[*ppo, *a2c]).comparisons
    assert (first.ours.label, first.theirs.label, first.probability) == ("Icebox", "PPO (SB3)", 1.0)
    assert (first.verdict, second.verdict) == ("the first", "too few seeds to say")
    assert reported.found(ours[0], ppo[0]).comparisons == []


def test_games_are_put_on_one_scale(tmp_path: Path) -> None:
    """Random play is 0, the best setting's mean 1; from three games on there is a performance profile."""
    games = ("cartpole", "acrobot", "lunar-lander")
    ours = [reported.run(tmp_path, [110.0 + seed], game=game, seed=seed) for game in games for seed in range(2)]
    ppo = [
        reported.run(tmp_path, [60.0 + seed], game=game, seed=seed, settings=PPO) for game in games for seed in range(2)
    ]
    known = References(1, None, 10.0, "")
    across = reported.found(*ours, *ppo, known=known).across
    assert across.iqm["Icebox"][0] == pytest.approx(1.0) and across.iqm["PPO (SB3)"][0] == pytest.approx(50.5 / 100.5)
    share, low, high = across.profiles["PPO (SB3)"]
    assert share[0] == 1.0 and share[-1] == 0.0 and (low <= share).all() and (share <= high).all()
    two = reported.found(*ours[:4], known=known).across
    assert two.games == ["cartpole", "acrobot"] and two.profiles == {}
    assert reported.found(*ours[:4], known=References(1, None, None, "")).across is None


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    """Runs without any evaluation are an error that says of each why."""
    with pytest.raises(
        ValueError, match="none of these runs holds an evaluation. cartpole/run0_s0: it holds no evaluation"
    ):
        reported.found(reported.run(tmp_path, []))
    found = reported.found(reported.run(tmp_path, [1.0]), empty := reported.run(tmp_path, [], seed=1))
    assert [run.path for run in found.left_out] == [empty]
    assert any(said.startswith("cartpole/run2_s1: it holds no evaluation") for said in found.cautions)


def test_different_machines_and_commits_are_said(tmp_path: Path) -> None:
    """Seconds of two machines are not to be compared, and two commits are two programs."""
    other = reported.run(tmp_path, [1.0], seed=1, git="b" * 40, host=reported.HOST | {"processor": "Abacus 2"})
    said = " ".join(reported.found(reported.run(tmp_path, [1.0]), other).cautions)
    assert "different machines" in said and "different commits" in said and "different versions" not in said
