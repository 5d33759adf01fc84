"""The viewer's real server, on a free port and in a thread, with controls that only note what they are asked."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websockets.sync.client
from room_fakes import eventually

from agent.viewer.access import Access
from agent.viewer.hub import Hub
from agent.viewer.packet import unpack
from agent.viewer.server import listen, make_app, serve

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Noting:
    """Controls that obey nothing and remember everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.left = 0

    async def do(self, what: str, room: str | None, value: float | None) -> str:
        self.asked.append((what, room, value))
        if what == "stop":
            raise ValueError("It cannot be stopped.")
        return f"{what}: done"

    def keys(self, client: object, room: str, held: list[str]) -> None:
        self.asked.append(("keys", room, held))

    def saliency(self, room: str, how: str) -> None:
        self.asked.append(("saliency", room, how))

    def gone(self, client: object) -> None:
        self.left += 1


class Shelf:
    """Two recorded episodes; one of them cannot be animated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[dict[str, Any]]:
        return [{"id": "good", "room": "<img src=x onerror=alert(1)>"}, {"id": "broken", "room": "you"}]

    def content(self, id: str) -> bytes:
        if id not in ("good", "broken"):
            raise FileNotFoundError(f"There is no episode {id!r}.")
        return (self.folder / f"{id}.ep").read_bytes()

    def animation(self, id: str, form: str, on_share: Callable[[float], None]) -> bytes:
        self.content(id)
        if id == "broken":
            raise ValueError("It holds no picture.")
        on_share(0.5)
        return form.encode()


class Served:
    """What a test holds of a running server."""

    def __init__(self, hub: Hub, access: Access, controls: Any, port: int, server: Any) -> None:
        self.hub, self.access, self.controls, self.port, self.server = hub, access, controls, port, server
        self.host = f"127.0.0.1:{port}"

    def request(self, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Send exactly these headers; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            # After 101 comes no body but the socket's frames.
            body = b"" if response.status == 101 else response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, body
        finally:
            connection.close()

    def get(self, path: str, token: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Ask as the page does."""
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.request(path, {"Host": self.host} | bearer)

    @contextmanager
    def page(self, token: str | None) -> Iterator[Page]:
        """Connect as the page does, and say the token unless it is None."""
        origin = f"http://{self.host}"
        with websockets.sync.client.connect(
            f"ws://{self.host}/ws", origin=origin, compression=None, open_timeout=20, close_timeout=1
        ) as socket_:
            page = Page(socket_)
            if token is not None:
                page.say({"token": token})
            yield page


class Page:
    """One connected page."""

    def __init__(self, socket_: Any) -> None:
        self.socket = socket_

    def say(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    def hear(self, kind: str, timeout: float = 20.0) -> dict[str, Any]:
        """The next message of this type, or the next packet's meta for "packet"; others are passed over."""
        while True:
            message = self.socket.recv(timeout)
            found = unpack(message)[0] | {"type": "packet"} if isinstance(message, bytes) else json.loads(message)
            if found["type"] == kind:
                return found


@contextmanager
def served(episodes: Any = None, *, access: Access | None = None, controls: Any = None) -> Iterator[Served]:
    """Serve until the block ends."""
    hub, access, controls = Hub(), access or Access(), controls or Noting()
    listening: socket.socket = listen("127.0.0.1", 18_400)
    server = serve(make_app(hub, access, controls, episodes))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, 20)
        yield Served(hub, access, controls, listening.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
