"""Tests of agent/telemetry/report/references.py: what is known of a game without learning."""

from __future__ import annotations

import pytest

from agent.config import Settings
from agent.telemetry.report import references as module
from agent.telemetry.report.references import references


def test_random_play_is_measured_and_repeats() -> None:
    """Random CartPole lasts about 22 steps, counts as solved at 475, and the same number comes every time."""
    known = references("cartpole", Settings())
    assert 15 < known.random < 35 and (known.frames_per_step, known.note) == (1, "")
    assert known == references("cartpole", Settings()) and known.solved_at is not None


def test_continuous_actions_are_drawn_within_their_limits() -> None:
    """Games with axes have random play as well."""
    assert -2000 < references("gym:Pendulum-v1", Settings()).random < -700


def test_a_game_that_takes_for_ever_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the steps that a report is worth, the rest is still known and a sentence says what is missing."""
    monkeypatch.setattr(module, "MOST_STEPS", 50)
    known = references("cartpole", Settings())
    assert known.random is None and known.solved_at is not None and "take more than 50 steps" in known.note


@pytest.mark.parametrize("game", ["no-such-game", "gym:NoSuchGame-v0", "gym:os.path:Evil-v0", "gym:", ""])
def test_a_game_that_does_not_start_is_a_sentence(game: str) -> None:
    """A game that is unknown here costs its references and not the report; no module of its name is imported."""
    known = references(game, Settings())
    assert (known.random, known.solved_at, known.frames_per_step) == (None, None, 1)
    assert known.note.startswith("Random play is not shown")


def test_atari_frames_are_known_without_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ale-py is missing, the frames of a step still follow from the settings."""

    def missing(*arguments: object, **options: object) -> None:
        raise ValueError("needs ale-py")

    monkeypatch.setattr(module, "spec", missing)
    assert references("atari/pong", Settings()).frames_per_step == 4


def test_atari_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator's games play at random as well; here they are stopped at once."""
    pytest.importorskip("ale_py")
    monkeypatch.setattr(module, "MOST_STEPS", 10)
    known = references("atari/pong", Settings())
    assert known.frames_per_step == 4 and "take more than 10 steps" in known.note
