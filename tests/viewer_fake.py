"""A stand-in for the viewer's server: the page's files and the whole wire protocol, with made-up games and run."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import threading
import time
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageDraw, ImageFilter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = Path(__file__).parent.parent / "agent" / "viewer" / "page"
HEADERS = {"content-security-policy": "default-src 'self'", "x-content-type-options": "nosniff"}
ACTIONS = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
KEYS = [
    [["ArrowRight", "Space"], 4], [["KeyD", "Space"], 4], [["ArrowLeft", "Space"], 5], [["KeyA", "Space"], 5],
    [["Space"], 1], [["ArrowRight"], 2], [["KeyD"], 2], [["ArrowLeft"], 3], [["KeyA"], 3],
]  # fmt: skip
KINDS = ("live", "latest", "frozen", "you")
TITLES = {"live": "Live training", "latest": "Newest policy", "frozen": "Frozen policy", "you": "You"}
LOOP = 120  # pictures after which a game repeats itself
EPISODE = 90  # pictures of a stored episode
FROZEN = {"agreement": 0.9934, "precision": "int8", "bytes": 431_204}
STAGES = ("collecting states", "rounding to 8 bits", "checking 100 episodes")
SHARES = {"acting": 0.1834, "simulating": 0.3121, "learning": 0.4467, "storing": 0.0214, "other": 0.0364}


@cache
def picture(kind: str, t: int, paddle: int = 105) -> bytes:
    """A picture of a game as lossless WebP: Pong's size for the rooms, ten by ten for `tiny`, 600 by 400 for `wide`."""
    size = {"tiny": (10, 10), "wide": (600, 400)}.get(kind, (160, 210))
    image = Image.new("RGB", size, (109, 56, 24) if kind != "tiny" else (20, 20, 30))
    draw, (width, height) = ImageDraw.Draw(image), size
    x = (0.5 + 0.42 * math.sin(2 * math.pi * t / LOOP)) * width
    y = (0.5 + 0.34 * math.sin(6 * math.pi * t / LOOP + len(kind))) * height
    if kind == "tiny":
        draw.point([(int(x), int(y))], (250, 220, 80))
        draw.rectangle((int(x) - 1, 9, int(x) + 1, 9), (90, 180, 250))
    else:
        draw.rectangle((0, 0, width, height // 9), (0, 0, 0))
        draw.rectangle((0, height // 9, width, height // 7), (236, 236, 236))
        draw.rectangle((0, height - 14, width, height), (236, 236, 236))
        draw.rectangle((16, y - 8, 20, y + 8), (213, 130, 74))
        draw.rectangle((140, paddle - 8, 144, paddle + 8), (92, 186, 92))
        draw.rectangle((x, y, x + 2, y + 4), (236, 236, 236))
    stream = BytesIO()
    image.save(stream, "WEBP", lossless=True, quality=0, method=0)
    return stream.getvalue()


@cache
def saliency(t: int) -> bytes:
    """Where a policy looks, as a grey PNG of 84 by 84: white is most."""
    image = Image.new("L", (84, 84))
    x, y = 42 + 34 * math.sin(2 * math.pi * t / LOOP), 42 + 28 * math.sin(6 * math.pi * t / LOOP + 4)
    ImageDraw.Draw(image).ellipse((x - 9, y - 9, x + 9, y + 9), 255)
    ImageDraw.Draw(image).ellipse((70, y - 6, 80, y + 6), 140)
    stream = BytesIO()
    image.filter(ImageFilter.GaussianBlur(4)).save(stream, "PNG")
    return stream.getvalue()


def packed(meta: dict[str, Any], image: bytes, overlay: bytes = b"") -> bytes:
    """A packet as it goes over the wire."""
    head = json.dumps({**meta, "saliency_bytes": len(overlay)}).encode()
    return struct.pack("<I", len(head)) + head + image + overlay


class FakeViewer:
    """Serves the page and speaks the protocol at `address`; `heard` keeps what clients said, `mode` what a run does."""

    def __init__(
        self, kinds: tuple[str, ...] = KINDS, *, run: bool = True, fps: float = 30, actions: list[str] = ACTIONS,
        look: str = "", title: str = "atari/pong · 2026-11-21_1702_s0", game: str = "atari/pong",
    ) -> None:  # fmt: skip
        self.kinds, self.run, self.fps, self.actions, self.look = list(kinds), run, fps, actions, look
        self.title, self.game, self.names = title, game, dict(TITLES)
        self.token, self.watcher = "t0ken", "w4tch"
        self.mode, self.alive, self.answer_s = "training", True, 0.15
        self.events: list[list[Any]] = [[time.time() - 400, "run started"], [time.time() - 90, "new best: 12.4 points"]]
        self.heard: list[dict[str, Any]] = []
        self.held: dict[str, list[str]] = {}
        self.held_at: list[tuple[float, list[str]]] = []
        self.saliency: dict[str, str] = {}
        self.fault: dict[str, str] = {}
        self.shares, self.why, self.refuses = dict(SHARES), "", ""
        self.advice, self.began = False, False
        self.seed, self.started, self.port = 1234, time.time(), 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.sockets: set[WebSocket] = set()
        self.frozen_said, self.saving_s = "Frozen: 99.34 % agreement.", 0.0

    @property
    def address(self) -> str:
        """Where the page lies, without a token."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Serve in a thread; after a `stop` at the same port as before."""
        routes = [
            Route("/", lambda _: FileResponse(PAGE / "index.html", headers=HEADERS)),
            Route("/episodes", self._episodes),
            Route("/episodes/{name}", self._episode),
            WebSocketRoute("/ws", self._client),
            Mount("/static", StaticFiles(directory=PAGE)),
        ]
        settings = {"log_level": "error", "lifespan": "off", "ws_per_message_deflate": False}
        config = uvicorn.Config(Starlette(routes=routes), port=self.port, **settings)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Hang up on everybody and end the thread."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()

    def farewell(self, said: str, again: str) -> None:
        """Say that the run is over and the viewer too, then stop."""
        self.alive = False
        for message in (self.figures(), {"type": "bye", "said": said, "again": again}):
            asyncio.run_coroutine_threadsafe(self.tell(message), self.loop).result(20)
        self.stop()

    async def tell(self, message: dict[str, Any]) -> None:
        """Tell every client."""
        for websocket in list(self.sockets):
            await websocket.send_json(message)

    def said(self, kind: str) -> list[dict[str, Any]]:
        """What clients sent of this type, oldest first."""
        return [message for message in self.heard if message["type"] == kind]

    def hello(self, controls: bool) -> dict[str, Any]:
        """The rooms as a client is told of them."""
        rooms = [
            {
                "id": kind, "kind": kind, "title": self.names[kind], "game": self.game, "actions": self.actions,
                "keys": KEYS, "steps_per_s": 15, "frozen": FROZEN if kind == "frozen" else None,
                "policy": "beyond-the-rainbow, 301,200 updates", "scores": "values", "fault": self.fault.get(kind),
                "saliency": kind in ("latest", "frozen"), "range": [],
                "advice": self.advice if kind == "you" and self.run else None,
            }
            for kind in self.kinds
        ]  # fmt: skip
        about = {"type": "hello", "title": self.title, "controls": controls, "run": self.run, "freezes": self.run}
        return {**about, "rooms": rooms}

    def figures(self) -> dict[str, Any]:
        """The run as it stands."""
        steps = 1_204_800 + int(60 * (time.time() - self.started))
        curve = []
        for k in range(60):
            mean = -20.5 + 36 / (1 + math.exp(-(k - 34) / 6)) + math.sin(k * 1.7)
            curve.append([(k + 1) * 20_000, mean, mean - 1.5 - 2 * abs(math.sin(k)), mean + 1.2 + abs(math.cos(k))])
        return {
            "type": "run", "game": self.game, "steps": steps, "total_steps": 5_000_000, "updates": steps // 4,
            "episode": 812, "mode": self.mode if self.alive else "stopped", "epsilon": 0.0134,
            "replay_size": 834_120, "replay_capacity": 1_000_000,
            "steps_per_s": 412.3 + 9 * math.sin(steps / 400), "updates_per_s": 103.1, "shares": self.shares,
            "memory_gib": 7.42, "eta_s": (5_000_000 - steps) / 412, "events": self.events, "time": time.time(),
            "curve": curve, "alive": self.alive,
            "ended": None if self.alive else "The run was stopped; 'icebox resume' goes on with it.",
        }  # fmt: skip

    def meta(self, room: str, n: int) -> dict[str, Any]:
        """What is known of picture `n` of a room."""
        held = self.held.get(room, [])
        q = [0.9 + 0.35 * math.sin(n / 17 + k) + 0.05 * math.sin(n / 3) for k in range(len(self.actions))]
        best, you = max(range(len(q)), key=q.__getitem__), room == "you"
        pressed = [action for keys, action in KEYS if set(keys) <= set(held)]
        long = {"policy_age_updates": 20_445} if room == "latest" else {}
        known = {
            "room": room, "n": n, "width": 160, "height": 210, "format": "webp", "step": n // 2,
            "episode": 3 + n // 900, "score": float(n // 240 - 4), "reward": float(n % 240 == 0),
            "action": (pressed or [0])[0] if you else best,
            "q": None if you and not self.advice else q, "value": None if you else q[best],
            "td_error": 0.2 * math.sin(n / 5) * math.sin(n / 2) if room != "frozen" and not you else None,
            "policy_updates": None if you else 301_200, "policy_age_updates": {"live": 0, "latest": 412}.get(room),
            "act_ms": None if you else 1.84 + 0.3 * math.sin(n / 9),
            "seed": None if room == "live" else self.seed + KINDS.index(room),
            "waiting": you and not self.began,
            "held": held if you else None, "ended": n % 900 > 870, "time": time.time(),
        }  # fmt: skip
        return known | ({"score": -266.9, "reward": -0.49, "step": 1089} | long if self.look == "wide" else {})

    def packet(self, room: str, n: int) -> bytes:
        """Picture `n` of a room with what is known of it."""
        held = self.held.get(room, [])
        paddle = 60 if "ArrowLeft" in held else 150 if "ArrowRight" in held else 105
        overlay = saliency(n % LOOP) if self.saliency.get(room, "none") != "none" else b""
        return packed(self.meta(room, n), picture(self.look or room, n % LOOP, paddle), overlay)

    async def _client(self, websocket: WebSocket) -> None:
        await websocket.accept()
        token = json.loads(await websocket.receive_text()).get("token")
        if token not in (self.token, self.watcher):
            await websocket.close(1008)
            return
        controls, owed, looked = token == self.token, dict[str, int](), list(self.kinds)
        await websocket.send_json(self.hello(controls))
        self.loop = asyncio.get_running_loop()
        self.sockets.add(websocket)
        showing = asyncio.create_task(self._show(websocket, owed, looked))
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                message = json.loads(await websocket.receive_text())
                self.heard.append(message)
                match message["type"]:
                    case "got":
                        owed[message["room"]] = 0
                    case "look":
                        looked[:] = message["rooms"]
                    case "keys":
                        self.held[message["room"]], self.began = message["held"], True
                        self.held_at.append((time.time(), message["held"]))
                    case "saliency":
                        self.saliency[message["room"]] = message["how"]
                    case "do":
                        task = asyncio.create_task(self._do(websocket, message, controls))
                        self.tasks.add(task)
        showing.cancel()
        self.sockets.discard(websocket)

    async def _show(self, websocket: WebSocket, owed: dict[str, int], looked: list[str]) -> None:
        begun, n = time.time(), 0
        while True:
            if n % 15 == 0 and self.run:
                await websocket.send_json(self.figures())
            for room in [room for room in looked if room in self.kinds and not owed.get(room)]:
                if room != "live" or self.mode != "paused" and self.alive:
                    owed[room] = 1
                    await websocket.send_bytes(self.packet(room, int((time.time() - self.started) * self.fps)))
            n += 1
            await asyncio.sleep(max(0.001, begun + n / self.fps - time.time()))

    async def _do(self, websocket: WebSocket, message: dict[str, Any], controls: bool) -> None:
        what, answer = message["what"], {"type": "done", "id": message["id"]}
        await asyncio.sleep(self.answer_s)
        if not controls or self.refuses:
            await websocket.send_json({**answer, "ok": False, "said": self.refuses or "this link may only watch"})
            return
        modes = {"pause": "paused", "go on": "training", "train": "training", "inference only": "inference only"}
        self.mode = modes.get(what, self.mode)
        self.alive &= what != "stop"
        if what == "same seed":
            self.seed = message["value"]
        if what == "advise":
            self.advice = bool(message["value"])
            await websocket.send_json(self.hello(controls))
        if what == "checkpoint":
            self.events.append([time.time(), "checkpoint saved"])
        await websocket.send_json({**answer, "ok": True, "said": f"{what}: done"})
        if self.run:
            await websocket.send_json(self.figures())
        if what == "freeze":
            for stage in STAGES:
                await websocket.send_json({"type": "freeze", "progress": stage, "done": False})
                await asyncio.sleep(2 * self.answer_s)
            self.kinds = [kind for kind in KINDS if kind in {*self.kinds, "frozen"}]
            said = {"progress": self.frozen_said, "done": True, "ok": True}
            await websocket.send_json({"type": "freeze", **said})
            await websocket.send_json(self.hello(controls))

    def _episodes(self, request: Request) -> Response:
        if request.headers.get("authorization") not in (f"Bearer {self.token}", f"Bearer {self.watcher}"):
            return Response("needs the token", 401)
        scores = {"best": 14.0, "worst": -19.0, "latest": 3.0}
        kinds = [kind for kind in self.kinds if kind != "frozen"]
        return JSONResponse(
            [
                {
                    "id": f"{room}-{why}", "room": room, "score": scores[why], "length": EPISODE, "seed": self.seed,
                    "time": self.started - 600 * k - 60, "why": self.why or why, "cut": "", "pictures_per_s": 30.0,
                }
                for room in kinds for k, why in enumerate(scores)
            ]
        )  # fmt: skip

    async def _episode(self, request: Request) -> Response:
        if request.headers.get("authorization") not in (f"Bearer {self.token}", f"Bearer {self.watcher}"):
            return Response("needs the token", 401)
        name, kind = request.path_params["name"].rsplit(".", 1)
        if kind == "ep":
            packets = [self.packet(name.split("-")[0], n) for n in range(EPISODE)]
            return Response(b"".join(struct.pack("<I", len(packet)) + packet for packet in packets))
        for share in (0.0, 0.41) if self.saving_s else ():
            await self.tell({"type": "saving", "id": name, "form": kind, "share": share})
            await asyncio.sleep(self.saving_s)
        frames = [Image.open(BytesIO(picture("live", t))).convert("RGB") for t in range(0, EPISODE, 10)]
        stream = BytesIO()
        frames[0].save(stream, kind.upper(), save_all=True, append_images=frames[1:], duration=330)
        return Response(stream.getvalue(), media_type=f"image/{kind}")
