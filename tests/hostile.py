"""Zips taken apart and put together again with something in them that does not belong there."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch

ROOT = Path(__file__).parent.parent
Members = dict[str, bytes]


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """What pickle is told to call."""
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def members_of(path: Path) -> Members:
    """Take a zip apart."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """Put a zip together."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def pickled(value: Any) -> dict[str, str]:
    """A field as stable-baselines3 writes what JSON cannot."""
    return {":type:": "", ":serialized:": base64.b64encode(cloudpickle.dumps(value)).decode()}


def with_data(members: Members, **fields: Any) -> Members:
    """Change fields of the data; None removes one."""
    data = json.loads(members["data"])
    data |= {name: value for name, value in fields.items() if value is not None}
    for name in [name for name, value in fields.items() if value is None]:
        del data[name]
    return {**members, "data": json.dumps(data).encode()}


def with_tensors(members: Members, change: Callable[[dict[str, Any]], Any], old: bool = False) -> Members:
    """Change the state dict; what `change` returns is saved, the state dict itself when that is None."""
    state = torch.load(io.BytesIO(members["policy.pth"]), weights_only=True)
    changed = change(state)
    stream = io.BytesIO()
    torch.save(state if changed is None else changed, stream, _use_new_zipfile_serialization=not old)
    return {**members, "policy.pth": stream.getvalue()}


def with_inner(members: Members, change: Callable[[Members], Any], method: int = zipfile.ZIP_STORED) -> Members:
    """Change members of the zip that is policy.pth."""
    with zipfile.ZipFile(io.BytesIO(members["policy.pth"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    change(inner)
    return {**members, "policy.pth": zipped(inner, method)}


def with_bomb_in_tensors(members: Members, marker: Path) -> Members:
    """Put code where the tensors are described."""

    def change(inner: Members) -> None:
        inner["archive/data.pkl"] = pickle.dumps({"q_net.q_net.0.weight": Bomb(marker)}, protocol=2)

    return with_inner(members, change)


def expanded(state: dict[str, Any], name: str) -> None:
    """A tensor of the right shape with one number in memory."""
    state[name] = torch.zeros(1, 1).expand(state[name].shape)


def by_hand(*placed: tuple[str, bytes, int], body: bytes) -> bytes:
    """A zip whose table of contents says that these members lie at these places of `body`."""
    table = b""
    for name, content, offset in placed:
        crc, size = zlib.crc32(content), len(content)
        sizes = (crc, size, size, len(name))
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, offset)
        table += name.encode()
    count = len(placed)
    return body + table + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(table), len(body), 0)


def local(name: str, content: bytes) -> bytes:
    """A member as it lies in a zip."""
    crc, size = zlib.crc32(content), len(content)
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, crc, size, size, len(name), 0) + name.encode() + content


def overlapping(members: Members) -> bytes:
    """A member that lies within the bytes of another, as in a bomb without nesting."""
    inner = local("policy.pth", members["policy.pth"])
    start = len(local("data", b""))
    return by_hand(("data", inner, 0), ("policy.pth", members["policy.pth"], start), body=local("data", inner))


def watched(folder: Path, *words: str, **environment: str) -> dict[str, Any]:
    """What a watched process reports, which is started in an empty folder that it must leave empty."""
    (folder / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-B", *words],
        cwd=folder / "empty",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment},
        capture_output=True,
        text=True,
        timeout=7200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((folder / "empty").iterdir()) == []
    return json.loads(done.stdout)
