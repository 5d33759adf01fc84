"""What runs say together: per game a line for each setting, final scores, who is better, and what to be careful about.

Nothing here draws or writes. Scores compared are those after the budget of steps that every setting of a game reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from agent.config import Settings
from agent.telemetry.report.gather import Gathered
from agent.telemetry.report.references import References
from agent.telemetry.report.settings_apart import Setting, apart
from agent.telemetry.statistics import (
    improvement,
    improvement_ci,
    iqm,
    iqm_curve,
    performance_profile,
    stratified_bootstrap_ci,
)

ENOUGH_SEEDS = 5
SLACK = 0.05  # of a budget: algorithms that play in rollouts end a little beside it
POINTS = 100  # at which curves with times of their own are laid over each other
MOST_COMPARISONS = 15
PROFILE_GAMES = 3
Interval = tuple[float, float]


@dataclass
class Line:
    """A setting on one game."""

    setting: Setting
    runs: list[Gathered]  # of different seeds, each with an evaluation
    counted: list[Gathered] = field(default_factory=list)  # that reached the budget
    final: np.ndarray = field(default_factory=lambda: np.empty(0))  # f64 [counted], mean score after the budget
    iqm: float | None = None
    ci95: Interval | None = None  # None with fewer than two seeds


@dataclass
class Game:
    """Everything that is said of one game."""

    name: str
    lines: list[Line]
    references: References
    budget_steps: int
    notes: list[str]

    @property
    def budget(self) -> str:
        """The budget in words; evaluations come a few steps late when many games play."""
        about = int(float(f"{self.budget_steps:.3g}"))
        return f"{'' if about == self.budget_steps else 'about '}{about:,} steps"

    @property
    def episodes(self) -> list[int]:
        """Episodes in an evaluation; several numbers when runs differ."""
        return sorted({run.history.scores.shape[1] for line in self.lines for run in line.runs})


@dataclass
class Comparison:
    """How likely a run of one setting beats a run of another."""

    ours: Setting
    theirs: Setting
    games: int
    seeds: int  # the fewest of either on any of these games
    probability: float
    ci95: Interval

    @property
    def verdict(self) -> str:
        """What may be concluded; from few seeds nothing, since two of each lie apart by chance every third time."""
        if self.seeds < ENOUGH_SEEDS:
            return "too few seeds to say"
        return "the first" if self.ci95[0] > 0.5 else "the second" if self.ci95[1] < 0.5 else "not decided"


@dataclass
class Across:
    """All games together, in units in which random play is 0 and the best setting's mean on the game is 1."""

    games: list[str]
    scores: dict[str, list[np.ndarray]]  # label -> an array of seeds for each game
    iqm: dict[str, tuple[float, Interval | None]]  # label -> value and interval
    levels: np.ndarray
    profiles: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # label -> share, low, high; {} below three games


@dataclass
class Findings:
    """Everything a report says."""

    games: list[Game]
    settings: list[Setting]
    comparisons: list[Comparison]
    across: Across | None
    cautions: list[str]  # in sentences, for the top
    left_out: list[Gathered]


def find_out(
    runs: Sequence[Gathered], defaults: Callable[[str], Settings], refer: Callable[[str, Settings], References]
) -> Findings:
    """Return what the runs say; ValueError in sentences when not one holds an evaluation."""
    shown = [run for run in runs if run.history is not None and run.game not in (None, "?")]
    left_out = [run for run in runs if run not in shown]
    if not shown:
        why = " ".join(f"{run.name}: {'; '.join(run.notes) or 'its game is not known'}." for run in runs)
        raise ValueError(f"There is nothing to report yet: none of these runs holds an evaluation. {why}")
    settings = apart(shown, defaults)
    games = [_game(name, settings, refer) for name in dict.fromkeys(run.game for run in shown)]
    across = _across(games, settings) if len(games) > 1 else None
    return Findings(games, settings, _compare(games, settings), across, _cautions(games, left_out, across), left_out)


