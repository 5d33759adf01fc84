"""A small state for tests that save it many times, told apart by its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.checkpoint import save


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
