"""Pruning: the result is a smaller policy of the same structure that computes, on the states, nearly what it did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agent.config import NetworkSettings
from agent.freeze import prune as pruning
from agent.freeze.convert import from_q_network
from agent.freeze.graph import (
    Activate, Clip, Continuous, Conv, Dense, Discrete, Flatten, Fractions, Graph, MaxPool, Norm, Residual, arrays,
    multiply_accumulates, run,
)  # fmt: skip
from agent.freeze.prune import drop_dead, prunable, prune
from agent.nets.q_network import make_q_network


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers whose sums over inputs stay near 1, f32."""
    scale = np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 1
    return (np.random.default_rng(seed).standard_normal(shape) / scale).astype(np.float32)


def of_network(shape: tuple[int, ...], pixels: bool = False, **settings: object) -> Graph:
    """One of our Q-networks, freshly drawn."""
    network = make_q_network(NetworkSettings(**settings), shape, pixels, 3, torch.Generator().manual_seed(1))
    return from_q_network(network, shape, "uint8" if len(shape) == 3 else "float32", 3)


def chain() -> Graph:
    """Convolutions with padding, pooling and activations on their own, then a continuous head."""
    layers = (
        Conv(normal(6, 2, 3, 3), normal(6), 1, 1, "tanh"),
        MaxPool(2, 2),
        Activate("elu"),
        Conv(normal(5, 6, 2, 2, seed=1), normal(5), 2, 0, "silu"),
        Flatten(),
        Norm(normal(20), normal(20), 20, 1e-3, activation="relu"),
        Dense(normal(8, 20, seed=2), normal(8), "sigmoid"),
        Dense(normal(2, 8, seed=3), normal(2)),
    )
    return Graph((8, 8, 2), "float32", layers, Continuous((-2.0, 0.0), (2.0, 1.0), "clip"), channels_last=True)


def clipped() -> Graph:
    """A vector policy with limits before it and a squashing head behind."""
    limit = np.float32([1, 2, np.inf])
    layers = (Clip(-limit, limit), Dense(normal(9, 3), normal(9), "tanh"), Dense(normal(1, 9), normal(1)))
    return Graph((3,), "float32", layers, Continuous((-2.0,), (2.0,), "tanh"))


GRAPHS = {
    "mlp": of_network((7,), hidden=[24, 16, 12]),
    "mlp with norms": of_network((7,), hidden=[24, 16], layer_norm=True),
    "dueling quantiles": of_network((7,), hidden=[24], dueling=True, distribution="quantile", quantiles=5),
    "implicit": of_network((7,), hidden=[24, 16], distribution="implicit", quantiles=4, layer_norm=True),
    "minatar": of_network((3, 7, 6), hidden=[12], layer_norm=True),
    "minatar, implicit": of_network((3, 7, 6), hidden=[12], distribution="implicit", quantiles=3),
    "nature": of_network((2, 36, 36), True, torso="nature", hidden=[16]),
    "impala": of_network((2, 9, 10), True, torso="impala", hidden=[16], max_pool=None),
    "impala with norms": of_network((2, 9, 10), True, torso="impala", hidden=[16], max_pool=1, layer_norm=True),
    "chain": chain(),
    "clipped": clipped(),
}


def states_of(graph: Graph, number: int = 300, seed: int = 0) -> np.ndarray:
    """Random raw observations."""
    generator = np.random.default_rng(seed)
    if graph.dtype == "uint8":
        return generator.integers(0, 256 if graph.shape[-1] > 6 else 2, (number, *graph.shape), np.uint8)
    return generator.standard_normal((number, *graph.shape)).astype(np.float32)