def _game(name: str, settings: Iterable[Setting], refer: Callable[[str, Settings], References]) -> Game:
    lines, notes = [], []
    for setting in settings:
        kept: dict[object, Gathered] = {}
        for run in sorted((run for run in setting.runs if run.game == name), key=lambda run: -run.steps):
            key = run.path if run.seed is None else run.seed
            if key in kept:
                notes.append(
                    f"{run.name} has the seed of {kept[key].name}: a repetition says nothing new, so only the latter "
                    f"is shown.{' Also: ' + '; '.join(run.notes) + '.' if run.notes else ''}"
                )
            kept.setdefault(key, run)
        if kept:
            lines.append(Line(setting, sorted(kept.values(), key=lambda run: (run.seed is None, run.seed or 0))))
    reached = [max(run.steps for run in line.runs) for line in lines]
    budget = min(reached)
    if max(reached) > budget * (1 + SLACK):
        notes.append(
            f"Not all settings were trained equally long: final scores are those after {budget:,} steps, which all "
            "reached."
        )
    for line in lines:
        _final(line, budget, notes)
    known = [run.settings for line in lines for run in line.runs if run.settings is not None]
    references = refer(name, known[0] if known else Settings())
    if references.note:
        notes.append(references.note)
    notes += _clock_notes(lines)
    return Game(name, lines, references, budget, notes)


def _final(line: Line, budget: int, notes: list[str]) -> None:
    finals = []
    for run in line.runs:
        if run.steps < budget * (1 - SLACK):
            notes.append(
                f"{run.name} ({line.setting.label}) was last judged after {run.steps:,} of {budget:,} steps: its curve "
                "is shown as far as it goes, and it does not count in final scores."
            )
            continue
        within = run.history.steps <= budget * (1 + SLACK)
        if within.any() and run.history.steps[within][-1] >= budget * (1 - SLACK):
            line.counted.append(run)
            finals.append(run.means[within][-1])
        else:
            notes.append(f"{run.name} has no evaluation near {budget:,} steps and does not count in final scores.")
    line.final = np.array(finals)
    if finals:
        line.iqm = iqm(line.final)
    if len(finals) > 1:
        line.ci95 = stratified_bootstrap_ci(line.final[:, None])


def _clock_notes(lines: Iterable[Line]) -> list[str]:
    notes, runs = [], [run for line in lines for run in line.runs]
    estimated = [run for run in runs if run.seconds_estimated and np.isfinite(run.seconds).any()]
    if estimated:
        names = ", ".join(run.name for run in estimated[:3]) + (" and others" if len(estimated) > 3 else "")
        notes.append(
            f"When {names} was evaluated is estimated from its training episodes; these seconds include evaluations."
        )
    if (
        len({str(run.meta.get("host", {}).get("processor")) for run in runs if isinstance(run.meta.get("host"), dict)})
        > 1
    ):
        notes.append("These runs come from different machines: compare their curves over frames, not over seconds.")
    return notes


