"""Worker processes: what each of them does, and who begins and ends them.

On Linux workers are forked from a nursery, a process that was forked from this one when the vector was made and has
done nothing since. A replacement forked from the trainer itself would share, and so double, gigabytes of replay, and
might inherit a lock that one of its threads held. Elsewhere fork is not safe at all, and a worker is a new interpreter.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.host import Fallen, Host, Row
from envs.spec import GameSpec
from envs.wire import Channel, Patience, packed, unpacked

# What a worker is asked for, and what it answers.
RESET, STEP, AGAIN, STATE, LOAD, RENDER, SCENE, CLOSE = range(8)
MADE, ROW, TREE, FALLEN, REFUSED = range(16, 21)
COUNTS = struct.Struct("<d????dq")  # reward, terminated, truncated, first, ended, score, length; then the observation

_ORDER = struct.Struct("<cq")  # to the nursery: fork, or end the worker of that process id
_ANSWER = struct.Struct("<q")
_NURSERY_S = 10.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def serve(sock: socket.socket, spec: GameSpec, make: Callable[[], Host]) -> None:
    """Be a worker: make a game and do with it what is asked for, until the vector closes or is gone."""
    _leave_signals_to_the_parent()
    channel = Channel(sock, 64)
    try:
        try:
            game = make()
        except BaseException as error:
            channel.send(FALLEN, 0, raised(error).encode())
            return
        channel.send(MADE, 0)
        answers = _answers(game, spec)
        while True:
            verb, number, payload = channel.recv()
            try:
                answer = answers[verb](payload)
            except Fallen as error:
                answer = FALLEN, str(error).encode()
            except BaseException as error:  # SystemExit as well: a game is not who ends this process
                played = verb in (RESET, STEP, AGAIN)
                answer = (FALLEN, raised(error).encode()) if played else (REFUSED, str(error).encode())
            channel.send(answer[0], number, answer[1])
            if verb == CLOSE:
                return
    except (EOFError, OSError):
        return  # the vector is gone


def raised(error: BaseException) -> str:
    """Return what is said of a game that raised `error`."""
    text = f"it raised {type(error).__name__}"
    return f"{text}: {str(error)[:500]}" if str(error) else text


def _row(row: Row, dtype: str) -> tuple[int, bytes]:
    score, length = row.episode or (0.0, 0)
    flags = row.terminated, row.truncated, row.first, row.episode is not None
    with np.errstate(over="ignore"):
        observation = row.observation.astype(dtype, copy=False)
    return ROW, COUNTS.pack(row.reward, *flags, score, length) + observation.tobytes()


def _closed(game: Host) -> tuple[int, bytes]:
    game.close()
    return TREE, packed(None)


def _loaded(game: Host, payload: memoryview) -> tuple[int, bytes]:
    game.load_state_dict(unpacked(payload))
    return TREE, packed(None)


def _answers(game: Host, spec: GameSpec) -> dict[int, Callable[[memoryview], tuple[int, bytes]]]:
    dtype = spec.observation_dtype

    def chosen(payload: memoryview) -> Any:
        return int.from_bytes(payload, "little") if spec.num_actions else np.frombuffer(payload, np.float32).copy()

    return {
        RESET: lambda payload: _row(game.reset(int(unpacked(payload))), dtype),
        STEP: lambda payload: _row(game.step(chosen(payload)), dtype),
        AGAIN: lambda payload: _row(game.last, dtype),
        STATE: lambda payload: (TREE, packed(game.state_dict())),
        LOAD: lambda payload: _loaded(game, payload),
        RENDER: lambda payload: (TREE, packed(game.render())),
        SCENE: lambda payload: (TREE, packed(game.scene())),
        CLOSE: lambda payload: _closed(game),
    }


def row_bytes(spec: GameSpec) -> int:
    """Return the size of the answer to a step."""
    size = 4 if spec.observation_dtype == "float32" else 1
    for side in spec.observation_shape:
        size *= side
    return COUNTS.size + size


def _leave_signals_to_the_parent() -> None:
    """Ctrl-C and a supervisor's SIGTERM reach every process: they are for the parent, which finishes and saves."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Nursery:
    """Begins worker processes, each with a socket, and ends them; `make` makes a worker's game."""

    def __init__(self, spec: GameSpec, make: Callable[[], Host]) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_NURSERY_S)
        parent = os.getpid()
        # The signal comes when the thread that forked ends, which for the main thread is the end of the process.
        signalled = threading.current_thread() is threading.main_thread()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or what is in its buffer would be written twice
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _nurse(theirs, spec, make, parent if signalled else None)
            finally:
                os._exit(70)
        theirs.close()
        self._finalizer = weakref.finalize(self, _end_nursery, self._control, self.pid, parent)

    def begin(self) -> tuple[socket.socket, int]:
        """Return the socket and the process id of a new worker; OSError when there can be none."""
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._control, [_ORDER.pack(b"f", 0)], [theirs.fileno()])
            pid = self._answer()
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours, pid

    def end(self, pid: int) -> int | None:
        """Kill a worker and wait until it is gone; return how it had ended, as subprocess says it, None: unknown."""
        try:
            self._control.sendall(_ORDER.pack(b"k", pid))
            status = self._answer()
        except OSError:
            return None  # the nursery is gone, and its workers with it
        return os.waitstatus_to_exitcode(status) if status >= 0 else None

    def close(self) -> None:
        """End every worker and the nursery itself; a second call does nothing."""
        self._finalizer()

    def _answer(self) -> int:
        answer = self._control.recv(_ANSWER.size)
        if len(answer) != _ANSWER.size:
            raise ConnectionError("the process that begins workers is gone")
        return _ANSWER.unpack(answer)[0]


