"""The film: stacks as they were seen, rings of their own pace."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import checkpoint
from agent.replay.film import Film

FRAME = (2,)
KINDS = {  # of film, and what can be kept on it
    "plain": {"frame_shape": FRAME, "dtype": "float32"},
    "compressed": {"frame_shape": (2, 500), "dtype": "uint8", "compression": "lz4"},
}


def write(film: Film, columns: np.ndarray, frame: np.ndarray, first: np.ndarray, **other: np.ndarray) -> np.ndarray:
    """Append rows whose other fields do not matter."""
    no, zero = np.zeros(len(columns), bool), np.zeros(len(columns))
    fields = {"action": zero, "reward": zero, "terminated": no, "truncated": no} | other
    return film.append(columns, frame, first=first, **fields)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9), st.sampled_from([*KINDS]))
def test_stacks_are_those_that_were_seen(seed: int, num_columns: int, stack: int, more: int, kind: str) -> None:
    """At every ring position, columns advancing at their own pace, each row with a whole history gives its stack."""
    rng = np.random.default_rng(seed)
    length = stack + more
    film = Film(num_columns=num_columns, length=length, stack=stack, **KINDS[kind])
    shape, dtype = KINDS[kind]["frame_shape"], KINDS[kind]["dtype"]
    seen = [deque(maxlen=stack) for _ in range(num_columns)]
    kept = [deque(maxlen=more + 1) for _ in range(num_columns)]  # (slot, stack) of the rows with a whole history
    for tick in range(3 * length):
        columns = np.flatnonzero(rng.random(num_columns) < 0.7)
        if not columns.size:
            continue
        first = (film.cursor[columns] == 0) | (rng.random(len(columns)) < 0.2)
        frame = np.stack([columns + 1, np.full(len(columns), tick + 1)], 1).astype(dtype)
        frame = np.repeat(frame, np.prod(shape) // 2, 1).reshape(-1, *shape)
        slots = write(film, columns, frame, first)
        for row, column in enumerate(columns):
            if first[row]:
                seen[column].extend([np.zeros(shape, dtype)] * stack)
            seen[column].append(frame[row])
            kept[column].append((slots[row], np.stack(seen[column])))
        rows = [row for column in kept for row in column]
        stacks = film.stacks(torch.tensor([slot for slot, _ in rows]))
        expected = np.stack([observation for _, observation in rows])
        assert np.array_equal(stacks.numpy(), expected if stack > 1 else expected[:, 0])


def test_rows_hold_what_was_written() -> None:
    """Action, reward and flags are found in the slot that append returned, and `after` walks along the column."""
    film = Film(num_columns=3, length=4, frame_shape=FRAME, dtype="uint8")
    for tick in range(6):
        columns, frame, first = np.array([0, 2]), np.full((2, 2), tick, np.uint8), np.full(2, tick == 0)
        slots = write(
            film,
            columns,
            frame,
            first,
            action=np.array([tick, tick + 10]),
            reward=np.array([0.5, -0.5]) * tick,
            terminated=np.array([tick == 5, False]),
            truncated=np.array([False, tick == 5]),
        )
    assert film.action[slots].tolist() == [5, 15]
    assert film.reward[slots].tolist() == [2.5, -2.5]
    assert film.terminated[slots].tolist() == [True, False]
    assert film.truncated[slots].tolist() == [False, True]
    assert film.cursor.tolist() == [6, 0, 6]
    assert film.newest()[[0, 2]].tolist() == slots.tolist()
    assert film.action[film.after(slots, -2)].tolist() == [3, 13]
    assert film.after(slots, 4).tolist() == slots.tolist()
    film.truncate(np.array([0]))
    assert film.truncated[slots].tolist() == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_state_holds_the_written_rows_only(kind: str) -> None:
    """A young film's state is as long as what was written, and a film that took it goes on as the first one does."""
    films = [Film(num_columns=2, length=50, stack=3, **KINDS[kind]) for _ in range(2)]
    both, frame = np.arange(2), np.ones((2, *KINDS[kind]["frame_shape"]), KINDS[kind]["dtype"])
    for tick in range(7):
        write(films[0], both, frame * (tick + 1), np.array([tick in (0, 6), tick == 0]))
    state = films[0].state_dict()
    assert len(state["frames"]) == len(state["action"]) == 14
    films[1].load_state_dict(state)
    for film in films:
        slots = torch.from_numpy(write(film, both, frame * 99, np.zeros(2, bool)))
        assert film.stacks(slots).view(2, 3, -1)[:, :, 0].tolist() == [[0.0, 7.0, 99.0], [6.0, 7.0, 99.0]]


