#!/usr/bin/env python3
"""Writes the hash-locked requirements beside it, which `./icebox test` installs from. The one command to refresh them:

    python3 .ci/lock.py              # after a change of pyproject.toml: what is pinned stays where it still fits
    python3 .ci/lock.py --upgrade    # the newest versions that pyproject.toml allows; look at the diff, run the suite

uv resolves pyproject.toml with its dev extra for every platform, with the hashes of all files that PyPI serves for each
version. The answer is split in three, because which PyTorch is installed depends on the machine:

    requirements.txt    everything but PyTorch
    torch.txt           PyTorch: PyPI's files, and the CPU builds that only download.pytorch.org serves
    cuda.txt            NVIDIA's libraries, which PyPI's PyTorch for Linux needs besides
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
UV = "uv==0.13.9"
CPU_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
CPU_FILE = re.compile(  # of the platforms and Pythons that the wrapper's lock covers, and Linux on Arm
    r"#sha256=([0-9a-f]{64})\"[^>]*>(torch-VERSION\+cpu-cp31[123]-cp31[123]-manylinux_[0-9_]+_(?:x86_64|aarch64)\.whl)<"
)
CUDA = re.compile(r"nvidia-|cuda-|triton==")
FILES = {
    "requirements.txt": "What `./icebox test` installs, PyTorch apart.",
    "torch.txt": "PyTorch, whichever build a machine takes.",
    "cuda.txt": "What PyPI's PyTorch for Linux needs besides; not installed with a CPU build.",
}


def resolve(pinned: str, options: list[str]) -> str:
    """Return uv's lock of pyproject.toml, which keeps what is `pinned` unless it is told to upgrade."""
    with tempfile.TemporaryDirectory() as folder:
        uv = shutil.which("uv")
        if uv is None:
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, UV], check=True)
            uv = f"{folder}/bin/uv"
        lock = Path(folder, "lock.txt")
        lock.write_text(pinned)
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--extra", "dev", "--output-file", str(lock), *options, "pyproject.toml"]
        subprocess.run(command, cwd=HERE.parent, check=True)
        return lock.read_text()


def entries(lock: str) -> list[str]:
    """Return the requirements of a lock, each with its hashes and the comment that says whose it is."""
    return re.findall(r"^[a-z0-9].*\n(?:[ ]+.*\n)*", lock, flags=re.MULTILINE)


def cpu_builds(version: str, known: str) -> dict[str, str]:
    """Return the hash of each CPU build of PyTorch by file name: from its index, else those `known` to torch.txt."""
    try:
        with urllib.request.urlopen(CPU_INDEX, timeout=20) as answer:
            page = answer.read().decode().replace("%2B", "+")
        found = re.findall(CPU_FILE.pattern.replace("VERSION", re.escape(version)), page)
    except OSError as error:
        found = re.findall(rf"^# ([0-9a-f]{{64}})  (torch-{re.escape(version)}\+cpu-.*)$", known, flags=re.MULTILINE)
        print(f"{CPU_INDEX} does not answer ({error}): keeping the {len(found)} hashes of torch.txt.", file=sys.stderr)
    if not found:
        sys.exit(f"No hash of a CPU build of PyTorch {version} is known: run this where {CPU_INDEX} can be reached.")
    return {name: digest for digest, name in sorted(found, key=lambda pair: pair[1])}


def main() -> None:
    """Resolve, split, add the CPU builds, write."""
    old = {name: (HERE / name).read_text() if (HERE / name).exists() else "" for name in FILES}
    found = entries(resolve("".join("".join(entries(text)) for text in old.values()), sys.argv[1:]))
    new: dict[str, list[str]] = {name: [] for name in FILES}
    for entry in found:
        new["torch.txt" if entry.startswith("torch==") else "cuda.txt" if CUDA.match(entry) else "requirements.txt"].append(entry)
    (torch,) = new["torch.txt"]
    head, *rest = torch.splitlines(keepends=True)
    builds = cpu_builds(re.findall(r"==([^ ;]+)", head)[0], old["torch.txt"])
    added = (digest for digest in builds.values() if digest not in "".join(rest))  # what is pinned may keep its own
    new["torch.txt"] = [head, *(f"    --hash=sha256:{digest} \\\n" for digest in added), *rest]
    notes = [f"# {digest}  {name}\n" for name, digest in builds.items()]
    for name, what in FILES.items():
        lines = [f"# {what} Written by .ci/lock.py: do not edit.\n"]
        if name == "torch.txt":
            lines += [f"# Not on PyPI but on {CPU_INDEX}:\n", *notes]
        (HERE / name).write_text("".join([*lines, *new[name]]))


if __name__ == "__main__":
    main()
