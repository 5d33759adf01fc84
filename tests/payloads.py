"""Hostile variants of each field that a policy's files have: `python payloads.py FOLDER EVERY` loads them, watched.

FOLDER holds sound policies. Each field of their data, each setting, each attribute of a space and of VecNormalize's
statistics, each description of tensors and each member is replaced by each of PAYLOADS in turn; of those that stand
within a field only every EVERY-th is tried. What is read must be refused in a sentence, or act bit for bit as the sound
policy does.
"""

from __future__ import annotations

import base64
import collections
import itertools
import json
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzzing
from agent.freeze.sb3_policy import load_zip

COMMAND = b"touch icebox-was-here"


def text(content: bytes) -> bytes:
    """The token of a text."""
    return b"X" + struct.pack("<I", len(content)) + content


def int_of(number: int) -> bytes:
    """Ten bytes of a number."""
    return number.to_bytes(10, "little")


CALL, TOUCH = b"cposix\nsystem\n", text(COMMAND)
# Each leaves one thing on the stack of a pickle, or none where the machine should have stopped.
PAYLOADS: dict[str, bytes] = {
    "reduce": CALL + TOUCH + b"\x85R",
    "reduce eval": b"cbuiltins\neval\n" + text(b"__import__('os').system('touch icebox-was-here')") + b"\x85R",
    "reduce import": b"cbuiltins\n__import__\n" + text(b"antigravity") + b"\x85R",
    "reduce open": b"cio\nopen\n" + text(b"icebox-was-here") + text(b"w") + b"\x86R",
    "reduce socket": b"csocket\nsocket\n)R",
    "named on the stack": text(b"os") + text(b"system") + b"\x93" + TOUCH + b"\x85R",
    "named by dots": text(b"subprocess") + text(b"Popen.__init__") + b"\x93" + TOUCH + b"\x85R",
    "a module that is not there": b"cnowhere.at_all\nThing\n)\x81",
    "new object": b"csubprocess\nPopen\n" + TOUCH + b"\x85\x81",
    "new object with keywords": b"csubprocess\nPopen\n)}" + text(b"args") + TOUCH + b"s\x92",
    "built": b"ctypes\nSimpleNamespace\n)\x81}" + text(b"__reduce__") + CALL + b"sb",
    "built by its setter": b"cbuiltins\nobject\n)\x81}" + text(b"__setstate__") + CALL + b"sb" + TOUCH + b"b",
    "built twice": b"cbuiltins\nobject\n)\x81}b}b",
    "old instance": b"(" + TOUCH + b"iposix\nsystem\n",
    "old object": b"(" + CALL + TOUCH + b"o",
    "persistent": TOUCH + b"Q",
    "persistent text": b"P" + COMMAND + b"\n",
    "extension": b"\x82\x01",
    "extension of two bytes": b"\x83\x01\x02",
    "extension of four bytes": b"\x84\x01\x02\x03\x04",
    "a buffer outside": b"\x97",
    "a buffer to read only": b"\x97\x98",
    "frames in frames": b"\x95" + b"\xff" * 8 + b"\x95" + b"\0" * 8 + b"\x80\x05N",
    "an unknown protocol": b"\x80\xffN",
    "an unknown token": b"\xffN",
    "stopped early": b"N.",
    "lists of lists": b"]" + b"2(22e2(22e" * 40,
    "a memo that doubles": b"]q\x00" + b"".join(b"(h%ch%clq%c" % (n, n, n + 1) for n in range(60)),
    "a list in itself": b"]q\xc8h\xc8a",
    "a dictionary in itself": b"}q\xc8" + text(b"a") + b"h\xc8s",
    "a long number": b"L" + b"9" * 20_000 + b"L\n",
    "a number as text": b"I" + b"9" * 20_000 + b"\n",
    "a number of many bytes": b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000,
    "a number of less than no bytes": b"\x8b" + struct.pack("<i", -1),
    "a number with a fraction as text": b"F1e999999999\n",
    "not a number": b"G\x7f\xf8\0\0\0\0\0\0",
    "bytes without end": b"\x8e" + struct.pack("<Q", 2**62),
    "text without end": b"\x8d" + struct.pack("<Q", 2**62),
    "a byte array without end": b"\x96" + struct.pack("<Q", 2**62),
    "bytes of 4 GiB": b"B" + b"\xff" * 4,
    "a memo without end": b"Nr\xff\xff\xff\xff",
    "wide text": text("\U0001f9ca".encode() + b"a" * 300_000),
    "half a letter": text(b"\xed\xa0\x80"),
    "deep tuples": b"N" + b"\x85" * 30_000,
    "deep calls": b"N" * 9000 + b"\x85" + b"\x86R" * 8990,
    "keys that collide": b"}(" + b"".join(b"\x8a\x0a" + int_of(n * (2**61 - 1)) + b"N" for n in range(9000)) + b"u",
    "many marks": b"(" * 20_000 + b"N",
    "nothing": b"",
    "an array of objects": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01K\x01\x85"
    b"cnumpy\ndtype\n" + text(b"O8") + b"\x89\x88\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    b"K?tb\x89]" + CALL + TOUCH + b"\x85Ratb",
    "an array without end": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01\x8a\x06"
    b"\0\0\0\0\0\x01\x85cnumpy\ndtype\n" + text(b"f4") + b"\x89\x88\x87R(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\0tb\x89C\0tb",
    "code": b"ctypes\nCodeType\n(K\0K\0K\0K\0K\0C\0))" + text(b"f") * 3 + b"K\0C\0C\0tR",
}  # fmt: skip
READ = ("policy_class", "policy_kwargs", "observation_space", "action_space")
UNREAD = ("reduce", "old instance")  # tried where nothing is looked at
SENTINEL = "-the payload goes here-"
MARK = pickle.dumps(SENTINEL, 4)[11:-2]  # its token, behind protocol and frame, without what remembers it


