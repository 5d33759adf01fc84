"""What freezing says at its end: the card of the artefact, what was measured on this machine, and one table."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.cli.artefacts import game_facts
from agent.cli.source import Source
from agent.cli.tables import table as plain_table
from agent.cli.train import shown_path
from agent.cli.words import command, complain
from agent.freeze.card import Card, Observation, Precision, Score
from agent.freeze.emit.c import Memories
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.gate import Agreement, Scores
from agent.freeze.graph import multiply_accumulates
from agent.freeze.latency import energy_per_decision, latencies, throughput
from agent.freeze.player import Player
from agent.freeze.search import Bits, Trial, weight_bytes
from agent.sb3.predictor import Predictor
from agent.telemetry.board import Board
from agent.telemetry.provenance import host_facts, versions
from agent.telemetry.run_folder import RunFolder

BATCHES = (1, 4, 16, 64, 256)
ALIKE = 0.9  # share of states in which a policy that plays as before makes the same choice


def folder_name(game: str, name: str, precision: str, *, pruned: bool = False) -> str:
    """Return a name for the artefact's folder that any file system takes."""
    text = f"{game}-{name}-{precision.split(',')[0]}{'-pruned' * pruned}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")


def card(
    source: Source,
    policy: FrozenPolicy,
    precision: Bits,
    trial: Trial,
    files: Mapping[str, bytes],
    memory: Memories | None,
) -> Card:
    """Return what the artefact's card says before the gate: the same for the same input."""
    seen, axes = source.spec, len(source.spec.action_low or ())
    low, high = None, None
    if seen.observation_dtype == "uint8":
        low, high = 0.0, 255.0 if seen.pixels else 1.0
    sizes = {"weights": weight_bytes(policy.graph if policy.integer is None else policy.integer)}
    if memory is not None:
        sizes |= {"constants of the C": memory.constants, "frames kept by the C": memory.frames}
    return Card(
        game=source.game,
        algorithm=source.algorithm,
        source={
            "name": source.name,
            "weights": source.described,
            "notes": list(source.notes),
            "games": game_facts(source.settings),
        },
        observation=Observation(
            layout=_layout(seen.observation_shape, policy.graph.channels_last, seen.stack),
            low=low,
            high=high,
            stack=seen.stack,
            frame_skip=seen.frame_skip,
            preprocessing=_preprocessing(source),
        ),
        action_names=list(seen.action_names) or [f"axis {index}" for index in range(axes)],
        precision=Precision(
            name=precision.name, weight_bits=precision.bits, activation_bits=precision.bits, wide=list(precision.wide)
        ),
        macs=multiply_accumulates(policy.graph),
        sizes=sizes | {name: len(data) for name, data in sorted(files.items())},
        arena_bytes=None if memory is None else memory.arena,
        score=None,
        gate={},
        passes=[done.figures() for done in trial.passes],
        refused=None,
        versions=versions(),
    )


def judged(card: Card, trial: Trial, choices: Agreement, scores: Scores) -> Card:
    """Return the card with the gate's verdict."""
    return card.model_copy(
        update={
            "score": Score(
                mean=scores.frozen_mean, standard_deviation=scores.frozen_deviation, episodes=scores.episodes
            ),
            "gate": {
                "choices": asdict(choices),
                "scores": scores.figures(),
                "protocol": {
                    "seed": trial.seed,
                    "games": trial.games.num_envs,
                    "margin": trial.margin,
                    "most_episodes": trial.most,
                },
            },
            "refused": None if scores.passed else reason(scores),
        }
    )


def _layout(shape: tuple[int, ...], channels_last: bool, stack: int) -> str:
    if len(shape) != 3:
        return "features"
    if stack > 1:
        return "frames, height, width"
    return "height, width, channels" if channels_last else "channels, height, width"


def _preprocessing(source: Source) -> str:
    """Return in one sentence what a game's raw picture goes through before the policy."""
    if source.game.startswith("atari/"):
        atari = source.settings.game.atari
        return (
            f"The newest of {atari.frame_skip} emulator frames, the brighter of the last two, grey, 84x84, of the last "
            f"{atari.stack} oldest first; nothing is scaled, the policy does it."
        )
    return "The policy takes the observation as the game gives it, and scales and normalises by itself."


def reason(scores: Scores) -> str:
    """Return in one sentence why the gate refused."""
    return (
        f"over {scores.episodes} paired episodes it scores {scores.frozen_mean:.1f}, the live policy "
        f"{scores.live_mean:.1f}: the 95% interval of the difference, {scores.low:+.1f} to {scores.high:+.1f}, reaches "
        f"below the margin of -{scores.margin:.1f}"
    )


