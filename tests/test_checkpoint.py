"""Checkpoints come back as saved, or are refused by name, and run nothing when read."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.crash_states import read_tree
from faults.failing_os import FailingOs
from faults.small_state import fill, holds, state

from agent import checkpoint
from agent.checkpoint import UnknownFormat, clean, load, load_newest, numbers, save
from agent.durable import write_new


# --- the ordinary ----------------------------------------------------------------------------------------------------


def test_newest_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    """load_newest gives the last saved state, and `keep` checkpoints stay."""
    directory = tmp_path / "run" / "checkpoints"  # made by save
    for number in range(1, 6):
        path = save(directory, number, state(number), keep=2)
        assert path == directory / f"checkpoint-{number:08d}"
        loaded = load_newest(directory)
        assert holds(loaded.tree, number) and loaded[1:] == (path, number, [])
        assert numbers(directory) == list(range(max(1, number - 1), number + 1))
    assert sorted(os.listdir(directory)) == ["checkpoint-00000004", "checkpoint-00000005"]
    assert holds(load(directory / "checkpoint-00000004"), 4)


def test_announcement_comes_before_removal(tmp_path: Path) -> None:
    """on_durable is called with the final path, when the new checkpoint loads and the old ones are still there."""
    fill(tmp_path, 2)
    seen = []
    save(tmp_path, 3, state(3), keep=1, on_durable=lambda path: seen.append((path, numbers(tmp_path), load(path))))
    [(path, listed, tree)] = seen
    assert path.name == "checkpoint-00000003" and listed == [1, 2, 3] and holds(tree, 3)
    assert numbers(tmp_path) == [3]


def test_failing_announcement_keeps_the_checkpoint(tmp_path: Path) -> None:
    """An error of the caller's in on_durable is the caller's: the checkpoint stays, and so do the old ones."""
    fill(tmp_path, 1)

    def fail(path: Path) -> None:
        raise BrokenPipeError("gone")

    with pytest.raises(BrokenPipeError):
        save(tmp_path, 2, state(2), keep=1, on_durable=fail)
    assert numbers(tmp_path) == [1, 2] and holds(load_newest(tmp_path).tree, 2)


def test_loaded_tensors_are_the_callers_own(tmp_path: Path) -> None:
    """Writing into loaded leaves changes no file, and they outlive the checkpoint."""
    path = save(tmp_path, 1, state(1), keep=1)
    tree = load(path)
    tree["replay"]["film"].fill_(9)
    tree["learner"]["moments"][:] = 9
    assert holds(load(path), 1)
    shutil.rmtree(path)
    assert tree["replay"]["film"].eq(9).all() and torch.equal(tree["learner"]["torso.0.weight"], torch.arange(8.0) + 1)


def test_numbers_ignore_everything_else(tmp_path: Path) -> None:
    """Only names that save gives are listed, in the order of their numbers, beyond eight digits too."""
    for name in ("checkpoint-00000010", "checkpoint-123456789", "checkpoint-00000009"):
        (tmp_path / name).mkdir()
    arabic = "checkpoint-" + "\u0660" * 7 + "\u0661"  # digits to str.isdigit and int
    for name in ("checkpoint-9", "checkpoint-000000007", "checkpoint-0000000x", ".tmp-00000011", arabic):
        (tmp_path / name).mkdir()
    assert numbers(tmp_path) == [9, 10, 123456789]
    assert numbers(tmp_path / "absent") == []


def test_clean_removes_leftovers_only(tmp_path: Path) -> None:
    """What interrupted saves left is removed, by the next save too; nothing else is, and no link is followed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    for remove in (lambda: clean(tmp_path), lambda: save(tmp_path, 1, state(1), keep=1)):
        for name in (".tmp-00000007", ".del-00000003", ".tmp-mine"):
            (tmp_path / name / "sub").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "sub" / "file").write_text("x")
        (tmp_path / ".del-00000004").symlink_to(tmp_path / "precious")
        remove()
        left = set(os.listdir(tmp_path)) - {"checkpoint-00000001"}
        assert left == {"precious", ".tmp-mine"} and (tmp_path / "precious" / "file").exists()
    clean(tmp_path / "absent")


