"""Tests of agent/viewer/slot.py: what a reader gets is whole and was written, whatever happens to either side."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.viewer import slot
from agent.viewer.slot import SlotReader, SlotWriter, pack, unpack

ROOT = Path(__file__).parent.parent

# Writes packets of many sizes as fast as it can: u32 checksum, u32 number, noise.
HAMMER = """
import os, sys, zlib
from pathlib import Path
from agent.viewer.slot import SlotWriter
writer, noise = SlotWriter(Path(sys.argv[1])), os.urandom(1 << 20)
number = int(sys.argv[2])
print("writing", flush=True)
while True:
    number += 1
    size = (number * 7919) % int(sys.argv[3])
    body = number.to_bytes(4, "little") + noise[number % 1000 :][:size]
    writer.write(zlib.crc32(body).to_bytes(4, "little"), body[:4], memoryview(body)[4:])
"""


def hammer(path: Path, start: int, largest: int = 200_000) -> subprocess.Popen:
    """A process that writes without end, ready."""
    command = [sys.executable, "-c", HAMMER, str(path), str(start), str(largest)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    return process


def number_in(packet: bytes) -> int:
    """The number of a packet, which is whole."""
    assert zlib.crc32(packet[4:]) == int.from_bytes(packet[:4], "little"), "the packet is torn"
    return int.from_bytes(packet[4:8], "little")


def read_for(reader: SlotReader, seconds: float) -> list[int]:
    """The numbers of all packets that were read."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        if (packet := reader.read()) is not None:
            found.append(number_in(packet))
    return found


def test_no_packet_is_ever_torn(tmp_path: Path) -> None:
    """A reader at full speed beside a writer at full speed gets whole packets only, each once and none out of order."""
    path = tmp_path / "now.slot"
    writer, reader = hammer(path, 0), SlotReader(path)
    try:
        found = read_for(reader, 1.5)
    finally:
        writer.kill()
        writer.wait()
    assert len(found) > 10 and found == sorted(set(found))


def test_a_reader_survives_writers_that_are_killed(tmp_path: Path) -> None:
    """Of writers killed at random moments a reader sees whole packets; it goes on with the next writer's by itself."""
    path = tmp_path / "now.slot"
    reader, generator = SlotReader(path), np.random.default_rng(0)
    for life in range(1, 5):
        writer = hammer(path, life * 10_000_000)
        try:
            found = read_for(reader, 0.1 + 0.1 * generator.random())
        finally:
            writer.kill()
            writer.wait()
        found += read_for(reader, 0.01)
        assert found and all(life * 10_000_000 < number < (life + 1) * 10_000_000 for number in found)


def test_a_reader_that_hangs_or_dies_disturbs_nobody(tmp_path: Path) -> None:
    """With one reader stopped and one killed in the middle of reading, writing goes on and others read."""
    path = tmp_path / "now.slot"
    source = "import sys; from pathlib import Path; from agent.viewer.slot import SlotReader\n"
    source += "reader = SlotReader(Path(sys.argv[1])); print(0, flush=True)\nwhile True: reader.read()"
    writer = SlotWriter(path)
    command = [sys.executable, "-c", source, str(path)]
    readers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    other = SlotReader(path)
    try:
        for process in readers:
            process.stdout.readline()
        for number in range(600):
            if number == 100:
                readers[0].send_signal(signal.SIGSTOP)
            if number == 200:
                readers[1].kill()
            writer.write(b"%d" % number, os.urandom(50_000))
            assert other.read().startswith(b"%d" % number)
    finally:
        for process in readers:
            process.kill()
            process.wait()


def test_a_packet_is_read_once(tmp_path: Path) -> None:
    """A reader is given every packet once, of any size; without a file, or one that was removed, there is none."""
    path = tmp_path / "now.slot"
    reader = SlotReader(path)
    assert reader.read() is None
    writer = SlotWriter(path)
    assert reader.read() is None
    for packet in (b"a", b"longer than that", os.urandom(3_000_000), b"b"):
        writer.write(packet)
        assert reader.read() == packet and reader.read() is None
        assert SlotReader(path).read() == packet
    writer.close()
    writer.close()
    assert not path.exists() and reader.read() is None
    again = SlotWriter(path)
    again.write(b"c")
    assert reader.read() == b"c"
    again.close()


def test_what_was_removed_under_a_reader_is_read_no_more(tmp_path: Path) -> None:
    """A file that takes the name of another is what is read from then on, also where its sequence is the same."""
    path, other = tmp_path / "now.slot", tmp_path / "other.slot"
    reader = SlotReader(path)
    for place, packet in ((path, b"first"), (other, b"second")):
        SlotWriter(place).write(packet)
    assert reader.read() == b"first"
    os.replace(other, path)
    assert reader.read() == b"second"


