"""Whatever happens to a run, its replay comes back as it was when it was saved: random lives against a plain list."""

from __future__ import annotations

import copy
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import witness
from faults.crash_states import put_in
from faults.failing_os import FailingOs
from witness import Witness, compare, make, reachable

from agent import appended, checkpoint, segments
from agent.checkpoint import CheckpointError, load, load_newest, numbers, save
from agent.replay import frames
from agent.replay.replay import Replay

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
COMPRESSIBLE = 32  # pictures of so many pixels in a square are compressed


class Life:
    """A run that plays, learns, saves, is killed and goes on; `saved` is what each of its checkpoints must hold."""

    def __init__(self, directory: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.directory, self.patch = directory, patch
        compressed = bool(rng.random() < 0.3)
        size = COMPRESSIBLE if compressed else 3
        patch.setattr(witness, "SIZE", size)
        patch.setattr(frames, "PAGE_BYTES", 3_000)
        patch.setattr(appended, "GROUP_BYTES", int(rng.integers(1, 6)) * size**2)
        patch.setattr(segments, "SEGMENT_BYTES", int(rng.choice([1, 7, 20, 200])) * size**2)
        self.num_games, self.stack = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        self.fields: dict[str, Any] = {
            "num_games": self.num_games,
            "capacity": int(rng.integers(1, 40)),
            "stack": self.stack,
            "n_step": int(rng.integers(1, 4)),
            "priority_exponent": float(rng.choice([0.0, 0.6])),
            "compression": "lz4" if compressed else "none",
        }
        self.keep = int(rng.integers(1, 4))
        self.games = Witness(self.num_games, self.stack, 0.1, bool(rng.random() < 0.5), seed)
        self.replay = self.new()
        self.saved: dict[int, tuple[Witness, dict[str, Any]]] = {}
        self.harmed: set[str] = set()
        self.did = dict.fromkeys(("saved", "refused", "killed", "harmed", "wrapped"), 0)

    def new(self) -> Replay:
        """A replay as a new process makes it."""
        return make(**self.fields, generator=torch.Generator().manual_seed(5))

    def play(self) -> None:
        """Play some steps and learn from them."""
        self.games.play(self.replay, int(self.rng.integers(1, 12)), 0.05)
        if len(self.replay):
            batch = self.replay.sample(4, 0.5)
            self.replay.update_priorities(batch.index, batch.r_t + self.rng.random())
        self.did["wrapped"] += int(self.replay.film.cursor.max()) > self.replay.film.length

    def save(self, failing: FailingOs | None = None) -> None:
        """Seal what there is in a checkpoint; a disk that fails may cost this one only."""
        number = max(numbers(self.directory), default=0) + 1
        try:
            with self.patch.context() as patch:
                put_in(patch, checkpoint, failing or FailingOs())
                save(self.directory, number, {"replay": self.replay.state_dict()}, keep=self.keep)
        except CheckpointError:
            self.did["refused"] += 1
            if number not in numbers(self.directory):  # else the disk did not take it back, and it must be whole
                return
        self.did["saved"] += 1
        self.saved[number] = copy.deepcopy(self.games), held(self.replay)

    def fail(self) -> None:
        """Save on a disk that fails at some moment, once or from then on."""
        nth, lasting = int(self.rng.integers(60)), bool(self.rng.random() < 0.5)
        self.save(FailingOs(nth, int(self.rng.choice(ERRORS)), lasting))

    def kill(self) -> None:
        """Go on in a new process, from the newest checkpoint, beside what an interrupted save has left."""
        if self.rng.random() < 0.3:
            interrupted = max(numbers(self.directory), default=0) + 1
            (self.directory / f".tmp-{interrupted:08d}").mkdir(parents=True, exist_ok=True)
            (self.directory / "segments").mkdir(exist_ok=True)
            (self.directory / "segments" / "segment-00099999.bin").write_bytes(b"torn")
        self.restore()

    def harm(self) -> None:
        """Break the last segment of the newest checkpoint that not all need, and go on from the newest without it."""
        names = self.intact()
        last = max(names[max(names)], default="") if names else ""
        if not last or all(last in each for each in names.values()):
            return
        path = self.directory / "segments" / last
        content = bytearray(path.read_bytes())
        if self.rng.random() < 0.5:
            del content[int(self.rng.integers(len(content))) :]
        else:
            content[int(self.rng.integers(len(content)))] ^= 1 << int(self.rng.integers(8))
        path.write_bytes(content)
        self.harmed.add(last)
        self.did["harmed"] += 1
        self.restore()

    def intact(self) -> dict[int, set[str]]:
        """The checkpoints that need no harmed segment, and the segments that they need."""
        names = {number: needed(self.directory, number) for number in numbers(self.directory)}
        return {number: each for number, each in names.items() if not each & self.harmed}

    def restore(self) -> None:
        """Check that the newest intact checkpoint is loaded and is what was saved, and go on with it."""
        self.did["killed"] += 1
        self.replay = self.new()
        newest = max(self.intact(), default=0)
        if not newest:
            assert not numbers(self.directory)
            self.games = Witness(self.num_games, self.stack, 0.1, False, int(self.rng.integers(1000)))
            return
        loaded = load_newest(self.directory)
        assert loaded.number == newest
        assert len(loaded.skipped) == sum(number > newest for number in numbers(self.directory))
        assert all(any(name in sentence for name in self.harmed) for sentence in loaded.skipped)
        self.replay.load_state_dict(loaded.tree["replay"])
        games, before = self.saved[newest]
        self.games, now = copy.deepcopy(games), held(self.replay)
        assert before.keys() == now.keys()
        for name, leaf in before.items():
            same = torch.equal(leaf, now[name]) if isinstance(leaf, torch.Tensor) else leaf == now[name]
            assert same, name
        compare(self.games, self.replay)  # all that can be sampled is what happened


def held(replay: Replay) -> dict[str, Any]:
    """Everything that a replay holds, copied, frames as they are sampled: of every slot that was ever written."""
    found: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], at: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{at}/{key}")
            else:
                found[f"{at}/{key}"] = value.clone() if isinstance(value, torch.Tensor) else value

    walk(replay.state_dict(), "")
    rows = replay.film._num_written(replay.film.cursor)
    found["/film/frames"] = replay.film.frames.read(torch.arange(rows)).clone()
    return found


