"""Clients that hang, never read or flood: the viewer stays small and quick, and the others notice nothing."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from room_fakes import eventually
from viewer_server import Served, served

ROOT = Path(__file__).parent.parent
# Serves a noisy room at 30 pictures a second and prints port and token; rss() of it is what the clients cost.
SERVER = """
import sys, threading, time
sys.path[:0] = sys.argv[1:]
import numpy as np
from viewer_server import served
with served() as viewer:
    viewer.hub.set_rooms(["live"])
    print(viewer.port, viewer.access.watch, flush=True)
    pictures = np.random.default_rng(0).integers(0, 256, (30, 210, 160, 3), np.uint8)
    for n in range(100_000):
        viewer.hub.offer("live", {"step": n, "time": time.time()}, pictures[n % 30])
        viewer.hub.say("run", {"steps": n, "filling": "x" * 2000})
        time.sleep(1 / 30)
"""


@pytest.fixture
def server() -> Iterator[tuple[int, int, str]]:
    """The process, port and token of a server of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(ROOT), str(ROOT / "tests")], stdout=subprocess.PIPE, text=True
    )
    try:
        port, token = process.stdout.readline().split()
        yield process.pid, int(port), token
    finally:
        process.kill()
        process.wait()


def frame(message: object) -> bytes:
    """A client's text frame, masked with zeros."""
    data = json.dumps(message).encode()
    return bytes([0x81, 0x80 | len(data)]) + bytes(4) + data


def connect(port: int, token: str) -> socket.socket:
    """A page that shakes hands, says its token, looks at the room, and never reads anything."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert client.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 101"
    client.sendall(frame({"token": token}) + frame({"type": "look", "rooms": ["live"]}))
    return client


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def seconds_of_core(pid: int) -> float:
    """CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clients_cost(server: tuple[int, int, str], count: int, most_mib: float, seconds: float) -> None:
    """Connect so many that never read; memory stays below `most_mib`, and one that reads still gets pictures."""
    pid, port, token = server
    connect(port, token).close()  # what the first client costs is not counted
    time.sleep(0.5)
    before = rss_mib(pid)
    clients = [connect(port, token) for _ in range(count)]
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.25)
            assert rss_mib(pid) - before < most_mib
        core = seconds_of_core(pid)
        with Served(None, None, None, port, None).page(token) as page:
            page.say({"type": "look", "rooms": ["live"]})
            begun, pictures = time.monotonic(), 0
            while time.monotonic() - begun < 2:
                packet = page.hear("packet")
                page.say({"type": "got", "room": "live", "n": packet["n"]})
                pictures += 1
            took = time.monotonic() - begun
        print(f"{count} clients: +{rss_mib(pid) - before:.1f} MiB, one that reads got {pictures / took:.1f} pictures/s,")
        print(f"{(seconds_of_core(pid) - core) / took:.0%} of a core")
        assert pictures > 2  # a speed is for benchmarks; here it must only not be starved
    finally:
        for client in clients:
            client.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_hundred_clients_that_never_read(server: tuple[int, int, str]) -> None:
    """They cost two packets each at most, and not what a queue would hold by then."""
    clients_cost(server, 200, 25.0, 2.0)


@pytest.mark.night
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_thousand_clients_that_never_read(server: tuple[int, int, str]) -> None:
    """100 MB at most for all of them, for half a minute."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5000:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    resource.prlimit(server[0], resource.RLIMIT_NOFILE, (5000, hard))
    clients_cost(server, 2000, 95.0, 30.0)


def test_a_client_that_hangs_does_not_hold_up_the_others() -> None:
    """One page stops reading in the middle; another gets every newest picture within a moment of its being offered."""
    with served() as viewer:
        viewer.hub.set_rooms(["live"])
        hung = connect(viewer.port, viewer.access.watch)
        picture = np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8)
        with viewer.page(viewer.access.watch) as page:
            page.say({"type": "look", "rooms": ["live"]})
            eventually(lambda: viewer.hub.looked("live"))
            for step in range(100):
                viewer.hub.offer("live", {"step": step}, picture)
                packet = page.hear("packet")
                assert packet["step"] == step
                page.say({"type": "got", "room": "live", "n": packet["n"]})
                eventually(lambda: viewer.hub._waiting["live"])
        hung.close()


def test_a_flood_of_messages_is_no_flood_of_work() -> None:
    """Ten thousand commands in one go are answered as far as somebody reads, and the server still answers others."""
    with served() as viewer:
        flood = connect(viewer.port, viewer.access.control)
        flood.sendall(frame({"type": "got", "room": "live", "n": 1}) * 10_000)
        flood.sendall(frame({"type": "do", "id": 1, "what": "pause", "room": None, "value": None}) * 2_000)
        assert viewer.get("/api/health", viewer.access.watch)[2] == b"ok"
        with viewer.page(viewer.access.control) as page:
            page.say({"type": "do", "id": 7, "what": "pause", "room": None, "value": None})
            assert page.hear("done")["id"] == 7
        flood.close()
        eventually(lambda: viewer.hub.clients() == 0)


def test_pages_that_vanish_leave_nothing_behind() -> None:
    """A hundred pages that are torn off in the middle of everything are forgotten."""
    with served() as viewer:
        viewer.hub.set_rooms(["live"])
        for step in range(100):
            client = connect(viewer.port, viewer.access.watch)
            viewer.hub.offer("live", {"step": step}, np.zeros((8, 8, 3), np.uint8))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # reset, not a goodbye
            client.close()
        eventually(lambda: viewer.hub.clients() == 0)
        assert not viewer.hub.looked("live")
        assert not any(viewer.hub._waiting.values())
