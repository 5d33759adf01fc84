"""Tests of agent/viewer/feed.py: the run as it stands, its curve, and the trainer's own answers."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from room_fakes import Seen, eventually

from agent.config import Settings
from agent.telemetry.evaluations import Evaluations, summary
from agent.telemetry.run_folder import RunFolder
from agent.viewer import feed as feeds
from agent.viewer.feed import Feed, read_evaluations
from agent.viewer.requests import Requests
from agent.viewer.slot import SlotWriter, pack


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that this process trains."""
    return RunFolder.create(tmp_path, "cartpole", 0, None, Settings(), ["icebox", "train"])


class Trainer:
    """Publishes figures and answers requests as a trainer does."""

    def __init__(self, folder: RunFolder) -> None:
        live = folder.path / "live"
        live.mkdir(exist_ok=True)
        self.slot, self.requests = SlotWriter(live / "now.slot"), Requests(live / "requests")
        self.asked: list[str] = []
        self.publish(acknowledged=None)

    def publish(self, **facts: Any) -> None:
        meta = {"steps": 500, "total_steps": 1000, "updates": 70, "mode": "training", "time": time.time(), "q": [1.0]}
        self.slot.write(*pack(meta | {"scene": None} | facts, {}))

    def answer(self, ok: bool, said: str) -> None:
        """Answer the next request."""
        request = eventually(self.requests.next)
        self.asked.append(request.what)
        self.publish(acknowledged={"id": request.id, "ok": ok, "said": said})


@pytest.fixture
def feed(folder: RunFolder) -> Iterator[Feed]:
    """A feed that follows the run."""
    feed = Feed(Seen(), folder)
    feed.start()
    yield feed
    feed.close()


def told(feed: Feed) -> dict[str, Any]:
    """The newest message with all that is rare."""
    return json.loads(feed.hub.texts["watch"]["run"].whole) if "run" in feed.hub.texts["watch"] else {}


def test_the_trainers_figures_are_passed_on(feed: Feed, folder: RunFolder) -> None:
    """All but what belongs to a picture; before the first of them what the folder knows."""
    eventually(lambda: told(feed).get("steps") == 0)
    assert told(feed)["alive"] is False and told(feed)["mode"] == "starting"
    trainer = Trainer(folder)
    eventually(lambda: told(feed).get("alive"))
    assert (told(feed)["steps"], told(feed)["mode"], feed.updates) == (500, "training", 70)
    assert "q" not in told(feed) and "scene" not in told(feed)
    trainer.publish(steps=600, updates=80)
    eventually(lambda: told(feed)["steps"] == 600 and feed.updates == 80)


def test_the_end_of_a_run_is_told_and_its_resumption_found(feed: Feed, folder: RunFolder) -> None:
    """The last figures stay, and the page is told how it ended; when it is resumed the new ones come."""
    trainer = Trainer(folder)
    eventually(lambda: told(feed).get("alive"))
    trainer.slot.close()
    folder.set_status("stopped", steps=640)
    eventually(lambda: told(feed)["mode"] == "stopped")
    assert not told(feed)["alive"] and told(feed)["steps"] == 640 and "resume" in told(feed)["ended"]
    folder.set_status("running")
    trainer = Trainer(folder)
    trainer.publish(steps=700)
    eventually(lambda: told(feed)["alive"] and told(feed)["steps"] == 700)


def test_the_curve_follows_the_evaluations(feed: Feed, folder: RunFolder) -> None:
    """Mean and interval of each; sent when there is a new one, and a damaged file changes nothing."""
    eventually(lambda: told(feed).get("curve") == [])
    evaluations = Evaluations(folder.evaluations)
    evaluations.add(100, [1.0, 2.0, 3.0], [5, 5, 5])
    (point,) = eventually(lambda: told(feed)["curve"])
    assert point[:2] == [100, 2.0] and 1.0 <= point[2] < 2.0 < point[3] <= 3.0
    version = feed.hub.texts["watch"]["run"].version
    time.sleep(0.1)
    evaluations.add(200, [4.0, 4.0, 4.0], [5, 5, 5])
    eventually(lambda: len(told(feed)["curve"]) == 2)
    assert told(feed)["curve"][1] == [200, 4.0, 4.0, 4.0]
    assert feed.hub.texts["watch"]["run"].version > version
    folder.evaluations.write_bytes(b"PK\x03\x04 no archive")
    time.sleep(0.7)
    assert len(told(feed)["curve"]) == 2


def test_evaluations_and_their_band_are_those_of_the_log(tmp_path: Path, feed: Feed, folder: RunFolder) -> None:
    """The file gives back what was written, and the curve has the interval that the run itself has said."""
    evaluations = Evaluations(tmp_path / "evaluations.npz")
    evaluations.add(7, [1.5, 2.5], [1, 2])
    ((steps, row),) = read_evaluations(tmp_path / "evaluations.npz")
    assert steps == 7 and row.tolist() == [1.5, 2.5]
    scores = np.random.default_rng(1).normal(5.0, 2.0, 20).tolist()
    Evaluations(folder.evaluations).add(300, scores, [1] * 20)
    eventually(lambda: told(feed).get("curve"))
    said = summary(scores, [1] * 20)
    assert told(feed)["curve"][-1][2:] == pytest.approx([said["eval/ci_low"], said["eval/ci_high"]])


