"""The host's compiler: a library that loads, and words instead of a traceback where there is none."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from agent.freeze.emit import c_compile
from agent.freeze.emit.c_compile import compile_shared
from compiled import emitted
from integer_graphs import Builder


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_from_a_folder_and_from_bytes(tmp_path: Path) -> None:
    """Both give a library whose self-test passes; a processor's name that the compiler does not know is left out."""
    files = emitted(Builder((3,), "uint8").dense(4).done())
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    for number, source in enumerate((tmp_path, files)):
        library = compile_shared(source, tmp_path / f"{number}.so")
        assert ctypes.CDLL(str(library)).policy_self_test() == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c_compile, "NATIVE", "-march=nonesuch")
        assert ctypes.CDLL(str(compile_shared(files, tmp_path / "plain.so"))).policy_self_test() == 0


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert c_compile.compiler() is None
    with pytest.raises(ValueError, match="apt install gcc"):
        compile_shared(tmp_path, tmp_path / "policy.so")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_code_that_does_not_compile(tmp_path: Path) -> None:
    """The compiler's own words are shown."""
    with pytest.raises(ValueError, match="(?s)could not compile the policy.*nonsense"):
        compile_shared({"policy.c": b"nonsense;\n#error", "policy.h": b""}, tmp_path / "policy.so")
