"""icebox play ARTEFACT: play episodes of its game with a frozen policy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from agent.cli.artefacts import games_of, trusted_files
from agent.cli.tables import print_json
from agent.cli.words import complain
from agent.evaluation import play_episodes
from agent.freeze import artefact
from agent.freeze.player import Player, Refused
from agent.types import Episode


@dataclass(frozen=True)
class Arguments:
    """Play episodes with a frozen policy, without torch's help, and say how they went."""

    artefact: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTEFACT")]
    """A folder that 'icebox freeze' wrote."""
    episodes: int = 1
    """Whole episodes to play."""
    runtime: Literal["auto", "onnx", "c"] = "auto"
    """What plays: onnxruntime, the C compiled here, or whichever is faster on this machine."""
    seed: int = 0
    """Seed of the games."""
    allow_refused: tyro.conf.FlagCreatePairsOff[bool] = False
    """Play even a policy that did not pass its gate."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object last."""


def run(arguments: Arguments) -> int:
    """Play as the arguments say and print the scores; return 0."""
    if arguments.episodes < 1:
        raise ValueError(f"--episodes: must be a whole number, at least 1, got {arguments.episodes}.")
    if arguments.seed < 0:
        raise ValueError(f"--seed: must be a whole number, at least 0, got {arguments.seed}.")
    player = trusted_player(arguments.artefact, arguments.runtime, allow_refused=arguments.allow_refused)
    games = games_of(artefact.read(arguments.artefact).card, 1)
    spent_s, decisions = 0.0, 0

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal spent_s, decisions
        before = time.perf_counter()
        action = player.act(observation)
        spent_s += time.perf_counter() - before
        decisions += 1
        return action

    def on_episode(episode: Episode) -> None:
        print(f"episode {len(scores) + 1}: score {episode.score:.1f} in {episode.length:,} steps", flush=True)
        scores.append(episode.score)

    scores: list[float] = []
    try:
        play_episodes(games, act, arguments.episodes, arguments.seed, on_episode)
    finally:
        games.close()
    mean, microseconds = float(np.mean(scores)), spent_s / decisions * 1e6
    if arguments.episodes > 1:
        print(f"mean score {mean:.1f} of {len(scores)} episodes, lowest {min(scores):.1f}, highest {max(scores):.1f}")
    print(f"{decisions:,} decisions by {player.runtime}, {microseconds:.1f} us each on average")
    if arguments.json:
        print_json({"scores": scores, "mean": mean, "runtime": player.runtime, "us_per_decision": microseconds})
    return 0


def trusted_player(folder: Path, runtime: str, *, allow_refused: bool) -> Player:
    """Return a player of an artefact that compiles its C only when that follows from the artefact's layers.

    An artefact may come from anywhere, and its C is a program; the layers are numbers. ValueError when C was asked for.
    """
    made = artefact.read(folder)
    if runtime != "onnx" and "policy.c" in made.emitted:
        wanted = trusted_files(made)
        if any(wanted[name] != made.emitted[name] for name in ("policy.c", "policy.h")):
            said = "policy.c is not what the policy's layers give, so it is not compiled and run here."
            if runtime == "c":
                raise ValueError(f"{said} Take --runtime onnx.")
            complain(said)
            runtime = "onnx"
    try:
        return Player(folder, runtime, allow_refused=allow_refused)
    except Refused as refused:
        raise Refused(refused.reason, "--allow-refused") from None
