"""What ten checkpoints of a full replay of pictures cost, with segments and with every frame written each time.

    .venv/bin/python benchmarks/checkpoints.py        # three minutes, 2 GB of memory, 6 GB of disk below --folder

Between two checkpoints a twentieth of the film is new. Both kinds are saved in turn from the same film, and what was
saved last is loaded and compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.checkpoint import load_newest, save  # noqa: E402
from agent.replay.film import Film  # noqa: E402
from benchmarks.results import write  # noqa: E402

ROWS, GAMES, SHAPE = 200_000, 8, (84, 84)
NEW_ROWS = 10_000  # between two checkpoints
CHECKPOINTS = 10


def play(film: Film, rows: int, rng: np.random.Generator) -> None:
    """Append so many rows, of frames that are noise: no disk and no page is shared or compressed."""
    every, no = np.arange(GAMES), np.zeros(GAMES, bool)
    for _ in range(rows // GAMES):
        frames = rng.integers(0, 256, (GAMES, *SHAPE), dtype=np.uint8)
        film.append(every, frames, no, rng.normal(size=GAMES), no, no, no)


def size(folder: Path) -> dict[str, int]:
    """Return the bytes of every file below a folder."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def measure(folder: Path) -> dict[str, Any]:
    """Save and time both kinds."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    film = Film(num_columns=GAMES, length=ROWS // GAMES, frame_shape=SHAPE, dtype="uint8", stack=4)
    play(film, ROWS, rng)
    found: dict[str, Any] = {name: {"bytes": [], "seconds": [], "cpu_s": []} for name in ("segments", "whole")}
    for number in range(1, CHECKPOINTS + 1):
        if number > 1:
            play(film, NEW_ROWS, rng)
        for name, kept in found.items():
            tree = film.state_dict() | ({"frames": film.frames.tensor[:-1]} if name == "whole" else {})
            before, started, cpu = size(folder / name), time.perf_counter(), time.process_time()
            save(folder / name, number, {"film": tree}, keep=2)
            kept["seconds"].append(time.perf_counter() - started)
            kept["cpu_s"].append(time.process_time() - cpu)
            after = size(folder / name)
            kept["bytes"].append(sum(length for path, length in after.items() if path not in before))
            megabytes, seconds = kept["bytes"][-1] / 1e6, kept["seconds"][-1]
            print(f"{name:>8} {number:2d}: {megabytes:8.1f} MB in {seconds:6.2f} s", flush=True)
    for name, kept in found.items():
        kept["bytes_on_disk"], kept["files"] = sum(size(folder / name).values()), len(size(folder / name))
        started = time.perf_counter()
        other = Film(num_columns=GAMES, length=ROWS // GAMES, frame_shape=SHAPE, dtype="uint8", stack=4)
        other.load_state_dict(load_newest(folder / name).tree["film"])
        kept["load_s"] = time.perf_counter() - started
        if not torch.equal(other.frames.tensor, film.frames.tensor):
            sys.exit(f"{name}: the film that was loaded is another.")
    return found


def main() -> None:
    """Measure, print, write results/checkpoints.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write; the disk is what is measured")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        found = measure(Path(folder))
    facts = {"rows": ROWS, "games": GAMES, "frame_shape": list(SHAPE), "new_rows": NEW_ROWS, "keep": 2}
    print(write("checkpoints", facts | {"kinds": found}))


if __name__ == "__main__":
    main()
