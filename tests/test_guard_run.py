"""Numbers that are not finite in a whole run: what its log and its dashboard say, and how it ends and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faults.non_finite import Spoilt
from short_runs import settings
from test_drive import When, begun, on_dashboard

from agent.cli.drive import drive, drive_stock
from agent.cli.record import load_checkpoint
from agent.guard import NonFinite

TAG = "faults/non_finite_steps"


def test_a_run_tells_and_counts(tmp_path: Path) -> None:
    """Three steps that are left out are told once, stand on the dashboard and in the checkpoint, and the run ends."""
    with begun(tmp_path, settings()) as (session, record, folder):
        at = {tick: {0: ("reward", np.nan)} for tick in (3, 7, 12)}
        session.games = Spoilt(session.games, at)
        assert drive(session, record, When())
    assert TAG in on_dashboard(folder) and session.faults.counts[TAG] == 3
    lines = folder.log.read_text().splitlines()
    assert sum("is not a finite number and was left out" in line for line in lines) == 1
    with begun(tmp_path, settings(), folder) as (resumed, _, _):
        assert resumed.faults.counts[TAG] == 3


@pytest.mark.parametrize("algo", ["icebox", "ppo"])
def test_a_run_that_gets_nothing_else_ends_with_a_checkpoint(algo: str, tmp_path: Path) -> None:
    """A hundred steps in a row end it by name; what was played before is saved with finite weights, and can go on."""
    chosen = settings(algo=algo, steps=1_000)
    with begun(tmp_path, chosen) as (session, record, folder):
        at = {tick: {0: ("reward", np.nan)} for tick in range(20, 1_000)}
        if algo == "icebox":
            session.games = Spoilt(session.games, at)
        else:
            inner = session.venv.unwrapped.envs[0].unwrapped
            inner.games = Spoilt(inner.games, at)
        with pytest.raises(NonFinite, match="Game 0 gave 100 steps in a row"):
            (drive if algo == "icebox" else drive_stock)(session, record, When())
        assert session.sound()
    saved, _ = load_checkpoint(folder)
    assert saved["agent"]["faults"]["non_finite_steps"] == 100
    with begun(tmp_path, chosen, folder) as (session, record, _):
        assert session.steps == saved["steps"] and session.sound()
        assert (drive if algo == "icebox" else drive_stock)(session, record, When())
