"""icebox record: a policy plays whole games, greedily, into episode files and animations, without browser or server."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from PIL import Image

from agent.cli.artefacts import settings_of
from agent.cli.out import checked_out
from agent.cli.session import family_settings
from agent.cli.source import load_source
from agent.cli.train import shown_path
from agent.cli.viewing import artefact_policy
from agent.cli.words import command, complain
from agent.config import Settings
from agent.freeze.player import MANIFEST
from agent.telemetry.run_folder import RunFolder, find, game_folder
from agent.viewer.episodes import FORMS, EpisodeLog
from agent.viewer.packet import pack
from agent.viewer.policies import Facts, LivePolicy, Policy, scores_of
from envs.shown import Shown

ROOM = "recorded"
LONGEST = 216_000  # steps of a game; one that goes on for longer is cut
SEEDS = 2**31  # emulators take seeds below it


@dataclass(frozen=True)
class Arguments:
    """Play games with a policy and keep them: every picture with what the policy thought of it, and as an animation.

    'icebox play' shows the kept games with a scrubber. The same seed gives the same game.
    """

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|ARTEFACT|ZIP")]
    """A run folder, 'latest' or 'GAME/latest'; a folder that 'icebox freeze' wrote; a stable-baselines3 zip."""
    episodes: int = 3
    """Whole games to play."""
    out: Path | None = None
    """Folder for the files; default: where 'icebox play' looks for them."""
    seed: int = 0
    """Seed of the first game; each further one has the next."""
    webp: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write each game as an animated WebP (done when no other form is asked for)."""
    gif: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write each game as a GIF."""
    weights: Literal["best", "last"] = "best"
    """Of a run. best: those of the best evaluation during training (last, when there was none). last: the newest
    checkpoint's."""
    game: str | None = None
    """The game of a zip, where its file name does not say it."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""


class Opened(NamedTuple):
    """A policy, the game that it plays, and where its games are kept."""

    policy: Policy
    game: str
    settings: Settings
    kept: Path


def run(arguments: Arguments) -> int:
    """Record as the arguments say; return 0."""
    if arguments.episodes < 1:
        raise ValueError(f"--episodes: must be a whole number, at least 1, got {arguments.episodes}.")
    if not 0 <= arguments.seed <= SEEDS - arguments.episodes:
        highest = SEEDS - arguments.episodes
        raise ValueError(f"--seed: must be a whole number from 0 to {highest:,}, got {arguments.seed}.")
    forms = [form for form in FORMS if getattr(arguments, form)] or ["webp"]
    opened = open_policy(arguments)
    print(f"{opened.game}: {opened.policy.facts.described}", flush=True)
    log = EpisodeLog(checked_out(arguments.out or opened.kept), complain)
    game = Shown(opened.game, arguments.seed, **family_settings(opened.settings))
    try:
        for number in range(arguments.episodes):
            row = play(log, game, opened.policy, arguments.seed + number, number)
            if row is None:  # the log has said why
                raise RuntimeError(f"Episode {number + 1} could not be kept in {log.folder}.")
            for form in forms:
                log.animation(row["id"], form)
                if not log.path(row["id"], form).is_file():
                    raise RuntimeError(f"Episode {number + 1} could not be written as {form} in {log.folder}.")
            files = ", ".join(str(shown_path(log.path(row["id"], form))) for form in forms)
            cut = f" ({row['cut'].rstrip('.')})" if row["cut"] else ""
            played = f"score {row['score']:g} in {row['length']:,} steps, seed {row['seed']}{cut}"
            print(f"episode {number + 1}: {played}: {files}", flush=True)
    finally:
        game.close()
        log.close()
    where = shown_path(log.folder)
    watch = "" if arguments.out else f" Watch them picture by picture: {command('play', arguments.what)}"
    print(f"The pictures with their Q-values are beside them, as .ep files that index.json in {where} lists.{watch}")
    return 0


def open_policy(arguments: Arguments) -> Opened:
    """Return who plays and what; ValueError or FileNotFoundError in a sentence."""
    torch.set_num_threads(1)
    path, runs = Path(arguments.what), arguments.runs_dir
    if (path / MANIFEST).is_file():
        if arguments.game is not None:
            raise ValueError("--game is for zips; an artefact knows its game.")
        policy, card = artefact_policy(path, allow_refused=True)
        if card.refused:
            complain(f"{path.name} did not pass its gate: {card.refused}.")
        return Opened(policy, card.game, settings_of(card), runs / "played" / game_folder(card.game) / "episodes")
    source = load_source(arguments.what, runs, arguments.game, arguments.weights)
    for note in source.notes:
        complain(note)
    scores = scores_of(source.algorithm, not source.spec.num_actions)
    facts = Facts(f"{source.algorithm} {source.described}", scores)
    kept = runs / "played" / game_folder(source.game)
    if path.suffix != ".zip":
        kept = RunFolder.open(find(runs, arguments.what)).path
        if source.settings.algo == "icebox":  # else it has learned with settings of its own
            facts.discount, facts.reward_clip = source.settings.learner.discount, source.settings.replay.reward_clip
    policy = LivePolicy(source.outputs, source.graph.head, facts, source.network, source.choose)
    return Opened(policy, source.game, source.settings, kept / "episodes")


class Thought(NamedTuple):
    """What a policy makes of one observation."""

    values: np.ndarray | None  # f64 [A]
    action: Any
    act_ms: float


def play(log: EpisodeLog, game: Shown, policy: Policy, seed: int, number: int) -> dict[str, Any] | None:
    """Play the whole game of `seed` into the log, as its episode `number`; return its row.

    Times in the packets are those at which a person would see the pictures, not those at which they were made.
    """
    game.restart(seed)
    thought, began, steps, score, ended, most = _think(policy, game), time.time(), 0, 0.0, False, 1
    _add(log, game.picture, _facts(policy, thought, number=number, seed=seed) | {"action": None, "time": began})
    while not ended and steps < LONGEST:
        pictures, reward, terminated, truncated = game.step(thought.action)
        steps, score, ended = steps + 1, score + reward, terminated or truncated
        shown = len(pictures)
        most = max(most, shown)
        following = None if terminated else _think(policy, game)
        facts = _facts(policy, thought, number=number, seed=seed, step=steps, score=score, reward=reward)
        facts["td_error"] = td_error(policy.facts, thought, reward, following)
        for part, picture in enumerate(pictures, 1):
            at = began + (steps - 1 + part / shown) / game.steps_per_s
            _add(log, picture, facts | {"ended": ended and part == shown, "time": at})
        thought = following
    per_s = game.steps_per_s * most
    return log.end(ROOM, score, steps, seed, pictures_per_s=per_s, keep=True, finished=ended)


def _think(policy: Policy, game: Shown) -> Thought:
    before = time.perf_counter()
    values, action = policy.q(game.observation)
    return Thought(values, action, (time.perf_counter() - before) * 1e3)


def td_error(facts: Facts, thought: Thought, reward: float, following: Thought | None) -> float | None:
    """Return one step's TD error by the values that are shown, None where there are none; a termination has no `following`."""
    if thought.values is None or facts.scores != "values" or facts.discount is None:
        return None
    if facts.reward_clip is not None:
        reward = float(np.clip(reward, -facts.reward_clip, facts.reward_clip))
    ahead = 0.0 if following is None else facts.discount * float(following.values.max())
    return reward + ahead - float(thought.values[thought.action])


def _facts(
    policy: Policy, thought: Thought, *, number: int, seed: int, step: int = 0, score: float = 0.0, reward: float = 0.0
) -> dict[str, Any]:
    """What a packet says of a picture, as agent/viewer/rooms.py does."""
    is_value = thought.values is not None and policy.facts.scores == "values"
    return {
        "room": ROOM, "step": step, "episode": number, "score": score, "reward": reward, "action": thought.action,
        "q": thought.values, "value": float(thought.values.max()) if is_value else None, "td_error": None,
        "policy_updates": policy.facts.updates, "policy_age_updates": None, "act_ms": thought.act_ms, "seed": seed,
        "held": None, "ended": False,
    }  # fmt: skip


def _add(log: EpisodeLog, picture: np.ndarray, facts: dict[str, Any]) -> None:
    """Add a picture without loss, however large: nobody waits for it."""
    file, (height, width) = io.BytesIO(), picture.shape[:2]
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "WEBP", lossless=True, quality=0, method=0)
    log.add(ROOM, pack({**facts, "n": 0, "width": width, "height": height, "format": "webp"}, file.getvalue()))