def test_a_half_written_packet_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet that the disk did not take leaves none, OSError tells the writer, and the next one is read."""
    path = tmp_path / "now.slot"
    writer, reader, write = SlotWriter(path), SlotReader(path), slot._write

    def full(file: int, parts: list[Any], offset: int) -> None:
        if offset == slot.LENGTH:
            write(file, [struct.pack("<Q", 4), b"ha"], offset)
            raise OSError(28, "No space left on device")
        write(file, parts, offset)

    writer.write(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(slot, "_write", full)
        with pytest.raises(OSError, match="No space"):
            writer.write(b"half")
    assert reader.read() is None
    writer.write(b"after")
    assert reader.read() == b"after"


def test_writes_that_are_cut_short_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system takes part of what it is given, or has no positioned writes, the packet is whole all the same."""
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda file, parts, offset: real(file, [b"".join(parts)[:7]], offset))
    writer = SlotWriter(tmp_path / "short.slot")
    writer.write(b"0123456789", b"abcdefghij")
    assert SlotReader(tmp_path / "short.slot").read() == b"0123456789abcdefghij"
    for name in ("pwritev", "pread"):
        monkeypatch.delattr(os, name)
    writer = SlotWriter(tmp_path / "none.slot")
    writer.write(b"0123456789", b"abcdefghij")
    assert SlotReader(tmp_path / "none.slot").read() == b"0123456789abcdefghij"


@pytest.mark.parametrize(
    "content",
    [b"", b"iceslot1", b"x" * 24, b"x" * 16 + struct.pack("<Q", 4) + b"data", b"iceslot1" + b"\xff" * 16, b"\0" * 100],
)
def test_a_strange_file_is_no_packet(content: bytes, tmp_path: Path) -> None:
    """What no writer of ours made is not read as a packet, and a writer makes a slot of it."""
    path = tmp_path / "now.slot"
    path.write_bytes(content)
    reader = SlotReader(path)
    assert reader.read() is None
    SlotWriter(path).write(b"ours")
    assert reader.read() == b"ours"


def test_packets_hold_what_was_packed() -> None:
    """Meta and arrays of every dtype and shape come back bit for bit, and cannot be written to."""
    generator = np.random.default_rng(0)
    arrays = {
        "picture": generator.integers(0, 255, (21, 16, 3), np.uint8),
        "strided": generator.normal(size=(6, 8)).astype(np.float32)[::2, ::-1],
        "none": np.zeros((0, 4), np.int64),
        "one": np.array(3.5),
        "flags": np.array([True, False]),
    }
    meta = {"q": [0.1, None], "text": "Größe </script>", "deep": {"a": [1, 2]}}
    for given in (meta, json.dumps(meta).encode()):
        found, back = unpack(b"".join(pack(given, arrays)))
        assert found == meta and list(back) == list(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype and np.array_equal(back[name], array)
            assert not back[name].flags.writeable


def test_only_numbers_are_packed() -> None:
    """Objects, text and foreign byte orders are refused, and so is what JSON does not know."""
    for array in (np.array([{}]), np.array(["a"]), np.zeros(2, ">f4"), np.zeros(2, "f2,f2"), np.zeros(2, "M8[s]")):
        with pytest.raises(ValueError, match="The array odd is"):
            pack({}, {"odd": array})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"loss": float("nan")}, {})


def head(text: str, rest: bytes = b"") -> bytes:
    """A packet with that head."""
    return struct.pack("<I", len(text)) + text.encode() + rest


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (b"", "no head"),
        (struct.pack("<I", 2**32 - 1), "cannot have a head"),
        (head("{"), "damaged"),
        (head("[]"), "damaged"),
        (head("[" * 100_000), "damaged"),
        (head('{"meta": {}}'), "damaged"),
        (head('{"meta": [], "arrays": []}'), "is list, not an object"),
        (head('{"meta": {}, "arrays": [["a", "f4"]]}'), "damaged"),
        (head('{"meta": {}, "arrays": [["a", "O", [1]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", ["f4"], [1]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [[1, "f4", [1]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", "f4", [-1]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", "f4", [true]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", "f4", [0, 1e30]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", "f4", [0, 99999999999999999999999]]]}'), "cannot be"),
        (head('{"meta": {}, "arrays": [["a", "f4", [1073741824, 1073741824, 1073741824]]]}', b"1234"), "cut short"),
        (head('{"meta": {}, "arrays": [["a", "f4", [2]]]}', b"1234567"), "cut short"),
        (head('{"meta": {}, "arrays": [["a", "f4", [1]]]}', b"12345"), "belong to nothing"),
    ],
)
def test_damaged_packets_are_refused(packet: bytes, says: str) -> None:
    """Every size and type in a packet is checked before it is believed."""
    with pytest.raises(ValueError, match=says):
        unpack(packet)


def test_any_damage_is_refused_or_harmless() -> None:
    """A packet with random bytes changed unpacks to some arrays or raises ValueError, and nothing else."""
    whole = b"".join(pack({"a": 1}, {"x": np.arange(12, dtype=np.float32), "y": np.zeros((2, 3), np.uint8)}))
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(3_000):
        damaged = bytearray(whole[: generator.integers(len(whole) + 1)] if generator.random() < 0.3 else whole)
        for _ in range(generator.integers(1, 4)):
            if damaged:
                damaged[generator.integers(len(damaged))] = generator.integers(256)
        try:
            unpack(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 1_000
