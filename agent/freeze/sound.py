"""What a sound graph is: types, shapes and limits that fit from layer to layer, so that nothing can overflow or miss.

Every graph that is written to an artefact or read from one passes `check`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.graph import ACTIVATIONS, Continuous, Discrete, Graph
from agent.freeze.integer import S16, U8, IntDense, IntegerGraph, IntFractions, IntHead

S32 = (-(2**31) + 1, 2**31 - 1)
LARGEST = 1 << 24  # entries between two layers
MOST_LAYERS = 1000


class _Flow(NamedTuple):
    """What runs between two layers: entries, [*shape], within low .. high when they are integers."""

    shape: tuple[int, ...]
    low: int = 0
    high: int = 0


def check(graph: Graph | IntegerGraph) -> None:
    """Raise ValueError naming the layer when a graph is not sound."""
    shape, head = graph.shape, graph.head
    if not (1 <= len(shape) <= 4 and all(map(_is_count, shape)) and math.prod(shape) <= LARGEST):
        raise ValueError(f"The shape of the observation is {shape!r:.100}, which is not one that can be frozen.")
    if graph.dtype not in ("uint8", "float32"):
        raise ValueError(f"The observation is of {graph.dtype!r:.100}; a policy takes uint8 or float32.")
    if graph.channels_last and len(shape) != 3:
        raise ValueError(f"Only pictures have their channels last, not observations of shape {shape}.")
    _check_head(head)
    flow = _Flow((shape[2], *shape[:2]) if graph.channels_last else shape, *U8)
    if isinstance(graph, IntegerGraph):
        starts = bool(graph.layers) and isinstance(graph.layers[0], integers.Quantize)
        if starts != (graph.dtype == "float32"):
            raise ValueError("An integer policy starts with Quantize when its observations are float32, and only then.")
        if not (isinstance(graph.step, float | np.floating) and math.isfinite(graph.step) and graph.step > 0):
            raise ValueError(f"The step of the outputs is {graph.step!r:.100}; it must be a float above 0.")
        _check_squash(graph)
    flow = _through(graph.layers, flow, "layers", final=True)
    outputs = head.num_actions if isinstance(head, Discrete) else len(head.low)
    if flow.shape != (outputs,):
        raise ValueError(f"The last layer gives {flow.shape}, and the head takes ({outputs},).")
    if isinstance(graph, IntegerGraph) and not isinstance(graph.layers[-1], IntHead | IntDense | IntFractions):
        raise ValueError("The last layer of an integer policy must be an IntHead, IntDense or IntFractions.")


def _check_head(head: Discrete | Continuous) -> None:
    if isinstance(head, Discrete):
        if not _is_count(head.num_actions) or head.num_actions > 1 << 16:
            raise ValueError(f"The number of actions is {head.num_actions!r:.100}.")
    elif not (
        1 <= len(head.low) == len(head.high) <= 1 << 16
        and all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in zip(head.low, head.high))
        and head.squash in ("tanh", "clip")
    ):
        raise ValueError("The limits of actions must be finite, the lower below the upper, and squash tanh or clip.")


def _check_squash(graph: IntegerGraph) -> None:
    squashes = isinstance(graph.head, Continuous) and graph.head.squash == "tanh"
    if squashes != (graph.squash is not None):
        raise ValueError("An integer policy has a squash when its head squashes by tanh, and only then.")
    if graph.squash is not None:
        outputs = (len(graph.head.low),)
        _array("squash", graph.squash, "multiplier", ("int32",), outputs, low=1)
        _array("squash", graph.squash, "shift", ("int8",), outputs, low=0, high=62)
        _array("squash", graph.squash, "table", ("int16",), (257,))


def _through(layers: Sequence[Any], flow: _Flow, at: str, *, final: bool) -> _Flow:
    """Return what leaves the layers; `final` says whether the last of them gives the policy's outputs."""
    if not layers or len(layers) > MOST_LAYERS:
        raise ValueError(f"{at} has {len(layers)} layers; there must be 1 to {MOST_LAYERS}.")
    for index, layer in enumerate(layers):
        here, name = f"{at}.{index}", type(layer).__name__
        if index > 0 and isinstance(layer, floats.Clip | integers.Quantize):
            raise ValueError(f"{here}: {name} can only be the first layer.")
        last = final and index == len(layers) - 1
        if not last and isinstance(layer, floats.Fractions | IntFractions | IntHead):
            raise ValueError(f"{here}: {name} can only be the last layer.")
        flow = _after(layer, flow, here, S32 if last and isinstance(layer, IntDense) else S16)
        if math.prod(flow.shape) > LARGEST:
            raise ValueError(f"{here}: {name} gives {flow.shape}, more than {LARGEST} entries.")
    return flow


