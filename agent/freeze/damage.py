"""What it costs the outputs of a policy to lose a hidden unit, measured on states that it visits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from agent.freeze.graph import Activate, Continuous, Conv, Dense, Discrete, Fractions, Graph, Layer, Residual
from agent.freeze.rebuild import LayerModule, to_modules

Path = tuple[int, ...]  # of a layer: its index, and behind it that of the layer inside a Residual or Fractions

BLOCK = 64  # states at a time: the windows of large pictures must fit any memory
STATES = {Dense: 4096, Conv: 512}  # that are looked at, by what takes the units in; a picture has many windows
ROWS = 50_000  # inputs of a layer that are looked at; each is a state, one of its windows or one of its fractions
PROBES = 8  # random directions in which the outputs of each state are differentiated
PROBED = 512  # states
RIDGE = 1e-3  # of the mean variance of the inputs: what is solved for stays near what it was where states say nothing


def layer_at(layers: tuple[Layer, ...], path: Path) -> Layer:
    """Return the layer at a path."""
    layer = layers[path[0]]
    return layer_at(layer.layers, path[1:]) if len(path) > 1 else layer


def module_at(modules: nn.Sequential, path: Path) -> LayerModule:
    """Return the module of the layer at a path."""
    module = modules[path[0]]
    return module_at(module.layers, path[1:]) if len(path) > 1 else module


def blocks(graph: Graph, states: np.ndarray, most: int | None = None) -> Iterator[torch.Tensor]:
    """Yield what the first layer takes, f32 [<= BLOCK, ...], of all states or of `most` of them, evenly spread."""
    if most is not None and len(states) > most:
        states = states[np.linspace(0, len(states) - 1, most).astype(int)]
    for start in range(0, len(states), BLOCK):
        x = torch.tensor(states[start : start + BLOCK]).float()
        yield x.movedim(-1, 1) if graph.channels_last else x


@torch.inference_mode()
def inputs_at(modules: nn.Sequential, x: torch.Tensor, path: Path) -> torch.Tensor:
    """Return what the layer at `path` takes, [N, ...]; [K * N, ...] inside Fractions."""
    for module in modules[: path[0]]:
        x = module(x)
    if len(path) == 1:
        return x
    module = modules[path[0]]
    if isinstance(module.like, Fractions):
        x = torch.cat([x * factor for factor in module.factors])
    return inputs_at(module.layers, x, path[1:])


def rows(layer: Dense | Conv, x: torch.Tensor, most: int, generator: np.random.Generator) -> np.ndarray:
    """Return what a layer's weights are multiplied by, f64 [M, D]; at most `most` of them, chosen by the generator."""
    if isinstance(layer, Conv):
        seen = F.unfold(x, layer.weight.shape[2:], padding=layer.padding, stride=layer.stride)  # [N, D, P]
        x = seen.movedim(1, 2).flatten(0, 1)
    chosen = generator.permutation(len(x))[:most]
    return x[torch.from_numpy(chosen)].double().numpy()


