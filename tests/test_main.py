"""Tests of agent/cli/main.py: verbs, exit codes, and that a start imports no more than its verb needs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from agent.cli import main as cli
from agent.cli.settings import TrainArguments

ROOT = Path(__file__).resolve().parents[1]


def icebox(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.cli.main", *argv]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **options)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Put a function in place of `run` of the verb train; its arguments are kept parsed as they come."""

    def put(run) -> None:
        module = types.ModuleType("agent.cli.train")
        module.run = run
        monkeypatch.setitem(sys.modules, "agent.cli.train", module)
        monkeypatch.setattr("agent.cli.settings.parse_train", lambda argv: TrainArguments(game=argv[0]))

    return put


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_overview(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb there is a friendly overview: every verb in one line, four examples, code 0."""
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    for name in cli.VERBS:
        assert sum(line.startswith(f"  icebox {name} ") for line in out.split("Examples:")[0].splitlines()) == 1
    assert len(out.split("Examples:\n")[1].splitlines()) == 4


def test_torch_is_told_how_long_its_threads_wait(verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a verb imports torch OpenMP's waiting is bounded, unless the user has said otherwise."""
    found = []
    verb(lambda arguments: found.append(os.environ.get("GOMP_SPINCOUNT")) or 0)
    for said, expected in ((None, cli.SPIN_COUNT), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if said is not None:
            monkeypatch.setenv("GOMP_SPINCOUNT", said)
        assert cli.main(["train", "cartpole"]) == 0
        assert found.pop() == expected
    monkeypatch.delenv("GOMP_SPINCOUNT")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints one line."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("icebox ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "icebox: unknown verb 'trian'. Did you mean 'train'?\n"),
        (
            ["qqq"],
            "icebox: unknown verb 'qqq'. The verbs are train, resume, eval, freeze, verify, play, record, played, report, demo, runs, games, board, doctor.\n",
        ),
        (
            ["--steps"],
            "icebox: unknown flag '--steps'. The verbs are train, resume, eval, freeze, verify, play, record, played, report, demo, runs, games, board, doctor.\n",
        ),
        (["runs", "--jsn"], "icebox: unknown flag --jsn. Did you mean --json? 'icebox runs --help' lists all flags.\n"),
        (["runs", "--runs-dir"], "icebox: --runs-dir needs a value. 'icebox runs --help' lists all flags.\n"),
        (["play", ""], "icebox: RUN|ARTEFACT|ZIP|GAME: got nothing. Is it a variable of the shell that is empty?\n"),
        (["played", ""], "icebox: PATH: got nothing. Is it a variable of the shell that is empty?\n"),
        (["report", "x", "--out", ""], "icebox: --out: got nothing. Is it a variable of the shell that is empty?\n"),
        (
            ["train", "cartpole", "--demonstrations="],
            "icebox: --demonstrations: got nothing. Is it a variable of the shell that is empty?\n",
        ),
        (["runs", "now"], "icebox: nothing is known to do with 'now'. 'icebox runs --help' lists all flags.\n"),
        (
            ["board", "--port", "x"],
            "icebox: --port: must be a whole number, got 'x'. 'icebox board --help' lists all flags.\n",
        ),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is one sentence on stderr, nothing on stdout, and code 2."""
    assert cli.main(argv) == 2
    assert capsys.readouterr() == ("", message)


def test_help_of_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """`icebox VERB --help` documents the verb's flags and ends with 0."""
    assert cli.main(["runs", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: icebox runs") and "--runs-dir PATH" in out and "(default: runs)" in out


def test_the_verb_decides_the_code(verb) -> None:
    """What the verb returns is the exit code, and it gets the parsed arguments."""
    seen = []
    verb(lambda arguments: seen.append(arguments.game) or 7)
    assert cli.main(["train", "cartpole"]) == 7
    assert seen == ["cartpole"]


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_its_module(name: str) -> None:
    """Each verb's module exists, has `run`, and `Arguments` with a docstring for its help."""
    module = importlib.import_module(f"agent.cli.{cli.VERBS[name].module}")
    assert callable(module.run)
    assert name == "train" or module.Arguments.__doc__


def test_ctrl_c_is_130(verb, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C that no verb handles ends with 130 and without a traceback."""

    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    verb(interrupted)
    assert cli.main(["train", "cartpole"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_70(verb, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody expects is called a bug; its traceback is kept in the file that is named."""
    verb(lambda arguments: 1 // 0)
    assert cli.main(["train", "cartpole"]) == 70
    err = capsys.readouterr().err
    sentence = "icebox: this is a bug in icebox (ZeroDivisionError: integer division or modulo by zero). "
    assert err.startswith(sentence) and err.count("\n") == 1
    file = Path(err.removeprefix(sentence).removeprefix("The traceback is in ").strip().removesuffix("."))
    try:
        assert "Traceback (most recent call last)" in file.read_text(encoding="utf-8")
    finally:
        file.unlink()


def test_a_reader_that_leaves() -> None:
    """`icebox games | head -1` says nothing about a broken pipe."""
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "agent.cli.main", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("argv", "unwanted"),
    [
        (["--help"], {"torch", "tyro", "pydantic", "gymnasium", "numpy"}),
        (["runs"], {"torch", "gymnasium", "stable_baselines3"}),
        (["games", "cartpole"], {"torch", "stable_baselines3"}),
        (["train", "cartpole", "--help"], {"torch", "stable_baselines3"}),
        (["train", "cartpole", "--bogus"], {"torch", "gymnasium", "stable_baselines3"}),
    ],
)
def test_a_start_is_light(argv: list[str], unwanted: set[str], tmp_path: Path) -> None:
    """A verb imports only what it needs: no torch for help, lists and mistakes."""
    if argv[0] in ("games", "train"):
        pytest.importorskip("envs.make")
    script = f"""
import sys
from agent.cli.main import main
main({argv!r})
print("IMPORTED", sorted(set(sys.modules) & {unwanted!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED []", done.stderr


def test_as_a_process(tmp_path: Path) -> None:
    """The exit code and the sentence arrive in a real process, without a traceback."""
    done = icebox("trian", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "icebox: unknown verb 'trian'. Did you mean 'train'?\n"