def _after(layer: Any, flow: _Flow, at: str, widest: tuple[int, int]) -> _Flow:
    """Return what leaves one layer, whose limits may be as wide as `widest`."""
    shape = flow.shape
    if "activation" in vars(layer) and layer.activation not in ACTIVATIONS:
        _fail(at, layer, f"there is no activation {layer.activation!r:.100}")
    match layer:
        case floats.Clip():
            low, high = (_array(at, layer, name, ("float32",), shape, finite=False) for name in ("low", "high"))
            if not (low <= high).all():  # NaN is refused too
                _fail(at, layer, "low must not lie above high")
            return flow
        case floats.Flatten() | integers.IntFlatten():
            return flow._replace(shape=(math.prod(shape),))
        case floats.Dense() | floats.Conv():
            outputs = _weighted(layer, flow, at, ("float32",))
            _array(at, layer, "bias", ("float32",), outputs.shape[:1])
            return outputs
        case floats.Norm():
            for name in ("scale", "shift"):
                _array(at, layer, name, ("float32",), shape[:1])
            if not (_is_count(layer.count) and math.isfinite(layer.epsilon) and layer.epsilon >= 0):
                _fail(at, layer, "count must be at least 1, epsilon a number of at least 0")
            return flow
        case floats.MaxPool():
            if 2 * layer.padding > layer.kernel:
                _fail(at, layer, "the padding must be at most half of the kernel")
            return _slide(layer, flow, (layer.kernel, layer.kernel), shape[0], at)
        case floats.Activate():
            return flow
        case floats.Residual() | integers.IntResidual():
            inner = _through(layer.layers, flow, f"{at}.layers", final=False)
            if inner.shape != shape:
                _fail(at, layer, f"its layers give {inner.shape}, not the {shape} that they are added to")
            return flow if isinstance(layer, floats.Residual) else _limited(layer, shape, at)
        case floats.Fractions():
            _array(at, layer, "factors", ("float32",), (len(layer.factors), *shape))
            return _through(layer.layers, flow, f"{at}.layers", final=True)
    return _after_integers(layer, flow, at, widest)


def _after_integers(layer: Any, flow: _Flow, at: str, widest: tuple[int, int]) -> _Flow:
    shape, largest = flow.shape, max(abs(flow.low), abs(flow.high))
    match layer:
        case integers.Quantize():
            _array(at, layer, "exponent", ("int8",), shape, low=-100, high=100)
            low, high = (_array(at, layer, name, ("int16",), shape, low=-S16[1]) for name in ("low", "high"))
            if not (low <= high).all():
                _fail(at, layer, "low must not lie above high")
            return _Flow(shape, int(low.min()), int(high.max()))
        case integers.IntDense() | integers.IntConv():
            outputs = _weighted(layer, flow, at, ("int8", "int16"))
            bias = _array(at, layer, "bias", ("int32", "int64"), outputs.shape[:1])
            multiplier = _array(at, layer, "multiplier", ("int32",), outputs.shape[:1], low=1, high=2**15)
            _array(at, layer, "shift", ("int8",), outputs.shape[:1], low=0, high=62)
            sums = _largest_sums(layer, largest) + np.abs(bias.astype(np.float64))
            if sums.max() >= (2**31 if bias.dtype == np.int32 else 2**62) or (sums * multiplier).max() >= 2**62:
                _fail(at, layer, "its sums can leave the range of its integers")
            return _limited(layer, outputs.shape, at, widest)
        case integers.IntTable():
            table = _array(at, layer, "table", ("int16",), (257,), low=-S16[1])  # every layer before it gives an s16
            return _Flow(shape, int(table.min()), int(table.max()))
        case integers.IntNorm():
            _array(at, layer, "scale", ("int32",), shape[:1], low=-(2**16), high=2**16)
            _array(at, layer, "bias", ("int64",), shape[:1], low=-(2**61), high=2**61)
            if not 1 <= layer.epsilon < 2**40 or not 0 <= layer.places <= 62 or largest > S16[1]:
                _fail(at, layer, "epsilon must be 1 .. 2^40, places 0 .. 62, and what enters an s16")
            return _limited(layer, shape, at)
        case integers.IntRescale():
            return _limited(layer, shape, at)
        case integers.IntFractions():
            _array(at, layer, "factors", ("int16",), (len(layer.factors), *shape), low=-S16[1])
            inner = _through(layer.layers, _limited(layer, shape, at), f"{at}.layers", final=True)
            if not isinstance(layer.layers[-1], IntHead | IntDense):
                _fail(at, layer, "its layers must end with an IntHead or IntDense")
            if max(abs(inner.low), abs(inner.high)) * len(layer.factors) > S32[1]:
                _fail(at, layer, "its sum can leave 32 bits")
            return inner
        case integers.IntHead():
            outputs = _weighted(layer, flow, at, ("int8", "int16"))
            multiplier = _array(at, layer, "multiplier", ("int32",), outputs.shape, low=1)
            bias = _array(at, layer, "bias", ("int32",), outputs.shape)
            most = int((_largest_sums(layer, largest) * multiplier + np.abs(bias.astype(np.float64))).max())
            if most > S32[1] or largest > S16[1]:
                _fail(at, layer, "what enters must have at most 16 bits, and what leaves 32")
            return _Flow(outputs.shape, -most, most)
    raise ValueError(f"{at}: {type(layer).__name__} is no layer of a frozen policy.")


