"""Runs of a second, through the launcher: what the tests of its verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cli.main import main
from agent.config import Settings
from agent.telemetry.run_folder import RunFolder, find

TINY: dict[str, Any] = {
    "steps": 600,
    "device": "cpu",
    "game": {"num_games": 4},
    "replay": {"capacity": 400},
    "network": {"hidden": [8]},
    "learner": {"learning_starts": 100, "samples_per_insert": 4},
    "evaluation": {"interval_steps": 200, "episodes": 3, "num_games": 3},
    "checkpoint": {"interval_steps": 250},
    "sb3": {
        "ppo": {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}},
        "dqn-sb3": {"learning_starts": 100, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
    },
}


def settings(**changes: Any) -> Settings:
    """Return the settings of a run of a second; a group in `changes` is laid over the group here."""
    laid = {name: {**TINY.get(name, {}), **value} for name, value in changes.items() if isinstance(value, dict)}
    return Settings.model_validate(TINY | changes | laid)


def train(runs: Path, game: str, *flags: str) -> tuple[int, RunFolder]:
    """Run `icebox train` in this process with TINY as --config; return its exit code and the folder it made."""
    config = runs.parent / "tiny.yaml"
    config.write_text(str(TINY).replace("'", '"'))  # JSON is YAML
    code = main(["train", game, "--config", str(config), "--runs-dir", str(runs), *flags])
    return code, RunFolder.open(find(runs, "latest"))
