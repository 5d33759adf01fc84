"""The host's C compiler: a policy in C becomes a shared library."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
# -ffp-contract: a product and its sum rounded once, which ISO mode of GCC would leave out.
FLAGS = ("-std=c99", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-DPOLICY_SELF_TEST")
NATIVE = "-march=native"  # left out where the compiler does not know it
LIBRARIES = ("-lm",)
SECONDS = 300
INSTALL = "apt install gcc (Debian, Ubuntu, Raspberry Pi OS) or xcode-select --install (macOS)"


def compiler() -> str | None:
    """Return the path of a C compiler, or None."""
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def compile_shared(source: Path | Mapping[str, bytes], out: Path) -> Path:
    """Compile policy.c, of a folder or of `emit_c`, into the shared library `out` and return it.

    ValueError when there is no compiler, or with its words when it fails.
    """
    found = compiler()
    if found is None:
        raise ValueError(f"Without a C compiler the policy cannot be compiled: {INSTALL}.")
    with tempfile.TemporaryDirectory() as made:
        folder = source if isinstance(source, Path) else Path(made)
        if not isinstance(source, Path):
            for name, text in source.items():
                (folder / name).write_bytes(text)
        command = [found, *FLAGS, str(folder / "policy.c"), "-o", str(out), *LIBRARIES]
        done = _run([*command, NATIVE])
        if done.returncode:
            done = _run(command)
    if done.returncode:
        raise ValueError(f"{found} could not compile the policy: {done.stderr.strip()[:500]}")
    return out


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{command[0]} could not compile the policy: {error}") from error
