"""Where a run comes from: versions, commit, device and machine, as JSON values for `meta.json`."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = {
    "icebox": "icebox-rl",
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "stable-baselines3": "stable-baselines3",
    "sb3-contrib": "sb3-contrib",
    "ale-py": "ale-py",
    "minatar": "minatar",
}


def versions() -> dict[str, str | None]:
    """Return the versions of python and of the packages that decide a result; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """Return the commit of the source that runs, `-dirty` when tracked files were changed; None: not a checkout."""
    source = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        # Installed into an environment inside somebody's repository, the source has no commit of its own.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != source:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def host_facts() -> dict[str, Any]:
    """Return what the machine is: system, processor, cores, memory in GiB, names of its GPUs."""
    import torch  # only a run that trains asks for this; listing runs stays quick

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
