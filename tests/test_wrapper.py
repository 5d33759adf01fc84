"""The sh wrapper `icebox`, run for real on a pretended checkout with pretended Pythons: no pip, no network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from pretended import VENV_PYTHON, Machine, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a sh script")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a good python3."""
    made = Machine(tmp_path)
    made.python("python3", "3.12.4")
    return made


def test_second_start_goes_straight_to_the_verb(machine: Machine) -> None:
    """The first start makes the environment and installs; the second asks nothing of venv or pip and says nothing."""
    code, out, err = machine.run("games")
    assert (code, out) == (0, "<games>\n")
    assert "Making" in err and "Ready after" in err
    assert machine.calls() == ["venv python3", "pip install -e ."]
    assert machine.run("games") == (0, "<games>\n", "")
    assert machine.calls() == []


def test_words_and_exit_code_pass_through(machine: Machine) -> None:
    """The verb gets every word as it was typed, and the caller gets the verb's exit code; no word means --help."""
    assert machine.run("train", "a b", "--x=$HOME", "", EXIT_CODE=7)[:2] == (7, "<train>\n<a b>\n<--x=$HOME>\n<>\n")
    assert machine.run() == (0, "<--help>\n", "")


def test_called_through_symlinks(machine: Machine, tmp_path: Path) -> None:
    """A link to a link to the wrapper, from another folder, uses the environment beside the wrapper itself."""
    machine.run("games")
    (tmp_path / "first").symlink_to(Path("ice box") / "icebox")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    machine.calls()
    assert machine.run("games", command=tmp_path / "second") == (0, "<games>\n", "")
    assert machine.calls() == []


def test_messages_name_the_wrapper_as_it_was_called(machine: Machine, tmp_path: Path) -> None:
    """The console script learns in ICEBOX_COMMAND what to tell the user to type: a path, or the name on the PATH."""
    machine.run("games")
    (machine.bin / "ib").symlink_to(machine.checkout / "icebox")
    (machine.home / "link").symlink_to(machine.checkout / "icebox")
    for command, named in {
        machine.checkout / "icebox": str(machine.checkout / "icebox"),
        Path("./link"): "./link",
        Path("ib"): "ib",
        machine.bin / "ib": "ib",
    }.items():
        typed = "./link" if command == Path("link") else command
        assert machine.run(command=typed, SHOW_COMMAND=1)[1] == f"<--help>\n{named}\n"
    out = subprocess.run(
        ["sh", "link"], cwd=machine.home, env=machine.environment(SHOW_COMMAND=1), capture_output=True, text=True
    ).stdout
    assert out == "<--help>\n./link\n"


def test_test_verb_installs_the_test_tools_once(machine: Machine) -> None:
    """`test` installs the dev extra and runs pytest in the checkout; other verbs then leave the extra where it is."""
    machine.run("games")
    machine.calls()
    code, out, _ = machine.run("test", "-k", "a or b")
    spread = "<-n>\n<auto>\n<--dist>\n<loadfile>\n"
    assert (code, out) == (0, f"{machine.checkout}\n{spread}<-k>\n<a or b>\n")
    assert machine.calls() == ["pip install -e .[dev]"]
    assert machine.run("games")[0] == 0 and machine.calls() == []
    with (machine.checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert machine.run("games")[0] == 0
    assert machine.calls() == ["pip install -e .[dev]"]


def test_moved_checkout_is_installed_again(machine: Machine, tmp_path: Path) -> None:
    """A checkout that was renamed or copied does not run the code of the old place."""
    machine.run("games")
    machine.calls()
    machine.checkout.rename(tmp_path / "moved")
    assert machine.run("games", command=tmp_path / "moved" / "icebox")[0] == 0
    assert machine.calls() == ["pip install -e ."]


def test_python_that_went_away(machine: Machine) -> None:
    """When the interpreter under a finished environment was removed, the environment is made anew."""
    machine.run("games")
    machine.calls()
    (machine.venv / "bin" / "python").unlink()
    (machine.venv / "bin" / "python").symlink_to("/nowhere/python3")
    assert machine.run("games")[:2] == (0, "<games>\n")
    assert machine.calls() == ["venv python3", "pip install -e ."]


def test_too_old_python_is_named_with_a_remedy(machine: Machine) -> None:
    """With only older Pythons nothing is made, and the message names what was found, what is needed and what to do."""
    machine.python("python3", "3.9.18")
    code, out, err = machine.run("demo")
    assert code == 1 and out == "" and not machine.venv.exists()
    assert err.count("\n") == 1 and "3.11 or newer is needed; python3 is 3.9.18" in err and "ICEBOX_PYTHON=" in err


def test_no_python(machine: Machine) -> None:
    """Without any Python, and with an ICEBOX_PYTHON that does not run, the message says so."""
    (machine.bin / "python3").unlink()
    code, _, err = machine.run("demo")
    assert code == 1 and "none was found" in err
    code, _, err = machine.run("demo", ICEBOX_PYTHON="/nowhere/python")
    assert code == 1 and "/nowhere/python is not a Python that runs" in err


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"python3": "3.11.2", "python3.13": "3.13.0"}, "python3"),
        ({"python3": "3.10.1", "python3.11": "3.11.9", "python3.12": "3.12.1"}, "python3.12"),
        ({"python3": "3.14.0", "python3.11": "3.11.9"}, "python3.11"),
        ({"python3": "3.14.0"}, "python3"),
    ],
)
def test_which_python_is_taken(machine: Machine, found: dict[str, str], chosen: str) -> None:
    """python3 if it is new enough, then the newest name; 3.14, where Box2D is compiled, only when it is alone."""
    for name, version in found.items():
        machine.python(name, version)
    assert machine.run("games")[0] == 0
    assert machine.calls()[0] == f"venv {chosen}"


