"""icebox eval RUN: play unseen games with a trained agent and say how good it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from agent.cli.kept import kept_network, kept_session, kept_weights, settings_here
from agent.cli.session import Act, Judge, evaluating, family_settings, pick_device
from agent.cli.tables import print_json
from agent.cli.train import shown_path
from agent.config import Settings
from agent.telemetry.protocol import protocol
from agent.telemetry.run_folder import RunFolder, find
from agent.telemetry.statistics import bootstrap_ci, iqm
from agent.types import Episode
from envs.make import spec

SEED = 1_000_003  # far from the seeds people train with; every owner of randomness is derived from it by a hash


@dataclass(frozen=True)
class Arguments:
    """Play whole episodes with the agent of RUN on games that it has never seen, and report its raw scores."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run folder, 'latest', or 'GAME/latest'."""
    episodes: int = 100
    """Whole episodes to play."""
    seed: int = SEED
    """Seed of the games; the same seed gives the same episodes."""
    weights: Literal["best", "last"] = "best"
    """best: those of the best evaluation during training (last, when there was none). last: the newest checkpoint's."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object last."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""


def run(arguments: Arguments) -> int:
    """Evaluate as the arguments say and print the result; return 0."""
    if arguments.episodes < 1:
        raise ValueError(f"--episodes: must be a whole number, at least 1, got {arguments.episodes}.")
    if arguments.seed < 0:
        raise ValueError(f"--seed: must be a whole number, at least 0, got {arguments.seed}.")
    folder = RunFolder.open(find(arguments.runs_dir, arguments.run))
    result = judge(folder, arguments.episodes, arguments.seed, arguments.weights)
    low, high = result["ci95"]
    print(f"{result['game']}: mean score {result['mean']:.1f} over {result['episodes']} unseen episodes")
    print(f"  95% interval of the mean [{low:.1f}, {high:.1f}]")
    print(f"  standard deviation {result['std']:.1f}, interquartile mean {result['iqm']:.1f}")
    print(f"  lowest {result['min']:.1f}, highest {result['max']:.1f}, mean length {result['mean_length']:.0f} steps")
    print(f"  weights: {result['weights']}")
    print(f"  protocol: {result['protocol']}")
    if arguments.json:
        print_json(result)
    return 0


def judge(folder: RunFolder, episodes: int, seed: int, weights: str = "best") -> dict[str, Any]:
    """Return the scores of `episodes` unseen episodes of the run in `folder`, ready for JSON."""
    settings = settings_here(folder)
    act, steps, described, close = _policy(folder, settings, seed, weights)
    judging = Judge(folder.game, settings)
    shown = sys.stderr.isatty()
    played = 0

    def on_episode(episode: Episode) -> None:
        nonlocal played
        played += 1
        if shown:
            print(f"\r  episode {played}/{episodes}", end="", file=sys.stderr, flush=True)

    try:
        finished = judging.play(act, episodes, seed, on_episode)
    finally:
        judging.close()
        close()
        if shown and played:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    scores = np.array([episode.score for episode in finished])
    low, high = bootstrap_ci(scores, np.mean)
    return {
        "game": folder.game,
        "run": str(shown_path(folder.path)),
        "episodes": episodes,
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "iqm": iqm(scores),
        "ci95": [low, high],
        "min": float(scores.min()),
        "max": float(scores.max()),
        "mean_length": float(np.mean([episode.length for episode in finished])),
        "steps": steps,
        "weights": described,
        "seed": seed,
        "protocol": protocol(folder.game, settings),
    }


def _policy(
    folder: RunFolder, settings: Settings, seed: int, which: str
) -> tuple[Act, int, str, Callable[[], None]]:
    """Return how the run's agent plays, the steps it had learned for, what its weights are, and how to close it."""
    kept, described = kept_weights(folder, which)
    steps = int(kept["steps"])
    if settings.algo == "icebox":
        seen = spec(folder.game, **family_settings(settings))
        device = pick_device(settings.device)
        network = kept_network(folder, settings, seen, kept, device)
        return evaluating(network, settings, seen.num_actions, seed, device), steps, described, lambda: None
    session = kept_session(folder, settings, kept)
    return session.act(seed), steps, described, session.close
