"""What is measured before units are removed, against the same written out slowly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agent.freeze.damage import (
    BLOCK, blocks, elimination, inputs_at, layer_at, moments, paired_rows, rows, sensitivities, shares, typical_gap,
)  # fmt: skip
from agent.freeze.graph import (
    Activate, Continuous, Conv, Dense, Discrete, Flatten, Fractions, Graph, Norm, Residual, apply, run, run_layers,
)  # fmt: skip
from agent.freeze.rebuild import to_modules


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers, f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nested() -> Graph:
    """A policy with layers inside layers."""
    layers = (
        Conv(normal(4, 2, 2, 2), normal(4), 2, 1, "relu"),
        Residual((Activate("tanh"), Conv(normal(3, 4, 3, 3), normal(3), 1, 1), Conv(normal(4, 3, 1, 1), normal(4)))),
        Flatten(),
        Fractions(normal(3, 36), (Dense(0.3 * normal(6, 36), normal(6), "relu"), Dense(normal(3, 6), normal(3)))),
    )
    return Graph((5, 5, 2), "float32", layers, Discrete(3), channels_last=True)


def vector(head: Discrete | Continuous) -> Graph:
    """A policy of three dense layers with a norm."""
    layers = (
        Dense(normal(6, 4), normal(6)),
        Norm(normal(6), normal(6), 6, activation="tanh"),
        Dense(0.5 * normal(5, 6, seed=1), normal(5), "elu"),
        Dense(normal(3, 5, seed=2), normal(3)),
    )
    return Graph((4,), "float32", layers, head)


def test_inputs_of_inner_layers() -> None:
    """What a layer takes is what the layers before it give, for each fraction in turn inside Fractions."""
    graph = nested()
    states = normal(7, 5, 5, 2)
    student = to_modules(graph)
    (x,) = blocks(graph, states)
    first = run_layers(graph.layers[:1], np.moveaxis(states, -1, 1))
    flat = run_layers(graph.layers[1:3], first)
    factors, inner = graph.layers[3].factors, graph.layers[3].layers
    expected = {
        (0,): np.moveaxis(states, -1, 1),
        (1, 1): np.tanh(first),
        (1, 2): run_layers(graph.layers[1].layers[:2], first),
        (3, 0): np.concatenate([flat * factor for factor in factors]),
        (3, 1): np.concatenate([apply(inner[0], flat * factor) for factor in factors]),
    }
    for path, value in expected.items():
        np.testing.assert_allclose(inputs_at(student.layers, x, path).numpy(), value, rtol=1e-4, atol=1e-4)
    assert layer_at(graph.layers, (1, 2)) is graph.layers[1].layers[2]


def test_blocks_cover_all_states_or_some_evenly() -> None:
    """All states come once and in order, in blocks; fewer are spread from the first to the last."""
    graph = vector(Discrete(3))
    states = np.arange(4 * 150, dtype=np.float32).reshape(150, 4)
    found = list(blocks(graph, states))
    assert [len(block) for block in found] == [BLOCK, BLOCK, 150 - 2 * BLOCK]
    assert np.array_equal(torch.cat(found).numpy(), states)
    (few,) = blocks(graph, states, 4)
    assert few[:, 0].tolist() == [0, 4 * 49, 4 * 99, 4 * 149]


@pytest.mark.parametrize("path", [(0,), (1, 1), (3, 0)])
def test_rows_times_weights_are_the_layer(path: tuple[int, ...]) -> None:
    """Rows times the weights give what the layer gives before its activation, place by place."""
    graph = nested()
    layer = replace(layer_at(graph.layers, path), activation="none")
    x = inputs_at(to_modules(graph).layers, next(iter(blocks(graph, normal(5, 5, 5, 2)))), path)
    found = rows(layer, x, 10**6, np.random.default_rng(0)) @ layer.weight.reshape(len(layer.weight), -1).T + layer.bias
    whole = np.moveaxis(apply(layer, x.numpy()), 1, -1).reshape(-1, len(layer.weight))
    np.testing.assert_allclose(np.sort(found, 0), np.sort(whole, 0), rtol=1e-4, atol=1e-4)
    assert len(rows(layer, x, 3, np.random.default_rng(0))) == 3


def test_pairs_are_of_the_same_origin() -> None:
    """The rows of two graphs belong together: of a graph and itself they are equal, also where only some are taken."""
    graph = nested()
    for path in [(1, 1), (3, 1)]:
        for one, two in paired_rows((graph, graph), path, normal(100, 5, 5, 2)):
            assert np.array_equal(one, two) and len(np.unique(one, axis=0)) > 1


def test_moments() -> None:
    """Moments of blocks are those of everything at once, also far from zero, and a constant has exactly no variance."""
    x, y = normal(90, 3).astype(np.float64) + [0, 1e6, 0], normal(90, 2, seed=1).astype(np.float64)
    x[:, 2] = 0.1
    found = moments((x[start : start + 40], y[start : start + 40]) for start in range(0, 90, 40))
    both = np.cov(x.T, y.T, bias=True)
    np.testing.assert_allclose(found.mean, x.mean(0))
    np.testing.assert_allclose(found.other, y.mean(0))
    np.testing.assert_allclose(found.covariance, both[:3, :3], atol=1e-7)
    np.testing.assert_allclose(found.cross, both[:3, 3:], atol=1e-7)
    assert found.covariance[2, 2] == 0


@pytest.mark.parametrize("path", [(0,), (2,), (3,)])
def test_sensitivity_predicts_the_divergence(path: tuple[int, ...]) -> None:
    """e^T H e is twice the divergence of the choice after a layer's outputs were raised by a small e."""
    graph, states = vector(Discrete(3)), normal(512, 4)
    found = sensitivities(graph, states)[path]
    live = run(graph, states, np.float64)
    gap = typical_gap(torch.tensor(live))
    layer = graph.layers[path[0]]
    for seed in range(3):
        raised = 1e-2 * normal(len(layer.weight), seed=seed)
        other = replace(layer, bias=layer.bias + raised)
        if layer.activation == "none" and path == (0,):
            assert len(found) == 6
        layers = (*graph.layers[: path[0]], other, *graph.layers[path[0] + 1 :])
        log_p, log_q = (
            torch.log_softmax(torch.tensor(outputs / gap), 1)
            for outputs in (live, run(replace(graph, layers=layers), states, np.float64))
        )
        divergence = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
        assert raised @ found @ raised == pytest.approx(2 * divergence, rel=0.15)


