"""The viewer's page where things do not go as usual: no connection, no rights, a run that ends, a game that is gone."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from room_fakes import eventually

from agent.viewer.access import Access
from agent.viewer.desk import Desk
from agent.viewer.hub import Hub
from agent.viewer.policies import Facts
from agent.viewer.rooms import PlayRoom
from agent.viewer.server import listen, make_app, serve
from agent.viewer.you import YouRoom
from envs.keys import idle_action, key_map
from envs.make import spec
from envs.shown import Shown
from viewer_browser import SIZES, Open, Opened, browser, open_page  # noqa: F401: fixtures
from viewer_fake import FakeViewer

COVERED = """() => {
    const said = document.querySelector('#said').getBoundingClientRect();
    return [...document.querySelectorAll('button, select, input')].filter(each => {
        const box = each.getBoundingClientRect();
        const wide = Math.min(box.right, said.right) - Math.max(box.left, said.left);
        return each.offsetParent && wide > 0 && Math.min(box.bottom, said.bottom) > Math.max(box.top, said.top);
    }).map(each => each.textContent);
}"""


def test_without_a_connection_no_games_are_mixed(open_page: Open) -> None:
    """A game that cannot be fetched leaves the one that is shown as it is, and a sentence says why; later it opens."""
    opened = open_page(("live", "latest"), calm=False)  # the browser itself complains of each attempt that fails
    page = opened.page
    page.click("#views [data-view=episodes]")
    page.click("[data-episode=live-best]")
    opened.until("icebox.replay?.id === 'live-best'")
    before = page.inner_text(".player header")
    opened.viewer.stop()
    opened.until("icebox.state === 'lost'")
    page.click("[data-episode=latest-worst]")
    opened.until("document.querySelector('#said').hasAttribute('data-shown')")
    assert page.inner_text("#said").endswith("This game could not be opened. There is no connection to the viewer.")
    assert page.inner_text(".player header") == before and opened.counters()["replay"]["id"] == "live-best"
    assert page.get_attribute("[data-episode=live-best]", "aria-pressed") == "true"
    assert "No connection" in page.inner_text(".kept")
    page.click("text=Save GIF")
    opened.until("document.querySelector('#said').textContent.startsWith('live-best.gif could not be saved.')")
    opened.viewer.start()
    opened.until("icebox.reconnects === 1")
    opened.until("!document.querySelector('.kept').innerText.includes('No connection')")
    page.click("[data-episode=latest-worst]")
    opened.until("icebox.replay.id === 'latest-worst'")


def test_saving_shows_how_far_it_is(open_page: Open) -> None:
    """The button tells the share that is done while it waits, and is what it was when the file is there."""
    viewer = FakeViewer(("live",))
    viewer.saving_s = 0.3
    opened = open_page(viewer)
    opened.page.click("#views [data-view=episodes]")
    opened.page.click("[data-episode=live-best]")
    opened.until("icebox.replay?.id === 'live-best'")
    opened.page.evaluate(
        """() => {
            window.told = [];
            const button = document.querySelector('.saves button');
            new MutationObserver(() => told.push(button.textContent)).observe(button, { childList: true });
        }"""
    )
    with opened.page.expect_download(timeout=60_000):
        opened.page.click("text=Save WebP")
    opened.until("document.querySelector('.saves button').textContent === 'Save WebP'")
    assert opened.page.evaluate("told") == ["WebP: 0 %", "WebP: 41 %", "Save WebP"]


def test_a_watcher_is_not_invited_to_play(open_page: Open) -> None:
    """With a link that only watches the person's room says so, takes neither key nor focus, and shows others' keys."""
    viewer = FakeViewer(("latest", "you"))
    opened = open_page(viewer, token=viewer.watcher)
    page = opened.page
    opened.painted("you")
    opened.until("document.querySelector('[data-room=you] .note').textContent.includes('only watches')")
    assert "only watches" in page.inner_text("[data-room=you] .plain") and "Click" not in page.inner_text("#rooms")
    page.click("[data-room=you] canvas.picture")
    page.keyboard.down("ArrowLeft")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('picture')")
    assert viewer.said("keys") == []
    viewer.held["you"], viewer.began = ["ArrowRight"], True  # somebody else plays
    opened.until("document.querySelector('.cap[data-held]')?.dataset.code === 'ArrowRight'")
    opened.until("document.querySelector('[data-room=you] .note').hidden")


def test_the_end_of_a_viewer_is_told(open_page: Open) -> None:
    """It is no lost connection: the last figures stay, the page says how to look again, and comes back if it can."""
    opened = open_page(("live", "latest"), calm=False)
    page = opened.page
    opened.painted("live")
    opened.until("document.querySelector('.state').textContent === 'Training'")
    opened.viewer.farewell("The training has ended.", "icebox play <b>latest</b>")
    opened.until("icebox.state === 'over'")
    assert page.inner_text("#stopper") == "The training has ended. To look again: icebox play <b>latest</b>"
    assert page.inner_text(".state") == "Stopped" and page.inner_text("#connection") == "viewer ended"
    assert page.evaluate("getComputedStyle(document.querySelector('.chart')).opacity") == "1"
    assert page.is_disabled("text=Freeze now")
    opened.until("document.querySelector('[data-room=live] .note').textContent.startsWith('The viewer has ended')")
    opened.viewer.alive = True
    opened.viewer.start()
    opened.until("icebox.reconnects === 1 && document.querySelector('#stopper').hidden")
    opened.painted("live")


def test_the_question_before_a_stop(open_page: Open) -> None:
    """The harmless answer has the focus; Escape takes the question back and the focus with it; news leave it open."""
    opened = open_page(("live", "you"))
    page = opened.page
    opened.until("document.querySelector('.state').textContent === 'Training'")
    page.click("text=Stop …")
    focused = "document.activeElement.textContent"
    assert page.evaluate(focused) == "No, go on" and page.is_visible("text=End this run?")
    asyncio.run_coroutine_threadsafe(opened.viewer.tell(opened.viewer.hello(True)), opened.viewer.loop).result(20)
    opened.until("icebox.hellos === 2")
    assert page.is_visible("text=Yes, stop")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "Stop …" and page.is_hidden("text=Yes, stop") and not opened.asked("stop")


def test_every_control_has_a_name(open_page: Open) -> None:
    """Each button and choice is called by words, also where it shows a sign; so is every room."""
    opened = open_page()
    opened.painted("you")
    opened.page.click("#views [data-view=episodes]")
    opened.page.locator("[data-episode]").first.click()
    opened.until("icebox.replay !== null")
    names = opened.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, .room')].map(each => {
            const signs = [...each.querySelectorAll('[aria-hidden]')].map(sign => sign.textContent).join('');
            const text = each.matches('button') ? each.textContent.replace(signs, '') : '';
            return each.getAttribute('aria-label') ?? text;
        })"""
    )
    assert len(names) > 30 and all(any(letter.isalpha() for letter in name) for name in names), names


