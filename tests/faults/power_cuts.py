"""Saves through which the power is cut at every moment, in every way a weak disk allows."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.crash_states import RecordingOs, WeakDisk, freeze, put_in, read_tree, write_tree
from faults.small_state import Log

from agent import checkpoint
from agent.checkpoint import load, load_newest, numbers, save
from agent.segments import FOLDER

SAVES = 4  # enough for the rings to wrap around and for segments to go
# What may be left out of the protocol or done too early.
MUTATIONS = (
    *("file", "directory", "old removed first", "announced too early"),
    *("segment", "segment folder", "old segments first", "manifest first"),
)


def crash_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, mutation: str = "", *, saves: int = SAVES
) -> dict[str, int]:
    """Record some saves, load every state a power cut could leave, and count what broke which promise.

    A mutated protocol leaves far more states: there the first broken promise ends the count.
    """
    log = Log(sized=saves % 2 == 1)
    trace = recorded(tmp_path, monkeypatch, log, keep, mutation, saves)
    disk, scratch, fresh = WeakDisk(), tmp_path / "scratch", itertools.count()
    known: dict[Any, tuple[list[int], bool]] = {}
    report = {"states": 0, "unloadable": 0, "lost": 0, "fewer kept": 0, "torn": 0}
    announced = 0
    checked = set()
    for step in trace:
        if step[0] == "announced":
            announced = step[1]
        else:
            disk.apply(*step)
        # Names with a dot are hidden here: the loader ignores them (another test), and they multiply the states.
        top = disk.root.names.get("checkpoints")
        nothing = [{}] if "checkpoints" not in disk.root.durable else []
        for tree in itertools.chain(nothing, top.states(hide=".") if top else []):
            if mutation and any(report[promise] for promise in report if promise != "states"):
                return report
            key = freeze(tree)
            if (announced, key) in checked:
                continue
            checked.add((announced, key))
            if key not in known:
                where = scratch / str(next(fresh))
                write_tree(where, tree)
                known[key] = look(where, log)
                shutil.rmtree(where)
            found, torn = known[key]
            report["states"] += 1
            report["unloadable"] += announced > 0 and not found
            report["lost"] += bool(found) and found[-1] < announced
            report["fewer kept"] += len(found) < min(keep, announced)
            report["torn"] += torn
    assert disk.current()["checkpoints"] == read_tree(tmp_path / "checkpoints")  # the model saw all that happened
    return report


def recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, keep: int, mutation: str, saves: int
) -> list[tuple[Any, ...]]:
    """Return everything that the saves ask of the disk, and where each is announced."""
    recorder = RecordingOs(tmp_path, ignore_fsync=mutation)
    with monkeypatch.context() as patch:
        put_in(patch, checkpoint, recorder)
        if mutation == "old removed first":
            old = lambda where, number: [other for other in numbers(where) if other <= number - keep]  # noqa: E731
            patch.setattr(checkpoint, "_damaged_from", old)  # what this lists is set aside before the rename
        if mutation == "old segments first":
            patch.setattr(checkpoint, "_clean_segments", lambda *asked: remove_others(recorder, *asked))
        for number in range(1, saves + 1):
            if mutation == "announced too early":
                recorder.trace.append(("announced", number))
            announce = lambda path, number=number: recorder.trace.append(("announced", number))  # noqa: E731
            save(tmp_path / "checkpoints", number, log.state(number), keep=keep, on_durable=announce)
    return list(late(recorder.trace)) if mutation == "manifest first" else recorder.trace


def remove_others(recorder: RecordingOs, directory: Path, needed: set[str]) -> None:
    """Remove the segments that the save in progress does not need, whoever else does."""
    folder = directory / FOLDER
    for name in set(os.listdir(folder)) - needed if folder.exists() else ():
        recorder.unlink(folder / name)


def late(trace: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Move what each save does to its segments to right before it is announced."""
    waiting: list[tuple[Any, ...]] = []
    for step in trace:
        if step[0] in ("create", "write", "fsync") and FOLDER in Path(step[1]).parts:
            waiting.append(step)
            continue
        if step[0] == "announced":
            yield from waiting
            waiting = []
        yield step


def look(where: Path, log: Log) -> tuple[list[int], bool]:
    """Return which checkpoints are intact, and whether the newest is not."""
    there = numbers(where)
    found = [number for number in there if is_intact(where, number)]
    if found:
        loaded = load_newest(where)
        assert loaded.number == found[-1] and log.holds(loaded.tree, loaded.number)
    return found, found[-1:] != there[-1:]


def is_intact(directory: Path, number: int) -> bool:
    """Say whether one checkpoint loads."""
    try:
        load(directory / f"checkpoint-{number:08d}")
    except ValueError:
        return False
    return True
