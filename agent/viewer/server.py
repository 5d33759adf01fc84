"""The web server of one viewer: page, socket, and episodes to download; everything but the page needs a token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.viewer.access import Access, Right
from agent.viewer.hub import Client, Hub
from agent.viewer.messages import LONGEST, parse

PAGE = Path(__file__).parent / "page"
TOKEN_S = 10.0  # a socket that has not said its token by then is closed
FAREWELL_S = 2.0  # at most
SHARE_S = 0.25  # how often it is told how much of an animation is done
REFUSED = 1008  # close code of a socket without a right token: the page asks for a new link and does not come back
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
EPISODE = re.compile(r"([A-Za-z0-9_-]{1,64})\.(ep|webp|gif)")
MEDIA = {"ep": "application/octet-stream", "webp": "image/webp", "gif": "image/gif"}


class Controls(Protocol):
    """What the page's commands act on. `keys` and `saliency` are called often and must not wait."""

    async def do(self, what: str, room: str | None, value: float | None) -> str:
        """Do it and return what to say; ValueError with a sentence when it was not done."""

    def keys(self, client: object, room: str, held: list[str]) -> None:
        """Let the keys that this client holds reach the game."""

    def saliency(self, room: str, how: str) -> None:
        """Show what the policy looks at, or no longer."""

    def gone(self, client: object) -> None:
        """Forget a client and the keys it held."""


class Episodes(Protocol):
    """The recorded episodes (agent/viewer/episodes.py)."""

    def list(self) -> list[dict[str, Any]]: ...
    def content(self, id: str) -> bytes: ...
    def animation(self, id: str, form: str, on_share: Callable[[float], None]) -> bytes: ...


def make_app(
    hub: Hub,
    access: Access,
    controls: Controls,
    episodes: Episodes | None = None,
    *,
    beside: Callable[[], Awaitable[None]] | None = None,
) -> ASGIApp:
    """Return the application; `beside` runs in its event loop as long as it does."""

    async def index(request: Request) -> Response:
        return _file("index.html")

    async def static(request: Request) -> Response:
        return _file(request.path_params["name"])

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def listed(request: Request) -> Response:
        rows = [] if episodes is None else await asyncio.to_thread(episodes.list)
        return Response(json.dumps(rows), media_type="application/json")

    async def episode(request: Request) -> Response:
        match = EPISODE.fullmatch(request.path_params["name"])
        if match is None or episodes is None:
            return PlainTextResponse("There is no such episode.", 404)
        name, ending = match.groups()
        try:
            if ending == "ep":
                data = await asyncio.to_thread(episodes.content, name)
            else:
                data = await asyncio.to_thread(episodes.animation, name, ending, _telling(hub, name, ending))
        except (KeyError, ValueError, OSError):
            return PlainTextResponse("There is no such episode; it may have been replaced by a newer one.", 404)
        return Response(data, media_type=MEDIA[ending])

    async def live(socket: WebSocket) -> None:
        await _talk(socket, hub, access, controls)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        hub.start()
        tasks = [asyncio.create_task(_housekeeping(hub))]
        if beside is not None:
            tasks.append(asyncio.create_task(beside()))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    routes = [
        Route("/", index),
        Route("/static/{name:path}", static),
        Route("/api/health", health),
        Route("/episodes", listed),
        Route("/episodes/{name}", episode),
        WebSocketRoute("/ws", live),
    ]
    return Gate(Starlette(routes=routes, lifespan=lifespan), access)


