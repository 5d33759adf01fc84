"""Model cards: Hugging Face's form, the same text every time, and no name that becomes anything but a name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from policies import artefact_of, card_of, integer_graph, integer_picture_graph, vector_graph
from pydantic import ValidationError

from agent.freeze.artefact import write
from agent.freeze.card import Card, Observation, code, quoted

FILES = {"policy.onnx": b"onnx", "policy.c": b"c", "policy.h": b"h"}
NASTY = [
    '"; system("x"); //',
    "---\nlibrary_name: other\n---",
    "a: b # c",
    "| x | `y` |\n|---|",
    "``` \n# Title\n<script>alert(1)</script>",
    "[link](javascript:alert(1)) ![](http://x/y.png)",
    "\u202egnp.exe \x00\x1b[31m \x85\u2028",
    "`" * 30,
    "\\",
    " ",
    "",
    "null",
    "1e3",
    "\U0001f9ca",
    "http://example.org www.example.org",
    "*a* _b_ ~c~ &lt;",
    "x" * 5000,
]


def written(folder: Path, **facts: Any) -> str:
    """The README of an artefact with these facts on its card."""
    write(folder, artefact_of(vector_graph(), FILES, **facts))
    return (folder / "README.md").read_text(encoding="utf-8")


def front_matter(text: str) -> dict[str, Any]:
    """Hugging Face's metadata at the head of a model card."""
    assert text.startswith("---\n")
    return yaml.safe_load(text[4:].partition("\n---\n")[0])


def test_hugging_face_reads_it(tmp_path: Path) -> None:
    """The header names library, tags and the score as mean +/- standard deviation, not verified by anybody else."""
    head = front_matter(written(tmp_path / "a"))
    assert head["library_name"] == "icebox"
    assert {"corridor", "deep-reinforcement-learning", "reinforcement-learning"} <= set(head["tags"])
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == "DQN"
    assert result["task"] == {"type": "reinforcement-learning", "name": "reinforcement-learning"}
    assert result["dataset"] == {"name": "corridor", "type": "corridor"}
    (metric,) = result["metrics"]
    assert metric == {"type": "mean_reward", "name": "mean_reward", "value": "12.35 +/- 1.50", "verified": False}


def test_people_read_it(tmp_path: Path) -> None:
    """It says what goes in, what comes out, how large it is, what the gate found and how to use it."""
    text = written(tmp_path / "a", action_names=["left", "right", "up", "fire, up"])
    for said in (
        "float32 [3]", "discrete: left, right, up, fire, up", "| choices, agree | 0.9991 |", "| scores, passed | yes |",
        "1,000 per decision", "from player import Player", "`policy.onnx`", "`policy.c`", "12.35 +/- 1.50",
        "| frozen from, name | corridor_s0 |", "| preprocessing | As the game gives it. |", "# `DQN` playing",
    ):  # fmt: skip
        assert said in text, said


def test_a_policy_without_score_and_c(tmp_path: Path) -> None:
    """What there is not is not spoken of."""
    write(tmp_path / "a", artefact_of(vector_graph(), {"policy.onnx": b""}, score=None, arena_bytes=None))
    text = (tmp_path / "a" / "README.md").read_text()
    assert "model-index" not in front_matter(text)
    assert "policy.c" not in text and "RAM" not in text


@pytest.mark.parametrize(
    ("limits", "dtype", "said"),
    [
        ((0, 4095), np.int16, "; the last layer has 16-bit weights and 12-bit inputs |"),
        ((-2047, 2047), np.int16, "; the last layer has 16-bit weights and 12-bit inputs |"),
        ((0, 255), np.int16, "; the last layer has 16-bit weights and 8-bit inputs |"),
        ((0, 255), np.int8, " |"),
    ],
)
def test_the_last_layer_of_an_8_bit_policy(limits: tuple[int, int], dtype: type, said: str, tmp_path: Path) -> None:
    """Whoever reads 8 bits also reads where there are more."""
    graph = integer_graph()
    entrance, body, head = graph.layers
    body = replace(body, low=limits[0], high=limits[1], bias=body.bias.astype(np.int64))
    graph = replace(graph, layers=(entrance, body, replace(head, weight=head.weight.astype(dtype))))
    write(tmp_path / "a", artefact_of(graph, FILES))
    assert f"8-bit weights, 8-bit activations{said}" in (tmp_path / "a" / "README.md").read_text()
    write(tmp_path / "b", artefact_of(integer_picture_graph(), FILES))
    assert "16-bit weights and 16-bit inputs" in (tmp_path / "b" / "README.md").read_text(), "repeated by IntFractions"


