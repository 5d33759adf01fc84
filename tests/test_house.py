"""The rules of docs/house.md, held by machine: who imports whom, how long a file is, what an import may do.

An exception stands in one of the tables below with its reason, or there is none.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from parsed import ROOT, imports, modules, tree

# Where each module or package stands; the longest matching name counts. A module imports from lower ranks, and from
# its own package. Equal ranks never import each other.
RANKS = {
    "agent": 0,  # the docstring
    "agent.types": 0,
    "agent.config": 0,
    "agent.appended": 0,  # a leaf of a state tree
    "agent.state_tree": 0.5,  # the format below checkpoint.py
    "agent.segments": 0.5,  # the format of what is only appended
    "agent.durable": 0,  # the disk below checkpoint.py
    "agent.schedules": 1,
    "agent.seeding": 1,
    "agent.memory": 1,
    "agent.checkpoint": 1,
    "agent.metrics": 1,
    "agent.guard": 1,
    "agent.replay": 2,
    "agent.nets": 2,
    "agent.losses": 2,
    "agent.capture": 2,
    "agent.adam": 2,
    "agent.telemetry": 2,
    "agent.actor": 3,
    "agent.learner": 3,
    "agent.slices": 3.5,  # takes a learner's updates apart
    "agent.probes": 3.5,  # looks at a learner and its replay
    "agent.evaluation": 3,
    "agent.loop": 4,
    "agent.realtime": 4.5,  # the loop's clock and what it asks for
    "agent.freeze": 5,
    "agent.sb3": 5,
    "agent.transfer": 5,
    "agent.explain": 5.5,  # reads what freeze made
    "agent.telemetry.report": 6,
    "agent.viewer": 6,
    "agent.distributed": 6,
    "agent.cli": 7,  # composes everything
}
COMPOSING = 6  # from this rank on, a room may import envs

# (importing module, imported module): why it may point up or sideways.
IMPORT_EXCEPTIONS: dict[tuple[str, str], str] = {}

# file: why it may be longer than LONGEST lines.
LENGTH_EXCEPTIONS: dict[str, str] = {
    "agent/freeze/player.py": "copied alone onto other machines, so it cannot be split",
    "tests/golden/v0.1.0/frozen/int8/policy.c": "a released file, which stays as it was emitted",
}
LONGEST = 400

# source file: where it is tested instead of in tests/test_<its name>.py.
TESTED_ELSEWHERE: dict[str, str] = {
    "agent/types.py": "protocols and named tuples without a line of behaviour; every test of what fits them uses them",
}

def place(name: str) -> tuple[str, float]:
    """The room a module belongs to, and its rank."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        if (room := ".".join(parts[:length])) in RANKS:
            return room, RANKS[room]
    if len(parts) == 1:
        return name, RANKS[name]
    raise AssertionError(f"{name} has no rank: add it to docs/house.md and to RANKS")


