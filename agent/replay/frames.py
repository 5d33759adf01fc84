"""What a film keeps its frames in: one tensor, or LZ4 blocks in pages of host memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cramjam
import numpy as np
import torch

from agent.appended import Records

PAGE_BYTES = 1 << 18
UNLIKE = "The saved film's frames are {}compressed, this one's are{}: set replay.compression as it was when saved."


class Part(NamedTuple):
    """Some of a film's frames as they were saved."""

    slots: np.ndarray  # i64 [N]
    records: Records


class Frames(Protocol):
    """The frame of every slot of a film, and behind the last slot one more that stays zero."""

    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes held."""

    def write(self, slots: torch.Tensor, frames: torch.Tensor) -> None:
        """Put `frames`, [M, elements], where the old ones of `slots`, i64 [M], lie; no slot may be named twice."""

    def read(self, slots: torch.Tensor) -> torch.Tensor:
        """Return the frames of `slots`, i64 [N] -> [N, elements], not a view."""

    @property
    def layout(self) -> dict[str, Any]:
        """What `records` gives, as `agent.appended.Appended` has it."""

    def records(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sizes, i64 [N], and the bytes one after the other, u8, of the frames of `slots`, as they are."""

    def load(self, parts: Iterable[Part], num_slots: int) -> None:
        """Take over what `records` gave, and be empty elsewhere; ValueError, and nothing changed, when one is damaged.

        No slot is at or above `num_slots`.
        """

    def load_version_1(self, saved: Any, num_slots: int) -> None:
        """Take over the frames of a checkpoint of version 1; ValueError, and nothing changed, when they do not fit."""


def zeros(shape: tuple[int, ...], dtype: str, device: torch.device) -> torch.Tensor:
    """Return a tensor of zeros; on the host it takes memory only as it is written, so that a large film starts fast."""
    if device.type == "cpu":  # numpy's do, torch's do not
        return torch.from_numpy(np.zeros(shape, dtype))
    return torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=device)


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return `array` on a device; on a GPU the copy is not waited for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def check_like(name: str, saved: Any, ours: torch.Tensor) -> None:
    """Raise ValueError unless `saved` is a tensor of the type and shape of `ours`."""
    if not isinstance(saved, torch.Tensor):
        raise ValueError(f"The saved film's {name} is no tensor.")
    if saved.shape != ours.shape or saved.dtype != ours.dtype:
        raise ValueError(
            f"The saved film's {name} is {saved.dtype} {list(saved.shape)}, this one's {ours.dtype} {list(ours.shape)}."
        )


