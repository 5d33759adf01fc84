"""The project's own Python files, parsed once, for the tests that hold rules about them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Module(NamedTuple):
    """A Python file of agent/ or envs/."""

    name: str  # dotted
    path: Path

    @property
    def file(self) -> str:
        """Its path from the root, with forward slashes."""
        return self.path.relative_to(ROOT).as_posix()


@cache
def modules() -> tuple[Module, ...]:
    """Every module of agent/ and envs/, packages under the package's own name."""
    found = []
    for path in sorted(path for room in ("agent", "envs") for path in (ROOT / room).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return tuple(found)


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Every module that this one imports, at any depth of the file and behind any condition, with its line."""
    names = {other.name for other in modules()}
    for node in ast.walk(tree(module.path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.file}:{node.lineno}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in names else str(node.module)), node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if dotted(node.func, {}) in ("importlib.import_module", "import_module", "__import__"):
                yield str(node.args[0].value), node.lineno


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """`np.random.seed` as `numpy.random.seed` when `np` is an alias for numpy; empty when it is no plain name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{left}.{node.attr}" if (left := dotted(node.value, aliases)) else ""
    return ""


def aliases_in(parsed: ast.Module) -> dict[str, str]:
    """What each imported name stands for, as {"np": "numpy", "load": "torch.load"}."""
    named = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            named |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            named |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return named
