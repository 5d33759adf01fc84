"""How the viewer's page looks: nothing clipped, covered or jumping, every number explained, at both sizes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from viewer_browser import SIZES, Open, Opened, browser, open_page  # noqa: F401: fixtures
from viewer_fake import KINDS, FakeViewer

JOYSTICK = [
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE", "RIGHTFIRE",
    "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
]  # fmt: skip
LANDER = ["do nothing", "fire left engine", "fire main engine", "fire right engine"]

TEXTS = ".label, .amount, h2, h3, .limits, .name, .plain, button, .state, .number, .chip"
CLIPPED = f"() => [...document.querySelectorAll('{TEXTS}')]" + """
    .filter(each => each.offsetParent && each.scrollWidth > each.clientWidth + 1 && each.clientWidth)
    .map(each => `${each.className || each.tagName}: ${each.textContent}`)"""

# Parts of one room or of the run's panel that lie over each other or outside of it, and a page that is too wide.
COVERED = """() => {
    const wrong = [];
    const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1;
    const inside = (a, b) => within(a, b) && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
    for (const whole of document.querySelectorAll('.room, #run, .kept')) {
        if (!whole.offsetParent) continue;
        const of = '.room > header, .stage, .values, .play, .strips, .figures, .controls, .transport, ' +
            '.switch, .chart, .done, .shares, .heard, .freezing, .asks';
        const parts = [...whole.querySelectorAll(of)].filter(part => part.offsetParent && part.offsetHeight);
        const boxes = parts.map(part => part.getBoundingClientRect());
        const name = k => `${whole.dataset.room ?? whole.id} ${parts[k].className || parts[k].tagName}`;
        boxes.forEach((box, k) => {
            if (!inside(box, whole.getBoundingClientRect())) wrong.push(`${name(k)} sticks out`);
            for (let j = 0; j < k; j++) {
                const width = Math.min(box.right, boxes[j].right) - Math.max(box.left, boxes[j].left);
                const height = Math.min(box.bottom, boxes[j].bottom) - Math.max(box.top, boxes[j].top);
                if (width > 1 && height > 1) wrong.push(`${name(k)} covers ${name(j)}`);
            }
        });
    }
    if (document.documentElement.scrollWidth > innerWidth) wrong.push('wider than the page');
    return wrong;
}"""


def faults(opened: Opened) -> list[str]:
    """What is clipped, covered or sticks out."""
    return opened.page.evaluate(CLIPPED) + opened.page.evaluate(COVERED)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kinds", "actions", "look"),
    [
        (KINDS, None, ""),
        pytest.param(KINDS, JOYSTICK, "", marks=pytest.mark.slow),
        pytest.param(("live", "latest"), LANDER, "wide", marks=pytest.mark.slow),
        pytest.param(KINDS, LANDER, "wide", marks=pytest.mark.slow),
        pytest.param(("live", "latest", "you"), None, "tiny", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_clipped_or_covered(
    open_page: Open, size: str, kinds: tuple[str, ...], actions: list[str] | None, look: str
) -> None:
    """With two to four rooms and few or many actions, every view has its place; a wide page needs no scrolling."""
    opened = open_page(kinds, size=size, look=look, **({"actions": actions} if actions else {}))
    page = opened.page
    opened.painted(kinds[0])
    page.wait_for_timeout(300)
    found = [fault for fault in faults(opened) if not (actions == JOYSTICK and fault.startswith("name: "))]
    assert found == []
    if size == "wide":
        assert page.evaluate("[document.documentElement.scrollHeight, innerHeight]") == [720, 720]
        assert page.evaluate("document.querySelector('.asks').getBoundingClientRect().bottom") <= 720
    else:
        page.click("#views [data-view=run]")
        assert faults(opened) == []
    page.click("#views [data-view=episodes]")
    page.locator("[data-episode]").first.click()
    opened.until("icebox.replay !== null")
    assert [fault for fault in faults(opened) if not (actions and fault.startswith("name: "))] == []


def test_the_page_stands_still(open_page: Open) -> None:
    """Once all rooms are there, nothing moves its place while pictures and numbers change."""
    opened = open_page()
    for room in KINDS:
        opened.painted(room)
    opened.page.wait_for_timeout(400)
    opened.page.evaluate(
        """() => {
            window.moved = 0;
            const add = list => list.getEntries().forEach(each => (window.moved += each.value));
            new PerformanceObserver(add).observe({ type: 'layout-shift' });
        }"""
    )
    opened.page.click("text=Save checkpoint")
    opened.until("icebox.acks.length === 1")
    opened.page.wait_for_timeout(600)
    assert opened.page.evaluate("moved") < 0.005


def test_every_number_is_explained(open_page: Open) -> None:
    """Each figure has a unit, a hover of one sentence, and can be reached by keys, which show the sentence."""
    opened = open_page()
    page = opened.page
    opened.painted("you")
    figures = page.evaluate(
        """() => [...document.querySelectorAll('.figure, .legend li')].map(each => {
            const owner = each.closest('[data-why]');
            return [each.textContent, owner?.title ?? '', owner?.dataset.why ?? ''];
        })"""
    )
    assert len(figures) > 40
    for text, title, why in figures:
        assert title == why and why.endswith(".") and why.count(". ") == 0 and len(why) > 25, text
    unitless = {"Seed", "Time left", "Size"}  # an identifier; two that carry their units in the number
    units = page.evaluate(
        """() => [...document.querySelectorAll('.figure')].map(each =>
            [each.querySelector('.label').textContent, each.querySelector('.unit').textContent])"""
    )
    assert {label for label, unit in units if not unit.strip()} <= unitless
    first = page.locator("[data-room=latest] .figures .figure").first
    first.focus()
    assert page.inner_text("#bubble") == first.get_attribute("title")
    page.keyboard.press("ArrowRight")
    second = page.locator("[data-room=latest] .figures .figure").nth(1)
    assert page.inner_text("#bubble") == second.get_attribute("title")
    assert second.evaluate("each => each === document.activeElement")
    page.keyboard.press("Escape")
    assert page.is_hidden("#bubble")


def test_everything_can_be_reached_by_tab(open_page: Open) -> None:
    """Every button, choice and group of figures is a Tab stop, the player's picture the first; the focus is seen."""
    opened = open_page()
    page = opened.page
    opened.painted("you")
    stops: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        stop: Any = page.evaluate(
            """() => {
                const here = document.activeElement, style = getComputedStyle(here);
                if (here === document.body) return null;
                const seen = style.outlineStyle !== 'none' || here.closest('.stage[data-on]');
                here.dataset.reached = '';
                return [here.className, Boolean(seen)];
            }"""
        )
        if stop is None:
            break
        stops.append(stop[0])
        assert stop[1], stop
    assert stops[0] == "picture"
    missed = "[...document.querySelectorAll('button, select, .figures, .legend')].filter(each => each.offsetParent && "
    missed += "!each.disabled && !each.matches('[data-reached], :has([data-reached])')).map(each => each.outerHTML)"
    assert page.evaluate(missed) == []