@pytest.mark.parametrize("size", SIZES)
def test_what_is_told_covers_no_control(open_page: Open, size: str) -> None:
    """Neither in the rooms nor over the scrubber, however long it is."""
    viewer = FakeViewer(("latest",))
    viewer.refuses = "The disk on which this run keeps its checkpoints is full: make some room and ask for it again."
    opened = open_page(viewer, size=size)
    page = opened.page
    opened.painted("latest")
    page.locator("[data-room=latest]").get_by_text("Restart").click()
    opened.until("document.querySelector('#said').textContent.includes('disk')")
    assert page.evaluate(COVERED) == []
    page.click("#views [data-view=episodes]")
    page.locator("[data-episode]").first.click()
    opened.until("icebox.replay !== null")
    page.evaluate("document.querySelector('.transport').scrollIntoView()")
    assert page.evaluate(COVERED) == []


def test_the_result_of_freezing_can_be_read(open_page: Open) -> None:
    """All of a long sentence is in its place, or can be scrolled to."""
    viewer = FakeViewer(("live",))
    viewer.frozen_said = "Frozen to int8: 99.12% agreement, refused by its gate: " + "it lost " * 30
    opened = open_page(viewer)
    opened.page.click("text=Freeze now")
    opened.painted("frozen")
    opened.until("document.querySelector('.freezing').textContent.includes('99.12')")
    high, whole, overflow = opened.page.evaluate(
        """() => {
            const line = document.querySelector('.freezing');
            return [line.clientHeight, line.scrollHeight, getComputedStyle(line).overflowY];
        }"""
    )
    assert high > 60 and (whole <= high or overflow == "auto")