def laid_over(lines: Sequence[tuple[Sequence[float], Sequence[float]]], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x [points] where all lines (x, y) have values, and their y there [lines, points], interpolated."""
    x = np.linspace(max(line[0][0] for line in lines), min(line[0][-1] for line in lines), points)
    return x, np.array([np.interp(x, *line) for line in lines])


def curve(line: Line, over: str, frames_per_step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return x, interquartile mean over the counted runs, and the ends of its 95 % band, over "frames" or "seconds".

    Of a single run: its own curve, thrice. None where nothing is known.
    """
    lines = [(x, y) for x, y in (points(run, over, frames_per_step) for run in line.counted or line.runs) if len(x)]
    if not lines:
        return None
    if len(lines) == 1:
        return lines[0][0], *[lines[0][1]] * 3
    steps = [x.tolist() for x, _ in lines]
    if all(each == steps[0] for each in steps):
        return lines[0][0], *iqm_curve(np.array([y for _, y in lines]))
    x, values = laid_over(lines, POINTS)
    return None if x[-1] < x[0] else (x, *iqm_curve(values))


def points(run: Gathered, over: str, frames_per_step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and mean score of a run's evaluations; those whose x is not known are left out."""
    x = run.history.steps * float(frames_per_step) if over == "frames" else run.seconds
    known = np.isfinite(x)
    return x[known], run.means[known]


def _compare(games: Sequence[Game], settings: Sequence[Setting]) -> list[Comparison]:
    """Every setting against every baseline, or where none was named, every pair of settings."""
    baselines = [setting for setting in settings if setting.baseline]
    others = [setting for setting in settings if not setting.baseline]
    pairs = [(one, base) for one in others for base in baselines] if baselines else list(combinations(others, 2))
    found = []
    for ours, theirs in pairs[:MOST_COMPARISONS]:
        finals = [(_of(game, ours), _of(game, theirs)) for game in games]
        both = [(a.final, b.final) for a, b in finals if a and b and min(len(a.final), len(b.final)) > 1]
        if both:
            us, them = [a for a, _ in both], [b for _, b in both]
            seeds = min(map(len, us + them))
            found.append(Comparison(ours, theirs, len(both), seeds, improvement(us, them), improvement_ci(us, them)))
    return found


def _of(game: Game, setting: Setting) -> Line | None:
    return next((line for line in game.lines if line.setting is setting), None)


def _across(games: Sequence[Game], settings: Sequence[Setting]) -> Across | None:
    """All games together, of the settings that every usable game has; None when there are not two such games."""
    units = {}
    for game in games:
        best = max((float(line.final.mean()) for line in game.lines if len(line.final)), default=None)
        random = game.references.random
        if best is not None and random is not None and best > random:
            units[game.name] = (random, best)
    usable = [game for game in games if game.name in units]
    scores = {}
    for setting in settings:
        lines = [_of(game, setting) for game in usable]
        if len(usable) > 1 and all(line is not None and len(line.final) for line in lines):
            pairs = zip(usable, lines, strict=True)
            scores[setting.label] = [
                (line.final - units[g.name][0]) / (units[g.name][1] - units[g.name][0]) for g, line in pairs
            ]
    if not scores:
        return None
    levels = np.linspace(0.0, max(1.05, 1.05 * max(float(x.max()) for arrays in scores.values() for x in arrays)), 101)
    wide = len(usable) >= PROFILE_GAMES
    profiles = {name: performance_profile(arrays, levels) for name, arrays in scores.items()} if wide else {}
    return Across(
        [g.name for g in usable], scores, {name: _iqm(arrays) for name, arrays in scores.items()}, levels, profiles
    )


def _iqm(arrays: Sequence[np.ndarray]) -> tuple[float, Interval | None]:
    """Over games and seeds, with as many seeds from each game as all have."""
    seeds = min(map(len, arrays))
    table = np.stack([scores[:seeds] for scores in arrays], axis=1)  # [seeds, games]
    return iqm(table.ravel()), stratified_bootstrap_ci(table) if seeds > 1 else None


def _cautions(games: Sequence[Game], left_out: Sequence[Gathered], across: Across | None) -> list[str]:
    said = []
    few = min(len(line.counted) for game in games for line in game.lines)
    if few < ENOUGH_SEEDS:
        seeds = "one seed" if few == 1 else f"{few} seeds" if few else "no finished seed"
        said.append(
            f"Fewer than {ENOUGH_SEEDS} seeds: at least one setting has {seeds}. Another seed may well turn out "
            "otherwise; the intervals are rough, and every single run is drawn."
        )
    if len(games) == 1:
        said.append("One game: the interquartile mean (IQM) is over seeds only and says nothing about other games.")
    elif across is None:
        said.append("The games cannot be put on one scale, because no setting beat random play on two of them.")
    runs = [run for game in games for line in game.lines for run in line.runs]
    for name, of in (
        ("commits", [run.meta.get("git") for run in runs]),
        ("versions", [run.meta.get("versions") for run in runs]),
    ):
        if len(set(map(str, of))) > 1:
            said.append(f"The runs come from different {name}; the tables at the end say which.")
    for run in (*[run for run in runs if run.notes], *left_out):
        said.append(f"{run.name}: {'; '.join(run.notes) or 'its game is not known, so that it is left out'}.")
    for game in games:
        said += [note if len(games) == 1 else f"{game.name}: {note}" for note in game.notes]
    return list(dict.fromkeys(said))
