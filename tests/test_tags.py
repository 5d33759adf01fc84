"""Tests of agent/telemetry/tags.py."""

import re
from pathlib import Path

from agent.telemetry.tags import ACTION_SHARES, IMAGES, INTERVAL, TAGS, action_tags, in_table, layout, table


def test_every_tag_has_a_place_a_unit_and_a_sentence() -> None:
    """Nothing in the table is left blank, meanings are sentences, and the tags of one chart share a unit."""
    units: dict[tuple[str, str], set[str]] = {}
    for tag in TAGS.values():
        assert all(tag) and tag.meaning.endswith(".")
        units.setdefault((tag.section, tag.chart), set()).add(tag.unit)
    assert all(len(unit) == 1 for unit in units.values())


def test_a_pattern_of_the_layout_matches_its_tag_alone() -> None:
    """Patterns match from the start of a tag, yet `train/ent_coef` must not draw `train/ent_coef_loss` too."""
    actions = action_tags(["NOOP", "UP"])
    patterns = {
        pattern
        for section in layout(TAGS).values()
        for title, (kind, names) in section.items()
        for pattern in (names if kind == "Multiline" else [])
    }
    written = [name for name in TAGS if name != ACTION_SHARES and TAGS[name].chart != INTERVAL]
    for pattern in patterns:
        matched = [tag for tag in written + actions if re.match(pattern, tag)]
        assert matched == (actions if pattern.startswith(ACTION_SHARES) else [pattern.removesuffix("$")])
    assert len(patterns) == len(written) + 1


def test_layout_has_the_seven_sections_in_order_and_only_charts_that_were_written() -> None:
    """All sections come in their order; a chart none of whose tags was written is left out, the others are whole."""
    assert list(layout(TAGS)) == [
        "Performance",
        "Value health",
        "Learning signal",
        "Replay",
        "Acting",
        "Speed and machine",
        "Frozen policy",
    ]
    assert layout(["train/loss", "q/max"]) == {
        "Value health": {
            "Q-values (discounted reward)": ["Multiline", ["q/mean$", "q/max$"]],
            "Loss": ["Multiline", ["train/loss$"]],
        }
    }
    assert layout([]) == {}


def test_layouts_of_different_runs_are_one() -> None:
    """Charts that two runs share are equal, whatever else was written: TensorBoard then shows each of them once."""
    ours, theirs = layout(["train/loss", "q/mean", "time/fps"]), layout(["train/policy_loss", "time/steps_per_s"])
    for section in ours.keys() & theirs.keys():
        for title in ours[section].keys() & theirs[section].keys():
            assert ours[section][title] == theirs[section][title]
    assert ours["Speed and machine"] == theirs["Speed and machine"]


def test_the_interval_is_a_band_of_value_low_and_high() -> None:
    """The mean is drawn inside its interval."""
    band = ["Margin", ["eval/mean_reward", "eval/ci_low", "eval/ci_high"]]
    assert layout(["eval/mean_reward"])["Performance"][INTERVAL] == band


def test_actions_have_tags_that_tell_them_apart() -> None:
    """An action's tag holds its number and its name as far as a tag can; what does not belong there is no tag."""
    names = ["do nothing", "fire left engine", "2", "<b>&", "<i>&"]
    assert action_tags(names) == [
        "rollout/action_share/0-do-nothing",
        "rollout/action_share/1-fire-left-engine",
        "rollout/action_share/2",
        "rollout/action_share/3-b",
        "rollout/action_share/4-i",
    ]
    assert {in_table(tag) for tag in action_tags(names)} == {ACTION_SHARES}
    assert in_table("q/max") == "q/max" and in_table("q/max/2") is None and in_table("q") is None


def test_table_lists_every_tag_and_picture() -> None:
    """The documentation has one row per tag."""
    assert all(f"| `{name}` |" in table() for name in [*TAGS, *IMAGES])
    assert len(table().splitlines()) == len(TAGS) + len(IMAGES) + 2


def test_the_dashboards_page_explains_every_chart() -> None:
    """docs/dashboard.md has each section, each chart with its unit, each tag and each picture, in the table's order."""
    page = (Path(__file__).parent.parent / "docs" / "dashboard.md").read_text(encoding="utf-8")
    places = [page.find(f"\n## {section}\n") for section in layout(TAGS)]
    assert -1 not in places and places == sorted(places)
    titles = [title for section in layout(TAGS).values() for title in section]
    missing = [f"### {title}" for title in titles if f"\n### {title}\n" not in page]
    missing += [name for name in [*TAGS, *IMAGES] if f"`{name}`" not in page]
    assert not missing
