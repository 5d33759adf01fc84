"""Worker processes: they hold nothing of the trainer's, and end when they should."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from envs.fakes import CountingGame
from envs.host import CountedGame
from envs.nursery import (
    CLOSE,
    FALLEN,
    MADE,
    REFUSED,
    RENDER,
    RESET,
    ROW,
    STATE,
    STEP,
    TREE,
    Nursery,
    Spawner,
    row_bytes,
    serve,
)
from envs.wire import Channel, Patience, packed, unpacked
from tests.test_inline import SPEC, Ladder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no nursery")


def ladder() -> CountedGame:
    """A game for a worker."""
    return CountedGame(SPEC, Ladder())


def broken() -> CountedGame:
    """A game that cannot be made."""
    raise FileNotFoundError("no such game")


def asked(channel: Channel, verb: int, number: int, payload: bytes = b"") -> tuple[int, bytes]:
    """What a worker answers."""
    channel.send(verb, number, payload, Patience(60.0))
    kind, answered, answer = channel.recv(Patience(60.0))
    assert answered == number
    return kind, bytes(answer)


@pytest.mark.parametrize("kind", [Nursery, Spawner])
def test_a_worker_answers_what_it_is_asked(kind: type) -> None:
    """In both kinds of process: made, reset, step, state, a refused picture, closed, gone."""
    nursery = kind(SPEC, ladder)
    try:
        sock, pid = nursery.begin()
        channel = Channel(sock, 64)
        assert channel.recv(Patience(60.0))[0] == MADE
        assert asked(channel, RESET, 1, packed(7))[0] == ROW
        assert asked(channel, STEP, 2, (2).to_bytes(8, "little"))[0] == ROW
        state = asked(channel, STATE, 3)
        assert state[0] == TREE and unpacked(state[1])["game"] == {"seed": 7, "height": 1, "steps": 1}
        assert asked(channel, STEP, 4, b"")[0] == ROW, "no payload is action 0"
        assert asked(channel, STATE, 5)[0] == TREE
        assert asked(channel, RENDER, 6)[0] == TREE
        assert asked(channel, 99, 7)[0] == REFUSED, "a verb that there is not"
        assert asked(channel, CLOSE, 8)[0] == TREE
        nursery.end(pid)
        assert not psutil.pid_exists(pid)
        channel.close()
    finally:
        nursery.close()


def test_a_game_that_cannot_be_made_says_so() -> None:
    """The worker's first message is the game's own error."""
    nursery = Nursery(SPEC, broken)
    sock, pid = nursery.begin()
    channel = Channel(sock, 64)
    kind, number, payload = channel.recv(Patience(60.0))
    assert (kind, number, bytes(payload)) == (FALLEN, 0, b"it raised FileNotFoundError: no such game")
    channel.close()
    nursery.close()


def test_workers_hold_nothing_that_the_trainer_has_open(tmp_path: Path) -> None:
    """No file, lock or socket of this process lives on in a worker, though it was forked; its memory is its own."""
    (tmp_path / "lock").touch()
    ours, theirs = socket.socketpair()
    with open(tmp_path / "lock") as lock, ours, theirs:
        nursery = Nursery(SPEC, ladder)
        try:
            sock, pid = nursery.begin()
            channel = Channel(sock, 64)
            channel.recv(Patience(60.0))
            for process in (pid, nursery.pid):
                links = [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
                own = os.readlink(f"/proc/self/fd/{lock.fileno()}")
                assert own not in links
                assert sum(link.startswith("socket:") for link in links) == 1, links
            assert psutil.Process(pid).ppid() == nursery.pid and psutil.Process(nursery.pid).ppid() == os.getpid()
            channel.close()
        finally:
            nursery.close()
    assert not psutil.pid_exists(pid) and not psutil.pid_exists(nursery.pid)


def test_a_fork_of_the_trainer_ends_nothing() -> None:
    """A child that somebody forked off, and that drops its copy of the nursery, leaves ours alone."""
    nursery = Nursery(SPEC, ladder)
    try:
        child = os.fork()
        if child == 0:
            nursery.close()
            os._exit(0)
        os.waitpid(child, 0)
        sock, pid = nursery.begin()
        assert Channel(sock, 64).recv(Patience(60.0))[0] == MADE and nursery.end(pid) is not None
        sock.close()
    finally:
        nursery.close()


def test_the_last_one_to_hear_of_an_end_goes_quietly() -> None:
    """A worker whose vector has closed its end returns; nothing is raised into nowhere."""
    ours, theirs = socket.socketpair()
    ours.close()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert serve(theirs, SPEC, ladder) is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    theirs.close()


def test_rows_are_as_long_as_they_are_expected_to_be() -> None:
    """What a vector expects of a step is what a worker of that game sends: counts and the observation."""
    for spec, size in ((SPEC, 2 * 4), (CountingGame(1).spec, 3 * 4), (CountingGame(1, pixels=True).spec, 4 * 8 * 8)):
        assert row_bytes(spec) == 28 + size