def test_missing_ensurepip(machine: Machine) -> None:
    """Debian's Python without python3-venv: one line that names the package to install, and nothing made."""
    code, _, err = machine.run("demo", NO_ENSUREPIP=1)
    assert code == 1 and not machine.venv.exists()
    assert err.count("\n") == 1 and "sudo apt install python3-venv" in err


def test_killed_set_up_starts_over(machine: Machine) -> None:
    """After kill -9 of a set-up and its pip, the next start makes the environment from nothing and runs."""
    process = machine.start("games", PIP_SECONDS=60)
    until(lambda: machine.calls_file.exists() and "pip" in machine.calls_file.read_text())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (machine.venv / "lib").mkdir()
    (machine.venv / "lib" / "half").touch()
    machine.calls()
    code, out, err = machine.run("games")
    assert (code, out) == (0, "<games>\n") and "interrupted; starting over" in err
    assert machine.calls() == ["venv python3", "pip install -e ."] and not (machine.venv / "lib").exists()


def test_interrupt_stops_pip_too(machine: Machine) -> None:
    """Ctrl-C ends the set-up at once with exit code 130, pip with it."""
    process = machine.start("games", PIP_SECONDS=60)
    until(lambda: machine.calls_file.exists() and "pip" in machine.calls_file.read_text())
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "starts the set-up again" in err


def test_two_first_runs_at_once(machine: Machine) -> None:
    """The second of two first runs waits for the first and says so; the environment is made once and both run."""
    first = machine.start("one", PIP_SECONDS=1)
    until(lambda: machine.calls_file.exists())
    second = machine.start("two", PIP_SECONDS=1)
    answers = [process.communicate(timeout=60) for process in (first, second)]
    assert [out for out, _ in answers] == ["<one>\n", "<two>\n"]
    assert "waiting for it" in answers[1][1] and "Making" not in answers[1][1]
    assert machine.calls() == ["venv python3", "pip install -e ."]


def test_lock_holds_while_an_orphaned_pip_works(machine: Machine) -> None:
    """When only the wrapper is killed and its pip lives on, the next start waits for that pip before it starts over."""
    first = machine.start("one", PIP_SECONDS=1)
    until(lambda: machine.calls_file.exists() and "pip" in machine.calls_file.read_text())
    first.kill()
    code, _, err = machine.run("two")
    first.communicate()
    assert code == 0 and "waiting for it" in err and "starting over" in err


