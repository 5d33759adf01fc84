"""What the verbs do with an artefact: emit its files, play it, and put together the games that its policy plays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.session import make_games
from agent.cli.settings import load_settings
from agent.cli.words import complain
from agent.config import GameSettings, Settings
from agent.freeze import artefact
from agent.freeze.artefact import Artefact
from agent.freeze.card import Card
from agent.freeze.emit.c import Memories, emit_c, memory
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.player import Golden, Player, Refused
from agent.types import VectorEnv

REFUSED = 3  # exit code of freeze and verify: a policy that must not be used
OWNER = "freezing"  # of the randomness of the games in which policies are compared


def emit(policy: FrozenPolicy, targets: list[str], golden: Golden, *, stack: int, title: str) -> dict[str, bytes]:
    """Return the files of the targets "onnx" and "c" by their names: the same policy gives the same bytes."""
    graph = policy.graph if policy.integer is None else policy.integer
    files: dict[str, bytes] = {}
    if "onnx" in targets:
        files["policy.onnx"] = emit_onnx(graph)
    if "c" in targets:
        files |= emit_c(graph, stack=stack, golden=(golden.observation, golden.output), title=title)
    return files


def trusted_files(made: Artefact) -> Mapping[str, bytes]:
    """Return the emitted files as they follow from the artefact's own layers, to compare with those that lie in it."""
    targets = sorted({name.rpartition(".")[2] for name in made.emitted} - {"h"})
    card = made.card
    policy = FrozenPolicy(made.graph, made.integer)
    return emit(policy, targets, made.golden, stack=card.observation.stack, title=str(card.source["name"]))


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


def memory_of(policy: FrozenPolicy, targets: list[str], stack: int) -> Memories | None:
    """Return what the C keeps in flash and RAM, None when there is no C."""
    if "c" not in targets:
        return None
    return memory(policy.graph if policy.integer is None else policy.integer, stack=stack)


def game_facts(settings: Settings) -> dict[str, Any]:
    """Return what an artefact must remember to play the same games again."""
    return {"seed": settings.seed, "game": settings.game.model_dump(mode="json")}


def settings_of(card: Card) -> Settings:
    """Return the settings of the games that the policy was judged on; ValueError when the card's are none."""
    settings = load_settings(card.game)
    kept = card.source.get("games")
    if not isinstance(kept, dict):
        raise ValueError("policy.json does not say on which games the policy was judged.")
    try:
        game = GameSettings.model_validate(kept["game"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"policy.json does not hold the settings of a game: {error}") from None
    return settings.model_copy(update={"seed": int(kept["seed"]), "game": game, "device": "cpu"})


def games_of(card: Card, num_games: int) -> VectorEnv:
    """Return so many copies of the game that the policy was judged on."""
    return make_games(card.game, settings_of(card), num_games, owner=OWNER)
