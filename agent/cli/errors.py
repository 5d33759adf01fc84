"""How the command line says no: usage errors, tyro's boxes as one sentence, and what becomes of an exception."""

from __future__ import annotations

import contextlib
import dis
import errno
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from agent.cli.words import complain

Parsed = TypeVar("Parsed")

USAGE, RUNTIME, BUG, MACHINE, INTERRUPTED, PIPE = 2, 1, 70, 75, 130, 141
# What torch, CUDA's libraries and the system say, in no class of their own.
_SAID = {
    "host": ("DefaultCPUAllocator", "Cannot allocate memory"),
    "GPU": ("out of memory", "STATUS_ALLOC_FAILED"),
    "failed": ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "cuDNN error", "CUBLAS_STATUS", "device-side assert"),
}
_OURS = tuple(str(Path(__file__).resolve().parents[2] / package) + os.sep for package in ("agent", "envs"))
OUT_OF = {"host": "Out of memory on the host", "GPU": "Out of memory on the GPU", "failed": "The GPU has failed"}
_ELSEWHERE = {
    "host": "Close other programs, or use a larger machine.",
    "GPU": "Close other programs that use it, or take --device cpu.",
    "failed": "Try again; if it comes back, nvidia-smi and the system's log say more; --device cpu does without it.",
}


class UsageError(ValueError):
    """What the user asked for cannot be done as written. The message is for the user; the exit code is 2."""


class MachineError(RuntimeError):
    """The machine cannot go on as asked: memory is out, or the GPU has failed. The message has a remedy; code 75."""


def trouble(error: BaseException) -> str | None:
    """Return what an error says of the machine: "host" or "GPU" is out of memory, the GPU has "failed", or None."""
    if isinstance(error, MemoryError):
        return "host"
    torch = sys.modules.get("torch")  # too slow to import for this; what is not imported has raised nothing
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    if isinstance(error, OSError):
        return "host" if error.errno == errno.ENOMEM else None
    if not isinstance(error, RuntimeError) or _raised_by_us(error):
        return None
    return next((kind for kind, words in _SAID.items() if any(word in str(error) for word in words)), None)


def parse(kind: type[Parsed], argv: Sequence[str], *, prog: str, **options: Any) -> Parsed:
    """Parse `argv` into `kind` with tyro; raise UsageError with one sentence where tyro would draw a box.

    `--help` prints and raises SystemExit(0), as usual. `options` go to `tyro.cli`.
    """
    said = io.StringIO()
    try:
        with _wide_terminal(wanted=not {"-h", "--help"} & set(argv)), contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(argv), prog=prog, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise UsageError(f"{_sentence(said.getvalue())} '{prog} --help' lists all flags.")


@contextlib.contextmanager
def _wide_terminal(wanted: bool) -> Iterator[None]:
    """Keep tyro from wrapping an error in the middle of a word that is longer than the terminal is wide."""
    columns = os.environ.get("COLUMNS")
    if wanted:
        os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if wanted:
            os.environ.pop("COLUMNS")
            if columns is not None:
                os.environ["COLUMNS"] = columns


def _sentence(box: str) -> str:
    """Tyro's error box as one sentence in our words; what is not known here keeps tyro's."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)  # a terminal gets colours
    rows = [line.strip(" │") for line in plain.splitlines()[1:]]  # the first line is a title
    rows = [row for row in rows if row.strip("─-╭╮╰╯")]
    head = rows[0] if rows else plain.strip()
    if match := re.fullmatch(r"Unrecognized options: (.*)", head):
        words = match[1].split(", ")
        flag = next((word for word in words if word.startswith("-")), None)
        if flag is None:
            return f"nothing is known to do with '{words[0]}'."
        near = next((row.split(",")[0].split()[0] for row in rows[1:] if row.startswith("--")), None)
        return f"unknown flag {flag.split('=')[0]}." + (f" Did you mean {near}?" if near else "")
    if match := re.match(r"Missing value for argument '([^']*)'", head):
        return f"{match[1]} needs a value."
    if match := re.fullmatch(r"invalid choice ('.*') for argument '([^']*)'\. Expected one of \((.*)\)\.", head):
        return f"{match[2]}: must be one of {match[3].replace(chr(39), '').rstrip(',')}, got {match[1]}."
    if match := re.fullmatch(r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", head):
        return f"{match[1]}: must be a whole number, got {match[2]}."
    if match := re.fullmatch(r"Error parsing (\S+): could not convert string to float: (.*)", head):
        return f"{match[1]}: must be a number, got {match[2]}."
    if head.startswith("Missing from"):
        return f"{rows[1].split()[0]} is missing."
    return head.rstrip(".") + "."


def report(error: BaseException) -> int:
    """Say on stderr what went wrong and return the exit code; a traceback only with ICEBOX_TRACEBACK=1.

    2: the input was wrong. 1: it failed on the way. 70: a bug; the traceback is kept in a file. 75: no memory, or the
    GPU failed. 130: Ctrl-C. 141: the reader of our output is gone.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return PIPE
    if os.environ.get("ICEBOX_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, MachineError):
        return _say(str(error), MACHINE)
    if (kind := trouble(error)) is not None:
        return _say(f"{OUT_OF[kind]} ({first_line(error)}). {_ELSEWHERE[kind]}", MACHINE)
    if isinstance(error, (ValueError, FileNotFoundError)) and _raised_by_us(error):
        return _say(str(error), USAGE)
    if isinstance(error, RuntimeError) and _raised_by_us(error):
        return _say(str(error), RUNTIME)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", RUNTIME)
    with tempfile.NamedTemporaryFile("w", prefix="icebox-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return _say(f"this is a bug in icebox ({type(error).__name__}: {error}). The traceback is in {file.name}.", BUG)


def first_line(error: BaseException) -> str:
    """Return what an error says first, shortened: torch explains over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


def _say(sentence: str, code: int) -> int:
    complain(sentence)
    return code


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` in agent/ or envs/ made this error: then its message is a sentence for the user.

    A ValueError of numpy's also surfaces in our frame, but not at a raise; it is a bug and needs its traceback.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    ours = str(Path(code.co_filename).resolve()).startswith(_OURS)
    return ours and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _reader_is_gone() -> bool:
    """Whether stdout is what broke; if so, stdout is closed so that Python's exit does not complain again."""
    try:
        print(flush=True)  # an empty write would not notice
        return False
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
