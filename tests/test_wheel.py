"""The built wheel, installed where the checkout cannot be seen: it must contain all it needs, and train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network by the hatchling of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty environment with the wheel in it; only the dependencies come from this environment.

    A line in a .pth file lends their folder. The .pth files inside that folder are not read, so that the editable
    checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    programs = folder / ("bin" if os.name == "posix" else "Scripts")
    python = programs / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--no-deps", "--no-index", str(wheel)], folder)
    site = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    lent = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(site) / "lent.pth").write_text("\n".join(lent) + "\n")
    return programs


def run(command: list[str], cwd: Path) -> str:
    """Run a command without the caller's PYTHONPATH and return its stdout; a failure shows both outputs."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_holds_the_packages_and_configs_only(wheel: Path) -> None:
    """Every module and every config of the checkout is in the wheel, the licence too, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licence = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    modules = {str(path.relative_to(ROOT)) for room in ("agent", "envs") for path in (ROOT / room).rglob("*.py")}
    configs = {f"agent/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    sources = {str(path.relative_to(ROOT)) for end in ("c", "ld") for path in (ROOT / "agent").rglob(f"*.{end}")}
    assert modules and configs and licence and sources
    assert modules | configs | sources <= names
    assert {name.split("/")[0] for name in names} == {"agent", "envs"}
    assert not [name for name in names if name.endswith((".pyc", ".pt", ".safetensors")) or "/runs/" in name]


def test_installed_wheel_is_what_is_imported(bin_folder: Path, tmp_path: Path) -> None:
    """In the new environment `agent` and `envs` come from the wheel, not from this checkout."""
    code = "import agent, envs; print(agent.__file__); print(envs.__file__)"
    for line in run([str(bin_folder / "python"), "-c", code], tmp_path).splitlines():
        assert Path(line).is_relative_to(bin_folder.parent)


def test_installed_wheel_trains_and_evaluates(bin_folder: Path, tmp_path: Path) -> None:
    """`icebox train cartpole` from the wheel reads the game's config, writes a finished run, and `eval` judges it."""
    icebox = str(bin_folder / "icebox")
    run([icebox, "train", "cartpole", "--steps", "300", "--evaluation.interval-steps", "0"], tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("runs/cartpole/*/config.yaml"))
    assert (folder / "monitor.csv").exists() and list((folder / "checkpoints").iterdir())
    out = run([icebox, "eval", "cartpole/latest", "--episodes", "2", "--json"], tmp_path)
    assert json.loads(out.splitlines()[-1])["episodes"] == 2
