"""A training run that is lived in pieces: used by the tests of resume and of kill -9, here and as a script.

    python tests/lives.py FOLDER_FILE GAME SETTINGS_JSON STOP [STOP ...]

plays GAME to every STOP in turn, saving at each. FOLDER_FILE holds the run folder's path; when it does not exist the run
is begun beside it, else resumed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent import checkpoint
from agent.appended import Appended
from agent.cli.drive import drive
from agent.cli.record import Record, load_checkpoint
from agent.cli.session import Session
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder


class StopAt:
    """Asks a run to stop at an environment step, as Ctrl-C would; not at its last, where it ends by itself."""

    def __init__(self, session: Session, steps: int):
        self._session = session
        self._steps = steps

    @property
    def signal(self) -> int | None:
        """Not None once the step is reached."""
        return 2 if self._steps <= self._session.clock.steps < self._session.settings.steps else None


def live(folder_file: Path, game: str, settings: Settings, stops: list[int]) -> RunFolder:
    """Begin the run, or resume it when `folder_file` exists; play to each of `stops`, saving there; return its folder."""
    torch.set_num_threads(1)
    if folder_file.exists():
        folder = RunFolder.open(Path(folder_file.read_text()))
        resumed, skipped = load_checkpoint(folder)
        assert skipped == []
    else:
        folder, resumed = RunFolder.create(folder_file.parent, game, settings.seed, None, settings, ["test"]), None
        folder_file.write_text(str(folder.path))
    session = Session(game, settings)
    record = Record(folder, game, settings, ["test"], quiet=True, resumed=resumed)
    try:
        if resumed is not None:
            session.load_state_dict(resumed["agent"])
        for stop in stops:
            drive(session, record, StopAt(session, stop))
    finally:
        record.close()
        session.close()
    return folder


def what_lasts(folder: RunFolder) -> dict[str, Any]:
    """Return all that two equal runs must share: newest checkpoint, episode log and evaluations, all without times."""
    loaded = checkpoint.load_newest(folder.checkpoints)
    rows = folder.monitor.read_text().splitlines()[2:]
    tree = {name: loaded.tree[name] for name in ("steps", "agent")}
    tree["evaluations"] = {name: each for name, each in loaded.tree["evaluations"].items() if name != "seconds"}
    return {**tree, "episodes": [row.rsplit(",", 1)[0] for row in rows]}


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Return the key paths at which two trees are not equal bit for bit."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        found = [f"{path}/{key}" for key in left.keys() ^ right.keys()]
        return found + [each for key in left.keys() & right.keys() for each in differences(left[key], right[key], f"{path}/{key}")]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        left, right = left.numpy(), right.numpy()
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        same = left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [each for i, (a, b) in enumerate(zip(left, right, strict=True)) for each in differences(a, b, f"{path}/{i}")]
    elif isinstance(left, Appended) and isinstance(right, Appended):  # in memory, or as it was saved
        same = left == right
    else:
        same = type(left) is type(right) and left == right
    return [] if same else [path]


if __name__ == "__main__":
    file, name, values, *marks = sys.argv[1:]
    live(Path(file), name, Settings.model_validate(json.loads(values)), [int(mark) for mark in marks])
