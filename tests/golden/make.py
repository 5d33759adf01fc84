"""Makes one small file of every format that this version writes, with what it must answer in all later versions.

    python tests/golden/make.py            # before a release; writes tests/golden/v<version>

The folder of a released version is never written again: what a later version reads must be what users have.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # tests import each other by name

from golden import answers  # noqa: E402
from taught import play_cartpole  # noqa: E402

from agent.cli import freeze  # noqa: E402
from agent.cli.main import main as icebox  # noqa: E402
from agent.telemetry.run_folder import RunFolder, find  # noqa: E402

COMMON: dict[str, Any] = {
    "steps": 400,
    "device": "cpu",
    "threads": 1,
    "game": {"num_games": 4},
    "replay": {"capacity": 300},
    "evaluation": {"interval_steps": 200, "episodes": 3, "num_games": 3},
    "checkpoint": {"interval_steps": 0, "keep": 1},
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "cartpole": ("cartpole", {
        "replay": {"capacity": 300, "n_step": 3, "priority_exponent": 0.6},
        "network": {"hidden": [16], "dueling": True, "distribution": "quantile", "quantiles": 8},
        "learner": {"learning_starts": 100, "samples_per_insert": 4, "learning_rate": 1e-3, "target_interval": 20},
    }),
    "minatar": ("minatar/breakout", {
        "game": {"num_games": 2},
        "replay": {"capacity": 48, "n_step": 3},
        "network": {"hidden": [2]},
        "learner": {"learning_starts": 100, "samples_per_insert": 4},
    }),
    "ppo": ("cartpole", {
        "algo": "ppo",
        "sb3": {"ppo": {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}},
    }),
    "dqn-sb3": ("cartpole", {
        "algo": "dqn-sb3",
        "sb3": {"dqn-sb3": {
            "learning_starts": 100, "batch_size": 8, "buffer_size": 320, "policy_kwargs": {"net_arch": [8]},
        }},
    }),
}  # fmt: skip
# Of a run only what an older version's user would have and a later one reads; no logs of TensorBoard's.
KEPT = ("config.yaml", "meta.json", "monitor.csv", "evaluations.npz", "command.txt", "checkpoints", "best")
LARGEST_BYTES, LARGEST_SUM_BYTES = 100_000, 600_000


def train(scratch: Path, name: str) -> Path:
    """Train one of the runs and return its folder."""
    game, changes = RUNS[name]
    config = scratch / f"{name}.yaml"
    config.write_text(json.dumps(COMMON | changes))  # JSON is YAML
    runs = scratch / f"runs-{name}"
    if code := icebox(["train", game, "--config", str(config), "--runs-dir", str(runs), "--quiet"]):
        raise SystemExit(f"{name}: icebox train ended with {code}")
    return find(runs, "latest")


def keep(run: Path, to: Path) -> None:
    """Copy of a run what is kept, without what names this machine."""
    to.mkdir(parents=True)
    for name in KEPT:
        if (run / name).is_dir():
            shutil.copytree(run / name, to / name)
        else:
            shutil.copyfile(run / name, to / name)
    folder = RunFolder.open(to)
    folder.note(host={}, process={"pid": 1, "host": "golden", "started": 0}, git=None)
    (to / "command.txt").write_text("icebox train\n")


def make(to: Path) -> None:
    """Write every format below `to`, then `expected.json` and `expected.npz` with what they answer today."""
    freeze.STATES = 1_000  # to calibrate on: what is kept is the format, not a good policy
    scratch = Path(tempfile.mkdtemp(prefix="golden-"))
    runs = {name: train(scratch, name) for name in RUNS}
    for name, run in runs.items():
        keep(run, to / "runs" / name)
    for precision in ("float32", "int8"):
        flags = ("--precision", precision, "--margin", "9", "--episodes", "8", "--most-episodes", "8")
        icebox(["freeze", str(runs["cartpole"]), "--out", str(to / "frozen" / precision), *flags])
        (to / "frozen" / precision / "measured.json").unlink()  # this machine's clock
    icebox(["record", str(runs["minatar"]), "--episodes", "1", "--out", str(scratch / "episodes")])
    (to / "episodes").mkdir()
    for path in scratch.glob("episodes/*"):
        if path.suffix in (".ep", ".json"):
            shutil.copyfile(path, to / "episodes" / path.name)
    play_cartpole(to / "demonstrations", 2)
    shutil.rmtree(scratch)
    arrays: dict[str, np.ndarray] = {}
    hashes: dict[str, dict[str, str]] = {}
    for thing, (found, hashed) in ask(to).items():
        arrays |= {f"{thing}:{name}": value for name, value in found.items()}
        hashes[thing] = hashed
    np.savez_compressed(to / "expected.npz", **arrays)
    files = {str(path.relative_to(to)): path for path in sorted(to.rglob("*")) if path.is_file()}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    (to / "expected.json").write_text(json.dumps({"hashes": hashes, "files": digests}, indent=1, sort_keys=True) + "\n")


def ask(folder: Path) -> dict[str, tuple[answers.Answers, dict[str, str]]]:
    """Return what everything in a version's folder answers, by the name of what is asked."""
    found = {f"runs/{name}": answers.of_run(folder / "runs" / name) for name in RUNS}
    for precision in ("float32", "int8"):
        for runtime in ("onnx", "c"):
            found[f"frozen/{precision}/{runtime}"] = answers.of_artefact(folder / "frozen" / precision, runtime)
    found["episodes"] = answers.of_episodes(folder / "episodes")
    found["demonstrations"] = answers.of_demonstrations(folder / "demonstrations")
    return found


def main() -> None:
    """Make this version's folder, once."""
    final = HERE / f"v{version('icebox-rl')}"
    if final.exists():
        raise SystemExit(f"{final} exists. A released version's files are never made again; raise the version first.")
    temporary = HERE / ".making"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    make(temporary)
    sizes = {path: path.stat().st_size for path in temporary.rglob("*") if path.is_file()}
    for path, size in sizes.items():
        if size > LARGEST_BYTES:
            raise SystemExit(f"{path} has {size:,} bytes, more than {LARGEST_BYTES:,}.")
    if sum(sizes.values()) > LARGEST_SUM_BYTES:
        raise SystemExit(f"{temporary}: {sum(sizes.values()):,} bytes together, more than {LARGEST_SUM_BYTES:,}.")
    os.rename(temporary, final)
    print(f"{final}: {len(sizes)} files, {sum(sizes.values()):,} bytes")


if __name__ == "__main__":
    main()
