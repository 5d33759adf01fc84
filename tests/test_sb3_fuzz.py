"""Policies damaged at random: each is refused in a sentence or read, and the interpreter sees nothing else happen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from strangers import ZOO, fresh

ROOT = Path(__file__).parent.parent
CHUNK = 10_000  # cases of one process


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small policies of several kinds, one with statistics, one in torch's old format."""
    folder = tmp_path_factory.mktemp("policies")
    seen, push = spaces.Box(-1, 1, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    small: dict[str, Any] = {"net_arch": [8, 6], "activation_fn": torch.nn.ELU}
    models = {
        "dqn": fresh("DQN", seen, spaces.Discrete(3), policy_kwargs=small),
        "sac": fresh("SAC", seen, push, policy_kwargs=small, use_sde=True),
    }
    picture = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    features = {"features_extractor_kwargs": {"features_dim": 4}}
    models["ppo"] = fresh("PPO", picture, push, "CnnPolicy", policy_kwargs=features)
    seen_two = spaces.Dict(picture=picture, vector=seen)
    kinds = {"features_extractor_kwargs": {"cnn_output_dim": 4}, "net_arch": [5]}
    several = spaces.MultiDiscrete([3, 2])
    models["dict"] = fresh("A2C", seen_two, several, "MultiInputPolicy", policy_kwargs=kinds)
    for name, model in models.items():
        model.start_time = 0  # the same bytes each time, so that a seed means the same damage
        model.save(folder / f"{name}.zip")
    for name in ("a2c-MountainCar-v0.zip", "a2c-MountainCar-v0.vecnormalize.pkl", "sac-Pendulum-v1.zip"):
        shutil.copy(ZOO / name, folder / name)
    return folder


def fuzz(folder: Path, *words: int) -> dict[str, Any]:
    """What a watched process reports."""
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "tests" / "fuzzing.py"), str(folder), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=7200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_some_thousand_mutants(seed: int, policies: Path) -> None:
    """None of twice 3,000 damaged policies runs, opens or breaks anything, takes more memory than is promised, or is
    refused by an error that nobody thought of."""
    report = fuzz(policies, 3000, seed)
    assert report["findings"] == []
    assert report["refused"] > 1000 and report["loaded"] > 300 and report["refused"] + report["loaded"] == 3000


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
def test_many_mutants(policies: Path) -> None:
    """The same for a million, or as many as ICEBOX_FUZZ_CASES says, on every core."""
    cases = int(os.environ.get("ICEBOX_FUZZ_CASES", 1_000_000))
    each = min(CHUNK, cases)
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        reports = list(cores.map(lambda seed: fuzz(policies, each, seed), range(100, 100 + -(-cases // each))))
    assert [finding for report in reports for finding in report["findings"]] == []
    assert all(report["loaded"] > each / 20 for report in reports)
