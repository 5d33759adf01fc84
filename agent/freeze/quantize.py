"""From a float policy to the integer one: calibrated on states that it visits, layer by layer behind integer layers.

Every layer with weights is fitted to what the float network says at its place, given what the integer layers before it
really deliver, so that it makes good what they did to its input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agent.freeze import integer, lowering
from agent.freeze.calibrate import LIMITS, Widths, at_fractions, balanced, best_step, narrow, thinned
from agent.freeze.graph import (
    ACTIVATIONS,
    Activate,
    Clip,
    Conv,
    Dense,
    Discrete,
    Flatten,
    Fractions,
    Graph,
    Layer,
    MaxPool,
    Norm,
    Residual,
    apply,
    as_input,
    run,
)
from agent.freeze.integer import S16, U8, IntegerGraph, IntFlatten, IntFractions, IntLayer, IntRescale, Quantize
from agent.freeze.lowering import Signal, real_output

REACH = 1.5  # how far beyond the largest observation of the calibration an observation may lie
BATCH = 64  # states at a time through a whole policy
JUDGED = 1000  # states that `sensitivity` needs: it only puts layers in order


def quantize(
    graph: Graph, states: np.ndarray, *, weight_bits: int = 8, activation_bits: int = 8, wide: Collection[int] = ()
) -> IntegerGraph:
    """Return the policy in integers, calibrated on raw observations that it visits, [N, *shape], at least hundreds.

    The layers of the graph whose indices are in `wide` get 16-bit weights and inputs. Whatever is asked for, the last
    layer has 16-bit weights and inputs of 12 bits, and a `narrow` layer has 16 bits: they cost nothing there.
    The same policy and states give the same integers. ValueError when there are no states, when they are not finite,
    for other numbers of bits, and for a layer whose sums do not fit.
    """
    if not len(states) or not np.isfinite(states).all():
        raise ValueError("Quantizing needs states that the policy visits, some hundreds at least, and finite ones.")
    if not {weight_bits, activation_bits} <= {8, 16}:
        raise ValueError(f"Weights and activations have 8 or 16 bits, not {weight_bits} and {activation_bits}.")
    layers = list(graph.layers)
    limits = layers.pop(0) if isinstance(layers[0], Clip) else None
    if limits is not None:
        wide = [index - 1 for index in wide]
        if graph.dtype == "uint8":
            raise ValueError("Only float32 observations can be clipped before they are integers, not uint8 ones.")
    if isinstance(graph.head, Discrete):
        layers = _centred(layers)
    widths = Widths(weight_bits, activation_bits, frozenset(wide) | narrow(layers))
    observation = as_input(graph, thinned(graph, states))
    found: list[IntLayer] = []
    if graph.dtype == "float32":
        entrance, signal, layers = _entrance(observation, limits, layers)
        found.append(entrance)
    else:
        signal = Signal(observation, observation, 1.0, *U8)
    layers = balanced(layers, signal.real.astype(np.float32), widths, 16)
    more, step = _policy(layers, signal, widths, 1)
    squash = None
    if not isinstance(graph.head, Discrete) and graph.head.squash == "tanh":
        squash = lowering.squash(step, graph.num_outputs)
    return IntegerGraph(
        graph.shape, graph.dtype, (*found, *more), graph.head, step, squash, channels_last=graph.channels_last
    )


def sensitivity(graph: Graph, states: np.ndarray) -> list[tuple[int, float]]:
    """Return how much 8 bits in each layer alone change the outputs, all others having 16: (index, error), worst first.

    Layers that have 16 bits in any case are left out. The error is the mean difference as a share of the outputs' mean
    size, both less their mean over actions.
    """
    with_weights = [
        index
        for index, layer in enumerate(graph.layers)
        if isinstance(layer, (Dense, Conv, Residual, Fractions)) and index not in narrow(graph.layers)
    ]
    judged = thinned(graph, states[:: -(-len(states) // JUDGED)])
    wanted = _relative(graph, run, graph, judged)
    found = []
    for index in with_weights:
        policy = quantize(graph, judged, wide=[other for other in with_weights if other != index])
        given = _relative(graph, integer.run, policy, judged) * policy.step
        found.append((index, float(np.abs(given - wanted).mean() / max(np.abs(wanted).mean(), 1e-12))))
    return sorted(found, key=lambda each: -each[1])


def _relative(graph: Graph, runs: Callable[[Any, np.ndarray], np.ndarray], policy: Any, x: np.ndarray) -> np.ndarray:
    """What a policy gives as far as it matters to the choice."""
    y = np.concatenate([runs(policy, x[start : start + BATCH]) for start in range(0, len(x), BATCH)])
    return y - y.mean(axis=1, keepdims=True) if isinstance(graph.head, Discrete) else y


def _centred(layers: list[Layer]) -> list[Layer]:
    """The last layer less its mean over actions, which no choice depends on."""
    *body, last = layers
    if isinstance(last, Fractions):
        return [*body, replace(last, layers=tuple(_centred(list(last.layers))))]
    if isinstance(last, Dense) and last.activation == "none":
        return [*body, replace(last, weight=last.weight - last.weight.mean(0), bias=last.bias - last.bias.mean())]
    return layers


def _entrance(x: np.ndarray, limits: Clip | None, layers: list[Layer]) -> tuple[Quantize, Signal, list[Layer]]:
    """Return how observations become s16, these, and the layers with the exponents in the first one's weights."""
    reader = 1 if isinstance(layers[0], Flatten) and len(layers) > 1 else 0
    first = layers[reader]
    by_channel = isinstance(first, Conv) and reader == 0
    if limits is not None:
        x = apply(limits, x)
    largest = np.abs(x).max(0)  # [*shape]
    if not isinstance(first, Dense):
        largest = np.broadcast_to(largest.max(axis=(1, 2) if by_channel else None, keepdims=True), largest.shape)
    room = np.where(largest > 0, largest, 1).astype(np.float64) * REACH
    exponent = np.clip(np.floor(np.log2(S16[1] / room)), -100, 100).astype(np.int8)
    ends = (np.full(exponent.shape, -np.inf), np.full(exponent.shape, np.inf))
    if limits is not None:
        ends = limits.low.astype(np.float64), limits.high.astype(np.float64)
    low, high = (np.clip(np.rint(np.ldexp(end, exponent)), *S16).astype(np.int16) for end in ends)
    entrance = Quantize(exponent, low, high)
    q = integer.apply(entrance, x).astype(np.int32)
    scale = np.ldexp(np.float32(1), exponent.astype(np.int32))  # [*shape], exact
    if not isinstance(first, Dense) and not by_channel:
        return entrance, Signal(x, q, 1 / float(scale.flat[0]), *S16), layers
    folded = first.weight / (scale[:, :1, :1] if by_channel else scale.reshape(-1))
    layers = [*layers[:reader], replace(first, weight=folded), *layers[reader + 1 :]]
    return entrance, Signal((x * scale).astype(np.float32), q, 1.0, *S16), layers


