"""Segments: what they hold, what they cost, and that one that is damaged is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.crash_states import put_in
from faults.failing_os import FailingOs
from faults.small_state import LENGTH, MOST_BYTES, STEPS, Log, state
from hypothesis import given
from hypothesis import strategies as st

from agent import appended, checkpoint, segments
from agent.appended import Growing, Kept, Segment, reach
from agent.checkpoint import CheckpointError, load, load_newest, numbers, save
from agent.segments import SegmentFile, plan


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records in a group, and what one number brings in a segment; fsync is not done."""
    monkeypatch.setattr(appended, "GROUP_BYTES", 2 * MOST_BYTES)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", int(STEPS.sum()) * MOST_BYTES)
    put_in(monkeypatch, checkpoint, FailingOs())


def files(directory: Path) -> list[str]:
    """The segments that lie there, in the order of their numbers."""
    return sorted(os.listdir(directory / "segments"))


def manifest(directory: Path, number: int) -> dict[str, Any]:
    """What a checkpoint says of its files."""
    return json.loads((directory / f"checkpoint-{number:08d}" / "MANIFEST.json").read_text())


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sized", [False, True])
def test_each_save_writes_what_is_new_and_old_segments_go(tmp_path: Path, sized: bool) -> None:
    """A segment for each save, never touched again, and removed once no checkpoint asks for a record of it."""
    log, known = Log(sized=sized), {}
    for number in range(1, 9):
        save(tmp_path, number, log.state(number), keep=2)
        assert log.holds(load_newest(tmp_path).tree, number) and load_newest(tmp_path).number == number
        now = {name: (tmp_path / "segments" / name).read_bytes() for name in files(tmp_path)}
        assert len(now.keys() - known.keys()) == 1 and max(now) not in known
        assert all(known[name] == content for name, content in now.items() if name in known)
        assert set(now) == set(manifest(tmp_path, number)["segments"]) | set(
            manifest(tmp_path, max(1, number - 1))["segments"]
        )
        known |= now
    assert len(now) < len(known) == 8
    assert log.holds(load(tmp_path / "checkpoint-00000007"), 7)


def test_nothing_new_writes_no_segment(tmp_path: Path) -> None:
    """A save without new records names the segments there are; a state without records has no folder for them."""
    log = Log()
    save(tmp_path / "a", 1, log.state(2), keep=2)
    before = files(tmp_path / "a")
    save(tmp_path / "a", 2, log.state(2), keep=2)
    assert files(tmp_path / "a") == before and log.holds(load_newest(tmp_path / "a").tree, 2)
    save(tmp_path / "b", 1, state(1), keep=1)
    assert os.listdir(tmp_path / "b") == ["checkpoint-00000001"]
    save(tmp_path / "c", 1, log.state(0), keep=1)
    assert log.holds(load_newest(tmp_path / "c").tree, 0) and not (tmp_path / "c" / "segments").exists()


