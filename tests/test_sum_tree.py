"""The sum tree against plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.replay.sum_tree import BLOCK, SumTree


def test_equals_a_running_sum_over_a_million_random_updates() -> None:
    """After a million updates, duplicates included, draws lie where a running sum over all leaves says."""
    generator = torch.Generator().manual_seed(0)
    capacity, chunk = 10_007, 500
    tree, plain = SumTree(capacity), torch.zeros(capacity, dtype=torch.float64)
    for update in range(1_000_000 // chunk):
        index = torch.randint(capacity, (chunk,), generator=generator)
        # Twelve orders of magnitude, and zeros, so that drift would show.
        value = 10.0 ** (12 * torch.rand(chunk, generator=generator, dtype=torch.float64) - 6)
        value *= torch.rand(chunk, generator=generator) < 0.8
        tree.set(index, value)
        order = torch.argsort(value, stable=True)  # the largest is written last
        plain.numpy()[index[order].numpy()] = value[order].numpy()
        if update % 50 == 0:
            running = plain.cumsum(0)
            torch.testing.assert_close(tree.total, running[-1], rtol=1e-13, atol=0.0)
            fraction = torch.rand(chunk, generator=generator, dtype=torch.float64)
            drawn = tree.sample(fraction)
            assert bool((plain[drawn] > 0).all())
            slack = 1e-12 * running[-1]
            assert bool((running[drawn] >= fraction * running[-1] - slack).all())
            assert bool((running[drawn] - plain[drawn] <= fraction * running[-1] + slack).all())
    assert torch.equal(tree.leaves, plain)
    tree.check()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3 * BLOCK), st.integers(1, 40))
def test_filling_from_the_host_is_setting(seed: int, capacity: int, count: int) -> None:
    """What the host writes leaves the leaves that `set` leaves, also where one leaf is named twice, and right sums."""
    rng = np.random.default_rng(seed)
    ours, theirs = SumTree(capacity), SumTree(capacity)
    value = torch.tensor([1.7], dtype=torch.float64)
    for _ in range(3):
        index, there = rng.integers(capacity, size=count), rng.random(count) < 0.6
        ours.fill(index, there, value)
        theirs.set(torch.from_numpy(index), torch.from_numpy(there) * value)
        assert torch.equal(ours.leaves, theirs.leaves)
        ours.check()


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3 * BLOCK), st.integers(1, 5))
@example(43, 3 * BLOCK, 5)  # rounding puts a target exactly on the end of its block
def test_never_draws_a_zero(seed: int, capacity: int, positive: int) -> None:
    """However few leaves are above zero, and at both edges of the unit interval, only these are drawn."""
    rng = np.random.default_rng(seed)
    tree = SumTree(capacity)
    chosen = torch.from_numpy(rng.integers(capacity, size=positive))
    tree.set(chosen, torch.from_numpy(10.0 ** rng.uniform(-12, 12, positive)))
    fraction = np.concatenate((rng.random(50), [0.0, np.nextafter(1.0, 0.0), 1.0, 5e-324]))
    drawn = tree.sample(torch.from_numpy(fraction))
    assert set(drawn.tolist()) <= set(chosen.tolist())


def test_draws_every_leaf_of_equal_ones() -> None:
    """With equal values the middle of the i-th of N equal shares is leaf i."""
    capacity = 5 * BLOCK + 3
    tree = SumTree(capacity)
    tree.set(torch.arange(capacity), torch.ones(capacity, dtype=torch.float64))
    middle = (torch.arange(capacity, dtype=torch.float64) + 0.5) / capacity
    assert torch.equal(tree.sample(middle), torch.arange(capacity))


def test_the_largest_of_duplicates_stays() -> None:
    """Of several values for one leaf the largest stays, in whatever order, and an older larger one does not."""
    tree = SumTree(100)
    tree.set(torch.tensor([70]), torch.tensor([9.0], dtype=torch.float64))
    tree.set(torch.tensor([70, 3, 70, 70]), torch.tensor([2.0, 1.0, 5.0, 4.0], dtype=torch.float64))
    assert tree.get(torch.tensor([3, 70, 71])).tolist() == [1.0, 5.0, 0.0]
    assert tree.total.item() == 6.0


def test_a_zero_is_replaced_by_the_largest_leaf() -> None:
    """What guards a GPU's parallel sums gives the largest leaf for a zero and leaves the others alone."""
    tree = SumTree(100)
    tree.set(torch.tensor([7, 90]), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert tree._without_zeros(torch.tensor([7, 8, 90, 0])).tolist() == [7, 90, 90, 90]


def test_state_goes_round() -> None:
    """A tree that took another's state draws what the other draws; one of another size refuses it."""
    generator = torch.Generator().manual_seed(3)
    tree, copy = SumTree(1000), SumTree(1000)
    value = torch.rand(400, generator=generator, dtype=torch.float64)
    tree.set(torch.randint(1000, (400,), generator=generator), value)
    copy.load_state_dict(tree.state_dict())
    fraction = torch.rand(200, generator=generator, dtype=torch.float64)
    assert torch.equal(copy.sample(fraction), tree.sample(fraction))
    with pytest.raises(ValueError, match="leaves"):
        SumTree(2000).load_state_dict(tree.state_dict())


def test_check_sees_a_wrong_sum() -> None:
    """The self-check turns red when a leaf changed behind the tree's back."""
    tree = SumTree(100)
    tree.set(torch.tensor([5]), torch.tensor([1.0], dtype=torch.float64))
    tree.check()
    tree.leaves[5] = 2.0
    with pytest.raises(AssertionError):
        tree.check()
