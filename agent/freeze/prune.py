"""Structured pruning: hidden units and channels that matter least go, with all that fed them and that they fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from agent.freeze.damage import (
    Path,
    blocks,
    elimination,
    inputs_at,
    layer_at,
    module_at,
    moments,
    paired_rows,
    ridged,
    sensitivities,
)
from agent.freeze.graph import (
    Conv,
    Dense,
    Fractions,
    Graph,
    Layer,
    Norm,
    Residual,
    apply,
    as_input,
    multiply_accumulates,
)
from agent.freeze.rebuild import to_modules

WIDEST = 4608  # inputs of a layer for which all covariances are kept: 170 MB


@dataclass(frozen=True)
class Site:
    """Units that may go: the outputs of `producer`, which layers `between` keep apart on their way to `consumer`."""

    producer: Path
    between: tuple[Path, ...]
    consumer: Path
    units: int


def drop_dead(graph: Graph, states: np.ndarray) -> Graph:
    """Return the graph without the units that are zero in all states, [N, *shape]: there it computes what it did.

    A unit before a norm stays: what it adds to the sum of squares is not zero.
    """
    student = to_modules(graph)
    kept: dict[Site, np.ndarray] = {}
    for site in _sites(graph):
        if not any(isinstance(layer_at(graph.layers, path), Norm) for path in site.between):
            kept[site] = np.zeros(site.units, bool)
            module_at(student.layers, site.consumer).register_forward_pre_hook(_note_active(kept[site]))
    with torch.inference_mode():
        for x in blocks(graph, states):
            student.layers(x)
    for alive in kept.values():
        alive[0] |= not alive.any()  # a layer without units is none
    return _cut(graph, kept)


def _note_active(alive: np.ndarray) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
    """Return a hook that sets bool [units] where what a layer is about to take, [N, ...], is not zero."""

    def note(_: nn.Module, taken: tuple[torch.Tensor]) -> None:
        found = taken[0].numpy()
        alive[:] |= (found.reshape(len(found), len(alive), -1) != 0).any(axis=(0, 2))

    return note


def prune(graph: Graph, states: np.ndarray, fraction: float) -> Graph:
    """Return the graph with at least `fraction` of its multiply-accumulates removed, and as few more as can be.

    First go the units that are never active on the states, [N, *shape]; they go even where that is more than asked
    for. Then, one after the other, the unit whose loss moves the outputs least per multiply-accumulate that it saves
    (see `elimination` and `sensitivities`). What is left is refitted to the states: the layer behind removed units by
    ridge regression to what it gave before, a norm to the sum of squares that it saw. One unit stays in every layer.
    Raises ValueError when fraction is not in [0, 1), or more than what is `prunable`.
    """
    require_prunable(graph, fraction)
    if len(states) < 2:
        raise ValueError(f"Pruning needs states that the policy visits, some hundreds at least, not {len(states)}.")
    allowed = (1 - fraction) * multiply_accumulates(graph)
    graph = drop_dead(graph, states)
    sites = _sites(graph)
    macs = _Macs(graph, sites)
    if macs.total() <= allowed:
        return graph
    allowed = max(allowed, macs.total({site: 1 for site in sites}))  # the last of all can be meant, and rounded away
    towards = sensitivities(graph, states)
    orders = {site: _order(graph, states, site, towards[site.consumer]) for site in sites}
    left = {site: site.units for site in sites}
    while (now := macs.total(left)) > allowed:

        def price(site: Site, now: float = now) -> float:
            if left[site] == 1:
                return np.inf
            saved = now - macs.total({**left, site: left[site] - 1})
            return orders[site][1][site.units - left[site]] / saved

        left[min(sites, key=price)] -= 1
    kept = {}
    for site, (order, _) in orders.items():
        kept[site] = np.ones(site.units, bool)
        kept[site][order[: site.units - left[site]]] = False
    return _refitted(graph, _cut(graph, kept), kept, states)


def require_prunable(graph: Graph, fraction: float) -> None:
    """Raise ValueError when `fraction` is not in [0, 1), or more than what is `prunable`; it says how much is."""
    if not 0 <= fraction < 1:
        raise ValueError(f"The fraction to prune must be at least 0 and below 1, not {fraction}.")
    if fraction > (most := prunable(graph)):
        raise ValueError(
            f"{percent(fraction)} of this policy's multiply-accumulates cannot be pruned, only up to "
            f"{percent(math.floor(most * 1e5) / 1e5)}: the rest belongs to inputs, outputs and residual sums."
        )


def percent(fraction: float) -> str:
    """Return a share in words that do not round it away: 0.9999 is no 100%."""
    return f"{100 * fraction:.10g}%"


def prunable(graph: Graph) -> float:
    """Return the largest fraction of multiply-accumulates that `prune` can remove: one unit is left in every layer."""
    sites = _sites(graph)
    return 1 - _Macs(graph, sites).total({site: 1 for site in sites}) / multiply_accumulates(graph)


def _sites(graph: Graph) -> list[Site]:
    """Return where units may go, in the order of the data. Residual sums and centring norms tie all units together."""
    found: list[Site] = []

    def walk(layers: Sequence[Layer], prefix: Path, producer: Path | None, between: tuple[Path, ...]) -> None:
        for index, layer in enumerate(layers):
            path = (*prefix, index)
            if isinstance(layer, (Dense, Conv)):
                if producer is not None:
                    units = len(layer_at(graph.layers, producer).weight)
                    found.append(Site(producer, between, path, units))
                producer, between = path, ()
            elif isinstance(layer, Residual):
                walk(layer.layers, path, None, ())
                producer = None
            elif isinstance(layer, Fractions):
                walk(layer.layers, path, producer, (*between, path))
            elif isinstance(layer, Norm) and layer.center:
                producer = None
            else:
                between = (*between, path)

    walk(graph.layers, (), None, ())
    return [site for site in found if site.units > 1]


class _Macs:
    """The multiply-accumulates of a graph as a function of how many units each site keeps."""

    def __init__(self, graph: Graph, sites: Sequence[Site]):
        macs = dict(_macs(graph.layers, as_input(graph, np.zeros((1, *graph.shape), np.float32)), (), 1))
        touch = {site: {site.producer, site.consumer, *site.between} for site in sites}
        self._terms = [(count, [site for site in sites if path in touch[site]]) for path, count in macs.items()]

    def total(self, left: dict[Site, int] | None = None) -> float:
        """Return the multiply-accumulates when `left` units stay; None: all."""
        total = 0.0
        for count, touched in self._terms:
            for site in touched if left is not None else ():
                count = count * left[site] / site.units  # in this order it stays whole
            total += count
        return total


def _macs(layers: Sequence[Layer], x: np.ndarray, prefix: Path, times: int) -> Iterator[tuple[Path, float]]:
    """Yield path and multiply-accumulates of each layer that has some; their sum is `multiply_accumulates`."""
    for index, layer in enumerate(layers):
        path, after = (*prefix, index), apply(layer, x)
        if isinstance(layer, Dense):
            yield path, times * layer.weight.size
        elif isinstance(layer, Conv):
            yield path, times * layer.weight.size * after[0, 0].size
        elif isinstance(layer, Residual):
            yield from _macs(layer.layers, x, path, times)
        elif isinstance(layer, Fractions):
            yield path, times * len(layer.factors) * x.size
            yield from _macs(layer.layers, x, path, times * len(layer.factors))
        x = after


def _order(graph: Graph, states: np.ndarray, site: Site, towards: np.ndarray) -> tuple[list[int], list[float]]:
    """Return in which order a site's units go, and what each costs in squared error of the outputs."""
    consumer = layer_at(graph.layers, site.consumer)
    weight = consumer.weight.reshape(len(consumer.weight), -1).astype(np.float64)  # [out, D]
    values, vectors = np.linalg.eigh(towards)
    weight = (np.sqrt(np.maximum(values, 0)) * vectors).T @ weight  # |L^T e|^2 = e^T H e
    both = ((x, x[:, :0]) for (x,) in paired_rows((graph,), site.consumer, states))
    if weight.shape[1] <= WIDEST:
        return elimination(moments(both).covariance, weight, site.units)
    squares = [(len(x), x.sum(0), (x * x).sum(0)) for x, _ in both]
    count, total, square = (sum(part) for part in zip(*squares, strict=True))
    variance = np.maximum(square / count - (total / count) ** 2, 0)
    costs = (variance * (weight * weight).sum(0)).reshape(site.units, -1).sum(1)
    order = np.argsort(costs, kind="stable")[:-1]
    return order.tolist(), costs[order].tolist()