def error(graph: Graph, other: Graph, states: np.ndarray) -> float:
    """Squared difference of outputs as a share of their variance over states."""
    one, two = run(graph, states), run(other, states)
    return float(((one - two) ** 2).mean() / one.var(axis=0).mean())


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_every_kind_of_network_gets_smaller(name: str, share: float) -> None:
    """At least the fraction goes, and hardly more; the layers stay of their kinds, and the policy runs."""
    graph = GRAPHS[name]
    states = states_of(graph, 60)
    fraction = share * prunable(graph) * 0.999
    smaller = prune(graph, states, fraction)
    left = multiply_accumulates(smaller) / multiply_accumulates(graph)
    assert 1 - fraction - (0.15 if share < 1 else 0.002) <= left <= 1 - fraction
    assert [type(layer) for layer in smaller.layers] == [type(layer) for layer in graph.layers]
    assert (smaller.shape, smaller.head, smaller.channels_last) == (graph.shape, graph.head, graph.channels_last)
    assert all(array.dtype == np.float32 for layer in smaller.layers for _, array in arrays(layer))
    assert np.isfinite(run(smaller, states)).all() and run(smaller, states).shape == (60, graph.num_outputs)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_least_important_tenth_costs_little(name: str) -> None:
    """Without a tenth of the work the outputs in other states change by less than a tenth of their variance."""
    graph = GRAPHS[name]
    smaller = prune(graph, states_of(graph, 600), 0.1)
    assert multiply_accumulates(smaller) < multiply_accumulates(graph)
    assert error(graph, smaller, states_of(graph, 200, seed=1)) < 0.1


def doubled(graph: Graph) -> Graph:
    """The same policy with two copies of every hidden unit, of which the layer behind listens to both."""
    layers: list = []
    kept = graph
    for site in reversed(pruning._sites(graph)):
        twice = np.repeat(np.arange(site.units), 2)

        def outputs(layer: Dense | Conv, twice: np.ndarray = twice) -> Dense | Conv:
            return replace(layer, weight=layer.weight[twice], bias=layer.bias[twice])

        def inputs(layer: Dense | Conv, units: int = site.units) -> Dense | Conv:
            out, entries, *kernel = layer.weight.shape
            each = layer.weight.reshape(out, units, 1, entries // units, *kernel)
            both = np.concatenate([0.3 * each, 0.7 * each], axis=2)
            return replace(layer, weight=both.reshape(out, 2 * entries, *kernel))

        def carried(layer: object, units: int = site.units) -> object:
            def both(array: np.ndarray) -> np.ndarray:
                return np.repeat(array.reshape(*array.shape[:-1], units, -1), 2, axis=-2).reshape(*array.shape[:-1], -1)

            if isinstance(layer, Norm):
                return replace(layer, scale=both(layer.scale), shift=both(layer.shift), count=2 * layer.count)
            return replace(layer, factors=both(layer.factors)) if isinstance(layer, Fractions) else layer

        layers = kept.layers
        layers = pruning._changed(layers, site.producer, outputs)
        for path in site.between:
            layers = pruning._changed(layers, path, carried)
        kept = replace(kept, layers=pruning._changed(layers, site.consumer, inputs))
    return kept


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("impala", "impala with norms", "nature")])
def test_copies_of_units_go_first(name: str) -> None:
    """A policy made of pairs of equal units loses the copies, and computes what it did (but for the ridge)."""
    graph = GRAPHS[name]
    states = states_of(graph, 600)
    graph = drop_dead(graph, states)
    twice = doubled(graph)
    np.testing.assert_allclose(run(twice, states), run(graph, states), rtol=1e-4, atol=1e-4)
    smaller = prune(twice, states, 1 - multiply_accumulates(graph) / multiply_accumulates(twice))
    assert 0.95 < multiply_accumulates(smaller) / multiply_accumulates(graph) <= 1
    assert error(graph, smaller, states_of(graph, 200, seed=1)) < 0.01


def with_units(graph: Graph, layer: int, units: list[int], bias: float) -> Graph:
    """The policy with some units of a layer that depend on nothing: they give `bias` before the activation."""
    weight, shift = graph.layers[layer].weight.copy(), graph.layers[layer].bias.copy()
    weight[units], shift[units] = 0, bias
    changed = replace(graph.layers[layer], weight=weight, bias=shift)
    return replace(graph, layers=(*graph.layers[:layer], changed, *graph.layers[layer + 1 :]))


