"""icebox demo: train an agent on Lunar Lander from nothing, judge it, freeze it, and say how good it is."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from agent.cli import freeze, freeze_report, play
from agent.cli.evaluate import SEED, judge
from agent.cli.settings import TrainArguments, load_settings
from agent.cli.source import load_source
from agent.cli.tables import print_json
from agent.cli.train import shown_path, train
from agent.cli.words import command

GAME = "lunar-lander"
EPISODES = 100
FROZEN: dict[str, Any] = {}  # flags of `icebox freeze` that differ from its defaults


@dataclass(frozen=True)
class Arguments:
    """Train an agent on Lunar Lander, play 100 unseen episodes, and freeze it into a policy that needs no torch.

    Takes a few minutes on a laptop's CPU.
    """

    seed: int = 0
    """The one seed of the run."""
    steps: int | None = None
    """Environment steps to train for; default: the game's own setting."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object last."""


def run(arguments: Arguments) -> int:
    """Run the demo; return 0, 130 after Ctrl-C, or 3 when the frozen policy does not play as well as the live one."""
    settings = load_settings(GAME)
    steps = settings.steps if arguments.steps is None else arguments.steps
    if arguments.seed < 0:
        raise ValueError(f"--seed: must be a whole number, at least 0, got {arguments.seed}.")
    if steps < 1:
        raise ValueError(f"--steps: must be a whole number, at least 1, got {steps}.")
    settings = settings.model_copy(update={"seed": arguments.seed, "steps": steps})
    print(
        "Icebox demo: an agent learns to land on the Moon. "
        f"It plays {settings.game.num_games} games at once and learns between its actions, for {steps:,} steps.\n"
        "A crash scores about -100 or less, hovering about 0, a good landing 200 and more.\n"
        "Ctrl-C stops it and keeps everything.",
        file=sys.stderr,
    )
    started = time.monotonic()
    code, folder = train(TrainArguments(game=GAME, settings=settings, runs_dir=arguments.runs_dir))
    if code != 0 or folder.status != "done":
        return code
    minutes = (time.monotonic() - started) / 60
    print(f"\nTrained in {minutes:.1f} minutes. Now {EPISODES} episodes it has never seen:", file=sys.stderr)
    result = judge(folder, EPISODES, SEED)
    where = shown_path(folder.path)
    low, high = result["ci95"]
    print(f"\nThe agent scores {result['mean']:.0f} on average (95% interval {low:.0f} to {high:.0f}).")
    print(verdict(result["mean"]))
    print(f"The worst of the {EPISODES} scored {result['min']:.0f}, the best {result['max']:.0f}.")
    print(f"The run lies in {where}: weights, replay, logs, settings.\n")
    artefact, code, report = frozen(folder.path, arguments)
    print("\nWhat next:")
    todo = {
        command("play", artefact, "--episodes", 10): "play more episodes with the frozen policy",
        command("verify", artefact): "repeat its proof",
        command("board", where): "look at its learning curves",
        command("resume", where, "--steps", 2 * steps): "let it go on learning",
        command("train", "cartpole"): "teach it another game",
        command("games"): "see which games there are",
    }
    width = max(map(len, todo))
    print("\n".join(f"  {line:<{width}}  {why}" for line, why in todo.items()))
    if arguments.json:
        print_json(result | {"frozen": report})
    return code


def frozen(run_folder: Path, arguments: Arguments) -> tuple[Path, int, dict[str, Any]]:
    """Freeze the run's agent beside it, print the proof and one episode; return the artefact, exit code and report."""
    print(
        "Now it is frozen: folded, rounded to 8-bit integers, written as ONNX and C, and played against the live agent"
        " in the same episodes.\n",
        file=sys.stderr,
    )
    asked = freeze.Arguments(source=str(run_folder), out=run_folder / "frozen", runs_dir=arguments.runs_dir, **FROZEN)
    source = load_source(asked.source, asked.runs_dir, None, asked.weights)
    artefact, card, measured = freeze.freeze(source, asked)
    where = Path(shown_path(artefact))
    print(freeze_report.table(card, measured, artefact))
    if card.refused is None:
        print("\nOne episode of the frozen policy:")
        play.run(play.Arguments(what=str(artefact), episodes=1))
    return where, 0 if card.refused is None else freeze.REFUSED, card.model_dump(mode="json")


def verdict(mean: float) -> str:
    """Return in plain words how good a mean score in Lunar Lander is; 200 counts as solved."""
    if mean >= 200:
        return "That counts as solved (200): it lands nearly always, close to the flags and gently."
    if mean >= 100:
        return "It lands most of the time, but not yet reliably; 200 counts as solved."
    if mean >= 0:
        return "It stays in the air and lands sometimes; 200 counts as solved. More steps would help."
    return "It still crashes; 200 counts as solved. More steps would help."