def test_a_refused_call_changes_nothing(tmp_path: Path) -> None:
    """Bad numbers, a bad keep and unknown leaves are ValueErrors, raised before anything is written."""
    fill(tmp_path, 2)
    before = read_tree(tmp_path)
    for number, keep, tree, said in [
        (2, 2, state(2), "checkpoint-00000002, which is intact"),
        (1, 2, state(1), "must come after"),
        (-1, 2, state(3), "number"),
        (True, 2, state(3), "number"),
        (3, 0, state(3), "keep"),
        (3, 2, {"a": {"b": (1, 2)}}, "/a/b"),
    ]:
        with pytest.raises(ValueError, match=said):
            save(tmp_path, number, tree, keep=keep)
        assert read_tree(tmp_path) == before


def test_damaged_numbers_are_used_again(tmp_path: Path) -> None:
    """A run that fell back to an older checkpoint may save the damaged numbers anew; the damaged ones give way."""
    fill(tmp_path, 4)
    for number in (3, 4):
        (tmp_path / f"checkpoint-{number:08d}" / "state.json").unlink()
    assert load_newest(tmp_path).number == 2
    save(tmp_path, 3, state(3), keep=2)
    assert load_newest(tmp_path).number == 3 and numbers(tmp_path) == [2, 3]


# --- reading what is damaged or hostile ------------------------------------------------------------------------------


def test_every_flip_cut_and_loss_is_found_and_named(tmp_path: Path) -> None:
    """A flipped bit, a truncation or a missing file in the newest checkpoint: named, and the next older is loaded."""
    fill(tmp_path, 2)
    newest, rng = tmp_path / "checkpoint-00000002", random.Random(0)
    files = sorted(newest.iterdir())
    places = [(file, offset) for file in files for offset in range(file.stat().st_size)]

    def check(file: Path, content: bytes | None) -> None:
        intact = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        loaded = load_newest(tmp_path)
        assert loaded.number == 1 and holds(loaded.tree, 1)
        [sentence] = loaded.skipped
        assert "checkpoint-00000002" in sentence and file.name in sentence and sentence.endswith(".")
        file.write_bytes(intact)

    for file, offset in rng.sample(places, 300):
        content = bytearray(file.read_bytes())
        content[offset] ^= 1 << rng.randrange(8)
        check(file, bytes(content))
    for file in files:
        content = file.read_bytes()
        check(file, None)
        check(file, content + b"\0")
        for length in {0, 1, len(content) - 1, *rng.sample(range(len(content)), 15)}:
            check(file, content[:length])
    assert load_newest(tmp_path).number == 2


