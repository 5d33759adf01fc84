"""The viewer beside a training: a process of its own, which prints its link, ends with it and cannot hurt it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.cli.words import command

PARENT = "ICEBOX_VIEWER_OF"  # in the environment of a viewer that a training started: the training's process id
END_S = 5.0  # it has so long to end


@contextmanager
def viewer_beside(folder: Path, runs_dir: Path, *, wanted: bool = True) -> Iterator[None]:
    """Show the run in `folder` while the block lasts. A viewer that does not start or dies is no matter for the run."""
    if not wanted:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "play", str(folder.resolve()), "--runs-dir", str(runs_dir)],
        env={**os.environ, PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the training, which then takes its time to save
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"The viewer ends with the training; to look again: {command('play', folder)}", file=sys.stderr)
