"""What comes out of the mode switch: a policy of plain arrays. It holds nothing that could train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.convert import from_q_network
from agent.freeze.distil import STEPS, affordable, distil
from agent.freeze.graph import Continuous, Discrete, Graph, in_blocks
from agent.freeze.integer import IntegerGraph
from agent.freeze.prune import prune
from agent.freeze.quantize import quantize
from agent.nets.q_network import QNetwork


@dataclass(frozen=True, eq=False)
class FrozenPolicy:
    """A policy that acts: its float layers, and its integer layers when it was quantized; then these are what plays."""

    graph: Graph
    integer: IntegerGraph | None = None

    @property
    def head(self) -> Discrete | Continuous:
        """How outputs become actions."""
        return self.graph.head

    def raw(self, observation: np.ndarray) -> np.ndarray:
        """Return what the emitted policy gives: f32, or i32 when it was quantized, [N, *shape] -> [N, outputs]."""
        if self.integer is not None:
            return in_blocks(partial(integers.run, self.integer), observation)
        return in_blocks(partial(floats.run, self.graph), observation)

    def outputs(self, raw: np.ndarray) -> np.ndarray:
        """Return raw outputs as action values (or logits, or what a continuous head squashes), f64 [N, outputs]."""
        return raw.astype(np.float64) * (1.0 if self.integer is None else self.integer.step)

    def decide(self, raw: np.ndarray) -> np.ndarray:
        """Return the actions that raw outputs mean, i64 [N] or f32 [N, n]."""
        return floats.decide(self.head, raw) if self.integer is None else integers.decide(self.integer, raw)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the actions, [N, *shape] -> i64 [N] or f32 [N, n]."""
        return self.decide(self.raw(observation))


def freeze(
    network: QNetwork,
    shape: tuple[int, ...],
    dtype: str,
    num_actions: int,
    *,
    states: np.ndarray | None = None,
    pruned: float = 0.0,
    bits: int | None = None,
    distil_steps: int = STEPS,
) -> FrozenPolicy:
    """Return a network as a policy that can only act; the network goes on learning untouched.

    `states`, [N, *shape] and at least some hundreds, are what it visits (its replay, say): needed to prune (`pruned` is
    the share of multiply-accumulates to remove) and to quantize to `bits` 8 or 16. ValueError when they are missing,
    when a weight is not finite, or when a layer cannot be frozen.
    """
    graph = from_q_network(network, shape, dtype, num_actions)
    if not pruned and bits is None:
        return FrozenPolicy(graph)
    if states is None:
        raise ValueError("Pruning and quantizing need states that the policy visits: pass states=.")
    if pruned:
        targets = FrozenPolicy(graph).raw(states)
        graph = prune(graph, states, pruned)
        steps, batch_size = affordable(graph, distil_steps)
        graph = distil(graph, states, targets, steps=steps, batch_size=batch_size)
    if bits is None:
        return FrozenPolicy(graph)
    return FrozenPolicy(graph, quantize(graph, states, weight_bits=bits, activation_bits=bits))