def _cut(graph: Graph, kept: dict[Site, np.ndarray]) -> Graph:
    """Return the graph with only the units that are kept, bool [units] by site; nothing else is changed."""
    layers = graph.layers
    for site, mask in kept.items():
        if mask.all():
            continue

        def outputs(layer: Layer, mask: np.ndarray = mask) -> Layer:
            return replace(layer, weight=layer.weight[mask], bias=layer.bias[mask])

        def carried(layer: Layer, mask: np.ndarray = mask) -> Layer:
            if isinstance(layer, Norm):
                stays = _spread(mask, len(layer.scale))
                return replace(layer, scale=layer.scale[stays], shift=layer.shift[stays])
            if isinstance(layer, Fractions):
                return replace(layer, factors=layer.factors[:, _spread(mask, layer.factors.shape[1])])
            return layer

        def inputs(layer: Layer, mask: np.ndarray = mask) -> Layer:
            return replace(layer, weight=layer.weight[:, _spread(mask, layer.weight.shape[1])])

        layers = _changed(layers, site.producer, outputs)
        for path in site.between:
            layers = _changed(layers, path, carried)
        layers = _changed(layers, site.consumer, inputs)
    return replace(graph, layers=layers)


def _spread(mask: np.ndarray, entries: int) -> np.ndarray:
    """[units] -> [entries]: a channel is many entries once maps are flat."""
    return np.repeat(mask, entries // len(mask))


def _changed(layers: tuple[Layer, ...], path: Path, change: Callable[[Layer], Layer]) -> tuple[Layer, ...]:
    index, *inner = path
    layer = layers[index]
    new = replace(layer, layers=_changed(layer.layers, tuple(inner), change)) if inner else change(layer)
    return (*layers[:index], new, *layers[index + 1 :])


def _refitted(before: Graph, after: Graph, kept: dict[Site, np.ndarray], states: np.ndarray) -> Graph:
    """Return the cut graph with norms and consumers fitted to what the whole one computes, in the order of the data."""
    stays = {site.producer: mask for site, mask in kept.items()}
    for site, mask in kept.items():
        if mask.all():
            continue
        for path in site.between:
            if isinstance(layer_at(before.layers, path), Norm):
                norm = _fitted_norm(before, after, path, states)
                after = replace(after, layers=_changed(after.layers, path, lambda _, norm=norm: norm))
        consumer = _fitted_consumer(before, after, site, mask, stays, states)
        after = replace(after, layers=_changed(after.layers, site.consumer, lambda _, consumer=consumer: consumer))
    return after


def _fitted_norm(before: Graph, after: Graph, path: Path, states: np.ndarray) -> Norm:
    """Return the norm with scale and epsilon such that fewer squares give about the same factor 1 / sqrt(power).

    power = a * kept + b, a and b >= epsilon by least squares of the relative error; a goes into the scale.
    """
    whole, cut = layer_at(before.layers, path), layer_at(after.layers, path)
    students = to_modules(before), to_modules(after)
    found = []
    for x in blocks(before, states, 4096):
        powers = [inputs_at(student.layers, x, path).double().square().flatten(1).sum(1) for student in students]
        found.append(np.stack([power.numpy() / whole.count for power in powers]))
    power, left = np.concatenate(found, axis=1)  # [N]
    weight = 1 / (power + whole.epsilon) ** 2
    mean_power, mean_left = (np.average(one, weights=weight) for one in (power, left))
    spread = np.average((left - mean_left) ** 2, weights=weight)
    slope = np.average((left - mean_left) * (power - mean_power), weights=weight) / max(spread, 1e-30)
    if not 0 < slope * mean_left <= mean_power:  # b would be below epsilon, or the power be smaller for larger entries
        slope = np.average(power * left, weights=weight) / max(np.average(left * left, weights=weight), 1e-30)
    if slope * mean_left == 0:
        return cut
    epsilon = max(0.0, mean_power - slope * mean_left) + whole.epsilon
    return replace(cut, scale=np.float32(cut.scale / np.sqrt(slope)), epsilon=float(epsilon / slope))


def _fitted_consumer(
    before: Graph, after: Graph, site: Site, mask: np.ndarray, stays: dict[Path, np.ndarray], states: np.ndarray
) -> Dense | Conv:
    """Return the consumer with weights and bias that give on what is left what the whole one gave on everything."""
    whole, cut = layer_at(before.layers, site.consumer), layer_at(after.layers, site.consumer)
    outputs = stays.get(site.consumer, np.ones(len(whole.weight), bool))
    old = whole.weight.reshape(len(whole.weight), -1)[outputs].astype(np.float64)  # [out, D]
    new = cut.weight.reshape(len(cut.weight), -1).astype(np.float64)  # [out, D']
    pairs = paired_rows((before, after), site.consumer, states)
    if new.shape[1] > WIDEST:
        lost = np.mean([(x @ old.T - y @ new.T).mean(0) for x, y in pairs], axis=0)
        return replace(cut, bias=np.float32(cut.bias + lost))
    found = moments((y, x @ old.T - y @ new.T) for x, y in pairs)
    change = np.linalg.solve(ridged(found.covariance), found.cross).T  # [out, D']
    bias = cut.bias + found.other - change @ found.mean
    return replace(cut, weight=np.float32(new + change).reshape(cut.weight.shape), bias=np.float32(bias))
