"""Pickles as symbols: what is read equals what pickle would make, and nothing is made."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.freeze.symbols import (
    MOST_STEPS,
    Made,
    Name,
    Persistent,
    as_array,
    as_bytes,
    as_dtype,
    as_integers,
    as_number,
    as_state,
    is_made_by,
    read,
    read_whole,
)
from hostile import Bomb

PROTOCOLS = st.integers(2, 5)
KEYS = st.text() | st.integers(-(2**60) + 1, 2**60 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
NUMBERS = hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?") | hnp.boolean_dtypes()
NUMBERS |= hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
ARRAYS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, min_side=0))


@given(PLAIN, st.integers(3, 5))
def test_plain_values(value: Any, protocol: int) -> None:
    """Values of Python's own plain types are what they were."""
    assert read_whole(pickle.dumps(value, protocol)) == value


@given(ARRAYS, PROTOCOLS, st.booleans())
def test_arrays(array: np.ndarray, protocol: int, fortran: bool) -> None:
    """An array of any shape, byte order and layout is what it was, through every protocol."""
    given = np.array(array, order="F" if fortran else "C")
    read_back = as_array(read_whole(pickle.dumps(given, protocol)))
    assert read_back.dtype == array.dtype.newbyteorder("=") and read_back.shape == array.shape
    np.testing.assert_array_equal(read_back, array)


@given(hnp.from_dtype(np.dtype("f8"), allow_nan=False) | hnp.from_dtype(np.dtype("i8")), PROTOCOLS)
def test_numbers(number: np.generic, protocol: int) -> None:
    """A scalar of numpy is the number that it was."""
    assert as_number(read_whole(pickle.dumps(number, protocol))) == number.item()


def test_old_names_of_numpy() -> None:
    """Arrays that numpy 1 pickled, when its modules had other names, are read."""
    array = np.arange(6.0).reshape(2, 3)
    for protocol in (3, 5):
        assert b"numpy._core" in pickle.dumps(array, protocol)
    for protocol in (2, 3):  # in later ones the length of a name stands before it
        old = pickle.dumps(array, protocol).replace(b"numpy._core", b"numpy.core")
        np.testing.assert_array_equal(as_array(read_whole(old)), array)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_are_symbols(protocol: int, tmp_path: Path) -> None:
    """What would be called stays a symbol with its arguments: nothing runs."""
    marker = tmp_path / "marker"
    node = read_whole(pickle.dumps({"bomb": Bomb(marker), "class": Path, "rest": 1}, protocol))
    bomb = node["bomb"]
    assert isinstance(bomb, Made) and bomb.maker.name == "exec" and bomb.args == (f"open({str(marker)!r}, 'w')",)
    assert node["class"] == Name("pathlib", "Path") and node["rest"] == 1 and not marker.exists()
    assert is_made_by(bomb, bomb.maker) and not is_made_by(bomb, Name("os", "system")) and not is_made_by(1, bomb.maker)


class Thing:
    """Something with attributes and slots."""

    __slots__ = ("__dict__", "b")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_and_items(protocol: int) -> None:
    """Attributes, also beside slots, and items of an ordered dictionary are kept with the symbol."""
    thing = Thing()
    thing.a, thing.b = 1, 2
    assert as_state(read_whole(pickle.dumps(thing, protocol))) == {"a": 1}
    ordered = read_whole(pickle.dumps(collections.OrderedDict(a=1, b=2), protocol))
    assert isinstance(ordered, Made) and ordered.items == {"a": 1, "b": 2}
    queue = read_whole(pickle.dumps(collections.deque([1, 2], 3), protocol))
    assert isinstance(queue, Made) and queue.maker == Name("collections", "deque")
    assert sorted(read_whole(pickle.dumps({1, 2}, max(protocol, 4)))) == [1, 2]
    assert sorted(read_whole(pickle.dumps(frozenset({1, 2}), max(protocol, 4)))) == [1, 2]
    with pytest.raises(ValueError, match="no attributes"):
        as_state(ordered)


def test_one_after_the_other() -> None:
    """Pickles that follow each other are read from where the last one ended."""
    both = pickle.dumps([1]) + pickle.dumps([2])
    first, end = read(both)
    assert (first, read(both, end)) == ([1], ([2], len(both)))
    with pytest.raises(ValueError, match="followed by something else"):
        read_whole(both)


def test_persistent_identifiers() -> None:
    """What lies outside is known by its identifier."""
    node = read_whole(b"\x80\x02X\x03\x00\x00\x00keyQ.")
    assert isinstance(node, Persistent) and node.key == "key"


