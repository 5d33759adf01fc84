"""Tests of agent/viewer/hub.py: the newest to everyone, encoded once, and never a queue."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
from room_fakes import told

from agent.viewer import hub as hubs
from agent.viewer.hub import Frame, Hub

BLACK = np.zeros((10, 12, 3), np.uint8)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a picture is encoded."""
    count: list[int] = []
    real = hubs.encode_picture
    monkeypatch.setattr(hubs, "encode_picture", lambda picture: count.append(1) or real(picture))
    return count


def hub_with(*rooms: str) -> Hub:
    hub = Hub()
    hub.set_rooms(rooms)
    return hub


def test_nothing_is_encoded_while_nobody_looks(encoded: list[int]) -> None:
    """A hundred pictures cost nothing; whoever comes then gets the newest."""
    hub = hub_with("live")
    for step in range(100):
        hub.offer("live", {"step": step}, BLACK)
    assert not encoded
    client = hub.join("watch")
    assert told(client) == []
    client.look(["live"])
    assert [meta["step"] for meta in told(client)] == [99]
    assert len(encoded) == 1


def test_a_picture_is_encoded_once_for_all(encoded: list[int]) -> None:
    """Three clients get the same bytes of one encoding."""
    hub = hub_with("live")
    clients = [hub.join("watch") for _ in range(3)]
    for client in clients:
        client.look(["live"])
    hub.offer("live", {"step": 1}, BLACK)
    packets = [client._next() for client in clients]
    assert packets[0] is packets[1] is packets[2]
    assert len(encoded) == 1


def test_the_next_packet_waits_for_the_acknowledgement() -> None:
    """A client that says nothing gets one packet of each room; one that answers gets the newest, and the old are gone."""
    hub = hub_with("live", "you")
    client = hub.join("watch")
    client.look(["live", "you"])
    for step in range(5):
        hub.offer("live", {"step": step}, BLACK)
        hub.offer("you", {"step": step}, BLACK)
        first = told(client)
        assert len(first) == (2 if step == 0 else 0)
    client.got("live", 12345)  # not what was sent
    assert told(client) == []
    client.got("live", 1)
    assert [(meta["room"], meta["step"]) for meta in told(client)] == [("live", 4)]


def test_only_rooms_in_view_are_sent() -> None:
    """Looking elsewhere ends a room's packets, coming back brings its newest at once, and unknown rooms are none."""
    hub = hub_with("live", "you")
    client = hub.join("watch")
    client.look(["you", "attic"])
    hub.offer("live", {"step": 1}, BLACK)
    hub.offer("you", {"step": 2}, BLACK)
    assert [meta["room"] for meta in told(client)] == ["you"]
    client.look(["live"])
    assert [meta["room"] for meta in told(client)] == ["live"]
    client.look(["live"])  # again, as a page does after it has thrown its canvas away
    assert [meta["room"] for meta in told(client)] == ["live"]
    assert client.looks == {"live"}


