"""Tests of agent/cli/config_file.py: plain YAML in, and no harm from any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.cli.config_file import MAX_BYTES, ConfigFile
from agent.cli.errors import UsageError
from agent.cli.schema import hint, is_section, none_if_said
from agent.config import ActorSettings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> ConfigFile:
    path = Path("a.yaml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return ConfigFile(path)


def test_plain_values_and_their_lines() -> None:
    """Keys, values and comments are read as YAML has them, and every key knows its line."""
    file = read("# a comment\nsteps: 10\nlearner:\n  double: false\n  learning_rate: 1e-4\nnetwork: {hidden: [1, 2]}\n")
    assert file.tree == {
        "steps": 10,
        "learner": {"double": False, "learning_rate": "1e-4"},
        "network": {"hidden": [1, 2]},
    }
    assert file.where[("learner", "learning_rate")] == "a.yaml:5"
    assert file.where[("network", "hidden")] == "a.yaml:6"
    assert file.faults == []


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_says_nothing(text: str) -> None:
    """An empty file is a file without differences."""
    assert read(text).tree == {}


def test_an_empty_group_says_nothing() -> None:
    """A group whose lines are all commented out keeps its defaults."""
    assert read("learner:\n  # batch_size: 3\n").tree == {"learner": {}}


@pytest.mark.parametrize("word", ["none", "None", "null", "~", ""])
def test_none_can_be_said_in_words(word: str) -> None:
    """Where a setting may be none, the word none means it."""
    assert read(f"replay: {{reward_clip: {word}}}\n").tree == {"replay": {"reward_clip": None}}
    assert none_if_said(("device",), "none") == "none"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("steps: 1\nsteps: 2\n", "a.yaml:2: steps: set twice; the first is at a.yaml:1."),
        (
            "learner:\n  batch-size: 2\n",
            "a.yaml:2: learner.batch-size: unknown setting. Did you mean learner.batch_size?",
        ),
        ("batch_size: 2\n", "a.yaml:1: batch_size: unknown setting. Did you mean learner.batch_size?"),
        (
            "actor:\n  qqq: 2\n",
            "a.yaml:2: actor.qqq: unknown setting. "
                f"Known in actor: {', '.join(ActorSettings.model_fields)}.",
        ),
        ("<<: {steps: 1}\n", "a.yaml:1: <<: unknown setting. "),
        ("[1, 2]: 3\n", "a.yaml:1: a list: unknown setting. "),
        ("1: 3\n", "a.yaml:1: 1: unknown setting. "),
    ],
)
def test_faults_of_keys(text: str, fault: str) -> None:
    """A key that is unknown or set twice is a fault with its line, the nearest right name or the known ones."""
    (found,) = read(text).faults
    assert found == fault or (fault.endswith("setting. ") and found.startswith(fault))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "a.yaml:1: settings are lines of 'key: value', not a list."),
        ("hello\n", "a.yaml:1: settings are lines of 'key: value', not 'hello'."),
        ("steps: 1\n  seed: 2\n", "a.yaml:2: mapping values are not allowed here."),
        ("steps: [1\n", "a.yaml:2: expected ',' or ']', but got '<stream end>'."),
        ("steps: 1\n---\nseed: 2\n", "a.yaml:2: but found another document."),
        ("a: &x 1\nsteps: *x\n", "a.yaml:2: aliases (*name) are not allowed here."),
        ("steps: 2024-13-01\n", "a.yaml:1: cannot be read as timestamp: month must be in 1..12."),
        ("steps: !!bool maybe\n", "a.yaml:1: cannot be read as bool: 'maybe'."),
        (
            "steps: !!python/object/apply:os.system ['echo broken > broken']\n",
            "a.yaml:1: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed; "
            "settings are plain values.",
        ),
        (
            "sb3:\n  ppo:\n    a: [!!python/name:os.system '']\n",
            "a.yaml:3: the tag tag:yaml.org,2002:python/name:os.system is not allowed; settings are plain values.",
        ),
        ("!mine\nsteps: 1\n", "a.yaml:1: the tag !mine is not allowed; settings are plain values."),
        ("steps: \0\n", "a.yaml: not a YAML file (special characters are not allowed)."),
        (b"\xff\xfe\x00", "a.yaml: not a YAML file (invalid start byte)."),
        ("[" * 50_000, "a.yaml: not a YAML file (nested too deeply)."),
        ("#" * (MAX_BYTES + 1), "a.yaml: larger than 1,000,000 bytes; this is not a file of settings."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_that_are_refused(here: Path, text: str | bytes, message: str) -> None:
    """What is not plain settings is refused with one sentence, and nothing in it is run."""
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value) == message
    assert not (here / "broken").exists()


def test_an_alias_bomb_is_refused_at_once() -> None:
    """Nested aliases, which would grow to gigabytes, are refused before they are followed."""
    bomb = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(UsageError, match=r"a\.yaml:2: aliases"):
        read(bomb)


@given(st.one_of(st.text(), st.binary(), st.text("{}[]:-!&*<>|\n ab\"'#")))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_raises_anything_else(text: str | bytes) -> None:
    """Any content is either read or refused as a usage error."""
    try:
        read(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    except UsageError:
        pass


def test_places_of_the_model() -> None:
    """The model is walked by names; where it ends there is nothing."""
    assert is_section(("game", "atari")) and not is_section(("game", "num_games"))
    assert hint(("sb3", "ppo")) is None
