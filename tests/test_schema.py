"""Tests of agent/cli/schema.py: every setting can be described, and every description is true."""

from __future__ import annotations

import pytest

from agent.cli import schema
from agent.cli.errors import UsageError
from agent.config import Settings


def leaves() -> list[schema.Loc]:
    return [loc for loc in schema._leaves() if loc[0] != "sb3"]


def setting(loc: schema.Loc, value: object) -> dict[str, object]:
    for name in reversed(loc):
        value = {name: value}
    return value


@pytest.mark.parametrize("loc", leaves(), ids=".".join)
def test_every_setting_says_what_it_takes(loc: schema.Loc) -> None:
    """A value that no setting takes is refused with the place, what is allowed and the value."""
    with pytest.raises(UsageError) as caught:
        schema.validate(setting(loc, {"a": 1}), ".".join)
    message = str(caught.value)
    assert message == f"{'.'.join(loc)}must be {schema.allowed(schema.hint(loc))}, got {{'a': 1}}."
    assert "group" not in message


@pytest.mark.parametrize(
    ("loc", "words"),
    [
        (("steps",), "a whole number, at least 1"),
        (("learner", "discount"), "a number from 0 to 1"),
        (("learner", "learning_rate"), "a number greater than 0"),
        (("learner", "learning_rate_end"), "a number, at least 0 or none"),
        (("learner", "double"), "true or false"),
        (("learner", "loss"), "one of huber, mse"),
        (("network", "hidden"), "a list, not empty, each entry a whole number, at least 1"),
        (("evaluation", "stop_at_score"), "a number or none"),
        (("learner",), "a group of 'key: value' lines"),
    ],
)
def test_words(loc: schema.Loc, words: str) -> None:
    """The allowed values are said in plain words."""
    assert schema.allowed(schema.hint(loc)) == words


def test_a_long_value_is_cut() -> None:
    """A message never carries a file's worth of text."""
    with pytest.raises(UsageError) as caught:
        schema.validate({"steps": "x" * 10_000}, lambda loc: "")
    assert len(str(caught.value)) < 120


def test_the_leaves_are_the_settings() -> None:
    """Walking the model finds each setting once."""
    flat = []

    def walk(tree: dict, loc: tuple = ()) -> None:
        for key, value in tree.items():
            walk(value, (*loc, key)) if isinstance(value, dict) and key != "sb3" else flat.append((*loc, key))

    walk(Settings().model_dump())
    assert leaves() == [loc for loc in flat if loc != ("sb3",)]
