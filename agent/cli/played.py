"""icebox played PATH: what a person has played, and its export to Minari's format for other libraries."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from agent.cli.extras import is_installed
from agent.cli.tables import table
from agent.cli.train import shown_path
from agent.cli.words import command
from agent.replay.demonstrations import Demonstration, read

ALIKE = ("game", "settings", "frame_shape", "dtype", "actions", "frame_skip")  # facts that one data set shares


@dataclass(frozen=True)
class Arguments:
    """List the games that a person played in the viewer; with --minari, make a Minari data set of them."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PATH")]
    """A demonstration or a folder of them: RUN/demonstrations, or RUNS_DIR/played/GAME/demonstrations."""
    minari: str | None = None
    """Name of the new data set, such as pong/human-v0; Minari keeps it in its own folder (MINARI_DATASETS_PATH)."""


def run(arguments: Arguments) -> int:
    """List, and export if asked for; return 0."""
    played = read(arguments.path)
    rows = [
        [
            each.path.name,
            each.facts["game"],
            f"{each.facts['length']:,}",
            f"{each.facts['score']:g}",
            "" if each.facts.get("complete") is True else "left before its end",
        ]
        for each in played
    ]
    print(table(["file", "game", "steps", "score", ""], rows))
    if arguments.minari is None:
        first = played[0].facts["game"]
        print(f"To learn from them: {command('train', first, '--demonstrations', shown_path(arguments.path))}")
        return 0
    where = export(played, arguments.minari)
    print(f"Minari's data set {arguments.minari} with {len(played)} episodes is in {where}.")
    return 0


def export(played: Sequence[Demonstration], name: str) -> Path:
    """Make a Minari data set of demonstrations of one game and return its folder; ValueError in a sentence.

    Observations are the frames as they are stored, without a stack.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*-v[0-9]+", name):
        raise ValueError(f"--minari: a name ends with a version, such as pong/human-v0, not {name!r}.")
    if not is_installed("minari") or not is_installed("h5py"):
        raise ValueError("--minari: needs Minari: pip install 'minari[hdf5]>=0.5.4'.")
    import minari  # not needed for the list
    from gymnasium.spaces import Box, Discrete
    from minari.data_collector import EpisodeBuffer

    facts = played[0].facts
    for path, other in played:
        for fact in ALIKE:
            if other[fact] != facts[fact]:
                first = played[0].path.name
                raise ValueError(f"{path}: its {fact} differs from that of {first}: export each for itself.")
    shape, integer = tuple(facts["frame_shape"]), facts["dtype"] == "uint8"
    low, high = (0, 255) if integer else (-np.inf, np.inf)
    buffers = []
    for number, each in enumerate(played):
        episode = each.load()
        buffers.append(
            EpisodeBuffer(
                id=number, seed=each.facts.get("seed"), observations=episode.observation,
                actions=episode.action.astype(np.int64), rewards=episode.reward, terminations=episode.terminated,
                truncations=episode.truncated,
            )
        )  # fmt: skip
    try:
        with warnings.catch_warnings(action="ignore"):  # of authors and addresses that nobody has given
            made = minari.create_dataset_from_buffers(
                name, buffers, observation_space=Box(low, high, shape, facts["dtype"]),
                action_space=Discrete(len(facts["actions"])), algorithm_name="a person", jpeg_encoding=False,
                description=f"{facts['game']}, frame skip {facts['frame_skip']}, frames without a stack, "
                f"actions {', '.join(facts['actions'])}.",
            )  # fmt: skip
    except ValueError as error:  # of a name that it does not take, or that is taken
        raise ValueError(f"--minari {name}: {error}") from None
    return Path(made.storage.data_path).parent
