"""Tests of agent/telemetry/report/settings_apart.py: which runs belong together, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import reported

from agent.config import Settings
from agent.telemetry.report.gather import gather
from agent.telemetry.report.settings_apart import apart, differences, shown


def labels(*paths: Path) -> dict[str, int]:
    settings = apart([gather(path) for path in paths], lambda game: Settings())
    return {setting.label: len(setting.runs) for setting in settings}


def test_runs_that_differ_in_their_seed_are_one_setting(tmp_path: Path) -> None:
    """Seeds do not make settings; whatever else differs on one game does, down to the number of steps."""
    same = [reported.run(tmp_path, [1.0], seed=seed) for seed in range(3)]
    longer = reported.run(tmp_path, [1.0], settings={"steps": 5})
    wider = reported.run(tmp_path, [1.0], settings={"learner": {"batch_size": 64}})
    assert labels(*same) == {"Icebox": 3}
    assert labels(*same, wider) == {"Icebox": 3, "Icebox, batch size 64": 1}
    assert labels(*same, longer) == {"Icebox": 3, "Icebox, steps 5": 1}


def test_on_another_game_the_same_differences_are_the_same_setting(tmp_path: Path) -> None:
    """Games are trained and judged for lengths of their own: that alone does not tear a setting apart."""
    one = reported.run(tmp_path, [1.0], settings={"algo": "ppo", "steps": 5})
    other = reported.run(tmp_path, [1.0], game="acrobot", settings={"algo": "ppo", "steps": 9})
    assert labels(one, other) == {"PPO (SB3)": 2}
    (setting,) = apart([gather(one), gather(other)], lambda game: Settings())
    assert setting.differences == {"algo": "ppo", "steps": "cartpole: 5; acrobot: 9"}


def test_labels_tell_settings_apart(tmp_path: Path) -> None:
    """A name that all runs of a setting were given is its label; long and equal ones are shortened and numbered."""
    named = [reported.run(tmp_path, [1.0], seed=seed, name="mine") for seed in range(2)]
    assert labels(*named) == {"mine": 2}
    many = {"learner": {"batch_size": 64, "learning_rate": 0.001, "max_grad_norm": 3.0}, "replay": {"n_step": 3}}
    long = reported.run(tmp_path, [1.0], settings=many)
    plain = reported.run(tmp_path, [1.0])
    assert labels(long, plain) == {"Icebox, 4 settings changed": 1, "Icebox": 1}
    ppo = reported.run(tmp_path, [1.0], settings=many | {"algo": "ppo"})
    assert labels(long, ppo) == {"Icebox": 1, "PPO (SB3)": 1}  # what all share tells nothing apart
    other = reported.run(tmp_path, [1.0], name="mine", settings={"algo": "a2c"})
    assert labels(*named, other) == {"mine #1": 2, "mine #2": 1}
    odd = reported.run(tmp_path, [1.0], name=["no name"])
    assert labels(odd) == {"Icebox": 1}


def test_unknown_settings_stay_alone(tmp_path: Path) -> None:
    """Runs whose config.yaml is lost are never put together."""
    paths = [reported.run(tmp_path, [1.0], seed=seed) for seed in range(2)]
    for path in paths:
        (path / "config.yaml").unlink()
    assert labels(*paths) == {f"unknown settings of {path.name}": 1 for path in paths}


def test_differences_name_what_was_changed() -> None:
    """Dotted names and values, without the seed; tables of stable-baselines3's settings included."""
    changed = Settings.model_validate({"seed": 4, "learner": {"batch_size": 64}, "sb3": {"ppo": {"n_steps": 5}}})
    assert differences(changed, Settings()) == {"learner.batch_size": 64, "sb3": {"ppo": {"n_steps": 5}}}


@pytest.mark.parametrize(
    ("value", "text"), [(True, "on"), (20_000, "20,000"), (0.5, "0.5"), (None, "none"), ((8, 8), "8 x 8"), ("x", "x")]
)
def test_values_as_a_person_reads_them(value: object, text: str) -> None:
    """Switches, thousands and lists."""
    assert shown(value) == text
