"""Tests of agent/cli/train.py: what is said before a run begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.cli import train
from agent.cli.session import Session
from agent.config import Settings


@pytest.mark.parametrize(("steps", "warned"), [(100, True), (101, False)])
def test_a_run_that_never_learns_is_announced(steps: int, warned: bool) -> None:
    """A run that ends before learning starts says so, with both numbers and the setting; no other run does."""
    settings = Settings.model_validate({"steps": steps, "learner": {"learning_starts": 100}, "device": "cpu"})
    session = Session("cartpole", settings)
    opening = train._opening(session, SimpleNamespace(path=Path("runs/cartpole/x")), "cartpole", settings)
    session.close()
    expected = "warning: nothing will be learned: learning starts after 100 steps (--learner.learning-starts), the run has 100"
    assert (opening.splitlines()[-1] == expected) == warned == ("warning" in opening)
