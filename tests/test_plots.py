"""Tests of agent/telemetry/report/plots.py: figures with every line they promise, which take names as text."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import reported
from PIL import Image

from agent.telemetry.report import plots
from agent.telemetry.report.findings import Findings

NASTY = "$x_1$ <b>&\"' \\frac ü"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Two settings, one with three seeds of which one was stopped, on a game whose name is markup."""
    root = tmp_path_factory.mktemp("runs")
    ours = [reported.run(root, [1.0, 5.0, 9.0], seed=seed, name=NASTY) for seed in range(2)]
    stopped = reported.run(root, [1.0], seed=2, status="stopped", name=NASTY)
    ppo = reported.run(root, [2.0, 3.0, 4.0], settings={"algo": "ppo"})
    for path in (*ours, stopped, ppo):
        (path / "meta.json").write_text((path / "meta.json").read_text().replace('"cartpole"', '"<i>$a$"'))
    return reported.found(*ours, stopped, baselines=[ppo])


def test_svg_takes_its_colours_from_the_page(found: Findings) -> None:
    """Every colour is a variable of the page, so that it fits light and dark; nothing in it loads or runs anything."""
    for over in ("frames", "seconds"):
        text = plots.learning_curves(found, found.games[0], over)
        ElementTree.fromstring(text)
        assert "var(--s0)" in text and "var(--s1)" in text and "var(--ink)" in text
        assert not set(re.findall(r"#[0-9a-f]{6}", text)) - {"#ffffff"}
        assert (
            "http" not in text.replace("http://www.w3.org/", "") and "<script" not in text and "<metadata" not in text
        )


def test_two_figures_of_a_page_do_not_share_ids(found: Findings) -> None:
    """An id is of one figure alone, or one would be clipped as another."""
    texts = [plots.learning_curves(found, found.games[0], over) for over in ("frames", "seconds")]
    first, second = (set(re.findall(r'id="([^"]+)"', text)) for text in texts)
    assert first and second and not first & second
    for text in texts:
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(re.findall(r'id="([^"]+)"', text))


def test_every_line_is_drawn(found: Findings) -> None:
    """Thick lines, single seeds, a cross for the unfinished one, a band for two seeds and none for one, references."""
    game = found.games[0]
    with plots.style():
        axes = plots.Figure().subplots()
        plots._curves(axes, found, game, "frames")
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert labels == [f"{NASTY} (2 seeds)", "PPO (SB3) (baseline, 1 seed)", "random play", "counts as solved"]
    assert len(axes.collections) == 1 and [line.get_marker() for line in axes.lines].count("x") == 1
    assert axes.get_xlabel() == "frames of the game (= steps)" and "points" in axes.get_ylabel()


def test_final_scores_show_interval_and_seeds(found: Findings) -> None:
    """Two seeds have a bar, one seed has none, and every seed a tick."""
    with plots.style():
        axes = plots.Figure().subplots()
        plots._finals(axes, found, found.games[0])
    ticks = [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert ticks == [2, 1] and len([line for line in axes.lines if line.get_linewidth() == 6]) == 1


def test_pictures_stand_alone(found: Findings) -> None:
    """The PNG is a picture of some size, however nasty the names in it."""
    image = Image.open(io.BytesIO(plots.game_png(found, found.games[0], "A caption with $ and <." * 20)))
    assert image.format == "PNG" and image.width > 1000 and image.height > 700


def test_times_are_shown_in_a_unit_that_fits(tmp_path: Path) -> None:
    """Seconds, minutes or hours, by the longest run; without any time there is no such chart."""
    game = reported.found(reported.run(tmp_path, [1.0, 2.0])).games[0]
    units = []
    for longest in (100.0, 1_000.0, 90_000.0):
        game.lines[0].runs[0].seconds[-1] = longest
        units.append(plots.time_unit(game)[0])
    assert units == ["seconds", "minutes", "hours"]
    assert plots.has_seconds(game)
    assert not plots.has_seconds(reported.found(reported.run(tmp_path, [1.0], seconds=False)).games[0])


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (20_000, "20k"), (1.5e6, "1.5M"), (0.25, "0.25"), (2e9, "2G")])
def test_numbers_on_axes_are_short(value: float, text: str) -> None:
    """Thousands and millions have a letter."""
    assert plots.short(value) == text
