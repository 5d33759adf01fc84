"""Compressed frames against plain ones, and against states that somebody broke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cramjam
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import checkpoint
from agent.appended import Records
from agent.replay import frames
from agent.replay.frames import CompressedFrames, Frames, Part, PlainFrames
from agent.replay.replay import Replay
from envs.fakes import CountingGame

ELEMENTS = 1200
PAGE = 3000  # so small that pages fill, become free and are used again


def picture(rng: np.random.Generator) -> np.ndarray:
    """A frame: noise, one colour, or something between."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, ELEMENTS, dtype=np.uint8)
    frame = np.full(ELEMENTS, rng.integers(256), np.uint8)
    if kind == 1:
        frame[rng.integers(0, ELEMENTS, 60)] = rng.integers(0, 256, 60)
    return frame


def both(num_slots: int, num_columns: int) -> tuple[PlainFrames, CompressedFrames]:
    """The obvious kind and the one under test, empty."""
    plain = PlainFrames(num_slots, ELEMENTS, "uint8", torch.device("cpu"))
    return plain, CompressedFrames(num_slots, num_columns, ELEMENTS)


def write(kinds: tuple, num_columns: int, length: int, ticks: range, rng: np.random.Generator) -> None:
    """Write `ticks` rows of some of the columns, each at its own pace, round and round."""
    cursor = np.zeros(num_columns, np.int64) + ticks.start
    for _ in ticks:
        columns = np.flatnonzero(rng.random(num_columns) < 0.8)
        slots = torch.from_numpy(cursor[columns] % length * num_columns + columns)
        cursor[columns] += 1
        rows = torch.from_numpy(np.array([picture(rng) for _ in columns], np.uint8).reshape(-1, ELEMENTS))
        for kind in kinds:
            kind.write(slots, rows)


def check(compressed: CompressedFrames) -> None:
    """Each page counts its blocks and the columns that write to it, free ones count none, no two blocks overlap."""
    pages, places = compressed._pages, compressed._places
    uses = np.bincount(places[:, 0], minlength=len(pages.arrays))
    for page, _ in pages._heads:
        uses[page] += 1
    assert pages._uses[1:] == uses[1:].tolist() and pages._uses[0] == float("inf")
    assert sorted(pages._free) == [page for page, count in enumerate(pages._uses) if count == 0]
    written = places[places[:, 0] > 0]
    written = written[np.lexsort((written[:, 1], written[:, 0]))]
    same = written[1:, 0] == written[:-1, 0]
    assert (written[1:, 1] >= written[:-1, 2])[same].all()


def same(kinds: tuple[Any, Any], num_slots: int) -> None:
    """Both give the same frame for every slot and for the one that stays zero, also when asked more than once."""
    slots = torch.tensor([*range(num_slots + 1), num_slots, *range(0, num_slots, 2)])
    plain, compressed = (kind.read(slots) for kind in kinds)
    assert plain.dtype == compressed.dtype == kinds[1].dtype and torch.equal(plain, compressed)
    assert not compressed[num_slots].any()


def saved(kind: Frames, num_slots: int) -> list[Part]:
    """Its frames as a checkpoint keeps them, in two parts."""
    halves = np.array_split(np.arange(num_slots), 2)
    return [Part(slots, Records(slots, slots, *kind.records(slots))) for slots in halves if slots.size]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9))
def test_both_kinds_give_the_same_frames(seed: int, num_columns: int, length: int) -> None:
    """Through wraparound, uneven columns and a reload half way every slot reads as it does uncompressed."""
    rng = np.random.default_rng(seed)
    with patch.object(frames, "PAGE_BYTES", PAGE):
        kinds = both(num_columns * length, num_columns)
        same(kinds, num_columns * length)
        for turn in range(3):
            write(kinds, num_columns, length, range(turn * length, turn * length + length + 2), rng)
            same(kinds, num_columns * length)
            check(kinds[1])
        again = both(num_columns * length, num_columns)
        for kind, loaded in zip(kinds, again, strict=True):
            write((loaded,), num_columns, length, range(2), rng)  # what is replaced
            loaded.load(saved(kind, num_columns * length), num_columns * length)
        same(again, num_columns * length)
        write(again, num_columns, length, range(7, 2 * length + 7), rng)
        same(again, num_columns * length)
        check(again[1])


