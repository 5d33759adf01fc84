"""Numbers that are not finite stay out of replay, of the weights and of what a network is asked; they are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

IN_A_ROW = 100  # steps of one game, or updates, before the run ends: nothing would be learned any more
LARGEST = float(np.finfo(np.float32).max)  # what is above it is infinite where it is kept

STEPS, UPDATES, RESTARTS = "faults/non_finite_steps", "faults/non_finite_updates", "faults/game_restarts"
SENTENCES = {
    STEPS: "warning: an observation or a reward is not a finite number and was left out",
    UPDATES: "warning: an update's loss or gradient is not finite; the update was skipped and no weight has changed",
}
TAGS = (*SENTENCES, RESTARTS)  # of a restart the games themselves tell


class NonFinite(RuntimeError):
    """Too many steps or updates in a row were not finite. The weights are sound: none of those has touched them."""


def finite_rows(numbers: np.ndarray) -> np.ndarray:
    """Return for each row of [B, ...] whether all its numbers are finite as f32, bool [B]."""
    if numbers.dtype.kind != "f":
        return np.ones(len(numbers), bool)
    # In 32 bits or fewer nothing finite is too large, and to ask is four times faster than to compare.
    finite = np.isfinite(numbers) if numbers.dtype.itemsize <= 4 else np.abs(numbers) <= LARGEST
    return finite if finite.ndim == 1 else finite.reshape(len(numbers), -1).all(axis=1)


def all_finite(numbers: np.ndarray) -> bool:
    """Return whether all numbers are finite as f32: asked at every step, so it is the quickest form of the question."""
    kind, itemsize = numbers.dtype.kind, numbers.dtype.itemsize
    return kind != "f" or bool((np.isfinite(numbers) if itemsize <= 4 else np.abs(numbers) <= LARGEST).all())


def finite_or_zero(observation: np.ndarray) -> np.ndarray:
    """Return observations, [B, *shape], of which those with a number that is not finite are all zero.

    Where nothing is wrong that is the array itself. Zeros, and not what the game showed last: so nothing has to be
    remembered, and a resumed run is asked the same.
    """
    if all_finite(observation):
        return observation
    finite = finite_rows(observation)
    return np.where(finite.reshape(-1, *[1] * (observation.ndim - 1)), observation, observation.dtype.type(0))


def single(numbers: np.ndarray) -> np.ndarray:
    """Return a copy in 32 bits, in C order; what is too large for them is infinite, and nobody is warned of it."""
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32, order="C")


def unsound(total: torch.Tensor) -> torch.Tensor:
    """Return 1 where a number is not finite, else 0, in its own type; nothing waits for the device."""
    if torch.compiler.is_compiling():
        return torch.isfinite(total).logical_not().to(total.dtype)
    return (total - total).ne_(0.0)  # the half of isfinite's operations; a compiler might take the difference for 0


class Faults:
    """What went wrong in a run without ending it: counted, and told the first time, the tenth, the hundredth.

    What ends the run is raised by `check`, which is asked between two ticks: there the run can still be saved.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(TAGS, 0)
        self.say: Callable[[str], None] = lambda sentence: None
        self._steps_in_a_row: dict[int, int] = {}  # by game
        self._updates_in_a_row: dict[str, int] = {}  # by optimizer

    def add(self, tag: str, count: int = 1) -> None:
        """Count so many more."""
        before = self.counts[tag]
        self.counts[tag] = now = before + count
        if tag in SENTENCES and count and (not before or len(str(now)) > len(str(before))):
            self.say(SENTENCES[tag] + (f" ({now:,} so far)" if now > 1 else ""))

    def steps(self, games: np.ndarray, wrong: np.ndarray) -> None:
        """Count the games, i64 [M], whose step is `wrong`, bool [M]; to be told of steps that were played."""
        if not self._steps_in_a_row and not wrong.any():
            return
        for game, is_wrong in zip(games.tolist(), wrong.tolist(), strict=True):
            if is_wrong:
                self._steps_in_a_row[game] = self._steps_in_a_row.get(game, 0) + 1
            else:
                self._steps_in_a_row.pop(game, None)
        self.add(STEPS, int(np.count_nonzero(wrong)))

    @property
    def watching(self) -> bool:
        """Whether the last that was counted was wrong: then what is fine must be counted as well."""
        return bool(self._steps_in_a_row) or any(self._updates_in_a_row.values())

    def updates(self, made: int, skipped: int, optimizer: str = "") -> None:
        """Count `skipped` of the updates that an optimizer has `made` since the last call."""
        if made:
            before = self._updates_in_a_row.get(optimizer, 0)
            self._updates_in_a_row[optimizer] = before + made if skipped == made else 0
        self.add(UPDATES, skipped)

    def check(self) -> None:
        """Raise NonFinite when IN_A_ROW steps of one game, or updates, in a row were not finite."""
        if not self.watching:
            return
        for game, steps in self._steps_in_a_row.items():
            if steps >= IN_A_ROW:
                raise NonFinite(
                    f"Game {game} gave {steps} steps in a row whose observation or reward is not a finite number (NaN, "
                    "infinite, or above 3.4e38). None was learned from and the weights are sound: mend the game, then "
                    "go on with 'icebox resume'."
                )
        updates = max(self._updates_in_a_row.values(), default=0)
        if updates >= IN_A_ROW:
            raise NonFinite(
                f"{updates} updates in a row had a loss or a gradient that is not finite. None changed a "
                "weight. Rewards or observations are too large for 32 bits, or learning has diverged: clip or scale "
                "rewards (replay.reward_clip), or lower learner.learning_rate."
            )

    def figures(self) -> dict[str, float]:
        """Return under its tag how often each of them has happened in this run; what never did is left out."""
        return {tag: float(count) for tag, count in self.counts.items() if count}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts; what happened in a row begins anew, so that a run that ended so can go on."""
        return {tag.rpartition("/")[2]: count for tag, count in self.counts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; what an older checkpoint does not know is 0."""
        self.counts = {tag: int(state.get(tag.rpartition("/")[2], 0)) for tag in TAGS}
        self._steps_in_a_row, self._updates_in_a_row = {}, {}