def _weighted(layer: Any, flow: _Flow, at: str, dtypes: tuple[str, ...]) -> _Flow:
    """Return what leaves a layer with weights, [out, in] or [out, in, height, width], after looking at these."""
    weight = layer.weight
    if isinstance(layer, floats.Conv | integers.IntConv):
        if weight.ndim != 4 or len(flow.shape) != 3:
            _fail(at, layer, f"weights {weight.shape} cannot slide over {flow.shape}")
        outputs = _slide(layer, flow, weight.shape[2:], len(weight), at)
        wanted = (len(weight), flow.shape[0], *weight.shape[2:])
    else:
        outputs, wanted = flow._replace(shape=(len(weight),)), (len(weight), *flow.shape)
        if len(flow.shape) != 1:
            _fail(at, layer, f"it takes a vector, not {flow.shape}")
    lowest = None if weight.dtype.kind == "f" else 1 + np.iinfo(weight.dtype).min
    _array(at, layer, "weight", dtypes, wanted, low=lowest)
    return outputs


def _slide(layer: Any, flow: _Flow, kernel: tuple[int, ...], channels: int, at: str) -> _Flow:
    """Return what leaves windows that slide over [C, H, W]."""
    if len(flow.shape) != 3 or not all(map(_is_count, (*kernel, layer.stride, layer.padding + 1))):
        around = f"by steps of {layer.stride}, with {layer.padding} around"
        _fail(at, layer, f"windows of {kernel} cannot slide over {flow.shape} {around}")
    sizes = [(size + 2 * layer.padding - k) // layer.stride + 1 for size, k in zip(flow.shape[1:], kernel)]
    if min(sizes) < 1 or layer.padding >= max(kernel):
        _fail(at, layer, f"windows of {kernel} with {layer.padding} around do not fit {flow.shape}")
    return flow._replace(shape=(channels, *sizes))


def _largest_sums(layer: Any, largest: int) -> np.ndarray:
    """Return how large the sums of products can become, f64 [out], exact enough for a limit."""
    return np.abs(layer.weight.astype(np.float64)).reshape(len(layer.weight), -1).sum(axis=1) * largest


def _limited(layer: Any, shape: tuple[int, ...], at: str, widest: tuple[int, int] = S16) -> _Flow:
    """Return what leaves a layer with limits, after looking at its numbers."""
    if not widest[0] <= layer.low < layer.high <= widest[1]:
        _fail(at, layer, f"its limits {layer.low} .. {layer.high} do not lie within {widest[0]} .. {widest[1]}")
    for name, least, most in (("multiplier", -(2**31), 2**31), ("inner", -(2**31), 2**31), ("shift", 0, 62)):
        value = getattr(layer, name, 0)
        if isinstance(value, int) and not least <= value <= most:
            _fail(at, layer, f"its {name} is {value}, not {least} .. {most}")
    return _Flow(shape, layer.low, layer.high)


def _array(
    at: str, owner: Any, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...], *, finite: bool = True,
    low: int | None = None, high: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Return an array of a layer after looking at its type, shape and numbers."""
    array = getattr(owner, name)
    if not isinstance(array, np.ndarray) or array.dtype.name not in dtypes or array.shape != shape or array.size == 0:
        found = f"{array.dtype.name} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        _fail(at, owner, f"its {name} is {found}, not {' or '.join(dtypes)} {shape}")
    if finite and not np.isfinite(array).all():
        _fail(at, owner, f"not all of its {name} is finite: this policy has diverged and cannot be frozen")
    if (low is not None and array.min() < low) or (high is not None and array.max() > high):
        _fail(at, owner, f"its {name} has numbers beyond {low} .. {high}")
    return array


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and 1 <= value <= LARGEST


def _fail(at: str, owner: Any, why: str) -> NoReturn:
    raise ValueError(f"{at} ({type(owner).__name__}): {why}.")
