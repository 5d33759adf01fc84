"""One run as a report needs it: read from its folder, whatever state that is in, and only read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from agent.config import Settings
from agent.telemetry import evaluations, monitor
from agent.telemetry.run_folder import RunFolder

LAST = 100  # training episodes in a mean, as everywhere
INDEX = "index.json"  # of RUN/episodes; docs/formats.md
LARGEST_INDEX, LARGEST_CONFIG = 4 << 20, 1 << 20
LONGEST = 80  # letters of a game's name


class Watched(NamedTuple):
    """An episode that was kept with its pictures."""

    room: str
    score: float
    length: int  # environment steps


@dataclass
class Gathered:
    """A run as far as it can be read; `notes` say in sentences what could not be."""

    path: Path
    name: str  # as the reader of a report knows it
    baseline: bool = False
    game: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    status: str = "damaged"
    settings: Settings | None = None
    history: evaluations.History | None = None
    seconds: np.ndarray = field(default_factory=lambda: np.empty(0))  # f64 [K] at each evaluation, or not a number
    seconds_estimated: bool = False  # from monitor.csv, evaluations included
    trained_episodes: int = 0
    trained_score: float | None = None  # mean of the last 100 training episodes
    episodes: list[Watched] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """The seed it was trained with, None when it is not known."""
        seed = self.meta.get("seed") if self.settings is None else self.settings.seed
        return seed if isinstance(seed, int) else None

    @property
    def steps(self) -> int:
        """Environment steps at its last evaluation, 0 before the first."""
        return 0 if self.history is None else int(self.history.steps[-1])

    @property
    def means(self) -> np.ndarray:
        """Mean score of every evaluation, f64 [K]."""
        return np.empty(0) if self.history is None else self.history.scores.mean(axis=1)


def gather(path: Path, *, baseline: bool = False) -> Gathered:
    """Read a run folder; what is damaged or missing becomes a note."""
    run = Gathered(path, f"{path.parent.name}/{path.name}" if path.parent.name else path.name, baseline)
    folder = RunFolder(path)
    try:
        run.meta = folder.meta()
        run.status, run.game = folder.status, str(run.meta["game"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        run.meta = {}
        run.notes.append("its meta.json is damaged, so that machine, versions and commit are not known")
    try:
        run.settings = _settings(folder)
        total = run.meta.get("total_steps")
        if isinstance(total, int) and total > 0:  # a run that was resumed may go on for longer than it was to at first
            run.settings = run.settings.model_copy(update={"steps": total})
    except (OSError, ValueError, RecursionError):
        run.notes.append("its config.yaml is missing or damaged, so that it is shown as a setting of its own")
    played = _played(folder, run)
    if run.game in (None, "?"):
        run.game = played.game
    if run.game is not None:
        run.name = f"{run.game[:LONGEST]}/{path.name}"
    try:
        history = evaluations.read(folder.evaluations)
        run.history = history if len(history.steps) else None
    except FileNotFoundError:
        pass
    except ValueError:
        run.notes.append("its evaluations.npz is damaged and passed over")
    if run.history is None:
        trained = f"; its last training score is {run.trained_score:,.1f}" if run.trained_score is not None else ""
        run.notes.append(f"it holds no evaluation{trained}")
    else:
        _clock(run, played)
    if run.status != "done":
        words = {"running": "it still trains", "stopped": "it was stopped", "crashed": "it has crashed"}
        run.notes.append(
            f"{words.get(run.status, 'how it ended is not known')}, last evaluated after {run.steps:,} steps"
        )
    run.episodes = _episodes(path / "episodes" / INDEX)
    return run


def _settings(folder: RunFolder) -> Settings:
    """The run's settings; a config.yaml that could unfold into more than it holds is none."""
    file = folder.path / "config.yaml"
    if file.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{file} is too large.")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(file.read_text(encoding="utf-8"))):
            raise ValueError(f"{file} holds aliases.")
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is damaged: {error}.") from None
    return folder.settings()


def _played(folder: RunFolder, run: Gathered) -> monitor.Played:
    try:
        played = monitor.read(folder.monitor)
    except OSError:
        played = monitor.Played(None, *np.empty((3, 0)))
    run.trained_episodes = len(played.scores)
    if len(played.scores):
        run.trained_score = float(played.scores[-LAST:].mean())
    return played


def _clock(run: Gathered, played: monitor.Played) -> None:
    """Set when each evaluation was made: as recorded, else about, from the training episodes."""
    run.seconds = run.history.seconds
    if not np.isfinite(run.seconds).all():
        run.seconds, run.seconds_estimated = played.seconds_at(run.history.steps), True


def _episodes(index: Path) -> list[Watched]:
    """The episodes that the viewer or `icebox record` kept, the best first; rows that are not sound are passed over."""
    try:
        if index.stat().st_size > LARGEST_INDEX:
            return []
        found = json.loads(index.read_text(encoding="utf-8"))
        rows = found["episodes"] if found["format"] == "icebox-episodes" and found["version"] == 1 else []
        kept = [
            Watched(str(row["room"])[:40], float(row["score"]), int(row["length"]))
            for row in rows
            if row.get("finished") is True and math.isfinite(row["score"])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    return sorted(kept, key=lambda episode: -episode.score)
