"""Training while workers die, hang and send garbage and NaN, beside clean runs with the same seeds.

    .venv/bin/python benchmarks/faults.py --minutes 30            # what is done is left out: go on with the same
    .venv/bin/python benchmarks/faults.py --games lunar-lander --seeds 0 1

A cell is one run. Every so many environment steps a worker is killed or stopped, in turn; Lunar Lander besides raises,
answers with garbage and with NaN at random. Both kinds of run are judged on the same sound games. The question: do the
means of the faulty runs lie in the range of the clean ones, widened by twice the standard error of a mean?
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli.session import Judge, Session  # noqa: E402
from agent.cli.settings import load_settings, merge  # noqa: E402
from agent.config import Settings  # noqa: E402
from benchmarks.results import RESULTS, write  # noqa: E402
from tests.faults.broken_games import Fickle, registered  # noqa: E402

GAMES: dict[str, dict[str, Any]] = {
    "lunar-lander": {"steps": 60_000, "hurt_every": 2_000, "episodes": 40, "settings": {}},
    "atari/pong": {
        "steps": 8_000,
        "hurt_every": 800,
        "episodes": 8,
        "settings": {
            "game": {"atari": {"max_frames": 6_000}},  # Pong learns nothing in so few steps
            "learner": {"learning_starts": 1_000, "samples_per_insert": 1.0},
        },
    },
}
FAULTS = ("raise", "garbage", "exit", "words for a reward")
RATE, NAN_RATE = 1 / 6_000, 1 / 500  # per step of one game
DEADLINE_S = 4.0
EVALUATION_SEED = 778_000_000


@contextmanager
def played(game: str, faulty: bool) -> Iterator[str]:
    """Yield the name under which the game is trained on; Lunar Lander is wrapped in both kinds of run."""
    if game != "lunar-lander":
        yield game
        return
    rates = (RATE, NAN_RATE) if faulty else (0.0, 0.0)
    with registered(lambda **options: Fickle(gymnasium.make("LunarLander-v3", **options), FAULTS, *rates)) as name:
        yield f"gym:{name}"


def settings_of(game: str, seed: int, vectorize: str = "workers") -> Settings:
    """Return the launcher's settings of a game, in workers."""
    tree = load_settings(game).model_dump()
    own = {"game": {"vectorize": vectorize, "deadline_s": DEADLINE_S}, "device": "cpu"}
    for changes in (GAMES[game]["settings"], own):
        tree = merge(tree, changes)
    return Settings.model_validate(tree | {"seed": seed, "steps": GAMES[game]["steps"]})


def train(game: str, faulty: bool, seed: int) -> dict[str, Any]:
    """Return what one run came to: its scores, what was done to it, and what it says of itself."""
    case, settings = GAMES[game], settings_of(game, seed)
    random = np.random.default_rng([seed, 9])
    hurt = {"SIGKILL": 0, "SIGSTOP": 0}
    began = time.perf_counter()
    with played(game, faulty) as name:
        session = Session(name, settings)
        torch.set_num_threads(1)
        judge = Judge(game, settings_of(game, seed, vectorize="auto"))
        try:
            due, news = case["hurt_every"], []
            for tick in session.ticks():
                news += session.games.news()
                if tick.steps >= settings.steps:
                    break
                if faulty and tick.steps >= due:
                    due += case["hurt_every"]
                    deed = "SIGKILL" if sum(hurt.values()) % 2 == 0 else "SIGSTOP"
                    os.kill(int(random.choice(session.games.pids)), getattr(signal, deed))
                    hurt[deed] += 1
            episodes = judge.play(session.act(EVALUATION_SEED), case["episodes"], EVALUATION_SEED + seed)
            scores = [episode.score for episode in episodes]
            return {
                "game": game,
                "faulty": faulty,
                "seed": seed,
                "steps": settings.steps,
                "updates": tick.updates,
                "scores": scores,
                "mean": float(np.mean(scores)),
                "signals": hurt,
                "restarts": session.games.restarts,
                "news": len(news),
                "faults": dict(session.faults.counts),
                "finite_weights": all(bool(p.isfinite().all()) for p in session.network.parameters()),
                "seconds": round(time.perf_counter() - began, 1),
            }
        finally:
            judge.close()
            session.close()


def compared(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each game the range of the clean runs' means, widened by twice a mean's error, and who lies in it."""
    rows = []
    for game in GAMES:
        clean, faulty = ([c for c in cells if c["game"] == game and c["faulty"] is kind] for kind in (False, True))
        if clean and faulty:
            means = [cell["mean"] for cell in clean]
            error = max(float(np.std(cell["scores"])) / len(cell["scores"]) ** 0.5 for cell in clean + faulty)
            low, high = min(means) - 2 * error, max(means) + 2 * error
            found = [cell["mean"] for cell in faulty]
            within = [low <= mean <= high for mean in found]
            rows.append({"game": game, "clean": means, "faulty": found, "range": [low, high], "within": within})
    return rows


def main() -> None:
    """Run the cells that are asked for and not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=1e6, help="no cell is begun after these")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    path = RESULTS / "faults.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    for game in options.games:
        for seed in options.seeds:
            for faulty in (False, True):
                known = [(cell["game"], cell["seed"], cell["faulty"]) for cell in cells]
                if (game, seed, faulty) in known or time.monotonic() >= ends:
                    continue
                cells.append(train(game, faulty, seed))
                print({name: value for name, value in cells[-1].items() if name != "scores"}, flush=True)
                write("faults", {"cells": cells, "compared": compared(cells)})


if __name__ == "__main__":
    main()