def test_dark_and_light(open_page: Open) -> None:
    """The page follows the system's choice, and text stands out from its ground by 4.5 to 1 in both."""
    opened = open_page()
    opened.painted("you")
    seen = []
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        contrast = opened.page.evaluate(
            """() => {
                const light = color => {
                    const linear = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
                    const [r, g, b] = color.match(/[\\d.]+/g).map(x => linear(x / 255));
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const ground = each => {
                    for (; each; each = each.parentElement) {
                        const { backgroundColor } = getComputedStyle(each);
                        if (!/, 0\\)$/.test(backgroundColor)) return backgroundColor;
                    }
                };
                const texts = '.label, .unit, b, h2, h3, .plain, button, select, .name, .number, kbd, small, .chip';
                const all = [...document.querySelectorAll(texts)];
                return Math.min(...all.filter(each => each.offsetParent && !each.disabled).map(each => {
                    const pair = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
                    return (pair[0] + 0.05) / (pair[1] + 0.05);
                }));
            }"""
        )
        assert contrast >= 4.5
        seen.append(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert seen[0] != seen[1]


def test_pictures_are_crisp(open_page: Open) -> None:
    """A small picture is shown with whole pixels, each as large as the next, as large as its place allows."""
    opened = open_page(("live", "latest"), look="tiny")
    opened.painted("live")
    width, height, drawn, rendering, room = opened.page.evaluate(
        """() => {
            const canvas = document.querySelector('[data-room=live] canvas.picture');
            const box = canvas.getBoundingClientRect();
            const stage = canvas.parentElement.getBoundingClientRect();
            return [box.width, box.height, canvas.width, getComputedStyle(canvas).imageRendering,
                Math.min(stage.width, stage.height)];
        }"""
    )
    assert width == height == drawn and width % 10 == 0 and room - 10 < width <= room and rendering == "pixelated"


def test_the_scale_stands_still(open_page: Open) -> None:
    """Values that wander do not move the scale, larger ones widen it at once, and it narrows only after a while."""
    opened = open_page(("you",), run=False)
    limits = opened.page.evaluate(
        """async () => {
            const { Scale } = await import('/static/scale.js');
            const scale = new Scale(), seen = [];
            const see = (values, now) => { scale.include(values, now); seen.push([scale.low, scale.high]); };
            see([2, 10], 0);
            for (let k = 1; k < 50; k++) see([2 + Math.sin(k), 9 + Math.cos(k)], 100 * k);
            see([2, 17], 5000);
            see([2, 3], 5100);
            see([2, 3], 9000);
            see([2, 3], 11100);
            see([2, 3], 17300);
            return seen;
        }"""
    )
    assert limits[0][0] <= 2 and limits[0][1] >= 10 and limits[:50] == [limits[0]] * 50
    assert limits[50][1] >= 17 and limits[51] == limits[52] == limits[50]
    assert limits[-1][1] < 10 and limits[-1][0] <= 2 and limits[-1][1] >= 3


def test_shares_add_up(open_page: Open) -> None:
    """Whole per cents of any shares add up to 100 and are off by less than one each."""
    opened = open_page(("you",), run=False)
    draw = random.Random(0)
    many = [[draw.random() ** 3 for _ in range(draw.randint(1, 7))] for _ in range(200)]
    many = [[share / sum(shares) for share in shares] for shares in many]
    whole = opened.page.evaluate(
        "async many => { const { hundred } = await import('/static/format.js'); return many.map(hundred); }", many
    )
    for shares, parts in zip(many, whole, strict=True):
        assert sum(parts) == 100 and all(abs(100 * share - part) < 1 for share, part in zip(shares, parts, strict=True))


def test_numbers_are_short(open_page: Open) -> None:
    """Numbers of any size, missing ones too, are written in few characters and never as NaN."""
    opened = open_page(("you",), run=False)
    written = opened.page.evaluate(
        """async () => {
            const f = await import('/static/format.js');
            const numbers = [null, undefined, NaN, 0, -0.004, 1, -21, 99999, 100000, 1.2048e6, 5e9, 0.5, 12.345];
            return [f.points, f.count, f.three, f.bytes, f.value].map(write => numbers.map(x => write(x)));
        }"""
    )
    assert all(len(text) <= 9 and "NaN" not in text for row in written for text in row)
    assert written[1][9:11] == ["1.20 M", "5.00 G"] and written[1][7:9] == ["99,999", "100 k"]
    times = opened.page.evaluate(
        "async times => { const { duration } = await import('/static/format.js'); return times.map(duration); }",
        [5, 65, 3700, 1e5],
    )
    assert times == ["5 s", "1 min 5 s", "1 h 1 min", "1 d 3 h"]


def test_layout_of_a_watcher(open_page: Open) -> None:
    """Without controls the page has no gaps or faults either."""
    viewer = FakeViewer()
    opened = open_page(viewer, token=viewer.watcher)
    opened.painted("you")
    assert faults(opened) == []