def test_imports_point_down() -> None:
    """Each module of agent/ imports only from lower ranks and its own room; loop.py imports nothing but types."""
    wrong = []
    for module in modules():
        if not module.name.startswith("agent"):
            continue
        room, rank = place(module.name)
        for name, line in imports(module):
            if name.split(".")[0] != "agent" or (module.name, name) in IMPORT_EXCEPTIONS:
                continue
            other, other_rank = place(name)
            if other != room and (other_rank >= rank or (room == "agent.loop" and other != "agent.types")):
                wrong.append(f"{module.file}:{line}: {module.name} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_agent_and_envs_meet_only_where_things_are_composed() -> None:
    """envs never imports agent, torch or stable-baselines3; of agent only the composing rooms import envs."""
    wrong = []
    for module in modules():
        for name, line in imports(module):
            top = name.split(".")[0]
            if module.name.startswith("envs"):
                bad = top in ("agent", "torch", "stable_baselines3", "sb3_contrib")
            else:
                bad = top == "envs" and place(module.name)[1] < COMPOSING
            if bad and (module.name, name) not in IMPORT_EXCEPTIONS:
                wrong.append(f"{module.file}:{line}: must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_stable_baselines3_has_one_door() -> None:
    """Only agent/sb3/ imports stable_baselines3 and sb3_contrib."""
    wrong = [
        f"{module.file}:{line}: imports {name}"
        for module in modules()
        for name, line in imports(module)
        if name.split(".")[0] in ("stable_baselines3", "sb3_contrib") and not module.name.startswith("agent.sb3")
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_imported_is_declared() -> None:
    """Every third-party package that agent/ or envs/ imports is named in pyproject.toml, the games' extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["atari"], *extras["minatar"], *extras["minari"]]
    declared = {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}
    providers = packages_distributions()
    wrong = []
    for module in modules():
        for name, line in imports(module):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("agent", "envs"):
                continue
            if not declared & {normal(distribution) for distribution in providers.get(top, [top])}:
                wrong.append(f"{module.file}:{line}: {top} is not declared")
    assert not wrong, "\n".join(wrong)


def normal(distribution: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_init_files_are_docstrings() -> None:
    """An __init__.py holds one docstring and nothing else."""
    for module in modules():
        if module.path.name == "__init__.py":
            body = tree(module.path).body
            assert len(body) == 1 and ast.get_docstring(tree(module.path)), f"{module.file} is not just a docstring"


def test_every_module_says_what_it_is_for() -> None:
    """Every module of agent/ and envs/ starts with a docstring."""
    assert not [module.file for module in modules() if not ast.get_docstring(tree(module.path))]


def test_no_file_is_long() -> None:
    """No source file is longer than 400 lines."""
    kinds = {".py", ".sh", ".html", ".js", ".css", ".c", ".h", ".yaml"}
    files = [ROOT / "icebox", ROOT / ".ci" / "run", ROOT / "pyproject.toml"]
    for room in ("agent", "envs", "configs", "tests", "benchmarks"):
        files += [path for path in (ROOT / room).rglob("*") if path.suffix in kinds]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST and name not in LENGTH_EXCEPTIONS}


# Runs in a fresh interpreter in an empty folder. What the libraries do when they are imported is done first.
IMPORT_ALL = """
import importlib, logging, os, random, signal, sys, threading, warnings
import numpy, torch
libraries, ours = (argument.split() for argument in sys.argv[1:])
for name in libraries:
    importlib.import_module(name)

def world():
    return {
        "Python's random generator": hash(random.getstate()),
        "NumPy's random generator": numpy.random.get_state()[1].tobytes() + bytes(numpy.random.get_state()[2]),
        "torch's random generator": bytes(torch.get_rng_state().tolist()),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's defaults": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()),
        "CUDA's state": torch.cuda.is_initialized(),
        "the threads": [thread.name for thread in threading.enumerate()],
        "the files in the working directory": os.listdir(),
        "the environment": dict(os.environ),
        "the search path": list(sys.path),
        "the warning filters": list(warnings.filters),
        "the log handlers": list(logging.getLogger().handlers),
        "the signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }

before = world()
for name in ours:
    importlib.import_module(name)
    after = world()
    for what in before:
        if before[what] != after[what]:
            sys.exit(f"importing {name} changed {what}: {before[what]!r:.300} -> {after[what]!r:.300}")
"""


def test_importing_has_no_side_effect(tmp_path: Path) -> None:
    """Importing any module prints nothing, writes nothing, starts no thread and leaves every global state alone."""
    ours = [module.name for module in modules()]
    libraries = {name for module in modules() for name, _ in imports(module)}
    libraries = {name for name in libraries if name.split(".")[0] not in ("agent", "envs", *sys.stdlib_module_names)}
    libraries = {name for name in libraries if find_spec(name.split(".")[0])}  # minari is for those who ask for it
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, " ".join(sorted(libraries)), " ".join(ours)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_tests_mirror_the_source() -> None:
    """Every module with public functions or classes has tests/test_<its name>.py, or says where it is tested."""
    missing = []
    for module in modules():
        public = [
            node.name
            for node in tree(module.path).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        if public and module.file not in TESTED_ELSEWHERE:
            if not (ROOT / "tests" / f"test_{module.path.stem}.py").exists():
                missing.append(module.file)
    assert not missing, f"without a test file: {', '.join(missing)}"


def test_exceptions_are_still_needed() -> None:
    """Every file named in a table of exceptions exists."""
    files = {module.file for module in modules()}
    assert set(TESTED_ELSEWHERE) <= files
    assert {name for pair in IMPORT_EXCEPTIONS for name in pair} <= {module.name for module in modules()}
    assert all((ROOT / name).exists() for name in LENGTH_EXCEPTIONS)


def test_the_map_names_every_room() -> None:
    """docs/house.md names each module and package directly below agent/."""
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    for path in (ROOT / "agent").iterdir():
        if path.suffix == ".py" and path.stem != "__init__" or (path / "__init__.py").exists():
            name = path.name if path.suffix else f"{path.name}/"
            assert name in text, f"docs/house.md does not name agent/{name}"