def test_memory_does_not_grow_as_the_ring_turns() -> None:
    """However often it goes round, there are no more pages than the blocks fill and three for each column."""
    rng = np.random.default_rng(0)
    with patch.object(frames, "PAGE_BYTES", PAGE):
        compressed = CompressedFrames(3 * 40, 3, ELEMENTS)
        for turn in range(25):
            write((compressed,), 3, 40, range(40 * turn, 40 * turn + 40), rng)
            least = (compressed._places[:, 2] - compressed._places[:, 1]).sum()
            wasted = 1.7  # noise of 1,200 bytes leaves up to so much of a page of 3,000 unused
            assert compressed.bytes < wasted * least + 9 * PAGE + compressed._places.nbytes + 200
        check(compressed)


def test_each_frame_is_decompressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a slot is asked for in one read, its block is decompressed once."""
    calls = []

    def counted(*arguments: Any) -> int:
        calls.append(1)
        return cramjam.lz4.decompress_block_into(*arguments)

    _, compressed = both(20, 2)
    write((compressed,), 2, 10, range(10), np.random.default_rng(1))
    monkeypatch.setattr(frames, "cramjam", SimpleNamespace(lz4=SimpleNamespace(decompress_block_into=counted)))
    compressed.read(torch.tensor([3, 4, 5, 3, 20, 20, 4, 3]))
    assert len(calls) == 4


def replay(compression: str, seed: int = 0) -> Replay:
    """A small prioritized replay of pictures."""
    return Replay(
        num_games=3,
        capacity=60,
        observation_shape=(4, 36, 36),
        observation_dtype="uint8",
        stack=4,
        n_step=3,
        discount=0.9,
        priority_exponent=0.5,
        reward_clip=1.0,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
        compression=compression,
    )


@pytest.mark.parametrize("same_step", [False, True])
def test_replay_gives_the_same_batches(tmp_path: Path, same_step: bool) -> None:
    """Through ends, cuts, wraparound and a checkpoint on disk both replays give the same batches bit for bit."""
    games = CountingGame(3, pixels=True, stack=4, size=36, end_probability=0.1, same_step=same_step)
    rng, replays = np.random.default_rng(0), [replay("none"), replay("lz4")]
    games.reset(0)
    for tick in range(150):
        if tick in (40, 41, 97):
            for one in replays:
                one.cut(games.current)
            games.reset(tick)
        step, action = games.current, rng.integers(0, 2, 3)
        games.send(action)
        answered = games.recv()
        for one in replays:
            one.insert(step, action, answered)
        if tick in (20, 110):
            for number, one in enumerate(replays):
                path = checkpoint.save(tmp_path / str(number), tick, {"replay": one.state_dict()}, keep=1)
                replays[number] = replay(("none", "lz4")[number], seed=9)
                replays[number].load_state_dict(checkpoint.load(path)["replay"])
        if tick > 10:
            plain, compressed = (one.sample(16, 0.5) for one in replays)
            assert all(torch.equal(*pair) for pair in zip(plain, compressed, strict=True))
            for one in replays:
                one.update_priorities(plain.index, plain.r_t + plain.index)
    replays[1].check()
    assert replays[1].bytes < 0.5 * replays[0].bytes or replays[1].film.frames.bytes < 4 * frames.PAGE_BYTES


def broken(change: Callable[[dict[str, Any]], Any]) -> tuple[Any, CompressedFrames]:
    """A state of version 1 that was changed, and frames that could take the unchanged one."""
    _, compressed = both(20, 2)
    write((compressed,), 2, 10, range(10), np.random.default_rng(2))
    pages = [torch.from_numpy(page.copy()) for page in compressed._pages.arrays]
    state = {"pages": pages, "places": torch.from_numpy(compressed._places[:20].copy())}
    replaced = change(state)
    return state if replaced is None else replaced, compressed


def shift(row: int) -> Callable[[dict[str, Any]], None]:
    """Let a block begin in the middle of what it was."""
    return lambda state: state["places"][row, 1:].__setitem__(0, state["places"][row, 1:].sum() // 2)


def one_for_all(state: dict[str, Any]) -> None:
    """Let every frame claim the first 1,000 bytes of the same page, of which there are no more."""
    state["pages"], state["places"][:] = [torch.zeros(1000, dtype=torch.uint8)], torch.tensor([0, 0, 1000])


def scribble(state: dict[str, Any]) -> None:
    """Overwrite all pages."""
    for page in state["pages"]:
        page.fill_(255)


def put(row: int, column: int, value: int) -> Callable[[dict[str, Any]], None]:
    """Change one number of where a block lies."""
    return lambda state: state["places"][row].__setitem__(column, value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: {}, "pages are not a list"),
        (lambda state: {"places": state["places"]}, "pages are not a list"),
        (lambda state: {**state, "pages": state["pages"][0]}, "pages are not a list"),
        (lambda state: {**state, "pages": [page.float() for page in state["pages"]]}, "pages are not a list"),
        (lambda state: {**state, "pages": [page[None] for page in state["pages"]]}, "pages are not a list"),
        (lambda state: {**state, "pages": [1, 2]}, "pages are not a list"),
        (lambda state: {**state, "pages": []}, "frame 0 lies outside"),
        (lambda state: {"pages": state["pages"]}, "places is no tensor"),
        (lambda state: {**state, "places": state["places"].long()}, "places is torch.int64"),
        (lambda state: {**state, "places": state["places"][:-1]}, r"places is torch.int32 \[19, 3\]"),
        (lambda state: {**state, "pages": [page[:50] for page in state["pages"]]}, "lies outside"),
        (put(3, 0, -1), "frame 3 lies outside"),
        (put(3, 0, 99), "frame 3 lies outside"),
        (put(3, 1, -5), "frame 3 lies outside"),
        (put(3, 2, 2**31 - 1), "frame 3 lies outside"),
        (put(3, 2, 0), "frame 3 lies outside"),
        (put(3, 2, 5000), "frame 3 lies outside"),  # longer than a block can be
        (shift(3), "frame 3 is damaged"),
        (one_for_all, "over another"),
        (scribble, "frame 0 is damaged"),
    ],
)
def test_a_broken_state_is_refused(change: Callable[[dict[str, Any]], Any], why: str) -> None:
    """The error says what is wrong, and the frames are as they were."""
    state, compressed = broken(change)
    before, bytes_before = compressed.read(torch.arange(21)), compressed.bytes
    with pytest.raises(ValueError, match=why):
        compressed.load_version_1(state, 20)
    assert torch.equal(compressed.read(torch.arange(21)), before) and compressed.bytes == bytes_before
    check(compressed)


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_state_is_refused_or_read(seed: int) -> None:
    """Whatever bytes and places were changed, loading raises ValueError or gives frames that can all be read."""
    rng = np.random.default_rng(seed)

    def change(state: dict[str, Any]) -> None:
        for _ in range(rng.integers(1, 4)):
            page = state["pages"][rng.integers(len(state["pages"]))]
            page[int(rng.integers(min(len(page), 4000)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            state["places"][int(rng.integers(20)), int(rng.integers(3))] += int(rng.integers(-3, 4))

    state, compressed = broken(change)
    try:
        compressed.load_version_1(state, 20)
    except ValueError:
        pass
    assert compressed.read(torch.arange(21)).shape == (21, ELEMENTS)
    check(compressed)


def test_an_old_state_is_taken_over() -> None:
    """What version 1 kept reads as it did, and slots that were never written stay empty."""
    state, compressed = broken(lambda state: None)
    plain, other = both(20, 2)
    other.load_version_1(state, 20)
    plain.load_version_1(compressed.read(torch.arange(20)), 20)
    same((plain, other), 20)
    check(other)


def test_a_damaged_record_is_refused() -> None:
    """A block that is no frame's, too long or empty is an error, and the frames are as they were."""
    _, compressed = broken(lambda state: None)
    before = compressed.read(torch.arange(21))
    [first, rest] = saved(compressed, 20)
    noise = np.full(9, 255, np.uint8)
    for block in (noise, noise[:0], np.zeros(5000, np.uint8)):
        bad = Records(first.slots[:1], first.slots[:1], np.array([len(block)]), block)
        with pytest.raises(ValueError, match="frame 0 is damaged"):
            compressed.load([rest, Part(first.slots[:1], bad)], 20)
        assert torch.equal(compressed.read(torch.arange(21)), before)
    check(compressed)


def test_frames_that_were_not_saved_are_empty() -> None:
    """Whatever lay there: slots that no part names read as zeros, in both kinds."""
    kinds = both(20, 2)
    write(kinds, 2, 10, range(10), np.random.default_rng(3))
    for kind in kinds:
        kind.load(saved(kind, 20)[:1], 20)
        assert not kind.read(torch.arange(10, 20)).any()
    same(kinds, 20)