DEEP = 40_000  # below MOST_STEPS, and far deeper than the interpreter recurses
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "damaged or cut short"),
    "cut short": (pickle.dumps([1, "two"])[:-3], "damaged or cut short"),
    "text": (b"hello", "in it"),
    "no text": (b"\x80\x04\x8c\x02\xff\xfe.", "damaged or cut short"),
    "an empty stack": (b"\x80\x020.", "empty stack"),
    "nothing left": (b"\x80\x02.", "empty stack"),
    "two left": (b"\x80\x02NN.", "more than one"),
    "a mark left": (b"\x80\x02(N.", "more than one|empty stack"),
    "no mark": (b"\x80\x02Nt.", "misses a mark"),
    "through a mark": (b"\x80\x02N(0000.", "empty stack"),
    "never stored": (b"\x80\x02h\x05.", "never stored"),
    "an extension": (b"\x80\x02\x82\x01.", "token EXT1"),
    "an old instance": (b"(ios\nsystem\n.", "token INST"),
    "old text": (b"V\\u0041\n.", "token UNICODE"),
    "an old number": (b"I" + b"9" * 5000 + b"\n.", "token INT"),
    "a buffer outside": (b"\x80\x05\x97.", "token NEXT_BUFFER"),
    "a name of numbers": (b"\x80\x04K\x01K\x02\x93.", "no text"),
    "calls without a tuple": (b"\x80\x02NNR.", "no tuple"),
    "state of a list": (b"\x80\x02]Nb.", "state of what has none"),
    "appends to a number": (b"\x80\x02K\x01Na.", "appends to what is no list"),
    "items of a list": (b"\x80\x02]NNs.", "no dictionary"),
    "half an item": (b"\x80\x02}(Nu.", "no dictionary"),
    "keys that collide": (b"\x80\x02}\x8a\x09" + (2**65).to_bytes(9, "little") + b"Ns.", "key that is too"),
    "no number as a key": (b"\x80\x02}G\x7f\xf8\0\0\0\0\0\0Ns.", "or no number"),
    "a list as a key": (b"\x80\x02}]Ns.", "no plain values"),
    "a number too large": (b"\x80\x02\x8a\x40" + b"\x7f" * 64 + b".", "too large"),
    "too many tokens": (b"\x80\x02" + b"N0" * MOST_STEPS + b"N.", "tokens"),
    "a deep key": (b"\x80\x02}N" + b"\x85" * DEEP + b"Ns.", "no plain values"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged(damage: str) -> None:
    """A pickle that is not sound is refused, and the reason is said."""
    content, said = DAMAGED[damage]
    with pytest.raises(ValueError, match=said):
        read_whole(content)


@pytest.mark.parametrize("wrap", [b"\x85", b"Mark", b"\x85R"])
def test_depth_is_no_danger(wrap: bytes) -> None:
    """What nests deeper than the interpreter could follow is read, looked at and forgotten without following it."""
    if wrap == b"Mark":
        content = b"\x80\x02" + b"(" * (DEEP // 2) + b"N" + b"l" * (DEEP // 2) + b"."
    elif wrap == b"\x85R":
        content = b"\x80\x02" + b"N" * 15_000 + b"N" + wrap * 15_000 + b"."
    else:
        content = b"\x80\x02N" + wrap * DEEP + b"."
    node = read_whole(content)
    for look in (as_array, as_bytes, as_dtype, as_integers, as_number, as_state):
        with pytest.raises(ValueError, match="in it"):
            look(node)
    del node


def test_a_list_within_itself() -> None:
    """A list that holds itself is read, and is nothing that anyone asked for."""
    node = read_whole(b"\x80\x02]q\x00h\x00a.")
    with pytest.raises(ValueError, match="in it"):
        as_integers(node)


DTYPE = Made(Name("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None, -1, -1, 0))
RECONSTRUCT = Name("numpy._core.multiarray", "_reconstruct")
FRAME = (Name("numpy", "ndarray"), (0,), b"b")


@pytest.mark.parametrize(
    "node",
    [
        None,
        Made(RECONSTRUCT, FRAME),
        Made(RECONSTRUCT, FRAME, (1, (2,), DTYPE, False, b"\0" * 7)),
        Made(RECONSTRUCT, FRAME, (1, (-2, -1), DTYPE, False, b"\0" * 8)),
        Made(RECONSTRUCT, FRAME, (1, (True, 2), DTYPE, False, b"\0" * 8)),
        Made(RECONSTRUCT, FRAME, (1, (0, 2**40), DTYPE, False, b"")),
        Made(RECONSTRUCT, FRAME, (1, (1,) * 9, DTYPE, False, b"\0" * 4)),
        Made(RECONSTRUCT, FRAME, (1, ("2",), DTYPE, False, b"\0" * 8)),
        Made(RECONSTRUCT, FRAME, (1, (2,), Made(Name("numpy", "dtype"), ("O8",), None), False, [1, 2])),
        Made(RECONSTRUCT, FRAME, (1, (2,), Made(Name("numpy", "dtype"), (["f4"],), None), False, b"\0" * 8)),
        Made(RECONSTRUCT, FRAME, (1, (2,), DTYPE, False, ["bytes"])),
        Made(Name("numpy._core.numeric", "_frombuffer"), (b"\0" * 8, DTYPE, (2,), "A")),
        Made(Name("numpy.other", "_frombuffer"), (b"\0" * 8, DTYPE, (2,), "C")),
    ],
)
def test_what_is_no_array(node: Any) -> None:
    """Arrays of objects, of impossible shapes, or of another number of bytes are refused."""
    with pytest.raises(ValueError, match="in it"):
        as_array(node)
    assert as_array(Made(RECONSTRUCT, FRAME, (1, (2,), DTYPE, False, b"\0" * 8))).tolist() == [0, 0]


def test_what_is_no_number() -> None:
    """Truth values, arrays and texts are no numbers, and numbers with a fraction no whole ones."""
    for node in (True, "1", None, read_whole(pickle.dumps(np.zeros(1)))):
        with pytest.raises(ValueError, match="should be a number"):
            as_number(node)
    for node in ([1.5], 3, list(range(200)), None):
        with pytest.raises(ValueError, match="whole numbers"):
            as_integers(node)
    assert as_integers([1, read_whole(pickle.dumps(np.int64(2)))]) == [1, 2]


def test_names_are_printable() -> None:
    """A name is shown in letters that no terminal takes for commands, and not at any length."""
    assert str(Name("a\x1b[2J", "b" * 500)) == r"a\x1b[2J." + "b" * 111
