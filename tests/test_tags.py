"""Tests of agent/telemetry/tags.py."""

import re

from agent.telemetry.tags import INTERVAL, TAGS, layout, table


def test_every_tag_has_a_place_a_unit_and_a_sentence() -> None:
    """Nothing in the table is left blank, meanings are sentences, and the tags of one chart share a unit."""
    units: dict[tuple[str, str], set[str]] = {}
    for tag in TAGS.values():
        assert all(tag) and tag.meaning.endswith(".")
        units.setdefault((tag.section, tag.chart), set()).add(tag.unit)
    assert all(len(unit) == 1 for unit in units.values())


def test_a_pattern_of_the_layout_matches_its_tag_alone() -> None:
    """Patterns match from the start of a tag, yet `train/ent_coef` must not draw `train/ent_coef_loss` too."""
    for name in TAGS:
        (chart,) = next(iter(layout([name]).values())).values()
        assert [tag for tag in TAGS if re.match(chart[1][0], tag)] == [name]


def test_layout_has_the_sections_in_order_and_only_what_was_written() -> None:
    """All sections come in their order; a chart none of whose tags was written is left out."""
    assert list(layout(TAGS)) == [
        "Performance",
        "Value health",
        "Learning signal",
        "Replay",
        "Acting",
        "Speed and machine",
    ]
    assert layout(["train/loss", "q/max"]) == {
        "Value health": {"Q-values": ["Multiline", ["q/max$"]], "Loss": ["Multiline", ["train/loss$"]]}
    }
    assert layout([]) == {}


def test_the_interval_is_a_band_of_value_low_and_high() -> None:
    """The mean is drawn inside its interval once all three were written."""
    assert layout(TAGS)["Performance"][INTERVAL] == ["Margin", ["eval/mean_reward", "eval/ci_low", "eval/ci_high"]]
    assert layout(["eval/mean_reward"])["Performance"][INTERVAL] == ["Multiline", ["eval/mean_reward$"]]


def test_table_lists_every_tag() -> None:
    """The documentation has one row per tag."""
    assert all(f"| `{name}` |" in table() for name in TAGS) and len(table().splitlines()) == len(TAGS) + 2
