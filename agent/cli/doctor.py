"""`icebox doctor`: the machine, the packages, what is missing, and how fast game and learner run here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from agent.cli.extras import EXTRAS, is_installed, remedy
from agent.cli.settings import load_settings
from agent.cli.tables import print_json, table
from agent.telemetry.provenance import git_commit, host_facts, versions

GAME = "lunar-lander"  # what `icebox demo` plays
GIB = 2**30
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
        "game": _guarded(lambda: game_steps_per_s(seconds)),
        "learner": {
            device["name"]: _guarded(lambda where=device["torch"]: updates_per_s(where, seconds))
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


def _guarded(measure: Callable[[], float]) -> float | str:
    """A measurement, or the sentence that says why there is none: doctor reports what is broken, it does not break."""
    try:
        return round(measure(), 1)
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


def updates_per_s(device: str, seconds: float) -> float:
    """Updates per second of a 256x256 MLP by double DQN with Huber loss and Adam, batches of 128.

    On the CPU with one thread: more do not help a network this small, and stall when the cores are shared.
    """
    import torch
    from torch import nn

    threads = torch.get_num_threads()

    def network() -> nn.Module:
        layers = nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
        return nn.Sequential(*layers).to(device)

    online, target = network(), network()
    optimizer = torch.optim.Adam(online.parameters())
    s_tm1, s_t = torch.zeros(2, 128, 8, device=device)
    a_tm1 = torch.zeros(128, 1, dtype=torch.int64, device=device)
    r_t, discount_t = torch.ones(2, 128, 1, device=device)

    def update() -> None:
        with torch.no_grad():
            best = online(s_t).argmax(1, keepdim=True)
            goal = r_t + discount_t * target(s_t).gather(1, best)
        loss = nn.functional.smooth_l1_loss(online(s_tm1).gather(1, a_tm1), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    settle = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    torch.set_num_threads(1)
    try:
        return _rate(update, seconds, settle)
    finally:
        torch.set_num_threads(threads)


def _rate(act: Callable[[], None], seconds: float, settle: Callable[[], Any] = lambda: None) -> float:
    """Calls per second over about `seconds`, after a few to warm up; `settle` waits for what was launched."""
    for _ in range(5):
        act()
    settle()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            act()
        calls += 10
        settle()
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
    rows.append((f"speed {GAME}", _speed(found["speed"]["game"], "environment steps/s")))
    rows += [
        (f"speed {name.split()[0]}", _speed(rate, "updates/s (256x256 MLP, batch 128, one thread)"))
        for name, rate in found["speed"]["learner"].items()
    ]
    return table(("WHAT", "FOUND"), rows)


def _speed(rate: float | str, unit: str) -> str:
    return rate if isinstance(rate, str) else f"{rate:,.0f} {unit}"