def test_rooms_know_whether_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A room is looked at from the first look to the last leaving; a client that owes an answer too long does not look."""
    hub, woken = hub_with("live"), []
    hub.on_look = lambda: woken.append(1)
    now = 1000.0
    monkeypatch.setattr(hubs.time, "monotonic", lambda: now)
    client, other = hub.join("watch"), hub.join("watch")
    assert not hub.looked("live")
    client.look(["live"])
    assert hub.looked("live") and len(woken) == 1
    now += 100
    hub.count_looks()
    assert hub.looked("live")  # it owes nothing
    hub.offer("live", {}, BLACK)
    told(client)
    hub.count_looks()
    assert not hub.looked("live")
    client.speaks()
    hub.count_looks()
    assert hub.looked("live") and len(woken) == 2
    other.look(["live"])
    hub.leave(client)
    assert hub.looked("live")
    hub.leave(other)
    assert not hub.looked("live") and hub.clients() == 0


def test_texts_are_the_newest_of_their_kind() -> None:
    """Of ten run messages a client that comes late or slowly gets one, and each only once."""
    hub = hub_with()
    client = hub.join("watch")
    for steps in range(10):
        hub.say("run", {"steps": steps})
    hub.say("episodes", {"list": []})
    assert list(map(json.loads, told(client))) == [{"type": "run", "steps": 9}, {"type": "episodes", "list": []}]
    assert told(client) == []
    assert json.loads(told(hub.join("watch"))[0])["steps"] == 9


def test_what_is_rare_is_sent_when_it_has_changed() -> None:
    """The curve goes along once for each client and each change, also when the message that brought it was replaced."""
    hub = hub_with()
    early = hub.join("watch")
    hub.say("run", {"steps": 1}, {"curve": [1]})
    hub.say("run", {"steps": 2})  # before anybody could read the first
    assert json.loads(told(early)[0]) == {"type": "run", "steps": 2, "curve": [1]}
    hub.say("run", {"steps": 3})
    assert json.loads(told(early)[0]) == {"type": "run", "steps": 3}
    late = hub.join("watch")
    assert json.loads(told(late)[0])["curve"] == [1]
    hub.say("run", {"steps": 4}, {"curve": [1, 2]})
    hub.say("run", {"steps": 5})
    assert json.loads(told(early)[0])["curve"] == json.loads(told(late)[0])["curve"] == [1, 2]


def test_a_message_can_differ_by_right() -> None:
    """Those who may only watch are told so."""
    hub = hub_with()
    for right in ("control", "watch"):
        hub.say("hello", {"controls": right == "control"}, to=right)
    assert json.loads(told(hub.join("control"))[0])["controls"] is True
    assert json.loads(told(hub.join("watch"))[0])["controls"] is False


def test_who_waits_until_all_are_told_does_not_wait_for_the_deaf() -> None:
    """It takes until the last client has been sent the newest text, or as long as was allowed."""

    async def main() -> list[bool]:
        hub = hub_with("live")
        hub.start()
        client = hub.join("watch")
        hub.say("bye", {"said": "so long"})
        await hub.told("bye", 0.05)
        unheard = client.has_heard("bye")
        told_ = asyncio.create_task(hub.told("bye", 60))
        await asyncio.sleep(0)
        client._next()
        await told_
        return [unheard, client.has_heard("bye")]

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [False, True]


def test_a_silent_client_is_told_less_and_less() -> None:
    """After UNHEARD texts without a word from it nothing more is sent, until it speaks; answers do not pile up."""
    hub = hub_with()
    client = hub.join("watch")
    sent = 0
    for steps in range(100):
        hub.say("run", {"steps": steps})
        client.reply({"type": "done", "id": steps})
        sent += len(told(client))
    assert sent == hubs.UNHEARD
    assert len(client.replies) == hubs.REPLIES
    client.speaks()
    assert json.loads(told(client)[0])["id"] == 100 - hubs.REPLIES


def test_a_frame_is_encoded_once_by_many_threads(encoded: list[int]) -> None:
    """Whoever asks first encodes, the others wait for it."""
    frame = Frame(1, {}, np.zeros((200, 200, 3), np.uint8))
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(frame.packet())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoded) == 1 and len(set(map(id, found))) == 1


def test_offers_from_a_thread_reach_a_client_in_the_loop() -> None:
    """Every acknowledged packet is followed by a newer one until the last, however threads and loop interleave."""

    async def main() -> list[int]:
        hub = hub_with("live")
        hub.start()
        client, steps = hub.join("watch"), []
        client.look(["live"])

        async def send(message: str | bytes) -> None:
            meta = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
            steps.append(meta["step"])
            await asyncio.sleep(0)
            client.got("live", meta["n"])

        task = asyncio.create_task(client.deliver(send))
        painter = threading.Thread(target=lambda: [hub.offer("live", {"step": step}, BLACK) for step in range(2000)])
        painter.start()
        while steps[-1:] != [1999]:
            await asyncio.sleep(0.001)
        task.cancel()
        painter.join()
        return steps

    steps = asyncio.run(asyncio.wait_for(main(), 20))
    assert steps == sorted(set(steps))