def check_layout(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ValueError unless frames of the layout `saved` can be taken over where they are kept as `ours` says."""
    if saved.get("frames") != ours["frames"]:
        raise ValueError(UNLIKE.format("", " not") if ours["frames"] == "plain" else UNLIKE.format("not ", ""))
    if saved != ours:
        kinds = [f"{each.get('dtype')} [{each.get('elements')}]" for each in (saved, ours)]
        raise ValueError("The saved film's frames are {}, this one's {}.".format(*kinds))


class PlainFrames:
    """Frames as they are, in one tensor on any device."""

    def __init__(self, num_slots: int, elements: int, dtype: str, device: torch.device) -> None:
        self.tensor = zeros((num_slots + 1, elements), dtype, device)
        self.dtype = self.tensor.dtype

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self.tensor.nbytes

    def write(self, slots: torch.Tensor, frames: torch.Tensor) -> None:
        """See `Frames`."""
        self.tensor.index_copy_(0, slots, frames)

    def read(self, slots: torch.Tensor) -> torch.Tensor:
        """See `Frames`."""
        return self.tensor.index_select(0, slots)

    @property
    def layout(self) -> dict[str, Any]:
        """See `Frames`."""
        _, elements = self.tensor.shape
        dtype, size = str(self.dtype).removeprefix("torch."), elements * self.tensor.itemsize
        return {"frames": "plain", "dtype": dtype, "elements": elements, "record_bytes": size}

    def records(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Frames`."""
        found = self.read(send(slots, self.tensor.device)).cpu().view(torch.uint8).numpy()
        return np.full(len(slots), self.layout["record_bytes"], np.int64), found.reshape(-1)

    def load(self, parts: Iterable[Part], num_slots: int) -> None:
        """See `Frames`."""
        empty = np.ones(num_slots, bool)
        for slots, records in parts:
            rows = torch.from_numpy(records.data.copy()).view(self.dtype).view(len(slots), -1)
            self.tensor.index_copy_(0, send(slots, self.tensor.device), rows.to(self.tensor.device))
            empty[slots] = False
        self.tensor.index_fill_(0, send(np.flatnonzero(empty), self.tensor.device), 0)

    def load_version_1(self, saved: Any, num_slots: int) -> None:
        """See `Frames`."""
        if isinstance(saved, Mapping):
            raise ValueError(UNLIKE.format("", " not"))
        check_like("frames", saved, self.tensor[:num_slots])
        self.tensor[:num_slots].copy_(saved)


class CompressedFrames:
    """Frames of u8 as LZ4 blocks on the host, each read by decompressing it once, wherever it is needed.

    The blocks of a column lie one behind another in pages of its own. As the oldest of a column are the first to be
    overwritten, pages become free one by one and are used again: nothing is moved, and besides the blocks there are at
    most three pages a column. The number of rows is the limit; the bytes follow from what the frames are like.
    """

    dtype = torch.uint8

    def __init__(self, num_slots: int, num_columns: int, elements: int) -> None:
        self._num_columns, self._elements = num_columns, elements
        empty = np.zeros(elements, np.uint8)
        self._block = np.zeros(cramjam.lz4.compress_block_bound(empty), np.uint8)  # the one that is being made
        zero = self._compress(empty)
        self._pages = _Pages(max(PAGE_BYTES, len(self._block)), num_columns, zero)
        # Page, start and end of each block; what was never written is the block of page 0.
        self._places = np.zeros((num_slots + 1, 3), np.int32)
        self._places[:, 2] = len(zero)

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._pages.bytes + self._places.nbytes

    def write(self, slots: torch.Tensor, frames: torch.Tensor) -> None:
        """See `Frames`."""
        for slot, frame in zip(slots.tolist(), frames.numpy(), strict=True):
            self._put(slot, self._compress(frame))

    def _compress(self, frame: np.ndarray) -> np.ndarray:
        """Return the block of a frame, u8 [elements]; it is overwritten by the next call."""
        return self._block[: cramjam.lz4.compress_block_into(frame, self._block, store_size=False)]

    def _put(self, slot: int, block: np.ndarray) -> None:
        old = int(self._places[slot, 0])
        self._places[slot] = self._pages.put(slot % self._num_columns, block)
        self._pages.release(old)

    def read(self, slots: torch.Tensor) -> torch.Tensor:
        """See `Frames`."""
        asked, size = slots.tolist(), self._elements
        found = torch.empty((len(asked), size), dtype=torch.uint8)
        last = dict(zip(asked, range(len(asked)), strict=True))  # each slot once -> where its frame is decompressed to
        pages, starts, ends = self._places.take(np.fromiter(last, np.int64, len(last)), 0).T.tolist()
        views, into = self._pages.views, memoryview(found.numpy().reshape(-1))
        decompress = cramjam.lz4.decompress_block_into
        for at, page, start, end in zip(last.values(), pages, starts, ends, strict=True):
            decompress(views[page][start:end], into[at * size : (at + 1) * size], size)
        if len(last) < len(asked):
            source = np.fromiter(map(last.__getitem__, asked), np.int64, len(asked))
            again = np.flatnonzero(source != np.arange(len(asked)))
            found.numpy()[again] = found.numpy()[source[again]]
        return found

    @property
    def layout(self) -> dict[str, Any]:
        """See `Frames`."""
        return {"frames": "lz4", "dtype": "uint8", "elements": self._elements, "record_bytes": None}

    def records(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Frames`."""
        places = self._places[slots]
        blocks = [self._pages.arrays[page][start:end] for page, start, end in places.tolist()]
        return (places[:, 2] - places[:, 1]).astype(np.int64), np.concatenate(blocks)

    def load(self, parts: Iterable[Part], num_slots: int) -> None:
        """See `Frames`."""
        self._load(
            (slot, block) for part in parts for slot, block in zip(part.slots, part.records.pieces(), strict=True)
        )

    def load_version_1(self, saved: Any, num_slots: int) -> None:
        """See `Frames`."""
        self._load(enumerate(self._blocks(saved, num_slots)))

    def _load(self, blocks: Iterable[tuple[int, np.ndarray]]) -> None:
        """Take over blocks by slot. Each is decompressed once, so that a damaged one is found here and not later."""
        new = CompressedFrames(len(self._places) - 1, self._num_columns, self._elements)
        frame = np.empty(self._elements, np.uint8)
        for slot, block in blocks:
            try:
                intact = 0 < len(block) <= len(self._block)
                intact = intact and cramjam.lz4.decompress_block_into(block, frame, len(frame)) == len(frame)
            except cramjam.DecompressionError:
                intact = False
            if not intact:
                raise ValueError(f"The saved film's frame {slot} is damaged: it does not decompress to a frame.")
            new._put(slot, block)
        self._pages, self._places = new._pages, new._places

    def _blocks(self, saved: Any, num_slots: int) -> Iterator[np.ndarray]:
        """Yield the saved blocks by slot; ValueError before the first one when one lies outside the saved pages."""
        if not isinstance(saved, Mapping):
            raise ValueError(UNLIKE.format("not ", ""))
        pages = saved.get("pages")
        if not isinstance(pages, Sequence) or not all(
            isinstance(page, torch.Tensor) and page.dtype == torch.uint8 and page.ndim == 1 for page in pages
        ):
            raise ValueError("The saved film's pages are not a list of bytes.")
        check_like("places", saved.get("places"), torch.from_numpy(self._places[:num_slots]))
        places = saved["places"].cpu().numpy().astype(np.int64)
        page, start, end = places.T
        sizes = np.array([len(page) for page in pages], np.int64)
        inside = (0 <= page) & (page < len(pages)) & (0 <= start) & (start < end)
        inside &= end - start <= len(self._block)
        inside &= end <= np.append(sizes, 0)[np.where(inside, page, -1)]
        if not inside.all():
            raise ValueError(f"The saved film's frame {inside.argmin()} lies outside its pages.")
        # Only rows that were never written may share a block: else a small file could ask for a lot of memory.
        if (end - start).sum() > sizes.sum() + num_slots * self._places[-1, 2]:
            raise ValueError("The saved film's frames lie one over another.")
        arrays = [page.cpu().numpy() for page in pages]
        return (arrays[p][s:e] for p, s, e in places.tolist())


class _Pages:
    """Memory for blocks, a page at a time. A page is in use while a block lies on it or a column writes to it."""

    def __init__(self, size: int, num_columns: int, first: np.ndarray) -> None:
        """`first` is the one block of page 0, which stays."""
        self._size = size
        self.arrays = [first.copy()]
        self.views = [memoryview(self.arrays[0])]
        self._uses: list[int | float] = [float("inf")]  # of each page
        self._free: list[int] = []
        self._heads = [(0, size)] * num_columns  # page to which the column writes, and where; these are full

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(page.nbytes for page in self.arrays)

    def put(self, column: int, block: np.ndarray) -> tuple[int, int, int]:
        """Copy `block`, u8 [at most a page], behind the column's last one; return its page, start and end."""
        page, start = self._heads[column]
        if start + len(block) > self._size:
            full, page, start = page, self._take(), 0
            self.release(full)
        end = start + len(block)
        self.arrays[page][start:end] = block
        self._uses[page] += 1
        self._heads[column] = page, end
        return page, start, end

    def release(self, page: int) -> None:
        """Count one use of a page less."""
        self._uses[page] -= 1
        if not self._uses[page]:
            self._free.append(page)

    def _take(self) -> int:
        if not self._free:
            page = np.zeros(self._size, np.uint8)  # not empty: what lay there before would get into checkpoints
            self.arrays.append(page)
            self.views.append(memoryview(page))
            self._uses.append(0)
            self._free.append(len(self.arrays) - 1)
        page = self._free.pop()
        self._uses[page] = 1
        return page
