"""Spaces of gym and gymnasium, read from their pickles without either."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.freeze.spaces import MOST_ENTRIES, MOST_PARTS, Box, Discrete, MultiBinary, MultiDiscrete, OtherSpace, Parts
from agent.freeze.spaces import as_space, kind_of, num_entries
from agent.freeze.symbols import Made, Name, read_whole
from hostile import members_of
from strangers import ZOO

FINITE = st.floats(-100, 100, width=32)


@given(hnp.arrays("f4", hnp.array_shapes(max_dims=3), elements=FINITE), st.integers(2, 5), st.booleans())
def test_boxes(low: np.ndarray, protocol: int, unbounded: bool) -> None:
    """A Box has the limits that it had, through every protocol; without drawing from it or after."""
    high = np.full_like(low, np.inf) if unbounded else low + 1
    box = spaces.Box(low, high, dtype=np.float32)
    for _ in range(2):
        space = as_space(read_whole(pickle.dumps(box, protocol)))
        assert isinstance(space, Box) and space.shape == box.shape and space.low.dtype == np.float32
        assert (space.low == box.low).all() and (space.high == box.high).all() and not space.is_picture
        box.seed(0)  # now it has a generator, which is pickled with it


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_spaces(protocol: int) -> None:
    """Choices, zeros and ones, and dictionaries in their order are read; the rest is known by name."""

    def through(space: spaces.Space) -> Any:
        return as_space(read_whole(pickle.dumps(space, protocol)))

    assert through(spaces.Discrete(5)) == Discrete(5, 0)
    assert through(spaces.Discrete(5, start=2)) == Discrete(5, 2)
    assert through(spaces.MultiBinary(3)) == MultiBinary((3,))
    assert through(spaces.MultiBinary([3, 4])) == MultiBinary((3, 4))
    assert through(spaces.MultiDiscrete([3, 4])) == MultiDiscrete((3, 4)) and MultiDiscrete((3, 4)).shape == (2,)
    assert kind_of(through(spaces.MultiDiscrete([3, 4], start=[1, 0]))).startswith("MultiDiscrete of several axes")
    assert kind_of(through(spaces.MultiDiscrete([[3, 4]]))).startswith("MultiDiscrete of several axes")
    mixed = through(spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict(c=spaces.Discrete(3))}))
    assert mixed == Parts({"a": OtherSpace("Dict"), "b": Discrete(2, 0)}) and kind_of(mixed) == "Dict"
    assert list(through(spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))])).parts) == ["b", "a"]
    assert through(spaces.Tuple([spaces.Discrete(2)])) == OtherSpace("Tuple")


@pytest.mark.parametrize(
    ("low", "high", "shape", "dtype", "is_picture"),
    [
        (0, 255, (3, 4, 5), np.uint8, True),
        (0, 255, (3, 4), np.uint8, False),
        (0, 1, (3, 4, 5), np.uint8, False),
        (1, 255, (3, 4, 5), np.uint8, False),
        (0, 255, (3, 4, 5), np.float32, False),
    ],
)
def test_pictures(low: int, high: int, shape: tuple[int, ...], dtype: type, is_picture: bool) -> None:
    """A picture is what stable-baselines3 takes for one: bytes from 0 to 255 in three axes."""
    from stable_baselines3.common.preprocessing import is_image_space

    box = spaces.Box(low, high, shape, dtype)
    space = as_space(read_whole(pickle.dumps(box)))
    assert isinstance(space, Box) and space.is_picture == is_picture == is_image_space(box)


def test_spaces_of_gym() -> None:
    """Spaces that gym pickled in 2021 are read."""
    data = json.loads(members_of(ZOO / "sac-Pendulum-v1.zip")["data"])
    fields = (data[name][":serialized:"] for name in ("observation_space", "action_space"))
    seen, actions = (as_space(read_whole(base64.b64decode(field))) for field in fields)
    assert isinstance(seen, Box) and seen.low.tolist() == [-1, -1, -8] and seen.high.tolist() == [1, 1, 8]
    assert isinstance(actions, Box) and actions.low.tolist() == [-2] and actions.high.tolist() == [2]


def changed(space: spaces.Space, **state: Any) -> Made:
    """The symbol of a space with other attributes."""
    node = read_whole(pickle.dumps(space))
    node.state |= state
    return node


BOX = spaces.Box(-1, 1, (2,), np.float32)


def array(*numbers: float, dtype: str = "f4") -> Any:
    """The symbol of an array."""
    return read_whole(pickle.dumps(np.array(numbers, dtype)))


DICT = spaces.Dict(a=spaces.Discrete(2))
SWITCH = changed(spaces.Discrete(2))
HALF = changed(spaces.MultiBinary(2), n=MOST_ENTRIES // 2)


def test_entries() -> None:
    """A network sees a choice as so many zeros and a one."""
    assert [num_entries(each) for each in (Discrete(5, 0), MultiDiscrete((2, 3)), MultiBinary((3, 4)))] == [5, 5, 12]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (None, "something else where a space"),
        (Made(Name("os", "system"), ("ls",)), "os.system where a space"),
        (Made(Name("gym.spacesque", "Box"), ()), "where a space"),
        (Made(Name("gym.spaces.box", "Box"), ()), "no attributes"),
        (changed(BOX, low=array(-1, -1, -1)), "do not fit"),
        (changed(BOX, low=array(-1, -1, dtype="f8")), "do not fit"),
        (changed(BOX, _shape=(3,)), "do not fit"),
        (changed(BOX, _shape=(2, -1)), "no game has"),
        (changed(BOX, low=array(-1, float("nan"))), "not below"),
        (changed(BOX, low=array(-1, 2)), "not below"),
        (changed(BOX, low=None), "should be an array"),
        (changed(spaces.Discrete(2), n=0), "of 0 values"),
        (changed(spaces.Discrete(2), n=2.5), "whole numbers"),
        (changed(spaces.Discrete(2), n=10**12), "values"),
        (changed(spaces.MultiBinary(2), n=10**9), "no game has"),
        (changed(spaces.MultiBinary(2), n=[MOST_ENTRIES, 2]), "no game has"),
        (changed(spaces.MultiDiscrete([2]), nvec=array(0, 2, dtype="i8")), "choices that no game has"),
        (changed(spaces.MultiDiscrete([2]), nvec=array(2**40, dtype="i8")), "choices that no game has"),
        (changed(spaces.MultiDiscrete([2]), nvec=array(2.5)), "choices that no game has"),
        (changed(spaces.MultiDiscrete([2]), nvec=array(*[2] * (MOST_PARTS + 1), dtype="i8")), "choices that no game"),
        (changed(DICT, spaces={}), "without parts"),
        (changed(DICT, spaces=[1]), "without parts"),
        (changed(DICT, spaces={str(n): SWITCH for n in range(MOST_PARTS + 1)}), "more than 100"),
        (changed(DICT, spaces={1: SWITCH}), "a part named 1"),
        (changed(DICT, spaces={"a" * 300: SWITCH}), "a part named 'aaa"),
        (changed(DICT, spaces={"a": None}), "something else where a space"),
        (changed(DICT, spaces={str(n): HALF for n in range(3)}), "more than 2097152 entries"),
    ],
)
def test_what_is_no_space(node: Any, said: str) -> None:
    """What is no space, or one that could not be, is refused, and the reason is said."""
    with pytest.raises(ValueError, match=said):
        as_space(node)
