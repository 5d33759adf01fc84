"""Damages policies at random and loads them, watched: `python fuzzing.py FOLDER CASES SEED [FIRST]`.

Nothing here imports stable-baselines3 or pickle; whatever the interpreter reports while a file is loaded (code that is
run, modules, processes, sockets, files that are opened) is a finding unless it is the opening of that file.
"""

from __future__ import annotations

import base64
import collections
import io
import json
import resource
import sys
import time
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from agent.freeze.sb3_policy import Stranger, load_zip
from agent.freeze.spaces import Discrete, Part, Parts

SLOW = 60.0  # seconds of the processor for one file; they take some milliseconds
MEMORY = 64 << 20  # bytes that loading may take beside 4 times the file

events: list[str] = []
allowed: set[str] = set()  # files; empty while nothing is watched


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what the interpreter reports."""
    if allowed and not (event == "open" and str(arguments[0]) in allowed and arguments[1] in ("r", "rb")):
        events.append(f"{event} {str(arguments)[:200]}")


def damaged(content: bytes, rng: Random) -> bytes:
    """Flip, cut, double, insert or move some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(data)) if data else 0
        length = rng.choice([1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, *b"(.)]}tRbc\x81\x93\x94\x85"])
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(length)
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                other = rng.randrange(len(data)) if data else 0
                data[at : at + length] = data[other : other + length]
            case 6 if rng.random() < 0.1:
                del data[at:]
    return bytes(data)


def put_together(members: dict[str, bytes]) -> bytes:
    """A zip with right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def taken_apart(content: bytes) -> dict[str, bytes]:
    """The members of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_damaged_data(members: dict[str, bytes], rng: Random) -> None:
    """A field whose pickle is damaged, or a value that is another's."""
    data = json.loads(members["data"])
    needed = ("policy_class", "policy_kwargs", "observation_space", "action_space")
    name = rng.choice([name for name in needed if name in data])
    field = data[name]
    if isinstance(field, dict) and ":serialized:" in field and rng.random() < 0.9:
        field[":serialized:"] = base64.b64encode(damaged(base64.b64decode(field[":serialized:"]), rng)).decode()
    else:
        other = data[rng.choice(list(data))]
        data[name] = rng.choice([None, 0, -1, 1e308, "", [], [[]], {}, {"net_arch": [10**12]}, other])
    members["data"] = json.dumps(data).encode()


def with_damaged_tensors(members: dict[str, bytes], rng: Random) -> None:
    """Tensors whose description or numbers are damaged."""
    content = members["policy.pth"]
    if content[:2] != b"PK":
        cut = rng.choice([6000, len(content)])  # what describes the tensors stands in front
        members["policy.pth"] = damaged(content[:cut], rng) + content[cut:]
        return
    inner = taken_apart(content)
    name = rng.choice([next(name for name in inner if name.endswith("data.pkl")), rng.choice(list(inner))])
    inner[name] = damaged(inner[name], rng)
    members["policy.pth"] = put_together(inner)


def mutant(content: bytes, rng: Random) -> bytes:
    """A policy with something wrong in it, here or there."""
    place = rng.randrange(8)
    if place == 0:
        return damaged(content, rng)
    members = taken_apart(content)
    if place == 1:
        name = rng.choice([name for name in ("data", "policy.pth") if members[name]])
        members[name] = damaged(members[name], rng)
    elif place < 5:
        with_damaged_data(members, rng)
    else:
        with_damaged_tensors(members, rng)
    return put_together(members)


def watched(path: Path) -> Stranger:
    """Load a file; it and its statistics are all that may be opened."""
    allowed.update((str(path), str(path.with_suffix(".vecnormalize.pkl"))))
    try:
        return load_zip(path)
    finally:
        allowed.clear()


def zeros(space: Part) -> np.ndarray:
    """Two observations of a space."""
    return np.zeros(2, np.int64) if isinstance(space, Discrete) else np.zeros((2, *space.shape), np.float32)


def actions_of(stranger: Stranger) -> str:
    """What a policy does where it sees nothing, bit for bit."""
    seen = stranger.observations
    parts = isinstance(seen, Parts)
    actions = stranger.act({name: zeros(part) for name, part in seen.parts.items()} if parts else zeros(seen))
    return f"{actions.dtype} {actions.shape} {actions.tobytes().hex()}"


def limited(size: int | None) -> None:
    """Let the process have so much more memory than it has, all of it when None."""
    most = resource.RLIM_INFINITY
    if size is not None:
        most = size + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def outcome(path: Path) -> str:
    """Load a file and say what came of it; what should not come of it is put among the findings."""
    start = time.process_time()
    beside = path.with_suffix(".vecnormalize.pkl")
    limited(4 * (path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)) + MEMORY)
    try:
        stranger = watched(path)
    except ValueError as error:
        limited(None)
        origin = error.__cause__.__traceback__ if error.__cause__ else None
        while origin is not None and origin.tb_next is not None:
            origin = origin.tb_next
        ours = origin is not None and "freeze" in Path(origin.tb_frame.f_code.co_filename).parts
        sentence = str(error)
        result = "refused"
        if not ours or "damaged (" in sentence or "\n" in sentence or not sentence.isprintable():
            events.append(f"an error that nobody thought of: {sentence!r} from {error.__cause__!r}")
    else:
        limited(None)
        result = "loaded"
        actions_of(stranger)
        if not all(each.isfinite().all() for each in stranger.network.parameters()):
            events.append("a policy that is not finite")
    if time.process_time() - start > SLOW:
        events.append(f"{time.process_time() - start:.0f} seconds for one file")
    return result


def main(folder: Path, cases: int, seed: int, first: int = 0) -> None:
    """Damage the policies in a folder, so many times, and print how many were refused and what was found.

    Each case has a generator of its own: with `first` one of them can be made again alone.
    """
    good = {path: put_together(taken_apart(path.read_bytes())) for path in sorted(folder.glob("*.zip"))}  # no dates
    statistics = {path: path.with_suffix(".vecnormalize.pkl") for path in good}
    for path in good:
        actions_of(load_zip(path))  # imports and caches what loading needs
    sys.addaudithook(watch)
    counts: collections.Counter[str] = collections.Counter()
    target = folder / f"mutant {seed}" / "policy.zip"
    target.parent.mkdir(exist_ok=True)
    beside = target.with_suffix(".vecnormalize.pkl")
    for case in range(first, first + cases):
        rng = Random(f"{seed} {case}")
        path = rng.choice(list(good))
        target.write_bytes(mutant(good[path], rng))
        beside.unlink(missing_ok=True)
        if statistics[path].exists():
            moments = statistics[path].read_bytes()
            beside.write_bytes(damaged(moments, rng) if rng.random() < 0.5 else moments)
            if rng.random() < 0.5:
                target.write_bytes(good[path])
        already = len(events)
        counts[outcome(target)] += 1
        events[already:] = [f"seed {seed}, case {case}: {event}" for event in events[already:]]
    print(json.dumps({**counts, "findings": events[:20]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
