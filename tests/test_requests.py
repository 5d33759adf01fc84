"""Tests of agent/viewer/requests.py: what is asked arrives once and in order, and nothing else does."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from agent.viewer import requests
from agent.viewer.requests import WHATS, Request, Requests, ask


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(asked: Requests, clock: Clock, only: str | None = None) -> list[Request]:
    """All that is waiting, one look after the other."""
    found = []
    for _ in range(40):
        clock.now += 0.2
        if (request := asked.next(only)) is not None:
            found.append(request)
    return found


def test_requests_arrive_once_and_in_order(tmp_path: Path) -> None:
    """Whatever was asked, by several viewers at once too, is taken once, in the order of its ids, one at a look."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    assert taken(asked, clock) == []
    ids: list[int] = []

    def viewer() -> None:
        for what in WHATS:
            ids.append(ask(asked.folder, what))

    threads = [threading.Thread(target=viewer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = taken(asked, clock)
    assert [request.id for request in found] == sorted(ids) and len(set(ids)) == 18
    assert sorted(request.what for request in found) == sorted(WHATS * 3)
    assert list(asked.folder.iterdir()) == [] and taken(asked, clock) == []


def test_the_folder_is_looked_at_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every 0.1 s, and while nothing changes it is not even listed, but no request is overlooked."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    os.utime(asked.folder, (1e9, 1e9))  # long ago
    looks, lists = [], []
    real_stat, real_list = os.stat, os.listdir
    monkeypatch.setattr(os, "stat", lambda *given, **named: looks.append(given) or real_stat(*given, **named))
    monkeypatch.setattr(os, "listdir", lambda *given: lists.append(given) or real_list(*given))
    for _ in range(1000):
        clock.now += 0.001
        asked.next()
    assert 9 <= len(looks) <= 11 and len(lists) == 1
    number = ask(asked.folder, "pause")
    assert taken(asked, clock) == [Request(number, "pause")]


def test_what_comes_in_the_same_tick_of_a_coarse_clock_is_seen(tmp_path: Path) -> None:
    """A request that leaves the folder's time of change as it was is taken all the same."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    clock.now += 1
    assert asked.next() is None
    before = os.stat(asked.folder)
    number = ask(asked.folder, "train")
    os.utime(asked.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now += 1
    assert asked.next() == Request(number, "train")


def test_what_was_asked_before_is_removed(tmp_path: Path) -> None:
    """Requests to an earlier process are not heeded by the next."""
    Requests(tmp_path / "requests")
    ask(tmp_path / "requests", "stop")
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    assert list(asked.folder.iterdir()) == [] and taken(asked, clock) == []


def test_only_one_kind_may_be_taken(tmp_path: Path) -> None:
    """With `only` the others wait on, in their order."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    for what in ("pause", "stop", "train"):
        ask(asked.folder, what)
    assert [request.what for request in taken(asked, clock, only="stop")] == ["stop"]
    assert [request.what for request in taken(asked, clock)] == ["pause", "train"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("5.json", b""),
        ("5.json", b"\xff\xfe"),
        ("5.json", b"[]"),
        ("5.json", b'"pause"'),
        ("5.json", b"[" * 4000),
        ("5.json", b'{"id": 5}'),
        ("5.json", b'{"id": 6, "what": "pause"}'),
        ("5.json", b'{"id": "5", "what": "pause"}'),
        ("5.json", b'{"id": 5, "what": "rm -rf /"}'),
        ("5.json", b'{"id": 5, "what": ["pause"]}'),
        ("5.json", b'{"id": 5, "what": "pause"}' + b" " * 5000),
        ("-5.json", b'{"id": -5, "what": "pause"}'),
        ("5.txt", b'{"id": 5, "what": "pause"}'),
        ("x\n5.json", b'{"id": 5, "what": "pause"}'),
    ],
)
def test_malformed_requests_are_removed(name: str, content: bytes, tmp_path: Path) -> None:
    """What is no request by its name, size or content is removed without effect, and the next one is heeded."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    (asked.folder / name).write_bytes(content)
    number = ask(asked.folder, "pause")
    assert taken(asked, clock) == [Request(number, "pause")]
    assert list(asked.folder.iterdir()) == []


def test_links_and_folders_and_other_users_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a request, a pipe, a folder of that name and another user's file are no requests, and none hangs."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    target = tmp_path / "elsewhere"
    target.write_text(json.dumps({"id": 5, "what": "stop"}))
    (asked.folder / "5.json").symlink_to(target)
    os.mkfifo(asked.folder / "6.json")
    (asked.folder / "7.json").mkdir()
    assert taken(asked, clock) == [] and target.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    path = asked.folder / "8.json"
    path.write_text(json.dumps({"id": 8, "what": "stop"}))
    if os.getuid() == 0:
        os.chown(path, 54321, 54321)
    assert taken(asked, clock) == []


def test_asking_nobody(tmp_path: Path) -> None:
    """Where no trainer made the folder, and for what nobody can be asked, there is an error and no file."""
    with pytest.raises(OSError):
        ask(tmp_path / "requests", "pause")
    Requests(tmp_path / "requests")
    with pytest.raises(ValueError, match="Unknown request 'explode'. There are: pause"):
        ask(tmp_path / "requests", "explode")
    assert list((tmp_path / "requests").iterdir()) == []


def test_the_folder_goes_with_the_run(tmp_path: Path) -> None:
    """Closing removes the folder and what is in it; looking afterwards finds nothing and raises nothing."""
    clock = Clock()
    asked = Requests(tmp_path / "requests", clock=clock)
    ask(asked.folder, "pause")
    asked.close()
    assert not asked.folder.exists() and taken(asked, clock) == []
    assert requests.LOOK_S <= 0.1
