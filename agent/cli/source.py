"""What can be frozen: the agent of a run folder, or a stable-baselines3 zip, as a live policy with its game."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import nn

from agent.cli.kept import kept_network, kept_session, kept_weights, settings_here
from agent.cli.session import family_settings
from agent.cli.settings import load_settings
from agent.config import Settings
from agent.freeze.convert import from_q_network
from agent.freeze.graph import Graph, decide, in_blocks
from agent.freeze.sb3_policy import load_zip
from agent.telemetry.run_folder import RunFolder, find
from envs.make import GameSpec, spec


@dataclass(frozen=True)
class Source:
    """A live policy: `network` takes raw observations to outputs, `graph` is the same, folded, as plain arrays."""

    name: str
    game: str
    settings: Settings
    spec: GameSpec
    algorithm: str
    network: nn.Module
    graph: Graph
    described: str  # which weights
    notes: list[str] = field(default_factory=list)
    chosen: Callable[[np.ndarray], np.ndarray] | None = None  # from outputs, where bits count: as its makers choose

    @torch.inference_mode()
    def outputs(self, observation: np.ndarray) -> np.ndarray:
        """Return the live network's outputs, [N, *shape] -> f32 [N, outputs]."""
        # Copied: where sums are taken of memory that numpy has not aligned, their last bits differ.
        return in_blocks(lambda block: self.network(torch.from_numpy(np.array(block, order="C"))).numpy(), observation)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the live policy's greedy actions, [N, *shape] -> i64 [N] or f32 [N, n]."""
        return self.choose(self.outputs(observation))

    def choose(self, outputs: np.ndarray) -> np.ndarray:
        """Return the actions that outputs mean, [N, outputs] -> i64 [N] or f32 [N, n]."""
        return decide(self.graph.head, outputs) if self.chosen is None else self.chosen(outputs)


def load_source(name: str, runs_dir: Path, game: str | None, weights: str) -> Source:
    """Return what `name` stands for: a zip, a run folder, `latest` or `GAME/latest`.

    ValueError when it cannot be frozen.
    """
    path = Path(name)
    if path.suffix == ".zip" and path.is_file():
        return _from_zip(path, game)
    if path.suffix == ".zip":
        raise FileNotFoundError(f"{name} does not exist.")
    if game is not None:
        raise ValueError("--game is for zips; a run knows its game.")
    folder = RunFolder.open(find(runs_dir, name))
    settings = settings_here(folder).model_copy(update={"device": "cpu"})
    seen = spec(folder.game, **family_settings(settings))
    if settings.algo != "icebox":
        return _from_stock(folder, settings, seen, weights)
    kept, described = kept_weights(folder, weights)
    network = kept_network(folder, settings, seen, kept, torch.device("cpu"))
    network.requires_grad_(False)
    graph = from_q_network(network, seen.observation_shape, seen.observation_dtype, seen.num_actions)
    return Source(folder.path.name, folder.game, settings, seen, _algorithm(settings), network, graph, described)


def _algorithm(settings: Settings) -> str:
    base = {"none": "DQN", "quantile": "QR-DQN", "implicit": "IQN"}[settings.network.distribution]
    return f"Munchausen-{base}" if settings.learner.munchausen else base


def _from_stock(folder: RunFolder, settings: Settings, seen: GameSpec, weights: str) -> Source:
    """An algorithm of stable-baselines3 that our launcher trained: written as a zip and read like a stranger's."""
    kept, described = kept_weights(folder, weights)
    session = kept_session(folder, settings, kept)
    try:
        with tempfile.TemporaryDirectory(prefix="icebox-") as scratch:
            session.algorithm.save(Path(scratch) / "policy.zip")
            stranger = load_zip(Path(scratch) / "policy.zip")
    finally:
        session.close()
    return Source(
        folder.path.name, folder.game, settings, seen, stranger.algo, stranger.network, stranger.graph, described,
        list(stranger.notes), stranger.choose,
    )  # fmt: skip


def _from_zip(path: Path, game: str | None) -> Source:
    stranger = load_zip(path)
    notes = list(stranger.notes)
    hint = "name its game with --game" if game is None else "it is no policy of that game"
    if game is None:
        game = _game_in(path.name)
        notes.append(f"{path.name}: taken for a policy of {game}, as its name says. If not, name its game with --game.")
    settings = load_settings(game).model_copy(update={"device": "cpu"})
    seen = spec(game, **family_settings(settings))
    if stranger.graph.shape != seen.observation_shape or stranger.graph.dtype != seen.observation_dtype:
        raise ValueError(
            f"{path.name} takes observations {stranger.graph.dtype} {stranger.graph.shape}, {seen.name} gives "
            f"{seen.observation_dtype} {seen.observation_shape}: {hint}."
        )
    actions = seen.num_actions or len(seen.action_low or ())
    if stranger.graph.num_outputs != actions:
        raise ValueError(
            f"{path.name} chooses among {stranger.graph.num_outputs} actions, {seen.name} has {actions}: {hint}."
        )
    torch.set_num_threads(1)
    return Source(
        path.stem, seen.name, settings, seen, stranger.algo, stranger.network, stranger.graph,
        f"of {path.name}" + (f", stable-baselines3 {stranger.sb3_version}" if stranger.sb3_version else ""), notes,
        stranger.choose,
    )  # fmt: skip


def _game_in(name: str) -> str:
    """Return the game that a file's name speaks of, such as ppo-LunarLander-v2.zip; ValueError when it names none."""
    from envs.make import CLASSIC

    known = {identifier: short for short, identifier in CLASSIC.items()}
    for match in re.finditer(r"([A-Za-z0-9]+)-v(\d+)", name):
        found = [identifier for identifier in gymnasium.registry if identifier.rpartition("-v")[0] == match[1]]
        if match[0] in found:
            newest = match[0]
        elif found:
            newest = max(found, key=lambda identifier: int(identifier.rpartition("-v")[2]))
        else:
            continue
        return known.get(newest, f"gym:{newest}")
    raise ValueError(f"{name} does not say which game it plays: name it with --game ('icebox games' lists them).")

