"""Records that are only ever appended, as a leaf of a state tree: a film's frames, which are too many to save again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

GROUP_BYTES = 1 << 20  # what is read, checked and written at a time


class Records(NamedTuple):
    """Some records, and whose they are."""

    columns: np.ndarray  # i64 [N]
    numbers: np.ndarray  # i64 [N]
    sizes: np.ndarray  # i64 [N], bytes
    data: np.ndarray  # u8 [sum of sizes]

    def pieces(self) -> list[np.ndarray]:
        """Return the bytes of each record."""
        return np.split(self.data, np.cumsum(self.sizes)[:-1])

    def only(self, chosen: np.ndarray) -> Records:
        """Return those of which `chosen`, bool [N], is true."""
        data = self.data[np.repeat(chosen, self.sizes)]
        return Records(self.columns[chosen], self.numbers[chosen], self.sizes[chosen], data)


class Segment(NamedTuple):
    """A segment as whoever appends remembers it: the records of each column from `first` up to `stop`, i64 [columns]."""

    name: str
    first: np.ndarray
    stop: np.ndarray
    record: dict[str, Any]  # for a manifest

    def live(self, first: np.ndarray) -> int:
        """Return how many of its records still count when `first` are the oldest that do."""
        return int((self.stop - np.maximum(self.first, first)).clip(0).sum())


class Kept:
    """Which records lie in which segments of which folder: what need not be written again. A save changes it in place.

    It belongs to one history of records; a state that is loaded brings its own.
    """

    def __init__(self, home: str = "", segments: Sequence[Segment] = ()) -> None:
        self.home, self.segments = home, list(segments)
        self.used = 0  # the highest number ever given to a segment, whether it was finished or not

    def copy(self) -> Kept:
        """Return one that later saves leave alone."""
        other = Kept(self.home, self.segments)
        other.used = self.used
        return other


class Appended:
    """A leaf of a state tree: records in columns, numbered from 0 in each, that never change once they are there.

    Of each column those from `first` up to `stop`, i64 [columns], still count. `layout` says in JSON what a record is;
    its `record_bytes` is the size of every one, or None where each has its own.
    """

    def __init__(self, layout: Mapping[str, Any], first: np.ndarray, stop: np.ndarray, kept: Kept) -> None:
        self.layout, self.kept = dict(layout), kept
        self.first, self.stop = first.astype(np.int64), stop.astype(np.int64)

    def groups(self) -> Iterator[Records]:
        """Yield every record that counts, some at a time."""
        raise NotImplementedError

    def records(self) -> dict[tuple[int, int], bytes]:
        """Return every record that counts by column and number. For small ones: it takes time and memory."""
        return {
            (int(column), int(number)): piece.tobytes()
            for group in self.groups()
            for column, number, piece in zip(group.columns, group.numbers, group.pieces(), strict=True)
        }

    def __len__(self) -> int:
        return int((self.stop - self.first).sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Appended):
            return NotImplemented
        return self.layout == other.layout and len(self) == len(other) and self.records() == other.records()

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Loaded:
        copies = [Records(*(array.copy() for array in group)) for group in self.groups()]
        return Loaded(self.layout, self.first, self.stop, self.kept.copy(), [copies])


class Growing(Appended):
    """Records in the memory of whoever appends them."""

    def __init__(
        self,
        layout: Mapping[str, Any],
        first: np.ndarray,
        stop: np.ndarray,
        kept: Kept,
        *,
        most_bytes: int,
        read: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """`read(columns, numbers)`, i64 [N], gives sizes and data as in `Records`; no record is above `most_bytes`."""
        super().__init__(layout, first, stop, kept)
        self.most_bytes, self._read = most_bytes, read

    def groups(self) -> Iterator[Records]:
        """See `Appended`."""
        yield from self.between(self.first, self.stop)

    def between(self, first: np.ndarray, stop: np.ndarray) -> Iterator[Records]:
        """Yield the records from `first` up to `stop`, a group of a segment at a time."""
        for columns, numbers in groups(first, stop, self.group):
            yield Records(columns, numbers, *self._read(columns, numbers))

    @property
    def group(self) -> int:
        """Records in a group."""
        return max(1, GROUP_BYTES // self.most_bytes)


class Loaded(Appended):
    """Records as a checkpoint gave them back. They go where they belong; as they are they cannot be saved again."""

    def __init__(
        self,
        layout: Mapping[str, Any],
        first: np.ndarray,
        stop: np.ndarray,
        kept: Kept,
        held: Sequence[Iterable[Records]],
    ) -> None:
        super().__init__(layout, first, stop, kept)
        self._held = held

    def groups(self) -> Iterator[Records]:
        """See `Appended`."""
        for records in (records for each in self._held for records in each):
            counts = (self.first[records.columns] <= records.numbers) & (records.numbers < self.stop[records.columns])
            if counts.all():
                yield records
            elif counts.any():
                yield records.only(counts)


def groups(first: np.ndarray, stop: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield columns and numbers, i64 [at most `size`], of all records from `first` up to `stop`, column by column."""
    ends = np.cumsum(stop - first)
    for start in range(0, int(ends[-1]) if len(ends) else 0, size):
        index = np.arange(start, min(start + size, ends[-1]))
        columns = np.searchsorted(ends, index, "right")
        yield columns, stop[columns] - ends[columns] + index


def reach(segments: Iterable[Segment], first: np.ndarray) -> np.ndarray | None:
    """Return up to where, i64 [columns], segments hold every record from `first` on; None when one is missing."""
    reached = first.copy()
    for segment in segments:
        further = segment.stop > np.maximum(segment.first, reached)
        if (segment.first > reached)[further].any():
            return None
        reached[further] = segment.stop[further]
    return reached
