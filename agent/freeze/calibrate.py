"""What a policy's numbers are like on states that it visits, and float layers made even before they lose bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.freeze.graph import Activate, Conv, Dense, Flatten, Fractions, Graph, Layer, MaxPool, Norm, Residual, apply
from agent.freeze.graph import shapes as shapes_of
from agent.freeze.graph import windows
from agent.freeze.integer import S8, S16, U8

ENTRIES = 1 << 26  # of the widest layer over all states: a quarter of a gigabyte in float32
AT_ONCE = 1 << 22  # entries of a batch, patches of a convolution included
ROWS = 30_000  # patches of a convolution that its weights are fitted to
SEARCHED = 300_000  # entries among which a step is searched

# The integers of so many bits, where none is below zero and elsewhere.
LIMITS = {8: (U8, S8), 12: ((0, 4095), (-2047, 2047)), 16: ((0, S16[1]), S16)}

# A layer of at most so many inputs or outputs, and so many weights, has 16 bits: all that is decided passes through it.
NARROW, SMALL = 16, 1024
EVENNESS = 0.75  # 0 leaves the ranges of a layer's units as they are, 1 makes them all alike
MARGIN = {8: 0.05, 12: 0.25, 16: 0.25}  # by bits, a share of a unit's range: room for states not visited


@dataclass(frozen=True)
class Widths:
    """How many bits weights and activations have; layers in `wide` have 16-bit weights, and inputs of up to 16 bits."""

    weights: int
    activations: int
    wide: frozenset[int] = frozenset()

    def weight(self, index: int) -> int:
        """Bits of the weights of layer `index`."""
        return 16 if index in self.wide else self.weights

    def input(self, index: int) -> int:
        """Bits of what enters layer `index`."""
        return 16 if index in self.wide else self.activations

    def inside(self, index: int) -> Widths:
        """The widths of the layers inside layer `index`."""
        return Widths(self.weight(index), self.input(index))

    def output(self, layers: Sequence[Layer], index: int, last: int) -> int:
        """Bits of what leaves layer `index`; `last` behind the last of the layers.

        A norm takes 16 bits always: it divides by the root of a sum of squares. The head takes 12 from features, not
        from pictures: with so many its sums still fit 32 bits.
        """
        reader = next((i for i in range(index + 1, len(layers)) if not isinstance(layers[i], PASSING)), None)
        if reader is None:
            return last
        if isinstance(layers[reader], Norm):
            return 16
        is_head = reader == index + 1 == len(layers) - 1 and isinstance(layers[reader], Dense)
        return max(12, self.input(reader)) if is_head else self.input(reader)


PASSING = (Flatten, MaxPool, Activate)


def narrow(layers: Sequence[Layer]) -> frozenset[int]:
    """Return the indices of small dense layers of few inputs or outputs.

    Not of the first, the observation has 16 bits anyway, and not of a head of many inputs, whose weights have.
    """
    dense = [(index, layer.weight) for index, layer in enumerate(layers) if isinstance(layer, Dense)]
    few = [(index, weight) for index, weight in dense[1:] if min(weight.shape) <= NARROW and weight.size <= SMALL]
    return frozenset(index for index, weight in few if weight.shape[1] <= NARROW or index != len(layers) - 1)


def thinned(graph: Graph, states: np.ndarray) -> np.ndarray:
    """Return as many of the states as memory allows, evenly spaced."""
    widest = max(int(np.prod(shape)) for shape in shapes_of(graph))
    most = max(1, ENTRIES // widest)
    return states[:: -(-len(states) // most)]


def batched(function: Callable[[np.ndarray], np.ndarray], layer: object, x: np.ndarray) -> np.ndarray:
    """Return function(x), [N, ...] -> [N, ...], over batches that fit the memory when `layer` sees them."""
    cost = x[0].size
    if (weight := getattr(layer, "weight", None)) is not None and weight.ndim == 4:
        cost = x[0, 0].size * weight[0].size  # at stride 1 a patch for every pixel
    size = max(1, AT_ONCE // cost)
    return np.concatenate([function(x[start : start + size]) for start in range(0, len(x), size)])


def inputs_of(layer: Dense | Conv, x: np.ndarray) -> np.ndarray:
    """Return what the layer's weights are multiplied by, f64 [rows, in]; of a convolution's patches some, the same ones
    for every x of this shape.
    """
    if isinstance(layer, Dense):
        return x.astype(np.float64)
    seen = windows(x, layer.weight.shape[2:], layer.stride, layer.padding, 0)  # [N, C, H', W', h, w]
    height, width = seen.shape[2:4]
    count = min(height * width, max(1, ROWS // len(x)))
    state = np.repeat(np.arange(len(x)), count)
    # Other places in every state, spread over the picture.
    place = (np.tile(np.arange(count) * (height * width) // count, len(x)) + 7 * state) % (height * width)
    return seen[state, :, place // width, place % width].reshape(len(state), -1).astype(np.float64)


def best_step(values: np.ndarray, low: int, high: int) -> float:
    """Return the step with which integers low .. high are nearest to the values, in the mean of squares.

    With more than 8 bits it is the largest value that counts, and room beyond it.
    """
    largest = float(np.abs(values).max()) or 1.0
    if high > 255:
        return largest * (1 + MARGIN[16]) / high
    some = values.reshape(-1)
    some = some[:: -(-some.size // SEARCHED)].astype(np.float64)
    steps = largest / high * np.linspace(1, 0.3, 36)
    errors = [np.square(np.clip(np.rint(some / step), low, high) * step - some).mean() for step in steps]
    return float(steps[int(np.argmin(errors))])


def balanced(layers: Sequence[Layer], x: np.ndarray, widths: Widths, last: int) -> list[Layer]:
    """Return layers that compute the same of x, f32 [N, ...], with units whose ranges are more alike.

    A unit behind a ReLU is divided by a factor of its own, and what reads it multiplies; a unit that never gets near
    zero is lowered besides, so that its few levels span what it really does. Both are exact but where a lowered unit
    falls below the range it has here.
    """
    found = list(layers)
    for index, layer in enumerate(found):
        if isinstance(layer, Residual):
            inner = balanced(layer.layers, x, widths.inside(index), widths.input(index))
            found[index] = layer = replace(layer, layers=tuple(inner))
        elif isinstance(layer, Fractions):
            found[index] = _balanced_fractions(layer, x, widths.inside(index))
            break
        y = batched(lambda rows, layer=layer: apply(layer, rows), layer, x)
        reader = index + 1
        while reader < len(found) and isinstance(found[reader], (Flatten, MaxPool)):
            reader += 1
        if isinstance(layer, (Dense, Conv, Norm)) and layer.activation == "relu" and reader < len(found):
            into = found[reader]
            if isinstance(into, (Dense, Conv, Fractions)):
                # The zeros around a picture, and a product, know no offset.
                liftable = isinstance(into, Dense) or (isinstance(into, Conv) and not into.padding)
                offset, factor = _range(y, MARGIN[widths.output(found, index, last)], liftable)
                found[index], found[reader] = _lowered(layer, offset, factor), _raised(into, offset, factor)
                per_unit = (-1,) + (1,) * (y.ndim - 2)
                y = (y - offset.reshape(per_unit)) / factor.reshape(per_unit)
        x = y
    return found


def _range(y: np.ndarray, margin: float, liftable: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what is subtracted from each unit, and what it is divided by then, f32 [units]."""
    others = (0, *range(2, y.ndim))
    low, high = y.min(others), y.max(others)
    offset = np.maximum(0, low - margin * (high - low)) if liftable else np.zeros_like(high)
    return offset.astype(np.float32), _factor(high - offset)


