"""Replay against a list of everything that ever happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import SIZE, Witness, compare, make, reachable

from agent.config import ReplaySettings
from agent.replay.replay import Replay
from agent.schedules import Linear
from envs.step import Step


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_games=st.integers(1, 4),
    capacity=st.integers(1, 40),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 4),
    p_end=st.sampled_from([0.0, 0.05, 0.2, 0.6]),
    p_cut=st.sampled_from([0.0, 0.1]),
    same_step=st.booleans(),
)
def test_every_row_is_what_happened(
    seed: int, num_games: int, capacity: int, stack: int, n_step: int, p_end: float, p_cut: float, same_step: bool
) -> None:
    """At every ring position stacks are those the actor saw, windows a slow loop's, no row is missing or left."""
    games = Witness(num_games, stack, p_end, same_step, seed)
    replay = make(num_games, capacity, stack, n_step)
    compare(games, replay)
    for _ in range(2 * replay.film.length + 3):
        games.play(replay, 1, p_cut)
        compare(games, replay)


@pytest.mark.parametrize("same_step", [False, True])
def test_n_and_discount_may_differ_from_batch_to_batch(same_step: bool) -> None:
    """For every n up to replay's own and any discount windows are a slow loop's, over the same rows, and so sampled."""
    games, replay = Witness(2, 2, 0.15, same_step, 8), make(2, 20, 2, 5)
    for ticks in range(30):
        games.play(replay, 1, 0.05)
        compare(games, replay)
        for n_step in range(1, 6) if len(replay) else ():
            discount = 1.0 - 0.1 * n_step - 0.001 * ticks
            compare(games, replay, n_step, discount)
            batch = replay.sample(16, 0.4, n_step, discount)
            alone = replay.gather(batch.index, n_step, discount)
            assert all(torch.equal(one, other) for one, other in zip(batch[:5], alone, strict=True))
    for n_step in (0, 6):
        with pytest.raises(ValueError, match="1 to 5"):
            replay.sample(4, 0.4, n_step)


def test_capacity_is_reached_and_not_passed() -> None:
    """Without ends exactly `capacity` transitions can be sampled once the film has gone round."""
    games, replay = Witness(4, 4, 0.0, False, 0), make(4, 40, 4, 3)
    games.play(replay, 100)
    assert len(replay) == 40


