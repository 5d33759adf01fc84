"""Whether an hour of `icebox train` leaves it as large as it was: memory, files, threads, processes, checkpoints' time.

    .venv/bin/python benchmarks/flat.py                 # an hour of Lunar Lander; writes results/flat.json and flat.png
    .venv/bin/python benchmarks/flat.py --minutes 2 --dry

A training in a process of its own is looked at every ten seconds with psutil, its children included. Replay's film
fills by design, so its capacity is chosen such that it is full before the first sixth, the warm-up, is over; what comes
after is judged. Memory's slope is Theil and Sen's, its 95 % interval from residuals resampled in blocks, as they hang
together.
It is flat if even the interval's upper end stays below LIMIT of its level in an hour, and grows if the lower end lies
above; else the run was too short or the machine too busy to tell. Counts are flat if their median in the last third is
that of the first; so are the seconds of a checkpoint, within a half.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import RESULTS, write  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

EVERY_S = 10.0
WARM_UP = 1 / 6  # of the time
LIMIT = 0.02  # of memory's level, in an hour
CAPACITY = 20_000  # transitions: full within a minute
RESAMPLES = 1_000
MIB = 2**20

# The verb itself, with a stopwatch around each save; sys.argv[1] takes when it began and its seconds, a line for each.
CHILD = """
import sys, time
seconds = open(sys.argv.pop(1), "a", buffering=1)
from agent import checkpoint
save = checkpoint.save
def timed(*arguments, **options):
    begun = time.monotonic()
    answer = save(*arguments, **options)
    print(begun, time.monotonic() - begun, file=seconds)
    return answer
checkpoint.save = timed
from agent.cli.main import main
sys.exit(main())
"""

COUNTS = {"files": "open file handles", "threads": "threads", "processes": "child processes"}


def look(process: psutil.Process) -> dict[str, float]:
    """Return what a process and its children take now; one that ends meanwhile is left out."""
    found: dict[str, float] = {"rss": 0, "pss": 0, "files": 0, "threads": 0, "processes": -1}
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            full = each.memory_full_info()
            found["rss"] += full.rss
            found["pss"] += getattr(full, "pss", 0)
            found["files"] += each.num_fds() if hasattr(each, "num_fds") else each.num_handles()
            found["threads"] += each.num_threads()
            found["processes"] += 1
    if (gpu := gpu_bytes(process)) is not None:
        found["gpu"] = gpu
    return found


def gpu_bytes(process: psutil.Process) -> int | None:
    """Return the GPU memory that the processes take, None where nothing says it."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    ours = {process.pid, *(child.pid for child in process.children(recursive=True))}
    rows = (line.split(",") for line in out.splitlines() if "," in line)
    return sum(int(mib) * MIB for pid, mib in rows if int(pid) in ours and mib.strip().isdigit())


def train(game: str, more: Sequence[str], minutes: float, capacity: int) -> dict[str, Any]:
    """Train for so long; return the samples, a row every EVERY_S, and when each checkpoint began and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, output = Path(folder, "seconds"), Path(folder, "output")
        command = [sys.executable, "-c", CHILD, str(seconds), "train", game, "--runs-dir", folder, "--quiet"]
        command += ["--steps", "1000000000", "--replay.capacity", str(capacity), *more]
        rows: list[dict[str, float]] = []
        with output.open("w") as said:
            child = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
            try:
                process, begun = psutil.Process(child.pid), time.monotonic()
                while (now := time.monotonic() - begun) < minutes * 60:
                    if child.poll() is not None:
                        sys.exit(f"The training ended with {child.returncode}:\n{output.read_text()[-2000:]}")
                    rows.append({"seconds": now, "steps": steps_saved(Path(folder)), **look(process)})
                    time.sleep(max(0.0, len(rows) * EVERY_S - (time.monotonic() - begun)))
                child.send_signal(signal.SIGTERM)
                code = child.wait(timeout=120)
            finally:
                child.kill()
                child.wait()
        lines = [line.split() for line in seconds.read_text().splitlines()] if seconds.exists() else []
        saves = [[float(at) - begun, float(took)] for at, took in lines]
        return {"samples": rows, "checkpoint_s": saves, "exit_code": code, "steps": steps_saved(Path(folder))}


def steps_saved(runs: Path) -> int:
    """Return how far the newest checkpoint is."""
    for meta in runs.glob("*/*/meta.json"):
        with suppress(OSError, ValueError):
            return int(json.loads(meta.read_text(encoding="utf-8")).get("steps") or 0)
    return 0


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return Theil and Sen's slope: the median of those of all pairs."""
    one, other = np.triu_indices(len(x), 1)
    return float(np.median((y[other] - y[one]) / (x[other] - x[one])))


