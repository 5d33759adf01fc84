"""A frozen policy as a folder: what plays, what proves it, and what it is; the same policy gives the same bytes.

    policy.json          facts: observation, actions, precision, the gate's figures, the graphs' layers
    policy.safetensors   the graphs' arrays
    policy.onnx, policy.c, policy.h   as emitted, those that were asked for
    golden.npz           states with the outputs and actions that every runtime must give
    README.md            model card
    MANIFEST.json        written last: size and SHA-256 of each of these
    measured.json        outside the manifest, for a clock is in it: latency, energy, machine, date

Read with `agent.freeze.player.read_files`, where the format's names stand; the player has to stand alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from agent.durable import make_directory, sync_directory, write_atomic, write_new
from agent.freeze.card import Card, model_card
from agent.freeze.codec import decode, encode
from agent.freeze.graph import Continuous, Graph
from agent.freeze.integer import IntegerGraph
from agent.freeze.player import (
    EMITTED,
    FORMAT,
    JSON_BYTES,
    MANIFEST,
    MANIFEST_BYTES,
    MEASURED,
    REQUIRED,
    VERSION,
    Golden,
    canonical,
    parse_json,
    read_card,
    read_file,
    read_files,
    read_golden,
)

_OURS = {*REQUIRED, *EMITTED, MANIFEST, MEASURED}  # all that a folder may hold for `write` to replace it
_GRAPHS = ("float", "integer", "live")  # as policy.json calls them


@dataclass(frozen=True, eq=False)
class Artefact:
    """All that is written of a frozen policy."""

    card: Card
    graph: Graph  # what plays, unless `integer` does
    golden: Golden  # of what plays: i32 outputs when that is integer
    emitted: Mapping[str, bytes]  # policy.onnx, or policy.c and policy.h, or all three
    integer: IntegerGraph | None = None  # `graph` quantized
    live: Graph | None = None  # the policy as it was before anything was pruned

    @property
    def graphs(self) -> dict[str, Graph | IntegerGraph | None]:
        """All three by the names that policy.json gives them."""
        return dict(zip(_GRAPHS, (self.graph, self.integer, self.live), strict=True))


def write(folder: Path | str, artefact: Artefact) -> None:
    """Write an artefact, whole or not at all, durable on return; an artefact that is there is replaced.

    ValueError when the artefact does not fit together, or when `folder` is anything else than an artefact. OSError when
    the system refuses. A power cut in the moment of replacing may leave the old one as `.<name>.icebox-old`, which the
    next write puts back first; on a file system that keeps no order, the new one as `.<name>.icebox-new`.
    """
    folder = Path(os.path.abspath(folder))
    contents = _contents(artefact)
    require_replaceable(folder)
    new, old = (folder.with_name(f".{folder.name}.icebox-{which}") for which in ("new", "old"))
    if os.path.lexists(old) and not os.path.lexists(folder):
        os.rename(old, folder)  # a power cut came between the two renamings below
    for leftover in (new, old):
        _remove(leftover)
    make_directory(folder.parent)
    try:
        os.mkdir(new)
        for name, data in contents.items():
            write_new(new / name, [data])
        sync_directory(new)
        write_new(new / MANIFEST, [manifest_of(contents)])
        sync_directory(new)
        replacing = os.path.lexists(folder)
        if replacing:
            sync_directory(folder.parent)  # of the three names at least one is durable at any time
            os.rename(folder, old)
        try:
            sync_directory(folder.parent)
            os.rename(new, folder)
        except BaseException:
            if replacing:
                os.rename(old, folder)
            raise
        sync_directory(folder.parent)
    except BaseException:
        with suppress(OSError):
            _remove(new)
        raise
    with suppress(OSError):  # the new one is safe; what stays is removed by the next write
        _remove(old)


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """Return the manifest of these files."""
    records = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return canonical({"format": FORMAT, "version": VERSION, "files": records})


def read(folder: Path | str) -> Artefact:
    """Return an artefact after comparing every file with the manifest; ValueError naming what is wrong with which."""
    files = read_files(folder)
    facts = read_card(files["policy.json"])
    golden = read_golden(files["golden.npz"], facts)
    try:
        arrays = load(files["policy.safetensors"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"policy.safetensors cannot be read: {error!s:.200}.") from error
    try:
        artefact = Artefact(
            _card_of(facts),
            golden=golden,
            emitted={name: files[name] for name in EMITTED if name in files},
            **_graphs_of(facts["graphs"], arrays),
        )
        same = canonical(_facts(artefact)[0]) == files["policy.json"]
    except ValidationError as error:
        raise ValueError(f"policy.json is not what it must be: {_first(error)}.") from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"policy.json is not what it must be: {error!r:.200}.") from error
    except ValueError as error:
        raise ValueError(f"policy.json is not what it must be: {error}") from error
    if not same:
        raise ValueError("policy.json says something else than its graphs, or more than this version knows.")
    _require_golden(artefact)
    return artefact


def write_measured(folder: Path | str, figures: Mapping[str, Any]) -> None:
    """Put what was measured on this machine beside an artefact, replacing what was there; JSON values only."""
    write_atomic(Path(folder) / MEASURED, canonical(dict(figures)))


def read_measured(folder: Path | str) -> dict[str, Any] | None:
    """Return what was measured, None when nothing was; no digest guards it. ValueError when it is no JSON object."""
    if not os.path.lexists(Path(folder) / MEASURED):
        return None
    figures = parse_json(read_file(Path(folder), MEASURED, JSON_BYTES), MEASURED)
    if not isinstance(figures, dict):
        raise ValueError(f"{MEASURED} does not hold a JSON object.")
    return figures


# --- the contents ----------------------------------------------------------------------------------------------------


def _contents(artefact: Artefact) -> dict[str, bytes]:
    """Return every file but the manifest."""
    emitted = sorted(artefact.emitted)
    if not emitted or not set(emitted) <= set(EMITTED) or ("policy.c" in emitted) != ("policy.h" in emitted):
        raise ValueError(f"An artefact holds policy.onnx, or policy.c and policy.h, or all three: not {emitted}.")
    _require_golden(artefact)
    try:
        Card.model_validate(artefact.card.model_dump())  # a copy with changes has not been looked at
        facts, arrays = _facts(artefact)
        policy = canonical(facts)
    except ValidationError as error:
        raise ValueError(f"The card is not what it must be: {_first(error)}.") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(f"The card holds what JSON cannot: {error}.") from error
    contents = {
        "policy.json": policy,
        "policy.safetensors": save(arrays),
        "golden.npz": _npz(artefact.golden),
        "README.md": model_card(facts, emitted).encode(),
    } | dict(artefact.emitted)
    read_golden(contents["golden.npz"], read_card(policy))
    return dict(sorted(contents.items()))


def _facts(artefact: Artefact) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the contents of policy.json and the arrays of all graphs; ValueError where these contradict each other."""
    played, head = artefact.graph, artefact.graph.head
    trees: dict[str, Any] = dict.fromkeys(_GRAPHS)
    arrays = {}
    for name, graph in artefact.graphs.items():
        if graph is None:
            continue
        trees[name], found = encode(graph)
        arrays |= {f"{name}.{path}": array for path, array in found.items()}
        if (graph.shape, graph.dtype, graph.head) != (played.shape, played.dtype, head):
            raise ValueError(f"The {name} graph has another observation or head than the float graph.")
    facts = artefact.card.model_dump()
    actions: dict[str, Any] = {"kind": "discrete", "names": facts.pop("action_names")}
    if isinstance(head, Continuous):
        actions |= {"kind": "continuous", "low": list(head.low), "high": list(head.high), "squash": head.squash}
    if len(actions["names"]) != played.num_outputs:
        raise ValueError(f"The card names {len(actions['names'])} actions; the policy has {played.num_outputs}.")
    facts["observation"] |= {"shape": list(played.shape), "dtype": played.dtype}
    facts["refused"] = None if facts["refused"] is None else {"reason": facts["refused"]}
    step = None if artefact.integer is None else float(artefact.integer.step)
    return {"format": FORMAT, "version": VERSION, **facts, "actions": actions, "step": step, "graphs": trees}, arrays


