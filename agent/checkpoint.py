"""A tree of state <-> a directory: written atomically, checksummed, and read back without executing anything.

    checkpoint-00000042/
      learner.safetensors   the tensors and arrays below the top-level key "learner", named by JSON pointer (RFC 6901)
      state.json            everything else, and where each tensor hangs
      MANIFEST.json         written last: format version, number, size and SHA-256 of each file, size and digest of each
                            segment, SHA-256 of itself
    segments/               records that are only appended: written once, shared by all checkpoints that need them

A checkpoint exists from the moment its directory has its final name; before that it is `.tmp-00000042`, afterwards, on
its way out, `.del-00000042`. One process writes to a directory, any number may read. Durable means: as far as the
operating system's fsync tells the truth.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from agent.durable import make_directory, sync_directory, write_new
from agent.segments import FOLDER as SEGMENTS
from agent.segments import SegmentFile, Shelf, loaded, remove_all_but
from agent.state_tree import STATE, decode, encode

FORMAT = "icebox-checkpoint"
VERSION = 2
READ = (1, 2)  # 1 had no segments
MANIFEST = "MANIFEST.json"
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{8,})")
_LEFTOVER = re.compile(r"\.(tmp|del)-[0-9]{8,}")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class CheckpointError(OSError):
    """A checkpoint could not be written; `errno` is the cause's. Older ones are as they were, the next one is whole."""


class UnknownFormat(ValueError):
    """A checkpoint is undamaged but written in a format that this version does not read."""


class Loaded(NamedTuple):
    """The newest intact checkpoint, and what was passed over on the way to it."""

    tree: dict[str, Any]
    path: Path
    number: int
    skipped: list[str]  # one sentence for each newer checkpoint that is broken: which file, and why


def numbers(directory: Path) -> list[int]:
    """Return the numbers of the checkpoints in `directory`, oldest first, without looking inside them."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = (int(match[1]) for match in map(_CHECKPOINT.fullmatch, names) if match)
    return sorted(number for number in found if _path(directory, number).name in names)


def clean(directory: Path) -> None:
    """Remove what interrupted saves and removals left behind; what cannot be removed is left for the next time.

    Only for the one process that writes to `directory`: it would pull the floor from under a save in progress.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            if _LEFTOVER.fullmatch(name):
                with suppress(OSError):
                    _remove(Path(directory) / name)


def save(
    directory: Path,
    number: int,
    tree: Mapping[str, Any],
    *,
    keep: int,
    on_durable: Callable[[Path], None] | None = None,
) -> Path:
    """Write `tree` as checkpoint `number`, durable before this returns, then remove all but the `keep` newest.

    `tree` is nested dicts and lists with string keys; leaves are torch tensors (any device and layout in memory),
    numpy arrays, int, float, str, bool, None, and `Growing` records, of which only those are written that no segment
    beside the checkpoints holds yet. It must not change meanwhile. `number` is the caller's counter and must lie above
    every intact checkpoint in `directory`; damaged ones with such numbers are replaced.

    `on_durable(path)` is called once the checkpoint survives a power cut, before anything old is removed. Raises
    ValueError for a bad number or leaf (naming its key path), before anything is written, and CheckpointError when the
    system refuses an operation: then what was written is removed and older checkpoints stay. Do not use the number of a
    failed save again.
    """
    directory = Path(directory)
    if type(number) is not int or number < 0:
        raise ValueError(f"The number of a checkpoint must be an int of at least 0, not {number!r}.")
    if type(keep) is not int or keep < 1:
        raise ValueError(f"keep must be an int of at least 1, not {keep!r}.")
    final, temporary, shelf = _path(directory, number), directory / f".tmp-{number:08d}", Shelf(directory)
    try:
        files = encode(tree, shelf.place)
        make_directory(directory)
        clean(directory)
        damaged = _damaged_from(directory, number)
        _clean_segments(directory, shelf.names)
        segments = shelf.write()
        os.mkdir(temporary)
        records = {name: write_new(temporary / name, parts) for name, parts in files.items()}
        sync_directory(temporary)
        manifest = {"format": FORMAT, "version": VERSION, "number": number, "digest": "sha256", "files": records}
        manifest["segments"] = segments
        write_new(temporary / MANIFEST, [_manifest_bytes(manifest)])
        sync_directory(temporary)
        for other in damaged:
            _set_aside(directory, other)
        os.rename(temporary, final)
        try:
            sync_directory(directory)
        except BaseException:
            os.rename(final, temporary)  # never announced, so it must not count
            raise
    except BaseException as error:
        with suppress(OSError):
            _remove(temporary)
        if not final.exists():  # else the disk refused to take it back, and it needs them
            shelf.undo()
        if not isinstance(error, OSError):
            raise
        cause = error.strerror or str(error)
        failure = CheckpointError(f"Checkpoint {final} could not be written: {cause}. Older checkpoints are intact.")
        failure.errno = error.errno
        raise failure from error
    shelf.settle()
    if on_durable is not None:
        on_durable(final)
    with suppress(OSError):  # the checkpoint is safe; what stays behind now is removed by the next save
        for old in [other for other in numbers(directory) if other <= number][:-keep]:
            _set_aside(directory, old)
    clean(directory)
    with suppress(OSError):
        _clean_segments(directory, shelf.names)
    return final


