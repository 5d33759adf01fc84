"""A small state for tests that save it many times, told apart by its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.appended import Appended, Growing, Kept
from agent.checkpoint import save

LENGTH = 5  # of each ring of records
STEPS = np.array([3, 2])  # records that each column gets from one number to the next
MOST_BYTES = 5


def state(number: int) -> dict[str, Any]:
    """A small state that differs from number to number."""
    return {
        "learner": {"torso.0.weight": torch.arange(8.0) + number, "moments": np.full(3, number), "lr": 0.1},
        "replay": {"film": torch.full((5, 4), number % 256, dtype=torch.uint8)},
        "steps": number,
    }


def holds(tree: dict[str, Any], number: int) -> bool:
    """Say whether `tree` is `state(number)`."""
    want = state(number)
    return (
        tree["steps"] == number
        and tree["learner"]["lr"] == 0.1
        and torch.equal(tree["learner"]["torso.0.weight"], want["learner"]["torso.0.weight"])
        and np.array_equal(tree["learner"]["moments"], want["learner"]["moments"])
        and torch.equal(tree["replay"]["film"], want["replay"]["film"])
    )


def fill(directory: Path, count: int, keep: int = 10) -> Path:
    """Save checkpoints 1 to `count`."""
    for number in range(1, count + 1):
        save(directory, number, state(number), keep=keep)
    return directory


class Log:
    """Records that grow from number to number in two rings of their own pace; each says whose it is."""

    def __init__(self, kept: Kept | None = None, *, sized: bool = False) -> None:
        """With `sized` they are of different sizes."""
        self.kept, self.sized = Kept() if kept is None else kept, sized

    def state(self, number: int) -> dict[str, Any]:
        """`state(number)` with the records that there are by then."""
        layout = {"record_bytes": None if self.sized else MOST_BYTES}
        stop = STEPS * number
        first = np.maximum(stop - LENGTH, 0)
        return state(number) | {"log": Growing(layout, first, stop, self.kept, most_bytes=MOST_BYTES, read=self._read)}

    def record(self, column: int, number: int) -> bytes:
        """What is in a record."""
        content = bytes([column + 1, *number.to_bytes(3, "little"), 7 * number % 256])
        return content[: 4 + number % 2] if self.sized else content

    def _read(self, columns: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        records = [self.record(*which) for which in zip(columns.tolist(), numbers.tolist(), strict=True)]
        return np.array([len(record) for record in records]), np.frombuffer(b"".join(records), np.uint8)

    def holds(self, tree: dict[str, Any], number: int) -> bool:
        """Say whether `tree` is `self.state(number)`."""
        want = {
            (column, each): self.record(column, each)
            for column, stop in enumerate((STEPS * number).tolist())
            for each in range(max(0, stop - LENGTH), stop)
        }
        return isinstance(tree["log"], Appended) and tree["log"].records() == want and holds(tree, number)

    def fill(self, directory: Path, count: int, keep: int = 10) -> Path:
        """Save checkpoints 1 to `count`."""
        for number in range(1, count + 1):
            save(directory, number, self.state(number), keep=keep)
        return directory
