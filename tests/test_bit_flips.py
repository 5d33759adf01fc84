"""A flipped bit, a cut or a lost file in the checkpoints of a real run is found, named and passed over.

Every file below the run's `checkpoints` is treated alike. Where all checkpoints need a file of records, the newest is
taken without those that are lost, and says so.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuts import begin, load, play, store
from golden.answers import hash_of

from agent import checkpoint
from agent.checkpoint import MANIFEST, Loaded, load_newest, numbers

STEP = 4_096


def saved_run(directory: Path, case: str, *cuts: int) -> list[str]:
    """Let a run save at some steps; return what each checkpoint's weights hash to, the oldest first."""
    session = begin(case)
    play(session, [], cuts, lambda steps: store(directory, session))
    session.close()
    hashes = [hash_of(load(directory, number)["learner"]["network"]) for number in numbers(directory)]
    assert len(hashes) == len(set(hashes)) == len(cuts)
    return hashes


class Disk:
    """The checkpoints of a run, in which one file at a time is damaged and made whole again."""

    def __init__(self, directory: Path, hashes: list[str]) -> None:
        self.directory, self._hashes = directory, hashes
        self.files = {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
        manifests = {path.parent: data.decode() for path, data in self.files.items() if path.name == MANIFEST}
        # A file beside the checkpoints is needed by those whose manifest names it.
        self._needed_by = {
            path: [n for n in numbers(directory) if self._is_of(path, n) or self._names(manifests, path, n)]
            for path in self.files
        }
        self._records = load(directory, numbers(directory)[-1])["replay"]["film"]["frames"].records()
        self.tried = self.torn = 0

    def _folder(self, number: int) -> Path:
        return self.directory / f"checkpoint-{number:08d}"

    def _is_of(self, path: Path, number: int) -> bool:
        return path.parent == self._folder(number)

    def _names(self, manifests: dict[Path, str], path: Path, number: int) -> bool:
        return path.parent not in manifests and path.name in manifests[self._folder(number)]

    def check(self, path: Path, content: bytes | None) -> None:
        """Put other content (None: nothing) in place of a file: what needs it is passed over, named, nothing else."""
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        try:
            self._check(path, f"{path.relative_to(self.directory)}, {'gone' if content is None else len(content)}")
        finally:
            path.write_bytes(self.files[path])
        self.tried += 1

    def _check(self, path: Path, what: str) -> None:
        known = numbers(self.directory)
        whole = [number for number in known if number not in self._needed_by[path]]
        loaded = load_newest(self.directory)
        expected = whole[-1] if whole else known[-1]
        assert loaded.number == expected, f"{what}: {loaded.number} was loaded"
        assert hash_of(loaded.tree["agent"]["learner"]["network"]) == self._hashes[expected - 1], what
        passed_over = [number for number in known if number > expected or not whole]
        sentences = loaded.skipped if whole else loaded.skipped[-1:]
        assert len(sentences) == (len(passed_over) if whole else 1), f"{what}: {sentences}"
        for number, sentence in zip(reversed(passed_over), sentences):
            assert self._folder(number).name in sentence and path.name in sentence, f"{what}: {sentence}"
        if not whole:
            self._check_what_is_left(loaded, what)

    def _check_what_is_left(self, loaded: Loaded, what: str) -> None:
        self.torn += 1
        left = loaded.tree["agent"]["replay"]["film"]["frames"].records()
        assert len(left) < len(self._records) and left.items() <= self._records.items(), f"{what}: a torn record"

    def offsets(self) -> Iterator[tuple[Path, int]]:
        """Every byte."""
        for path, data in self.files.items():
            for offset in range(len(data)):
                yield path, offset

    def flip(self, path: Path, offset: int, bit: int) -> None:
        """Check with one bit turned over."""
        content = bytearray(self.files[path])
        content[offset] ^= 1 << bit
        self.check(path, bytes(content))


def test_bits_cuts_and_losses_of_a_real_run(tmp_path: Path) -> None:
    """500 bits anywhere, every cut at 4 KiB steps, one byte more and every file gone: each is found and named, and the
    newest checkpoint that does not need the file is loaded."""
    disk = Disk(tmp_path, saved_run(tmp_path, "iqn", 330, 380))
    draw = random.Random(0)
    assert load_newest(tmp_path).number == 2 and len(disk.files) >= 8
    for path, data in disk.files.items():
        disk.check(path, None)
        disk.check(path, data + b"\0")
        for length in {*range(0, len(data), STEP), len(data) - 1}:
            disk.check(path, data[:length])
        disk.flip(path, draw.randrange(len(data)), draw.randrange(8))  # of small files as well
    for path, offset in draw.sample(list(disk.offsets()), 500 - len(disk.files)):
        disk.flip(path, offset, draw.randrange(8))
    assert disk.tried > 600 and disk.torn > 20, "records that all checkpoints share must be hit as well"
    again = load_newest(tmp_path)
    assert again.number == 2 and again.skipped == []


@pytest.mark.night
def test_every_byte_of_a_small_checkpoint(tmp_path: Path) -> None:
    """One bit of every byte of two checkpoints is found and named."""
    disk = Disk(tmp_path, saved_run(tmp_path, "qr", 150, 250))
    draw = random.Random(0)
    places = list(disk.offsets())
    assert 40_000 < len(places) < 200_000
    for path, offset in places:
        disk.flip(path, offset, draw.randrange(8))


def test_this_test_can_fail(tmp_path: Path) -> None:
    """A changed weight whose digests were made anew cannot be found, and the check above says so."""
    disk = Disk(tmp_path, saved_run(tmp_path, "qr", 150, 250))
    path = tmp_path / "checkpoint-00000002" / "agent.safetensors"
    content = bytearray(disk.files[path])
    content[-9] ^= 8
    disk.check(path, bytes(content))
    manifest = json.loads(disk.files[path.with_name(MANIFEST)])
    del manifest["sha256"]
    manifest["files"][path.name]["sha256"] = hashlib.sha256(content).hexdigest()
    path.with_name(MANIFEST).write_bytes(checkpoint._manifest_bytes(manifest))
    with pytest.raises(AssertionError, match="2 was loaded"):
        disk.check(path, bytes(content))