def test_a_state_of_the_other_kind_is_refused() -> None:
    """What was saved compressed is not taken by a film that is not, nor the other way; the error names the setting."""
    fields = {"num_columns": 1, "length": 5, "frame_shape": (1000,), "dtype": "uint8"}
    films = [Film(**fields, compression=name) for name in ("none", "lz4")]
    for film, other in (films, films[::-1]):
        write(film, np.arange(1), np.ones((1, 1000), np.uint8), np.ones(1, bool))
        with pytest.raises(ValueError, match="replay.compression"):
            other.load_state_dict(film.state_dict())
    assert [film.cursor.tolist() for film in films] == [[1], [1]]


def test_a_state_of_another_shape_is_refused() -> None:
    """The error names the array, and nothing has changed."""
    film = Film(num_columns=2, length=5, frame_shape=(3,), dtype="float32")
    write(film, np.arange(2), np.ones((2, 3), np.float32), np.ones(2, bool))
    wrong = (("frames", {"frame_shape": (4,)}), ("frames", {"dtype": "uint8"}), ("columns", {"num_columns": 3}))
    for name, other in wrong:
        unlike = Film(**({"num_columns": 2, "length": 5, "frame_shape": (3,), "dtype": "float32"} | other))
        with pytest.raises(ValueError, match=name):
            unlike.load_state_dict(film.state_dict())
        assert not unlike.cursor.any()