@pytest.mark.parametrize(("name", "layer"), [("mlp", 1), ("minatar", 0), ("nature", 1), ("dueling quantiles", 0)])
def test_dead_units_are_dropped_exactly(name: str, layer: int) -> None:
    """Units that are never active go, only they, and nothing changes."""
    graph = with_units(GRAPHS[name], layer, [0, 3, 4], -1.0)
    states = states_of(graph, 200)
    smaller = drop_dead(graph, states)
    before, after = graph.layers[layer].weight, smaller.layers[layer].weight
    assert len(after) <= len(before) - 3
    active = with_units(GRAPHS[name], layer, [], 0)
    assert len(after) == len(drop_dead(active, states).layers[layer].weight) - 3
    np.testing.assert_allclose(run(smaller, states), run(graph, states), rtol=1e-4, atol=1e-5)


def test_one_state_keeps_a_unit() -> None:
    """A unit that is active in the last of many states stays, and all that is never active leaves one unit behind."""
    weight = np.float32([[1, 0], [0, 1], [-1, 0]])
    graph = Graph(
        (2,), "float32", (Dense(weight, np.zeros(3, np.float32), "relu"), Dense(normal(2, 3), normal(2))), Discrete(2)
    )
    states = np.zeros((100, 2), np.float32)
    states[-1] = [5, -5]
    np.testing.assert_array_equal(drop_dead(graph, states).layers[0].weight, weight[:1])
    states[-1] = 0
    assert len(drop_dead(graph, states).layers[0].weight) == 1
    assert run(drop_dead(graph, states), states).shape == (100, 2)


def test_units_before_a_norm_are_not_dropped_as_dead() -> None:
    """Behind the norm they are zero, but before it they are part of the sum of squares."""
    graph = with_units(GRAPHS["mlp with norms"], 0, [2, 5], -1.0)
    states = states_of(graph)
    assert multiply_accumulates(drop_dead(graph, states)) == multiply_accumulates(graph)
    smaller = prune(graph, states, 0.02)
    assert len(smaller.layers[0].weight) < len(graph.layers[0].weight)
    assert error(graph, smaller, states) < 1e-3


@pytest.mark.parametrize(("name", "layer"), [("mlp", 0), ("clipped", 1), ("chain", 6)])
def test_units_that_do_not_vary_become_part_of_the_bias(name: str, layer: int) -> None:
    """A unit that always gives the same is the first to go, and its value goes into the next bias."""
    graph = with_units(GRAPHS[name], layer, [1], 0.7)
    states = states_of(graph)
    fraction = 1e-6 + 1 - multiply_accumulates(drop_dead(graph, states)) / multiply_accumulates(graph)
    smaller = prune(graph, states, fraction)
    kept, whole = smaller.layers[layer], drop_dead(graph, states).layers[layer]
    assert len(kept.weight) == len(whole.weight) - 1 and 0.7 not in kept.bias.round(5)
    np.testing.assert_allclose(run(smaller, states), run(graph, states), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "mlp with norms", "minatar", "implicit"])
def test_better_than_chance_and_better_for_being_refitted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the work less costs less than with units that are chosen at random, and less than without refitting."""
    graph = GRAPHS[name]
    states, others = states_of(graph, 1000), states_of(graph, 300, seed=1)
    ours = error(graph, prune(graph, states, 0.5), others)
    with monkeypatch.context() as changed:
        changed.setattr(pruning, "_refitted", lambda before, after, kept, states: after)
        assert ours < 0.8 * error(graph, prune(graph, states, 0.5), others)
    generator = np.random.default_rng(0)

    def at_random(graph: Graph, states: np.ndarray, site: pruning.Site, towards: np.ndarray) -> tuple[list, list]:
        return generator.permutation(site.units)[:-1].tolist(), [1.0] * (site.units - 1)

    monkeypatch.setattr(pruning, "_order", at_random)
    chance = np.mean([error(graph, prune(graph, states, 0.5), others) for _ in range(5)])
    assert ours < 0.7 * chance


def test_very_wide_layers_are_pruned_without_covariances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above WIDEST a unit counts by its variance and weights, and its mean goes into the next bias."""
    graph = GRAPHS["minatar"]
    states = states_of(graph)
    monkeypatch.setattr(pruning, "WIDEST", 20)
    smaller = prune(graph, states, 0.3)
    assert 0.5 < multiply_accumulates(smaller) / multiply_accumulates(graph) <= 0.7
    assert error(graph, smaller, states) < 1
    np.testing.assert_allclose(run(smaller, states).mean(0), run(graph, states).mean(0), atol=0.2)


