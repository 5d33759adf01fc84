"""Process memory per Atari transition: our replay, filled, against stable-baselines3's. Takes a minute and 0.8 GB.

    .venv/bin/python benchmarks/memory.py        # prints a table, writes results/memory.json

Each is measured in a process of its own, as resident memory after filling minus before constructing. Frames are random,
so that no page is shared, compressed or left untouched.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.replay.replay import Replay  # noqa: E402
from benchmarks.results import write  # noqa: E402

LIMIT = 7_300  # bytes per transition, the goal
GAMES = 8
SHAPE = (4, 84, 84)
EPISODE = 1_000  # steps; Atari's are longer, so that fewer rows hold terminal observations
TRANSITIONS = {"icebox": 100_000, "stable-baselines3": 10_000}  # at 100,000 the latter would take 5.6 GB


class Step(NamedTuple):
    """The contract of `agent.types.Step`."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    final_observation: None = None


def fill_ours(transitions: int) -> tuple[object, int]:
    """Prioritized, 3-step, stack of 4, filled until the ring has gone round and been sampled."""
    replay = Replay(
        num_games=GAMES,
        capacity=transitions,
        observation_shape=SHAPE,
        observation_dtype="uint8",
        stack=SHAPE[0],
        n_step=3,
        discount=0.99,
        priority_exponent=0.5,
        reward_clip=1.0,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    )
    rng = np.random.default_rng(0)
    every, none = np.ones(GAMES, bool), np.zeros(GAMES, bool)

    def step(time: int) -> Step:
        at = time % (EPISODE + 1)  # an episode's actions, and the one that is ignored after its end
        observation = rng.integers(0, 256, (GAMES, *SHAPE), dtype=np.uint8)
        ended = every if at == EPISODE else none
        return Step(observation, rng.normal(size=GAMES), ended, none, every if at == 0 else none)

    before = step(0)
    for time in range(1, replay.film.length + 100):
        after = step(time)
        replay.insert(before, rng.integers(0, 18, GAMES), after)
        before = after
    for _ in range(100):
        batch = replay.sample(32, 0.5)
        replay.update_priorities(batch.index, torch.randn(32))
    return replay, len(replay)


def fill_sb3(transitions: int) -> tuple[object, int]:
    """stable-baselines3's ReplayBuffer as its DQN makes it for Atari: uniform, 1-step."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    observations = spaces.Box(0, 255, SHAPE, np.uint8)
    buffer = ReplayBuffer(transitions, observations, spaces.Discrete(18), device="cpu", n_envs=GAMES)
    rng = np.random.default_rng(0)
    for _ in range(transitions // GAMES):
        before, after = rng.integers(0, 256, (2, GAMES, *SHAPE), dtype=np.uint8)
        ends = rng.random(GAMES) < 1 / EPISODE
        buffer.add(before, after, rng.integers(0, 18, GAMES), rng.normal(size=GAMES), ends, [{}] * GAMES)
    return buffer, buffer.size() * GAMES


FILL: dict[str, Callable[[int], tuple[object, int]]] = {"icebox": fill_ours, "stable-baselines3": fill_sb3}


def measure(name: str) -> dict[str, float]:
    """Return what one replay takes in this process."""
    FILL[name](80)  # what its imports and torch's pools take is not the replay's
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    kept, transitions = FILL[name](TRANSITIONS[name])
    gc.collect()
    taken = process.memory_info().rss - before
    del kept
    return {"transitions": transitions, "bytes": taken, "bytes_per_transition": taken / transitions}


def main() -> None:
    """Measure each in a fresh process, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(FILL), help="measure this one in this process and print it as JSON")
    only = parser.parse_args().only
    if only:
        print(json.dumps(measure(only)))
        return
    results = {}
    for name in FILL:
        command = [sys.executable, __file__, "--only", name]
        results[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{'replay':20}{'transitions':>14}{'MiB':>10}{'bytes each':>14}")
    for name, found in results.items():
        each = found["bytes_per_transition"]
        print(f"{name:20}{found['transitions']:14,}{found['bytes'] / 2**20:10.1f}{each:14,.0f}")
    kept = results["icebox"]["bytes_per_transition"] <= LIMIT
    payload = {
        "what": "resident memory of the process per transition of 84x84x4 u8; icebox prioritized and 3-step",
        "limit_bytes_per_transition": LIMIT,
        "within_limit": kept,
        "results": results,
    }
    print(f"{'within' if kept else 'ABOVE'} the limit of {LIMIT:,} bytes; written to {write('memory', payload)}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
