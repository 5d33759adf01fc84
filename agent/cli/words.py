"""What is said to the user: command lines to copy, in the way in which this user called the program, and complaints."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress


def command(*words: object) -> str:
    """Return `icebox WORDS...` quoted for the shell; the wrapper ./icebox says in ICEBOX_COMMAND how it was called."""
    return shlex.join([os.environ.get("ICEBOX_COMMAND") or "icebox", *map(str, words)])


def tell(text: str) -> None:
    """Print a text on stderr, if anybody still reads it: a terminal that was closed must not fail a run."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print every line of a text on stderr behind the program's name."""
    for line in text.splitlines():
        tell(f"icebox: {line}")