def _policy(layers: Sequence[Layer], signal: Signal, widths: Widths, copies: int) -> tuple[list[IntLayer], float]:
    """Return a policy's layers up to 32-bit outputs, and these outputs' step; so many `copies` of them can be added."""
    index, last = len(layers) - 1, layers[-1]
    is_head = isinstance(last, Dense) and last.activation == "none"
    whole = is_head or isinstance(last, Fractions)
    found, signal = _layers(layers, index if whole else index + 1, signal, widths, 16)
    if is_head:
        end, step = lowering.head(last, signal, copies)
    elif isinstance(last, Fractions):
        end, step = _fractions(last, signal, widths.inside(index))
    else:
        return found, signal.step
    return [*found, end], step


def _layers(
    layers: Sequence[Layer], count: int, signal: Signal, widths: Widths, last: int
) -> tuple[list[IntLayer], Signal]:
    """Return the first layers in integers, and what leaves them; `last` bits leave the very last of all."""
    found: list[IntLayer] = []
    for index in range(count):
        more, signal = _layer(layers[index], index, signal, widths, widths.output(layers, index, last))
        found += more
    return found, signal


def _layer(layer: Layer, index: int, signal: Signal, widths: Widths, bits: int) -> tuple[list[IntLayer], Signal]:
    """Return one layer in integers, and what leaves it with so many bits."""
    if isinstance(layer, (Flatten, MaxPool)):
        same: IntLayer = IntFlatten() if isinstance(layer, Flatten) else layer
        return [same], replace(signal, real=real_output(layer, signal.real), q=signal.through([same]))
    if isinstance(layer, Activate) and layer.activation == "relu" and signal.bits <= bits:
        only = IntRescale(1, 0, 0, signal.high)
        real = real_output(layer, signal.real)
        return [only], Signal(real, signal.through([only]), signal.step, 0, signal.high)
    match layer:
        case Dense() | Conv():
            before = real_output(replace(layer, activation="none"), signal.real)
            wanted = lowering.output(layer.activation, before, bits)
            limits = wanted.step, wanted.low, wanted.high
            first: IntLayer = lowering.weighted(layer, signal, *limits, widths.weight(index))
        case Norm():
            before = real_output(replace(layer, activation="none"), signal.real)
            wanted = lowering.output(layer.activation, before, bits)
            first = lowering.norm(layer, signal, wanted)
        case Activate():
            before = signal.real
            first, wanted = lowering.rescale(signal, lowering.output(layer.activation, before, bits))
        case Residual():
            inner, branch = _layers(
                layer.layers, len(layer.layers), signal, widths.inside(index), widths.input(index)
            )
            before = signal.real + branch.real
            wanted = lowering.output(layer.activation, before, bits)
            first = lowering.residual(tuple(inner), signal, branch, wanted)
        case _:
            raise ValueError(f"A layer of kind {type(layer).__name__} cannot stand at place {index} of integer layers.")
    found = [first, *wanted.activation]
    real = ACTIVATIONS[layer.activation](before).astype(np.float32)
    return found, Signal(real, signal.through(found), wanted.last_step, *wanted.limits)


def _fractions(layer: Fractions, signal: Signal, widths: Widths) -> tuple[IntFractions, float]:
    """Return the layers at every fraction, and the step of the sum of their outputs as a mean."""
    count = len(layer.factors)
    products = at_fractions(layer.factors, signal.real)
    low, high = LIMITS[widths.activations][0 if layer.factors.min() >= 0 and signal.low == 0 else 1]
    step = best_step(products, low, high)
    ratio = layer.factors.astype(np.float64) * signal.step / step
    shift = int(np.clip(np.floor(np.log2(S16[1] / max(np.abs(ratio).max(), 1e-9))), 0, 30))
    factors = np.rint(np.ldexp(ratio, shift)).astype(np.int16)  # [K, F]
    q = integer.requantize(at_fractions(factors.astype(np.int64), signal.q), 1, shift, low, high)
    inner, step = _policy(layer.layers, Signal(products, q, step, low, high), widths, count)
    return IntFractions(factors, shift, low, high, tuple(inner)), step / count


