"""A few seeds from which every episode of a game starts, over and over: what training has seen, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class SeedPool:
    """Draws the seed of every episode of one game, uniformly from a fixed few; the generator's state is its state."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = tuple(seeds)
        self._random = np.random.default_rng(0)

    def draw(self, seed: int | None = None) -> int:
        """Return the seed of the next episode; when `seed` is given, the draws begin anew from it."""
        if seed is not None:
            self._random = np.random.default_rng([seed, 1])  # 1: not the sequence a game makes of the same number
        return self._seeds[self._random.integers(len(self._seeds))]

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws stand."""
        return self._random.bit_generator.state

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Put it back; ValueError for None, the state of a game without a pool."""
        if state is None:
            raise ValueError("The saved games drew no seeds: leave game.seeds as it was when they were saved.")
        self._random.bit_generator.state = state
