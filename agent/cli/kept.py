"""The agent that a run has kept: its settings as far as this machine goes, its weights, and of when they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from agent import checkpoint
from agent.cli.record import load_checkpoint
from agent.cli.session import make_network, set_threads
from agent.cli.stock_session import StockSession
from agent.cli.words import complain
from agent.config import Settings
from agent.nets.q_network import QNetwork
from agent.telemetry.run_folder import RunFolder
from envs.make import GameSpec


def settings_here(folder: RunFolder) -> Settings:
    """Return the run's settings as far as this machine has what they ask for: a run from a GPU plays on any machine."""
    settings = folder.settings()
    if settings.device == "cuda" and not torch.cuda.is_available():
        return settings.model_copy(update={"device": "cpu"})
    return settings


def kept_weights(folder: RunFolder, which: str) -> tuple[Mapping[str, Any], str]:
    """Return the weights of the best evaluation ("best") or the newest checkpoint, with `steps`, and what they are.

    What is damaged is passed over and said on stderr; FileNotFoundError when nothing is left.
    """
    best = folder.path / "best"
    if which == "best" and checkpoint.numbers(best):
        try:
            tree = checkpoint.load_newest(best).tree
        except FileNotFoundError as error:
            complain(f"{error} The last weights are taken instead of the best.")
        else:
            score = f"the best evaluation during training ({tree['mean']:.1f} over {tree['episodes']} episodes)"
            return tree["weights"], f"after {tree['steps']:,} steps, {score}"
    tree, skipped = load_checkpoint(folder)
    for sentence in skipped:
        complain(sentence)
    agent, steps = tree["agent"], tree["steps"]
    if "learner" in agent:
        weights = {"network": agent["learner"].get("average", agent["learner"]["network"])}
    else:
        weights = {"policy": agent["modules"]["policy"]}
    return {**weights, "steps": steps}, f"after {steps:,} steps, the last"


def kept_network(
    folder: RunFolder, settings: Settings, seen: GameSpec, kept: Mapping[str, Any], device: torch.device
) -> QNetwork:
    """Return our network with the kept weights; ValueError when they do not fit the run's settings."""
    set_threads(settings, seen)
    network = make_network(seen, settings, device)
    try:
        network.load_state_dict(kept["network"])
    except RuntimeError:
        raise ValueError(
            f"the weights of {folder.path} do not fit its config.yaml (network, or the game's shapes): was it edited?"
        ) from None
    return network


def kept_session(folder: RunFolder, settings: Settings, kept: Mapping[str, Any]) -> StockSession:
    """Return an algorithm of stable-baselines3 with the kept weights, ready to act; the caller closes it."""
    session = StockSession(folder.game, settings.model_copy(update={"steps": 1}), num_games=1)  # no replay to speak of
    session.algorithm.policy.load_state_dict(kept["policy"])
    return session
