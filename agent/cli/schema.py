"""What may stand where in the settings, read off `agent/config.py`, and the sentences that say so."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent.cli.errors import UsageError
from agent.config import Section, Settings

Loc = tuple[Any, ...]  # ("learner", "batch_size"), as pydantic names places


def validate(tree: Mapping[str, Any], place: Callable[[Loc], str]) -> Settings:
    """Build Settings; raise UsageError with one line per fault, each led by `place(loc)`."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    lines: dict[Loc, str] = {}  # one for each setting: of a list, the first wrong entry
    for fault in faults:
        names = tuple(part for part in fault["loc"] if isinstance(part, str))
        if fault["type"] == "value_error":
            lines[names] = f"{place(fault['loc'])}{fault['ctx']['error']}."
        else:
            lines.setdefault(names, f"{place(names)}must be {allowed(hint(names))}, got {_brief(fault['input'])}.")
    raise UsageError("\n".join(lines.values()))


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) and value.strip() and value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def hints(kind: type[Section]) -> dict[str, Any]:
    """The annotations of a group of settings by name, constraints included."""
    return get_type_hints(kind, include_extras=True)


def hint(loc: Loc) -> Any:
    """The annotation of a setting, constraints included; None where the model ends (inside `sb3`)."""
    found: Any = Settings
    for name in loc:
        if not (isinstance(found, type) and issubclass(found, Section)):
            return None
        found = hints(found).get(name)
    return found


def is_section(loc: Loc) -> bool:
    """Whether a group of settings stands at `loc`."""
    found = hint(loc)
    return isinstance(found, type) and issubclass(found, Section)


def keys(loc: Loc) -> tuple[str, ...] | None:
    """The keys that a mapping at `loc` may have; None: any."""
    if loc == ("sb3",):
        return tuple(algo for algo in get_args(hint(("algo",))) if algo != "icebox")
    return tuple(hints(hint(loc))) if is_section(loc) else None


def none_if_said(loc: Loc, value: Any) -> Any:
    """None for the words none and null where a setting may be none, else the value: YAML knows only null."""
    optional = type(None) in get_args(hint(loc))
    return None if optional and isinstance(value, str) and value.lower() in ("none", "null") else value


def _leaves(loc: Loc = ()) -> Iterator[Loc]:
    for key in keys(loc) or ():
        yield from _leaves((*loc, key)) if is_section((*loc, key)) else [(*loc, key)]


def nearest(loc: Loc, known: tuple[str, ...]) -> str:
    """A sentence that helps with an unknown key: the nearest right name, else the names that are known there."""
    key, parent = str(loc[-1]), ".".join(loc[:-1])
    near = [f"{parent}.{name}".lstrip(".") for name in difflib.get_close_matches(key, known, n=1)]
    near = near or [".".join(leaf) for leaf in _leaves() if leaf[-1] == key.replace("-", "_").split(".")[-1]]
    near = near or difflib.get_close_matches(".".join(loc), [".".join(leaf) for leaf in _leaves()], n=1, cutoff=0.8)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known{' in ' + parent if parent else ''}: {', '.join(known)}."


def allowed(annotation: Any) -> str:
    """What an annotation allows, in words: 'a whole number, at least 1'."""
    kind, limits = strip(annotation)
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(allowed(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        filled = "a list, not empty" if any(isinstance(limit, MinLen) for limit in limits) else "a list"
        return f"{filled}, each entry {allowed(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
    text = words.get(kind, "a group of 'key: value' lines")
    low = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    above = next((limit.gt for limit in limits if isinstance(limit, Gt)), None)
    below = next((limit.lt for limit in limits if isinstance(limit, Lt)), None)
    if low is not None and high is not None:
        return f"{text} from {low:g} to {high:g}"
    bounds = {"at least": low, "greater than": above, "at most": high, "less than": below}
    said = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    return text + ("" if not said else f", {said}" if low is not None else f" {said}")


def strip(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without its Annotated, and the limits that stood there."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *extras = get_args(annotation)
    return kind, [limit for extra in extras if isinstance(extra, FieldInfo) for limit in extra.metadata]