@pytest.mark.parametrize("squash", ["tanh", "clip"])
def test_sensitivity_of_continuous_actions(squash: str) -> None:
    """There it is the squared change of the action, in shares of half its range."""
    graph = vector(Continuous((-2.0, -1.0, 0.0), (2.0, 9.0, 1.0), squash))
    states = normal(256, 4)
    raised = 1e-2 * normal(3)
    layers = (*graph.layers[:-1], replace(graph.layers[-1], bias=graph.layers[-1].bias + raised))
    if squash == "tanh":
        change = np.tanh(run(replace(graph, layers=layers), states)) - np.tanh(run(graph, states))
    else:  # beyond the limits the gradient goes on
        change = raised / np.array([2, 5, 0.5])
    found = sensitivities(graph, states)[(3,)]
    assert raised @ found @ raised == pytest.approx(np.mean(np.sum(change**2 * np.ones((256, 1)), axis=1)), rel=0.1)


def test_sensitivities_of_nested_layers() -> None:
    """Every layer with weights has one, of its size; those inside Residual and Fractions too."""
    graph = nested()
    found = sensitivities(graph, normal(100, 5, 5, 2))
    assert {path: len(each) for path, each in found.items()} == {(0,): 4, (1, 1): 3, (1, 2): 4, (3, 0): 6, (3, 1): 3}
    for each in found.values():
        assert np.allclose(each, each.T) and np.linalg.eigvalsh(each).min() > -1e-6 and np.trace(each) > 0


def least_squares_error(x: np.ndarray, weight: np.ndarray, kept: list[int]) -> float:
    """Mean squared error of the best prediction of weight @ x from some entries of x and a constant."""
    y = x @ weight.T
    design = np.column_stack([x[:, kept], np.ones(len(x))])
    return float(((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2).sum(1).mean())


@pytest.mark.parametrize("size", [1, 3])
def test_elimination(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes the unit that leaves the least error by least squares, and its cost is how that grows."""
    monkeypatch.setattr("agent.freeze.damage.RIDGE", 1e-9)
    units = 5
    x = normal(400, units * size).astype(np.float64) @ normal(units * size, units * size, seed=1) + 3
    weight = normal(4, units * size, seed=2).astype(np.float64)
    order, costs = elimination(np.cov(x.T, bias=True), weight, units)
    assert len(order) == len(costs) == units - 1 == len(set(order))
    left, before = list(range(units)), 0.0
    for unit, cost in zip(order, costs, strict=True):
        errors = {}
        for candidate in left:
            kept = [entry for other in left if other != candidate for entry in range(other * size, (other + 1) * size)]
            errors[candidate] = least_squares_error(x, weight, kept)
        assert unit == min(errors, key=errors.__getitem__)
        assert cost == pytest.approx(errors[unit] - before, rel=1e-4, abs=1e-6)
        left.remove(unit)
        before = errors[unit]


def test_what_never_varies_is_free() -> None:
    """Entries without variance go first and cost nothing, however large their weights."""
    covariance = np.diag([1.0, 0.0, 2.0, 0.0])
    order, costs = elimination(covariance, np.array([[1e-3, 1e9, 1e-3, 1e9]]), 4)
    assert order == [1, 3, 0] and costs[:2] == [0, 0] and costs[2] > 0


def test_typical_gap() -> None:
    """The median distance of the best two values; never zero; in the unit of the values."""
    outputs = torch.tensor([[0.0, 1, 3], [5, 4, 4], [7, 7, 0]])
    assert typical_gap(outputs) == 1
    assert typical_gap(100 * outputs) == 100
    assert typical_gap(torch.zeros(3, 2)) > 0 and typical_gap(torch.zeros(3, 1)) > 0
    assert typical_gap(torch.tensor([[1.0, 1, 0]])) > 0


def test_shares() -> None:
    """Limits are 2 apart; what lies beyond them has their value and the gradient of an output within."""
    head = Continuous((-1.0, 0.0, -np.inf), (1.0, 4.0, np.inf), "clip")
    outputs = torch.tensor([[-3.0, 9, 5]], requires_grad=True)
    found = shares(head, outputs)
    assert found.tolist() == [[-1, 2, 5]]
    found.sum().backward()
    assert outputs.grad.tolist() == [[1, 0.5, 1]]
    assert torch.equal(shares(replace(head, squash="tanh"), outputs), torch.tanh(outputs))