def _factor(size: np.ndarray) -> np.ndarray:
    """Return what units of such sizes, [units], are divided by to be more alike; 1 for those that are always zero."""
    alive = size > 0
    if not alive.any():
        return np.ones_like(size)
    middle = np.exp(np.log(size[alive].astype(np.float64)).mean())
    factor = np.where(alive, (np.where(alive, size, 1) / middle) ** EVENNESS, 1)
    return np.clip(factor, 1 / 16, 16).astype(np.float32)


def _lowered(layer: Dense | Conv | Norm, offset: np.ndarray, factor: np.ndarray) -> Layer:
    """The layer with (y - offset) / factor for y."""
    if isinstance(layer, Norm):
        return replace(layer, scale=layer.scale / factor, shift=(layer.shift - offset) / factor)
    per_row = (-1,) + (1,) * (layer.weight.ndim - 1)
    return replace(layer, weight=layer.weight / factor.reshape(per_row), bias=(layer.bias - offset) / factor)


def _raised(layer: Dense | Conv | Fractions, offset: np.ndarray, factor: np.ndarray) -> Layer:
    """The layer that answers to (x - offset) / factor as `layer` does to x."""
    if isinstance(layer, Conv):
        bias = layer.bias + layer.weight.sum(axis=(2, 3)) @ offset
        return replace(layer, weight=layer.weight * factor[:, None, None], bias=bias)
    inputs = layer.factors.shape[1] if isinstance(layer, Fractions) else layer.weight.shape[1]
    offset, factor = (np.repeat(each, inputs // len(each)) for each in (offset, factor))  # behind a Flatten
    if isinstance(layer, Fractions):
        return replace(layer, factors=layer.factors * factor)
    return replace(layer, weight=layer.weight * factor, bias=layer.bias + layer.weight @ offset)


def _balanced_fractions(layer: Fractions, x: np.ndarray, widths: Widths) -> Fractions:
    products = at_fractions(layer.factors, x)
    factor = _factor(np.abs(products).max(0))
    first, *rest = layer.layers
    inner = [_raised(first, np.zeros_like(factor), factor), *rest] if isinstance(first, Dense) else [*layer.layers]
    factor = factor if isinstance(first, Dense) else np.ones_like(factor)
    inner = balanced(inner, products / factor, widths, widths.activations)
    return Fractions(layer.factors / factor, tuple(inner))


def at_fractions(factors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return x at the fractions, every state at one of them in turn, [N, F]."""
    return x * factors[np.arange(len(x)) % len(factors)]