def test_the_norm_is_fitted_to_the_power_that_it_saw() -> None:
    """Behind the norm of a pruned layer units are as large as before: its scale makes good what squares are gone."""
    graph = GRAPHS["mlp with norms"]
    states = states_of(graph, 1000)
    smaller = prune(graph, states, 0.6)
    norm = smaller.layers[1]
    assert norm.count == 24 and len(norm.scale) == len(norm.shift) == len(smaller.layers[0].weight) < 20
    sums = [np.square(run(replace(one, layers=one.layers[:1]), states)).sum(1) / 24 for one in (graph, smaller)]
    whole = 1 / np.sqrt(sums[0] + graph.layers[1].epsilon)
    fitted = float(norm.scale[0] / graph.layers[1].scale[0]) / np.sqrt(sums[1] + norm.epsilon)
    assert abs(np.mean(fitted / whole) - 1) < 0.05
    assert np.std(fitted / whole) < 0.8 * np.std(1 / np.sqrt(sums[1] + 1e-5) / whole)


def test_same_input_same_bytes() -> None:
    """Twice the same arguments give the same weights, and neither graph nor states are written to."""
    graph = GRAPHS["minatar"]
    states = states_of(graph)
    before = [array.copy() for layer in graph.layers for _, array in arrays(layer)], states.copy()
    states.setflags(write=False)
    first, second = (prune(graph, states, 0.5) for _ in range(2))
    for one, two in zip(first.layers, second.layers, strict=True):
        for (_, a), (_, b) in zip(arrays(one), arrays(two), strict=True):
            assert np.array_equal(a, b)
    after = [array for layer in graph.layers for _, array in arrays(layer)]
    assert all(np.array_equal(a, b) for a, b in zip(before[0], after, strict=True))
    assert np.array_equal(before[1], states)


def test_nothing_asked_nothing_but_the_dead_goes() -> None:
    """A fraction of 0 is drop_dead."""
    graph = with_units(GRAPHS["mlp"], 0, [3], -1.0)
    states = states_of(graph)
    smaller, alive = prune(graph, states, 0.0), drop_dead(graph, states)
    assert multiply_accumulates(smaller) == multiply_accumulates(alive) < multiply_accumulates(graph)
    assert np.array_equal(run(smaller, states), run(alive, states))


@pytest.mark.parametrize("name", GRAPHS)
def test_all_that_is_prunable_can_be_pruned(name: str) -> None:
    """At exactly that share, whatever rounding makes of it, one unit stays in every layer and the policy runs."""
    graph = GRAPHS[name]
    smaller = prune(graph, states_of(graph, 60), prunable(graph))
    assert all(site.units == 1 for site in pruning._sites(smaller)) and prunable(smaller) == 0
    assert run(smaller, states_of(graph, 5)).shape == (5, graph.num_outputs)


@pytest.mark.parametrize(
    ("fraction", "said"), [(1.0, "below 1"), (-0.1, "at least 0"), (np.nan, "at least 0"), (0.999, "only up to 72.9")]
)
def test_impossible_fractions_are_refused(fraction: float, said: str) -> None:
    """Outside [0, 1), or more than what can be removed, is a ValueError that says what is possible."""
    graph = GRAPHS["impala"]
    with pytest.raises(ValueError, match=said):
        prune(graph, states_of(graph, 10), fraction)
    with pytest.raises(ValueError, match="not 1"):
        prune(graph, states_of(graph, 1), 0.1)


def test_residual_sums_and_outputs_stay() -> None:
    """In a residual network only the channels inside the blocks and the hidden units become fewer."""
    graph = GRAPHS["impala"]
    smaller = prune(graph, states_of(graph, 60), prunable(graph) * 0.999)
    for before, after in zip(graph.layers, smaller.layers, strict=True):
        if isinstance(before, Residual):
            inner = after.layers[1], after.layers[3] if len(after.layers) > 3 else after.layers[2]
            assert len(inner[0].weight) == 1 and len(inner[1].weight) == len(before.layers[1].weight)
        elif isinstance(before, Conv):
            assert before.weight.shape == after.weight.shape
