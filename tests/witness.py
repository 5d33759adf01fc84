"""What a replay must hold, the slow way: a list of everything that ever happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agent.replay.replay import Replay
from envs.fakes import CountingGame
from envs.step import Step

DISCOUNT = 0.9
SIZE = 3  # of a frame


class Episode:
    """Everything that happened in one episode, in lists."""

    def __init__(self, observation: np.ndarray) -> None:
        self.seen = [observation.copy()]  # what the actor saw, the terminal observation included
        self.action: list[int] = []
        self.reward: list[float] = []
        self.terminated = False


class Witness:
    """Plays counting games and keeps the list of what really happened.

    `rows[game]` is what a film must hold: (episode, time) of every action taken, None for a terminal observation.
    """

    def __init__(self, num_games: int, stack: int, p_end: float, same_step: bool, seed: int) -> None:
        self.games = CountingGame(
            num_games, pixels=True, stack=stack, size=SIZE, end_probability=p_end, same_step=same_step
        )
        self.num_games = num_games
        self.rng = np.random.default_rng(seed)
        self.rows: list[list[tuple[Episode, int] | None]] = [[] for _ in range(num_games)]
        self.reset()

    def reset(self) -> None:
        """Start every game anew."""
        observation = self.games.reset(int(self.rng.integers(1 << 30))).observation
        self.open = [Episode(observation[game]) for game in range(self.num_games)]

    def play(self, replay: Replay, ticks: int, p_cut: float = 0.0) -> None:
        """Play with random actions, with cuts in between."""
        for _ in range(ticks):
            if self.rng.random() < p_cut:
                for _ in range(self.rng.integers(1, 3)):  # a second cut does nothing
                    replay.cut(self.games.current)
                for game in np.flatnonzero(~self.games.current.first):
                    self.rows[game].append(None)
                self.reset()
            step, action = self.games.current, self.rng.integers(0, 18, self.num_games)
            self.games.send(action % 2)
            answered = self.games.recv()
            taken = replay.insert(step, action, answered)
            assert taken == sum(self._note(game, step, action, answered) for game in range(self.num_games))

    def _note(self, game: int, step: Step, action: np.ndarray, answered: Step) -> bool:
        """Write down what one game did; return whether it took the action."""
        rows, episode, again = self.rows[game], self.open[game], answered.first[game]
        taken = step.first[game] or not (step.terminated[game] or step.truncated[game])
        if taken:
            rows.append((episode, len(episode.action)))
            episode.action.append(int(action[game]))
            episode.reward.append(float(answered.reward[game]))
            episode.terminated = bool(answered.terminated[game])
            episode.seen.append((answered.final_observation if again else answered.observation)[game].copy())
        if again:
            rows.append(None)
            self.open[game] = Episode(answered.observation[game])
        return taken


def make(num_games: int = 2, capacity: int = 20, stack: int = 3, n_step: int = 2, **other: Any) -> Replay:
    """A small replay."""
    fields = {
        "observation_shape": (stack, SIZE, SIZE),
        "observation_dtype": "uint8",
        "discount": DISCOUNT,
        "priority_exponent": 0.0,
        "reward_clip": None,
        "generator": torch.Generator().manual_seed(0),
        "device": "cpu",
    }
    return Replay(num_games=num_games, capacity=capacity, stack=stack, n_step=n_step, **(fields | other))


def expected(episode: Episode, time: int, n_step: int, discount: float = DISCOUNT) -> tuple:
    """One transition, the slow way."""
    k = min(n_step, len(episode.action) - time)
    r_t = sum(discount**j * episode.reward[time + j] for j in range(k))
    ended = time + k == len(episode.action) and episode.terminated
    discount_t = 0.0 if ended else discount**k
    return (*episode.seen[time].flat, episode.action[time], r_t, discount_t, *episode.seen[time + k].flat)


def reachable(games: Witness, replay: Replay, *asked: float) -> list[tuple]:
    """Every transition that can be sampled, the slow way: capacity / games rows end n rows before the newest one.

    `asked` are the n and the discount of the windows themselves.
    """
    found = []
    kept = -(-replay.capacity // games.num_games)
    for rows in games.rows:
        due = len(rows) - replay.n_step
        found += [expected(*row, *(asked or (replay.n_step,))) for row in rows[max(0, due - kept) : max(0, due)] if row]
    return found


def compare(games: Witness, replay: Replay, *asked: float) -> None:
    """All rows that can be sampled are those that should be, with all that belongs to them."""
    replay.check()
    index = replay.tree.leaves.nonzero()[:, 0]
    want = sorted(reachable(games, replay, *asked))
    assert len(replay) == len(index) == len(want)
    if not want:
        return
    fields = replay.gather(index, *asked)
    columns = [field.reshape(len(index), -1).double() for field in fields]
    got = sorted(map(tuple, torch.cat(columns, 1).tolist()))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
