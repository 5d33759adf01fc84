"""icebox freeze RUN: make a policy that only acts, small and fast, and prove that it still plays."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from agent.cli import freeze_report
from agent.cli.artefacts import OWNER, REFUSED, emit, memory_of
from agent.cli.session import make_games, set_threads
from agent.cli.source import Source, load_source
from agent.cli.tables import print_json
from agent.cli.words import complain
from agent.freeze import artefact
from agent.freeze.artefact import Artefact
from agent.freeze.board import INSTALL, missing_tools, run_on_board
from agent.freeze.card import Card
from agent.freeze.distil import STEPS
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.gate import agreement, visited
from agent.freeze.player import TOLERANCE, Golden, Player
from agent.freeze.prune import require_prunable
from agent.freeze.search import FLOAT32, Bits, Trial, Wanted, fewer_bits, smaller
from agent.seeding import numpy_generator, seed_for
from agent.telemetry.run_folder import RunFolder, find

GOLDEN = 100  # states whose outputs travel with the artefact
STATES = 10_000  # to calibrate on, and as many others to compare choices on
TAUGHT, TAUGHT_BYTES = 50_000, 500_000_000  # states to distil on; fewer where they are large, but not below STATES
EPSILON = 0.02  # of the actions while states to calibrate and distil on are collected
GAMES, GAMES_LARGE, LARGE = 100, 25, 10_000  # at once; fewer where an observation has more entries than LARGE


@dataclass(frozen=True)
class Arguments:
    """Freeze the agent of RUN: fold, prune, quantize, write ONNX and C, and judge it against the live policy.

    Exit code 3 when the frozen policy does not play as well as the live one; the artefact is then marked as refused.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|ZIP")]
    """A run folder, 'latest', 'GAME/latest', or a stable-baselines3 zip."""
    out: Path | None = None
    """Folder of the artefact; default: frozen/GAME-NAME-PRECISION, with -pruned behind it where it is."""
    target: str = "onnx,c"
    """What to write: onnx, c, or both with a comma."""
    precision: Wanted = "auto"
    """auto: 8-bit integers, and 16 bits where the gate fails otherwise."""
    prune: str = "none"
    """none; auto: as much as the gate allows; or the share of multiply-accumulates to remove, as 0.5."""
    distil_steps: int = STEPS
    """Updates with which a pruned policy learns from the live one, fewer for large networks; 0: none."""
    board: Literal["none", "cortex-m4", "cortex-m55"] = "none"
    """Also compile for this microcontroller and run there (in QEMU)."""
    game: str | None = None
    """The game of a zip, where its file name does not say it."""
    weights: Literal["best", "last"] = "best"
    """Of a run: those of its best evaluation, or the newest checkpoint's."""
    margin: float = 0.05
    """How much of the live policy's score may be lost: the 95% interval of the difference must not reach below it."""
    episodes: int = 100
    """Paired episodes, at least."""
    most_episodes: int = 1600
    """Paired episodes, at most; they are doubled while the interval is too wide to tell."""
    seed: int = 0
    """Seed of the states and of the paired episodes."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object last."""


def run(arguments: Arguments) -> int:
    """Freeze as the arguments say and print the report; return 0, or 3 when the gate failed."""
    checked(arguments)
    if arguments.out is not None:
        if arguments.out == Path():
            raise ValueError("--out: name a folder of its own for the artefact; it is empty or the folder you are in.")
        artefact.require_replaceable(arguments.out)  # before minutes of work
        _require_writable(arguments.out)
    source = load_source(arguments.source, arguments.runs_dir, arguments.game, arguments.weights)
    for note in source.notes:
        complain(note)
    folder, card, measured = freeze(source, arguments)
    if Path(arguments.source).suffix != ".zip":
        trained = RunFolder.open(find(arguments.runs_dir, arguments.source))
        freeze_report.to_dashboard(trained, folder.name, card, measured, trained.meta()["steps"])
    print(freeze_report.table(card, measured, folder))
    if arguments.json:
        print_json({"artefact": str(folder), "card": card.model_dump(mode="json"), "measured": measured})
    return 0 if card.refused is None else REFUSED


def _require_writable(folder: Path) -> None:
    """Raise ValueError unless a folder can be made there; it is tried, for to root every right seems granted."""
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryDirectory(prefix=".icebox-", dir=above).cleanup()
    except OSError as error:
        raise ValueError(f"--out {folder}: nothing can be written into {above} ({error.strerror}).") from None


def checked(arguments: Arguments) -> None:
    """Raise ValueError for a flag that cannot be obeyed."""
    targets = arguments.target.split(",")
    if not set(targets) <= {"onnx", "c"}:
        raise ValueError(f"--target: must be onnx, c or onnx,c, got '{arguments.target}'.")
    if arguments.board != "none" and "c" not in targets:
        raise ValueError("--board needs the C file: --target c or onnx,c.")
    if arguments.board != "none" and (missing := missing_tools()):
        raise ValueError(f"--board {arguments.board} needs {' and '.join(missing)}: {INSTALL}.")
    share_of(arguments.prune)
    for name, least in (("episodes", 2), ("most_episodes", arguments.episodes), ("distil_steps", 0), ("seed", 0)):
        if getattr(arguments, name) < least:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}: must be a whole number, at least {least}, got {getattr(arguments, name)}.")
    if not 0 <= arguments.margin < 10:
        raise ValueError(f"--margin: must be a share of the score, as 0.05, got {arguments.margin}.")


def share_of(prune: str) -> float | Literal["auto", "none"]:
    """Return what --prune means; ValueError when it means nothing."""
    if prune == "auto":
        return "auto"
    if prune == "none":
        return "none"
    try:
        share = float(prune)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ValueError(f"--prune: must be auto, none or a share between 0 and 1 such as 0.5, got '{prune}'.")
    return share


