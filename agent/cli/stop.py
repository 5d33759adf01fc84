"""How a run is asked to end, and how it is ended when it does not come to its end by itself."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import psutil

PATIENCE_S = 10.0  # that a run has from the first signal to its end, beside what writing its checkpoint takes
NO_ANSWER_S = 5.0  # of them, before what it waits for is left where it stands
TICK_S = 0.1
_ROOT = Path(__file__).resolve().parents[2]
_GAMES, _COMPILER = str(_ROOT / "envs") + os.sep, (str(_ROOT / "agent" / "learner.py"), "settle")
_entered: list[Stop] = []  # for a forked child to undo
_heeded: list[bool] = []


class Left(BaseException):
    """Raised in the midst of a game or the compiler that does not answer a run which was asked to end."""


class Stop:
    """A first Ctrl-C, SIGTERM or SIGHUP asks the run to finish its step and save; a second one quits at once.

    What does not answer for NO_ANSWER_S after the first is left (`Left`, where `leaving` allows it), and after
    PATIENCE_S the process is ended: its checkpoints survive that at any moment. A thread hears the signals, for the
    main thread hears none while it writes or computes. Without being entered it only holds what it is told.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.overdue = False  # NO_ANSWER_S have passed
        self.safe = False  # all that was played is in a checkpoint
        self.newest: str | None = None  # the newest checkpoint, in words
        self.resume = "icebox resume"
        self._heard = False  # a signal, and not a viewer, has set `signal`
        self._may_leave, self._writing = False, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        _heed_forks()
        _entered.append(self)
        self._sender, self._receiver = socket.socketpair()
        self._sender.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        asking = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # by nohup
            asking.append(signal.SIGHUP)  # a closed terminal or a dropped connection
        for number in asking:
            self._before[number] = signal.signal(number, self._ask)
        self._asking = set(self._before)
        if hasattr(signal, "SIGALRM"):
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._leave)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup)
        _entered.remove(self)
        self._sender.send(bytes([0]))
        self._thread.join()
        self._sender.close()
        self._receiver.close()

    @property
    def terminated(self) -> bool:
        """Whether nobody at a keyboard asked: a supervisor that ends a run does not call that a failure."""
        return self.signal is not None and self.signal != signal.SIGINT

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let the time inside not count: however long a checkpoint takes to write, it is written."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Allow `Left` inside."""
        self._may_leave = True
        try:
            yield
        finally:
            self._may_leave = False

    # --- in the main thread ------------------------------------------------------------------------------------------

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self._first(number)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """Leave a game or the compiler, nothing else: between any other two lines the run may be half way."""
        while self._may_leave and frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(_GAMES) or (code.co_filename, code.co_name) == _COMPILER:
                raise Left
            frame = frame.f_back

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _first(self, number: int) -> None:
        self._heard, self.signal = True, number

    def _listen(self) -> None:
        asked, left_s, now, knock = 0, PATIENCE_S, time.monotonic(), 0.0
        while True:
            ready = select.select([self._receiver], [], [], TICK_S if asked else None)[0]
            before, now = now, time.monotonic()
            if asked and not self._writing:
                left_s -= min(now - before, 1.0)  # a machine that was suspended has not waited
                if left_s < PATIENCE_S - NO_ANSWER_S:
                    self.overdue = True
                    if now >= knock and not self.safe and hasattr(signal, "pthread_kill"):
                        knock = now + TICK_S  # this thread hears it, too
                        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
                if left_s < 0.0:
                    self._end()
            for number in self._receiver.recv(64) if ready else b"":
                if number == 0:
                    return
                if number in self._asking:
                    asked += 1
                    if asked > 1 or not (self.signal is None or self._heard):
                        self._quit(number)
                    self._first(number)
                    if number == signal.SIGINT:  # said at once: a step may take long, above all one that compiles
                        _say("\nstopping after this step (asked once more, it quits without saving)")

    def _end(self) -> None:
        """End a process that does not end, and say what it leaves behind."""
        if self.safe:  # something hangs that is to be closed
            self._quit(self.signal, 130 if self.signal == signal.SIGINT else 0)
        found = f"{self.newest} is safe. Go on with: {self.resume}" if self.newest else "It has no checkpoint yet."
        _say(f"icebox: the run did not end within {PATIENCE_S:.0f} s and is ended without a last checkpoint. {found}")
        self._quit(self.signal)

    def _quit(self, number: int, code: int | None = None) -> None:
        """End the process and its children; checkpoints survive this at any moment, so nothing needs tidying."""
        with suppress(psutil.Error):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
        os._exit(128 + number if code is None else code)


def _say(sentence: str) -> None:
    with suppress(OSError):
        os.write(2, f"{sentence}\n".encode())


def _heed_forks() -> None:
    if not _heeded and hasattr(os, "register_at_fork"):
        _heeded.append(True)
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    """A game's process is no training: a signal ends it, and does not count as its parent's."""
    for stop in _entered:
        with suppress(ValueError):  # forked by another thread
            signal.set_wakeup_fd(-1)
            for number in stop._before:
                signal.signal(number, signal.SIG_DFL)
    _entered.clear()
