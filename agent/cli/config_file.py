"""Reads one YAML file of settings: plain data only, with the place of every key and the faults of all of them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from agent.cli.errors import UsageError
from agent.cli.schema import Loc, is_section, keys, nearest, none_if_said

MAX_BYTES = 1_000_000
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")}


class ConfigFile:
    """One YAML file of settings: its tree, the place of every key, and what is wrong with keys (not yet with values).

    Only plain data is read: tags that build objects, aliases, and files over MAX_BYTES are refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = shown(path)
        self.tree: dict[str, Any] = {}
        self.where: dict[Loc, str] = {}
        self.faults: list[str] = []
        if not path.is_file():
            near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.yaml")], n=1)
            hint = f" Did you mean {shown(path.with_name(near[0]))}?" if near else ""
            raise UsageError(f"config file {self.path} does not exist.{hint}")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{self.path}: larger than {MAX_BYTES:,} bytes; this is not a file of settings.")
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
            loader.compose_node = self._without_aliases(loader, loader.compose_node)
            root = loader.get_single_node()
            if root is not None and root.tag != f"{_TAG}null":
                self._refuse_objects(root)
                self.tree = self._mapping(loader, root, ())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UsageError(f"{self.path}:{line}: {error.problem or error.context}.") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "reason", str(error))
            raise UsageError(f"{self.path}: not a YAML file ({reason}).") from None

    @staticmethod
    def _without_aliases(loader: yaml.SafeLoader, compose: Any) -> Any:
        def compose_node(parent: Any, index: Any) -> yaml.Node:
            if loader.check_event(yaml.AliasEvent):
                mark = loader.peek_event().start_mark
                raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed here", problem_mark=mark)
            return compose(parent, index)

        return compose_node

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.Node, loc: Loc) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{self._line(node)}: settings are lines of 'key: value', not {_kind(node)}.")
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else _kind(key_node)
            here = (*loc, key)
            name = ".".join(here)
            at = self._line(key_node)
            if key in tree:
                self.faults.append(f"{at}: {name}: set twice; the first is at {self.where[here]}.")
                continue
            known = keys(loc)
            if known is not None and key not in known:
                self.faults.append(f"{at}: {name}: unknown setting. {nearest(here, known)}")
                continue
            self.where[here] = at
            if is_section(here) and value_node.tag == f"{_TAG}null":
                tree[key] = {}  # a group whose every line is commented out
            elif isinstance(value_node, yaml.MappingNode):
                tree[key] = self._mapping(loader, value_node, here)
            else:
                tree[key] = none_if_said(here, self._value(loader, value_node))
        return tree

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        try:
            return loader.construct_object(node, deep=True)
        except (ValueError, KeyError) as error:  # a date with month 13, `!!bool maybe`, an int of 5,000 digits
            raise UsageError(f"{self._line(node)}: cannot be read as {node.tag.removeprefix(_TAG)}: {error}.") from None

    def _refuse_objects(self, node: yaml.Node) -> None:
        if node.tag not in _PLAIN:
            raise UsageError(f"{self._line(node)}: the tag {node.tag} is not allowed; settings are plain values.")
        for child in node.value if isinstance(node, yaml.CollectionNode) else ():
            for part in child if isinstance(child, tuple) else (child,):
                self._refuse_objects(part)

    def _line(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"


def _kind(node: yaml.Node) -> str:
    return {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}.get(type(node), f"'{node.value}'")


def shown(path: Path) -> str:
    """A path as a person would write it from here."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
