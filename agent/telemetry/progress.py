"""What a person sees while a run trains: one live line on a terminal, a line every 30 s elsewhere, and train.log."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TextIO

REDRAW_S = 0.1
LOG_S = 30.0
SHARES = {"act": "time/share_acting", "sim": "time/share_simulating", "learn": "time/share_learning"}


class Progress:
    """Shows steps of total, speed, remaining time, return, epsilon, loss and shares of time, as far as they are known.

    `stream` defaults to stderr, since stdout belongs to results. A stream that breaks (a closed terminal, a pipe
    without reader) is given up; the run and its log go on.
    """

    def __init__(
        self,
        game: str,
        total_steps: int,
        log: Path,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._game = game
        self._total_steps = total_steps
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._clock = clock
        self._log = log
        self._log_fails = False
        self._values: dict[str, float] = {}
        self._steps: int | None = None
        self._logged: int | None = None  # steps at the last logged line
        self._next_draw = self._next_log = -math.inf
        self._shown = 0  # cells that the live line takes
        self.said: deque[tuple[float, str]] = deque(maxlen=20)  # the newest sentences, with the time since 1970

    def update(self, steps: int, values: Mapping[str, float] | None = None) -> None:
        """Tell where the run stands, as often as wanted; `values` are numbers under their TensorBoard tags.

        A value stays until a newer one comes.
        """
        self._steps = steps
        if values:
            self._values.update(values)
        now = self._clock()
        if now >= self._next_log:
            self._next_log = now + LOG_S
            self._log_line()
        if self._live and now >= self._next_draw:
            self._next_draw = now + REDRAW_S
            self._draw()

    def say(self, text: str) -> None:
        """Print full lines, above the live line where there is one, and write them to the log with the time."""
        self.said.append((time.time(), text))
        self._record(text)
        self._erase()
        self._print(text + "\n")
        if self._live and self._steps is not None:
            self._draw()

    def close(self) -> None:
        """Show the last state and end the live line; a second call does nothing."""
        if self._steps is None:
            return
        if self._logged != self._steps:
            self._log_line()
        if self._live:
            self._draw()
            self._print("\n")
        self._steps, self._shown = None, 0

    def _fields(self) -> list[str]:
        """Return the parts of the line, the most important first."""
        steps, total = self._steps or 0, self._total_steps
        known = {tag: value for tag, value in self._values.items() if math.isfinite(value)}
        fields = [self._game, f"{steps:,}/{total:,}", f"{min(100, 100 * steps // total)}%"]
        if speed := known.get("time/steps_per_s", 0.0):
            fields.append(f"{speed:,.0f} steps/s" if speed >= 10 else f"{speed:.1f} steps/s")
            fields.append(f"ETA {_duration(max(0, total - steps) / speed)}")
        if (missed := known.get("realtime/missed")) is not None:
            fields.append(f"missed {missed:,.0f} of {known.get('realtime/deadlines', math.nan):,.0f}")
        if (score := known.get("rollout/ep_rew_mean")) is not None:
            fields.append(f"return {score:,.1f}")
        if (epsilon := known.get("rollout/exploration_rate")) is not None:
            fields.append(f"eps {epsilon:.2f}")
        if (loss := known.get("train/loss")) is not None:
            fields.append(f"loss {loss:.3g}")
        shares = [f"{word} {100 * known[tag]:.0f}%" for word, tag in SHARES.items() if tag in known]
        return fields + ([" ".join(shares)] if shares else [])

    def _log_line(self) -> None:
        self._logged = self._steps
        line = "  ".join(self._fields())
        self._record(line)
        if not self._live:
            self._print(line + "\n")

    def _draw(self) -> None:
        width = self._width() - 1  # some terminals wrap after their last column
        line = _fit(self._fields(), width)
        cells = _cells(line)
        self._print("\r" + line + " " * (min(self._shown, width) - cells))
        self._shown = cells

    def _erase(self) -> None:
        if self._shown:
            self._print("\r" + " " * self._shown + "\r")
            self._shown = 0

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError, AttributeError):
            return shutil.get_terminal_size().columns

    def _record(self, text: str) -> None:
        lines = [f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n" for line in text.splitlines()]
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                file.writelines(lines)
            self._log_fails = False
        except OSError as error:
            if not self._log_fails:
                self._print(f"train.log cannot be written, training goes on: {error}\n")
            self._log_fails = True

    def _print(self, text: str) -> None:
        if self._stream is None:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


def _duration(seconds: float) -> str:
    """0:17, 12:05, 3:04:05, 2d 03:04."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _cells(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "FW" else 1 for c in text)


def _fit(fields: list[str], width: int) -> str:
    """Join as many fields as fit, from the first on; shorten the name where the steps would not fit beside it."""
    name, counted, *others = fields
    while name and _cells(f"{name}  {counted}") > width:
        name = name[:-1]
    line = f"{name}  {counted}" if name else counted[:width]
    for field in others:
        if _cells(line) + 2 + _cells(field) > width:
            break
        line += "  " + field
    return line
