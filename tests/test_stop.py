"""Tests of agent/cli/stop.py: how a run is asked to end; what becomes of runs at every moment is in test_signals.py."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from agent.cli import stop as module
from agent.cli.stop import Left, Stop
from envs import spec

LIMIT_S = 120.0


def exit_code(act: Callable[[], object]) -> int:
    """How a fork of this process ends that does `act`; 99 where it comes to its end."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(number: int) -> None:
    """One signal only raises a flag that says which it was; afterwards handlers and threads are those from before."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)], threading.active_count()
    with pytest.raises(ZeroDivisionError), Stop() as stop:
        assert stop.signal is None and not stop.terminated
        signal.raise_signal(number)
        assert stop.signal == number and stop.terminated == (number == signal.SIGTERM)
        raise ZeroDivisionError
    assert ([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)], threading.active_count()) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs a signal for a terminal that is closed")
def test_nohup_is_heeded() -> None:
    """A run that was started to outlive its terminal does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that quits is a fork of this one")
@pytest.mark.parametrize(("first", "second", "code"), [("SIGINT", "SIGINT", 130), ("SIGINT", "SIGTERM", 143)])
def test_the_second_signal_quits_at_once(first: str, second: str, code: int) -> None:
    """After a first signal the second one ends the process with 128 + its number, in the middle of whatever it does."""

    def act() -> None:
        with Stop():
            signal.raise_signal(getattr(signal, first))
            signal.raise_signal(getattr(signal, second))
            time.sleep(LIMIT_S)

    assert exit_code(act) == code


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that quits is a fork of this one")
def test_a_signal_after_a_viewer_asked_is_the_second(capfd: pytest.CaptureFixture[str]) -> None:
    """A run that was asked to end on its page, and does not, is ended by the first Ctrl-C."""

    def act() -> None:
        with Stop() as stop:
            stop.signal = signal.SIGINT
            signal.raise_signal(signal.SIGTERM)
            time.sleep(LIMIT_S)

    assert exit_code(act) == 143


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that quits is a fork of this one")
@pytest.mark.parametrize(
    ("safe", "number", "code"), [(True, "SIGTERM", 0), (True, "SIGINT", 130), (False, "SIGTERM", 143)]
)
def test_a_run_that_does_not_end_is_ended(
    safe: bool, number: str, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After the patience the process ends: as asked where all is saved, else with 128 + the signal's number."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)

    def act() -> None:
        with Stop() as stop:
            stop.safe = safe
            signal.raise_signal(getattr(signal, number))
            time.sleep(LIMIT_S)

    assert exit_code(act) == code
    assert ("It has no checkpoint yet." in capfd.readouterr().err) != safe


def test_only_games_are_left_and_only_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer is left when it is a game's code, not ours, and not outside of `leaving`."""
    monkeypatch.setattr(module, "PATIENCE_S", 1e6)
    monkeypatch.setattr(module, "NO_ANSWER_S", 0.0)
    a_game = compile("def wait(until):\n    while not until(): pass", spec.__file__, "exec")
    exec(a_game, game := {})  # noqa: S102 - code that says it is of envs/
    with Stop() as stop:
        knocked = []
        leave = signal.getsignal(signal.SIGALRM)
        signal.signal(signal.SIGALRM, lambda *given: (knocked.append(1), leave(*given)))
        signal.raise_signal(signal.SIGTERM)
        end = time.monotonic() + LIMIT_S
        with stop.leaving():
            while len(knocked) < 3 and time.monotonic() < end:  # our code
                time.sleep(0.001)
        game["wait"](lambda: len(knocked) >= 6 or time.monotonic() > end)  # not allowed
        assert len(knocked) >= 6 and stop.overdue
        with pytest.raises(Left), stop.leaving():
            game["wait"](lambda: time.monotonic() > end)


def test_writing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a checkpoint takes to write, the process is not ended meanwhile."""
    monkeypatch.setattr(module, "PATIENCE_S", 1e6)
    monkeypatch.setattr(module, "NO_ANSWER_S", 0.0)
    with Stop() as stop:
        end = time.monotonic() + LIMIT_S
        with stop.writing():
            signal.raise_signal(signal.SIGTERM)
            for _ in range(5):
                time.sleep(module.TICK_S)
            assert not stop.overdue
        while not stop.overdue and time.monotonic() < end:
            time.sleep(0.001)
        assert stop.overdue


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what is tested is a fork")
def test_a_games_process_is_ended_by_a_signal_and_does_not_count() -> None:
    """A fork of a training dies of SIGTERM as any process does, and the training has not been asked anything."""
    with Stop() as stop:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"x")
            time.sleep(LIMIT_S)
            os._exit(99)
        os.read(reader, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)  # the first: a second one would end this test
        assert stop.signal == signal.SIGTERM
    for each in (reader, writer):
        os.close(each)
