"""Tests of agent/viewer/messages.py: pages speak a closed vocabulary."""

from __future__ import annotations

import json

import pytest

from agent.viewer.messages import CONTROLS, LONGEST, parse

RIGHT = [
    {"type": "got", "room": "live", "n": 3},
    {"type": "look", "rooms": []},
    {"type": "look", "rooms": ["live", "you"]},
    {"type": "keys", "room": "you", "held": ["ArrowLeft", "Space"]},
    {"type": "saliency", "room": "latest", "how": "gradient"},
    {"type": "do", "id": 1, "what": "speed", "room": "latest", "value": 0.25},
    {"type": "do", "id": 1, "what": "pause", "room": None, "value": None},
]
WRONG = [
    "",
    "null",
    "[]",
    "{}",
    "[" * 4000,
    '{"token": 5}',
    '{"token": "t", "more": 1}',
    '{"type": "exec", "code": "1"}',
    '{"type": ["got"]}',
    '{"type": "got", "room": "../live", "n": 1}',
    '{"type": "got", "room": "live", "n": -1}',
    '{"type": "got", "room": "live", "n": 1.5}',
    '{"type": "got", "room": "live", "n": true}',
    '{"type": "got", "room": "live", "n": 1, "path": "/etc/passwd"}',
    '{"type": "got", "room": "live"}',
    '{"type": "look", "rooms": "live"}',
    '{"type": "look", "rooms": ["<script>"]}',
    json.dumps({"type": "look", "rooms": ["live"] * 100}),
    '{"type": "keys", "room": "you", "held": [1]}',
    '{"type": "saliency", "room": "you", "how": "x-ray"}',
    '{"type": "do", "id": 1, "what": "rm -rf /", "room": null, "value": null}',
    '{"type": "do", "id": 1, "what": "speed", "room": null, "value": NaN}',
    '{"type": "do", "id": 1, "what": "speed", "room": null, "value": Infinity}',
    '{"type": "do", "id": 1, "what": "speed", "room": null, "value": "fast"}',
    '{"type": "do", "id": 1, "what": "speed", "room": null, "value": true}',
    json.dumps({"token": "t" * LONGEST}),
]


@pytest.mark.parametrize("message", RIGHT, ids=str)
def test_what_a_page_says_is_understood(message: dict) -> None:
    """A message of the vocabulary comes out as it is."""
    assert parse(json.dumps(message)) == message


def test_what_a_page_leaves_out_is_none() -> None:
    """Room and value of a command may be left out; a token stands alone."""
    said = parse('{"type": "do", "id": 4, "what": "stop"}')
    assert said == {"type": "do", "id": 4, "what": "stop", "room": None, "value": None}
    assert parse('{"token": "abc"}') == {"type": "token", "token": "abc"}


def test_every_command_of_the_contract_is_known() -> None:
    """The page's buttons, and nothing else."""
    assert len(CONTROLS) == 11
    assert all(parse(json.dumps({"type": "do", "id": 0, "what": what})) for what in CONTROLS)


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:60])
def test_what_no_page_says_is_nothing(text: str) -> None:
    """Anything else, however near, is None."""
    assert parse(text) is None