def test_the_trainers_answer_is_the_answer(feed: Feed, folder: RunFolder) -> None:
    """Its own sentence, for good and for bad; several requests are answered each by its own."""
    trainer = Trainer(folder)
    eventually(lambda: feed.alive)

    async def main() -> list[Any]:
        both = asyncio.gather(feed.ask("pause"), feed.ask("checkpoint"), return_exceptions=True)
        await asyncio.to_thread(trainer.answer, True, "paused")
        await asyncio.to_thread(trainer.answer, False, "The disk is full.")
        return await both

    said, failed = asyncio.run(asyncio.wait_for(main(), 20))
    assert said == "paused"
    assert isinstance(failed, ValueError) and str(failed) == "The disk is full."
    assert trainer.asked == ["pause", "checkpoint"]


def test_who_waits_for_a_checkpoint_shares_it(feed: Feed, folder: RunFolder) -> None:
    """While one is saved 300 ask for another: they get it together, with its answer, and the trainer saves twice."""
    trainer = Trainer(folder)
    eventually(lambda: feed.alive)

    async def main() -> list[str]:
        asking = [asyncio.create_task(feed.ask("checkpoint"))]
        await asyncio.to_thread(eventually, lambda: any((folder.path / "live" / "requests").iterdir()))
        asking += [asyncio.create_task(feed.ask("checkpoint")) for _ in range(300)]
        await asyncio.sleep(0)
        await asyncio.to_thread(trainer.answer, True, "first")
        await asyncio.to_thread(trainer.answer, True, "second")
        return await asyncio.gather(*asking)

    said = asyncio.run(asyncio.wait_for(main(), 60))
    assert trainer.asked == ["checkpoint"] * 2 and said == ["first"] + ["second"] * 300


def test_the_log_tells_what_happened_in_a_run_that_is_over(feed: Feed, folder: RunFolder) -> None:
    """Its events with their times, without progress lines, however long it is and whatever stands in it."""
    with open(folder.log, "w", encoding="utf-8") as log:
        log.write("2026-11-21 11:00:00  cartpole: 900 steps\n2026-11-21 11:00:00    plays   somebody\n")
        log.write("2026-99-99 11:00:00  no time\nno time at all\n" + "x" * 80_000 + "\n")
        for second in range(60):
            log.write(f"2026-11-21 11:00:{second:02}  checkpoint {second} is safe\n")
            log.write(f"2026-11-21 11:00:{second:02}  cartpole  {second}/900  400 steps/s\n")
    folder.set_status("done")
    events = eventually(lambda: told(feed).get("events"))
    assert [text for _, text in events] == [f"checkpoint {second} is safe" for second in range(10, 60)]
    assert events[-1][0] - events[0][0] == 49
    folder.log.write_text("2026-11-21 11:00:00  <b>late</b>\n")
    eventually(lambda: [text for _, text in told(feed)["events"]] == ["<b>late</b>"])


def test_the_last_word_is_how_it_stands_now(feed: Feed, folder: RunFolder) -> None:
    """When it returns, the pages have been told the newest."""
    eventually(lambda: told(feed).get("mode") == "starting")
    folder.set_status("done", steps=900)
    asyncio.run(asyncio.wait_for(feed.last_word(), 60))
    assert told(feed)["mode"] == "done" and told(feed)["steps"] == 900


def test_no_answer_is_told_in_time(feed: Feed, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that says nothing, and none at all, each has its sentence."""
    with pytest.raises(ValueError, match="nobody to ask"):
        asyncio.run(feed.ask("pause"))
    Trainer(folder)
    eventually(lambda: feed.alive)
    monkeypatch.setattr(feeds, "ANSWER_S", 0.1)
    with pytest.raises(ValueError, match="has not answered within 0.1 s"):
        asyncio.run(feed.ask("pause"))


def test_the_trainer_is_told_while_somebody_looks(feed: Feed, folder: RunFolder) -> None:
    """Its file is touched about once a second, and not when the page is closed."""
    Trainer(folder)
    watched = folder.path / "live" / "watched"
    eventually(watched.exists)
    feed.hub.open = False
    time.sleep(1.2)
    os.utime(watched, (0, 0))
    time.sleep(1.2)
    assert watched.stat().st_mtime == 0
    feed.hub.open = True
    eventually(lambda: watched.stat().st_mtime > 0)


def test_a_damaged_folder_does_not_end_the_feed(feed: Feed, folder: RunFolder) -> None:
    """While meta.json is half written nothing is told; afterwards it goes on."""
    Trainer(folder)
    eventually(lambda: told(feed).get("alive"))
    whole = (folder.path / "meta.json").read_bytes()
    (folder.path / "meta.json").write_bytes(b"{")
    time.sleep(0.7)
    (folder.path / "meta.json").write_bytes(whole)
    assert threading.active_count() > 1 and feed.fault is None
    feed.hub.texts["watch"].clear()
    eventually(lambda: told(feed).get("alive"))
