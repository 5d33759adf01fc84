"""Zips from strangers: nothing but what is sound and allowed is unpacked."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.freeze.archive import Archive
from hostile import by_hand, local, overlapping, zipped

ANY = re.compile(r"[a-z./_]+")
GOOD = {"data": b"some text", "policy.pth": bytes(range(256)) * 40}


def opened(content: bytes, packed: bool = True) -> Archive:
    """The archive, of which every member was read."""
    archive = Archive(content, ANY, packed=packed)
    for name in archive.members:
        archive.read(name)
    return archive


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,9}\Z"), st.binary(max_size=300), min_size=1), st.booleans())
def test_as_zipfile_reads(members: dict[str, bytes], deflated: bool) -> None:
    """Every member of a sound zip is read as Python's own zipfile reads it."""
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    archive = Archive(zipped(members, method), ANY, packed=True)
    assert {name: bytes(archive.read(name)) for name in archive.members} == members
    assert all(name in archive for name in members) and "no such" not in archive


def streamed() -> bytes:
    """A zip with 64-bit fields, as stable-baselines3 writes its tensors."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("policy.pth", "w", force_zip64=True) as member:
        member.write(b"numbers")
    return stream.getvalue()


def test_members_with_64_bit_fields() -> None:
    """Members that were opened for writing with 64-bit sizes are read."""
    assert bytes(opened(streamed()).read("policy.pth")) == b"numbers"


def test_a_member_that_is_not_there() -> None:
    """A missing member, and one larger than the reader wants, is refused by name."""
    with pytest.raises(ValueError, match="no member 'other'"):
        opened(zipped(GOOD)).read("other")
    with pytest.raises(ValueError, match="'policy.pth' is larger than 1 KiB"):
        opened(zipped(GOOD)).read("policy.pth", most=1024)


def patched(content: bytes, at: int, new: bytes) -> bytes:
    """Some bytes replaced."""
    return content[:at] + new + content[at + len(new) :]


STORED = zipped(GOOD)
TABLE = STORED.index(b"PK\x01\x02")
BOMB = zipped({"data": b"0" * 10_000_000}, zipfile.ZIP_DEFLATED)
MANY = zipped({f"{'a' * (1 + n % 50)}.{'b' * (n // 50)}": b"" for n in range(5200)})
FAR = by_hand(("data", b"x", 900), body=local("data", b"x"))
SAME = by_hand(("data", b"x", 0), ("data", b"x", 0), body=local("data", b"x"))

ATTACKS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no zip"),
    "no zip": (b"\x89PNG" * 50, "no zip"),
    "a table without members": (by_hand(body=b""), "no zip"),
    "cut short": (STORED[:-1], "cut short"),
    "half": (STORED[: len(STORED) // 2], "cut short"),
    "something behind": (STORED + b"\0" * 30, "something follows"),
    "a comment": (STORED[:-2] + b"\x02\0hi", "something follows"),
    "something before": (local("more", b"z") + STORED, "does not lie where it should"),
    "duplicates": (SAME, "two members named 'data'"),
    "overlap": (overlapping(GOOD), "'policy.pth' overlaps another"),
    "bomb": (BOMB, "it is a bomb"),
    "too many members": (MANY, "more than 5000 members"),
    "a place outside": (FAR, "not where the table of contents says"),
    "encrypted": (patched(STORED, TABLE + 8, b"\x01"), "encrypted"),
    "bzip2": (zipped(GOOD, zipfile.ZIP_BZIP2), "compressed in a way"),
    "lzma": (zipped(GOOD, zipfile.ZIP_LZMA), "compressed in a way"),
    "two sizes": (patched(STORED, TABLE + 24, b"\xff\xff\0\0"), "two sizes"),
    "beyond the end": (patched(STORED, TABLE + 20, b"\xff\xff\xff\0\xff\xff\xff\0"), "overlaps another"),
    "another name": (patched(STORED, 30, b"dato"), "another name"),
    "another content": (patched(STORED, STORED.index(b"some"), b"same"), "size or checksum"),
    "a name cut by a zero": (by_hand(("data\0", b"x", 0), body=local("data\0", b"x")), "named 'data.x00'"),
    "a table that is none": (patched(STORED, TABLE, b"no"), "table of contents is damaged"),
    "a table of another size": (patched(STORED, len(STORED) - 10, b"\0"), "does not lie where it should"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_sound(attack: str) -> None:
    """A damaged or hostile zip is refused, and the reason is said."""
    content, said = ATTACKS[attack]
    with pytest.raises(ValueError, match=said):
        opened(content)


@pytest.mark.parametrize("name", ["../data", "/data", "C:\\data", "data/../data", "data/", "DATA", "policy.pt"])
def test_names(name: str) -> None:
    """A name that is not allowed, not even a path that would lead to an allowed one, is refused and shown as text."""
    with pytest.raises(ValueError, match="which does not belong there"):
        Archive(zipped({name: b"x"}), re.compile("data|policy.pth"), packed=True)


def test_packed_where_nothing_is() -> None:
    """A compressed member is refused where members are stored as they are."""
    content = zipped(GOOD, zipfile.ZIP_DEFLATED)
    opened(content)
    with pytest.raises(ValueError, match="compressed in a way"):
        opened(content, packed=False)
    opened(zipped(GOOD), packed=False)


def test_a_bomb_that_lies() -> None:
    """A member that says it is small is not unpacked further than it says."""
    table = BOMB.index(b"PK\x01\x02")
    lying = patched(BOMB, table + 24, struct.pack("<L", 1000))
    archive = Archive(lying, ANY, packed=True)
    tracemalloc.start()
    with pytest.raises(ValueError, match="size or checksum"):
        archive.read("data")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_much_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that are too large together are refused before one is unpacked."""
    monkeypatch.setattr("agent.freeze.archive.LARGEST", 10_000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        Archive(zipped(GOOD), ANY, packed=True)
