"""What comes from elsewhere: versions without known holes, files by their hash, and no call that runs what is read."""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from parsed import ROOT, Module, aliases_in, dotted, modules, tree

# package: (the version that closed its last known hole, which). Only what pyproject.toml names can be held to it in every
# installation; the rest comes with those, and is held to it in the lock.
KNOWN_HOLES = {
    "torch": ("2.11", "CVE-2025-32434, CVE-2026-24747 (weights_only=True ran code), PYSEC-2026-139 (up to 2.10)"),
    "onnx": ("1.21", "CVE-2026-27489, -28500, -34445 and before them CVE-2024-27318, CVE-2022-25882"),
    "pyyaml": ("5.4", "CVE-2020-14343 (full_load ran code)"),
    "pillow": ("12.2", "CVE-2026-25990, -40192, -42308 to -42311"),
    "starlette": ("1.3.1", "CVE-2025-62727, CVE-2026-48710 (Host), -48817, -48818, -54282, -54283"),
    "uvicorn": ("0.11.7", "CVE-2020-7694, -7695"),
    "h11": ("0.16", "CVE-2025-43859 (request smuggling)"),
    "websockets": ("9.1", "CVE-2021-33880"),
    "pytest": ("9.0.3", "CVE-2025-71176"),
    "protobuf": ("6.33.5", "CVE-2026-0994"),
    "werkzeug": ("3.1.6", "CVE-2026-27199"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701"),
    "fonttools": ("4.60.2", "CVE-2025-66034"),
    "pygments": ("2.20", "CVE-2026-4539"),
    "setuptools": ("78.1.1", "CVE-2025-47273"),
}

LOCKS = ("requirements.txt", "torch.txt", "cuda.txt")

# What the viewer's page takes from elsewhere, as npm has it in uplot-1.6.32.tgz.
VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}

# (source file, what is called): why it is safe there.
CALL_EXCEPTIONS: dict[tuple[str, str], str] = {
    ("agent/cli/main.py", "importlib.import_module"): "the module's name comes from the table of verbs",
    ("envs/minatar.py", "importlib.util.spec_from_file_location"): "a file of the installed package MinAtar",
}

# Reading these back can run code; nothing in this house is stored so.
UNSAFE_MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy", "tarfile"}
# Nothing in this house asks another machine for anything.
CALLING_OUT = {"urllib.request", "http.client", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib"}
UNSAFE_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "os.system": "goes through a shell",
    "os.popen": "goes through a shell",
    "asyncio.create_subprocess_shell": "goes through a shell",
    "subprocess.getoutput": "goes through a shell",
    "subprocess.getstatusoutput": "goes through a shell",
    "yaml.load": "use yaml.safe_load",
    "yaml.load_all": "use yaml.safe_load_all",
    "yaml.full_load": "use yaml.safe_load",
    "yaml.full_load_all": "use yaml.safe_load_all",
    "yaml.unsafe_load": "use yaml.safe_load",
    "yaml.unsafe_load_all": "use yaml.safe_load_all",
    "torch.jit.load": "unpickles",
    "torch.hub.load": "runs what it fetches",
    "torch.package.PackageImporter": "runs what it reads",
    "pandas.read_pickle": "unpickles",
    "shutil.unpack_archive": "writes wherever the archive says",
    "socket.create_connection": "calls out",
    "importlib.util.spec_from_file_location": "runs a file",
    "random.seed": "one named generator per owner (agent/seeding.py)",
    "numpy.random.seed": "one named generator per owner (agent/seeding.py)",
    "torch.manual_seed": "one named generator per owner (agent/seeding.py)",
}


