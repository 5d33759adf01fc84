"""What an artefact says about itself: the facts in policy.json, and the model card that people read.

The model card has Hugging Face's form. Whatever comes from outside (names of runs and games) enters it quoted: no name
becomes YAML, Markdown or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

_LONGEST = 200  # characters of a name that the model card repeats
# Means nothing to Markdown and is no link: full stops and colons only where words end, no underscore at an end.
_PLAIN = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9 ,%()+/-]|[.:](?=[ 0-9]|$)|(?<=[a-z0-9])_(?=[a-z0-9]))*")


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Observation(_Facts):
    """How a game's observation reaches the policy; its shape and type are in the graph."""

    layout: str  # "features", "channels, height, width", "height, width, channels", "frames, height, width"
    low: float | list[float | None] | None  # one for all entries, or one each; None: no limit
    high: float | list[float | None] | None
    stack: int  # frames in one observation, oldest first; 1 when a frame is an observation
    frame_skip: int  # frames of the game for which one action is held
    preprocessing: str  # one sentence


class Precision(_Facts):
    """What the policy computes with."""

    name: str  # "float32", "int8", "int16"
    weight_bits: int
    activation_bits: int
    wide: list[int]  # indices of the layers with 16 bits in an 8-bit policy


class Score(_Facts):
    """Raw score of whole episodes of the frozen policy."""

    mean: float
    standard_deviation: float
    episodes: int


class Card(_Facts):
    """The facts of policy.json that the graphs do not tell. No clock: the same policy has the same card."""

    game: str
    algorithm: str
    source: dict[str, JsonValue]  # where the live policy comes from: run or zip, its weights, its games
    observation: Observation
    action_names: list[str]  # of the actions, or of the axes of a continuous one
    precision: Precision
    macs: int  # multiply-accumulates of one decision
    sizes: dict[str, int]  # bytes: weights, files
    arena_bytes: int | None  # RAM that the C works in; None: there is no C
    score: Score | None
    gate: dict[str, JsonValue]  # the gate's figures, as it gives them
    passes: list[dict[str, JsonValue]]  # what freezing did, in order, with the effect of each
    refused: str | None  # why the gate did not let the policy pass, one sentence without its full stop
    versions: dict[str, str | None]


def model_card(card: dict[str, Any], emitted: Iterable[str]) -> str:
    """Return README.md for the contents of policy.json and the names of the emitted files beside it.

    A refused policy's says so in its first line, and has none of the header by which it could be published.
    """
    head = _refusal(card) if card["refused"] is not None else _front_matter(card)
    return "\n".join([*head, "", *_body(card, emitted), ""])


def _refusal(card: dict[str, Any]) -> list[str]:
    return [f"**Refused: this policy did not pass its gate and should not be used.** {code(card['refused']['reason'])}"]


def _front_matter(card: dict[str, Any]) -> list[str]:
    """Hugging Face's metadata."""
    tags = [card["game"], "deep-reinforcement-learning", "reinforcement-learning", "icebox", card["algorithm"]]
    lines = ["---", "library_name: icebox", "tags:", *(f"- {quoted(tag)}" for tag in tags)]
    if card["score"] is not None:
        score = card["score"]
        lines += [
            "model-index:",
            f"- name: {quoted(card['algorithm'])}",
            "  results:",
            "  - task:",
            "      type: reinforcement-learning",
            "      name: reinforcement-learning",
            "    dataset:",
            f"      name: {quoted(card['game'])}",
            f"      type: {quoted(card['game'])}",
            "    metrics:",
            "    - type: mean_reward",
            f"      value: {quoted(_plus_minus(score))}",
            "      name: mean_reward",
            "      verified: false",
        ]
    return [*lines, "---"]


def _plus_minus(score: dict[str, Any]) -> str:
    return f"{score['mean']:.2f} +/- {score['standard_deviation']:.2f}"