def load_newest(directory: Path) -> Loaded:
    """Return the newest checkpoint in `directory` whose every byte verifies, and say which newer ones do not.

    Where none does, because a segment that all of them need is damaged, the newest is taken without those records that
    are lost, and that is said. Changes nothing on disk, so it may run beside the process that trains. Raises
    FileNotFoundError when none is left.
    """
    directory = Path(directory)
    broken: dict[int, str] = {}
    # Listed anew after each failure: a run that goes on meanwhile adds newer ones and removes older ones.
    while untried := [number for number in numbers(directory) if number not in broken]:
        number, path = untried[-1], _path(directory, untried[-1])
        try:
            tree = load(path)
        except (OSError, ValueError) as error:
            broken[number] = f"Skipped {error}"
            continue
        return Loaded(tree, path, number, [broken[other] for other in sorted(broken, reverse=True) if other > number])
    for number in sorted(broken, reverse=True):
        with suppress(OSError, ValueError):
            tree = load(path := _path(directory, number), lenient=True)
            newer = [broken[other] for other in sorted(broken, reverse=True) if other > number]
            why = broken[number].removeprefix("Skipped ")
            return Loaded(tree, path, number, [*newer, f"Went on without the records that are lost in {why}"])
    reasons = " ".join(broken[number] for number in sorted(broken, reverse=True))
    raise FileNotFoundError(f"No intact checkpoint in {directory}. {reasons or 'It holds none at all.'}")


def load(path: Path, *, lenient: bool = False) -> dict[str, Any]:
    """Return the tree of one checkpoint after verifying all its files; leaves are of the kind that was saved.

    Tensors come back on the CPU, backed by the file and copied on write: they cost memory only once they are used. So
    do records, as `Loaded`; a `lenient` load goes without those that are damaged. Raises ValueError naming the file
    that is damaged, UnknownFormat (a ValueError), or OSError.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    try:
        files, segments = _verify(path, lenient)
        for name in files:
            if name.endswith(".safetensors"):
                with safe_open(path / name, framework="pt") as file:
                    tensors.update((key, file.get_tensor(key)) for key in file.keys())
        folder = path.parent / SEGMENTS
        state = (path / STATE).read_bytes()
        return decode(state, tensors, lambda node: loaded(node, segments, folder, lenient=lenient))
    except UnknownFormat as error:
        raise UnknownFormat(f"{path.name}: {error}") from error
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _path(directory: Path, number: int) -> Path:
    return Path(directory) / f"checkpoint-{number:08d}"


# --- verifying -------------------------------------------------------------------------------------------------------


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the one way to write a manifest, ending with the digest of the rest."""
    own = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": own}, indent=1, sort_keys=True).encode() + b"\n"


