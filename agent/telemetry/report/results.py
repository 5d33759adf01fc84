"""A report's numbers for programs: results.json, curves.csv with every evaluation, final.csv with every run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agent.telemetry.protocol import protocol
from agent.telemetry.report.findings import Findings, Game, Line, curve
from agent.telemetry.report.gather import Gathered

FORMAT, VERSION = "icebox-report", 1
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one when a text begins with it


def results_json(findings: Findings) -> str:
    """Return everything that the report says as JSON; numbers that are not finite are null."""
    across = findings.across
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "cautions": findings.cautions,
        "settings": [
            {"label": each.label, "baseline": each.baseline, "differences_from_defaults": each.differences}
            for each in findings.settings
        ],
        "games": {game.name: _game(game) for game in findings.games},
        "probability_of_improvement": [
            {
                "of": each.ours.label,
                "over": each.theirs.label,
                "games": each.games,
                "probability": each.probability,
                "ci95": each.ci95,
            }
            for each in findings.comparisons
        ],
        "all_games": None
        if across is None
        else {
            "games": across.games,
            "unit": "0: random play, 1: best mean final score of a setting on the game",
            "settings": {
                label: {"iqm": value, "ci95": interval, "scores": across.scores[label]}
                for label, (value, interval) in across.iqm.items()
            },
            "levels": across.levels if across.profiles else [],
            "performance_profiles": {
                label: {"share": share, "low": low, "high": high}
                for label, (share, low, high) in across.profiles.items()
            },
        },
        "left_out": [{"run": run.name, "why": run.notes} for run in findings.left_out],
    }
    return json.dumps(_plain(tree), indent=1, allow_nan=False) + "\n"


def _game(game: Game) -> dict[str, Any]:
    return {
        "frames_per_step": game.references.frames_per_step,
        "budget_steps": game.budget_steps,
        "random": game.references.random,
        "solved_at": game.references.solved_at,
        "settings": {line.setting.label: _line(line, game) for line in game.lines},
    }


def _line(line: Line, game: Game) -> dict[str, Any]:
    return {
        "final_scores": line.final,
        "final_iqm": line.iqm,
        "final_ci95": line.ci95,
        "final_seeds": [run.seed for run in line.counted],
        "curve_over_frames": _curve(line, "frames", game),
        "curve_over_seconds": _curve(line, "seconds", game),
        "runs": [_run(run) for run in line.runs],
    }


def _curve(line: Line, over: str, game: Game) -> dict[str, Any] | None:
    found = curve(line, over, game.references.frames_per_step)
    return None if found is None else dict(zip(("x", "iqm", "low", "high"), found))


def _run(run: Gathered) -> dict[str, Any]:
    return {
        "run": run.name,
        "seed": run.seed,
        "status": run.status,
        "notes": run.notes,
        "last_steps": run.steps,
        "last_score": run.means[-1],
        "seconds_estimated": run.seconds_estimated,
        "protocol": None if run.settings is None else protocol(run.game, run.settings),
        "git": run.meta.get("git"),
        "versions": run.meta.get("versions"),
        "host": run.meta.get("host"),
        "device": run.meta.get("device"),
        "episodes": [episode._asdict() for episode in run.episodes],
    }


def curves_csv(findings: Findings) -> str:
    """Return every evaluation of every run as a row."""
    head = (
        "game",
        "setting",
        "run",
        "seed",
        "steps",
        "frames",
        "seconds",
        "seconds_estimated",
        "mean_score",
        "episodes",
    )
    rows = [
        (
            game.name, line.setting.label, run.name, run.seed, int(steps), int(steps) * game.references.frames_per_step,
            f"{seconds:.3f}" if math.isfinite(seconds) else "", int(run.seconds_estimated), repr(float(mean)),
            run.history.scores.shape[1],
        )
        for game in findings.games
        for line in game.lines
        for run in line.runs
        for steps, seconds, mean in zip(run.history.steps, run.seconds, run.means, strict=True)
    ]  # fmt: skip
    return _csv(head, rows)


def final_csv(findings: Findings) -> str:
    """Return every run that counts with its final score as a row."""
    head = ("game", "setting", "baseline", "run", "seed", "after_steps", "final_score")
    rows = [
        (
            game.name,
            line.setting.label,
            int(line.setting.baseline),
            run.name,
            run.seed,
            game.budget_steps,
            repr(float(score)),
        )
        for game in findings.games
        for line in game.lines
        for run, score in zip(line.counted, line.final, strict=True)
    ]
    return _csv(head, rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay numbers."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