def test_the_agent_gives_advice(open_page: Open) -> None:
    """On demand its values stand beside the person's own choice, and go again."""
    opened = open_page(("latest", "you"))
    room = opened.page.locator("[data-room=you]")
    opened.painted("you")
    assert "What the agent expects" not in room.inner_text()
    room.get_by_text("Advice").click()
    opened.until("document.querySelector('[data-room=you] .values h3').textContent === 'What the agent expects (Q)'")
    opened.until("document.querySelector('[data-room=you] .advice').getAttribute('aria-pressed') === 'true'")
    assert any(letter.isdigit() for letter in room.locator(".bar .number").first.inner_text())
    room.get_by_text("Advice").click()
    opened.until("document.querySelector('[data-room=you] .values h3').textContent === 'Action'")
    assert [(each["room"], each["value"]) for each in opened.asked("advise")] == [("you", 1), ("you", 0)]


def test_the_scale_of_controls_is_that_of_the_game(open_page: Open) -> None:
    """A continuous action is drawn between the game's own limits, from the first one on."""
    opened = open_page(("you",), run=False)
    limits, left, width = opened.page.evaluate(
        """async () => {
            const { Bars } = await import('/static/bars.js');
            const bars = new Bars([], null, [-2, 2]);
            bars.show({ q: null, action: [0.5] }, 0);
            const fill = bars.element.querySelector('.fill').style;
            return [bars.limits.textContent, fill.left, fill.width];
        }"""
    )
    assert (limits, left, width) == ("−2.00 to 2.00", "50%", "12.5%")


class Swinging:
    """Drives a mountain car to and fro, in half-second swings: it never arrives, so a game lasts its 200 steps."""

    network = None

    def __init__(self) -> None:
        self.facts = Facts("swings", "values")
        self.asked = 0

    def scores(self, observations: np.ndarray) -> np.ndarray:
        return np.zeros((len(observations), 3))

    def q(self, observation: np.ndarray) -> tuple[np.ndarray, int]:
        self.asked += 1
        return np.arange(3.0), (0, 2)[self.asked // 15 % 2]

    def refresh(self) -> None: ...


def test_own_rooms_show_their_games_smoothly(browser: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Latest, frozen and you, 30 steps a second, on the real server: all go on painting; how fast is printed."""
    hub, access, about = Hub(), Access(), spec("mountain-car")
    keys, idle = key_map(about), idle_action(about)
    rooms = [PlayRoom(k, k, k, hub, lambda seed: Shown("mountain-car", seed), Swinging()) for k in ("latest", "frozen")]
    desk = Desk("smooth", about, hub, [*rooms, YouRoom(hub, lambda seed: Shown("mountain-car", seed), keys, idle)])

    async def beside() -> None:
        desk.start()
        try:
            await asyncio.Event().wait()
        finally:
            await desk.close()

    listening = listen("127.0.0.1", 0)
    server = serve(make_app(hub, access, desk, None, beside=beside))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    try:
        eventually(lambda: server.started, 60)
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/#token={access.control}")
        opened = Opened(page, FakeViewer(), [])
        opened.until("icebox.frames.you > 0")
        page.keyboard.press("Tab")
        page.keyboard.down("ArrowLeft")
        names = ("latest", "frozen", "you")
        for name in names:
            opened.painted(name, 5)
        before, begun = opened.counters()["frames"], time.perf_counter()
        opened.until(f"({before['latest']} + 60 <= icebox.frames.latest)")
        after, seconds = opened.counters()["frames"], time.perf_counter() - begun
        opened.painted("frozen")
        opened.painted("you")
        with capsys.disabled():
            print("".join(f" {name} {(after[name] - before[name]) / seconds:.1f}/s" for name in names), end="")
        assert opened.counters()["broken"] == []
    finally:
        page.close()
        server.should_exit = True
        thread.join(60)
