"""What has learned becomes a graph: our Q-networks and plain torch layers, with all that acting does not need gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, cast

import numpy as np
from torch import nn

from agent.freeze.folding import Folding, array
from agent.freeze.graph import Clip, Continuous, Dense, Discrete, Fractions, Graph, Layer, require_finite
from agent.nets.heads import DuelingHead, LinearHead
from agent.nets.impala import Impala
from agent.nets.q_network import QNetwork
from agent.nets.torsos import MinAtar, Mlp, Nature

QUIET = np.errstate(invalid="ignore", over="ignore")  # what is not finite is refused with a sentence, at the end


@dataclass(frozen=True, eq=False)
class Statistics:
    """How observations were normalised: (x - mean) / sqrt(var + epsilon), limited to -clip_obs .. clip_obs."""

    mean: np.ndarray  # [*shape]
    var: np.ndarray  # [*shape]
    epsilon: float
    clip_obs: float


@QUIET
def from_q_network(network: QNetwork, shape: Sequence[int], dtype: str, num_actions: int) -> Graph:
    """Return what a Q-network computes when it acts, up to a constant per state that no choice depends on.

    Noise is at its mean, quantiles are averaged in the weights, the stream of the state value is gone.
    Raises ValueError for weights that are not finite and for what a graph cannot express.
    """
    return rounded(exact_q_network(network, shape, dtype, num_actions))


@QUIET
def from_modules(
    modules: Sequence[nn.Module],
    shape: Sequence[int],
    dtype: str,
    head: Discrete | Continuous,
    *,
    channels_last: bool = False,
    scale: float | None = None,
    statistics: Statistics | None = None,
) -> Graph:
    """Return what plain torch layers compute of observations that are normalised by `statistics`, then times `scale`.

    Raises ValueError naming the layer that cannot be frozen.
    """
    return rounded(
        exact_modules(modules, shape, dtype, head, channels_last=channels_last, scale=scale, statistics=statistics)
    )


def exact_q_network(network: QNetwork, shape: Sequence[int], dtype: str, num_actions: int) -> Graph:
    """Return the graph of `from_q_network` in float64, not rounded and not checked."""
    torso, head = network.torso, network.head
    if type(torso) not in (Mlp, MinAtar, Nature, Impala) or type(head) not in (LinearHead, DuelingHead):
        raise ValueError(
            f"A Q-network of {type(torso).__name__} and {type(head).__name__} cannot be frozen: its torso must be Mlp, "
            "MinAtar, Nature or Impala, its head LinearHead or DuelingHead."
        )
    channels_last = isinstance(torso, (Nature, Impala)) and torso.channels_last
    folding = Folding(_as_seen(shape, channels_last))
    if torso.pixels:
        folding.affine(1 / 255)
    if isinstance(torso, MinAtar):
        folding.add([torso.convolution, nn.ReLU()])
    elif isinstance(torso, Nature):
        folding.add([torso.convolutions])
    elif isinstance(torso, Impala):
        folding.add([torso.blocks, nn.ReLU(), torso.pool])
    folding.flatten()
    folding.add([torso.layers])
    if network.embedding is None:
        _add_head(folding, head)
    else:
        factors = array(network.embedding(network.fractions))  # [K, F], in the network's own precision, as it acts
        inner = Folding(folding.shape)
        # With no layer in the torso the factors are the first to be multiplied, and take its scale.
        inner.affine(folding.factor)
        _add_head(inner, head)
        folding.factor = np.ones(folding.shape)
        folding.append(Fractions(factors, tuple(inner.finished())))
    return _graph(folding, shape, dtype, Discrete(num_actions), channels_last)


def exact_modules(
    modules: Sequence[nn.Module],
    shape: Sequence[int],
    dtype: str,
    head: Discrete | Continuous,
    *,
    channels_last: bool,
    scale: float | None,
    statistics: Statistics | None,
) -> Graph:
    """Return the graph of `from_modules` in float64, not rounded and not checked."""
    folding = Folding(_as_seen(shape, channels_last))
    if statistics is not None:
        _add_statistics(folding, statistics, shape, channels_last)
    if scale is not None:
        folding.affine(scale)
    folding.add(modules)
    return _graph(folding, shape, dtype, head, channels_last)


@QUIET
def rounded(graph: Graph) -> Graph:
    """Return the graph with float32 weights; ValueError when one of them is not finite."""
    graph = replace(graph, layers=tuple(map(_rounded, graph.layers)))
    require_finite(graph)
    return graph


def _rounded(layer: Layer) -> Layer:
    changes: dict[str, object] = {}
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, np.ndarray):
            changes[field.name] = np.ascontiguousarray(value, np.float32)
        elif isinstance(value, tuple):
            changes[field.name] = tuple(map(_rounded, value))
    return replace(layer, **changes)


def _as_seen(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Return the shape in which the first layer takes observations."""
    return (shape[-1], *shape[:-1]) if channels_last else tuple(shape)


def _graph(
    folding: Folding, shape: Sequence[int], dtype: str, head: Discrete | Continuous, channels_last: bool
) -> Graph:
    name = np.dtype(dtype).name
    if name not in ("uint8", "float32"):
        raise ValueError(f"Observations of {name} cannot be frozen: only those of uint8 and float32 can.")
    layers = tuple(folding.finished())
    graph = Graph(tuple(shape), cast(Literal["uint8", "float32"], name), layers, head, channels_last)
    if folding.shape != (graph.num_outputs,):
        raise ValueError(f"The last layer gives {folding.shape}, but the actions need ({graph.num_outputs},).")
    return graph


def _add_head(folding: Folding, head: LinearHead | DuelingHead) -> None:
    """The stream of action values: a state's value, and the mean that dueling subtracts, change no choice."""
    stream = head.action_values if isinstance(head, LinearHead) else head.advantages
    *hidden, output = stream
    folding.add(hidden)
    weight, bias = array(output.weight), array(output.bias)  # [K * A, in], [K * A]
    # The head is linear, so that the mean over quantiles is the mean over their weights.
    folding.dense(weight.reshape(*head.shape, -1).mean(0), bias.reshape(head.shape).mean(0))


def _add_statistics(folding: Folding, statistics: Statistics, shape: Sequence[int], channels_last: bool) -> None:
    """Limits of the raw observation, which stand for those of the normalised one, and then the normalising."""
    mean, var = (np.asarray(one, np.float64) for one in (statistics.mean, statistics.var))
    if mean.shape != tuple(shape) or var.shape != tuple(shape):
        raise ValueError(f"The statistics are of observations {mean.shape}, the policy takes {tuple(shape)}.")
    possible = np.isfinite(mean).all() and np.isfinite(var).all() and (var + statistics.epsilon > 0).all()
    if not possible or not statistics.clip_obs > 0:
        raise ValueError(
            "The statistics of the observations hold a mean, variance or limit that cannot be: are they of this policy?"
        )
    if channels_last:
        mean, var = np.moveaxis(mean, -1, 0), np.moveaxis(var, -1, 0)
    deviation = np.sqrt(var + statistics.epsilon)
    reach = statistics.clip_obs * deviation
    folding.append(Clip(mean - reach, mean + reach))
    folding.affine(1 / deviation, -mean / deviation)
