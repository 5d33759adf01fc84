"""icebox verify ARTEFACT: repeat the proof of a frozen policy: every byte, every runtime, and the gate."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from agent.cli.artefacts import REFUSED, games_of, settings_of, trusted_files
from agent.cli.session import family_settings
from agent.cli.tables import print_json
from agent.freeze import artefact
from agent.freeze.artefact import Artefact
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.gate import paired
from agent.freeze.player import MANIFEST, REQUIRED, Player
from envs.make import spec


@dataclass(frozen=True)
class Arguments:
    """Check an artefact: its files, its runtimes, and its score against the live policy that it carries.

    Exit code 3 when anything is not as it must be.
    """

    artefact: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTEFACT")]
    """A folder that 'icebox freeze' wrote."""
    episodes: int | None = None
    """Paired episodes to play, 0: none; default: as many as when it was frozen."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object last."""


def run(arguments: Arguments) -> int:
    """Verify as the arguments say and print what was found; return 0, or 3 when something is wrong."""
    if arguments.episodes is not None and arguments.episodes < 0:
        raise ValueError(f"--episodes: must be a whole number, at least 0, got {arguments.episodes}.")
    if not any((arguments.artefact / name).is_file() for name in {MANIFEST, *REQUIRED} - {"README.md"}):
        raise ValueError(f"{arguments.artefact} is no artefact: name a folder that 'icebox freeze' wrote.")
    found: dict[str, Any] = {"artefact": str(arguments.artefact), "wrong": []}

    def check(name: str, work: Callable[[], str]) -> bool:
        try:
            print(f"ok      {name}: {work()}", flush=True)
            return True
        except ValueError as error:
            print(f"WRONG   {name}: {error}", flush=True)
            found["wrong"].append(f"{name}: {error}")
            return False

    read: list[Artefact] = []
    if check("files", lambda: _files(arguments.artefact, read)):
        made = read[0]
        check("game", lambda: _game(made))
        follows = check("emitted", lambda: _emitted(made))
        check("reference", lambda: _reference(made))
        players = {name: Player for name in ("onnx", "c") if f"policy.{name}" in made.emitted}
        for name in players if follows else ():  # an artefact's C is a program: that of somebody else is not run
            check(f"runtime {name}", lambda name=name: _runtime(arguments.artefact, name, players))
        if not found["wrong"] and arguments.episodes != 0:
            player = next(iter(players.values()))
            check("gate", lambda: _gate(made, player, arguments.episodes, found))
        if made.card.refused is not None:
            check("verdict", lambda: _refused(made))
    verdict = "This artefact must not be used." if found["wrong"] else "The artefact is as it was frozen."
    print(verdict, file=sys.stderr)
    if arguments.json:
        print_json(found)
    return REFUSED if found["wrong"] else 0


def _files(folder: Path, read: list[Artefact]) -> str:
    read.append(artefact.read(folder))
    return "every size and SHA-256 is that of the manifest"


def _game(made: Artefact) -> str:
    card, graph = made.card, made.graph
    seen = spec(card.game, **family_settings(settings_of(card)))
    for what, kept, given in (
        ("observations", f"{graph.dtype} {graph.shape}", f"{seen.observation_dtype} {seen.observation_shape}"),
        ("frames in an observation", card.observation.stack, seen.stack),
        ("frames for which an action is held", card.observation.frame_skip, seen.frame_skip),
        ("actions", graph.num_outputs, seen.num_actions or len(seen.action_low or ())),
    ):
        if kept != given:
            raise ValueError(f"policy.json says {what}: {kept}; {seen.name} has {given}.")
    return f"observations and actions are those of {seen.name}"


def _emitted(made: Artefact) -> str:
    for name, data in trusted_files(made).items():
        if made.emitted[name] != data:
            raise ValueError(
                f"{name} is not what the policy's own layers give: it was changed, or written by another version."
            )
    return f"{', '.join(sorted(made.emitted))} follow from the policy's layers, byte for byte"


def _reference(made: Artefact) -> str:
    policy = FrozenPolicy(made.graph, made.integer)
    raw, golden = policy.raw(made.golden.observation), made.golden
    close = raw == golden.output if made.integer is not None else np.isclose(raw, golden.output, rtol=1e-4, atol=1e-4)
    wrong = ~close.all(axis=1) | (policy.decide(raw) != golden.action if golden.action.ndim == 1 else False)
    if wrong.any():
        raise ValueError(f"numpy gives other outputs than golden.npz on {wrong.sum()} of {len(wrong)} states.")
    return f"numpy gives the outputs of all {len(raw)} golden states"


def _runtime(folder: Path, name: str, players: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what they say is in the error as well
        players[name] = Player(folder, name, allow_refused=True)
    return "gives the outputs of every golden state"


def _gate(made: Artefact, player: Player, episodes: int | None, found: dict[str, Any]) -> str:
    protocol = made.card.gate["protocol"]
    live = FrozenPolicy(made.live or made.graph)
    games = games_of(made.card, int(protocol["games"]))
    recorded = made.card.gate["scores"]
    wanted = int(recorded["episodes"]) if episodes is None else episodes
    try:
        scores = paired(
            games,
            {"live": live.act, "frozen": player.act},
            int(protocol["seed"]),
            margin=float(protocol["margin"]),
            episodes=wanted,
            most=wanted,
        )
    finally:
        games.close()
    found["scores"] = scores.figures()
    text = (
        f"{scores.frozen_mean:.1f} frozen, {scores.live_mean:.1f} live in the same {scores.episodes} episodes; "
        f"difference {scores.difference:+.1f}, 95% interval {scores.low:+.1f} to {scores.high:+.1f}, "
        f"margin -{scores.margin:.1f}"
    )
    if not scores.passed:
        raise ValueError(text + ".")
    return text


def _refused(made: Artefact) -> str:
    raise ValueError(f"the artefact was refused when it was frozen: {made.card.refused}.")
