"""`icebox doctor`: the machine, the packages, what is missing, and how fast game and learner run here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import tyro

from agent.cli.extras import EXTRAS, is_installed, remedy
from agent.cli.settings import load_settings, merge
from agent.cli.tables import print_json, table
from agent.telemetry.provenance import git_commit, host_facts, versions

GAME = "lunar-lander"  # what `icebox demo` plays
WARM_UPS = 5  # updates before a clock starts
GIB = 2**30
Found = TypeVar("Found")
LITTLE_DISK_GIB = 2.0  # a run with a full replay of pixels and two checkpoints is about this large


@dataclass(frozen=True)
class Arguments:
    """Check this machine: devices, packages, missing extras, and the speed of game and learner (under 15 s)."""

    runs_dir: Path = Path("runs")
    """Where runs are kept; its disk is the one that is looked at."""
    seconds: float = 1.0
    """Seconds per measurement of speed."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of the report."""


def run(arguments: Arguments) -> int:
    """Print what was found; 0 also when extras are missing."""
    import torch

    found: dict[str, Any] = {"machine": _machine(arguments.runs_dir), "devices": _devices(torch)}
    found["versions"] = versions()
    found["commit"] = git_commit()
    found["missing"] = {extra: remedy(extra) for extra, module in EXTRAS.items() if not is_installed(module)}
    seconds = min(max(arguments.seconds, 0.05), 3.0)
    found["speed"] = {
        "game": _guarded(lambda: round(game_steps_per_s(seconds), 1)),
        "training": {
            device["name"]: _guarded(lambda where=device["torch"]: training(where, seconds))
            for device in found["devices"]
        },
    }
    if arguments.json:
        print_json(found)
    else:
        print(_report(found))
    return 0


def _machine(runs_dir: Path) -> dict[str, Any]:
    folder = next(path for path in (runs_dir.resolve(), *runs_dir.resolve().parents) if path.is_dir())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return host_facts() | {
        "usable_cores": usable,
        "memory_free_gib": round(psutil.virtual_memory().available / GIB, 1),
        "disk": str(folder),
        "disk_free_gib": round(shutil.disk_usage(folder).free / GIB, 1),
        "disk_writable": os.access(folder, os.W_OK),
    }


def _devices(torch: Any) -> list[dict[str, Any]]:
    devices = [{"name": "cpu", "torch": "cpu", "threads": torch.get_num_threads(), "memory_gib": None}]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        memory = round(facts.total_memory / GIB, 1)
        name = f"cuda:{index} {facts.name}"
        devices.append({"name": name, "torch": f"cuda:{index}", "threads": None, "memory_gib": memory})
    return devices


def _guarded(measure: Callable[[], Found]) -> Found | str:
    """A measurement, or the sentence that says why there is none: doctor reports what is broken, it does not break."""
    try:
        return measure()
    except Exception as error:  # whatever a broken package raises is the finding
        return f"not measured: {error}"


def game_steps_per_s(seconds: float) -> float:
    """Environment steps per second of GAME with its settings and random actions, over all copies."""
    import numpy as np

    from envs import make

    options = load_settings(GAME).game
    games = make.make_vector_env(
        GAME,
        options.num_games,
        0,
        vectorize=options.vectorize,
        threads=options.threads,
        atari=options.atari.model_dump(),
        minatar=options.minatar.model_dump(),
    )
    rng = np.random.default_rng(0)
    try:
        games.reset(0)

        def play() -> None:
            games.send(rng.integers(games.spec.num_actions, size=games.num_envs))
            games.recv()

        return _rate(play, seconds) * games.num_envs
    finally:
        games.close()


def training(device: str, seconds: float) -> dict[str, float]:
    """Return what training GAME does on a device, in figures of the dashboard: steps/s, updates/s, decision latency."""
    import torch

    from agent.cli.session import Session
    from agent.config import Settings
    from agent.telemetry.rates import Rates

    threads = torch.get_num_threads()
    # Eager: a compiled or captured update would take longer to make than all of this.
    changes = {"device": device.partition(":")[0], "learner": {"learning_starts": 0, "execution": "eager"}}
    session = Session(GAME, Settings.model_validate(merge(load_settings(GAME).model_dump(), changes)))
    try:
        session.games.reset(0)
        ticks = session.ticks()
        while session.learner.updates < WARM_UPS:
            next(ticks)
        rates = Rates(session.clock.steps, session.learner.updates)
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            rates.add(next(ticks))
        if session.device.type == "cuda":
            torch.cuda.synchronize()
        found = rates.take()
    finally:
        session.close()
        torch.set_num_threads(threads)
    shown = ("steps_per_s", "updates_per_s", "act_latency_p50", "act_latency_p99", "share_learning")
    return {name: round(found[f"time/{name}"], 3) for name in shown}


def _rate(act: Callable[[], None], seconds: float) -> float:
    """Calls per second over about `seconds`, after a few to warm up."""
    for _ in range(WARM_UPS):
        act()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            act()
        calls += 10
    return calls / (time.perf_counter() - start)


def _report(found: dict[str, Any]) -> str:
    machine, rows = found["machine"], []
    rows.append(("system", machine["system"]))
    rows.append(("processor", f"{machine['processor']}, {machine['usable_cores']} of {machine['cores']} cores usable"))
    rows.append(("memory", f"{machine['memory_free_gib']} of {machine['memory_gib']} GiB free"))
    low = " (little: a long run may fill it)" if machine["disk_free_gib"] < LITTLE_DISK_GIB else ""
    locked = "" if machine["disk_writable"] else " (not writable: use --runs-dir)"
    rows.append(("disk", f"{machine['disk_free_gib']} GiB free at {machine['disk']}{low}{locked}"))
    for device in found["devices"]:
        size = f"{device['threads']} threads" if device["threads"] else f"{device['memory_gib']} GiB"
        rows.append(("device", f"{device['name']}, {size}"))
    if len(found["devices"]) == 1:
        rows.append(("", "no CUDA device: training runs on the CPU"))
    rows += [(name, version or "not installed") for name, version in found["versions"].items()]
    rows.append(("commit", found["commit"] or "not a checkout"))
    rows += [(f"extra {extra}", f"missing; {command}") for extra, command in found["missing"].items()]
    game = found["speed"]["game"]
    rows.append((f"{GAME} alone", game if isinstance(game, str) else f"{game:,.0f} environment steps/s"))
    rows += [(f"training on {name.split()[0]}", _training(found)) for name, found in found["speed"]["training"].items()]
    return table(("WHAT", "FOUND"), rows)


def _training(found: dict[str, float] | str) -> str:
    if isinstance(found, str):
        return found
    return (
        f"{found['steps_per_s']:,.0f} steps/s with {found['updates_per_s']:,.0f} updates/s, "
        f"{found['share_learning']:.0%} of the time; a decision takes {found['act_latency_p50']:.2f} ms (99%: {found['act_latency_p99']:.2f})"
    )
