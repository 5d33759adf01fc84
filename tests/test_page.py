"""Tests of agent/telemetry/report/page.py: one file that says everything, and in which every name is text."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import reported

from agent.telemetry.report.page import number, page
from agent.telemetry.report.references import References

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """No script, nothing from the network, nothing beside it: it can be sent to somebody as it is."""
    read = Reader(page(reported.found(reported.run(tmp_path, [1.0, 2.0])), "icebox report", "today"))
    assert not {"script", "iframe", "object", "embed"} & set(read.tags)
    links = [value for name, value in read.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(value.startswith(("#", "data:")) for value in links)
    assert not [name for name, _ in read.attributes if name.startswith("on")]


def test_names_are_text(tmp_path: Path) -> None:
    """Whatever stands in a game's name, a run's name, a machine's or a setting's, the page shows and does not obey."""
    path = reported.run(
        tmp_path, [1.0, 2.0], name=NASTY, git=NASTY, device=NASTY, status=NASTY, versions={NASTY: NASTY},
        host={"processor": NASTY, "system": NASTY, "cores": NASTY, "memory_gib": NASTY, "gpus": [NASTY]},
        settings={"sb3": {NASTY: {NASTY: NASTY}}},
    )  # fmt: skip
    (path / "meta.json").write_text((path / "meta.json").read_text().replace('"cartpole"', json.dumps(NASTY)))
    (path / "episodes").mkdir()
    row = {"room": NASTY, "score": 5.0, "length": 9, "finished": True}
    index = {"format": "icebox-episodes", "version": 1, "episodes": [row]}
    (path / "episodes" / "index.json").write_text(json.dumps(index))
    text = page(reported.found(path), f"icebox report {NASTY}", NASTY)
    read = Reader(text)
    assert not {"script", "img"} & set(read.tags) and "<script" not in text
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert read.text.count(NASTY[:60]) > 5


def test_a_stranger_finds_what_it_takes(tmp_path: Path) -> None:
    """Result, warnings, protocol, settings, machine, commit, versions and every word explained are on the page."""
    ours = [reported.run(tmp_path, [100.0, 480.0 + seed], seed=seed) for seed in range(2)]
    ppo = [reported.run(tmp_path, [50.0, 300.0 + seed], seed=seed, settings={"algo": "ppo"}) for seed in range(2)]
    text = re.sub(r"\s+", " ", Reader(page(reported.found(*ours, baselines=ppo), "icebox report", "today")).text)
    for said in (
        "Icebox scores 480 (95 % interval 480 to 481) after 2,000 steps, by 2 training runs.",
        "Random play scores 22.0.",
        "counts as solved at 475", "Fewer than 5 seeds", "over seeds only", "Every 10,000 steps", "never sees",
        "no sticky actions", "Abacus 1, 2 cores, 4.0 GiB of memory", "a" * 40, "python 3.11", "Interquartile mean",
        "Icebox over PPO (SB3)", "too few seeds to say", "results.json", "baseline, 2 seeds",
    ):  # fmt: skip
        assert said in text, said


def test_no_chart_without_its_numbers(tmp_path: Path) -> None:
    """Without times there is one learning curve, without a second setting no comparison, with one game no profile."""

    def images(*paths: Path, known: References = reported.KNOWN) -> list[str]:
        read = Reader(page(reported.found(*paths, known=known), "icebox report", "today"))
        return [value.split(".")[0] for name, value in read.attributes if name == "aria-label"]

    plain = reported.run(tmp_path, [1.0], seconds=False)
    assert images(plain) == ["Score over frames on cartpole", "Final scores on cartpole"]
    games = [reported.run(tmp_path / "three", [50.0], game=game) for game in ("cartpole", "acrobot", "lunar-lander")]
    assert [name for name in images(*games) if "profile" in name] == [
        "Performance profile: the share of runs above each score"
    ]
    assert not any("profile" in name for name in images(*games, known=References(1, None, None, "")))


def test_frames_are_told_where_they_are_not_steps(tmp_path: Path) -> None:
    """Of a game with four frames to a step the budget is said in both."""
    found = reported.found(reported.run(tmp_path, [1.0, 2.0]), known=References(4, None, None, ""))
    text = Reader(page(found, "icebox report", "today")).text
    assert "after 2,000 steps (8,000 frames)" in text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (-187.3, "-187"), (22.11, "22.1"), (2.1, "2.10"), (0, "0.00")]
)
def test_scores_have_about_three_digits(value: float, text: str) -> None:
    """Enough to compare, not more."""
    assert number(value) == text


@pytest.mark.slow
def test_in_a_browser_it_fits_and_asks_for_nothing(tmp_path: Path) -> None:
    """On a laptop and on a phone nothing is wider than the window, nothing is fetched, and nothing is complained of."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs chromium: apt install chromium")
    ours = [reported.run(tmp_path, [1.0, 2.0], seed=seed, name="a-very-long-name" * 3) for seed in range(2)]
    ppo = reported.run(tmp_path, [1.0, 3.0], settings={"algo": "ppo"})
    file, said = tmp_path / "report.html", []
    file.write_text(page(reported.found(*ours, ppo), "icebox report", "today"), encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in ((1280, 720), (390, 844)):
            opened = browser.new_page(viewport={"width": width, "height": height})
            opened.on("console", lambda message: said.append(message.text))
            opened.on("request", lambda request: said.append(request.url))
            opened.goto(file.as_uri())
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            heights = "[...document.querySelectorAll('figure svg')].map(each => each.getBoundingClientRect().height)"
            assert min(opened.evaluate(heights)) > 60
        browser.close()
    assert set(said) == {file.as_uri()}
