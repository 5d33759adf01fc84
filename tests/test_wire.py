"""Messages between a vector and its workers: what is sent arrives, and nothing else is believed."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import wire
from envs.wire import HEAD, MAGIC, SLICE_S, Channel, Garbled, Patience, packed, readable, unpacked


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket, Channel]]:
    """One end as a channel, and the other one as it is and as a channel."""
    here, there = socket.socketpair()
    yield Channel(here, 64), there, Channel(there, 64)
    here.close()
    there.close()


def test_messages_arrive_in_order_whatever_their_size(ends) -> None:
    """Empty, usual, larger than the usual one, and far larger than what a socket holds at once."""
    one, _, other = ends
    payloads = [b"", b"x" * 64, b"y" * 65, bytes(range(256)) * 40_000]
    asked = threading.Semaphore(0)  # as a game is: it says nothing before the next question

    def send() -> None:
        for number, payload in enumerate(payloads):
            asked.acquire()
            one.send(number, 2**32 - 1 - number, payload, Patience(60.0))

    sender = threading.Thread(target=send)
    sender.start()
    for number, payload in enumerate(payloads):
        asked.release()
        kind, answered, arrived = other.recv(Patience(60.0))
        assert (kind, answered, bytes(arrived)) == (number, 2**32 - 1 - number, payload)
    sender.join()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"what a game should never write", "which is no answer"),
        (HEAD.pack(b"xx", 1, 1, 0), "which is no answer"),
        (HEAD.pack(MAGIC, 1, 1, wire.LARGEST + 1), "which is no answer"),
        (HEAD.pack(MAGIC, 1, 1, 0) + b"more", "4 bytes more than its answer"),
    ],
)
def test_what_is_no_message_is_refused(sent: bytes, said: str, ends) -> None:
    """A wrong magic, a senseless length and bytes after the end are answered with what came."""
    one, raw, _ = ends
    raw.sendall(sent)
    with pytest.raises(Garbled, match=said):
        one.recv(Patience(60.0))


def test_an_end_and_a_silence_are_told_apart(ends) -> None:
    """A closed socket is EOFError, also in the middle of a message; silence is TimeoutError, and costs no message."""
    one, raw, other = ends
    with pytest.raises(TimeoutError):
        one.recv(Patience(0.01))
    other.send(3, 4, b"late", Patience(60.0))
    assert one.recv(Patience(60.0))[0] == 3
    raw.sendall(HEAD.pack(MAGIC, 1, 1, 9) + b"only")
    raw.close()
    with pytest.raises(EOFError):
        one.recv(Patience(60.0))


def test_time_in_which_nobody_could_answer_does_not_count() -> None:
    """A slice of a wait that took an hour, as the machine slept, counts for no more than its length."""
    patience = Patience(1.0)
    patience.spend(3600.0)
    assert patience.left == 1.0 - SLICE_S and patience.slice() == SLICE_S
    patience.spend(SLICE_S)
    patience.spend(SLICE_S)
    with pytest.raises(TimeoutError):
        patience.spend(9.0)
    assert 0 < patience.slice() <= SLICE_S


def test_others_that_answer_keep_the_patience() -> None:
    """Time is counted anew whenever somebody answers for the first time, and only then."""
    answered: set[int] = set()
    patience = Patience(2 * SLICE_S, lambda: set(answered))
    for number in range(9):
        patience.spend(SLICE_S)
        answered.add(number)
    patience.spend(SLICE_S)
    patience.spend(SLICE_S)
    with pytest.raises(TimeoutError):
        patience.spend(SLICE_S)


def test_what_can_be_read_is_told_without_reading(ends) -> None:
    """Something arrived, or the end did."""
    one, raw, other = ends
    assert readable([one, other]) == set()
    raw.sendall(b"x")
    assert readable([one, other]) == {one.fileno()}
    one.close()
    assert readable([other]) == {other.fileno()}


plain = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text()
arrays = st.builds(
    lambda shape, dtype: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["u1", "i8", "f4", "f8", "?", "u4"]),
)
trees = st.recursive(
    plain | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


def same(one: object, other: object) -> bool:
    """Whether two trees are equal, types and shapes of arrays included."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(trees)
def test_a_tree_comes_back(tree: object) -> None:
    """Every tree of plain values and arrays is unpacked as it was packed."""
    assert same(unpacked(packed(tree)), tree)


@given(st.binary(max_size=80), trees, st.integers(0, 60))
def test_bytes_that_are_no_tree_are_refused(junk: bytes, tree: object, at: int) -> None:
    """Junk, truncations and changed bytes give a tree or Garbled, never another error."""
    whole = packed(tree)
    changed = bytearray(whole)
    changed[at % len(whole)] ^= 0x55
    for data in (junk, whole[:at], bytes(changed), struct.pack("<Q", 2**63) + whole):
        try:
            unpacked(data)
        except Garbled:
            continue


def test_an_array_of_objects_is_never_made() -> None:
    """A type that would need unpickling is refused."""
    text = b'{"": ["|O", [1]]}'
    with pytest.raises(Garbled):
        unpacked(struct.pack("<Q", len(text)) + text + b"\0" * 8)
