"""From a folded policy to the smallest one that passes the gate: how much is pruned, how many bits each layer gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from agent.freeze.distil import affordable, distil
from agent.freeze.gate import Act, Agreement, Scores, agreement, paired
from agent.freeze.graph import Graph, arrays, multiply_accumulates
from agent.freeze.integer import IntegerGraph
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.prune import drop_dead, percent, prunable, prune
from agent.freeze.quantize import quantize, sensitivity
from agent.types import VectorEnv

FRACTIONS = (0.55, 0.7, 0.8, 0.875, 0.925)  # of what active units multiply, one after the other while the gate passes
WIDENED = (0.25, 0.5)  # shares of the layers that get 16 bits, the most sensitive first, before all of them do
Wanted = Literal["auto", "float32", "int8", "int16"]


@dataclass(frozen=True)
class Bits:
    """What a policy computes with: the bits of weights and activations, and the layers that have 16 of them."""

    name: str
    bits: int
    wide: tuple[int, ...] = ()


FLOAT32, INT8, INT16 = Bits("float32", 32), Bits("int8", 8), Bits("int16", 16)


@dataclass(frozen=True)
class Pass:
    """What one step of freezing did."""

    name: str
    macs: int
    weight_bytes: int
    agreement: Agreement
    scores: Scores | None  # None where the gate was not asked

    def figures(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {
            "name": self.name,
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "agree": self.agreement.agree,
            "regret": self.agreement.regret,
            "gate": None if self.scores is None else self.scores.figures(),
        }


@dataclass
class Trial:
    """What every candidate is judged by: the live policy, states it visits, and the episodes both play."""

    live: Callable[[np.ndarray], np.ndarray]  # [N, *shape] -> outputs [N, outputs]
    live_act: Act
    games: VectorEnv
    states: np.ndarray  # [N, *shape], to prune and calibrate on
    taught: np.ndarray  # [L, *shape], to distil on; `states` may be among them
    fresh: np.ndarray  # [M, *shape], visited by the live policy; never used for anything but agreement
    seed: int
    margin: float
    episodes: int
    most: int
    # How a candidate plays at the gate, bit for bit.
    acting: Callable[[FrozenPolicy, Bits], Act] = lambda policy, _: policy.act
    say: Callable[[str], None] = lambda sentence: None
    passes: list[Pass] = field(default_factory=list)
    _rounds: dict[int, np.ndarray] = field(default_factory=dict)
    _scores: dict[Graph | IntegerGraph, Scores] = field(default_factory=dict)  # by what plays, which is never changed

    def __post_init__(self) -> None:
        self.fresh_outputs = self.live(self.fresh)
        self.fresh_actions = self.live_act(self.fresh)

    def agreement(self, policy: FrozenPolicy) -> Agreement:
        """Return how often the policy chooses as the live one on the fresh states."""
        raw = policy.raw(self.fresh)
        outputs = policy.outputs(raw)
        return agreement(self.fresh_outputs, outputs, policy.head, self.fresh_actions, policy.decide(raw))

    def gate(self, act: Act) -> Scores:
        """Return the scores of paired episodes; the live policy plays each only once, however often this is asked."""
        return paired(
            self.games,
            {"live": self.live_act, "frozen": act},
            self.seed,
            margin=self.margin,
            episodes=self.episodes,
            most=self.most,
            live=self._rounds,
        )

    def on_fresh_episodes(self, seed: int) -> Trial:
        """Return this trial with other episodes; what was noted is kept."""
        return replace(self, seed=seed, _rounds={}, _scores={})

    def scores(self, policy: FrozenPolicy, act: Callable[[], Act]) -> Scores:
        """Return the scores of a policy that acts so; the very same policy is not played a second time."""
        plays = policy.graph if policy.integer is None else policy.integer
        if plays not in self._scores:
            self.say(f"playing the live policy's episodes, {self.episodes} of them, in doubt up to {self.most}")
            self._scores[plays] = self.gate(act())
        return self._scores[plays]

    def note(self, name: str, policy: FrozenPolicy, bits: Bits, *, gate: bool) -> Pass:
        """Judge a policy, by its score too when `gate`, remember what came out, and say it."""
        done = Pass(
            name,
            multiply_accumulates(policy.graph),
            weight_bytes(policy.graph if policy.integer is None else policy.integer),
            self.agreement(policy),
            self.scores(policy, lambda: self.acting(policy, bits)) if gate else None,
        )
        self.passes.append(done)
        self.say(_sentence(done))
        return done


def weight_bytes(graph: Graph | IntegerGraph) -> int:
    """Return the bytes of all arrays of a policy, as they are stored."""
    return sum(array.nbytes for layer in graph.layers for _, array in arrays(layer))


def smaller(graph: Graph, trial: Trial, share: float | Literal["auto", "none"], steps: int) -> list[Graph]:
    """Return the graph with units removed: never active ones, and then as many as `share` says or the gate allows.

    A number is a share of all multiply-accumulates and is obeyed, whatever becomes of the play; ValueError when it is
    more than what can be pruned. `steps` is the length of the distillation that follows. With "auto" every graph that
    passed is returned, the smallest last: it was chosen by these episodes, so others have to prove it.
    """
    if share == "none":
        return [graph]
    best = drop_dead(graph, trial.states)
    alive = multiply_accumulates(best) / multiply_accumulates(graph)
    if alive < 1:
        trial.note("units that are never active removed", FrozenPolicy(best), FLOAT32, gate=False)
    else:
        best = graph
    targets = trial.live(trial.taught) if steps else None

    def without(fraction: float) -> tuple[str, Graph]:
        pruned = prune(graph, trial.states, fraction)
        if targets is None:
            return f"pruned by {percent(fraction)}", pruned
        taken, batch_size = affordable(pruned, steps)
        trial.say(f"pruned by {percent(fraction)}; learning from the live policy for {taken:,} steps")
        found = distil(pruned, trial.taught, targets, steps=taken, batch_size=batch_size)
        return f"pruned by {percent(fraction)}, distilled for {taken:,} steps", found

    if share != "auto":
        name, found = without(share)
        trial.note(name, FrozenPolicy(found), FLOAT32, gate=False)
        return [found]
    passed = [best]
    for each in FRACTIONS:
        fraction = round(1 - (1 - each) * alive, 4)
        if fraction > prunable(graph):
            trial.say(f"{percent(fraction)} is more than can be pruned of this policy")
            break
        name, found = without(fraction)
        judged = trial.note(name, FrozenPolicy(found), FLOAT32, gate=True)
        if judged.scores is None or not judged.scores.passed:
            break
        passed.append(found)
    return passed


def fewer_bits(graph: Graph, trial: Trial, wanted: Wanted) -> tuple[FrozenPolicy, Bits]:
    """Return the policy in the precision asked for, and which it is; "auto" widens until the gate passes.

    "auto" is 8 bits, then 16 bits in the layers whose rounding changes the outputs most, then 16 bits everywhere. When
    even these fail, the last one is returned, with the gate's verdict among the passes.
    """
    if wanted == "float32":
        return FrozenPolicy(graph), FLOAT32
    if wanted != "auto":
        bits = INT8 if wanted == "int8" else INT16
        policy = quantized(graph, trial, bits)
        trial.note(f"{bits.bits}-bit integers", policy, bits, gate=False)
        return policy, bits
    for bits in _wider(graph, trial):
        policy = quantized(graph, trial, bits)
        scores = trial.note(bits.name, policy, bits, gate=True).scores
        if scores is not None and scores.passed:
            break
    return policy, bits


def _wider(graph: Graph, trial: Trial) -> Iterator[Bits]:
    yield INT8
    order = [layer for layer, _ in sensitivity(graph, trial.states)]
    for share in WIDENED:
        wide = tuple(sorted(order[: max(1, round(share * len(order)))]))
        yield Bits(f"int8, int16 in {len(wide)} of {len(order)} layers", 8, wide)
    yield INT16


def quantized(graph: Graph, trial: Trial, bits: Bits) -> FrozenPolicy:
    """Return the policy in integers, calibrated on the states of the trial."""
    integer = quantize(graph, trial.states, weight_bits=bits.bits, activation_bits=bits.bits, wide=bits.wide)
    return FrozenPolicy(graph, integer)


def _sentence(done: Pass) -> str:
    text = (
        f"{done.name}: {done.macs:,} multiply-accumulates, {done.weight_bytes:,} bytes of weights, same choice in "
        f"{done.agreement.agree:.2%} of states"
    )
    if done.scores is None:
        return text
    scores = done.scores
    return (
        f"{text}; {scores.episodes} paired episodes: {scores.frozen_mean:.1f} against {scores.live_mean:.1f} live, "
        f"difference {scores.difference:+.1f} [{scores.low:+.1f}, {scores.high:+.1f}], "
        f"{'passes' if scores.passed else 'fails'}"
    )
