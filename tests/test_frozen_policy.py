"""Tests of agent/freeze/frozen_policy.py: what is frozen acts as the network did, and cannot train."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.config import NetworkSettings
from agent.freeze.frozen_policy import FrozenPolicy, freeze
from agent.freeze.graph import BATCH, multiply_accumulates
from agent.nets.q_network import QNetwork, make_q_network
from agent.seeding import torch_generator

SHAPE, ACTIONS = (6,), 4


def network(**changes: object) -> QNetwork:
    """A small network with weights of its own."""
    settings = NetworkSettings(hidden=(24, 16), **changes)
    return make_q_network(settings, SHAPE, False, ACTIONS, torch_generator(0, "network"))


def observations(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)


@torch.no_grad()
def test_it_acts_as_the_network() -> None:
    """Without pruning and rounding the outputs are the network's, for more states than one batch takes."""
    live, states = network(layer_norm=True, distribution="quantile", quantiles=5), observations(BATCH + 7)
    frozen = freeze(live, SHAPE, "float32", ACTIONS)
    wanted = live(torch.from_numpy(states))
    np.testing.assert_allclose(frozen.raw(states), wanted.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(frozen.act(states), wanted.argmax(dim=1).numpy())


def test_the_network_goes_on_learning() -> None:
    """The frozen policy shares no memory with the network: it stays as it was when the weights change, and back."""
    live, states = network(), observations(20)
    frozen = freeze(live, SHAPE, "float32", ACTIONS)
    before = frozen.raw(states)
    assert all(parameter.requires_grad for parameter in live.parameters())
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.mul_(-3)
    np.testing.assert_array_equal(frozen.raw(states), before)


def test_it_holds_nothing_that_trains() -> None:
    """No attribute, at any depth, is a tensor, a module or an optimizer."""

    def walk(value: object):
        yield value
        inside = vars(value).values() if hasattr(value, "__dict__") else value if isinstance(value, tuple) else ()
        for each in inside:
            yield from walk(each)

    frozen = freeze(network(), SHAPE, "float32", ACTIONS, states=observations(500), bits=8)
    kinds = [type(value) for value in walk(frozen)]
    assert not any(issubclass(kind, (torch.Tensor, torch.nn.Module, torch.optim.Optimizer)) for kind in kinds)
    with pytest.raises(AttributeError):
        frozen.graph = None  # type: ignore[misc]


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_choose_nearly_as_the_network(bits: int) -> None:
    """Rounded to integers it gives 32-bit integers whose step turns them into the network's values, and acts alike."""
    live, states = network(), observations(2000)
    frozen = freeze(live, SHAPE, "float32", ACTIONS, states=states, bits=bits)
    exact = freeze(live, SHAPE, "float32", ACTIONS)
    raw = frozen.raw(states)
    assert raw.dtype == np.int32
    values, wanted = frozen.outputs(raw), exact.raw(states)
    apart = (values - values.mean(axis=1, keepdims=True)) - (wanted - wanted.mean(axis=1, keepdims=True))
    assert np.abs(apart).max() < (0.1 if bits == 8 else 0.001) * wanted.std()
    assert (frozen.act(states) == exact.act(states)).mean() > (0.93 if bits == 8 else 0.998)


def test_pruning_makes_it_smaller() -> None:
    """The share of multiply-accumulates that was asked for is gone, and it still chooses mostly alike."""
    live, states = network(), observations(2000)
    whole = freeze(live, SHAPE, "float32", ACTIONS)
    half = freeze(live, SHAPE, "float32", ACTIONS, states=states, pruned=0.4, distil_steps=300)
    assert multiply_accumulates(half.graph) <= 0.62 * multiply_accumulates(whole.graph)
    assert (half.act(states) == whole.act(states)).mean() > 0.8


def test_states_are_asked_for() -> None:
    """Pruning and rounding without states, and weights that are not finite, are refused in one sentence."""
    for wanted in ({"pruned": 0.5}, {"bits": 8}):
        with pytest.raises(ValueError, match="states="):
            freeze(network(), SHAPE, "float32", ACTIONS, **wanted)
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        freeze(broken, SHAPE, "float32", ACTIONS)
    assert isinstance(freeze(network(), SHAPE, "float32", ACTIONS), FrozenPolicy)
