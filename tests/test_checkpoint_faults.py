"""Checkpoints survive power cuts at the worst moment, failing disks and kill -9."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import signal
import time
import traceback
import warnings
from pathlib import Path

import pytest
from faults.crash_states import RecordingOs, WeakDisk, put_in, write_tree
from faults.failing_os import FailingOs
from faults.power_cuts import MUTATIONS, crash_report, is_intact
from faults.small_state import MOST_BYTES, Log

from agent import checkpoint, segments
from agent.checkpoint import CheckpointError, load, load_newest, numbers, save

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)

# --- power cuts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "segment_records", "saves"),
    [
        *((1, 64, 4), (2, 6, 4)),
        *(pytest.param(*sizes, marks=pytest.mark.night) for sizes in ((1, 4, 6), (3, 6, 9))),
    ],
)
def test_no_power_cut_loses_an_announced_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, segment_records: int, saves: int
) -> None:
    """In every crash state the newest announced checkpoint, or a later one, loads, and `keep` of them are intact.

    While records wrap around, segments are merged, split and removed.
    """
    monkeypatch.setattr(segments, "SEGMENT_BYTES", segment_records * MOST_BYTES)
    report = crash_report(tmp_path, monkeypatch, keep, saves=saves)
    print(report)
    assert report.pop("states") > 50
    assert report == {"unloadable": 0, "lost": 0, "fewer kept": 0, "torn": 0}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_power_cut_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str) -> None:
    """Without one fsync, with removal before safety, or told too early, the enumeration finds broken states."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6 * MOST_BYTES)
    report = crash_report(tmp_path, monkeypatch, 2, mutation)
    print(report)
    assert sum(report.values()) > report["states"]


def test_saving_goes_on_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From crash states, half-written and half-removed files included, the next save works and cleans up."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6 * MOST_BYTES)
    recorder, rng, log = RecordingOs(tmp_path), random.Random(0), Log()
    with monkeypatch.context() as patch:
        put_in(patch, checkpoint, recorder)
        for number in range(1, 4):
            save(tmp_path / "checkpoints", number, log.state(number), keep=1)
        disk, states = WeakDisk(), []
        for step in recorder.trace:
            disk.apply(*step)
            states += rng.sample(some := list(itertools.islice(disk.states(), 3000)), min(1, len(some)))
        for index, tree in enumerate(states):
            where = tmp_path / "scratch" / str(index) / "checkpoints"
            put_in(patch, checkpoint, RecordingOs(where.parent))
            write_tree(where.parent, tree)
            after = goes_on(where)
            save(where, after + 1, (log := resumed(where)).state(after + 1), keep=2)
            assert log.holds(load(where / f"checkpoint-{after + 1:08d}"), after + 1)
            left = set(os.listdir(where)) - {"segments"}
            assert len(left) <= 2 and all(name.startswith("checkpoint-") for name in left)
            if all(is_intact(where, number) for number in numbers(where)):
                assert set(os.listdir(where / "segments")) == named(where)


def goes_on(directory: Path) -> int:
    """Return the number of the checkpoint from which a run would go on; 0 where it would begin."""
    try:
        return load_newest(directory).number
    except FileNotFoundError:
        return 0


def resumed(directory: Path) -> Log:
    """Return the log of a run that goes on from what lies in `directory`."""
    return Log(load_newest(directory).tree["log"].kept) if goes_on(directory) else Log()


def named(directory: Path) -> set[str]:
    """Return the segments that checkpoints need."""
    manifests = (json.loads(path.read_text()) for path in directory.glob("checkpoint-*/MANIFEST.json"))
    return {name for manifest in manifests for name in manifest["segments"]}


# --- full and dying disks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize(
    "errors", [ERRORS, *(pytest.param((error,), marks=pytest.mark.night) for error in ERRORS)], ids=str
)
def test_a_failing_disk_costs_that_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: tuple[int, ...], lasting: bool
) -> None:
    """Whichever operation fails, older checkpoints load, the error names path and cause, the next save is whole."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6 * MOST_BYTES)
    Log().fill(tmp_path / "template", 2, keep=2)
    operations, refused = set(), 0
    for nth in itertools.count():
        directory, error = tmp_path / str(nth), errors[nth % len(errors)]
        shutil.copytree(tmp_path / "template", directory)
        (directory / ".tmp-00000002").mkdir()
        (directory / "segments" / "segment-00000090.bin").write_bytes(b"half of one")
        failing, log = FailingOs(nth, error, lasting), resumed(directory)
        announced = []
        before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
        with monkeypatch.context() as patch:
            put_in(patch, checkpoint, failing)
            try:
                save(directory, 3, log.state(3), keep=2, on_durable=announced.append)
            except CheckpointError as raised:
                refused += 1
                assert raised.errno == error and not announced
                assert "checkpoint-00000003" in str(raised) and os.strerror(error) in str(raised)
            else:
                assert len(announced) == 1
        if not failing.failed:
            break
        operations.update(f"{name} {at}" for name, at in failing.failed[:1])
        assert len(before) == len(os.listdir("/proc/self/fd") if before else [])
        assert announced or all(log.holds(load(directory / f"checkpoint-{old:08d}"), old) for old in (1, 2))
        newest = load_newest(directory)
        assert newest.number >= (3 if announced else 2) and log.holds(newest.tree, newest.number) and not newest.skipped
        with monkeypatch.context() as patch:
            put_in(patch, checkpoint, FailingOs())
            save(directory, 4, log.state(4), keep=2)
        assert set(os.listdir(directory)) == {"segments"} | {f"checkpoint-{each:08d}" for each in numbers(directory)}
        assert set(os.listdir(directory / "segments")) == named(directory)
        newest = load_newest(directory)
        assert newest.number == 4 and log.holds(newest.tree, 4) and len(numbers(directory)) == 2
        shutil.rmtree(directory)
    plain = {f"{name} other" for name in ("open", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir")}
    ours = {f"{name} segments" for name in ("open", "write", "fsync", "close", "unlink", "listdir")}
    assert operations >= plain | ours
    assert nth > 60 and refused > 30


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_loses_nothing_announced(tmp_path: Path) -> None:
    """After each of 60 kills of a process that only saves, the newest loadable checkpoint is as new as announced."""
    rng, announced, interrupted = random.Random(0), 0, 0
    for _ in range(60):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's idle threads: the child runs none
            child = os.fork()
        if child == 0:
            try:
                log = resumed(tmp_path)
                for number in itertools.count(max(numbers(tmp_path), default=0) + 1):
                    announce = lambda path, number=number: os.write(writer, number.to_bytes(4, "little"))  # noqa: E731
                    save(tmp_path, number, log.state(number), keep=2, on_durable=announce)
            except BaseException:
                (tmp_path / "child.txt").write_text(traceback.format_exc())
            finally:
                os._exit(1)
        os.close(writer)
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), (tmp_path / "child.txt").read_text()
        with os.fdopen(reader, "rb") as pipe:
            if heard := pipe.read():
                announced = int.from_bytes(heard[-4:], "little")
        interrupted += any(name.startswith(".") for name in os.listdir(tmp_path))
        if announced:
            loaded = load_newest(tmp_path)
            assert loaded.number >= announced and Log().holds(loaded.tree, loaded.number) and not loaded.skipped
    assert announced > 0 and interrupted >= 10, "too few kills fell into a save to mean anything"
