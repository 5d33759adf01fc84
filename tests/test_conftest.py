"""--fast and --night choose tests by their length, so that no test asks for itself how long it may take."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_short(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.parametrize("size", [1, pytest.param(500, marks=pytest.mark.night)])
def test_of_two_sizes(size): print("size", size, end=";")

@pytest.mark.night
@pytest.mark.slow
def test_long(): pass
"""


@pytest.mark.parametrize(
    ("options", "passed", "skipped"),
    [
        ([], 3, 2),
        (["--fast"], 2, 0),
        (["--night"], 2, 0),
        (["--night", "-m", "slow"], 1, 0),
    ],
)
def test_lengths(tmp_path: Path, options: list[str], passed: int, skipped: int) -> None:
    """Without options the long versions are skipped by name; --fast drops the slow ones too, --night all but the long."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_sizes.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: gpu\n    slow: slow\n    night: night\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-s", "-p", "no:cacheprovider", *options]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120).stdout
    assert f"{passed} passed" in out and (f"{skipped} skipped" in out) == (skipped > 0), out
    assert ("a night test: ./icebox test --night" in out) == (skipped > 0)
    assert ("size 500;" in out) == (options == ["--night"])


def test_both_at_once_are_refused(tmp_path: Path) -> None:
    """--fast with --night is a mistake that is named."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    command = [sys.executable, "-m", "pytest", "--fast", "--night"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4 and "--fast and --night exclude each other" in done.stderr
