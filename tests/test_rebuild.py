"""A graph in torch computes the same, learns in every weight, and comes back as a graph of the same structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from agent.freeze.convert import Statistics, from_modules
from agent.freeze.graph import (
    Activate, Clip, Conv, Dense, Discrete, Flatten, Fractions, Graph, MaxPool, Norm, Residual, arrays, run,
)  # fmt: skip
from agent.freeze.rebuild import Gain, Student, from_trained, to_modules


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers, f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def picture_policy(*, channels_last: bool = False) -> Graph:
    """A policy of pixels with nearly every kind of layer."""
    layers = (
        Conv(normal(4, 3, 3, 3) / 255, normal(4), 2, 1, "leaky_relu"),
        Norm(normal(4), normal(4), 4 * 4 * 5, center=True, activation="silu"),
        MaxPool(3, 2, 1),
        Residual((Activate("relu"), Conv(normal(4, 4, 3, 3), normal(4), 1, 1, "elu"))),
        Flatten(),
        Dense(normal(6, 24), normal(6)),
        Norm(normal(6), normal(6), 9, 0.5, activation="sigmoid"),
        Fractions(normal(5, 6), (Dense(normal(7, 6), normal(7), "tanh"), Dense(normal(2, 7), normal(2)))),
    )
    return Graph((8, 10, 3) if channels_last else (3, 8, 10), "uint8", layers, Discrete(2), channels_last)


def vector_policy() -> Graph:
    """A policy of limited vectors whose entries have very different sizes."""
    limit = np.float32([0.01, 1, 100])
    first = Dense(normal(8, 3) / limit, normal(8), "relu")
    return Graph((3,), "float32", (Clip(-limit, limit), first, Dense(normal(2, 8), normal(2))), Discrete(2))


POLICIES = {
    "pictures": picture_policy(),
    "channels last": picture_policy(channels_last=True),
    "vectors": vector_policy(),
}


def observations(graph: Graph, number: int = 20) -> np.ndarray:
    """Random raw observations."""
    if graph.dtype == "uint8":
        return np.random.default_rng(0).integers(0, 256, (number, *graph.shape), np.uint8)
    return normal(number, *graph.shape) * np.float32([0.01, 1, 100])


def taught(student: Student, x: np.ndarray, y: np.ndarray, steps: int) -> float:
    """How far the student is from the targets after so many steps of Adam."""
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (student(torch.from_numpy(x)) - torch.from_numpy(y)).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("graph", POLICIES.values(), ids=POLICIES)
def test_torch_computes_what_the_graph_does(graph: Graph) -> None:
    """Raw observations, bytes too, give the reference's outputs."""
    x = observations(graph)
    with torch.no_grad():
        found = to_modules(graph)(torch.from_numpy(x)).numpy()
    wanted = run(graph, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("graph", POLICIES.values(), ids=POLICIES)
def test_untaught_it_comes_back_bit_for_bit(graph: Graph) -> None:
    """There and back changes no bit and no setting of any layer, and shares no memory."""
    back = from_trained(to_modules(graph))
    assert (back.shape, back.dtype, back.head, back.channels_last) == (
        graph.shape, graph.dtype, graph.head, graph.channels_last,
    )  # fmt: skip
    for before, after in zip(graph.layers, back.layers, strict=True):
        assert type(before) is type(after)
        for (name, value), (other, found) in zip(arrays(before), arrays(after), strict=True):
            assert name == other and value.tobytes() == found.tobytes() and not np.shares_memory(value, found)
        plain = {name: value for name, value in vars(before).items() if isinstance(value, (int, float, str))}
        assert plain == {name: vars(after)[name] for name in plain}


@pytest.mark.parametrize("graph", POLICIES.values(), ids=POLICIES)
def test_every_weight_learns_and_comes_back(graph: Graph) -> None:
    """After learning every array but the limits has moved, and the graph gives what the student gives."""
    x = observations(graph)
    student = to_modules(graph)
    before = run(graph, x)
    taught(student, x, normal(len(x), 2), 3)
    back = from_trained(student)
    with torch.no_grad():
        wanted = student(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(back, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert run(graph, x).tobytes() == before.tobytes(), "the graph itself does not learn"
    for old, new in zip(graph.layers, back.layers, strict=True):
        for (name, value), (_, found) in zip(arrays(old), arrays(new), strict=True):
            assert (value != found).any() != isinstance(old, Clip), name


def test_learning_does_not_feel_the_scale_of_observations() -> None:
    """Steps that are right for weights behind numbers of size 1 are right behind bytes and behind folded statistics."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.normal_(0, 0.4, generator=generator)
            layer.bias.zero_()
    x = np.random.default_rng(0).integers(0, 256, (200, 6), np.uint8)
    y = normal(200, 1) @ normal(1, 2, seed=1) + np.sin(x[:, :2] / 100, dtype=np.float32)
    scaled = from_modules(layers, (6,), "uint8", Discrete(2), scale=1 / 255)
    plain = from_modules(layers, (6,), "float32", Discrete(2))
    wanted = taught(to_modules(plain), np.float32(x / 255), y, 60)
    assert taught(to_modules(scaled), x, y, 60) < 1.1 * wanted
    deviation = np.float64([1e-3, 1e-2, 0.1, 1, 10, 100])
    statistics = Statistics(np.zeros(6), deviation**2, 0.0, 10.0)
    limited = from_modules(layers, (6,), "float32", Discrete(2), statistics=statistics)
    assert taught(to_modules(limited), np.float32(x / 255 * deviation), y, 60) < 1.1 * wanted


def test_gain_of_a_dead_input() -> None:
    """An input that nothing listens to can still learn, and a layer of zeros comes back as zeros."""
    for weight in (np.float32([[0, 1], [0, 2]]), np.zeros((2, 2), np.float32)):
        graph = Graph((2,), "float32", (Dense(weight, np.zeros(2, np.float32)),), Discrete(2))
        student = to_modules(graph)
        assert from_trained(student).layers[0].weight.tobytes() == weight.tobytes()
        taught(student, normal(5, 2), normal(5, 2), 1)
        assert (np.abs(from_trained(student).layers[0].weight - weight) > 1e-3).all()
        gains = [module.gain for module in student.modules() if isinstance(module, Gain)]
        assert len(gains) == 1 and (gains[0] > 0).all() and (torch.log2(gains[0]) % 1 == 0).all()


def test_a_student_that_diverged_is_refused() -> None:
    """Weights that are not finite do not come back as a graph."""
    student = to_modules(picture_policy())
    with torch.no_grad():
        student.layers[5].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"Layer 5 \(Dense\)"):
        from_trained(student)
