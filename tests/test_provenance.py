"""Tests of agent/telemetry/provenance.py."""

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from agent.telemetry import provenance


def test_versions_are_those_that_run() -> None:
    """Python's and torch's version are the running ones; what is not installed is None, not an error."""
    versions = provenance.versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__
    assert set(versions) >= {"icebox", "numpy", "gymnasium", "stable-baselines3"}


def test_host_facts_are_json() -> None:
    """The machine is described in JSON values, with at least one core and some memory."""
    facts = json.loads(json.dumps(provenance.host_facts()))
    assert facts["cores"] >= 1 and facts["memory_gib"] > 0 and facts["processor"]


def test_commit_is_that_of_the_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout has its commit, marked when changed; a source inside somebody else's repository has none."""
    source = tmp_path / "repo"
    (source / "agent" / "telemetry").mkdir(parents=True)
    file = source / "agent" / "telemetry" / "provenance.py"
    file.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert provenance.git_commit() is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(source), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert provenance.git_commit() is None  # no commit yet
    git("add", ".")
    git("commit", "-qm", "one")
    assert provenance.git_commit() == git("rev-parse", "HEAD")
    file.write_text("2\n")
    assert provenance.git_commit() == git("rev-parse", "HEAD") + "-dirty"
    inner = source / "site-packages" / "agent" / "telemetry"
    inner.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(inner / "provenance.py"))
    assert provenance.git_commit() is None
