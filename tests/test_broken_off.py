"""Tests of agent/cli/broken_off.py: what is saved and said when a training cannot go on, whatever the reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from short_runs import settings
from test_drive import When, begun

from agent.cli import broken_off
from agent.cli.drive import drive, drive_stock
from agent.cli.record import load_checkpoint
from agent.cli.stop import Left
from agent.config import Settings
from agent.guard import NonFinite
from envs.workers import GameFailure

ENDLESS: dict[str, Any] = {"steps": 100_000, "evaluation": {"interval_steps": 0}, "checkpoint": {"interval_steps": 0}}


def breaks(session: Any, error: BaseException, games: Any, at: int = 150) -> None:
    """Let the games raise in the middle of a step once so many steps were played."""
    receive = games.recv

    def recv() -> Any:
        if session.steps >= at:
            raise error
        return receive()

    games.recv = recv


@pytest.mark.parametrize("error", [GameFailure("pong: game 3 failed 5 times."), NonFinite("100 updates in a row.")])
@pytest.mark.parametrize("algo", ["icebox", "ppo", "dqn-sb3"])
def test_a_game_or_a_number_that_fails_ends_a_run_that_can_go_on(
    algo: str, error: RuntimeError, tmp_path: Path
) -> None:
    """The run ends with that very error, after a checkpoint of the step before; its games then begin anew."""
    chosen = settings(**ENDLESS | {"algo": algo})
    with begun(tmp_path, chosen) as (session, record, folder):
        breaks(session, error, session.games)
        with pytest.raises(type(error)) as raised:
            (drive if algo == "icebox" else drive_stock)(session, record, When())
        assert raised.value is error
        steps = session.steps
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and tree["steps"] == steps >= (100 if algo == "ppo" else 150)
    with begun(tmp_path, chosen, folder) as (session, record, _):
        assert session.steps == steps
        later = When(lambda: session.steps >= steps + 60)
        assert not (drive if algo == "icebox" else drive_stock)(session, record, later)
        if algo == "icebox":
            session.replay.check()


def test_what_was_left_is_saved_as_if_stopped(tmp_path: Path) -> None:
    """A game that does not answer a run that is to end costs its open episodes; the run counts as stopped."""
    with begun(tmp_path, settings(**ENDLESS)) as (session, record, folder):
        breaks(session, Left(), session.games)
        assert not drive(session, record, When())
        steps = session.steps
    assert load_checkpoint(folder)[0]["steps"] == steps and "it does not answer" in folder.log.read_text()


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    """Whatever else is broken: a checkpoint of weights that are not finite would spoil what is sound."""
    with begun(tmp_path, settings(**ENDLESS | {"checkpoint": {"interval_steps": 100}})) as (session, record, folder):
        breaks(session, NonFinite("so it is"), session.games)
        session.sound = lambda: False
        with pytest.raises(NonFinite):
            drive(session, record, When())
        assert type(session).sound(session)
        next(session.network.parameters()).data.fill_(float("nan"))
        assert not type(session).sound(session)
    assert "The weights are not finite" in folder.log.read_text()
    assert 100 <= load_checkpoint(folder)[0]["steps"] < 110


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    """What is a bug saves nothing: whoever finds it must not find it in a checkpoint."""
    with begun(tmp_path, settings(**ENDLESS)) as (session, record, folder):
        breaks(session, KeyError("bug"), session.games)
        with pytest.raises(KeyError):
            drive(session, record, When())
        assert not folder.checkpoints.exists()


@pytest.mark.parametrize(
    ("kind", "doing", "place", "said", "unsaid"),
    [
        ("GPU", "in an update", "cuda", ["--replay.device cpu", "--replay.capacity", "--learner.batch-size"], ["lz4"]),
        ("GPU", "in an update", "cpu", ["--learner.batch-size"], ["--replay"]),
        ("host", "while it plays", "cpu", ["--replay.compression lz4", "--replay.capacity"], ["--replay.device"]),
        ("host", "in an evaluation", "cuda", ["--evaluation.num-games"], ["--replay", "--learner"]),
        ("failed", "in an update", "cuda", ["nvidia-smi", "--device cpu"], ["--replay", "--learner"]),
    ],
)
def test_the_remedy_is_for_what_is_full(kind: str, doing: str, place: str, said: list[str], unsaid: list[str]) -> None:
    """What lies where memory is out can be made smaller or moved; nothing else is named."""
    spec = SimpleNamespace(observation_shape=(4, 84, 84), observation_dtype="uint8", stack=4)
    memory = SimpleNamespace(replay_device=place, replay_bytes=7 << 30)
    remedy = broken_off._remedy(kind, doing, SimpleNamespace(settings=Settings(), spec=spec, memory=memory))
    assert all(word in remedy for word in said) and not any(word in remedy for word in unsaid)
