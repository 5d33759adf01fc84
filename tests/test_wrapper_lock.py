"""`./icebox test` installs files whose hashes stand in .ci, or says why not; on a pretended machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pretended import Machine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a sh script")

REST = ["pip install HASHED -r ./.ci/requirements.txt", "pip install --no-index --no-build-isolation -e .[dev]"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a good python3 and no GPU."""
    made = Machine(tmp_path)
    made.python("python3", "3.12.4")
    return made


def on_disk(machine: Machine, version: str) -> Path:
    """Return pip's report on a wheel of PyTorch that lies in its find-links; no version: PyTorch is installed."""
    wheel = machine.home / "torch.whl"
    wheel.write_bytes(bytes(3_000_000))
    entry = {"download_info": {"url": wheel.as_uri()}, "metadata": {"version": version}}
    report = machine.home / "found.json"
    report.write_text(json.dumps({"install": [entry] if version else []}))
    return report


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="pretends to have no GPU")
@pytest.mark.parametrize(
    ("choice", "gpu", "wheel", "torch"),
    [
        ("auto", False, None, [f"pip install HASHED --index-url {CPU_INDEX} -r ./.ci/torch.txt"]),
        ("cpu", True, None, [f"pip install HASHED --index-url {CPU_INDEX} -r ./.ci/torch.txt"]),
        ("auto", True, None, ["pip install HASHED -r ./.ci/torch.txt -r ./.ci/cuda.txt"]),
        ("cuda", False, None, ["pip install HASHED -r ./.ci/torch.txt -r ./.ci/cuda.txt"]),
        ("auto", False, "2.13.0+cpu", ["pip install HASHED --no-index -r ./.ci/torch.txt"]),
        ("auto", False, "", []),
    ],
)
def test_every_file_is_installed_by_its_hash(
    machine: Machine, choice: str, gpu: bool, wheel: str | None, torch: list[str]
) -> None:
    """PyTorch in the build that suits the machine, then the rest, then the checkout, which may ask no index."""
    if gpu:
        machine.script(machine.bin / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: pretended'\n")
    changes = {} if wheel is None else {"FOUND": on_disk(machine, wheel)}
    code, _, err = machine.run("test", ICEBOX_TORCH=choice, INDEX=0, **changes)
    assert code == 0 and "do not cover" not in err
    assert machine.calls() == ["venv python3", *torch, *REST]


def test_another_pytorch_on_the_disk_is_taken_and_named(machine: Machine) -> None:
    """A wheel on this disk of a version that is not the locked one saves gigabytes; one line says so."""
    found = on_disk(machine, "2.12.1+cpu")
    code, _, err = machine.run("test", ICEBOX_TORCH="auto", FOUND=found, FOUND_ONLY="<2.14")
    assert code == 0 and "not the locked torch==2.13.0; it is taken all the same, without a hash" in err
    assert machine.calls() == ["venv python3", "pip install torch==2.12.1+cpu", *REST]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"VENV_VERSION": "3.14"}, "another Python than 3.11 to 3.13"),
        ({"ICEBOX_TORCH": "torch==2.12.0"}, "ICEBOX_TORCH=torch==2.12.0"),
        ({"ICEBOX_TORCH": "skip"}, "ICEBOX_TORCH=skip"),
        ({"uname": "Linux aarch64"}, "Linux aarch64"),
        ({"lock": "gone"}, "a checkout without them"),
    ],
)
def test_where_the_lock_does_not_reach(machine: Machine, changes: dict[str, str], why: str) -> None:
    """Another platform or Python, or a PyTorch of one's own: one line with the reason, then pyproject.toml decides."""
    changes = {"ICEBOX_TORCH": "auto", "INDEX": "0"} | changes
    if system := changes.pop("uname", ""):
        machine.script(machine.bin / "uname", f"#!/bin/sh\ncase $1 in -s) echo Linux ;; *) echo {system} ;; esac\n")
    if changes.pop("lock", ""):
        (machine.checkout / ".ci" / "requirements.txt").unlink()
    code, _, err = machine.run("test", **changes)
    named = [changes["ICEBOX_TORCH"]] if changes["ICEBOX_TORCH"].startswith("torch") else []
    assert code == 0 and err.count("do not cover") == 1
    assert f"do not cover {why}: installing what pyproject.toml allows" in err
    calls = machine.calls()
    assert calls[-1] == " ".join(["pip install -e .[dev]", *named]) and not any("HASHED" in call for call in calls)


def test_a_wrong_hash_ends_the_set_up(machine: Machine) -> None:
    """The package is named, nothing is installed without hashes instead, and the next start tries the same again."""
    says = (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. Somebody may have tampered.\n"
        "    cramjam==2.14.0 from https://index.example/cramjam-2.14.0-cp311.whl (from -r requirements.txt (line 9)):\n"
        "        Expected sha256 00\n             Got        11\nConnection timed out"
    )
    for _ in range(2):
        code, out, err = machine.run("test", ICEBOX_TORCH="auto", INDEX=0, PIP_ERROR=says)
        assert code == 1 and out == ""
        assert err.splitlines()[-1].startswith("icebox: cramjam==2.14.0 is not the file that .ci has the hash of")
    calls = machine.calls()
    assert len(calls) == 3 and all("HASHED" in call for call in calls[1:])
    assert not (machine.venv / "bin" / "icebox").exists()


def test_a_version_that_is_not_served(machine: Machine) -> None:
    """A pinned version that the index lacks ends the set-up too: hiding a file is no way round its hash."""
    says = "ERROR: No matching distribution found for starlette==1.10.0"
    code, _, err = machine.run("test", ICEBOX_TORCH="auto", INDEX=0, PIP_ERROR=says)
    assert code == 1 and says in err and "python3 .ci/lock.py" in err
    assert len(machine.calls()) == 2


def test_a_new_lock_is_installed_at_the_next_test(machine: Machine) -> None:
    """A refreshed lock counts for an environment made from it, whatever the verb, and for no other."""
    machine.run("games", ICEBOX_TORCH="auto", INDEX=0)
    machine.calls()
    lock = machine.checkout / ".ci" / "requirements.txt"
    lock.write_text("numpy==2.4.7\n")
    assert machine.run("games", ICEBOX_TORCH="auto", INDEX=0)[0] == 0 and machine.calls() == []
    assert machine.run("test", ICEBOX_TORCH="auto", INDEX=0)[0] == 0 and machine.calls()[-2:] == REST
    assert machine.run("test", ICEBOX_TORCH="auto", INDEX=0)[0] == 0 and machine.calls() == []
    lock.write_text("numpy==2.4.8\n")
    assert machine.run("games", ICEBOX_TORCH="auto", INDEX=0)[0] == 0 and machine.calls()[-2:] == REST
