"""Chromium with the viewer's page before a stand-in for its server: what the tests of the page share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from viewer_fake import FakeViewer

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"wide": (1280, 720), "narrow": (390, 844)}
WAIT_S = 60

Open = Callable[..., Any]


@dataclass
class Opened:
    """A page that is open before a server, and what its console complained of."""

    page: Any
    viewer: FakeViewer
    complaints: list[str]

    def counters(self) -> dict[str, Any]:
        """What window.icebox holds."""
        return self.page.evaluate("window.icebox")

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript condition holds. Playwright's own way needs eval, which the page's CSP forbids."""
        until = time.monotonic() + WAIT_S
        while not self.page.evaluate(condition, argument):
            assert time.monotonic() < until, condition
            self.page.wait_for_timeout(25)

    def painted(self, room: str, more: int = 3) -> None:
        """Wait until a room has painted some more pictures."""
        before = self.counters()["frames"].get(room, 0)
        self.until(f"(icebox.frames[{json.dumps(room)}] ?? 0) >= {before + more}")

    def asked(self, what: str) -> list[dict[str, Any]]:
        """The requests of this name that the server has heard."""
        return [message for message in self.viewer.said("do") if message["what"] == what]


def busy() -> bool:
    """Whether others have had a share of this machine in the last minute: then nothing is known from a speed."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a profile of its own."""
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Start a server and open its page; at the end nothing may have been complained of."""
    opened: list[Opened] = []

    def open_(*args: Any, size: str = "wide", token: str | None = None, calm: bool = True, **kwargs: Any) -> Opened:
        viewer = args[0] if args and isinstance(args[0], FakeViewer) else FakeViewer(*args, **kwargs)
        viewer.start()
        width, height = SIZES[size]
        mobile = {"is_mobile": True, "has_touch": True} if size == "narrow" else {}
        page = browser.new_context(viewport={"width": width, "height": height}, **mobile).new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.append(Opened(page, viewer, complaints if calm else []))
        page.goto(f"{viewer.address}#token={viewer.token if token is None else token}")
        if token != "wrong":
            opened[-1].until("window.icebox?.hellos > 0")
        return opened[-1]

    yield open_
    for each in opened:
        broken = each.page.evaluate("window.icebox.broken")
        each.page.context.close()
        each.viewer.stop()
        assert each.complaints == [] and broken == []