@pytest.mark.parametrize(
    ("pip_says", "remedy"),
    [
        ("[Errno -2] Name or service not known\nERROR: No matching distribution found for torch", "Check the network"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch<2.14", "no build for Python 3.12.4"),
        ("ERROR: something new", "whole log"),
    ],
)
def test_failing_pip(machine: Machine, pip_says: str, remedy: str) -> None:
    """pip's last lines and one remedy, exit code 1; the next start goes on without making the environment again."""
    code, out, err = machine.run("games", PIP_ERROR=pip_says)
    assert code == 1 and out == "" and pip_says in err and remedy in err
    machine.calls()
    assert machine.run("games")[:2] == (0, "<games>\n")
    assert machine.calls() == ["pip install -e ."]


def test_environment_made_by_hand_is_used_as_it_is(machine: Machine) -> None:
    """A .venv with pip that the wrapper did not make is installed into, never made anew; one without pip is refused."""
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / "pyvenv.cfg").touch()
    machine.script(machine.venv / "bin" / "python", VENV_PYTHON)
    code, _, err = machine.run("games", NO_PIP=1)
    assert code == 1 and "was not made by ./icebox" in err
    assert machine.run("games")[:2] == (0, "<games>\n")
    assert machine.calls() == ["pip install -e ."]


def test_icebox_venv_elsewhere(machine: Machine, tmp_path: Path) -> None:
    """ICEBOX_VENV moves the environment; a folder with other things in it, or one that can't be written, is refused."""
    assert machine.run("games", ICEBOX_VENV="other env")[:2] == (0, "<games>\n")
    assert (machine.home / "other env" / "pyvenv.cfg").exists() and not machine.venv.exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter").touch()
    code, _, err = machine.run("games", ICEBOX_VENV=full)
    assert code == 1 and "not empty" in err and (full / "letter").exists()
    code, _, err = machine.run("games", ICEBOX_VENV="/dev/null/venv")
    assert code == 1 and "Cannot write to /dev/null/venv" in err and "ICEBOX_VENV=" in err


CPU_INDEX = "pip install --index-url https://download.pytorch.org/whl/cpu torch>=2.11,<2.14"
DEFAULT_INDEX = "pip install torch>=2.11,<2.14"


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="pretends to have no GPU")
@pytest.mark.parametrize(
    ("choice", "gpu", "wheel", "answers", "says", "pip"),
    [
        ("auto", False, None, True, "CPU build, about 0.2 GB", [CPU_INDEX]),
        ("auto", False, None, False, "CUDA build, about 2.7 GB", [DEFAULT_INDEX]),
        ("auto", False, "2.13.0+cpu", True, "2.13.0+cpu, CPU build, 3 MB, already", ["pip install torch==2.13.0+cpu"]),
        ("auto", True, None, True, "CUDA build, about 2.7 GB", [DEFAULT_INDEX]),
        ("cpu", True, None, False, "CPU build, about 0.2 GB", [CPU_INDEX]),
        ("cuda", False, None, True, "CUDA build, about 2.7 GB", [DEFAULT_INDEX]),
        ("torch==2.12.0", False, None, True, "as asked: torch==2.12.0", ["pip install torch==2.12.0"]),
        ("skip", False, None, True, "", []),
        ("auto", False, "installed", True, "", []),
    ],
)
def test_which_pytorch_is_installed(
    machine: Machine, choice: str, gpu: bool, wheel: str | None, answers: bool, says: str, pip: list[str]
) -> None:
    """The build follows the machine unless ICEBOX_TORCH names it, and its name and size are said before pip runs."""
    changes: dict[str, object] = {"ICEBOX_TORCH": choice, "INDEX": 0 if answers else 1}
    if gpu:
        machine.script(machine.bin / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: pretended'\n")
    if wheel:
        file = machine.home / "torch wheel.whl"
        file.write_bytes(bytes(3_000_000))
        entry = {"download_info": {"url": file.as_uri()}, "metadata": {"version": wheel}}
        (machine.home / "found.json").write_text(json.dumps({"install": [] if wheel == "installed" else [entry]}))
        changes["FOUND"] = machine.home / "found.json"
    code, _, err = machine.run("games", **changes)
    named = [choice] if choice.startswith("torch") else []
    assert code == 0 and says in err
    assert ("Installing PyTorch" in err) == bool(pip)
    assert machine.calls() == ["venv python3", *pip, " ".join(["pip install -e .", *named])]
