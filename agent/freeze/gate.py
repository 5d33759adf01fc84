"""The gate: does the frozen policy play as the live one does? By its choices, and by its score in paired episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agent.evaluation import play_episodes
from agent.freeze.graph import Continuous, Discrete
from agent.seeding import numpy_generator, seed_for
from agent.telemetry.statistics import bootstrap_ci
from agent.types import VectorEnv

Act = Callable[[np.ndarray], np.ndarray]  # observations [N, *shape] -> actions [N] or [N, n]

TIE = 1e-4  # action values that lie closer than this have no order in float32
SAME_ACTION = 0.01  # of the range of a continuous action
TURNS = 500  # of every game while states are collected


@dataclass(frozen=True)
class Agreement:
    """How often two policies choose alike on the same states, and what it costs where they do not."""

    states: int
    agree: float  # share of the states
    ties: int  # disagreements in which the live policy's own two values lie within TIE
    largest_difference: float  # of an output: action values less their mean over actions, or a continuous action
    regret: float  # mean loss in the live policy's values, as a share of their spread over actions; 0 when continuous
    within: float = 0.0  # of the range: as near as this counts as the same action when it is continuous


def agreement(
    live: np.ndarray,
    frozen: np.ndarray,
    head: Discrete | Continuous,
    live_action: np.ndarray,
    frozen_action: np.ndarray,
) -> Agreement:
    """Compare outputs, float [N, outputs], and actions of two policies on the same states."""
    states = len(live)
    if isinstance(head, Continuous):
        span = np.float32(head.high) - np.float32(head.low)
        apart = np.abs(live_action - frozen_action)
        same = (apart <= SAME_ACTION * span).all(axis=1)
        return Agreement(states, float(same.mean()), 0, float(apart.max()), 0.0, SAME_ACTION)
    centred = live - live.mean(axis=1, keepdims=True)
    difference = np.abs(centred - (frozen - frozen.mean(axis=1, keepdims=True))).max()
    rows = np.arange(states)
    lost = live[rows, live_action] - live[rows, frozen_action]
    spread = np.maximum(live.max(axis=1) - live.min(axis=1), 1e-12)
    other = live_action != frozen_action
    return Agreement(
        states,
        float(1 - other.mean()),
        int((other & (lost <= TIE)).sum()),
        float(difference),
        float((lost / spread).mean()),
    )


def visited(
    games: VectorEnv, act: Act, count: int, seed: int, *, epsilon: float = 0.0, num_actions: int = 0
) -> np.ndarray:
    """Return `count` states that a policy visits, [count, *shape], spread evenly over TURNS turns played from `seed`.

    With `epsilon` that share of the (discrete) actions is drawn at random, which shows states beside its usual way.
    """
    generator = numpy_generator(seed, "random actions")
    rounds = -(-count // games.num_envs)
    stride = max(1, TURNS // rounds)  # some whole episodes rather than many beginnings
    games.reset(seed)
    found = np.empty((rounds, *games.current.observation.shape), games.current.observation.dtype)  # [rounds, B, *shape]
    for turn in range(rounds * stride):
        observation = games.current.observation
        if turn % stride == 0:
            found[turn // stride] = observation
        action = act(observation)
        if epsilon:
            at_random = generator.random(len(action)) < epsilon
            action = np.where(at_random, generator.integers(num_actions, size=len(action)), action)
        games.send(action)
        games.recv()
    return found.reshape(-1, *found.shape[2:])[:count]


@dataclass(frozen=True)
class Scores:
    """Scores of two policies in the same episodes, and whether the second keeps what the first reaches."""

    episodes: int
    live_mean: float
    frozen_mean: float
    frozen_deviation: float  # of single episodes
    difference: float  # frozen - live, mean over episodes
    low: float  # 95 % interval of the difference
    high: float
    margin: float  # how far below zero `low` may lie
    passed: bool

    def figures(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def compare(live: np.ndarray, frozen: np.ndarray, margin: float) -> Scores:
    """Judge paired scores [E]; `margin` is a share of the live policy's mean score."""
    differences = frozen.astype(np.float64) - live
    low, high = bootstrap_ci(differences)
    allowed = margin * abs(float(live.mean()))
    return Scores(
        episodes=len(live),
        live_mean=float(live.mean()),
        frozen_mean=float(frozen.mean()),
        frozen_deviation=float(frozen.std()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        margin=allowed,
        passed=low >= -allowed,
    )


def paired(
    games: VectorEnv,
    policies: Mapping[str, Act],
    seed: int,
    *,
    margin: float,
    episodes: int,
    most: int,
    live: dict[int, np.ndarray] | None = None,
) -> Scores:
    """Play the same episodes with policies["live"] and policies["frozen"] and judge the difference.

    Every round is one episode in each of the games, begun from a seed of its own. At least `episodes` are played; while
    the interval is too wide to tell (its middle within the margin, its lower end not), the number is doubled, up to
    `most`. `live` keeps the live policy's scores by round, for the next policy that is compared with it.
    """
    live = {} if live is None else live
    scores: list[np.ndarray] = []
    wanted = episodes
    while True:
        while sum(map(len, scores)) < wanted:
            number = len(scores)
            start = seed_for(seed, f"round {number}")
            if number not in live:
                live[number] = _round(games, policies["live"], start)
            scores.append(_round(games, policies["frozen"], start))
        judged = compare(np.concatenate([live[i] for i in range(len(scores))]), np.concatenate(scores), margin)
        undecided = not judged.passed and judged.difference >= -judged.margin
        if not undecided or 2 * wanted > most:
            return judged
        wanted *= 2


def _round(games: VectorEnv, act: Act, seed: int) -> np.ndarray:
    """Return the score of one episode of every game, [B], by game."""
    episodes = play_episodes(games, act, games.num_envs, seed)
    return np.array([episode.score for episode in sorted(episodes, key=lambda episode: episode.game)])