def asked() -> dict[str, Requirement]:
    """Return what pyproject.toml asks for with its dev, atari and minatar extras, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["atari"], *extras["minatar"], *extras["dev"]]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(each.name): each for each in requirements if each.name != project["name"]}


def locked() -> Iterator[tuple[Requirement, Version, str]]:
    """Yield each line of the locks with its version, and the text of its hashes."""
    for name in LOCKS:
        text = (ROOT / ".ci" / name).read_text(encoding="utf-8")
        joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
        for line in joined.splitlines():
            head, *hashes = line.split(" --hash=")
            requirement = Requirement(head.strip())
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            yield requirement, Version(pin.version), " ".join(hashes)


def test_no_floor_is_below_a_known_hole() -> None:
    """What pyproject.toml allows of each listed package starts where its last known hole was closed, or later."""
    wanted = asked()
    assert {"torch", "onnx", "pillow", "starlette", "h11", "pyyaml"} <= wanted.keys()
    for name, (fixed, holes) in KNOWN_HOLES.items():
        if name in wanted:
            floors = [Version(each.version) for each in wanted[name].specifier if each.operator in (">=", "==", "~=")]
            assert floors and max(floors) >= Version(fixed), f"{name}>={fixed} is needed: {holes}"


def test_no_locked_version_has_a_known_hole() -> None:
    """Every listed package is in the lock, in a version without its holes."""
    versions: dict[str, list[Version]] = {}
    for requirement, version, _ in locked():
        versions.setdefault(canonicalize_name(requirement.name), []).append(version)
    for name, (fixed, holes) in KNOWN_HOLES.items():
        assert min(versions[name]) >= Version(fixed), f"{name}>={fixed} is needed: {holes}"


def test_every_locked_file_has_its_hash() -> None:
    """No line of the locks is without a SHA-256, and no name stands there twice for one machine."""
    seen = set()
    for requirement, _, hashes in locked():
        assert re.fullmatch(r"(sha256:[0-9a-f]{64}\s*)+", hashes), requirement
        assert (key := (requirement.name, str(requirement.marker))) not in seen
        seen.add(key)
    assert len(seen) > 60


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", [("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64")])
def test_the_lock_is_what_pyproject_asks_for(python: str, system: tuple[str, str, str]) -> None:
    """On every platform that the wrapper locks, each requirement is pinned once, within pyproject.toml's bounds."""
    platform, name, machine = system
    where = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": platform,
        "platform_system": name,
        "platform_machine": machine,
    }
    pinned: dict[str, Version] = {}
    for requirement, version, _ in locked():
        if requirement.marker is None or requirement.marker.evaluate(where):
            assert (package := canonicalize_name(requirement.name)) not in pinned
            pinned[package] = version
    missing = [
        str(requirement)
        for package, requirement in asked().items()
        if package not in pinned or not requirement.specifier.contains(pinned[package])
    ]
    assert not missing, f"not in .ci/*.txt: {missing}; refresh them: python3 .ci/lock.py"


def test_the_cpu_builds_of_pytorch_are_locked_too() -> None:
    """For each Python on Linux x86_64 the hash of the CPU build, which PyPI does not serve, is among PyTorch's."""
    text = (ROOT / ".ci" / "torch.txt").read_text(encoding="utf-8")
    file = r"^# ([0-9a-f]{64})  torch-(.+?)\+cpu-cp(\d+)-cp\d+-manylinux_\w+_x86_64\.whl$"
    listed = re.findall(file, text, re.MULTILINE)
    (line,) = [(version, hashes) for requirement, version, hashes in locked() if requirement.name == "torch"]
    assert {python for _, _, python in listed} == {"311", "312", "313"}
    assert all(Version(version) == line[0] and digest in line[1] for digest, version, _ in listed)


def test_the_vendored_plotter_is_the_published_one() -> None:
    """uPlot's files are unchanged, its licence lies beside them, and nothing else lies there."""
    folder = ROOT / "agent" / "viewer" / "page" / "vendor"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert found == VENDORED
    assert "MIT License" in (folder / "uPlot.LICENSE").read_text(encoding="utf-8")


