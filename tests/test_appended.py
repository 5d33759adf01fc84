"""Records that are only appended, in memory: which there are, and what becomes of them in a copy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from faults.small_state import LENGTH, STEPS, Log
from hypothesis import given
from hypothesis import strategies as st

from agent import appended
from agent.appended import Growing, Kept, Loaded, Records, Segment, groups, reach

SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=4)


@given(SPANS, st.integers(1, 7))
def test_groups_are_all_records_in_order(spans: list[tuple[int, int]], size: int) -> None:
    """Each record from first up to stop comes once, column by column, in groups that are full but for the last."""
    first = np.array([start for start, _ in spans], np.int64)
    stop = first + np.array([count for _, count in spans], np.int64)
    found = list(groups(first, stop, size))
    wanted = [(column, number) for column in range(len(spans)) for number in range(first[column], stop[column])]
    together = [(int(c), int(n)) for columns, numbers in found for c, n in zip(columns, numbers, strict=True)]
    assert together == wanted
    assert all(len(columns) == size for columns, _ in found[:-1]) and all(len(columns) for columns, _ in found)


def test_records_are_told_apart() -> None:
    """Pieces are the bytes of each record, and `only` keeps the chosen ones with theirs."""
    records = Records(np.arange(3), np.arange(3) + 5, np.array([2, 0, 3]), np.frombuffer(b"abcde", np.uint8))
    assert [piece.tobytes() for piece in records.pieces()] == [b"ab", b"", b"cde"]
    chosen = records.only(np.array([False, True, True]))
    assert [piece.tobytes() for piece in chosen.pieces()] == [b"", b"cde"] and chosen.numbers.tolist() == [6, 7]


@pytest.mark.parametrize("sized", [False, True])
def test_leaves_are_compared_by_their_records(sized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal means the same records, however grouped; a deep copy is equal and stays when its source goes on."""
    leaf = Log(sized=sized).state(3)["log"]
    assert len(leaf) == 2 * LENGTH and leaf != "else"
    whole = leaf.records()
    copied = copy.deepcopy(leaf)
    monkeypatch.setattr(appended, "GROUP_BYTES", 11)
    again = Log(sized=sized).state(3)["log"]
    assert len(list(again.groups())) > len(list(copied.groups())) == 1
    assert leaf == again == copied and copied.records() == whole and isinstance(copied, Loaded)
    assert leaf != Log(sized=sized).state(4)["log"] and leaf != Log(sized=not sized).state(3)["log"]
    leaf._read = lambda columns, numbers: (np.ones(len(columns), int), np.zeros(len(columns), np.uint8))
    assert copied == again != leaf


def test_loaded_records_that_no_longer_count_are_left_out() -> None:
    """Of segments that hold more than is asked for, only what counts comes back; what does not is not looked at."""
    log = Log()
    held = [list(log.state(number)["log"].groups()) for number in (1, 2)]
    first, stop = np.array([1, 4]), np.array([6, 4])
    loaded = Loaded({"record_bytes": 5}, first, stop, Kept(), held)
    assert loaded.records() == {(0, number): log.record(0, number) for number in range(1, 6)}
    assert len(loaded) == 5


@given(st.lists(SPANS.filter(lambda spans: len(spans) == 2), max_size=4), st.integers(0, 5), st.integers(0, 5))
def test_reach_is_where_the_first_hole_is(pieces: list[list[tuple[int, int]]], one: int, two: int) -> None:
    """What segments hold without a hole from `first` on, in the order in which they were written; else None."""
    first = np.array([one, two])
    segments = [
        Segment("", np.array([a, b]), np.array([a + c, b + d]), {}) for (a, c), (b, d) in map(tuple, pieces)
    ]
    reached = first.copy()
    for segment in segments:
        for column in range(2):
            if segment.stop[column] > max(segment.first[column], reached[column]):
                if segment.first[column] > reached[column]:
                    assert reach(segments, first) is None
                    return
                reached[column] = segment.stop[column]
    found = reach(segments, first)
    assert found is not None and found.tolist() == reached.tolist()


def test_a_copy_of_what_is_kept_stays_as_it_was() -> None:
    """A later save changes the original only; numbers that were given away stay given away in both."""
    kept = Kept("somewhere", [Segment("a", STEPS, STEPS, {})])
    kept.used = 7
    other = kept.copy()
    kept.segments.append(kept.segments[0])
    assert len(other.segments) == 1 and (other.home, other.used) == ("somewhere", 7)


def test_a_group_holds_at_least_one_record() -> None:
    """Records larger than a group stand alone."""
    most = appended.GROUP_BYTES * 2
    leaf = Growing({"record_bytes": most}, STEPS, STEPS, Kept(), most_bytes=most, read=print)  # type: ignore[arg-type]
    assert leaf.group == 1
