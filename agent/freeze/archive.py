"""Zips from strangers: the table of contents is checked before anything is unpacked, and nothing is written."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from typing import Final

LARGEST: Final = 2**30  # bytes, unpacked, all members together
MOST_MEMBERS: Final = 5000  # a file of torch has one for every tensor
SPARE: Final = 24 << 20  # bytes; unpacking holds twice as much for a moment, and 4 times the zip + 64 MiB is promised
STEEPEST: Final = 200  # times smaller than unpacked; what is real packs worse
END, END_64, LOCATOR_64, LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x03\x04"
END_SIZE, END_64_SIZE, LOCATOR_64_SIZE, LOCAL_SIZE, ENTRY_SIZE = 22, 56, 20, 30, 46
UNPACKERS = {zipfile.ZIP_STORED: False, zipfile.ZIP_DEFLATED: True}


class Archive:
    """A zip in memory, every member of which is named as `allowed` has it, lies apart from the others and is no bomb.

    Raises ValueError for what is not so. `packed` says whether members may be compressed.
    """

    def __init__(self, data: bytes | memoryview, allowed: re.Pattern[str], *, packed: bool):
        self.data = memoryview(data)
        _check_end(self.data)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeError, struct.error):
            raise ValueError("its table of contents is damaged.") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.starts: dict[str, int] = {}
        end = 0  # of the member before
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = info.orig_filename
            if not allowed.fullmatch(name):
                raise ValueError(f"it has a member named {ascii(name)[:80]}, which does not belong there.")
            if name in self.members:
                raise ValueError(f"it has two members named {name!r}.")
            _check_size(info, packed)
            if info.header_offset < end:
                raise ValueError(f"its member {name!r} overlaps another.")
            self.members[name] = info
            self.starts[name] = _start(self.data, info)
            end = self.starts[name] + info.compress_size
        if end > len(self.data) - END_SIZE:
            raise ValueError("its last member is cut short.")
        if sum(info.file_size for info in infos) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST >> 20} MiB.")

    def __contains__(self, name: str) -> bool:
        """Say whether there is a member of this name."""
        return name in self.members

    def read(self, name: str, most: int | None = None) -> memoryview:
        """Return a member unpacked; ValueError when there is none, when it is larger than `most` or damaged.

        Without `most` it may be half as large again as the whole zip and `SPARE`: weights do not pack better.
        """
        most = len(self.data) * 3 // 2 + SPARE if most is None else most
        if name not in self.members:
            raise ValueError(f"it has no member {name!r}.")
        info = self.members[name]
        if info.file_size > most:
            raise ValueError(f"its member {name!r} is larger than {most >> 10} KiB.")
        content = self.data[self.starts[name] : self.starts[name] + info.compress_size]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            content = memoryview(_inflated(content, info))
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise ValueError(f"its member {name!r} is damaged: size or checksum differ.")
        return content


def _check_end(data: memoryview) -> None:
    """What stands at the end says how much will be read as table of contents: check it before `zipfile` believes it."""
    end = len(data) - END_SIZE
    if end < 0 or data[:4] != LOCAL:
        raise ValueError("it is no zip.")
    if data[end : end + 4] != END or data[end + 20 :] != b"\0\0":
        raise ValueError("it is cut short, or something follows the zip.")
    count, size, start = struct.unpack("<HLL", data[end + 10 : end + 20])
    locator = end - LOCATOR_64_SIZE
    if locator >= END_64_SIZE and data[locator : locator + 4] == LOCATOR_64:
        end = locator - END_64_SIZE
        if data[end : end + 4] != END_64:
            raise ValueError("its table of contents is damaged.")
        count, size, start = struct.unpack("<QQQ", data[end + 32 : end + 56])
    if start + size != end:
        raise ValueError("its table of contents does not lie where it should.")
    if count > MOST_MEMBERS or size > MOST_MEMBERS * 4 * ENTRY_SIZE:
        raise ValueError(f"it has more than {MOST_MEMBERS} members.")


def _check_size(info: zipfile.ZipInfo, packed: bool) -> None:
    name = info.orig_filename
    if info.flag_bits & 0x1:
        raise ValueError(f"its member {name!r} is encrypted.")
    if info.compress_type not in UNPACKERS or (UNPACKERS[info.compress_type] and not packed):
        raise ValueError(f"its member {name!r} is compressed in a way that no policy is.")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise ValueError(f"its member {name!r} has two sizes.")
    if info.file_size > STEEPEST * max(info.compress_size, 1):
        raise ValueError(f"its member {name!r} unpacks to more than {STEEPEST} times its size: it is a bomb.")


def _start(data: memoryview, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member start, by the header before them, which must tell the same name."""
    header = data[info.header_offset : info.header_offset + LOCAL_SIZE]
    if len(header) < LOCAL_SIZE or header[:4] != LOCAL:
        raise ValueError(f"its member {info.orig_filename!r} is not where the table of contents says.")
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    start = info.header_offset + LOCAL_SIZE + name_size
    if bytes(data[info.header_offset + LOCAL_SIZE : start]) != info.orig_filename.encode():
        raise ValueError(f"its member {info.orig_filename!r} has another name in the table of contents.")
    return start + extra_size


def _inflated(content: memoryview, info: zipfile.ZipInfo) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacker.decompress(content, info.file_size + 1)
    except zlib.error:
        raise ValueError(f"its member {info.orig_filename!r} is damaged.") from None