def test_nothing_intact_says_why(tmp_path: Path) -> None:
    """Without an intact checkpoint the error is FileNotFoundError, with one reason per broken one."""
    with pytest.raises(FileNotFoundError, match="It holds none at all"):
        load_newest(tmp_path / "absent")
    fill(tmp_path, 2)
    (tmp_path / "checkpoint-00000001" / "MANIFEST.json").unlink()
    (tmp_path / "checkpoint-00000002" / "learner.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_newest(tmp_path)
    assert "checkpoint-00000002: learner.safetensors is missing." in str(error.value)
    assert "checkpoint-00000001: MANIFEST.json is missing." in str(error.value)
    with pytest.raises(FileNotFoundError, match="checkpoint-00000007"):
        load(tmp_path / "checkpoint-00000007")


def test_unreadable_files_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses to read the newest checkpoint costs that checkpoint only."""
    fill(tmp_path, 2)
    monkeypatch.setattr(checkpoint, "os", FailingOs(1, errno.EIO))  # the first is listdir, the second a look at a file
    loaded = load_newest(tmp_path)
    assert loaded.number == 1 and "Input/output error" in loaded.skipped[0]


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """Change a manifest as someone would who knows the format."""
    manifest = json.loads((path / "MANIFEST.json").read_text())
    del manifest["sha256"]
    manifest.update(changes)
    (path / "MANIFEST.json").write_bytes(checkpoint._manifest_bytes(manifest))


def test_files_outside_the_checkpoint_are_refused(tmp_path: Path) -> None:
    """A manifest that names paths, devices or links is refused, though its digests are right."""
    path = save(tmp_path / "run", 1, state(1), keep=1)
    files = json.loads((path / "MANIFEST.json").read_text())["files"]
    outside = tmp_path / "run" / "x.safetensors"
    shutil.copy(path / "learner.safetensors", outside)
    record = files["learner.safetensors"]
    for name in ("../x.safetensors", str(outside), "C:x", "a\\b", "..", ".", "", "sub/x.safetensors", "con:"):
        rewrite_manifest(path, files={**files, name: record})
        with pytest.raises(ValueError, match="not a plain file name"):
            load(path)
    rewrite_manifest(path, files={**files, "link.safetensors": record})
    (path / "link.safetensors").symlink_to(outside)
    with pytest.raises(ValueError, match="link.safetensors is not a regular file"):
        load(path)


def test_other_formats_and_numbers_are_refused_by_name(tmp_path: Path) -> None:
    """A newer format says so and is never overwritten; a checkpoint under a wrong number is refused."""
    fill(tmp_path, 2)
    path = tmp_path / "checkpoint-00000002"
    rewrite_manifest(path, version=3)
    with pytest.raises(UnknownFormat, match="version 3.*reads icebox-checkpoint versions 1 and 2"):
        load(path)
    assert load_newest(tmp_path).number == 1
    with pytest.raises(ValueError, match="version 3"):
        save(tmp_path, 2, state(2), keep=2)
    rewrite_manifest(path, version=1, number=3)
    with pytest.raises(ValueError, match="belongs to checkpoint 3"):
        load(path)
    rewrite_manifest(path, number=2)
    shutil.copytree(path, tmp_path / "best")  # under a name of the user's there is nothing to compare with
    assert holds(load(tmp_path / "best"), 2)
    for files in ({}, [], {"state.json": 3}, {"state.json": {}}):
        rewrite_manifest(path, files=files)
        with pytest.raises(ValueError, match="checkpoint-00000002"):
            load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 16, (2**60).to_bytes(8, "little") + b"{}", b"\x80\x02cos\nsystem\n(S'false'\ntR."],
    ids=["empty", "noise", "huge header", "pickle"],
)
def test_hostile_tensor_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """A file with the right digest that is not safetensors is a ValueError, not a crash."""
    path = save(tmp_path, 1, state(1), keep=1)
    (path / "learner.safetensors").unlink()
    files = json.loads((path / "MANIFEST.json").read_text())["files"]
    files["learner.safetensors"] = write_new(path / "learner.safetensors", [content])
    rewrite_manifest(path, files=files)
    with pytest.raises(ValueError, match="checkpoint-00000001"):
        load(path)


def test_reading_beside_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader overtaken by the run it reads finds the newer checkpoint, and touches no save in progress."""
    fill(tmp_path, 1)
    (tmp_path / ".tmp-00000002").mkdir()
    real = checkpoint._verify

    def overtaken(path: Path, lenient: bool) -> Any:
        monkeypatch.setattr(checkpoint, "_verify", real)
        save(tmp_path, 2, state(2), keep=1)  # removes checkpoint 1 while the reader looks at it
        (tmp_path / ".tmp-00000003").mkdir()
        return real(path, lenient)

    monkeypatch.setattr(checkpoint, "_verify", overtaken)
    loaded = load_newest(tmp_path)
    assert loaded.number == 2 and holds(loaded.tree, 2) and loaded.skipped == []
    assert (tmp_path / ".tmp-00000003").exists()