def test_nothing_read_back_can_run_code() -> None:
    """agent/, envs/ and benchmarks/ call nothing that unpickles, evaluates, goes through a shell, calls out or seeds
    globally."""
    others = [Module(path.stem, path) for path in sorted((ROOT / "benchmarks").rglob("*.py"))]
    wrong, excused = [], set()
    for module in (*modules(), *others):
        named = aliases_in(tree(module.path))
        for node in ast.walk(tree(module.path)):
            for what, why in faults(node, named):
                if (module.file, what) in CALL_EXCEPTIONS:
                    excused.add((module.file, what))
                else:
                    wrong.append(f"{module.file}:{node.lineno}: {what}: {why}")
    assert not wrong, "\n".join(wrong)
    assert excused == set(CALL_EXCEPTIONS)


def faults(node: ast.AST, aliases: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what this import or call names that is not allowed, and why not."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        whole = getattr(node, "module", None)
        for name in (whole, *(f"{whole}.{alias.name}" if whole else alias.name for alias in node.names)):
            if name and (name in UNSAFE_MODULES | CALLING_OUT or name.split(".")[0] in UNSAFE_MODULES):
                yield name, "runs what it reads" if name.split(".")[0] in UNSAFE_MODULES else "calls out"
    elif isinstance(node, ast.Call) and (why := fault(node, aliases)):
        yield dotted(node.func, aliases) or ast.unparse(node.func), why


def fault(call: ast.Call, aliases: dict[str, str]) -> str:
    """Why this call is not allowed, or an empty string."""
    name = dotted(call.func, aliases)
    given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if name in ("torch.load", "torch.serialization.load") and given.get("weights_only") is not True:
        return "needs weights_only=True"
    if "allow_pickle" in given and given["allow_pickle"] is not False:
        return "allow_pickle=True"
    if "shell" in given and given["shell"] is not False and name.startswith("subprocess."):
        return "goes through a shell"
    if isinstance(call.func, ast.Attribute) and call.func.attr == "extractall":
        return "writes wherever the archive says"
    if name in ("importlib.import_module", "__import__") and not (call.args and isinstance(call.args[0], ast.Constant)):
        return "imports a name that the source does not show"
    return UNSAFE_CALLS.get(name, "")


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("import torch as t\nt.load(f)", False),
        ("import torch\ntorch.load(f, weights_only=False)", False),
        ("import torch\ntorch.load(f, weights_only=True)", True),
        ("from yaml import load\nload(f)", False),
        ("import yaml\nyaml.safe_load(f)", True),
        ("import subprocess\nsubprocess.run(c, shell=True)", False),
        ("import subprocess\nsubprocess.run(c, shell=flag)", False),
        ("import subprocess\nsubprocess.run([c])", True),
        ("from os import system\nsystem(c)", False),
        ("import numpy as np\nnp.random.seed(1)", False),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", False),
        ("import numpy as np\nnp.load(f, allow_pickle=flag)", False),
        ("import numpy as np\nnp.load(f)", True),
        ("import zipfile\nzipfile.ZipFile(f).extractall()", False),
        ("import tarfile", False),
        ("import pickle as p", False),
        ("from importlib import import_module\nimport_module(name)", False),
        ("import importlib\nimportlib.import_module('agent.cli.train')", True),
        ("import urllib.request", False),
        ("from urllib import request", False),
        ("from urllib.parse import urlsplit", True),
        ("from http.client import HTTPConnection", False),
        ("from starlette.requests import Request", True),
        ("import re\nre.compile(text)", True),
        ("compile(text, 'x', 'exec')", False),
        ("network.eval()", True),
        ("eval('1')", False),
    ],
)
def test_the_guard_sees_through_aliases(source: str, allowed: bool) -> None:
    """The rule above recognises what it forbids under any import name, and leaves its harmless namesakes alone."""
    parsed = ast.parse(source)
    found = [each for node in ast.walk(parsed) for each in faults(node, aliases_in(parsed))]
    assert (not found) == allowed
