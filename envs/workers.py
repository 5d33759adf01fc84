"""A vector of games that play in a process of their own each, from `send` on, under supervision."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from envs import nursery
from envs.host import Fallen, Host, Row
from envs.nursery import COUNTS, Nursery, Spawner
from envs.scenes import Scene
from envs.spec import GameSpec
from envs.supervision import GameFailure, Supervised
from envs.wire import Channel, Garbled, Patience, packed, readable, unpacked

__all__ = ["DEADLINE_S", "GameFailure", "WorkerVector"]

DEADLINE_S = 8.0  # for one answer; with what it takes to begin a fresh game a hung one is replaced within ten seconds
_MAKE_S = 60.0  # for a game to be made, and to be drawn
_LOAD_S = 600.0  # for a saved episode to be played again
_CLOSE_S = 1.0
_FORKS = sys.platform == "linux"
_VERBS = {
    "reset": nursery.RESET,
    "step": nursery.STEP,
    "again": nursery.AGAIN,
    "state": nursery.STATE,
    "load": nursery.LOAD,
    "render": nursery.RENDER,
    "scene": nursery.SCENE,
}


class Worker:
    """One worker process as its vector sees it: a question, then its answer, and Fallen for everything else."""

    def __init__(self, spec: GameSpec, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self.channel = Channel(sock, nursery.row_bytes(spec))
        self._dtype, self._shape = np.dtype(spec.observation_dtype), spec.observation_shape
        self._size = nursery.row_bytes(spec)
        self._number = 0
        self._made = False
        self._reason: str | None = None  # why it cannot be asked any more

    def begin(self, verb: str, argument: Any) -> None:
        """Ask; what goes wrong is said by `end`."""
        if verb == "step":
            payload = argument.to_bytes(8, "little") if isinstance(argument, int) else argument.tobytes()
        elif verb in ("reset", "load"):
            payload = packed(argument)
        else:
            payload = b""
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._verb = verb
        try:
            if not self._made:
                self._await(nursery.MADE, 0, Patience(_MAKE_S))
                self._made = True
            self.channel.send(_VERBS[verb], self._number, payload, Patience(_LOAD_S))
        except Fallen as reason:
            self._reason = str(reason)
        except TimeoutError:
            self._reason = f"it did not take a message within {_LOAD_S:g} s"
        except OSError:
            self._reason = ""  # how its process ended will be said

    def end(self, patience: Patience) -> Any:
        """Return the answer to what was asked; ValueError or RuntimeError when the game refuses."""
        if self._reason is not None:
            raise Fallen(self._reason)
        if self._verb in ("load", "render", "scene"):
            patience = Patience(_LOAD_S if self._verb == "load" else _MAKE_S)
        if self._verb not in ("reset", "step", "again"):
            return self._tree(patience)
        payload = self._await(nursery.ROW, self._number, patience)
        if len(payload) != self._size:
            raise Fallen(f"it sent {len(payload)} bytes instead of {self._size}")
        reward, terminated, truncated, first, ended, score, length = COUNTS.unpack_from(payload)
        # Not a copy: it is lined up with the others' before this worker is asked again.
        observation = np.frombuffer(payload, self._dtype, offset=COUNTS.size).reshape(self._shape)
        return Row(observation, reward, terminated, truncated, first, (score, length) if ended else None)

    def close(self) -> None:
        """Let the game close itself, if it does so at once."""
        with suppress(Fallen, OSError, TimeoutError):
            if self._made and self._reason is None:
                self.channel.send(nursery.CLOSE, 0, b"", Patience(_CLOSE_S))

    def wait_closed(self, patience: Patience) -> None:
        """Wait until the game is closed, and let go of the worker; it may still have to be ended."""
        with suppress(EOFError, OSError, TimeoutError, Garbled):
            while self._made and self._reason is None:  # an answer that nobody took may come first
                if self.channel.recv(patience)[1] == 0:
                    break
        self.channel.close()

    def drop(self) -> None:
        """Let go of it without a word; it may still have to be ended."""
        self.channel.close()

    def _tree(self, patience: Patience) -> Any:
        try:
            tree = unpacked(self._await(nursery.TREE, self._number, patience))
            return Scene(*tree) if self._verb == "scene" else tree
        except (Garbled, TypeError) as error:
            raise Fallen(f"it answered with garbage: {error}") from error

    def _await(self, wanted: int, number: int, patience: Patience) -> memoryview:
        try:
            kind, answered, payload = self.channel.recv(patience)
        except TimeoutError:
            raise Fallen(f"it did not answer within {patience.seconds:g} s") from None
        except (EOFError, OSError):
            raise Fallen("") from None
        except Garbled as error:
            raise Fallen(str(error)) from error
        if answered != number or kind not in (wanted, nursery.FALLEN, nursery.REFUSED):
            raise Fallen("it answered what it was not asked")
        if kind == nursery.FALLEN:
            raise Fallen(bytes(payload[:2000]).decode(errors="replace"))
        if kind == nursery.REFUSED:
            text = bytes(payload[:2000]).decode(errors="replace")
            raise (ValueError if self._verb == "load" else RuntimeError)(text)
        return payload


class WorkerVector(Supervised):
    """B games, each in its own process, with the verbs reset, send, recv; they play from `send` on.

    A worker that dies, does not answer within `deadline_s`, raises or answers with garbage is replaced while the others
    keep their step. No worker outlives this process, however that ends.
    """

    def __init__(
        self,
        spec: GameSpec,
        num_envs: int,
        make: Callable[[], Host],
        *,
        deadline_s: float = DEADLINE_S,
        stateful: bool = True,
    ) -> None:
        super().__init__(spec, num_envs)
        self.stateful = stateful
        self._deadline_s = deadline_s
        self._make_host = make
        self._nursery: Nursery | Spawner | None = self._new_nursery()
        self._workers: list[Worker | None] = [None] * num_envs
        self._reasons = [""] * num_envs  # why there is no worker
        for row in range(num_envs):
            self._make(row)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers if worker is not None]

    def close(self) -> None:
        """End the workers, by force when they do not answer; a second call does nothing."""
        if self._nursery is None:
            return
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.close()
        patience = Patience(_CLOSE_S)
        for worker in workers:
            worker.wait_closed(patience)
        self._workers = [None] * self.num_envs
        self._nursery.close()
        self._nursery = None

    def _new_nursery(self) -> Nursery | Spawner:
        return (Nursery if _FORKS else Spawner)(self.spec, self._make_host)

    def _make(self, row: int) -> None:
        self._end_game(row)
        try:
            try:
                begun = self._nursery.begin()
            except (ConnectionError, TimeoutError):  # somebody killed it, and with it all of its workers
                self._nursery.close()
                self._nursery = self._new_nursery()
                begun = self._nursery.begin()
            self._workers[row] = Worker(self.spec, *begun)
        except OSError as error:
            self._reasons[row] = f"no process could be begun for it: {error}"

    def _begin(self, row: int, verb: str, argument: Any) -> None:
        worker = self._workers[row]
        if worker is not None:
            worker.begin(verb, argument)

    def _end(self, row: int, patience: Patience) -> Any:
        worker = self._workers[row]
        if worker is None:
            raise Fallen(self._reasons[row])
        try:
            return worker.end(patience)
        except Fallen as reason:
            status = self._end_game(row)
            self._reasons[row] = str(reason) or _death(status)
            raise Fallen(self._reasons[row]) from None

    def _patience(self) -> Patience:
        return Patience(self._deadline_s, self._answered)

    def _answered(self) -> set[int]:
        return readable(worker.channel for worker in self._workers if worker is not None)

    def _end_game(self, row: int) -> int | None:
        worker, self._workers[row] = self._workers[row], None
        if worker is None:
            return None
        worker.drop()
        return self._nursery.end(worker.pid)


def _death(status: int | None) -> str:
    if status is None or status == 0:
        return "its process ended"
    if status < 0:
        with suppress(ValueError):
            return f"its process was killed ({signal.Signals(-status).name})"
    return f"its process ended with exit code {status}"