def with_payload(value: Any, payload: bytes) -> bytes:
    """The pickle of something in which the sentinel stands, with the payload in its place."""
    whole = pickle.dumps(value, 4)
    assert whole.count(MARK) == 1
    return whole.replace(MARK, payload)


def field(content: bytes) -> dict[str, str]:
    """A field as stable-baselines3 writes what JSON cannot."""
    return {":type:": "", ":serialized:": base64.b64encode(content).decode()}


def settings(data: dict[str, Any]) -> dict[str, Any]:
    """The settings of a sound policy, which are ours."""
    given = data["policy_kwargs"]
    return pickle.loads(base64.b64decode(given[":serialized:"])) if ":serialized:" in given else given


SETTINGS = [
    *("net_arch", "activation_fn", "features_extractor_class", "features_extractor_kwargs", "normalize_images"),
    *("share_features_extractor", "ortho_init", "use_sde", "log_std_init", "full_std", "use_expln", "squash_output"),
    *("clip_mean", "n_critics", "n_quantiles", "optimizer_class", "optimizer_kwargs", "more"),
]


def spaces_of(data: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each space of a sound policy, each of its attributes, and the space with the sentinel there."""
    for name in ("observation_space", "action_space"):
        space = pickle.loads(base64.b64decode(data[name][":serialized:"]))
        for attribute in vars(space):
            changed = pickle.loads(base64.b64decode(data[name][":serialized:"]))
            vars(changed)[attribute] = SENTINEL
            yield name, attribute, changed


def fields(members: dict[str, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each variant of a policy with its name."""
    data = json.loads(members["data"])

    def with_field(name: str, content: bytes) -> dict[str, bytes]:
        return {**members, "data": json.dumps({**data, name: field(content)}).encode()}

    for kind, payload in PAYLOADS.items():
        whole = b"\x80\x04" + payload + b"."
        for name in READ:
            yield f"field {name}: {kind}", with_field(name, whole)
        if kind in UNREAD:
            for name in data.keys() - set(READ):
                yield f"field {name}: {kind}", with_field(name, whole)
            for name in members.keys() - {"data", "policy.pth"}:
                yield f"member {name}: {kind}", {**members, name: whole}


def inner_fields(members: dict[str, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each variant of what stands within the fields that are read."""
    data = json.loads(members["data"])

    def with_field(name: str, content: bytes) -> dict[str, bytes]:
        return {**members, "data": json.dumps({**data, name: field(content)}).encode()}

    for kind, payload in PAYLOADS.items():
        for name in SETTINGS:
            content = with_payload({**settings(data), name: SENTINEL}, payload)
            yield f"setting {name}: {kind}", with_field("policy_kwargs", content)
    for name, attribute, changed in spaces_of(data):
        for kind, payload in PAYLOADS.items():
            yield f"{name}.{attribute}: {kind}", with_field(name, with_payload(changed, payload))
    yield from tensors(members)


def tensors(members: dict[str, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each variant of what describes the tensors: all of it, one of them, its storage, what calls it."""
    inner = fuzzing.taken_apart(members["policy.pth"])
    described = inner["archive/data.pkl"]
    first = described.index(b"ctorch._utils\n_rebuild_tensor_v2\n")
    storage = described.index(b"ctorch\nFloatStorage\n")
    for kind, payload in PAYLOADS.items():
        for place, content in {
            "all": b"\x80\x02" + payload + b".",
            "before": b"\x80\x02" + payload + b"0" + described[2:],
            "a tensor": described[:first] + payload + described[first:],
            "how it is rebuilt": described[:first] + payload + described[first + 33 :],
            "its storage": described[:storage] + payload + described[storage + 20 :],
            "at the end": described[:-1] + payload + b"b.",
        }.items():
            changed = {**inner, "archive/data.pkl": content}
            yield f"tensors, {place}: {kind}", {**members, "policy.pth": fuzzing.put_together(changed)}


def statistics(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Each variant of VecNormalize's statistics."""
    sound = pickle.loads(content)
    attributes = set(vars(sound)) - {"venv", "class_attributes", "returns"}
    for kind, payload in PAYLOADS.items():
        yield f"statistics: {kind}", b"\x80\x04" + payload + b"."
        for name in sorted(attributes):
            changed = pickle.loads(content)
            vars(changed).update({"venv": 0, "class_attributes": 0, "returns": 0, name: SENTINEL})
            yield f"statistics.{name}: {kind}", with_payload(changed, payload)
        for name in vars(sound.obs_rms):
            changed = pickle.loads(content)
            vars(changed).update({"venv": 0, "class_attributes": 0, "returns": 0})
            setattr(changed.obs_rms, name, SENTINEL)
            yield f"statistics.obs_rms.{name}: {kind}", with_payload(changed, payload)


def main(folder: Path, every: int) -> None:
    """Load variants of the policies in a folder, and print how many there were and what was found."""
    counts: collections.Counter[str] = collections.Counter()
    target = folder / "variant" / "policy.zip"
    target.parent.mkdir()
    beside = target.with_suffix(".vecnormalize.pkl")
    expected = {path: fuzzing.actions_of(load_zip(path)) for path in sorted(folder.glob("*.zip"))}
    sys.addaudithook(fuzzing.watch)

    def tried(path: Path, name: str) -> None:
        already = len(fuzzing.events)
        result = fuzzing.outcome(target)
        counts[result] += 1
        if result == "loaded" and fuzzing.actions_of(load_zip(target)) != expected[path]:
            fuzzing.events.append("it acts otherwise")
        fuzzing.events[already:] = [f"{path.name}, {name}: {event}" for event in fuzzing.events[already:]]

    for path in expected:
        moments = path.with_suffix(".vecnormalize.pkl")
        if moments.exists():
            beside.write_bytes(moments.read_bytes())
        sound = fuzzing.taken_apart(path.read_bytes())
        for name, members in itertools.chain(fields(sound), itertools.islice(inner_fields(sound), 0, None, every)):
            target.write_bytes(fuzzing.put_together(members))
            tried(path, name)
        if moments.exists():
            target.write_bytes(path.read_bytes())
            for name, content in itertools.islice(statistics(moments.read_bytes()), 0, None, every):
                beside.write_bytes(content)
                tried(path, name)
            beside.unlink()
    print(json.dumps({**counts, "findings": fuzzing.events[:40]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