def slope_with_interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return the slope and the ends of its 95 % interval, from residuals resampled in blocks of a tenth."""
    fitted = slope(x, y)
    rest = y - fitted * x
    rest, level = rest - np.median(rest), float(np.median(rest))
    length, rng = max(2, len(x) // 10), np.random.default_rng(0)
    slopes = []
    for _ in range(RESAMPLES):
        starts = rng.integers(0, len(x) - length + 1, -(-len(x) // length))
        blocks = np.concatenate([rest[start : start + length] for start in starts])[: len(x)]
        slopes.append(slope(x, level + fitted * x + blocks))
    low, high = np.quantile(slopes, (0.025, 0.975))
    return fitted, float(low), float(high)


def judge(found: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Return a verdict on each figure after the warm-up: flat, grows, or that it cannot be told."""
    rows = [row for row in found["samples"] if row["seconds"] >= minutes * 60 * WARM_UP]
    hours = np.array([row["seconds"] for row in rows]) / 3600
    verdicts: dict[str, Any] = {}
    for name in ("rss", "pss", "gpu"):
        values = np.array([row.get(name, 0) for row in rows], float)
        if not values.any():
            continue
        fitted, low, high = slope_with_interval(hours, values)
        limit = LIMIT * float(np.median(values))
        verdict = "flat" if high < limit else "grows" if low > limit else "cannot be told"
        figures = {"level": float(np.median(values)), "per_hour": fitted, "ci95": [low, high], "limit_per_hour": limit}
        verdicts[name] = {"verdict": verdict, **figures}
    series = {name: [row[name] for row in rows] for name in COUNTS}
    series["checkpoint_s"] = [took for at, took in found["checkpoint_s"] if at >= rows[0]["seconds"]]
    for name, values in series.items():
        third = max(1, len(values) // 3)
        if len(values) < 3:
            verdicts[name] = {"verdict": "cannot be told"}
            continue
        first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
        grows = last > (1.5 * first if name == "checkpoint_s" else first)
        verdicts[name] = {"verdict": "grows" if grows else "flat", "first_third": first, "last_third": last}
    return verdicts


def draw(found: dict[str, Any], verdicts: dict[str, Any], minutes: float, title: str, path: Path) -> None:
    """Draw each figure over the minutes, the warm-up shaded."""
    figure, plots = plt.subplots(2, 2, figsize=(11, 7))
    at = [row["seconds"] / 60 for row in found["samples"]]
    for name in ("rss", "pss", "gpu"):
        if name in verdicts:
            label = f"{name.upper()}: {verdicts[name]['verdict']}"
            plots[0, 0].plot(at, [row[name] / MIB for row in found["samples"]], label=label)
    plots[0, 0].set_ylabel("MiB, children included")
    for plot, names in ((plots[0, 1], ["files"]), (plots[1, 0], ["threads", "processes"])):
        for name in names:
            label = f"{COUNTS[name]}: {verdicts[name]['verdict']}"
            plot.plot(at, [row[name] for row in found["samples"]], label=label)
    label = f"a checkpoint: {verdicts['checkpoint_s']['verdict']}"
    begun, took = zip(*found["checkpoint_s"], strict=True) if found["checkpoint_s"] else ((), ())
    plots[1, 1].plot(np.array(begun) / 60, took, ".", label=label)
    plots[1, 1].set_ylabel("seconds")
    for plot in plots.flat:
        plot.axvspan(0, minutes * WARM_UP, color="0.9")
        plot.set_xlabel("minutes")
        plot.set_ylim(bottom=0)
        plot.legend(frameon=False)
        plot.grid(alpha=0.25)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train, look, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--game", default="lunar-lander")
    parser.add_argument("--capacity", type=int, default=CAPACITY, help="transitions; full within the warm-up")
    parser.add_argument("--dry", action="store_true", help="write nothing to results/")
    options, more = parser.parse_known_args()
    found = train(options.game, more, options.minutes, options.capacity)
    full = next((row["seconds"] for row in found["samples"] if row["steps"] >= options.capacity), None)
    warm_up_s = options.minutes * 60 * WARM_UP
    verdicts = judge(found, options.minutes)
    title = f"{options.minutes:g} minutes of icebox train {' '.join([options.game, *more])}, {found['steps']:,} steps"
    for name, verdict in verdicts.items():
        print(f"{name:14}{json.dumps(verdict)}")
    print(f"{title}; {len(found['checkpoint_s'])} checkpoints")
    print(f"the film was full after {full} s; the warm-up lasts {warm_up_s:.0f} s")
    if not options.dry:
        picture = RESULTS / "flat.png"
        draw(found, verdicts, options.minutes, title, picture)
        facts = {"what": title, "every_s": EVERY_S, "warm_up_s": warm_up_s, "film_full_s": full, "limit": LIMIT}
        print(f"written to {write('flat', {**facts, 'verdicts': verdicts, **found})} and {picture}")
    sound = full is not None and full <= warm_up_s and found["exit_code"] == 0
    sys.exit(not (sound and all(verdict["verdict"] == "flat" for verdict in verdicts.values())))


if __name__ == "__main__":
    main()
