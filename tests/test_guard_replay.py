"""What is left out of replay, at every ring position, with stacks and windows: against a list of what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import Episode, Witness, compare, make

from agent import checkpoint
from agent.guard import single
from agent.replay.replay import Replay
from envs.fakes import CountingGame
from envs.step import Step


class Unsound:
    """Counting games, some of whose rewards are no numbers, and some of which are replaced; pictures stay pictures."""

    def __init__(self, games: CountingGame, p_wrong: float, p_replaced: float, rng: np.random.Generator):
        self._games, self._p_wrong, self._p_replaced, self._rng = games, p_wrong, p_replaced, rng
        self.current = games.current

    def reset(self, seed: int) -> Step:
        self.current = self._games.reset(seed)
        return self.current

    def send(self, action: np.ndarray) -> None:
        self._games.send(action)

    def recv(self) -> Step:
        step = self._games.recv()
        wrong = self._rng.random(self._games.num_envs) < self._p_wrong
        reward = np.where(wrong, self._rng.choice([np.nan, np.inf, -np.inf], len(wrong)), step.reward)
        replaced = (self._rng.random(len(wrong)) < self._p_replaced) & ~(step.terminated | step.truncated)
        self._games._observation[replaced, :-1] = 0  # a first picture has none before it
        observation, first = self._games._observation.copy(), step.first | replaced
        self.current = step._replace(
            observation=observation, reward=reward.astype(np.float32), first=first, restarted=replaced
        )
        return self.current


class Fair(Witness):
    """A witness who knows what must be left out."""

    def __init__(self, num_games: int, stack: int, p_end: float, seed: int, p_wrong: float, p_replaced: float) -> None:
        super().__init__(num_games, stack, p_end, False, seed)
        self.games: Any = Unsound(self.games, p_wrong, p_replaced, np.random.default_rng(seed))

    def _note(self, game: int, step: Step, action: np.ndarray, answered: Step) -> bool:
        taken = step.first[game] or not (step.terminated[game] or step.truncated[game])
        lost = taken and (not np.isfinite(answered.reward[game]) or answered.restarted[game])
        if not lost:
            return super()._note(game, step, action, answered)
        self.rows[game].append(None)
        self.open[game] = Episode(answered.observation[game])
        return False


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_games=st.integers(1, 3),
    capacity=st.integers(1, 30),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 4),
    p_end=st.sampled_from([0.0, 0.1, 0.5]),
    p_wrong=st.sampled_from([0.0, 0.1, 0.5]),
    p_replaced=st.sampled_from([0.0, 0.1]),
    p_cut=st.sampled_from([0.0, 0.1]),
)
def test_what_is_left_out_is_in_no_window(
    seed: int, num_games: int, capacity: int, stack: int, n_step: int, p_end: float, p_wrong: float,
    p_replaced: float, p_cut: float,
) -> None:  # fmt: skip
    """At every ring position no reward that is no number and no step across a replaced game can be sampled; all else
    can, with the stacks that the actor saw.
    """
    games = Fair(num_games, stack, p_end, seed, p_wrong, p_replaced)
    replay = make(num_games, capacity, stack, n_step)
    for _ in range(2 * replay.film.length + 3):
        games.play(replay, 1, p_cut)
        compare(games, replay)


def floats(**changes: Any) -> Replay:
    fields = {"observation_shape": (2,), "observation_dtype": "float32", "stack": 1, "n_step": 2, "num_games": 1}
    return make(**(fields | changes))


def step(value: float, *, reward: float = 0.0, first: bool = False, terminated: bool = False) -> Step:
    no = np.zeros(1, bool)
    return Step(single(np.full((1, 2), value)), np.array([reward]), no | terminated, no, no | first)


def test_a_run_goes_on_from_a_checkpoint_behind_what_was_left_out(tmp_path: Path) -> None:
    """Saved after each step of an episode with a NaN in it, a fresh replay takes the rest and holds the same."""
    told = [step(0.0, first=True), step(1.0), step(np.nan), step(3.0), step(4.0, reward=np.inf), step(5.0), step(6.0)]
    told += [step(7.0, terminated=True), step(8.0, first=True), step(9.0), step(10.0)]
    whole = floats()
    for before, after in zip(told[:-1], told[1:], strict=True):
        whole.insert(before, np.zeros(1, np.int64), after)
    held = whole.tree.leaves.nonzero()[:, 0]
    assert whole.gather(held).s_tm1[:, 0].tolist() == [0.0, 4.0, 5.0, 6.0]
    for cut in range(1, len(told) - 1):
        first, second = floats(), floats()
        for at, (before, after) in enumerate(zip(told[:-1], told[1:], strict=True)):
            if at == cut:
                checkpoint.save(tmp_path / str(cut), 1, {"replay": first.state_dict()}, keep=1)
                second.load_state_dict(checkpoint.load_newest(tmp_path / str(cut)).tree["replay"])
            (first if at < cut else second).insert(before, np.zeros(1, np.int64), after)
        second.check()
        assert second.gather(held).s_tm1.equal(whole.gather(held).s_tm1) and len(second) == len(whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_an_episode_may_begin_and_end_with_what_is_no_number(value: float) -> None:
    """First and last observations that are not finite cost their transitions; the film holds no such number."""
    replay = floats(n_step=1)
    told = [step(value, first=True), step(1.0), step(2.0), step(value, terminated=True), step(4.0, first=True)]
    told += [step(5.0), step(value), step(7.0)]
    stored = [replay.insert(a, np.zeros(1, np.int64), b) for a, b in zip(told[:-1], told[1:], strict=True)]
    assert stored == [0, 1, 0, 0, 1, 0, 0] and replay.faults.counts["faults/non_finite_steps"] == 2
    held = replay.gather(replay.tree.leaves.nonzero()[:, 0])
    assert held.s_tm1[:, 0].tolist() == [1.0, 4.0] and held.s_t[:, 0].tolist() == [2.0, 5.0]
    replay.cut(step(value))
    replay.check()
    assert bool(replay.film.frames.read(torch.arange(replay.film.num_rows)).isfinite().all())


def test_a_clipped_reward_must_have_been_a_number() -> None:
    """Clipping makes 1 of an infinite reward; it is left out all the same."""
    replay = floats(n_step=1, reward_clip=1.0)
    told = [step(0.0, first=True), step(1.0, reward=np.inf), step(2.0, reward=7.0), step(3.0)]
    for before, after in zip(told[:-1], told[1:], strict=True):
        replay.insert(before, np.zeros(1, np.int64), after)
    held = replay.gather(replay.tree.leaves.nonzero()[:, 0])
    assert held.r_t.tolist() == [1.0] and held.s_tm1[:, 0].tolist() == [1.0]
