"""Scores to hold a learned one against: random play, measured here, and the score at which a game counts as solved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agent.config import Settings
from agent.evaluation import play_episodes
from agent.seeding import numpy_generator, seed_for
from envs.make import GameSpec, make_vector_env, spec

EPISODES, GAMES = 20, 5
MOST_STEPS = 60_000  # of all games together; random play of some games takes for ever
OWNER = "random play for a report"


class References(NamedTuple):
    """What is known of a game without any learning."""

    frames_per_step: int
    solved_at: float | None  # mean score
    random: float | None  # mean score of random play
    note: str  # why something is missing, or empty


class _TooLong(Exception):
    """Random play has taken more steps than a report is worth."""


def references(game: str, settings: Settings) -> References:
    """Return a game's references, played with its run's settings; the same every time."""
    family = {"atari": settings.game.atari.model_dump(), "minatar": settings.game.minatar.model_dump()}
    frame_skip = settings.game.atari.frame_skip if game.startswith("atari/") else 1
    vectorize = "auto" if game.startswith("atari/") else "inline"  # Atari has threads of its own
    if ":" in game.removeprefix("gym:"):  # gymnasium would import the module that stands before it
        return References(frame_skip, None, None, "Random play is not shown: the game is not one of Gymnasium's own.")
    try:
        seen = spec(game, **family)
        games = make_vector_env(game, GAMES, seed_for(0, OWNER), vectorize=vectorize, threads=1, **family)
    except Exception as error:  # a game's package may be missing or raise anything
        return References(frame_skip, None, None, f"Random play is not shown: the game does not start here ({error}).")
    try:
        return References(seen.frame_skip, seen.solved_at, _play(seen, games), "")
    except _TooLong:
        note = f"Random play is not shown: {EPISODES} episodes of it take more than {MOST_STEPS:,} steps."
        return References(seen.frame_skip, seen.solved_at, None, note)
    finally:
        games.close()


def _play(seen: GameSpec, games: object) -> float:
    generator, steps = numpy_generator(0, OWNER), 0

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal steps
        steps += GAMES
        if steps > MOST_STEPS:
            raise _TooLong
        if seen.action_low is None:
            return generator.integers(seen.num_actions, size=GAMES)
        low, high = np.maximum(seen.action_low, -1e3), np.minimum(seen.action_high, 1e3)
        return generator.uniform(low, high, size=(GAMES, len(low)))

    played = play_episodes(games, act, EPISODES, seed_for(0, OWNER + ", its episodes"))
    return float(np.mean([episode.score for episode in played]))