def test_a_refused_policy_says_so_first(tmp_path: Path) -> None:
    """The first line of a refused policy's card is the refusal and its reason; there is no header to publish it by."""
    text = written(tmp_path / "a", refused="it scores 3.0, the live policy 12.0")
    first = text.partition("\n")[0]
    assert "Refused" in first and "it scores 3.0, the live policy 12.0" in first
    assert not text.startswith("---") and "mean_reward" not in text


@given(st.text())
@example('"\\\n')
def test_quoted(text: str) -> None:
    """Any text without lone surrogates comes back from YAML as it was, and stands on one line of ASCII."""
    assert yaml.safe_load(f"- {quoted(text)}") == [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")]
    assert quoted(text).isascii() and "\n" not in quoted(text)


@given(st.text(alphabet=st.characters() | st.sampled_from("`\\|<> \n")))
def test_code(text: str) -> None:
    """Code spans: one line, a fence that does not occur inside, nothing that a terminal or a browser would obey."""
    shown = code(text)
    fence = re.match("`+", shown)[0]
    assert shown.isprintable() and shown.endswith(fence) and len(shown) >= 3
    inside = shown[len(fence) : -len(fence)]
    assert inside == " " or not {inside[0], inside[-1]} & {"`"}, "the fence stays apart from the text"
    assert not re.search(f"(?<!`){fence}(?!`)", inside)


@pytest.mark.parametrize("name", NASTY)
def test_no_name_becomes_structure(name: str, tmp_path: Path) -> None:
    """A hostile name, wherever it stands, changes no heading, no row, no tag and no other line of the card."""
    plain, nasty = "zzz", name
    cards = []
    for number, each in enumerate((plain, nasty)):
        facts = {
            "game": each, "algorithm": each, "source": {"name": each, "weights": each}, "action_names": [each] * 4,
            "gate": {"figure": each, each or "empty": 1}, "sizes": {each: 3},
            "observation": Observation(
                layout=each, low=None, high=None, stack=1, frame_skip=1, preprocessing=each
            ),
        }  # fmt: skip
        cards.append(written(tmp_path / str(number), **facts))
    before, after = (card.split("\n") for card in cards)
    assert len(before) == len(after)
    for was, now in zip(before, after, strict=True):
        assert now.isprintable()
        if "zzz" not in was:
            assert now == was
        elif was.startswith("|"):
            assert now.count("|") == was.count("|")
            cells = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", now).replace("float32 [3]", "")
            assert not re.search(r"[<\[\]!*~\\&]|https?:|www|\b_|_\b\.", cells), now
    head = front_matter(cards[1])
    assert head["tags"][0] == name and head["model-index"][0]["name"] == name
    assert set(head) == set(front_matter(cards[0]))


def test_wrong_facts_are_named() -> None:
    """A key that does not exist, one that is missing, a wrong type or a number that is not finite stops at once."""
    facts = card_of(vector_graph()).model_dump()
    assert Card(**facts) == card_of(vector_graph())
    for changed, named in (
        (facts | {"macro": 1}, "macro"),
        ({key: value for key, value in facts.items() if key != "macs"}, "macs"),
        (facts | {"macs": "10"}, "macs"),
        (facts | {"score": {"mean": float("inf"), "standard_deviation": 1.0, "episodes": 3}}, "mean"),
        (facts | {"gate": {"x": object()}}, "gate"),
        (facts | {"refused": True}, "refused"),
    ):
        with pytest.raises(ValidationError, match=named):
            Card(**changed)


def test_the_card_in_the_artefact_is_json_of_ascii(tmp_path: Path) -> None:
    """Names from outside are encoded data in policy.json: ASCII, and read back as they were."""
    name = '\U0001f9ca "; system("x"); //\n\u202e'
    written(tmp_path / "a", source={"name": name})
    raw = (tmp_path / "a" / "policy.json").read_bytes()
    assert raw.isascii() and json.loads(raw)["source"]["name"] == name
