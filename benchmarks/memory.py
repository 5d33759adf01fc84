"""Memory per Atari transition: our replay against stable-baselines3's, and our replay compressed. Takes five minutes.

    .venv/bin/python benchmarks/memory.py        # prints two tables, writes results/memory.json; needs 9 GB

Each is measured in a process of its own, as resident memory after filling minus before constructing. For the first two
frames are random, so that no page is shared, compressed or left untouched. For the compressed replay they are Pong's
with random actions, and its batches are compared and timed, taking turns, with those of an uncompressed replay of the
same content.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.config import AtariSettings  # noqa: E402
from agent.replay.frames import CompressedFrames  # noqa: E402
from agent.replay.replay import Replay  # noqa: E402
from benchmarks.results import write  # noqa: E402
from envs.make import make_vector_env  # noqa: E402

LIMIT = 7_300  # bytes per transition, the goal
GAMES = 8
SHAPE = (4, 84, 84)
EPISODE = 1_000  # steps; Atari's are longer, so that fewer rows hold terminal observations
COMPRESSED = "icebox, lz4"  # its row in the tables
ROWS = (200_000, 1_000_000)  # of the compressed replay
DISTINCT = 50_000  # of its frames; they come round again, and are compressed and stored again
LIMIT_BYTES = 1_500_000_000  # of a million compressed transitions
LIMIT_RATIO = 1.3  # of the time that sampling takes
PAIRS = 1_000  # of batches timed
RICHER = ("seaquest", "qbert", "ms_pacman", "up_n_down")  # pictures that compress less; for their bytes only
TRANSITIONS = {"icebox": 100_000, "stable-baselines3": 10_000}  # at 100,000 the latter would take 5.6 GB


class Step(NamedTuple):
    """The contract of `agent.types.Step`."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    final_observation: None = None


def make_replay(transitions: int, compression: str = "none") -> Replay:
    """Prioritized, 3-step, stack of 4."""
    return Replay(
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
        compression=compression,
    )


def fill_ours(transitions: int) -> tuple[object, int]:
    """Our replay, filled until the ring has gone round and been sampled."""
    replay = make_replay(transitions)
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


def play(game: str, ticks: int) -> Iterator[Step]:
    """Yield what GAMES copies of an Atari game answer to random actions."""
    games = make_vector_env(f"atari/{game}", GAMES, 0, atari=AtariSettings().model_dump())
    rng = np.random.default_rng(0)
    try:
        yield games.reset(0)
        for _ in range(ticks - 1):
            games.send(rng.integers(games.spec.num_actions, size=GAMES))
            yield games.recv()
    finally:
        games.close()


def fill_with(replay: Replay, frames: np.ndarray) -> int:
    """Fill `replay` with frames, u8 [T, GAMES, 84, 84], an episode again and again; return the rows of every game."""
    rng, none = np.random.default_rng(0), np.zeros(GAMES, bool)
    rows = replay.film.length + 100
    observation = np.zeros((2, GAMES, *SHAPE), np.uint8)  # replay takes the newest frame of each
    for row in range(rows):
        at = row % len(frames)
        ended, soon_ended = (np.full(GAMES, at == len(frames) - left) for left in (1, 2))
        observation[0, :, -1], observation[1, :, -1] = frames[at], frames[(at + 1) % len(frames)]
        before = Step(observation[0], rng.normal(size=GAMES), ended, none, np.full(GAMES, at == 0))
        after = Step(observation[1], rng.normal(size=GAMES), soon_ended, none, none)
        replay.insert(before, rng.integers(0, 6, GAMES), after)
    return rows


def uncompressed(compressed: Replay, transitions: int, frames: np.ndarray, rows: int) -> Replay:
    """Return what `fill_with` would make of an uncompressed replay, the frames taken from where they came from."""
    plain, length = make_replay(transitions), compressed.film.length
    kept = plain.film.frames.tensor[:-1].numpy().reshape(length, *frames.shape[1:])
    place = np.arange(length)
    seen = place + (rows - 1 - place) // length * length  # when the row at each place of the ring was written
    for start in range(0, length, 1_000):
        kept[start : start + 1_000] = frames[seen[start : start + 1_000] % len(frames)]
    state = compressed.state_dict()
    film = state["film"] | {"frames": plain.film.frames.tensor[:-1]}  # as version 1 kept them
    plain.load_state_dict(state | {"film": film})
    return plain


