"""Microcontrollers for real: a policy in C, cross-compiled and run on QEMU's model of a Cortex-M board."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).parent / "emit" / "board"
COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
INSTALL = "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
FLAGS = ("-std=c99", "-O2", "-ffp-contract=fast", "-ffunction-sections", "-fdata-sections", "-mthumb", "-nostartfiles")
DECISIONS = 8  # that are timed; the timer has 24 bits, which a large policy would fill with more
YARDSTICK = 2_000_000  # instructions that main.c counts ticks for


@dataclass(frozen=True)
class Board:
    """A board that QEMU models, and where its memories lie."""

    machine: str
    flags: tuple[str, ...]
    memories: dict[str, object]


BOARDS = {
    "cortex-m4": Board(
        "mps2-an386",
        ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        {
            "code": "0x00000000",
            "code_bytes": "512K",
            "constants": "0x00080000",
            "constants_bytes": "3584K",
            "ram": "0x20000000",
            "ram_bytes": "4M",
            "stack_bytes": 16384,
        },
    ),
    "cortex-m55": Board(
        "mps3-an547",
        ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
        {
            "code": "0x00000000",
            "code_bytes": "512K",
            "constants": "0x01000000",
            "constants_bytes": "2M",
            "ram": "0x21000000",
            "ram_bytes": "4M",
            "stack_bytes": 16384,
        },
    ),
}


@dataclass(frozen=True, eq=False)
class BoardReport:
    """What a policy takes of a board and does on it."""

    board: str
    machine: str  # QEMU's name of it
    flash_bytes: int  # of a program that does nothing but decide: code, weights, the compiler's own helpers
    ram_bytes: int  # static: arena, frames, one frame and the outputs
    stack_bytes: int  # deepest use of the stack by a decision
    instructions_per_decision: int
    self_test_failures: int
    outputs: np.ndarray  # i32 or f32 [N, outputs], for the states that were given

    def figures(self) -> dict[str, str | int]:
        """Return all but the outputs, ready for JSON."""
        return {name: value for name, value in vars(self).items() if name != "outputs"}


def missing_tools() -> list[str]:
    """Return the programs that boards need and that are not installed."""
    return [tool for tool in (COMPILER, SIZE, EMULATOR) if shutil.which(tool) is None]


def run_on_board(
    files: Mapping[str, bytes], board: str, states: np.ndarray | None = None, *, seconds: float = 120
) -> BoardReport:
    """Compile policy.c and policy.h for a board, run their self-test and `states` [N, ...] on it and measure it.

    ValueError when a tool is missing, when the policy does not fit the board, or when it takes more than `seconds`.
    """
    if board not in BOARDS:
        raise ValueError(f"There is no board {board!r}; there are {', '.join(BOARDS)}.")
    if missing := missing_tools():
        raise ValueError(f"Running on a board needs {' and '.join(missing)}: {INSTALL}.")
    target = BOARDS[board]
    header = files["policy.h"].decode()
    dtype = np.uint8 if "typedef uint8_t policy_input;" in header else np.float32
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("policy.c", "policy.h"):
            (folder / name).write_bytes(files[name])
        (folder / "board.ld").write_text(_filled("board.ld", target.memories), encoding="utf-8")
        (folder / "main.c").write_text(_filled("main.c", {"turns": DECISIONS}), encoding="utf-8")
        (folder / "smallest.c").write_bytes((SOURCES / "smallest.c").read_bytes())
        (folder / "states.bin").write_bytes(b"" if states is None else np.ascontiguousarray(states, dtype).tobytes())
        _compile(folder, board, "main", "-DPOLICY_SELF_TEST")
        _compile(folder, board, "smallest")
        sections = _sections(folder)
        _emulate(folder, target.machine, seconds)
        failures, yardstick, ticks, empty, stack = np.fromfile(folder / "report.bin", "<u4").tolist()
        outputs = np.fromfile(folder / "outputs.bin", "<i4" if "typedef int32_t policy_output;" in header else "<f4")
    (columns,) = re.findall(r"#define POLICY_OUTPUTS (\d+)", header)
    return BoardReport(
        board,
        target.machine,
        flash_bytes=sum(sections.get(name, 0) for name in (".text", ".rodata", ".ARM.exidx", ".data")),
        ram_bytes=sections.get(".data", 0) + sections.get(".bss", 0),
        stack_bytes=stack,
        instructions_per_decision=round((ticks - empty) * YARDSTICK / yardstick / DECISIONS),
        self_test_failures=failures,
        outputs=outputs.reshape(-1, int(columns)),
    )


def _filled(name: str, words: Mapping[str, object]) -> str:
    text = (SOURCES / name).read_text(encoding="utf-8")
    return re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), text)


def _compile(folder: Path, board: str, program: str, *flags: str) -> None:
    command = [COMPILER, *FLAGS, *BOARDS[board].flags, *flags, f"{program}.c", "policy.c"]
    command += ["-T", "board.ld", "-Wl,--gc-sections", "-lm", "-o", f"{program}.elf"]
    done = _run(command, folder, 300)
    if done.returncode:
        overflowed = re.search(r"region `\w+' overflowed by (\d+) bytes", done.stderr)
        if overflowed:
            raise ValueError(f"The policy is {overflowed[1]} bytes too large for the memory of {board}.")
        raise ValueError(f"{COMPILER} could not compile the policy: {done.stderr.strip()[:500]}")


def _sections(folder: Path) -> dict[str, int]:
    done = _run([SIZE, "-A", "smallest.elf"], folder, 60)
    return {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", done.stdout, re.MULTILINE)}


def _emulate(folder: Path, machine: str, seconds: float) -> None:
    command = [EMULATOR, "-M", machine, "-display", "none", "-serial", "none", "-monitor", "none"]
    # The guest reads and writes files in this folder; every instruction takes one nanosecond of its time.
    command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0", "-kernel", "main.elf"]
    try:
        done = _run(command, folder, seconds)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"The policy did not finish on {machine} within {seconds:g} s: pass fewer states.") from error
    if not (folder / "report.bin").exists():
        raise ValueError(f"The policy stopped with a fault on {machine}: {done.stderr.strip()[:500]}")


def _run(command: Sequence[str], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
    )
