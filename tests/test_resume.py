"""A run that is stopped and resumed in new processes equals, bit for bit, the run that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lives import differences, live, what_lasts

from agent.config import Settings
from agent.telemetry.run_folder import RunFolder

STEPS = 6_000
COMMON: dict[str, Any] = {"steps": STEPS, "checkpoint": {"interval_steps": 0}, "device": "cpu"}
RUNS: dict[str, dict[str, Any]] = {
    "cartpole": {
        "replay": {"capacity": 3_000},
        "network": {"hidden": [32, 32]},
        "learner": {"learning_starts": 200, "target_interval": 70, "learning_rate": 1e-3, "learning_rate_end": 0.0},
        "evaluation": {"interval_steps": 1_500, "episodes": 4},
    },
    "minatar/breakout": {
        "game": {"num_games": 5},
        "replay": {"capacity": 3_000, "priority_exponent": 0.6, "n_step": 3},
        "network": {"hidden": [32], "dueling": True},
        "learner": {"learning_starts": 500, "target_interval": 100, "samples_per_insert": 4},
        "evaluation": {"interval_steps": 4_000, "episodes": 3, "epsilon": 0.1},
    },
    "minatar/freeway flagship": {  # what BTR is made of but IMPALA, every schedule, and the plateau rule
        "game": {"num_games": 6, "minatar": {"max_steps": 150}},
        "actor": {"epsilon_schedule": "exponential", "epsilon_ladder": 4.0, "epsilon_off_after": 4_500},
        "replay": {"capacity": 3_000, "priority_exponent": 0.2, "n_step": 5, "n_step_end": 2},
        "network": {"hidden": [24], "distribution": "implicit", "noisy": True, "dueling": True, "layer_norm": True},
        "learner": {
            "learning_starts": 500, "target_interval": 60, "samples_per_insert": 4, "munchausen": 0.9,
            "discount_end": 0.9, "learning_rate": 1e-3, "average_updates": 100,
        },  # fmt: skip
        "evaluation": {"interval_steps": 1_000, "episodes": 3, "plateau": {"action": "lower", "budget_steps": 1_000}},
    },
    "atari/pong": {
        "game": {"num_games": 2, "atari": {"max_frames": 1_600}},
        "replay": {"capacity": 4_000, "reward_clip": 1.0, "n_step": 3, "priority_exponent": 0.5},
        "network": {"hidden": [64]},
        "learner": {"learning_starts": 1_000, "target_interval": 50, "samples_per_insert": 0.5},
        "evaluation": {"interval_steps": 0},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_run_in_four_processes_equals_the_run_in_one(run: str, tmp_path: Path) -> None:
    """Weights, replay, generators, games, episode log and evaluations are the same to the last bit."""
    game = run.split()[0]
    if game.startswith("atari"):
        pytest.importorskip("ale_py")
    settings = Settings.model_validate(COMMON | RUNS[run])
    stops = [*sorted(random.Random(run).sample(range(600, STEPS - 100), 3)), STEPS]
    # Atari games start anew at a checkpoint, so there the uninterrupted run saves at the same steps.
    straight = live(tmp_path / "straight", game, settings, stops if game.startswith("atari") else [STEPS])
    for stop in stops:
        words = [str(tmp_path / "pieces"), game, settings.model_dump_json(), str(stop)]
        root = str(Path(__file__).resolve().parents[1])
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("lives.py")), *words],
            check=True,
            env=os.environ | {"PYTHONPATH": root},
        )
    pieces = RunFolder.open(Path((tmp_path / "pieces").read_text()))
    left, right = what_lasts(straight), what_lasts(pieces)
    assert left["episodes"], "a comparison of empty logs would prove nothing"
    assert differences(left, right) == []
