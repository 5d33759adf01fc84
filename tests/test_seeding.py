"""Randomness: one seed, one generator per owner, states that survive JSON."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.seeding import numpy_generator, numpy_state, seed_for, set_numpy_state, torch_generator


def test_seed_for_is_the_first_63_bits_of_sha256() -> None:
    """A seed is a pure function of the run's seed and the owner, and stays the same in every release."""
    bits = bin(int(hashlib.sha256(b"7/replay").hexdigest(), 16))[2:].zfill(256)
    assert seed_for(7, "replay") == int(bits[:63], 2)
    assert seed_for(0, "actor") == 3307078469724026665


@given(st.integers(), st.text())
@settings(max_examples=50)
def test_seed_for_fits_every_generator(seed: int, owner: str) -> None:
    """Every seed lies in [0, 2**63), which torch, numpy and Gymnasium all take."""
    assert 0 <= seed_for(seed, owner) < 2**63


def test_owners_and_seeds_give_different_sequences() -> None:
    """No two owners or runs draw the same numbers."""
    pairs = [(seed, owner) for seed in range(20) for owner in ("actor", "replay", "net", "env")]
    assert len({seed_for(*pair) for pair in pairs}) == len(pairs)
    draws = {tuple(numpy_generator(*pair).integers(0, 2**32, 2).tolist()) for pair in pairs}
    assert len(draws) == len(pairs)


def test_same_owner_draws_the_same() -> None:
    """Making a generator twice gives the same sequence, apart from any global generator."""
    torch.manual_seed(1)
    first = torch.rand(5, generator=torch_generator(3, "actor"))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(5, generator=torch_generator(3, "actor")))
    assert np.array_equal(numpy_generator(3, "actor").random(5), numpy_generator(3, "actor").random(5))


@given(st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=30)
def test_numpy_state_goes_through_json(doubles: int, halves: int) -> None:
    """A generator continues exactly where its state was taken, in the middle of a buffered 32-bit draw too."""
    ours = numpy_generator(0, "a")
    ours.random(doubles)
    ours.integers(0, 2**32, halves, dtype=np.uint32)  # odd counts leave half a word in the buffer
    other = numpy_generator(9, "b")
    set_numpy_state(other, json.loads(json.dumps(numpy_state(ours))))
    assert ours.integers(0, 2**32, 9, dtype=np.uint32).tolist() == other.integers(0, 2**32, 9, dtype=np.uint32).tolist()
    assert ours.random(3).tolist() == other.random(3).tolist()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bit_generator": "MT19937", "state": {"state": 1, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": -1, "inc": 2**200}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": 3, "has_uint32": 0, "uinteger": 0},
    ],
)
def test_foreign_state_is_refused(state: dict) -> None:
    """A state that does not fit is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match="PCG64"):
        set_numpy_state(numpy_generator(0, "a"), state)


def test_other_numpy_generators_are_refused() -> None:
    """Only PCG64 can be kept, and the error names the remedy."""
    with pytest.raises(ValueError, match="numpy_generator"):
        numpy_state(np.random.Generator(np.random.MT19937(0)))
