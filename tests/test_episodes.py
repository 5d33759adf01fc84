"""Tests of agent/viewer/episodes.py: of each room the best, worst and latest game, whatever the disk does."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.viewer import episodes
from agent.viewer.episodes import EpisodeLog
from agent.viewer.packet import encode_picture, pack, read_packets, unpack

PICTURE = encode_picture(np.full((10, 10, 3), 80, np.uint8))[0]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Games of these tests end faster than any person could watch."""
    monkeypatch.setattr(episodes, "SETTLE_S", 0.0)


def packet(room: str, number: int, step: int, score: float = 0.0, **other: Any) -> bytes:
    """A picture of a game."""
    meta = {"room": room, "episode": number, "step": step, "score": score, "seed": number, "ended": False}
    return pack(meta | other, PICTURE)


def play(log: EpisodeLog, room: str, number: int, score: float, length: int = 4, **other: Any) -> dict[str, Any] | None:
    """One whole game."""
    for step in range(length + 1):
        log.add(room, packet(room, number, step, score * step / length, ended=step == length))
    return log.end(room, score, length, number, **other)


def reasons(log: EpisodeLog) -> dict[tuple[str, float], str]:
    """Why each is kept, by room and score."""
    return {(row["room"], row["score"]): row["why"] for row in log.list()}


def files(folder: Path) -> set[str]:
    """What lies in the folder."""
    return {path.name for path in folder.iterdir()}


def test_best_worst_and_latest_of_each_room(tmp_path: Path) -> None:
    """After any number of games a slow rule over all of them names the same ones, and no other file is left."""
    log, rng, played = EpisodeLog(tmp_path), np.random.default_rng(0), {"live": [], "you": []}
    for number in range(40):
        room, score = ("live", "you")[number % 3 == 0], float(rng.integers(-9, 10))
        row = play(log, room, number, score)
        played[room].append((score, number, row["id"]))
        kept = set()
        for found in played.values():
            if found:
                best, worst = max(found, key=lambda each: each[0]), min(found, key=lambda each: each[0])
                kept |= {best[2], worst[2], found[-1][2]}
        assert {each["id"] for each in log.list()} == kept
        assert files(tmp_path) == {"index.json"} | {f"{id}.ep" for id in kept}
    assert {row["why"] for row in log.list()} == {"best", "worst", "latest"}


def test_a_file_holds_the_packets(tmp_path: Path) -> None:
    """An .ep is every packet with its length before it, as the page reads it; the row says what it is."""
    log = EpisodeLog(tmp_path)
    sent = [packet("you", 3, step) for step in range(6)]
    for each in sent:
        log.add("you", each)
    row = log.end("you", 7.5, 5, 11, pictures_per_s=15.0)
    path = log.path(row["id"], "ep")
    assert path.read_bytes() == b"".join(struct.pack("<I", len(each)) + each for each in sent)
    assert list(read_packets(path)) == sent
    (listed,) = log.list()
    expected = {"id": row["id"], "room": "you", "score": 7.5, "length": 5, "seed": 11, "why": "best", "cut": ""}
    assert {name: listed[name] for name in expected} == expected and listed["pictures_per_s"] == 15.0


def test_animations_are_made_once(tmp_path: Path) -> None:
    """A WebP and a GIF come back and stay beside the episode until it goes."""
    log = EpisodeLog(tmp_path)
    first = play(log, "you", 1, 0.0)
    for form in ("webp", "gif"):
        data = log.animation(first["id"], form)
        assert Image.open(io.BytesIO(data)).format == form.upper()
        assert log.path(first["id"], form).read_bytes() == data == log.animation(first["id"], form)
    play(log, "you", 2, 5.0)
    play(log, "you", 3, -5.0)
    assert not [name for name in files(tmp_path) if name.startswith(first["id"])]


def test_an_opened_game_outlives_its_replacement(tmp_path: Path) -> None:
    """What a page has opened can be read and saved after newer games took its place; nothing of it is left on disk."""
    log, shares = EpisodeLog(tmp_path), []
    first = play(log, "you", 1, 0.0, length=8)
    opened = log.content(first["id"])
    for number in range(2, 6):
        play(log, "you", number, (-5.0) ** number)
    assert first["id"] not in {row["id"] for row in log.list()} and log.content(first["id"]) == opened
    for form in ("webp", "gif"):
        data = log.animation(first["id"], form, shares.append)
        assert Image.open(io.BytesIO(data)).format == form.upper()
    assert shares == [step / 9 for step in range(9)] * 2
    assert not [name for name in files(tmp_path) if name.startswith(first["id"])]
    log.close()
    with pytest.raises(FileNotFoundError):
        log.content(first["id"])