def _body(card: dict[str, Any], emitted: Iterable[str]) -> Iterator[str]:
    seen, chosen, precision = card["observation"], card["actions"], card["precision"]
    yield f"# {code(card['algorithm'])} playing {code(card['game'])}, frozen"
    yield ""
    yield (
        "This policy only acts: it cannot learn, and needs no torch. Icebox froze it, and compared it with the policy "
        "that it comes from before writing this page."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    if card["score"] is not None:
        episodes = card["score"]["episodes"]
        yield f"| score | {_plus_minus(card['score'])} (mean and standard deviation of {episodes} episodes) |"
    for name, value in _leaves({key: card["source"].get(key) for key in ("name", "weights")}, "frozen from"):
        yield f"| {_cell(name)} | {_cell(value)} |"
    yield f"| observation | {seen['dtype']} {seen['shape']}, {_cell(seen['layout'])} |"
    yield f"| preprocessing | {_cell(seen['preprocessing'])} |"
    yield f"| frames | {seen['stack']} to an observation; an action is held for {seen['frame_skip']} |"
    yield f"| actions | {chosen['kind']}: {', '.join(map(_cell, chosen['names']))} |"
    if chosen["kind"] == "continuous":
        yield f"| range | {chosen['low']} to {chosen['high']} |"
    bits = f"{precision['weight_bits']}-bit weights, {precision['activation_bits']}-bit activations"
    wide = f"; 16 bits in layers {precision['wide']}" if precision["wide"] else ""
    yield f"| precision | {_cell(precision['name'])}: {bits}{wide}{_last_layer(card)} |"
    yield f"| multiply-accumulates | {card['macs']:,} per decision |"
    if card["arena_bytes"] is not None:
        yield f"| RAM of the C | {card['arena_bytes']:,} bytes |"
    for name, size in sorted(card["sizes"].items()):
        yield f"| bytes, {_cell(name)} | {size:,} |"
    yield ""
    yield "## Does it still play?"
    yield ""
    yield "| the gate | |"
    yield "|---|---|"
    yield from (f"| {_cell(name)} | {_cell(value)} |" for name, value in _leaves(card["gate"], ""))
    yield ""
    yield "`icebox verify` on this folder repeats it. What each pass of freezing did is in `policy.json`."
    yield ""
    yield "## Use it"
    yield ""
    yield "```python"
    yield "from player import Player  # agent/freeze/player.py of Icebox, one file; needs numpy and one runtime"
    yield ""
    yield "player = Player('.')"
    yield f"action = player.act(observations)[0]  # observations: {seen['dtype']} [N, {str(seen['shape'])[1:-1]}]"
    yield "```"
    yield ""
    if "policy.onnx" in emitted:
        yield "`policy.onnx`: input `observation`, outputs `output` and `action`; observations are scaled inside."
    if "policy.c" in emitted:
        yield "`policy.c`, `policy.h`: C99 without heap; `policy_step` keeps the frames, `policy_action` chooses."
    yield "`golden.npz` holds states with the answers that every runtime must give; `MANIFEST.json` the SHA-256 of all."


def _last_layer(card: dict[str, Any]) -> str:
    """Return of how many bits the last layer of an 8-bit policy is, as its integer layers say; empty when of 8."""
    graph = card["graphs"]["integer"]
    if graph is None or card["precision"]["weight_bits"] != 8:
        return ""
    *before, last = _unfolded(graph["layers"])
    if last.get("weight", {}).get("dtype") != "int16":
        return ""
    giving = [layer for layer in before if layer["kind"] not in ("IntFlatten", "MaxPool")]
    bits = 8  # of a picture
    if giving:
        low, high = giving[-1].get("low"), giving[-1].get("high")
        bits = high.bit_length() + (low < 0) if isinstance(high, int) else 16  # of a table, and of float observations
    return f"; the last layer has 16-bit weights and {bits}-bit inputs"


def _unfolded(layers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the layers, and behind the layer that repeats others these."""
    for layer in layers:
        yield layer
        if layer["kind"] == "IntFractions":
            yield from _unfolded(layer["layers"])


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the figures of a JSON object with the path to each as its name; lists are left to policy.json."""
    if isinstance(value, dict):
        for key, inside in value.items():
            spoken = key.replace("_", " ")
            yield from _leaves(inside, f"{name}, {spoken}" if name else spoken)
    elif value is None or isinstance(value, bool):
        yield name, {True: "yes", False: "no", None: "not known"}[value]
    elif not isinstance(value, list):
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def quoted(text: str) -> str:
    """Return text as a YAML scalar in double quotes that any reader gives back as it was."""
    return '"' + "".join(_escape(letter) for letter in text) + '"'


def _escape(letter: str) -> str:
    if " " <= letter <= "~":
        return "\\" + letter if letter in '"\\' else letter
    number = ord(letter)
    return f"\\U{0xFFFD if 0xD800 <= number < 0xE000 else number:08x}"


def code(text: str) -> str:
    """Return text as Markdown shows it letter by letter, on one line; what has no glyph is shown as its number."""
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text[:_LONGEST])
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    if not shown.strip():
        return "` `"
    space = " " if {shown[0], shown[-1]} & {"`", " "} else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _cell(text: str) -> str:
    """Return text for a cell of a table: as it is when Markdown sees nothing in it, otherwise as code without bars."""
    return text if len(text) <= _LONGEST and _PLAIN.fullmatch(text) else code(text).replace("|", "\\u007c")
