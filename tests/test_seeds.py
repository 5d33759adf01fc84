"""A pool draws uniformly, from its seeds only, and its draws can be repeated and put back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.seeds import SeedPool

SEEDS = [7, 1_000, 2**31 - 1]


def test_draws_are_uniform() -> None:
    """Of 3000 draws every seed gets about a third, and each follows every other as often: chi squared, 9 pairs."""
    pool = SeedPool(SEEDS)
    drawn = [SEEDS.index(pool.draw(0 if number == 0 else None)) for number in range(3_001)]
    pairs = np.bincount([3 * left + right for left, right in zip(drawn, drawn[1:], strict=False)], minlength=9)
    assert ((pairs - 3_000 / 9) ** 2 / (3_000 / 9)).sum() < 26  # 1 in 1000


@given(st.integers(0, 2**31 - 1), st.integers(0, 20))
def test_the_state_is_where_the_draws_stand(seed: int, before: int) -> None:
    """The same seed gives the same draws; a state, through JSON, goes on with what would have come."""
    pool, other, resumed = SeedPool(SEEDS), SeedPool(SEEDS), SeedPool(SEEDS)
    straight = [pool.draw(seed), *(pool.draw() for _ in range(before + 20))]
    begun = [other.draw(seed), *(other.draw() for _ in range(before))]
    resumed.load_state_dict(json.loads(json.dumps(other.state_dict())))
    assert begun + [resumed.draw() for _ in range(20)] == straight


def test_draws_do_not_follow_the_game() -> None:
    """The pool's sequence is not the one that a game makes of the same seed."""
    for seed in range(20):
        pool = SeedPool(range(10**6))
        assert pool.draw(seed) != np.random.default_rng(seed).integers(10**6)


def test_no_state_is_refused() -> None:
    """What was saved without a pool says so."""
    with pytest.raises(ValueError, match="game.seeds"):
        SeedPool(SEEDS).load_state_dict(None)