def compare(plain: Replay, compressed: Replay) -> dict[str, float]:
    """Time batches of 32 of two replays with the same content, taking turns; SystemExit where they differ."""
    seconds: dict[str, list[float]] = {"none": [], "lz4": []}
    for pair in range(PAIRS):
        batches = {}
        turns = [("none", plain), ("lz4", compressed)]
        for name, replay in turns[:: 1 if pair % 2 else -1]:
            start = time.thread_time()  # of the one thread that samples: other programs may be running
            batches[name] = replay.sample(32, 0.5)
            seconds[name].append(time.thread_time() - start)
        if not all(torch.equal(*fields) for fields in zip(batches["none"], batches["lz4"], strict=True)):
            sys.exit("The compressed replay's batch is another.")
        error = torch.randn(32)
        for name, replay in turns:
            replay.update_priorities(batches[name].index, error)
    ratios = np.array(seconds["lz4"]) / np.array(seconds["none"])
    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    return {
        "sample_us": medians["none"] * 1e6,
        "sample_us_compressed": medians["lz4"] * 1e6,
        "ratio_of_medians": medians["lz4"] / medians["none"],
        "ratio_quartiles": [float(quartile) for quartile in np.quantile(ratios, (0.25, 0.5, 0.75))],
    }


def measure_compressed() -> dict[str, object]:
    """Return memory and sampling of the compressed replay at every number of ROWS, and the bytes of RICHER frames."""
    torch.set_num_threads(1)
    frames = np.empty((DISTINCT // GAMES, GAMES, *SHAPE[1:]), np.uint8)
    for row, step in enumerate(play("pong", len(frames))):
        frames[row] = step.observation[:, -1]
    fill_with(make_replay(800, "lz4"), frames[:200])  # see `measure`
    process, replays, found = psutil.Process(), {}, {}
    for transitions in ROWS:  # all are kept until all are measured, lest one takes memory that another gave back
        gc.collect()
        before, start = process.memory_info().rss, time.thread_time()
        replay = make_replay(transitions, "lz4")
        replays[transitions] = replay, fill_with(replay, frames)
        taken, seconds = process.memory_info().rss - before, time.thread_time() - start
        found[str(transitions)] = {
            "transitions": len(replay),
            "bytes": taken,
            "bytes_per_transition": taken / len(replay),
            "bytes_counted": replay.bytes,
            "insert_us": seconds / replay.film.num_rows * 1e6,
        }
    for transitions, (replay, rows) in replays.items():
        found[str(transitions)] |= compare(uncompressed(replay, transitions, frames, rows), replay)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    richer = {}
    for game in RICHER:
        kept = CompressedFrames(GAMES * 400, GAMES, 84 * 84)
        for tick, step in enumerate(play(game, 400)):
            newest = torch.from_numpy(step.observation[:, -1].reshape(GAMES, -1))
            kept.write(torch.arange(GAMES) + GAMES * tick, newest)
        richer[game] = float(kept.records(np.arange(GAMES * 400))[0].mean())
    return {
        "distinct_frames": DISTINCT,
        "rows": found,
        "bytes_per_frame_of_other_games": richer,
        "peak_bytes_of_all": peak,  # both replays at once, and the distinct frames
    }


def main() -> None:
    """Measure each in a fresh process, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*FILL, COMPRESSED]
    parser.add_argument("--only", choices=names, help="measure this one in this process and print it as JSON")
    only = parser.parse_args().only
    if only:
        print(json.dumps(measure_compressed() if only == COMPRESSED else measure(only)))
        return
    results = {}
    for name in names:
        command = [sys.executable, __file__, "--only", name]
        results[name] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    compression = results.pop(COMPRESSED)
    results |= {f"{COMPRESSED} {rows}": found for rows, found in compression["rows"].items()}
    print(f"{'replay':20}{'transitions':>14}{'MiB':>10}{'bytes each':>14}")
    for name, found in results.items():
        each = found["bytes_per_transition"]
        print(f"{name:20}{found['transitions']:14,}{found['bytes'] / 2**20:10.1f}{each:14,.0f}")
    print(f"{'batches of 32':20}{'plain us':>14}{'lz4 us':>10}{'ratio':>14}")
    for rows, found in compression["rows"].items():
        times = found["sample_us"], found["sample_us_compressed"], found["ratio_of_medians"]
        print(f"{rows + ' rows':20}{times[0]:14,.0f}{times[1]:10,.0f}{times[2]:14.2f}")
    most = compression["rows"][str(max(ROWS))]
    kept = {
        "bytes_per_transition": results["icebox"]["bytes_per_transition"] <= LIMIT,
        "compressed_bytes": most["bytes"] <= LIMIT_BYTES,
        "compressed_sampling": most["ratio_of_medians"] <= LIMIT_RATIO,
    }
    payload = {
        "what": "resident memory of the process per transition of 84x84x4 u8; icebox prioritized and 3-step",
        "limits": {
            "bytes_per_transition": LIMIT,
            "compressed_bytes": LIMIT_BYTES,
            "compressed_sampling": LIMIT_RATIO,
        },
        "within_limits": kept,
        "results": results,
        "compression": {name: found for name, found in compression.items() if name != "rows"},
    }
    for name, within in kept.items():
        print(f"{name}: {'within' if within else 'ABOVE'} the limit of {payload['limits'][name]:,}")
    print(f"written to {write('memory', payload)}")
    sys.exit(not all(kept.values()))


if __name__ == "__main__":
    main()