def paired_rows(graphs: tuple[Graph, ...], path: Path, states: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield for each graph what the weights at `path` are multiplied by, f64 [M, D], row by row of the same origin."""
    students = [to_modules(graph) for graph in graphs]
    kind = layer_at(graphs[0].layers, path)
    count = min(len(states), STATES[type(kind)])
    for number, x in enumerate(blocks(graphs[0], states, count)):
        most = -(-ROWS * len(x) // count)
        yield [
            rows(layer_at(graph.layers, path), inputs_at(student.layers, x, path), most, np.random.default_rng(number))
            for graph, student in zip(graphs, students, strict=True)
        ]


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] of inputs x, and of x with something else y: [Q] and [D, Q]."""

    mean: np.ndarray
    covariance: np.ndarray
    other: np.ndarray
    cross: np.ndarray


def moments(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Moments:
    """Return the moments of blocks of x [M, D] and y [M, Q]."""
    count = 0
    start: np.ndarray | None = None
    for x, y in pairs:
        if start is None:  # what never varies then has exactly no variance, and large means swallow no small ones
            start = x[0]
            total, square = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
            other, cross = np.zeros(y.shape[1]), np.zeros((x.shape[1], y.shape[1]))
        x = x - start
        count += len(x)
        total += x.sum(0)
        other += y.sum(0)
        square += x.T @ x
        cross += x.T @ y
    assert start is not None
    mean, other = total / count, other / count
    return Moments(start + mean, square / count - np.outer(mean, mean), other, cross / count - np.outer(mean, other))


def ridged(covariance: np.ndarray) -> np.ndarray:
    """Return the covariance with RIDGE of its mean variance added to every variance; positive, whatever the states."""
    return covariance + max(RIDGE * float(np.trace(covariance)) / len(covariance), 1e-12) * np.eye(len(covariance))


def sensitivities(graph: Graph, states: np.ndarray) -> dict[Path, np.ndarray]:
    """Return for each layer with weights how its outputs z, before the activation, move the policy's choice.

    By path: H [out, out], the mean over states of the sum over places of J^T J, J = dy/dz [outputs, out], y as in
    `_choice`; an error e of z costs about e^T H e.
    """
    student = to_modules(replace(graph, layers=_opened(graph.layers)))
    weighted = [module for module in student.modules() if isinstance(getattr(module, "like", None), (Dense, Conv))]
    found: dict[int, list[torch.Tensor]] = {}

    def keep(module: nn.Module, _: object, z: torch.Tensor) -> None:
        found.setdefault(id(module), []).append(z)

    with torch.inference_mode():
        temperature = typical_gap(torch.cat([student.layers(x) for x in blocks(graph, states, PROBED)]))
    for module in weighted:
        module.register_forward_hook(keep)
    generator = torch.Generator().manual_seed(0)
    sums = [torch.zeros(len(module.weight), len(module.weight), dtype=torch.float64) for module in weighted]
    count = 0
    for x in blocks(graph, states, PROBED):
        found.clear()
        y = _choice(graph.head, student.layers(x), temperature)
        count += len(x)
        for probe in range(PROBES):
            signs = torch.randint(2, y.shape, generator=generator) * 2.0 - 1
            zs = [z for module in weighted for z in found[id(module)]]
            gradients = iter(torch.autograd.grad((y * signs).sum(), zs, retain_graph=probe < PROBES - 1))
            for total, module in zip(sums, weighted, strict=True):
                for _ in found[id(module)]:
                    g = next(gradients).movedim(1, -1).flatten(0, -2).double()  # [N * places, out]
                    total += g.T @ g / PROBES
    return {path: (total / count).numpy() for path, total in zip(_weighted(graph.layers), sums, strict=True)}


def typical_gap(outputs: torch.Tensor) -> float:
    """Return how far the best of the action values, [N, A], is above the next: the median over states.

    Not below a hundredth of their deviation over actions, so that it can divide.
    """
    best = outputs.topk(min(2, outputs.shape[1])).values
    spread = (outputs - outputs.mean(1, keepdim=True)).std()
    return float(torch.maximum((best[:, 0] - best[:, -1]).median(), 0.01 * spread).clamp(min=1e-12))


def _choice(head: Discrete | Continuous, outputs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return what the outputs mean for the action, [N, outputs], in units in which errors count the same.

    Continuous: the action as a share of half its range. Discrete: as far as its gradient goes, numbers whose squared
    change is twice the divergence of the choice, softmax(outputs / temperature): differences between actions that are
    out of the question do not count.
    """
    if isinstance(head, Continuous):
        return shares(head, outputs)
    odds = torch.softmax(outputs / temperature, 1).detach()
    return odds.sqrt() * (outputs - (odds * outputs).sum(1, keepdim=True)) / temperature


def shares(head: Continuous, outputs: torch.Tensor) -> torch.Tensor:
    """Return continuous actions as shares of half their range, about its middle or about 0, [N, outputs].

    The gradient of one beyond its limits is that of the output, so that it can come back.
    """
    if head.squash == "tanh":
        return torch.tanh(outputs)
    low, high = outputs.new_tensor(head.low), outputs.new_tensor(head.high)
    limited = outputs + (outputs.clamp(low, high) - outputs).detach()
    return limited / torch.where(torch.isfinite(high - low), (high - low) / 2, 1.0)


def _opened(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The same layers, activations on their own, so that what stands before them can be seen."""
    found: list[Layer] = []
    for layer in layers:
        if isinstance(layer, (Residual, Fractions)):
            found.append(replace(layer, layers=_opened(layer.layers)))
        elif isinstance(layer, (Dense, Conv)):
            found += [replace(layer, activation="none"), Activate(layer.activation)]
        else:
            found.append(layer)
    return tuple(found)


def _weighted(layers: tuple[Layer, ...], prefix: Path = ()) -> Iterator[Path]:
    for index, layer in enumerate(layers):
        if isinstance(layer, (Dense, Conv)):
            yield (*prefix, index)
        elif isinstance(layer, (Residual, Fractions)):
            yield from _weighted(layer.layers, (*prefix, index))


def elimination(covariance: np.ndarray, weight: np.ndarray, units: int) -> tuple[list[int], list[float]]:
    """Return in which order to remove units so that W x changes least, and what each adds to the squared error.

    Unit u is entries [u * k, (u + 1) * k) of x. After each removal what is left of W is changed so that the error is
    the least possible (Hassibi and Stork 1993, for groups of weights); the order is greedy, the last unit stays.
    """
    size = len(covariance) // units  # k
    inverse = np.linalg.inv(ridged(covariance))  # P [D, D]
    weight = np.where(np.diag(covariance) > 0, weight, 0.0)  # what never varies is a constant: free
    inside = np.arange(units)
    alive = np.ones(units, bool)
    order, costs = [], []
    for _ in range(units - 1):
        own = inverse.reshape(units, size, units, size)[inside, :, inside]  # [U, k, k]
        left = weight.reshape(len(weight), units, size).transpose(1, 2, 0)  # [U, k, out]
        cost = (left * np.linalg.solve(own, left)).sum(axis=(1, 2))
        unit = int(np.where(alive, cost, np.inf).argmin())
        at = slice(unit * size, (unit + 1) * size)
        change = np.linalg.solve(inverse[at, at], inverse[at])  # [k, D]
        weight = weight - weight[:, at] @ change
        inverse -= inverse[:, at] @ change
        weight[:, at], inverse[at], inverse[:, at] = 0, 0, 0
        inverse[at, at] = np.eye(size)  # what is gone can be solved for, and costs nothing
        alive[unit] = False
        order.append(unit)
        costs.append(max(0.0, float(cost[unit])))
    return order, costs
