"""From finished cells to what people look at: one PNG per game and one JSON with the figures and their intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from agent.telemetry.report.findings import laid_over
from agent.telemetry.report.plots import COLOURS
from agent.telemetry.statistics import bootstrap_ci, iqm, stratified_bootstrap_ci
from benchmarks.results import write
from benchmarks.suites import Suite

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

POINTS = 200  # at which curves of different lengths are laid over each other

Cells = dict[str, list[dict[str, Any]]]  # algorithm -> its finished cells on one game, by seed


def report(suite: Suite, results: Path) -> None:
    """Write results/learning/SUITE.json and SUITE_GAME.png for every game that has a finished cell."""
    folder = results / "learning" / suite.name
    figures: dict[str, Any] = {}
    for game in suite.games:
        cells = read(folder / game.replace("/", "-"), suite)
        if any(cells.values()):
            figures[game] = compare(cells)
            path = folder.with_name(f"{suite.name}_{game.replace('/', '-')}.png")
            draw(suite, game, cells, path)
            print(path)
    print(write(f"learning/{suite.name}", {"games": figures, "all_games": across_games(suite, figures)}))
    for game, figure in figures.items():
        print(game, json.dumps({name: row["final_means"] for name, row in figure["algorithms"].items()}))
        print("  ratios", json.dumps(figure["ratios"]))


def read(folder: Path, suite: Suite) -> Cells:
    """Return the finished cells of one game by algorithm, each list by seed."""
    return {
        name: sorted(
            (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"{name}_s*.json")),
            key=lambda cell: cell["seed"],
        )
        for name in suite.algorithms
    }


def compare(cells: Cells) -> dict[str, Any]:
    """Return what one game says: final scores of every seed, and the ratios of ours to every other on the same seed."""
    algorithms = {}
    for name, runs in cells.items():
        if runs:
            means = [run["final"]["mean"] for run in runs]
            algorithms[name] = {
                "seeds": [run["seed"] for run in runs],
                "final_means": means,
                "final_mean": float(np.mean(means)),
                "final_ci95": bootstrap_ci(means),
                "online_last": [run["curve"][-1]["online"] for run in runs],
                "cpu_s": [run["curve"][-1]["cpu_s"] for run in runs],
                "updates": [run["curve"][-1]["updates"] for run in runs],
            }
    return {"algorithms": algorithms, "ratios": ratios(cells)}


def ratios(cells: Cells) -> dict[str, Any]:
    """Return, for every algorithm but the first, the first one's score over its own on the seeds that both have.

    At equal frames these are the final scores; at equal seconds, the scores of the evaluations at the end of the quicker
    run's time, and at half the slower one's.
    """
    first, *others = cells
    answer = {}
    for other in others:
        pairs = [(a, b) for a in cells[first] for b in cells[other] if a["seed"] == b["seed"]]
        if pairs:
            answer[other] = {
                "seeds": [a["seed"] for a, _ in pairs],
                "equal_frames": [_ratio(a["final"]["mean"], b["final"]["mean"]) for a, b in pairs],
                "equal_seconds": [equal_seconds(a["curve"], b["curve"], clock(a)) for a, b in pairs],
            }
    return answer


def clock(run: dict[str, Any]) -> str:
    """Return which of a row's seconds count: those of the process on the CPU, those of the wall with a GPU."""
    return "cpu_s" if run["device"] == "cpu" else "wall_s"


def equal_seconds(ours: Sequence[dict], theirs: Sequence[dict], seconds: str) -> list[list[float | None]]:
    """Return [seconds, score of ours / score of theirs] at four equal shares of the seconds that both have trained."""
    end = min(ours[-1][seconds], theirs[-1][seconds])
    shares = [end * part / 4 for part in range(1, 5)]
    return [[round(at, 1), _ratio(_score_at(ours, at, seconds), _score_at(theirs, at, seconds))] for at in shares]