def test_an_animation_without_a_disk_is_given_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be kept the animation is made and given, and the log says that it is not kept."""
    said: list[str] = []
    log = EpisodeLog(tmp_path, said.append)
    row = play(log, "you", 1, 0.0)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(episodes, "write_atomic", full)
    assert log.animation(row["id"], "gif").startswith(b"GIF89a")
    assert "No space left" in said[-1] and not log.path(row["id"], "gif").exists()


def test_a_game_that_was_left_is_marked(tmp_path: Path) -> None:
    """Its score is none to compare: it is kept as the latest only and says so, and the next one replaces it."""
    log = EpisodeLog(tmp_path)
    play(log, "you", 1, 3.0)
    for step in range(5):
        log.add("you", packet("you", 2, step, score=99.0))
    for step in range(4):
        log.add("you", packet("you", 3, step))
    assert reasons(log) == {("you", 3.0): "best", ("you", 99.0): "latest"}
    assert [row["cut"] for row in log.list()] == ["It was left before its end.", ""]
    log.end("you", 1.0, 3, 3)
    assert reasons(log) == {("you", 3.0): "best", ("you", 1.0): "latest"}


def test_an_end_that_nobody_reported_counts(tmp_path: Path) -> None:
    """The last picture of a room that only shows says itself that the game is over, and how it went."""
    log = EpisodeLog(tmp_path)
    for step in range(5):
        log.add("live", packet("live", 8, step + 200, score=4.0, ended=step == 4))
    log.add("live", packet("live", 9, 0))
    (row,) = log.list()
    assert (row["score"], row["length"], row["seed"], row["finished"], row["why"]) == (4.0, 204, 8, True, "best")
    assert row["cut"] == "Its first 200 steps were not seen."


def test_a_long_game_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the most pictures or bytes is left out, and the row says so; its score still counts."""
    monkeypatch.setattr(episodes, "MOST_PICTURES", 10)
    log = EpisodeLog(tmp_path)
    row = play(log, "you", 1, 6.0, length=50)
    assert row["cut"] == "Only its first 10 pictures are kept."
    assert len(list(read_packets(log.path(row["id"], "ep")))) == 10
    monkeypatch.setattr(episodes, "MOST_BYTES", 1_000)
    row = play(log, "you", 2, 7.0, length=50)
    assert log.path(row["id"], "ep").stat().st_size <= 1_000 + 4 * row["pictures"] and row["pictures"] < 10
    assert reasons(log)["you", 7.0] == "best"