def freeze(source: Source, arguments: Arguments) -> tuple[Path, Card, dict[str, Any]]:
    """Return the artefact's folder, its card, and what was measured on this machine's clock."""
    started = time.monotonic()
    share, targets = share_of(arguments.prune), arguments.target.split(",")
    if isinstance(share, float):
        require_prunable(source.graph, share)
    set_threads(source.settings, source.spec)

    def say(sentence: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {sentence}", file=sys.stderr, flush=True)

    large = math.prod(source.spec.observation_shape) > LARGE
    at_once = min(GAMES_LARGE if large else GAMES, arguments.episodes)
    games = make_games(source.game, source.settings, at_once, owner=OWNER)
    try:
        many = _states_to_collect(source, distilled=share != "none" and arguments.distil_steps > 0)
        say(f"collecting {many + STATES:,} states that the live policy visits in {source.game}")
        actions = source.spec.num_actions
        taught = visited(
            games, source.act, many, seed_for(arguments.seed, "calibration"), epsilon=EPSILON * (actions > 0),
            num_actions=actions,
        )  # fmt: skip
        some = numpy_generator(arguments.seed, "calibrated").choice(many, STATES, replace=False)
        trial = Trial(
            live=source.outputs,
            live_act=source.act,
            games=games,
            states=taught if many == STATES else taught[np.sort(some)],
            taught=taught,
            fresh=visited(games, source.act, STATES, seed_for(arguments.seed, "agreement")),
            seed=seed_for(arguments.seed, "paired episodes"),
            margin=arguments.margin,
            episodes=arguments.episodes,
            most=arguments.most_episodes,
            say=say,
        )
        trial.acting = lambda policy, bits: _player(_artefact(source, trial, policy, bits, targets)).act
        trial.note("stripped and folded", FrozenPolicy(source.graph), FLOAT32, gate=False)
        small = smaller(source.graph, trial, share, arguments.distil_steps)
        if len(small) > 1:
            say("proving the smallest that passed on episodes that it was not chosen by")
            trial = trial.on_fresh_episodes(seed_for(arguments.seed, "proof"))
        policy, bits = fewer_bits(small.pop(), trial, arguments.precision)
        while small and not trial.scores(policy, lambda: trial.acting(policy, bits)).passed:
            say("it fails there: the one pruned less is taken")
            policy, bits = fewer_bits(small.pop(), trial, arguments.precision)
        pruned = share != "none"
        named = freeze_report.folder_name(source.game, source.name, bits.name, pruned=pruned)
        folder = arguments.out or Path("frozen") / named
        say("judging what is written against the live policy, and measuring how long one decision takes")
        return folder, *_written(source, arguments, trial, policy, bits, folder)
    finally:
        games.close()


def _written(
    source: Source, arguments: Arguments, trial: Trial, policy: FrozenPolicy, bits: Bits, folder: Path
) -> tuple[Card, dict[str, Any]]:
    """Judge the policy as it is emitted, and write the artefact with the verdict; return its card and the timings."""
    targets = arguments.target.split(",")
    made = _artefact(source, trial, policy, bits, targets)
    player = _player(made)
    raw, actions = player.outputs(trial.fresh), player.act(trial.fresh)
    choices = agreement(trial.fresh_outputs, policy.outputs(raw), policy.head, trial.fresh_actions, actions)
    scores = trial.scores(policy, lambda: player.act)
    made = replace(made, card=freeze_report.judged(made.card, trial, choices, scores))
    artefact.write(folder, made)
    measured = freeze_report.measure(source, folder, trial.fresh, targets)
    if arguments.board != "none":
        measured["board"] = on_board(made.emitted, arguments.board, made.golden)
    artefact.write_measured(folder, measured)
    return made.card, measured


def _artefact(source: Source, trial: Trial, policy: FrozenPolicy, bits: Bits, targets: list[str]) -> Artefact:
    """Return the artefact of a policy, not yet judged."""
    states = trial.fresh[np.linspace(0, len(trial.fresh) - 1, GOLDEN).astype(int)]
    raw = policy.raw(states)
    golden, stack = Golden(states, raw, policy.decide(raw)), source.spec.stack
    files = emit(policy, targets, golden, stack=stack, title=source.name)
    card = freeze_report.card(source, policy, bits, trial, files, memory_of(policy, targets, stack))
    return Artefact(card, graph=policy.graph, golden=golden, emitted=files, integer=policy.integer, live=source.graph)


def _player(made: Artefact) -> Player:
    """Return what plays an artefact; its folder is gone again: nothing unjudged is left where it could be used."""
    with tempfile.TemporaryDirectory(prefix="icebox-") as scratch:
        artefact.write(Path(scratch) / "candidate", made)
        return Player(Path(scratch) / "candidate")


def _states_to_collect(source: Source, *, distilled: bool) -> int:
    """Return how many states pruning and calibration get, and distillation, which more of them make better."""
    each = math.prod(source.spec.observation_shape) * np.dtype(source.spec.observation_dtype).itemsize
    return max(STATES, min(TAUGHT, TAUGHT_BYTES // each)) if distilled else STATES


def on_board(files: Mapping[str, bytes], board: str, golden: Golden) -> dict[str, Any]:
    """Return what the policy takes of a microcontroller, and on how many golden states it gives other outputs there."""
    report = run_on_board(files, board, golden.observation)
    slack = 0.0 if golden.output.dtype == np.int32 else TOLERANCE * max(1.0, float(np.abs(golden.output).max()))
    other = (np.abs(report.outputs.astype(np.float64) - golden.output) > slack).any(axis=1)
    return report.figures() | {"states": len(other), "other_outputs": int(other.sum())}
