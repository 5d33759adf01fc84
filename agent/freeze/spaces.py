"""The spaces of gym and gymnasium as they lie in a pickle: what a policy sees and what it may do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from agent.freeze.symbols import Made, Name, Node, as_array, as_dtype, as_integers, as_state, is_made_by

MODULES = re.compile(r"(gym|gymnasium)\.spaces(\.[a-z_]+)?")
MOST_ENTRIES = 2**21  # of an observation, all its parts together; four pictures of 84 x 84 have 28,224
MOST_PARTS = 100  # of an observation of several parts, or of an action of several choices


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
class MultiDiscrete:
    """Several choices, the i-th among 0 ... nvec[i] - 1."""

    nvec: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sides."""
        return (len(self.nvec),)


@dataclass(frozen=True)
class OtherSpace:
    """A space known by its name only."""

    kind: str


Part = Box | Discrete | MultiBinary | MultiDiscrete | OtherSpace


@dataclass(frozen=True)
class Parts:
    """Several observations with names, in the order in which a policy puts their features together."""

    parts: dict[str, Part]


Space = Part | Parts


def kind_of(space: Space) -> str:
    """Return gymnasium's name of the space."""
    return space.kind if isinstance(space, OtherSpace) else "Dict" if isinstance(space, Parts) else type(space).__name__


def as_space(node: Node) -> Space:
    """Return the space; ValueError when it is none of gym's and gymnasium's, or not sound."""
    kind, state = _kind_and_state(node)
    if kind != "Dict":
        return _as_part(node)
    inner = state.get("spaces")
    inner = inner.items if is_made_by(inner, Name("collections", "OrderedDict")) else inner
    if not isinstance(inner, dict) or not 0 < len(inner) <= MOST_PARTS:
        raise ValueError(f"it has a Dict space without parts, or of more than {MOST_PARTS}.")
    parts: dict[str, Part] = {}
    entries = 0
    for name, part in inner.items():
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise ValueError(f"it has a Dict space with a part named {ascii(name)[:80]}.")
        parts[name] = _as_part(part)
        entries += num_entries(parts[name])
        if entries > MOST_ENTRIES:
            raise ValueError(f"it has a Dict space of more than {MOST_ENTRIES} entries, which no game has.")
    return Parts(parts)


def num_entries(space: Part) -> int:
    """Return how many numbers a network sees of it."""
    match space:
        case Discrete(n=n):
            return n
        case MultiDiscrete(nvec=nvec):
            return sum(nvec)
        case Box() | MultiBinary():
            return math.prod(space.shape)
    return 0


def _kind_and_state(node: Node) -> tuple[str, dict[str, Node]]:
    if not (isinstance(node, Made) and isinstance(node.maker, Name) and MODULES.fullmatch(node.maker.module)):
        what = node.maker if isinstance(node, Made) and isinstance(node.maker, Name) else "something else"
        raise ValueError(f"it has {what} where a space of gym or gymnasium belongs.")
    return node.maker.name, as_state(node)


def _as_part(node: Node) -> Part:
    kind, state = _kind_and_state(node)
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
    if kind == "MultiDiscrete":
        return _multi_discrete(state)
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


def _multi_discrete(state: dict[str, Node]) -> MultiDiscrete | OtherSpace:
    nvec, start = as_array(state.get("nvec")), state.get("start")  # the start came with gymnasium 0.29
    if nvec.ndim != 1 or (start is not None and as_array(start).any()):
        return OtherSpace("MultiDiscrete of several axes or of another start than 0")
    if nvec.dtype.kind not in "iu" or not 0 < len(nvec) <= MOST_PARTS or not ((nvec >= 1) & (nvec <= 2**16)).all():
        raise ValueError("it has a MultiDiscrete space of choices that no game has.")
    return MultiDiscrete(tuple(nvec.tolist()))


def _check_shape(shape: tuple[int, ...]) -> None:
    size = 1
    for side in shape:
        size *= side
        if side < 1 or size > MOST_ENTRIES:
            raise ValueError(f"it has a space of shape {shape}, which no game has.")
