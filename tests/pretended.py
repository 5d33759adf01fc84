"""A pretended checkout on a pretended machine, for the sh wrapper `icebox`: no pip, no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WRAPPER = Path(__file__).parent.parent / "icebox"
HASHED = "--require-hashes --no-deps --only-binary :all:"
TOOLS = "sh basename cat cksum cp date dirname find grep head mkdir mv readlink rm sed tail"

# An interpreter of version VERSION. What the wrapper computes with `python -c` is computed by the real one.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*print* | *print*version_info*) echo "VERSION" ;;
    *ensurepip*) exit "${NO_ENSUREPIP:-0}" ;;
    "-m venv "*)
        echo "venv ${0##*/}" >>"$CALLS"
        mkdir -p "$3/bin" && : >"$3/pyvenv.cfg" && cp "$FAKES/venv-python" "$3/bin/python"
        ;;
    *) exec "$REAL_PYTHON" -I -S "$@" ;;
esac
"""

# The environment's interpreter; its pip notes what it is asked for. $FOUND: pip's report on torch without a network.
VENV_PYTHON = """#!/bin/sh
case "$*" in
    *urlopen*) exit "${INDEX:-1}" ;;
    *print*version_info*) echo "${VENV_VERSION:-3.12}" ;;
    "-m pip --version") exit "${NO_PIP:-0}" ;;
    *" --dry-run "*"${FOUND_ONLY-}") [ -n "${FOUND-}" ] && cat "$FOUND" ;;
    *" --dry-run "*) exit 1 ;;
    "-m pip "*)
        echo "$*" | sed 's/-m //; s/ --progress-bar off//' >>"$CALLS"
        [ -z "${PIP_ERROR-}" ] || { echo "$PIP_ERROR"; exit 1; }
        sleep "${PIP_SECONDS:-0}"
        case "$*" in *" -e "*) cp "$FAKES/console" "${0%/*}/icebox" ;; esac
        ;;
    "-m pytest"*) echo "$PWD"; shift 2; for word; do echo "<$word>"; done ;;
    *) exec "$REAL_PYTHON" -I -S "$@" ;;
esac
"""

CONSOLE = """#!/bin/sh
for word; do echo "<$word>"; done
[ -z "${SHOW_COMMAND-}" ] || echo "$ICEBOX_COMMAND"
exit "${EXIT_CODE:-0}"
"""


class Machine:
    """A pretended machine: the programs on its PATH, and a checkout in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.fakes = folder / "fakes"
        self.home = folder / "home"
        self.checkout = folder / "ice box"
        self.calls_file = folder / "calls"
        for made in (self.bin, self.fakes, self.home, self.checkout):
            made.mkdir()
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.script(self.bin / "uname", "#!/bin/sh\ncase $1 in -s) echo Linux ;; *) echo Linux x86_64 ;; esac\n")
        quick = f'#!/bin/sh\n[ "$1" != 0.1 ] || set -- 0.01\nexec {shutil.which("sleep")} "$@"\n'  # the wrapper's ticks
        self.script(self.bin / "sleep", quick)
        self.script(self.fakes / "venv-python", VENV_PYTHON)
        self.script(self.fakes / "console", CONSOLE)
        self.script(self.checkout / "icebox", WRAPPER.read_text())
        (self.checkout / "pyproject.toml").write_text('dependencies = [\n    "torch>=2.11,<2.14", # a reason\n]\n')
        (self.checkout / ".ci").mkdir()
        for name, pin in {"requirements": "numpy==2.4.6", "torch": "torch==2.13.0", "cuda": "triton==3.7.1"}.items():
            (self.checkout / ".ci" / f"{name}.txt").write_text(f"# head\n{pin} \\\n    --hash=sha256:{'0' * 64}\n")
        self.venv = self.checkout / ".venv"

    @staticmethod
    def script(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str, version: str) -> None:
        """Put an interpreter on the PATH."""
        self.script(self.bin / name, PYTHON.replace("VERSION", version))

    def environment(self, **changes: object) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "FAKES": str(self.fakes),
            "CALLS": str(self.calls_file),
            "REAL_PYTHON": sys.executable,
            "ICEBOX_TORCH": "skip",
        } | {name: str(value) for name, value in changes.items()}

    def start(self, *words: str, command: Path | None = None, **changes: object) -> subprocess.Popen[str]:
        """Start the wrapper in its own process group, from another working directory."""
        return subprocess.Popen(
            [command or self.checkout / "icebox", *words],
            cwd=self.home,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, command: Path | None = None, **changes: object) -> tuple[int, str, str]:
        process = self.start(*words, command=command, **changes)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        """What was asked of `python -m venv` and of pip since the last look, the checkout's path as a dot."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [re.sub(r" (-e|-r) /.*?/(ice box|moved)", r" \1 .", line).replace(HASHED, "HASHED") for line in lines]


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within 20 s")