def test_a_resumed_run_goes_on_with_its_segments(tmp_path: Path) -> None:
    """After loading, here and in a folder that was copied elsewhere, only what is new is written."""
    Log().fill(tmp_path / "run", 3, keep=2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    log = Log(load_newest(tmp_path / "copy").tree["log"].kept)
    before = files(tmp_path / "copy")
    save(tmp_path / "copy", 4, log.state(4), keep=2)
    assert len(set(files(tmp_path / "copy")) - set(before)) == 1
    assert log.holds(load_newest(tmp_path / "copy").tree, 4)


def test_another_folder_gets_everything(tmp_path: Path) -> None:
    """What was saved elsewhere does not count, whichever way it was loaded; both folders stand alone."""
    log = Log().fill(tmp_path / "one", 2) and Log(load_newest(tmp_path / "one").tree["log"].kept)
    for number in (3, 4):
        for name in ("one", "two"):
            save(tmp_path / name, number, log.state(number), keep=1)
    shutil.rmtree(tmp_path / "one")
    assert log.holds(load_newest(tmp_path / "two").tree, 4)


@pytest.mark.parametrize("harm", ["lost", "shortened", "another's", "table", "empty"])
def test_a_segment_that_was_harmed_is_written_again(tmp_path: Path, harm: str) -> None:
    """The records are still in memory: the next save is whole, though the older checkpoint is not."""
    log = Log()
    log.fill(tmp_path, 2)
    path = tmp_path / "segments" / files(tmp_path)[-1]
    content = path.read_bytes()
    path.unlink()
    if harm == "shortened":
        path.write_bytes(content[:-9])
    elif harm == "another's":  # of the same size
        (other,) = Log().fill(tmp_path / "x", 1) and (tmp_path / "x" / "segments").iterdir()
        path.write_bytes(other.read_bytes().ljust(len(content), b" ")[: len(content)])
    elif harm == "table":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "empty":
        path.touch()
    assert load_newest(tmp_path).number == 1
    save(tmp_path, 3, log.state(3), keep=5)
    loaded = load_newest(tmp_path)
    assert loaded.number == 3 and log.holds(loaded.tree, 3) and path.name not in manifest(tmp_path, 3)["segments"]


def test_numbers_are_never_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of segments that a failed save had begun, nor of leftovers, nor of segments that are gone."""
    log, seen = Log(), set()
    log.fill(tmp_path, 1)
    for number in range(2, 6):
        seen |= set(files(tmp_path))
        with monkeypatch.context() as patch, pytest.raises(CheckpointError):
            put_in(patch, checkpoint, FailingOs(8 + 4 * number, errno.ENOSPC, lasting=True))
            save(tmp_path, number, log.state(number), keep=1)
        seen |= set(files(tmp_path))
        save(tmp_path, number, log.state(number), keep=1)
        assert max(files(tmp_path)) not in seen
    (tmp_path / "segments" / "segment-00000500.bin").touch()
    save(tmp_path, 6, log.state(6), keep=1)
    assert max(files(tmp_path)) == "segment-00000501.bin" and "segment-00000500.bin" not in files(tmp_path)


@pytest.mark.parametrize("newer", [True, False])
def test_nobody_elses_segments_are_removed(tmp_path: Path, newer: bool) -> None:
    """While a manifest cannot be read, or is of a newer format, no segment goes; nor does a file of another name."""
    log = Log()
    log.fill(tmp_path, 3, keep=3)
    said = manifest(tmp_path, 1)
    del said["sha256"]
    content = checkpoint._manifest_bytes({**said, "version": 3}) if newer else b"{"
    (tmp_path / "checkpoint-00000001" / "MANIFEST.json").write_bytes(content)
    (tmp_path / "segments" / "notes.txt").touch()
    for number in (4, 5, 6):
        before = set(files(tmp_path))
        save(tmp_path, number, log.state(number), keep=9 if number < 6 else 1)
        assert (number == 6) != (before < set(files(tmp_path)))
    left = set(files(tmp_path))
    assert left == set(manifest(tmp_path, 6)["segments"]) | {"notes.txt"} and numbers(tmp_path) == [6]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60), st.integers(1, 60))
def test_plans_hold_everything_in_few_segments(steps: list[tuple[int, int]], length: int) -> None:
    """However much each save brings: no record is missing, few files, and each record is rarely written again."""
    most, kept, stop, written = 32, [], np.zeros(2, np.int64), 0
    segments.SEGMENT_BYTES = most  # the fixture puts it back
    for step in steps:
        stop = stop + step
        first = np.maximum(stop - length, 0)
        leaf = Growing({"record_bytes": 1}, first, stop, Kept(), most_bytes=1, read=print)  # type: ignore[arg-type]
        kept, new = plan(leaf, kept)
        kept = kept + [Segment("", *span, {}) for span in new]
        written += sum(int((high - low).sum()) for low, high in new)
        assert reach(kept, first).tolist() == stop.tolist()  # type: ignore[union-attr]
        assert all((high - low).sum() <= most + 2 for low, high in new)
        assert all(segment.live(first) for segment in kept)
        assert len(kept) <= 2 * (2 * 2 * length // most + 1) + 8
    assert written <= 6 * stop.sum()  # log2(most) + 1
    assert plan(leaf, kept[1:])[1] if len(kept) > 1 else True  # a hole: all is written


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [15, pytest.param(1, marks=pytest.mark.night)])
def test_every_truncation_and_flipped_bit_is_found(tmp_path: Path, stride: int) -> None:
    """The last segment cut at every byte, and every so manieth of its bits flipped: an error that names the file."""
    for sized in (False, True):
        directory = tmp_path / str(sized)
        Log(sized=sized).fill(directory, 2)
        name = files(directory)[-1]
        record, path = manifest(directory, 2)["segments"][name], directory / "segments" / name
        content = path.read_bytes()
        SegmentFile(path.parent, name, record)
        for length in range(len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=f"segments/{name} has {length} bytes"):
                SegmentFile(path.parent, name, record)
            with pytest.raises(ValueError, match=f"segments/{name} (is damaged|has 0 bytes)"):
                SegmentFile(path.parent, name, {**record, "bytes": length})
        for bit in range(0, 8 * len(content), stride):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match=f"segments/{name} is damaged"):
                SegmentFile(path.parent, name, record)


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "grown", "a link", "a folder"])
def test_the_next_older_checkpoint_is_loaded(tmp_path: Path, harm: str) -> None:
    """A checkpoint whose newest segment is harmed is named with the file, and not loaded; the one before is."""
    log = Log()
    log.fill(tmp_path, 3)
    path = tmp_path / "segments" / files(tmp_path)[-1]
    content = path.read_bytes()
    path.unlink()
    if harm == "a link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "a folder":
        path.mkdir()
    elif harm != "lost":
        changed = {"cut": content[:-4], "flipped": b"\0" + content[1:], "grown": content + b"\0"}[harm]
        path.write_bytes(changed)
    loaded = load_newest(tmp_path)
    assert loaded.number == 2 and log.holds(loaded.tree, 2)
    assert f"checkpoint-00000003: segments/{path.name} " in loaded.skipped[0]


def rewritten(directory: Path, number: int, change: Any) -> Path:
    """Change a state file as someone would who knows the format, and put the digests right."""
    path = directory / f"checkpoint-{number:08d}"
    tree = json.loads((path / "state.json").read_text())
    change(tree["dict"]["log"]["appended"])
    (path / "state.json").unlink()
    said = manifest(directory, number)
    del said["sha256"]
    said["files"]["state.json"] = checkpoint.write_new(path / "state.json", [json.dumps(tree).encode()])
    (path / "MANIFEST.json").write_bytes(checkpoint._manifest_bytes(said))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"segments": []},
        {"segments": ["segment-00000009.bin"]},
        {"segments": ["../x"]},
        {"segments": 5},
        {"stop": [99, 99]},
        {"stop": [1, 2, 3]},
        {"stop": "many"},
        {"first": [-1, 0]},
        {"first": [10**30, 0]},
        {"layout": {"record_bytes": 4}},
        {"layout": None},
    ],
    ids=str,
)
def test_hostile_leaves_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """A leaf that asks for what its segments do not hold is a ValueError that names the checkpoint."""
    Log().fill(tmp_path, 2)
    path = rewritten(tmp_path, 2, lambda node: node.update(change))
    with pytest.raises(ValueError, match=r"checkpoint-00000002: state.json does not describe"):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2}, {"format": "else"}, {"first": [5, 0]}, {"first": None}, {"stop": [2**62, 2**62]}, {"group": 0},
        {"group": -1}, {"group": "x"}, {"layout": {}}, {"layout": {"record_bytes": 3}}, {"layout": 7},
        {"layout": {"record_bytes": None}}, {"stop": [2**47, 2]}, {"stop": [2**47, 2], "group": 2**47}, {"group": 2**70}, {"stop": [[1], [2]]},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_segments_are_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    """A header that lies, under the right digest, is a ValueError; nothing is allocated by what it claims."""
    Log().fill(tmp_path, 1)
    (name,) = files(tmp_path)
    path = tmp_path / "segments" / name
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:start]) | header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])
    record = {"bytes": path.stat().st_size, "sha256": ""}
    try:
        record = segments._ends(np.fromfile(path, np.uint8)).record
    except ValueError:
        pass
    with pytest.raises(ValueError, match=f"segments/{name} is damaged"):
        SegmentFile(path.parent, name, record)


def test_loaded_records_are_not_saved_as_they_are(tmp_path: Path) -> None:
    """They belong into the film they came from: the error names where they hang."""
    Log().fill(tmp_path, 1)
    tree = load_newest(tmp_path).tree
    with pytest.raises(ValueError, match="/log is a agent.appended.Loaded"):
        save(tmp_path, 2, tree, keep=2)
    assert numbers(tmp_path) == [1]


def test_loaded_records_outlive_their_files(tmp_path: Path) -> None:
    """A reader keeps what it has loaded when the writer removes it."""
    log = Log()
    log.fill(tmp_path, 3)
    tree = load_newest(tmp_path).tree
    shutil.rmtree(tmp_path)
    assert log.holds(tree, 3) and LENGTH < 6


def test_a_segment_that_all_need_costs_its_records_only(tmp_path: Path) -> None:
    """Where no checkpoint is whole the newest is taken without what is lost, and says so; the next save is whole."""
    Log().fill(tmp_path, 3)
    shared = sorted(set.intersection(*(set(manifest(tmp_path, number)["segments"]) for number in (1, 2, 3))))[0]
    path = tmp_path / "segments" / shared
    content = bytearray(path.read_bytes())
    content[-25] ^= 4  # of the last group: it holds a record that still counts
    path.write_bytes(content)
    for damaged in (bytes(content), b""):
        path.write_bytes(damaged)
        loaded = load_newest(tmp_path)
        held, want = loaded.tree["log"].records(), Log().state(3)["log"].records()
        assert loaded.number == 3 and held.items() < want.items()
        assert loaded.skipped[-1].startswith("Went on without the records that are lost in checkpoint-00000003: ")
        assert shared in loaded.skipped[-1]
        assert len(loaded.skipped) == 1 and shared not in {each.name for each in loaded.tree["log"].kept.segments}
    (tmp_path / "checkpoint-00000003" / "state.json").unlink()
    assert load_newest(tmp_path).number == 2 and len(load_newest(tmp_path).skipped) == 2
    log = Log(loaded.tree["log"].kept)
    save(tmp_path, 4, log.state(4), keep=1)
    assert log.holds(load_newest(tmp_path).tree, 4) and load_newest(tmp_path).skipped == []