def test_games_of_a_blink_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures are no episode; of games that end many times a second only a better or a worse one is written."""
    log = EpisodeLog(tmp_path)
    assert play(log, "live", 1, 3.0, length=1) is None and files(tmp_path) == set()
    monkeypatch.setattr(episodes, "SETTLE_S", 60.0)
    kept = [play(log, "live", number, score) for number, score in enumerate([3.0, 3.0, 4.0, 3.5, 2.0, 2.0])]
    assert [row is not None for row in kept] == [True, False, True, False, True, False]
    assert play(log, "live", 9, 3.0, keep=True)["keep"]


def test_what_is_recorded_stays(tmp_path: Path) -> None:
    """Episodes that somebody asked for are kept all, beside the three of the room."""
    log = EpisodeLog(tmp_path)
    for number in range(5):
        play(log, "record", number, float(number), keep=True)
        play(log, "record", number, float(number))
    assert sorted(row["why"] for row in log.list()) == ["best"] + ["recorded"] * 5 + ["worst"]


def test_two_logs_share_a_folder(tmp_path: Path) -> None:
    """What another process adds is seen, and nothing of it is lost when this one goes on."""
    mine, other = EpisodeLog(tmp_path), EpisodeLog(tmp_path)
    play(mine, "you", 1, 1.0)
    play(other, "record", 1, 2.0, keep=True)
    play(mine, "you", 2, 3.0)
    assert reasons(mine) == reasons(other) == {("you", 1.0): "worst", ("you", 3.0): "best", ("record", 2.0): "recorded"}


@pytest.mark.parametrize("index", ["", "{", "[" * 100_000, "null", '{"format": "icebox-episodes"}', "[1]"])
def test_a_damaged_index_is_a_sentence(index: str, tmp_path: Path) -> None:
    """It is passed over, and the episodes are taken in again from their own packets."""
    log = EpisodeLog(tmp_path)
    play(log, "you", 1, 1.0)
    play(log, "you", 2, 4.0)
    (tmp_path / "index.json").write_text(index)
    said: list[str] = []
    again = EpisodeLog(tmp_path, said.append)
    assert len(said) == 1 and "index.json is damaged" in said[0]
    assert reasons(again) == {("you", 1.0): "worst", ("you", 4.0): "best"}


def test_an_index_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """It is named, and neither it nor an episode beside it is changed, whatever is played."""
    log = EpisodeLog(tmp_path)
    play(log, "you", 1, 1.0)
    (tmp_path / "index.json").write_text('{"format": "icebox-episodes", "version": 2}')
    kept, said = {path.name: path.read_bytes() for path in tmp_path.iterdir()}, []
    again = EpisodeLog(tmp_path, said.append)
    assert any("version 2" in sentence for sentence in said)
    play(again, "you", 2, 4.0)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_damaged_rows_and_files_are_sentences(tmp_path: Path) -> None:
    """A row that lies or leads out of the folder, a file of noise, one that is gone: the others are still there."""
    log = EpisodeLog(tmp_path)
    play(log, "you", 1, 1.0)
    row = play(log, "you", 2, 4.0)
    index = json.loads((tmp_path / "index.json").read_text())
    wrong = [{"id": "../x"}, {"score": None}, {"score": 1e999}, {"length": -1}, {"room": 3}, {"pictures_per_s": 0}]
    index["episodes"] += [{**row, **each} for each in wrong] + [7, {**row, "id": "gone"}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / "noise.ep").write_bytes(b"\xff" * 100)
    (tmp_path / "Not Ours.ep").write_bytes(b"")
    said: list[str] = []
    again = EpisodeLog(tmp_path, said.append)
    assert len(again.list()) == 2 and len(said) == 2
    assert "7 damaged rows" in said[0] and "noise.ep is damaged and passed over: it holds no picture." in said[1]


def test_what_a_crash_left_is_taken_in(tmp_path: Path) -> None:
    """Between the file and the index: a file without a row counts from the next start, and the rule holds again."""
    log = EpisodeLog(tmp_path)
    for number, score in enumerate([1.0, 5.0, 3.0]):
        row = play(log, "you", number, score)
        shutil.copy(log.path(row["id"], "ep"), tmp_path.parent / f"{score}.keep")
    play(log, "you", 4, 2.0)
    shutil.move(tmp_path.parent / "3.0.keep", tmp_path / "left-behind.ep")
    again = EpisodeLog(tmp_path)
    assert sorted(reasons(again).values()) == ["best", "latest", "worst"]
    assert len(list(tmp_path.glob("*.ep"))) == 3


def test_a_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    """A packet without its end, or one that claims to be huge, ends the reading; whole ones before it are shown."""
    sent = [packet("you", 1, step) for step in range(3)]
    whole = b"".join(struct.pack("<I", len(each)) + each for each in sent)
    path = tmp_path / "a.ep"
    for data in (whole[:-5], whole[: -len(sent[2])], whole[: -len(sent[2]) - 2]):
        path.write_bytes(data)
        assert list(read_packets(path)) == sent[:2]
    path.write_bytes(whole + struct.pack("<I", 2**32 - 1) + bytes(1_000))
    assert list(read_packets(path)) == sent


@pytest.mark.parametrize("id", ["", "..", "../../etc/passwd", "a/b", "x" * 300, "no-such"])
def test_only_names_of_the_index_are_opened(id: str, tmp_path: Path) -> None:
    """Whatever a page asks for, nothing but an episode of the list is touched."""
    log = EpisodeLog(tmp_path / "log")
    play(log, "you", 1, 1.0)
    (row,) = log.list()
    for ask in (lambda: log.path(id, "ep"), lambda: log.animation(id, "gif"), lambda: log.path(row["id"], "py")):
        with pytest.raises(FileNotFoundError):
            ask()


def test_a_full_disk_ends_no_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The episode is left out with one sentence, the next one is kept again, and nothing half written stays."""
    said: list[str] = []
    log = EpisodeLog(tmp_path, said.append)
    play(log, "you", 1, 1.0)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert play(log, "you", 2, 9.0) is None and play(log, "you", 3, 9.0) is None
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        assert play(log, "you", 4, 9.0) is None
    assert said == [f"Episodes cannot be kept in {tmp_path}: No space left on device."]
    play(log, "you", 5, 2.0)
    assert reasons(log) == {("you", 1.0): "worst", ("you", 2.0): "best"}
    assert len(files(tmp_path)) == 3


def test_rooms_play_at_once(tmp_path: Path) -> None:
    """Rooms in threads of their own, with a reader beside them, lose and mix up nothing."""
    log, rooms = EpisodeLog(tmp_path), [f"room {number}" for number in range(4)]

    def live(room: str) -> None:
        for number in range(15):
            play(log, room, number, float(number % 5))

    threads = [threading.Thread(target=live, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for row in log.list():
            assert row["room"] in rooms
    assert {(row["room"], row["score"]) for row in log.list()} == {(room, score) for room in rooms for score in (0.0, 4.0)}
    for row in log.list():
        assert {unpack(each)[0]["room"] for each in read_packets(log.path(row["id"], "ep"))} == {row["room"]}


def test_closing_leaves_nothing_open(tmp_path: Path) -> None:
    """What is open when a viewer ends is forgotten, and so is what a room drops."""
    log = EpisodeLog(tmp_path)
    log.add("you", packet("you", 1, 0))
    log.add("live", packet("live", 1, 0))
    log.drop("live")
    log.close()
    assert files(tmp_path) == set() and log.end("you", 1.0, 1, 1) is None
