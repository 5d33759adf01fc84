"""The folder of one run: made once, never overwritten, found again by a path, `latest` or `GAME/latest`."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from agent.config import Section, Settings
from agent.durable import write_atomic
from agent.telemetry import provenance
from agent.telemetry.evaluations import best_in
from agent.telemetry.lock import Lock, is_alive, this_process

Status = Literal["running", "done", "stopped", "crashed"]


@dataclass(frozen=True)
class RunFolder:
    """A run folder on disk. Only the process that `hold`s it writes to it."""

    path: Path

    @classmethod
    def create(
        cls, root: Path, game: str, seed: int, name: str | None, settings: Settings, command: Sequence[str]
    ) -> RunFolder:
        """Make `root`/GAME/TIME_sSEED[_NAME] with config.yaml, command.txt and meta.json, and point `latest` at it.

        A taken name gets -2, -3, ...; ValueError when `name` cannot be part of a folder's name.
        """
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ValueError(
                f"The name {name!r} cannot be part of a folder's name. "
                "Use at most 64 letters, digits, '.', '_' and '-', a letter or digit first."
            )
        now = datetime.now().astimezone()
        stem = f"{now:%Y%m%d-%H%M%S}_s{seed}" + (f"_{name}" if name else "")
        run = cls(_claim(root / game_folder(game), stem))
        try:
            run._fill(game, seed, name, settings, command, now)
        except OSError:  # the disk is full: what is no run is not left behind
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return run

    def _fill(
        self, game: str, seed: int, name: str | None, settings: Settings, command: Sequence[str], now: datetime
    ) -> None:
        write_atomic(self.path / "config.yaml", to_yaml(settings))
        write_atomic(self.path / "command.txt", shlex.join(command) + "\n")
        facts = provenance.host_facts()
        device = ("cuda" if facts["gpus"] else "cpu") if settings.device == "auto" else settings.device
        self._write_meta(
            {
                "game": game,
                "seed": seed,
                "name": name,
                "status": "running",
                "started": now.astimezone(timezone.utc).isoformat(),
                "ended": None,
                "process": this_process(),
                "steps": 0,
                "total_steps": settings.steps,
                "device": device,
                "git": provenance.git_commit(),
                "versions": provenance.versions(),
                "host": facts,
            }
        )
        write_atomic(self.path.parent / "latest", self.path.name + "\n")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the run folder at `path`; FileNotFoundError when it is none."""
        if not (path / "meta.json").is_file():
            raise FileNotFoundError(f"{path} is not a run folder: it has no meta.json.")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def monitor(self) -> Path:
        """The log of episodes."""
        return self.path / "monitor.csv"

    @property
    def evaluations(self) -> Path:
        """The log of evaluations."""
        return self.path / "evaluations.npz"

    @property
    def log(self) -> Path:
        """What was said while the run trained."""
        return self.path / "train.log"

    @property
    def game(self) -> str:
        """The game's name as the launcher takes it."""
        return self.meta()["game"]

    @property
    def status(self) -> Status:
        """How the run ended, or `running`. A run whose process is gone (killed, machine restarted) has crashed."""
        return _status(self.meta())

    def meta(self) -> dict[str, Any]:
        """Return the content of meta.json; ValueError when it is damaged."""
        try:
            meta = json.loads((self.path / "meta.json").read_text(encoding="utf-8"))
            _started(meta)
            return {"game": "?", "status": "crashed", "process": {}} | meta
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            lacks = f"it does not say {error}" if isinstance(error, KeyError) else "it is not the JSON that a run writes"
            raise ValueError(f"{self.path / 'meta.json'} is damaged: {lacks}.") from None

    def settings(self) -> Settings:
        """Return the settings the run was started with; ValueError when config.yaml does not hold valid settings."""
        file = self.path / "config.yaml"
        try:
            return Settings.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            line = getattr(getattr(error, "problem_mark", None), "line", None)
            where = "it" if line is None else f"line {line + 1}"
            raise ValueError(f"{file} does not hold the settings of a run: {where} is not YAML.") from None
        except ValueError as error:
            raise ValueError(f"{file} does not hold the settings of a run: {_fault(error)}.") from None

    def note(self, **facts: Any) -> None:
        """Set facts in meta.json, such as `steps=50_000` when a checkpoint is safe. Values are JSON."""
        self._write_meta(self.meta() | facts)

    def set_status(self, status: Status, **facts: Any) -> None:
        """Set how the run stands, with other facts; `running` belongs to this process, all others end the run now."""
        if status == "running":
            self.note(status=status, process=this_process(), ended=None, **facts)
        else:
            self.note(status=status, ended=datetime.now(timezone.utc).isoformat(), **facts)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the run for this process while it trains; RuntimeError names the process that already does.

        The status is `running` inside. The caller sets `done` or `stopped`; where an exception leaves first, the run is
        `stopped` by Ctrl-C and `crashed` by anything else.
        """
        lock = Lock(self.path)
        lock.acquire()
        try:
            self.set_status("running")
            yield
        except BaseException as error:
            with suppress(OSError, ValueError):  # what went wrong is told, not what that has led to
                if self.meta()["status"] == "running":
                    self.set_status("stopped" if isinstance(error, KeyboardInterrupt) else "crashed")
            raise
        finally:
            lock.release()

    def _write_meta(self, meta: dict[str, Any]) -> None:
        write_atomic(self.path / "meta.json", json.dumps(meta, indent=2) + "\n")


@dataclass(frozen=True)
class RunRow:
    """One line of `icebox runs`."""

    run: str  # what `find` takes
    game: str
    status: Status
    steps: int  # environment steps that are safe in a checkpoint
    total_steps: int
    best: float | None  # best mean score of an evaluation
    age_s: float  # since the run was started


def list_runs(root: Path) -> list[RunRow]:
    """Return the runs under `root`, newest first; folders whose meta.json is damaged are left out."""
    now = datetime.now(timezone.utc)
    return [
        RunRow(
            run=run.path.relative_to(root).as_posix(),
            game=meta["game"],
            status=_status(meta),
            steps=meta.get("steps", 0),
            total_steps=meta.get("total_steps", 0),
            best=best_in(run.evaluations),
            age_s=(now - _started(meta)).total_seconds(),
        )
        for run, meta in _newest_first(root)
    ]


def find(root: Path, run: str) -> Path:
    """Return the folder that RUN means: a path, `latest`, `GAME/latest` or `GAME/FOLDER` under `root`.

    `latest` is the newest by its start over all games. FileNotFoundError names near matches.
    """
    game, _, last = run.rpartition("/")
    if last == "latest":
        for folder in [root / game_folder(game)] + ([Path(game)] if game else []):
            pointer = folder / "latest"
            named = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
            if named and (folder / named / "meta.json").is_file():
                return folder / named
            if newest := _newest_first(folder):  # every game counts, or the run pointed at was removed
                return newest[0][0].path
    else:
        for candidate in (Path(run), root / game_folder(game) / last):
            if (candidate / "meta.json").is_file():
                return candidate
        if Path(run).exists():
            raise FileNotFoundError(f"{run} is not a run folder: it has no meta.json. `icebox runs` lists the runs.")
    known = [folder.path.relative_to(root).as_posix() for folder, _ in _newest_first(root)]
    if not known:
        raise FileNotFoundError(f"There is no run {run!r}: {root} holds none yet. Start one with `icebox train GAME`.")
    games = sorted({f"{name.rpartition('/')[0]}/latest" for name in known})
    near = [name for name in known if last and name.endswith(f"/{last}")]
    near = near or difflib.get_close_matches(run, ["latest", *games, *known], n=3, cutoff=0.5) or ["latest", *games][:4]
    raise FileNotFoundError(f"There is no run {run!r} in {root}. Near: {', '.join(near)}. `icebox runs` lists all.")


def game_folder(game: str) -> Path:
    """Return where the runs of a game lie under the root: `gym:ALE/Pong-v5` -> gym-ALE/Pong-v5. Never outside of it."""
    return Path(*(re.sub(r"[^\w.-]", "-", part) for part in game.split("/") if part.strip(".")))


def to_yaml(settings: Settings) -> str:
    """Return every setting as YAML that loads back to equal settings, each section under a comment."""
    parts = ["# Every setting of this run, as it was resolved when the run was started.\n"]
    for key, value in settings.model_dump().items():
        section = getattr(settings, key)
        if isinstance(section, Section):
            parts.append(f"\n# {(type(section).__doc__ or '').strip().splitlines()[0]}\n")
        parts.append(yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, width=120))
    return "".join(parts)


def _fault(error: ValueError) -> str:
    """What is wrong with settings, in few words: of pydantic's faults the first."""
    if not isinstance(error, ValidationError):
        return "it is not text" if isinstance(error, UnicodeDecodeError) else str(error).rstrip(".")
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].removeprefix('Value error, ').rstrip('.')}"


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line and sections as blocks."""


def _flow(dumper: yaml.SafeDumper, values: Sequence[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _flow)
_Dumper.add_representer(tuple, _flow)


def _claim(parent: Path, stem: str) -> Path:
    """Make and return `parent`/`stem`, or with -2, -3, ... when taken: mkdir is what only one process can do."""
    parent.mkdir(parents=True, exist_ok=True)
    path, number = parent / stem, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = parent / f"{stem}-{number}"


def _started(meta: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(meta["started"]).astimezone(timezone.utc)


def _status(meta: dict[str, Any]) -> Status:
    return "crashed" if meta["status"] == "running" and not is_alive(meta["process"]) else meta["status"]


def _newest_first(root: Path) -> list[tuple[RunFolder, dict[str, Any]]]:
    runs = []
    for folder in _run_folders(root):
        try:
            runs.append((folder, folder.meta()))
        except ValueError:
            continue
    return sorted(runs, key=lambda run: _started(run[1]), reverse=True)


def _run_folders(directory: Path) -> Iterator[RunFolder]:
    """Walk down to the run folders without looking into them: they may hold many files."""
    if (directory / "meta.json").is_file():
        yield RunFolder(directory)
    elif directory.is_dir():
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _run_folders(Path(entry.path))
