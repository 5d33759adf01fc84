"""Tests of agent/telemetry/report/results.py: the numbers of a report, for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import reported

from agent.telemetry.report.findings import Findings
from agent.telemetry.report.results import curves_csv, final_csv, results_json


def example(root: Path, **more: object) -> Findings:
    ours = [reported.run(root, [1.0, 5.0 + seed], seed=seed, **more) for seed in range(2)]
    return reported.found(*ours, baselines=[reported.run(root, [2.0, 3.0], settings={"algo": "ppo"}, seconds=False)])


def test_json_holds_every_figure(tmp_path: Path) -> None:
    """Final scores, intervals, curves, settings and where each run comes from; unknown numbers are null."""
    tree = json.loads(results_json(example(tmp_path)), parse_constant=lambda name: 1 / 0)
    game = tree["games"]["cartpole"]
    ours, ppo = game["settings"]["Icebox"], game["settings"]["PPO (SB3)"]
    assert (ours["final_scores"], ours["final_iqm"], ours["final_seeds"]) == ([5.0, 6.0], 5.5, [0, 1])
    assert ours["curve_over_frames"]["x"] == [1000.0, 2000.0] and ours["curve_over_frames"]["iqm"] == [1.0, 5.5]
    assert ppo["final_ci95"] is None and ppo["curve_over_seconds"] is None
    assert ppo["runs"][0]["git"] == "a" * 40 and "deterministic actions" in ppo["runs"][0]["protocol"]
    assert (game["random"], game["solved_at"], tree["all_games"]) == (22.0, 475.0, None)
    assert tree["settings"][1] == {"label": "PPO (SB3)", "baseline": True, "differences_from_defaults": {"algo": "ppo"}}


def test_csv_has_a_row_for_every_evaluation_and_every_run(tmp_path: Path) -> None:
    """Steps, frames, seconds and scores; what is not known is empty."""
    found = example(tmp_path)
    rows = list(csv.DictReader(io.StringIO(curves_csv(found))))
    assert len(rows) == 6 and rows[1]["mean_score"] == "5.0" and rows[1]["seconds"] == "4.000"
    assert rows[-1]["seconds"] == "" and {row["episodes"] for row in rows} == {"2"}
    finals = list(csv.DictReader(io.StringIO(final_csv(found))))
    assert [row["final_score"] for row in finals] == ["5.0", "6.0", "3.0"] and finals[2]["baseline"] == "1"


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """A spreadsheet must not run a name; negative numbers stay numbers."""
    text = final_csv(example(tmp_path, name='=cmd|"x"!A1'))
    assert next(csv.DictReader(io.StringIO(text)))["setting"] == '\'=cmd|"x"!A1'
    root = tmp_path / "negative"
    assert ",-5.0\n" in final_csv(reported.found(reported.run(root, [-5.0])))
