"""Tests of agent/cli/drive.py: what happens at which step of a run, and what a stop leaves for the next life."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lives import differences, what_lasts
from short_runs import settings

from agent import checkpoint, probes
from agent.cli import pictures
from agent.cli.drive import drive, drive_stock
from agent.cli.record import Record, load_checkpoint
from agent.cli.session import Session
from agent.cli.stock_session import StockSession
from agent.config import Settings
from agent.telemetry.plateau import budgets_spent
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
        assert not drive(session, record, When(lambda: judging._games))
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


def plateau(action: str, budget: int, **more: Any) -> dict[str, Any]:
    """Settings of an agent that cannot learn, judged every 100 steps, with that plateau rule."""
    rule = {"action": action, "budget_steps": budget}
    return {
        "learner": {"learning_rate": 1e-12, "learning_starts": 100},
        "evaluation": {"interval_steps": 100, "plateau": rule, **more},
    }


@pytest.mark.parametrize("algo", ["icebox", "ppo"])
def test_a_plateau_ends_a_run(algo: str, tmp_path: Path) -> None:
    """The evaluation that completes the budget ends the run as finished and says why; resumed, it gets another."""
    chosen = settings(algo=algo, steps=5_000, **plateau("stop", 300))
    chosen = chosen.model_copy(update={"sb3": {"ppo": {"n_steps": 8, "batch_size": 32, "learning_rate": 1e-12}}})
    play = drive if algo == "icebox" else drive_stock
    ends = []
    folder = None
    for _ in range(2):
        with begun(tmp_path, chosen, folder) as (session, record, folder):
            assert play(session, record, When())
            history = [(steps // 100 * 100, scores) for steps, scores in record.evaluations.history if steps > 100]
            spent = [budgets_spent(history[:known], 300) for known in (len(history), len(history) - 1)]
            ends.append((record.evaluations.history[-1][0], *spent))
    assert [spent for _, *spent in ends] == [[1, 0], [2, 1]] and ends[0][0] < ends[1][0] < 5_000
    # Counted from where learning starts; that each evaluation comes a few steps late costs no further interval.
    first = next(steps for steps in judged_at(folder) if steps > 100)
    assert ends[0][0] // 100 == first // 100 + 3
    said = "plateau: no improvement for 300 steps (evaluation.plateau): the run ends here"
    assert folder.log.read_text().count(said) == 2
    assert saved_at(folder)[-1] >= judged_at(folder)[-1] == ends[-1][0]


def test_a_plateau_lowers_the_rate_in_a_resumed_run_too(tmp_path: Path) -> None:
    """The rate falls by the factor at every further budget; a run stopped anywhere goes on as one never stopped."""
    chosen = settings(steps=1_200, **plateau("lower", 200))
    rates: dict[str, dict[int, float]] = {"straight": {}, "pieces": {}}

    def watched(session: Session, name: str, until: int) -> When:
        def reached() -> bool:
            rates[name][session.clock.steps] = session.learner.rate_scale
            return until <= session.clock.steps < chosen.steps

        return When(reached)

    with begun(tmp_path / "straight", chosen) as (session, record, straight):
        assert drive(session, record, watched(session, "straight", chosen.steps))
    folder = None
    for until in (130, 520, 650, 1_200):
        with begun(tmp_path / "pieces", chosen, folder) as (session, record, folder):
            drive(session, record, watched(session, "pieces", until))
    assert differences(what_lasts(folder), what_lasts(straight)) == []
    assert rates["pieces"] == rates["straight"]
    found = sorted(set(rates["straight"].values()), reverse=True)
    assert len(found) >= 4 and found == [0.3**times for times in range(len(found))]
    assert straight.log.read_text().count("the learning rate is now multiplied by 0.3\n") == 1


def test_few_seeds_are_judged_beside_unseen_ones(tmp_path: Path) -> None:
    """With game.seeds an evaluation plays as many episodes from the training seeds; a resumed run goes on exactly."""
    chosen = settings(game={"seeds": 2}, evaluation={"episodes": 5})
    with begun(tmp_path / "straight", chosen) as (session, record, straight):
        assert drive(session, record, When())
    with begun(tmp_path, chosen) as (session, record, folder):
        assert not drive(session, record, When(lambda: session.clock.steps >= 340))
    with begun(tmp_path, chosen, folder) as (session, record, _):
        assert drive(session, record, When())
        played = [session.judge.play(session.act(0), 5, 0, seen=seen) for seen in (True, False)]
    assert differences(what_lasts(folder), what_lasts(straight)) == []
    assert [len(episodes) for episodes in played] == [5, 5]
    assert len({episode.length for episode in played[0]}) <= 2, "a greedy agent plays the same seed alike"
    lines = [line for line in straight.log.read_text().splitlines() if "evaluation at" in line]
    assert len(lines) == len(judged_at(straight)) and all("; on the training seeds " in line for line in lines)


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


def on_dashboard(folder: RunFolder) -> set[str]:
    """The tags of the numbers and pictures that a run's dashboard has."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags = event_accumulator.EventAccumulator(str(folder.path)).Reload().Tags()
    return {*tags["scalars"], *tags["images"]}


@pytest.mark.parametrize("algo", ["icebox", "ppo"])
def test_a_dashboard_changes_nothing_that_lasts(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with looks and pictures as often as possible ends bit for bit as one without any."""
    lasts = []
    for watched in (False, True):
        with monkeypatch.context() as patch:
            if watched:
                patch.setattr(probes, "LEAST_S", 0.0)
                patch.setattr(probes, "SHARE", 1e9)
                patch.setattr(pictures, "SHARE", 1e9)
                patch.setattr(pictures, "EVERY_S", 0.0)
                patch.setattr(pictures, "LAST_AFTER_S", 0.0)
            else:
                patch.setattr(probes.Probes, "after", lambda *given: None)
                patch.setattr(pictures.Pictures, "draw", lambda *given, **options: {})
            with begun(tmp_path / str(watched), settings(algo=algo)) as (session, record, folder):
                assert (drive if algo == "icebox" else drive_stock)(session, record, When())
        lasts.append(what_lasts(folder))
        assert ("play/greedy_episode" in on_dashboard(folder)) == watched
        assert ("net/srank" in on_dashboard(folder)) == (watched and algo == "icebox")
    clocked = re.compile(r"/agent/episodes/\d+/2")  # when an episode of stable-baselines3's monitor ended, in seconds
    assert [path for path in differences(*lasts) if not clocked.fullmatch(path)] == []


def test_the_overestimation_is_that_of_the_evaluation(tmp_path: Path) -> None:
    """With every evaluation comes what its start promised and what came, but not with Munchausen's bonus."""
    for name, shown in (("plain", True), ("munchausen", False)):
        chosen = settings(learner={"munchausen": 0.0 if shown else 0.9})
        with begun(tmp_path / name, chosen) as (session, record, folder):
            drive(session, record, When())
        assert ("q/overestimation" in on_dashboard(folder)) == shown


def test_in_real_time_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock there are no looks at the network, which would take longer than the game waits."""

    def refuse(*given: Any) -> None:
        raise AssertionError("looked")

    monkeypatch.setattr(probes.Probes, "after", refuse)
    realtime = {"game": {"num_games": 1, "realtime": 500}, "evaluation": {"interval_steps": 0}}
    with begun(tmp_path, settings(steps=200, **realtime)) as (session, record, folder):
        assert drive(session, record, When())
    assert "time/share_telemetry" in on_dashboard(folder)
