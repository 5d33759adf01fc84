"""Tests of agent/cli/errors.py: which exception becomes which sentence and exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agent.cli import errors


def caught(act) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raised(error: BaseException) -> BaseException:
    """The error as it arrives when a `raise` in our code made it."""

    def act() -> None:
        raise error

    return caught(act)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count this file as code of the project."""
    monkeypatch.setattr(errors, "_OURS", (*errors._OURS, str(Path(__file__).resolve())))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("The setting is wrong."), 2, "The setting is wrong."),
        (FileNotFoundError("There is no run 'x'."), 2, "There is no run 'x'."),
        (RuntimeError("The worker died."), 1, "The worker died."),
        (OSError("The checkpoint is damaged."), 1, "The checkpoint is damaged."),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (errors.UsageError("one.\ntwo."), 2, "one.\nicebox: two."),
    ],
)
def test_sentences(
    ours: None, error: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What our code raises on purpose, and what the system refuses, is one line and no traceback."""
    assert errors.report(raised(error)) == code
    assert capsys.readouterr() == ("", f"icebox: {message}\n")


@pytest.mark.parametrize(
    "act",
    [lambda: np.zeros(2) + np.zeros(3), lambda: int("x"), lambda: {}["x"], lambda: None + 1],
    ids=["numpy", "int", "key", "type"],
)
def test_other_peoples_errors_are_bugs(
    ours: None, act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ValueError that no `raise` of ours made is a bug whose traceback is kept, not a sentence for the user."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert errors.report(caught(act)) == 70
    (file,) = tmp_path.iterdir()
    assert str(file) in capsys.readouterr().err
    assert "test_errors.py" in file.read_text(encoding="utf-8")


def test_an_error_raised_elsewhere_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `raise` outside of agent/ and envs/ is not for the user either."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert errors.report(raised(ValueError("foreign"))) == 70


def test_a_traceback_on_request(
    ours: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ICEBOX_TRACEBACK=1 shows the traceback before the sentence."""
    monkeypatch.setenv("ICEBOX_TRACEBACK", "1")
    assert errors.report(raised(ValueError("The setting is wrong."))) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("icebox: The setting is wrong.\n")


@dataclass(frozen=True)
class Arguments:
    """For the tests."""

    run: str
    """Which."""
    episodes: int = 3
    """How many."""
    share: float = 0.5
    """How much."""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--run is missing."),
        (["--run", "x", "--episodes", "y"], "--episodes: must be a whole number, got 'y'."),
        (["--run", "x", "--share", "y"], "--share: must be a number, got 'y'."),
        (["--run", "x", "--episode", "3"], "unknown flag --episode. Did you mean --episodes?"),
        (["--run", "x", "--episodes", "y" * 150], f"--episodes: must be a whole number, got '{'y' * 150}'."),
    ],
)
def test_parse(argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tyro's boxes become one sentence, never broken by the width of the terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(errors.UsageError) as error:
        errors.parse(Arguments, argv, prog="icebox test")
    assert str(error.value) == f"{message} 'icebox test --help' lists all flags."


def test_parse_leaves_the_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width that tyro is told is put back, and a good command line comes through."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert errors.parse(Arguments, ["--run", "x"], prog="icebox test") == Arguments("x")
    assert "COLUMNS" not in errors.os.environ