class Gate:
    """Lets through what comes by a right name, from our own page, with a token; refuses everything else."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        status, why = self._fault(scope)
        if status:
            if scope["type"] == "websocket":  # before it is accepted: the handshake answers with this status
                await receive()
                extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                await send({"type": "websocket.http.response.start", "status": status, "headers": extra})
                return await send({"type": "websocket.http.response.body", "body": why.encode()})
            return await PlainTextResponse(why, status, headers=HEADERS)(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((key.encode(), value.encode()) for key, value in HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _fault(self, scope: Scope) -> tuple[int, str]:
        """Return the status and the sentence with which a request is refused; 0 when it is not."""
        given: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            given.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if any(len(given.get(name, [])) > 1 for name in ("host", "origin", "authorization")):
            return 400, "A header stands twice in this request."
        host, origin, authorization = (given.get(name, [None])[0] for name in ("host", "origin", "authorization"))
        if not self._access.knows_host(host):
            return 400, "This viewer does not answer to that name."
        is_socket = scope["type"] == "websocket"
        if (is_socket or origin is not None) and not self._access.knows_origin(origin, host):
            return 403, "Only the viewer's own page may ask."
        if is_socket:
            return (0, "") if scope["path"] == "/ws" else (404, "There is nothing here.")
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This viewer is only read."
        if scope["path"] != "/" and not scope["path"].startswith("/static/"):
            if self._access.bearer(authorization) is None:
                return 401, "This needs the token from the link that the viewer printed."
        return 0, ""


def _file(name: str) -> Response:
    """A file of the page: looked up among those there are, so that no path leads elsewhere."""
    known = {path.relative_to(PAGE).as_posix(): path for path in PAGE.rglob("*") if path.is_file()}
    if name not in known:
        return PlainTextResponse("There is nothing here.", 404)
    return Response(known[name].read_bytes(), media_type=mimetypes.guess_type(name)[0] or "application/octet-stream")


def _telling(hub: Hub, id: str, form: str) -> Callable[[float], None]:
    """Return what tells the pages how far an animation has come, not too often."""
    told = -1.0

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told >= SHARE_S:
            told = time.monotonic()
            hub.say("saving", {"id": id, "form": form, "share": share})

    return tell


async def _housekeeping(hub: Hub) -> None:
    while True:
        await asyncio.sleep(1)
        hub.count_looks()


async def _talk(socket: WebSocket, hub: Hub, access: Access, controls: Controls) -> None:
    """Serve one page until it leaves or says something that no page says."""
    await socket.accept()
    right = None
    with contextlib.suppress(asyncio.TimeoutError, WebSocketDisconnect, KeyError):
        first = parse(await asyncio.wait_for(socket.receive_text(), TOKEN_S))
        right = access.right(first["token"]) if first and first["type"] == "token" else None
    if right is None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(REFUSED, "This needs the token from the link that the viewer printed.")
        return
    client = hub.join(right)

    async def send(message: str | bytes) -> None:
        await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message))

    sender = asyncio.create_task(client.deliver(send))
    doing: set[asyncio.Task[None]] = set()
    try:
        while True:
            message = parse(await socket.receive_text())
            if message is None or message["type"] == "token":
                await socket.close(1007, "That is nothing a page says.")
                break
            client.speaks()
            _obey(client, controls, message, doing)
    except (WebSocketDisconnect, KeyError, RuntimeError):  # KeyError: bytes, where a page sends text
        pass
    finally:
        sender.cancel()
        hub.leave(client)
        controls.gone(client)
        await asyncio.gather(sender, return_exceptions=True)
        with contextlib.suppress(RuntimeError):
            await socket.close(1003)


def _obey(client: Client, controls: Controls, message: Mapping[str, Any], doing: set[asyncio.Task[None]]) -> None:
    kind = message["type"]
    if kind == "got":
        client.got(message["room"], message["n"])
    elif kind == "look":
        client.look(message["rooms"])
    elif kind == "do":
        task = asyncio.create_task(_do(client, controls, message))
        doing.add(task)
        task.add_done_callback(doing.discard)
    elif client.right == "control" and kind == "keys":
        controls.keys(client, message["room"], message["held"])
    elif client.right == "control" and kind == "saliency":
        controls.saliency(message["room"], message["how"])


async def _do(client: Client, controls: Controls, message: Mapping[str, Any]) -> None:
    try:
        if client.right != "control":
            raise ValueError("This link only watches; the viewer's control link is needed to change anything.")
        said, ok = await controls.do(message["what"], message["room"], message["value"]), True
    except (ValueError, OSError) as error:
        said, ok = str(error), False
    client.reply({"type": "done", "id": message["id"], "ok": ok, "said": said})


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the first free port from `port` on; OSError when there is none near it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for each in range(port, min(port + 50, 65536)):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, each))
            listening.listen(2048)
            return listening
        except OSError:
            listening.close()
            if each == min(port + 50, 65536) - 1:
                raise
    raise OSError(f"There is no port {port}.")


class Server(uvicorn.Server):
    """A server that says farewell before it hangs up."""

    farewell: Callable[[], Awaitable[None]] | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, as uvicorn does."""
        if self.farewell is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.farewell(), FAREWELL_S)
        await super().shutdown(sockets)


def serve(app: ASGIApp, farewell: Callable[[], Awaitable[None]] | None = None) -> Server:
    """Return the server, whose `run(sockets=[...])` serves: quiet, no compression, no long messages.

    When it ends it awaits `farewell` before it hangs up on the pages.
    """
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=LONGEST,
        ws_per_message_deflate=False,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    server.farewell = farewell
    return server
