"""The film: one ring of rows per game, every frame stored once; stacks are put together when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from agent.appended import Appended, Growing, Kept
from agent.config import LEAST_COMPRESSED
from agent.replay.frames import CompressedFrames, Frames, Part, PlainFrames, check_layout, check_like, send, zeros

MAX_STACK = 256  # a row's history is a u8
ARRAYS = ("action", "reward", "terminated", "truncated", "history")


class Film:
    """Rows of `num_columns` games, the newest `length` of each.

    The row at time i holds the frame seen at i, the action that answered it, and the reward and the ends that followed
    that action. `history` counts the earlier rows of the same episode, at most stack - 1: that many frames of the
    stack exist, those before are zero.

    A slot is where a row lies: position in the ring * num_columns + column. Time-major, so that the filled part of a
    young film is one piece of memory, saved without a copy.
    """

    def __init__(
        self,
        *,
        num_columns: int,
        length: int,
        frame_shape: tuple[int, ...],
        dtype: str,
        stack: int = 1,
        device: torch.device | str = "cpu",
        compression: str = "none",
    ) -> None:
        """`compression` is "none" or "lz4", the latter for u8 frames of at least LEAST_COMPRESSED on the host."""
        if not 1 <= stack <= MAX_STACK:
            raise ValueError(f"A stack of {stack} frames cannot be stored; it must be between 1 and {MAX_STACK}.")
        self.num_columns, self.length, self.stack = num_columns, length, stack
        self.frame_shape = tuple(frame_shape)
        self.device = torch.device(device)
        self.num_rows = num_columns * length
        self.frames = self._frames(math.prod(frame_shape), dtype, compression)
        self.action = zeros((self.num_rows,), "int16", self.device)
        self.reward = zeros((self.num_rows,), "float32", self.device)
        self.terminated = zeros((self.num_rows,), "bool", self.device)
        self.truncated = zeros((self.num_rows,), "bool", self.device)
        self.history = zeros((self.num_rows,), "uint8", self.device)
        # The same memory as numpy sees it, where it can: to write few rows takes it a third of the time.
        self._host = {name: getattr(self, name).numpy() for name in ARRAYS} if self.device.type == "cpu" else None
        self.cursor = np.zeros(num_columns, np.int64)  # rows ever written
        self._history = np.zeros(num_columns, np.int64)  # of the next row, if it continues the episode
        self._frame_bytes = math.prod(frame_shape) * np.dtype(dtype).itemsize
        self._kept = Kept()  # which frames checkpoints hold already
        self._back = torch.arange(1 - stack, 1, device=self.device)  # [stack], oldest first

    def _frames(self, elements: int, dtype: str, compression: str) -> Frames:
        if compression == "none":
            return PlainFrames(self.num_rows, elements, dtype, self.device)
        if self.device.type != "cpu":
            raise ValueError("replay.compression is for the host: set replay.device cpu or replay.compression none.")
        if dtype != "uint8" or elements < LEAST_COMPRESSED:
            raise ValueError(
                f"replay.compression is for pictures, frames of at least {LEAST_COMPRESSED:,} bytes of uint8; here they "
                f"are {dtype} of shape {list(self.frame_shape)}: set replay.compression none."
            )
        return CompressedFrames(self.num_rows, self.num_columns, elements)

    def send(self, array: np.ndarray) -> torch.Tensor:
        """Return `array` on the film's device; on a GPU the copy is not waited for."""
        return send(array, self.device)

    def append(
        self,
        columns: np.ndarray,
        frame: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        first: np.ndarray,
    ) -> np.ndarray:
        """Write one row at the head of each of `columns`, i64 [M], over its oldest row; return the slots, i64 [M].

        `frame` is [M, *frame_shape], the others [M]; `first` begins an episode. No column may be named twice.
        """
        slots = self._slots(columns, self.cursor[columns])
        history = np.where(first, 0, self._history[columns])
        self._history[columns] = np.minimum(history + 1, self.stack - 1)
        self.cursor[columns] += 1
        where = self.send(slots)
        self.frames.write(where, self.send(frame.reshape(len(columns), -1)))
        for name, values in zip(ARRAYS, (action, reward, terminated, truncated, history), strict=True):
            if self._host is not None:
                self._host[name][slots] = values
            else:
                array = getattr(self, name)
                array.index_copy_(0, where, self.send(values).to(array.dtype))
        return slots

    def truncate(self, columns: np.ndarray) -> None:
        """Mark the newest row of each of `columns`, i64 [M], truncated."""
        self.truncated.index_fill_(0, self.send(self.newest()[columns]), True)

    def newest(self) -> np.ndarray:
        """Return the slot of every column's newest row, i64 [num_columns]; of an empty column its last slot."""
        return (self.cursor - 1) % self.length * self.num_columns + np.arange(self.num_columns)

    def after(self, slots: np.ndarray, rows: int) -> np.ndarray:
        """Return the slots `rows` rows later (earlier when negative) in the same columns."""
        return (slots + rows * self.num_columns) % self.num_rows

    def walk(self, slots: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`after` on the device; `rows` is i64 and broadcasts."""
        return torch.add(slots, rows, alpha=self.num_columns).remainder_(self.num_rows)

    def stacks(self, slots: torch.Tensor) -> torch.Tensor:
        """Return the observations whose newest frames lie at `slots`, i64 [N] -> [N, *observation_shape].

        Frames before the start of the episode are zero. Of rows within stack - 1 of the oldest one the history has
        been overwritten by the head; they must not be asked for.
        """
        if self.stack == 1:
            return self.frames.read(slots).view(-1, *self.frame_shape)
        rows = self.walk(slots[:, None], self._back)  # [N, stack]
        seen = self.history.index_select(0, slots)[:, None] + self._back >= 0
        rows = torch.where(seen, rows, self.num_rows)  # the frame that stays zero
        return self.frames.read(rows.view(-1)).view(-1, self.stack, *self.frame_shape)

    @property
    def bytes(self) -> int:
        """Bytes held by the film."""
        return self.frames.bytes + sum(getattr(self, name).nbytes for name in ARRAYS)

    def state_dict(self) -> dict[str, Any]:
        """Return the film itself, not a copy: the rows that were ever written, and the cursors.

        Frames never change: a checkpoint writes only those that none before it holds.
        """
        frames = Growing(
            self.frames.layout,
            np.maximum(self.cursor - self.length, 0),
            self.cursor,
            self._kept,
            most_bytes=self._frame_bytes,
            read=lambda columns, times: self.frames.records(self._slots(columns, times)),
        )
        return {"frames": frames} | self._written(self.cursor) | {"cursor": torch.from_numpy(self.cursor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Put back what `state_dict` gave, in place; ValueError, and nothing changed, when it does not fit.

        Return the slots, i64 [N], of rows whose frames were lost on the way: what has them on a stack must not be asked
        for. Rows that are appended have none of them on theirs.
        """
        cursor = state["cursor"].cpu().numpy()
        if cursor.shape != self.cursor.shape:
            raise ValueError(f"The saved film has {len(cursor)} columns, this one has {self.num_columns}.")
        written = self._written(cursor)
        for name, tensor in written.items():
            check_like(name, state[name], tensor)
        lost = self._load_frames(state["frames"], cursor)
        for name, tensor in written.items():
            tensor.copy_(state[name])
        self.cursor[:] = cursor
        history = self.history[self.send(self.newest())].cpu().numpy().astype(np.int64)
        self._history[:] = np.minimum(history + 1, self.stack - 1)
        columns, since = lost % self.num_columns, self.newest()
        np.minimum.at(self._history, columns, (since[columns] - lost) // self.num_columns % self.length)
        return lost

    def _load_frames(self, saved: Any, cursor: np.ndarray) -> np.ndarray:
        """Put back the frames; return the slots of those that ought to be there and are not."""
        if not isinstance(saved, Appended):
            self.frames.load_version_1(saved, self._num_written(cursor))
            self._kept = Kept()
            return np.zeros(0, np.int64)
        check_layout(saved.layout, self.frames.layout)
        first = np.maximum(cursor - self.length, 0)
        if not np.array_equal(saved.first, first) or not np.array_equal(saved.stop, cursor):
            raise ValueError("The saved film's frames are not those of its rows.")
        rows, columns = divmod(np.arange(self._num_written(cursor)), self.num_columns)
        missing = rows < cursor[columns]

        def parts() -> Iterator[Part]:
            for group in saved.groups():
                slots = self._slots(group.columns, group.numbers)
                missing[slots] = False
                yield Part(slots, group)

        self.frames.load(parts(), len(missing))
        self._kept = saved.kept.copy()
        return np.flatnonzero(missing)

    def _slots(self, columns: np.ndarray, times: np.ndarray) -> np.ndarray:
        return times % self.length * self.num_columns + columns

    def _num_written(self, cursor: np.ndarray) -> int:
        return min(int(cursor.max()), self.length) * self.num_columns

    def _written(self, cursor: np.ndarray) -> dict[str, torch.Tensor]:
        rows = self._num_written(cursor)
        return {name: getattr(self, name)[:rows] for name in ARRAYS}
