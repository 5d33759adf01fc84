"""Tests of agent/viewer/server.py: what pages are served over HTTP and the socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from room_fakes import eventually
from viewer_server import Noting, Served, Shelf, served

from agent.viewer.hub import Hub
from agent.viewer.server import PAGE, listen

BLACK = np.zeros((10, 10, 3), np.uint8)


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Served]:
    """A server with two episodes and one room."""
    (tmp_path / "good.ep").write_bytes(b"packets")
    with served(Shelf(tmp_path)) as viewer:
        viewer.hub.set_rooms(["live", "you"])
        yield viewer


def test_the_page_and_its_files_are_served(viewer: Served) -> None:
    """Every file of the page comes as it lies on disk, and the page itself at the root."""
    assert viewer.get("/")[2] == (PAGE / "index.html").read_bytes()
    files = [path for path in PAGE.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert viewer.get(f"/static/{path.relative_to(PAGE).as_posix()}")[2] == path.read_bytes()


def test_episodes_can_be_downloaded(viewer: Served) -> None:
    """As packets and as animations, with their kinds; one that cannot be drawn or is gone is not found."""
    token = viewer.access.watch
    assert [row["id"] for row in json.loads(viewer.get("/episodes", token)[2])] == ["good", "broken"]
    assert viewer.get("/episodes/good.ep", token)[2] == b"packets"
    for form in ("webp", "gif"):
        status, headers, body = viewer.get(f"/episodes/good.{form}", token)
        assert (status, headers["content-type"], body) == (200, f"image/{form}", form.encode())
    for name in ("broken.webp", "broken.ep", "other.gif"):
        assert viewer.get(f"/episodes/{name}", token)[0] == 404
    assert viewer.get("/api/health", token)[2] == b"ok"


def test_without_episodes_the_list_is_empty() -> None:
    """A viewer that keeps none says so instead of failing."""
    with served() as viewer:
        assert viewer.get("/episodes", viewer.access.watch)[2] == b"[]"
        assert viewer.get("/episodes/good.ep", viewer.access.watch)[0] == 404


def test_a_page_sees_what_it_looks_at(viewer: Served) -> None:
    """Greeting first, then the newest picture of each room in view, and the next after each acknowledgement."""
    viewer.hub.say("hello", {"controls": True}, to="control")
    viewer.hub.offer("live", {"step": 1}, BLACK)
    with viewer.page(viewer.access.control) as page:
        assert page.hear("hello")["controls"] is True
        page.say({"type": "look", "rooms": ["live"]})
        first = page.hear("packet")
        assert (first["room"], first["step"], first["width"], first["format"]) == ("live", 1, 10, "webp")
        for step in (2, 3, 4):
            viewer.hub.offer("live", {"step": step}, BLACK)
        page.say({"type": "got", "room": "live", "n": first["n"]})
        assert page.hear("packet")["step"] == 4
        assert viewer.hub.looked("live") and not viewer.hub.looked("you")
    eventually(lambda: not viewer.hub.looked("live"))
    assert viewer.controls.left == 1 and viewer.hub.clients() == 0


def test_commands_are_answered_with_their_sentence(viewer: Served) -> None:
    """Also those that fail; slow ones do not hold up the others."""

    class Slow(Noting):
        async def do(self, what: str, room: str | None, value: float | None) -> str:
            if what == "checkpoint":
                await asyncio.sleep(0.5)
            return await super().do(what, room, value)

    with served(controls=Slow()) as slow, slow.page(slow.access.control) as page:
        for number, what in enumerate(("checkpoint", "stop", "pause")):
            page.say({"type": "do", "id": number, "what": what, "room": None, "value": None})
        answers = [page.hear("done") for _ in range(3)]
    assert [(each["id"], each["ok"]) for each in answers] == [(1, False), (2, True), (0, True)]
    assert answers[0]["said"] == "It cannot be stopped."


def test_a_taken_port_gives_way_to_the_next() -> None:
    """Two viewers at once do not meet; a port that nobody may have is an error."""
    first = listen("127.0.0.1", 18_450)
    second = listen("127.0.0.1", first.getsockname()[1])
    assert second.getsockname()[1] > first.getsockname()[1]
    assert first.getsockname()[0] == "127.0.0.1"
    first.close()
    second.close()
    with pytest.raises(OSError):
        listen("203.0.113.1", 18_450)  # not an address of this machine


def test_it_listens_where_it_is_told_and_nowhere_else(viewer: Served) -> None:
    """Bound to loopback, the machine's other addresses do not answer."""
    (listening,) = viewer.server.servers[0].sockets
    assert listening.getsockname()[0] == "127.0.0.1"
    try:
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        others = set()
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, viewer.port), timeout=2).close()


def test_ending_the_server_ends_what_runs_beside_it() -> None:
    """The rooms are closed when the server ends, and its sockets are told that it comes back."""
    from agent.viewer.access import Access
    from agent.viewer.server import make_app, serve

    seen: list[str] = []

    async def beside() -> None:
        try:
            seen.append("begun")
            await asyncio.sleep(3600)
        finally:
            seen.append("ended")

    async def farewell() -> None:
        seen.append("farewell")

    server = serve(make_app(Hub(), Access(), Noting(), beside=beside), farewell)
    listening = listen("127.0.0.1", 18_480)

    async def main() -> None:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not seen:
            await asyncio.sleep(0.01)
        server.should_exit = True
        await task

    asyncio.run(asyncio.wait_for(main(), 20))
    assert seen == ["begun", "farewell", "ended"]