def _end_nursery(control: socket.socket, pid: int, parent: int) -> None:
    if os.getpid() != parent:
        return  # a fork of the parent has a copy of its vectors, not its processes
    control.close()  # the nursery reads the end, kills its workers and goes
    patience = Patience(_NURSERY_S)
    try:
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            time.sleep(1e-3)
            try:
                patience.spend(1e-3)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
    except ChildProcessError:
        return  # somebody else waited for it


def _nurse(control: socket.socket, spec: GameSpec, make: Callable[[], Host], parent: int | None) -> None:
    """Be the nursery: fork a worker or end one, as the vector orders, until it is gone."""
    _leave_signals_to_the_parent()
    _let_go_of_files(control.fileno())
    gc.freeze()  # nothing of the trainer is ever collected here, nor its memory touched for looking
    prctl = ctypes.CDLL(None).prctl
    if parent is not None:
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            return
    here = os.getpid()
    workers: set[int] = set()
    while True:
        order, files, _, _ = socket.recv_fds(control, _ORDER.size, 1)
        if len(order) != _ORDER.size:
            break
        verb, pid = _ORDER.unpack(order)
        if verb == b"k":
            control.sendall(_ANSWER.pack(_killed(pid, workers)))
            continue
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # a game that hangs reads no end of a socket
            if os.getppid() == here:
                control.close()
                serve(socket.socket(fileno=files[0]), spec, make)
                sys.stdout.flush()
            os._exit(0)
        os.close(files[0])
        if pid > 0:
            workers.add(pid)
        control.sendall(_ANSWER.pack(pid))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)  # nobody has waited for it, so the id is still its own
    for pid in workers:
        os.waitpid(pid, 0)
    os._exit(0)


def _killed(pid: int, workers: set[int]) -> int:
    if pid not in workers:
        return -1
    workers.remove(pid)
    gone, status = os.waitpid(pid, os.WNOHANG)
    if not gone:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return status


def _let_go_of_files(keep: int) -> None:
    """Hold nothing that the trainer has open, such as its lock, its sockets or another vector's, but three streams.

    The numbers stay taken, so that an object of the trainer's that is destroyed here closes nothing of a game's.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in (1, 2, keep, nothing):
            try:
                os.fstat(number)
            except OSError:
                continue  # it was the listing itself
            os.dup2(nothing, number)


class Spawner:
    """Begins and ends workers where fork is not safe: each is a new interpreter, which takes about a second."""

    def __init__(self, spec: GameSpec, make: Callable[[], Host]) -> None:
        self._spec, self._make = spec, make
        self._processes: dict[int, Any] = {}

    def begin(self) -> tuple[socket.socket, int]:
        """Return the socket and the process id of a new worker; OSError when there can be none."""
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs, self._spec, self._make), daemon=True
        )
        process.start()
        theirs.close()
        self._processes[process.pid] = process
        return ours, process.pid

    def end(self, pid: int) -> int | None:
        """Kill a worker and wait until it is gone; return how it had ended, None: unknown."""
        process = self._processes.pop(pid, None)
        if process is None:
            return None
        process.kill()  # one that ends already keeps its own exit code
        process.join(_NURSERY_S)
        return process.exitcode

    def close(self) -> None:
        """End every worker; a second call does nothing."""
        for pid in list(self._processes):
            self.end(pid)