def test_a_stack_that_does_not_fit_is_refused() -> None:
    """A stack of no frame, or of more than a row can count, is an error at once."""
    for stack in (0, 257):
        with pytest.raises(ValueError, match=f"stack of {stack}"):
            Film(num_columns=1, length=300, frame_shape=FRAME, dtype="uint8", stack=stack)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"dtype": "float32"}, "float32 of shape .1000"),
        ({"frame_shape": (999,)}, "at least 1,000 bytes"),
        ({"device": "meta"}, "replay.device cpu"),
    ],
)
def test_what_is_not_worth_compressing_is_refused(wrong: dict, why: str) -> None:
    """Small frames, frames that are not bytes, and films that are not on the host are errors that name the remedy."""
    fields = {"num_columns": 1, "length": 5, "frame_shape": (1000,), "dtype": "uint8", "compression": "lz4"}
    assert Film(**fields).frames.bytes < 5 * 1000
    with pytest.raises(ValueError, match=f"{why}.*compression none"):
        Film(**(fields | wrong))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_put_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    """Through saves while the ring turns, columns at their own pace: every slot reads as it did, also uncompressed."""
    rng = np.random.default_rng(7)
    films = [Film(num_columns=3, length=9, stack=2, **KINDS[kind]) for _ in range(2)]
    shape, dtype = KINDS[kind]["frame_shape"], KINDS[kind]["dtype"]
    for tick in range(40):
        columns = np.flatnonzero(rng.random(3) < (0.9, 0.5, 0.1))
        if not columns.size:
            continue
        frame = rng.integers(0, 256, (len(columns), *shape)).astype(dtype)
        write(films[0], columns, frame, films[0].cursor[columns] == 0)
        if tick % 5 == 0:
            checkpoint.save(tmp_path, tick, films[0].state_dict(), keep=1)
            write(films[1], np.arange(3), np.ones((3, *shape), dtype), np.ones(3, bool))  # what is replaced
            lost = films[1].load_state_dict(checkpoint.load_newest(tmp_path).tree)
            rows = torch.arange(films[0]._num_written(films[0].cursor))
            assert not lost.size and films[1].cursor.tolist() == films[0].cursor.tolist()
            assert torch.equal(films[0].frames.read(rows), films[1].frames.read(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_what_version_1_kept_goes_on_in_segments(kind: str, tmp_path: Path) -> None:
    """A film from a checkpoint whose frames were tensors saves them as segments from the next save on."""
    films = [Film(num_columns=2, length=5, **KINDS[kind]) for _ in range(3)]
    frame = np.ones((2, *KINDS[kind]["frame_shape"]), KINDS[kind]["dtype"])
    for tick in range(7):
        write(films[0], np.arange(2), frame * tick, np.full(2, tick == 0))
    kept = films[0].frames
    if kind == "plain":
        old = kept.tensor[:-1]
    else:
        pages = [torch.from_numpy(page) for page in kept._pages.arrays]
        old = {"pages": pages, "places": torch.from_numpy(kept._places[:-1])}
    tree = films[0].state_dict() | {"frames": old}
    checkpoint.save(tmp_path, 1, tree, keep=9)
    films[1].load_state_dict(checkpoint.load_newest(tmp_path).tree)
    checkpoint.save(tmp_path, 2, films[1].state_dict(), keep=9)
    films[2].load_state_dict(checkpoint.load_newest(tmp_path).tree)
    assert len(list((tmp_path / "segments").iterdir())) == 1
    for film in films[1:]:
        assert torch.equal(film.frames.read(torch.arange(11)), kept.read(torch.arange(11)))


@pytest.mark.gpu
def test_frames_on_a_gpu_are_put_back(tmp_path: Path) -> None:
    """A film on the GPU is saved from there and comes back on the host, and the other way, bit for bit."""
    films = [Film(num_columns=2, length=5, device=device, **KINDS["plain"]) for device in ("cuda", "cpu", "cuda")]
    for tick in range(7):
        write(films[0], np.arange(2), np.full((2, *FRAME), tick, np.float32), np.full(2, tick == 0))
    for number, (one, other) in enumerate(itertools.pairwise(films)):
        checkpoint.save(tmp_path, number, one.state_dict(), keep=1)
        other.load_state_dict(checkpoint.load_newest(tmp_path).tree)
    assert torch.equal(films[0].frames.tensor.cpu(), films[1].frames.tensor)
    assert torch.equal(films[0].frames.tensor, films[2].frames.tensor)


def test_frames_that_were_lost_are_told(tmp_path: Path) -> None:
    """Their slots are returned, they read as zeros, and no stack of a row that is appended later has one of them."""
    film = Film(num_columns=2, length=8, stack=4, frame_shape=FRAME, dtype="float32")
    for tick in range(10):
        write(film, np.arange(2), np.full((2, *FRAME), tick + 1, np.float32), np.full(2, tick == 0))
    state = copy.deepcopy(film.state_dict())
    state["frames"]._held = [[group.only(group.numbers != 8) for group in state["frames"].groups()]]
    other = Film(num_columns=2, length=8, stack=4, frame_shape=FRAME, dtype="float32")
    lost = other.load_state_dict(state)
    assert lost.tolist() == [0, 1] and not other.frames.read(torch.tensor([0, 1])).any()  # row 8 lies where row 0 did
    slots = write(other, np.arange(2), np.full((2, *FRAME), 11.0, np.float32), np.zeros(2, bool))
    assert other.stacks(torch.from_numpy(slots))[0, :, 0].tolist() == [0.0, 0.0, 10.0, 11.0]