def needed(directory: Path, number: int) -> set[str]:
    """The segments that a checkpoint names."""
    return set(json.loads((directory / f"checkpoint-{number:08d}" / "MANIFEST.json").read_text())["segments"])


@pytest.mark.parametrize("lives", [100, pytest.param(1000, marks=pytest.mark.night)])
def test_what_was_saved_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int) -> None:
    """Plain or compressed, prioritised or not, at any n: played, wrapped, saved, refused, killed, harmed, gone on with.

    After each loss the newest intact checkpoint is loaded and equals what was saved to the bit, and every row that can
    be sampled is one that the games really played.
    """
    total: dict[str, int] = {}
    for seed in range(lives):
        with monkeypatch.context() as patch:
            life = Life(tmp_path / str(seed), seed, patch)
            for act in life.rng.choice(["play", "save", "fail", "kill", "harm"], 13, p=[0.4, 0.3, 0.1, 0.12, 0.08]):
                getattr(life, act)()
            life.save()
            life.kill()
            everything = set().union(*(needed(life.directory, number) for number in numbers(life.directory)))
            left = set(os.listdir(life.directory / "segments")) if everything else set()
            assert everything <= left
        for name, times in life.did.items():
            total[name] = total.get(name, 0) + times
    print(total)
    assert all(times >= lives // 8 for times in total.values()), total


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("same_step", [False, True])
def test_lost_frames_are_never_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, same_step: bool
) -> None:
    """Whichever group of the only segment is damaged, the run goes on, and samples only what really happened."""
    size = COMPRESSIBLE if compression == "lz4" else 3
    monkeypatch.setattr(witness, "SIZE", size)
    monkeypatch.setattr(appended, "GROUP_BYTES", 5 * size**2)
    games, fields = Witness(2, 2, 0.1, same_step, 3), {"compression": compression, "priority_exponent": 0.6}
    replay = make(2, 20, 2, 2, **fields)
    games.play(replay, 30)
    put_in(monkeypatch, checkpoint, FailingOs())
    path = save(tmp_path, 1, {"replay": replay.state_dict()}, keep=1)
    (segment,) = (tmp_path / "segments").iterdir()
    ends = segments._ends(np.fromfile(segment, np.uint8))
    content, at, before = segment.read_bytes(), ends.start, len(replay)
    for length in ends.table[:, 0].tolist():
        segment.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        at += length
        with pytest.raises(ValueError, match="has not its CRC-32"):
            load(path)
        loaded, life = load_newest(tmp_path), copy.deepcopy(games)
        assert len(loaded.skipped) == 1 and segment.name in loaded.skipped[0]
        other = make(2, 20, 2, 2, **fields)
        other.load_state_dict(loaded.tree["replay"])
        assert 0 < len(other) < before
        for _ in range(25):
            other.check()
            index = other.tree.leaves.nonzero()[:, 0]
            rows = [field.reshape(len(index), -1).double() for field in other.gather(index)]
            got, want = torch.cat(rows, 1).numpy(), np.array(reachable(life, other))
            # Of the stack that follows the newest row a lost frame is left out, as if the episode had begun behind it.
            assert all((np.isclose(want, row, atol=1e-5) | (row == 0)).all(1).any() for row in got)
            life.play(other, 1)
        compare(life, other)  # by now all that was lost is overwritten
    assert len(ends.table) > 3