def _card_of(facts: Mapping[str, Any]) -> Card:
    """Return the card whose facts `_facts` wrote among what it added."""
    added = ("format", "version", "actions", "step", "graphs")
    given = {key: value for key, value in facts.items() if key not in added}
    given["observation"] = {key: value for key, value in facts["observation"].items() if key not in ("shape", "dtype")}
    given["action_names"] = facts["actions"]["names"]
    given["refused"] = None if facts["refused"] is None else facts["refused"]["reason"]
    return Card(**given)


def _graphs_of(trees: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the graphs that policy.json describes, by the names of `Artefact`'s fields."""
    left, found = dict(arrays), {}
    for name, field, kind in zip(_GRAPHS, ("graph", "integer", "live"), (Graph, IntegerGraph, Graph), strict=True):
        own = {path.removeprefix(f"{name}."): left.pop(path) for path in arrays if path.startswith(f"{name}.")}
        found[field] = None if trees[name] is None and not own and field != "graph" else decode(trees[name], own)
        if not isinstance(found[field], kind | None):
            raise ValueError(f"The {name} graph is of the kind {type(found[field]).__name__}.")
    if left:
        raise ValueError(f"There are arrays that belong to no graph: {list(left)!s:.200}.")
    return found


def _first(error: ValidationError) -> str:
    """Return the first of pydantic's complaints in a line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))!s:.100}: {first['msg']:.200}"


def _require_golden(artefact: Artefact) -> None:
    wanted = "float32" if artefact.integer is None else "int32"
    output = artefact.golden.output
    if output.dtype != wanted or output.shape[1:] != (artefact.graph.num_outputs,):
        raise ValueError(f"golden.npz holds outputs of {output.dtype} {output.shape}; this policy gives {wanted}.")


def _npz(arrays: Golden) -> bytes:
    """Return arrays as numpy reads them, without compression and without a clock."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays._asdict().items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980
            entry.create_system = 3  # the same everywhere
            archive.writestr(entry, content.getvalue())
    return file.getvalue()


# --- the file system -------------------------------------------------------------------------------------------------


def require_replaceable(folder: Path) -> None:
    """Raise ValueError when something is there that is neither an artefact nor empty, or that holds more than one."""
    if not os.path.lexists(folder):
        return
    if os.path.islink(folder) or not os.path.isdir(folder):
        raise ValueError(f"{folder} is there and is no folder: choose another --out.")
    if not (held := os.listdir(folder)):
        return
    if strangers := sorted(set(held) - _OURS):
        raise ValueError(f"{folder} holds {strangers[0]!r:.100}, no part of a frozen policy: it is not replaced.")
    try:
        manifest = parse_json(read_file(folder, MANIFEST, MANIFEST_BYTES), MANIFEST)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{folder} is there and holds no frozen policy: it is not replaced.")


def _remove(folder: Path) -> None:
    """Remove what an artefact's folder holds, and it; what is not ours stays, and with it the folder."""
    if not os.path.lexists(folder):
        return
    for name in sorted(_OURS):
        path = folder / name
        if os.path.lexists(path) and not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
    os.rmdir(folder)
