"""The figures of a report: as SVG that takes its colours from the page around it, and as PNG with its own legend."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agent.telemetry.report.findings import Across, Comparison, Findings, Game, Line, curve, points

COLOURS = ("#0072b2", "#d55e00", "#00805c", "#a8508b", "#a87300", "#6b6b6b")  # told apart by the colour-blind, on white
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#22252a"
DASHES = (0, (5, 2))  # of a baseline
BAND = (
    "Thick line: interquartile mean (IQM) of all seeds; with fewer than four seeds that is their mean. Band: its 95 % "
    "bootstrap interval over seeds; a single seed has none. Faint lines: single seeds; × marks an unfinished one."
)
STYLE = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # names are text, whatever stands in them
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "icebox",
    "path.simplify": True,
}


def colour(findings: Findings, line: Line) -> str:
    """Return the colour of a setting, the same in every figure."""
    return COLOURS[findings.settings.index(line.setting) % len(COLOURS)]


def marker(findings: Findings, line: Line) -> str:
    """Return the marker of a setting, the same in every figure."""
    number = findings.settings.index(line.setting)
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def time_unit(game: Game) -> tuple[str, float]:
    """Return the unit in which a game's times are shown, and its seconds."""
    longest = max(
        (float(run.seconds[-1]) for line in game.lines for run in line.runs if np.isfinite(run.seconds[-1])), default=0
    )
    return next(((name, s) for name, s in (("hours", 3600.0), ("minutes", 60.0)) if longest > 2 * s), ("seconds", 1.0))


def has_seconds(game: Game) -> bool:
    """Return whether any run of a game knows when it was evaluated."""
    return any(np.isfinite(run.seconds).any() for line in game.lines for run in line.runs)


@contextmanager
def style() -> Iterator[None]:
    """Draw as all figures of a report are drawn."""
    with matplotlib.rc_context(STYLE):
        yield


def learning_curves(findings: Findings, game: Game, over: str) -> str:
    """Return a game's learning curves over "frames" or "seconds" as SVG, without legend."""
    with style():
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        _curves(figure.subplots(), findings, game, over)
        return svg(figure, f"{game.name} {over}")


def final_scores(findings: Findings, game: Game) -> str:
    """Return every setting's final IQM with interval and single seeds as SVG; the names stand beside it in a table."""
    with style():
        figure = Figure(figsize=(5.2, 0.85 + 0.42 * len(game.lines)), layout="constrained")
        _finals(figure.subplots(), findings, game)
        return svg(figure, f"{game.name} final")


def improvements(comparisons: Sequence[Comparison]) -> str:
    """Return the probabilities of improvement with their intervals as SVG."""
    with style():
        figure = Figure(figsize=(5.2, 0.85 + 0.42 * len(comparisons)), layout="constrained")
        axes = figure.subplots()
        for row, each in enumerate(comparisons):
            axes.plot(
                np.multiply(100, each.ci95),
                [row, row],
                color=COLOURS[0],
                linewidth=6,
                alpha=0.35,
                solid_capstyle="butt",
            )
            axes.plot([100 * each.probability], [row], "o", color=COLOURS[0], markersize=7)
        axes.axvline(50, color=INK, linewidth=1, linestyle=":")
        _rows(axes, [str(row + 1) for row in range(len(comparisons))])
        axes.set_xlim(-2, 102)
        axes.set_xlabel("chance that the first scores higher (%)")
        return svg(figure, "improvement")


def profile(findings: Findings, across: Across) -> str:
    """Return the performance profile of all games as SVG, without legend."""
    with style():
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        _profile(figure.subplots(), findings, across)
        return svg(figure, "profile")


def game_png(findings: Findings, game: Game, caption: str) -> bytes:
    """Return a game's curves and final scores as one picture to show around, with legend and protocol."""
    with style():
        panels = 2 if has_seconds(game) else 1
        figure = Figure(figsize=(5.4 * panels, 5.6 + 0.3 * len(game.lines)), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[3.6, 1.1 + 0.35 * len(game.lines)])
        plots = np.atleast_1d(above.subplots(1, panels, sharey=True))
        for plot, over in zip(plots, ("frames", "seconds")):
            _curves(plot, findings, game, over)
        handles, labels = plots[0].get_legend_handles_labels()
        above.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        above.suptitle(game.name, fontweight="bold")
        axes = below.subplots()
        _finals(axes, findings, game)
        _rows(axes, [_short(line.setting.label) for line in game.lines])
        below.supxlabel(_wrapped(caption, int(104 * panels)), fontsize=7.5)
        return png(figure)


