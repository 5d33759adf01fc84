"""What a page may say: a closed vocabulary, checked word by word before anything acts on it."""

from __future__ import annotations

import json
import re
from typing import Any

LONGEST = 4096  # bytes of one message
OF_RUN = ("pause", "go on", "inference only", "train", "checkpoint", "stop", "freeze")
CONTROLS = (*OF_RUN, "restart", "same seed", "speed", "advise")
SALIENCY = ("none", "gradient", "perturbation")
SPEEDS = (0.25, 4.0)
ROOMS, KEYS = 16, 24  # at most, in one message
_WORD = re.compile(r"[A-Za-z0-9_-]{1,32}")


def parse(text: str) -> dict[str, Any] | None:
    """Return a message with nothing in it but what its type may carry; None when it is not one that a page sends."""
    if len(text) > LONGEST:
        return None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if set(message) == {"token"} and isinstance(message["token"], str):
        return {"type": "token", "token": message["token"]}
    kind = message.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None or not set(message) <= {"type", *fields}:
        return None
    if not all(check(message.get(name)) for name, check in fields.items()):
        return None
    return {"type": kind} | {name: message.get(name) for name in fields}


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 2**53)  # NaN and infinities are not below


def _are_words(most: int) -> Any:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(_is_word, value))


def _is_room_or_none(value: Any) -> bool:
    return value is None or _is_word(value)


_FIELDS: dict[str, dict[str, Any]] = {
    "got": {"room": _is_word, "n": _is_count},
    "look": {"rooms": _are_words(ROOMS)},
    "keys": {"room": _is_word, "held": _are_words(KEYS)},
    "saliency": {"room": _is_word, "how": lambda value: isinstance(value, str) and value in SALIENCY},
    "do": {
        "id": _is_count,
        "what": lambda value: isinstance(value, str) and value in CONTROLS,
        "room": _is_room_or_none,
        "value": _is_number,
    },
}