def measure(source: Source, folder: Path, states: np.ndarray, targets: Sequence[str]) -> dict[str, Any]:
    """Return what one decision takes on this machine, beside torch and stable-baselines3, all on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seen = source.spec
    predictor = Predictor(
        source.network,
        seen.observation_shape,
        seen.observation_dtype,
        seen.num_actions,
        seen.action_low,
        seen.action_high,
    )
    try:
        contenders = {f"frozen, {name}": Player(folder, name, allow_refused=True).act for name in targets}
        contenders |= {
            "live, torch": source.act,
            "live, stable-baselines3 predict": lambda observation: predictor.predict(observation, deterministic=True),
        }
        times = latencies(contenders, states[:200])
        runtime = min(targets, key=lambda name: times[f"frozen, {name}"]["p50_us"])
        player = Player(folder, runtime, allow_refused=True)
        return {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": host_facts(),
            "load": list(os.getloadavg()),
            "threads": 1,
            "runtime": runtime,
            "latency": times,
            "decisions_per_s": {str(batch): each for batch, each in throughput(player.act, states, BATCHES).items()},
            "energy_uj_per_decision": energy_per_decision(player.act, states),
        }
    finally:
        torch.set_num_threads(threads)


def to_dashboard(run: RunFolder, name: str, card: Card, measured: Mapping[str, Any], steps: int) -> None:
    """Show the artefact `name`, made when the run stood at `steps`, on the run's dashboard.

    In a folder below the run's: beside the events of a run that still trains, TensorBoard would read no more of these.
    """
    frozen, live = measured["latency"][f"frozen, {measured['runtime']}"], measured["latency"]["live, torch"]
    choices, scores = card.gate["choices"], card.gate["scores"]

    def warn(sentence: str) -> None:
        complain(f"The frozen policy is not on the run's dashboard. {sentence}")

    board = Board(run.path / "board" / name, warn=warn)
    board.write(
        steps,
        {
            "frozen/weights_kib": card.sizes["weights"] / 1024,
            "frozen/live_weights_kib": card.passes[0]["weight_bytes"] / 1024,
            "frozen/latency_p50": frozen["p50_us"],
            "frozen/latency_p99": frozen["p99_us"],
            "frozen/live_latency_p50": live["p50_us"],
            "frozen/agreement": choices["agree"],
            "frozen/score": scores["frozen_mean"],
            "frozen/live_score": scores["live_mean"],
            "frozen/score_gap": scores["difference"],
        },
    )
    board.close()


def table(card: Card, measured: Mapping[str, Any], folder: Path) -> str:
    """Return the closing report: what was frozen, how small, how fast, and whether it still plays."""
    choices, scores = card.gate["choices"], card.gate["scores"]
    times, first = measured["latency"], card.passes[0]
    frozen = times[f"frozen, {measured['runtime']}"]["p50_us"]
    files = [f"{name} {size:,} bytes" for name, size in card.sizes.items() if name.startswith("policy.")]
    rows = [
        ("what", f"{card.algorithm} for {card.game}, {card.source['weights']}"),
        ("precision", card.precision.name),
        ("multiply-accumulates", _change(first["macs"], card.macs, "")),
        ("weights", _change(first["weight_bytes"], card.sizes["weights"], " bytes")),
        ("files", ", ".join(files)),
    ]
    if card.arena_bytes is not None:
        constants, frames = card.sizes["constants of the C"], card.sizes["frames kept by the C"]
        kept = f" and {frames:,} for the frames" if frames else ""
        needs = f"{constants:,} bytes of flash and its code, {card.arena_bytes:,} bytes of RAM{kept}"
        rows.append(("the C needs", needs))
    rows += [
        ("same choice", _choices(choices)),
        (
            "score",
            f"{scores['frozen_mean']:.1f} frozen, {scores['live_mean']:.1f} live, in the same {scores['episodes']} "
            "episodes",
        ),
        (
            "difference",
            f"{scores['difference']:+.1f}, 95% interval {scores['low']:+.1f} to {scores['high']:+.1f}; "
            f"allowed: not below -{scores['margin']:.1f}",
        ),
    ]
    for name, each in times.items():
        faster = "" if name.startswith("frozen") else f", {each['p50_us'] / frozen:.0f} times the frozen policy's"
        rows.append((f"one decision, {name}", f"{each['p50_us']:.1f} us (99%: {each['p99_us']:.1f}){faster}"))
    if board := measured.get("board"):
        rows.append((board["board"], _board(board)))
    if isinstance(measured["energy_uj_per_decision"], float):
        rows.append(("energy", f"{measured['energy_uj_per_decision']:.1f} uJ a decision"))
    else:
        rows.append(("energy", "not measured (this machine does not say)"))
    where = shown_path(folder)
    if card.refused is not None:
        verdict = f"REFUSED: {card.refused}. The artefact in {where} is marked and is not to be used."
    else:
        alike = "It plays as before."
        if choices["agree"] < ALIKE:
            alike = "It scores as well as before, though it plays otherwise."
        verdict = f"{alike} The artefact lies in {where}; {command('play', where)} shows it at play."
    return f"{plain_table(('', 'frozen policy'), rows)}\n\n{verdict}"


def _change(before: int, after: int, unit: str) -> str:
    if before == after:
        return f"{after:,}{unit}"
    return f"{after:,}{unit}, before {before:,} ({after / before:{'.0%' if 10 * after > before else '.2%'}})"


def _choices(choices: dict[str, Any]) -> str:
    text = f"in {choices['agree']:.2%} of {choices['states']:,} states"
    if choices["within"]:
        return f"{text}, within {choices['within']:.0%} of the range of the action"
    if choices["ties"]:
        text += f", {choices['ties']} ties besides"
    return f"{text}; what other choices lose: {choices['regret']:.3%} of the spread of values"


def _board(board: dict[str, Any]) -> str:
    wrong = board["self_test_failures"] or board["other_outputs"]
    return (
        f"{board['flash_bytes']:,} bytes of flash, {board['ram_bytes']:,} of RAM, {board['stack_bytes']:,} of stack, "
        f"{board['instructions_per_decision']:,} instructions a decision; in QEMU it gives "
        f"{'OTHER outputs than here' if wrong else 'the same outputs as here'} in {board['states']} states"
    )
