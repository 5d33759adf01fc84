"""Tests of agent/cli/drive.py: what happens at which step of a run, and what a stop leaves for the next life."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lives import differences, what_lasts
from short_runs import settings

from agent import checkpoint
from agent.cli.drive import drive, drive_stock
from agent.cli.record import Record, load_checkpoint
from agent.cli.session import Session
from agent.cli.stock_session import StockSession
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder


class When:
    """A stop that is asked as soon as a condition holds."""

    def __init__(self, condition: Any = lambda: False):
        self._condition = condition

    @property
    def signal(self) -> int | None:
        return 2 if self._condition() else None


@contextmanager
def begun(
    root: Path, chosen: Settings, folder: RunFolder | None = None
) -> Iterator[tuple[Session | StockSession, Record, RunFolder]]:
    """A session and its record in a new folder, or resumed in the given one."""
    resumed = None if folder is None else load_checkpoint(folder)[0]
    folder = folder or RunFolder.create(root, "cartpole", 0, None, chosen, ["test"])
    session = (Session if chosen.algo == "icebox" else StockSession)("cartpole", chosen)
    record = Record(folder, "cartpole", chosen, ["test"], quiet=True, resumed=resumed)
    try:
        if resumed is not None:
            session.load_state_dict(resumed["agent"])
        yield session, record, folder
    finally:
        record.close()
        session.close()


def judged_at(folder: RunFolder) -> list[int]:
    with np.load(folder.evaluations) as arrays:
        return arrays["timesteps"].tolist()


def saved_at(folder: RunFolder) -> list[int]:
    lines = folder.log.read_text().splitlines()
    return [int(line.split(" at ")[1].split()[0].replace(",", "")) for line in lines if line.endswith("is safe")]


def first_from(ticks: list[int], interval: int) -> list[int]:
    """The first step of the ticks at or after every multiple of `interval`."""
    return sorted({next(at for at in ticks if at >= mark) for mark in range(interval, ticks[-1] + 1, interval)})


def test_evaluations_and_checkpoints_come_at_their_steps(tmp_path: Path) -> None:
    """Both come at the first step from every multiple of their interval on, and at the end."""
    with begun(tmp_path / "other", settings()) as (session, _, _):
        ticks = []
        for tick in session.ticks():
            ticks.append(tick.steps)
            if tick.steps >= 600:
                break
    with begun(tmp_path, settings()) as (session, record, folder):
        assert drive(session, record, When())
    assert judged_at(folder) == sorted({*first_from(ticks, 200), ticks[-1]})
    assert saved_at(folder) == sorted({*first_from(ticks, 250), ticks[-1]})
    assert folder.meta()["steps"] == ticks[-1]


@pytest.mark.parametrize("algo", ["icebox", "dqn-sb3"])
def test_intervals_of_zero(algo: str, tmp_path: Path) -> None:
    """With 0 nothing is evaluated, and the only checkpoint is that of the end."""
    chosen = settings(algo=algo, steps=200, evaluation={"interval_steps": 0}, checkpoint={"interval_steps": 0})
    with begun(tmp_path, chosen) as (session, record, folder):
        assert (drive if algo == "icebox" else drive_stock)(session, record, When())
    assert not folder.evaluations.exists() and not (folder.path / "best").exists()
    assert len(saved_at(folder)) == 1 and saved_at(folder)[0] >= 200


@pytest.mark.parametrize("algo", ["icebox", "ppo", "dqn-sb3"])
def test_the_score_ends_a_run(algo: str, tmp_path: Path) -> None:
    """The first evaluation that reaches stop_at_score ends the run as finished, saved and not evaluated again."""
    chosen = settings(algo=algo, steps=5_000, evaluation={"stop_at_score": 1.0})
    with begun(tmp_path, chosen) as (session, record, folder):
        assert (drive if algo == "icebox" else drive_stock)(session, record, When())
    assert len(judged_at(folder)) == 1 and 200 <= judged_at(folder)[0] < 400
    more = 16 if algo == "dqn-sb3" else 0  # SB3 plays one more round of train_freq steps in 4 games
    assert saved_at(folder)[-1] == judged_at(folder)[0] + more


def test_a_stop_during_an_evaluation_ends_it_and_owes_it(tmp_path: Path) -> None:
    """The evaluation is left at once, made up for when the run goes on, and the run ends as one never stopped."""
    with begun(tmp_path / "straight", settings()) as (session, record, straight):
        assert drive(session, record, When())
    with begun(tmp_path, settings()) as (session, record, folder):
        judging = session.judge
        assert not drive(session, record, When(lambda: judging._games is not None))
        assert not folder.evaluations.exists()
        assert saved_at(folder) == judged_at(straight)[:1]
    with begun(tmp_path, settings(), folder) as (session, record, _):
        assert drive(session, record, When())
    assert differences(what_lasts(folder), what_lasts(straight)) == []


def test_the_last_evaluation_can_be_owed_too(tmp_path: Path) -> None:
    """A run that is stopped after its last step, before it was judged, is not finished; going on only judges it."""
    with begun(tmp_path, settings(steps=300, evaluation={"interval_steps": 1000})) as (session, record, folder):
        assert not drive(session, record, When(lambda: session.clock.steps >= 300))
        played = session.clock.steps
    with begun(tmp_path, settings(steps=300, evaluation={"interval_steps": 1000}), folder) as (session, record, _):
        assert drive(session, record, When())
        assert session.clock.steps == played
    assert judged_at(folder) == [played]


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_stable_baselines_is_driven_alike(algo: str, tmp_path: Path) -> None:
    """Evaluations, checkpoints, episodes and the speed are there; a stop saves once, and the rest is played later."""
    chosen = settings(algo=algo)
    with begun(tmp_path, chosen) as (session, record, folder):
        algorithm = session.algorithm
        assert not drive_stock(session, record, When(lambda: algorithm.num_timesteps >= 460))
        stopped = algorithm.num_timesteps
    assert 300 <= stopped < 600
    assert saved_at(folder)[-1] == stopped and len(set(saved_at(folder))) == len(saved_at(folder)) == 2
    assert "steps/s" in folder.log.read_text()
    with begun(tmp_path, chosen, folder) as (session, record, _):
        assert drive_stock(session, record, When())
        assert session.algorithm.num_timesteps >= 600
    assert len(judged_at(folder)) >= 3 and judged_at(folder)[-1] == saved_at(folder)[-1]
    assert len(folder.monitor.read_text().splitlines()) > 10
    assert checkpoint.load_newest(folder.path / "best").tree["steps"] in judged_at(folder)
