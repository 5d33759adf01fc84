"""Policies damaged at random: each is refused in a sentence or read, and the interpreter sees nothing else happen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from strangers import ZOO, fresh

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small policies of several kinds, one with statistics, one in torch's old format."""
    folder = tmp_path_factory.mktemp("policies")
    seen, push = spaces.Box(-1, 1, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    small: dict[str, Any] = {"net_arch": [8, 6], "activation_fn": torch.nn.ELU}
    fresh("DQN", seen, spaces.Discrete(3), policy_kwargs=small).save(folder / "dqn.zip")
    fresh("SAC", seen, push, policy_kwargs=small, use_sde=True).save(folder / "sac.zip")
    picture = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    features = {"features_extractor_kwargs": {"features_dim": 4}}
    fresh("PPO", picture, push, "CnnPolicy", policy_kwargs=features).save(folder / "ppo.zip")
    for name in ("a2c-MountainCar-v0.zip", "a2c-MountainCar-v0.vecnormalize.pkl", "sac-Pendulum-v1.zip"):
        shutil.copy(ZOO / name, folder / name)
    return folder


def fuzz(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """What a watched process reports."""
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "tests" / "fuzzing.py"), str(folder), str(cases), str(seed)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_some_hundred_mutants(policies: Path) -> None:
    """None of 400 damaged policies runs, opens or breaks anything, and both outcomes occur."""
    report = fuzz(policies, 400, seed=0)
    assert report["findings"] == []
    assert report["refused"] > 100 and report["loaded"] > 5 and report["refused"] + report["loaded"] == 400


def test_the_watch_sees(policies: Path, tmp_path: Path) -> None:
    """The watch is awake: what imports, opens or runs something while it watches is reported."""
    code = (
        "import sys, fuzzing; sys.addaudithook(fuzzing.watch); fuzzing.allowed.add('x')\n"
        "eval('1'); import wave; open(sys.argv[1], 'w'); fuzzing.allowed.clear(); print(*fuzzing.events, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    for event in ("exec ", "import ", f"open ('{tmp_path / 'out'}', 'w'"):
        assert event in done.stdout, done.stdout + done.stderr


@pytest.mark.night
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_mutants(seed: int, policies: Path) -> None:
    """The same for 8 times 12,000."""
    report = fuzz(policies, 12_000, seed)
    assert report["findings"] == [] and report["loaded"] > 100