def _verify(path: Path, lenient: bool = False) -> tuple[list[str], dict[str, SegmentFile]]:
    """Return the names of a checkpoint's files and its segments, after comparing each with the manifest.

    A `lenient` look leaves out segments, or groups of them, that are damaged.
    """
    manifest, segments = _manifest(path), {}
    for name, record in manifest["files"].items():
        _verify_file(path, name, record)
    for name, record in manifest["segments"].items():
        with suppress(OSError, ValueError) if lenient else nullcontext():
            segments[name] = SegmentFile(path.parent / SEGMENTS, name, record, lenient=lenient)
    return list(manifest["files"]), segments


def _manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after verifying it, whatever its files are like."""
    if not (path / MANIFEST).is_file():
        if not path.is_dir():
            raise FileNotFoundError(f"There is no checkpoint {path}.")
        raise ValueError(f"{MANIFEST} is missing.")
    raw = (path / MANIFEST).read_bytes()
    try:
        manifest = json.loads(raw)
        del manifest["sha256"]
        intact = raw == _manifest_bytes(manifest)
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise ValueError(f"{MANIFEST} is damaged.")
    if manifest.get("format") != FORMAT or manifest.get("version") not in READ or manifest.get("digest") != "sha256":
        found = f"{manifest.get('format')} version {manifest.get('version')} with {manifest.get('digest')}"
        read = " and ".join(map(str, READ))
        raise UnknownFormat(f"{MANIFEST} says {found}; this Icebox reads {FORMAT} versions {read} with sha256.")
    if (match := _CHECKPOINT.fullmatch(path.name)) and manifest.get("number") != int(match[1]):
        raise ValueError(f"{MANIFEST} belongs to checkpoint {manifest.get('number')}.")
    if not isinstance(manifest.get("files"), dict) or STATE not in manifest["files"]:
        raise ValueError(f"{MANIFEST} does not list {STATE}.")
    if not isinstance(manifest.setdefault("segments", {}), dict):
        raise ValueError(f"{MANIFEST} does not list segments.")
    return manifest


def _verify_file(path: Path, name: str, record: Any) -> None:
    if not _PLAIN_FILE.fullmatch(name):
        raise ValueError(f"{MANIFEST} names {name!r}, which is not a plain file name.")
    try:
        status = os.lstat(path / name)
    except FileNotFoundError:
        raise ValueError(f"{name} is missing.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is not a regular file.")
    if not isinstance(record, dict) or record.get("bytes") != status.st_size:
        raise ValueError(f"{name} has {status.st_size} bytes, not what {MANIFEST} says.")
    with open(path / name, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != record.get("sha256"):
            raise ValueError(f"{name} is damaged: its SHA-256 is not the one in {MANIFEST}.")


def _damaged_from(directory: Path, number: int) -> list[int]:
    """Return the damaged checkpoints with at least this number; raise ValueError if one of them is intact."""
    damaged = []
    for other in numbers(directory):
        if other >= number:
            try:
                _verify(_path(directory, other))
            except UnknownFormat as error:
                raise ValueError(f"Checkpoint {number} must come after {_path(directory, other)}: {error}") from error
            except ValueError:
                damaged.append(other)
            else:
                raise ValueError(f"Checkpoint {number} must come after {_path(directory, other)}, which is intact.")
    return damaged


def _clean_segments(directory: Path, needed: AbstractSet[str]) -> None:
    """Remove the segments that neither a checkpoint nor a save in progress needs; none while a manifest is unreadable.

    A checkpoint that was removed is gone for good before its segments go.
    """
    needed = set(needed)
    for number in numbers(directory):
        try:
            needed |= _manifest(_path(directory, number))["segments"].keys()
        except ValueError:
            return
    remove_all_but(directory / SEGMENTS, needed, lambda: sync_directory(directory))


# --- the file system: every change goes through `os`, where tests/faults stands in ------------------------------------


def _set_aside(directory: Path, number: int) -> None:
    """Give a checkpoint the name under which it will be removed, so that a half-removed one is never listed."""
    os.rename(_path(directory, number), directory / f".del-{number:08d}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for name in os.listdir(path):
            _remove(path / name)
        os.rmdir(path)
    else:
        os.unlink(path)
