"""The spaces of gym and gymnasium as they lie in a pickle: what a policy sees and what it may do."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from agent.freeze.symbols import Made, Name, Node, as_array, as_dtype, as_integers, as_state

MODULES = re.compile(r"(gym|gymnasium)\.spaces(\.[a-z_]+)?")
MOST_ENTRIES = 2**21  # of an observation; four pictures of 84 x 84 have 28,224


@dataclass(frozen=True, eq=False)
class Box:
    """Numbers between `low` and `high`, both of `dtype`."""

    low: np.ndarray
    high: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The sides."""
        return self.low.shape

    @property
    def is_picture(self) -> bool:
        """What stable-baselines3 takes for a picture, and then divides by 255."""
        bytes_in_three_axes = self.low.ndim == 3 and self.low.dtype == np.uint8
        return bool(bytes_in_three_axes and (self.low == 0).all() and (self.high == 255).all())


@dataclass(frozen=True)
class Discrete:
    """start, start + 1, ... start + n - 1."""

    n: int
    start: int


@dataclass(frozen=True)
class MultiBinary:
    """Zeros and ones."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class OtherSpace:
    """A space known by its name only."""

    kind: str


Space = Box | Discrete | MultiBinary | OtherSpace


def as_space(node: Node) -> Space:
    """Return the space; ValueError when it is none of gym's and gymnasium's, or not sound."""
    if not (isinstance(node, Made) and isinstance(node.maker, Name) and MODULES.fullmatch(node.maker.module)):
        what = node.maker if isinstance(node, Made) and isinstance(node.maker, Name) else "something else"
        raise ValueError(f"it has {what} where a space of gym or gymnasium belongs.")
    kind, state = node.maker.name, as_state(node)
    if kind == "Box":
        return _box(state)
    if kind == "Discrete":
        n, start = as_integers([state.get("n"), state.get("start", 0)])
        if not 1 <= n <= MOST_ENTRIES:
            raise ValueError(f"it has a Discrete space of {n} values.")
        return Discrete(n, start)
    if kind == "MultiBinary":
        n = state.get("n")
        shape = tuple(as_integers(n if isinstance(n, list | tuple) else [n]))
        _check_shape(shape)
        return MultiBinary(shape)
    return OtherSpace(str(Name("", kind))[1:])


def _box(state: dict[str, Node]) -> Box:
    low, high, dtype = as_array(state.get("low")), as_array(state.get("high")), as_dtype(state.get("dtype"))
    shape = tuple(as_integers(state.get("_shape", state.get("shape"))))  # the underscore came with gym 0.22
    _check_shape(shape)
    if not low.shape == high.shape == shape or {low.dtype, high.dtype} != {dtype.newbyteorder("=")}:
        raise ValueError("it has a Box space whose limits do not fit its shape and type.")
    if not (low <= high).all():
        raise ValueError("it has a Box space whose lower limits are not below its upper ones.")
    return Box(low, high)


def _check_shape(shape: tuple[int, ...]) -> None:
    size = 1
    for side in shape:
        size *= side
        if side < 1 or size > MOST_ENTRIES:
            raise ValueError(f"it has a space of shape {shape}, which no game has.")