def test_sampled_batches_are_rows_that_can_be_sampled() -> None:
    """Over many batches while the ring turns, every sampled transition is one of the slow list's."""
    games, replay = Witness(3, 3, 0.1, False, 5), make(3, 30, 3, 3, priority_exponent=0.6)
    games.play(replay, 4)
    for _ in range(100):
        games.play(replay, 1)
        batch = replay.sample(16, 0.4)
        valid = {tuple(np.float32(row)) for row in reachable(games, replay)}
        fields = [field.reshape(16, -1).float() for field in batch[:5]]
        got = torch.cat(fields, 1).numpy()
        distance = np.abs(got[:, None] - np.array(list(valid))[None]).max(-1).min(1)
        assert distance.max() < 1e-5
        assert batch.a_tm1.dtype == batch.index.dtype == torch.int64
        assert batch.r_t.dtype == batch.discount_t.dtype == batch.weight.dtype == torch.float32
        assert batch.s_tm1.shape == batch.s_t.shape == (16, 3, SIZE, SIZE)
        replay.update_priorities(batch.index, torch.randn(16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("exponent", [0.0, 0.7])
def test_sampling_frequencies_match_the_priorities(exponent: float) -> None:
    """The counts of 64,000 draws are as far from priority^alpha's shares as chance allows (chi-square)."""
    games, replay = Witness(4, 1, 0.1, False, 2), make(4, 60, 1, 2, priority_exponent=exponent)
    games.play(replay, 100)
    index = replay.tree.leaves.nonzero()[:, 0]
    error = torch.linspace(-3.0, 5.0, len(index))
    replay.update_priorities(index, error)
    share = (error.abs().double() + 1e-6) ** exponent if exponent else torch.ones(len(index), dtype=torch.float64)
    torch.testing.assert_close(replay.tree.get(index) / replay.tree.total, share / share.sum())
    drawn = torch.cat([replay.sample(64, 0.5).index for _ in range(1000)]).bincount(minlength=replay.film.num_rows)
    assert drawn[index].sum() == 64_000  # and none elsewhere
    wanted = 64_000 * share / share.sum()
    degrees = len(index) - 1
    assert ((drawn[index] - wanted) ** 2 / wanted).sum() < degrees + 5 * np.sqrt(2 * degrees)


def test_importance_weights() -> None:
    """Weights are (N P)^-beta over the batch's largest; beta may be a tensor; uniform sampling has ones."""
    games, replay = Witness(2, 1, 0.1, False, 3), make(2, 40, 1, 1, priority_exponent=0.6)
    games.play(replay, 60)
    index = replay.tree.leaves.nonzero()[:, 0]
    replay.update_priorities(index, torch.linspace(0.1, 9.0, len(index)))
    for beta in (0.0, 0.4, torch.tensor(1.0)):
        batch = replay.sample(16, beta)
        probability = replay.tree.get(batch.index) / replay.tree.total
        weight = (len(replay) * probability) ** -float(beta)
        torch.testing.assert_close(batch.weight, (weight / weight.max()).float())
    games, replay = Witness(2, 1, 0.1, False, 3), make(2, 40, 1, 1)
    games.play(replay, 60)
    assert replay.sample(16, 0.4).weight.tolist() == [1.0] * 16


def test_the_weights_of_btr_are_a_matter_of_settings() -> None:
    """A constant importance exponent that equals alpha gives (N P)^-alpha over the largest (Clark et al. 2024)."""
    alpha = 0.2
    chosen = ReplaySettings(priority_exponent=alpha, importance_exponent=alpha, importance_exponent_end=alpha)
    schedule = Linear(chosen.importance_exponent, chosen.importance_exponent_end, 1000)
    games, replay = Witness(2, 1, 0.1, False, 3), make(2, 40, 1, 1, priority_exponent=chosen.priority_exponent)
    games.play(replay, 60)
    index = replay.tree.leaves.nonzero()[:, 0].tolist()
    error = dict(zip(index, np.linspace(0.1, 9.0, len(index)), strict=True))
    replay.update_priorities(torch.tensor(index), torch.tensor(list(error.values())).float())
    total = sum((delta + 1e-6) ** alpha for delta in error.values())
    for step in (0, 500, 1000):
        batch = replay.sample(16, schedule(step))
        weight = [(len(index) * (error[i] + 1e-6) ** alpha / total) ** -alpha for i in batch.index.tolist()]
        np.testing.assert_allclose(batch.weight.numpy(), np.array(weight) / max(weight), rtol=1e-5)


def test_new_rows_get_the_largest_priority_so_far() -> None:
    """A new row enters with the largest priority ever seen, even after the row that had it was lowered again."""
    games, replay = Witness(1, 1, 0.0, False, 0), make(1, 10, 1, 1, priority_exponent=0.5)
    games.play(replay, 5)
    first = replay.tree.leaves.nonzero()[:1, 0]
    replay.update_priorities(first, torch.tensor([16.0]))
    replay.update_priorities(first, torch.tensor([0.25]))
    games.play(replay, 1)
    assert replay.tree.leaves[4].item() == pytest.approx(4.0, rel=1e-5)  # the row that became due
    assert replay.tree.get(first).item() == pytest.approx(0.5, rel=1e-5)


def test_priorities_of_lost_rows_and_broken_errors_change_nothing() -> None:
    """A row overwritten since it was sampled stays out of reach; NaN and infinity are not priorities."""
    games, replay = Witness(2, 2, 0.0, False, 0), make(2, 10, 2, 1, priority_exponent=0.5)
    games.play(replay, 12)
    batch = replay.sample(8, 0.4)
    games.play(replay, 3)
    replay.update_priorities(batch.index, torch.full((8,), 7.0))
    replay.check()
    index = replay.tree.leaves.nonzero()[:3, 0]
    before = replay.tree.get(index)
    replay.update_priorities(index, torch.tensor([float("nan"), float("inf"), -float("inf")]))
    assert torch.equal(replay.tree.get(index), before)
    replay.update_priorities(index, torch.zeros(3))
    assert bool((replay.tree.get(index) > 0).all())
    replay.check()


def test_reward_is_clipped_at_the_door() -> None:
    """Rewards beyond the clip are stored as plus or minus the clip, and not without one."""
    for clip, reward in ((2.0, [2.0, -2.0, 0.5]), (None, [100.0, -3.0, 0.5])):
        replay = make(3, 9, 1, 1, reward_clip=clip)
        no = np.zeros(3, bool)
        later = Step(np.zeros((3, 1, SIZE, SIZE), np.uint8), np.array([100, -3, 0.5], np.float32), no, no, no)
        replay.insert(later._replace(first=~no), np.zeros(3, np.int64), later)
        replay.insert(later, np.zeros(3, np.int64), later)
        assert replay.gather(torch.arange(3)).r_t.tolist() == reward


def leaves(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A state's leaves by path."""
    found = {}
    for key, value in tree.items():
        found |= leaves(value, f"{at}/{key}") if isinstance(value, Mapping) else {f"{at}/{key}": value}
    return found


def copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint keeps it."""
    return {
        key: copy(value) if isinstance(value, Mapping) else value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in tree.items()
    }


def addresses(replay: Replay) -> list[int]:
    """Where what a captured graph reads lies."""
    return [tensor.data_ptr() for tensor in (replay.film.frames.tensor, replay.tree.leaves, replay._max_priority)]


@pytest.mark.parametrize(
    ("ticks", "same_step"), [(0, False), (1, False), (7, True), (9, False), (60, False), (61, True)]
)
def test_loading_and_going_on_equals_never_having_stopped(ticks: int, same_step: bool) -> None:
    """Saved young or full, then loaded elsewhere: batches, priorities and every item of state stay the same."""
    both = []
    for stop in (False, True):
        games = Witness(3, 3, 0.15, same_step, 11)
        replay = make(3, 24, 3, 2, priority_exponent=0.6, generator=torch.Generator().manual_seed(4))
        games.play(replay, ticks)
        index = replay.tree.leaves.nonzero()[:1, 0]
        for error in (50.0, 0.1) if len(index) else ():  # the largest priority so far is that of no row
            replay.update_priorities(index, torch.tensor([error]))
        if stop:
            state = copy(replay.state_dict())
            replay = make(3, 24, 3, 2, priority_exponent=0.6, generator=torch.Generator().manual_seed(99))
            before = addresses(replay)
            replay.load_state_dict(state)
            assert addresses(replay) == before
            replay.check()
        games.play(replay, 8, p_cut=0.3)
        for _ in range(30):
            batch = replay.sample(8, 0.5)
            replay.update_priorities(batch.index, batch.r_t.sin())
            games.play(replay, 1, p_cut=0.1)
        compare(games, replay)
        both.append((batch, leaves(copy(replay.state_dict()))))
    (batch, state), (other_batch, other_state) = both
    assert all(torch.equal(mine, other) for mine, other in zip(batch, other_batch, strict=True))
    assert state.keys() == other_state.keys()
    for name, leaf in state.items():
        same = torch.equal(leaf, other_state[name]) if isinstance(leaf, torch.Tensor) else leaf == other_state[name]
        assert same, name


def test_a_state_of_another_replay_is_refused() -> None:
    """The error names what differs."""
    games, replay = Witness(2, 3, 0.1, False, 0), make()
    games.play(replay, 30)
    state = replay.state_dict()
    different = {
        "capacity": {"capacity": 22},
        "num_games": {"num_games": 1},
        "n_step": {"n_step": 3},
        "stack": {"stack": 1},
        "frame_shape": {"observation_shape": (3, 4)},
        "dtype": {"observation_dtype": "float32"},
    }
    for name, other in different.items():
        with pytest.raises(ValueError, match=f"has {name} "):
            make(**other).load_state_dict(state)


def test_a_state_says_only_what_was_written() -> None:
    """A young replay's film is saved without its empty rows."""
    games, replay = Witness(2, 3, 0.0, False, 0), make(2, 1000, 3, 2)
    games.play(replay, 5)
    assert len(replay.state_dict()["film"]["frames"]) == 10


def test_games_that_break_the_contract_are_named() -> None:
    """A reset without a cut, a start without `first`, a late cut and a missing final observation are errors."""

    def step(first: bool, ended: bool = False) -> Step:
        no = np.zeros(2, bool)
        return Step(np.zeros((2, 1, SIZE, SIZE), np.uint8), np.zeros(2, np.float32), no | ended, no, no | first)

    action = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="must have `first` set"):
        make(stack=1).insert(step(first=False), action, step(first=False))
    replay = make(stack=1)
    replay.insert(step(first=True), action, step(first=False))
    with pytest.raises(ValueError, match="call cut before a reset"):
        replay.insert(step(first=True), action, step(first=False))
    with pytest.raises(ValueError, match="already been started anew"):
        replay.cut(step(first=True))
    with pytest.raises(ValueError, match="final_observation"):
        replay.insert(step(first=False), action, step(first=True, ended=True))
    with pytest.raises(ValueError, match="not a stack of 4"):
        make(stack=4, observation_shape=(3, 84, 84))


def test_an_empty_replay_says_so() -> None:
    """Sampling before the first window is complete is an error that says when it will be possible."""
    games, replay = Witness(2, 3, 0.0, False, 0), make(2, 20, 3, 2)
    games.play(replay, 2)
    with pytest.raises(ValueError, match="2 steps after"):
        replay.sample(4, 0.4)
    games.play(replay, 1)
    assert [len(replay.sample(batch_size, 0.4).index) for batch_size in (4, 3)] == [4, 3]


def test_statistics() -> None:
    """Age is that of the last batch in environment steps of all games; priorities are those of all rows."""
    games, replay = Witness(4, 1, 0.0, False, 0), make(4, 40, 1, 1, priority_exponent=0.5)
    assert replay.statistics() == {}
    games.play(replay, 57)
    index = replay.tree.leaves.nonzero()[:, 0]
    replay.update_priorities(index, torch.arange(len(index)).float())
    batch = replay.sample(32, 0.4)
    ages = 56 - batch.s_tm1.view(32, -1)[:, 5].double().numpy()  # a frame says when it was seen
    found = {name: value.item() for name, value in replay.statistics().items()}
    assert found["replay/age_mean"] == pytest.approx(4 * ages.mean())
    assert found["replay/age_p95"] == pytest.approx(4 * np.quantile(ages, 0.95))
    assert found["replay/priority_mean"] == pytest.approx(np.sqrt(np.arange(40)).mean(), rel=1e-3)
    assert found["replay/priority_max"] == pytest.approx(np.sqrt(39), rel=1e-3)


@pytest.mark.gpu
def test_on_a_gpu_rows_are_the_same_and_nothing_waits() -> None:
    """On a GPU every row is what happened too, and inserting, sampling and updating never wait for the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    games = Witness(3, 3, 0.15, False, 1)
    replay = make(3, 24, 3, 2, priority_exponent=0.6, device="cuda", generator=generator)
    for _ in range(60):
        games.play(replay, 1, 0.05)
        compare(games, replay)
    for mode in ("default", "error"):  # the first round fills caches
        torch.cuda.set_sync_debug_mode(mode)
        try:
            games.play(replay, 1)
            batch = replay.sample(8, 0.5)
            replay.update_priorities(batch.index, batch.r_t)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    compare(games, replay)