def across_png(findings: Findings, across: Across, caption: str) -> bytes:
    """Return the performance profile as a picture with a legend."""
    with style():
        figure = Figure(figsize=(6.4, 5.0), layout="constrained")
        axes = figure.subplots()
        _profile(axes, findings, across)
        axes.legend(frameon=False, fontsize=9)
        figure.supxlabel(_wrapped(caption, 110), fontsize=7.5)
        return png(figure)


def _curves(axes: Axes, findings: Findings, game: Game, over: str) -> None:
    frames = game.references.frames_per_step
    unit, unit_s = ("", 1.0) if over == "frames" else time_unit(game)
    for line in game.lines:
        own = colour(findings, line)
        for run in line.runs:
            x, y = points(run, over, frames)
            if len(line.runs) > 1 or run not in line.counted:
                axes.plot(x / unit_s, y, color=own, alpha=0.35, linewidth=0.9)
            if run not in line.counted and len(x):
                axes.plot(x[-1] / unit_s, y[-1], "x", color=own, markersize=7)
        if (found := curve(line, over, frames)) is not None:
            x, middle, low, high = found
            axes.plot(
                x / unit_s, middle, color=own, linewidth=2, label=_key(line),
                linestyle=DASHES if line.setting.baseline else "-",
                marker=marker(findings, line), markersize=5, markevery=max(1, len(x) // 8),
            )  # fmt: skip
            if len(line.counted) > 1:
                axes.fill_between(x / unit_s, low, high, color=own, alpha=0.16, linewidth=0)
    if game.references.random is not None:
        axes.axhline(game.references.random, color=INK, linewidth=1, linestyle=":", label="random play")
    if game.references.solved_at is not None:
        axes.axhline(game.references.solved_at, color=INK, linewidth=1, linestyle="-.", label="counts as solved")
    axes.set_xlim(left=0)
    axes.set_ylabel("mean score of an evaluation (points)")
    same = over == "frames" and frames == 1
    axes.set_xlabel(f"{unit} of training" if unit else "frames of the game (= steps)" if same else "frames of the game")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _finals(axes: Axes, findings: Findings, game: Game) -> None:
    for row, line in enumerate(game.lines):
        own = colour(findings, line)
        if line.ci95 is not None:
            axes.plot(line.ci95, [row, row], color=own, linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot(line.final, np.full(len(line.final), row), "|", color=own, markersize=13, alpha=0.7)
        if line.iqm is not None:
            axes.plot([line.iqm], [row], marker(findings, line), color=own, markersize=8)
    if game.references.random is not None:
        axes.axvline(game.references.random, color=INK, linewidth=1, linestyle=":")
    if game.references.solved_at is not None:
        axes.axvline(game.references.solved_at, color=INK, linewidth=1, linestyle="-.")
    _rows(axes, [str(row + 1) for row in range(len(game.lines))])
    axes.set_xlabel(f"final score after {game.budget} (points)")
    axes.margins(x=0.08)


def _profile(axes: Axes, findings: Findings, across: Across) -> None:
    for number, setting in enumerate(findings.settings):
        if setting.label in across.profiles:
            share, low, high = across.profiles[setting.label]
            own = COLOURS[number % len(COLOURS)]
            dashes = DASHES if setting.baseline else "-"
            axes.plot(across.levels, share, color=own, linewidth=2, linestyle=dashes, label=_short(setting.label))
            axes.fill_between(across.levels, low, high, color=own, alpha=0.16, linewidth=0)
    axes.set_xlim(0, across.levels[-1])
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("score (0: random play, 1: best setting here)")
    axes.set_ylabel("share of runs above it")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _key(line: Line) -> str:
    count = len(line.counted) or len(line.runs)
    words = f"{count} seeds" if count > 1 else "1 seed"
    return f"{_short(line.setting.label)} ({'baseline, ' if line.setting.baseline else ''}{words})"


def short(value: float) -> str:
    """Return a number for an axis: 20k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if math.isfinite(value) else ""


def _short(label: str) -> str:
    return label if len(label) <= 44 else label[:43] + "…"


def _wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None}, facecolor="white")
    return file.getvalue()


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as an <svg> element for a page that defines --ink and --s0, --s1, ...: its light and its dark."""
    file = io.StringIO()
    settings: dict[str, Any] = {"svg.hashsalt": salt}  # ids differ between the figures of a page
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg xmlns="http://www.w3.org/2000/svg" \1 aria-hidden="true">', text
    )
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    for number, value in enumerate(COLOURS):
        text = text.replace(value, f"var(--s{number})")
    unique = re.sub(r"\W", "", salt)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{unique}-", text)
    return text.replace(INK, "var(--ink)")