def _score_at(curve: Sequence[dict], at: float, seconds: str) -> float:
    """Return the mean of the last three evaluations that were made within `at` seconds; one alone is too noisy."""
    scores = [row["mean"] for row in curve if row[seconds] <= at + 1e-9]
    return float(np.mean(scores[-3:])) if scores else 0.0


def _ratio(ours: float, theirs: float) -> float | None:
    return round(ours / theirs, 3) if theirs > 0 else None


def across_games(suite: Suite, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the interquartile mean over games and seeds of each algorithm's score, in units of the second one's mean.

    Only games on which every algorithm that was run has finished count, with as many seeds as all have; empty when
    there is none.
    """
    tables = {game: figure["algorithms"] for game, figure in figures.items()}
    names = [name for name in suite.algorithms if any(name in table for table in tables.values())]
    games = [game for game, table in tables.items() if len(table) == len(names)]
    seeds = min((len(tables[game][name]["seeds"]) for game in games for name in names), default=0)
    if not seeds or len(names) < 2:
        return {}
    answer: dict[str, Any] = {"games": games, "seeds": seeds, "unit": f"mean final score of {names[1]}"}
    for name in names:
        columns = [np.array(tables[game][name]["final_means"][:seeds]) / tables[game][names[1]]["final_mean"] for game in games]
        scores = np.stack(columns, axis=1)  # [seeds, games]
        answer[name] = {"iqm": iqm(scores.ravel()), "ci95": stratified_bootstrap_ci(scores)}
    return answer


def draw(suite: Suite, game: str, cells: Cells, path: Path) -> None:
    """Draw a game's learning curves over frames and over seconds: mean, 95 % band over seeds, every seed faintly."""
    some = next(run for runs in cells.values() for run in runs)
    axes: list[tuple[str, Callable[[dict], float]]] = [
        ("environment frames", lambda row: row["steps"] * some["frames_per_step"]),
        ("seconds of training", lambda row: row[clock(some)]),
    ]
    figure, plots = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    for plot, (label, x_of) in zip(plots, axes, strict=True):
        for colour, (name, runs) in zip(COLOURS, cells.items(), strict=False):
            if runs:
                _draw_curve(plot, runs, x_of, colour, f"{suite.algorithms[name].title} ({_seeds(runs)})")
        plot.set_xlabel(label)
        plot.set_xlim(left=0)
        plot.grid(alpha=0.25)
    plots[0].set_ylabel(f"mean score of {suite.episodes} evaluation episodes")
    plots[0].legend(frameon=False, loc="lower right")
    figure.suptitle(game)
    figure.text(0.5, 0.005, caption(suite, some), ha="center", va="bottom", fontsize=7.5, wrap=True)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def caption(suite: Suite, run: dict[str, Any]) -> str:
    """Return the protocol under a plot."""
    clock = "of its one-threaded process" if run["device"] == "cpu" else "by the wall clock"
    return (
        f"{run['protocol']}. Evaluated every {suite.every:,} steps on games of its own; bands are 95% bootstrap intervals "
        f"of the mean over seeds, faint lines single seeds. Seconds are {clock}, evaluations excluded, on "
        f"{run['machine']['processor']}; {suite.steps:,} steps. Commit {str(run['commit'])[:8]}."
    )


def _seeds(runs: Sequence[dict]) -> str:
    return f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"


def _draw_curve(plot: Any, runs: Sequence[dict], x_of: Callable[[dict], float], colour: str, label: str) -> None:
    lines = [([x_of(row) for row in run["curve"]], [row["mean"] for row in run["curve"]]) for run in runs]
    x, values = laid_over(lines, POINTS)  # [POINTS], [seeds, POINTS]
    plot.plot(x, values.mean(axis=0), color=colour, label=label, linewidth=2)
    if len(runs) > 1:
        for line in lines:
            plot.plot(*line, color=colour, alpha=0.25, linewidth=0.8)
        low, high = np.array([bootstrap_ci(column) for column in values.T]).T
        plot.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
