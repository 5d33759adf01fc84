"""Tests of agent/freeze/search.py: how far pruning goes and how many bits are taken follows from the gate alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agent.config import NetworkSettings
from agent.freeze import search
from agent.freeze.convert import from_q_network
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.gate import Scores
from agent.freeze.graph import Graph, multiply_accumulates
from agent.freeze.prune import prunable, prune
from agent.freeze.search import FLOAT32, FRACTIONS, Bits, Trial, fewer_bits, smaller, weight_bytes
from agent.nets.q_network import make_q_network
from agent.seeding import torch_generator
from envs.fakes import CountingGame

SHAPE, ACTIONS = (3,), 2


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A policy for the counting game with some units to spare."""
    settings = NetworkSettings(hidden=(32, 16))
    network = make_q_network(settings, SHAPE, False, ACTIONS, torch_generator(0, "network"))
    return from_q_network(network, SHAPE, "float32", ACTIONS)


def trial(graph: Graph, monkeypatch: pytest.MonkeyPatch, passes: Any) -> Trial:
    """A trial whose gate answers `passes(number of the question)`."""
    policy, random = FrozenPolicy(graph), np.random.default_rng(0)
    states = random.normal(size=(600, *SHAPE)).astype(np.float32)
    made = Trial(policy.raw, policy.act, CountingGame(4), states[:500], states, states[:200] + 0.1, 0, 0.05, 4, 4)
    asked: list[FrozenPolicy] = []

    def gate(self: Trial, act: Any) -> Scores:
        asked.append(act.__self__)
        ok = passes(len(asked))
        return Scores(4, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.05, ok)

    monkeypatch.setattr(Trial, "gate", gate)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def test_none_prunes_nothing_and_a_number_is_obeyed(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pruning the graph is the same object; a share is removed without asking the gate, however it plays."""
    made = trial(graph, monkeypatch, lambda number: False)
    assert smaller(graph, made, "none", 10) == [graph] and not made.passes
    (half,) = smaller(graph, made, 0.5, 10)
    assert multiply_accumulates(half) <= 0.55 * multiply_accumulates(graph)
    assert not made.asked and made.passes[-1].macs == multiply_accumulates(half)
    assert made.passes[-1].name == "pruned by 50%, distilled for 10 steps"
    smaller(graph, made, 0.5, 0)
    assert made.passes[-1].name == "pruned by 50%", "nothing was distilled"


def test_distillation_learns_from_the_states_for_it(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has more states than pruning, with the live policy's outputs in each."""
    made = trial(graph, monkeypatch, lambda number: False)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    real = search.distil

    def noting(student: Graph, states: np.ndarray, targets: np.ndarray, **more: Any) -> Graph:
        seen.append((states, targets))
        return real(student, states, targets, **more)

    monkeypatch.setattr(search, "distil", noting)
    smaller(graph, made, 0.5, 10)
    ((states, targets),) = seen
    assert states is made.taught and len(states) > len(made.states)
    np.testing.assert_array_equal(targets, made.live(states))


def test_auto_stops_at_what_can_be_pruned(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """However well the gate passes, no share is tried that inputs and outputs do not leave room for."""
    made = trial(graph, monkeypatch, lambda number: True)
    tried: list[float] = []
    monkeypatch.setattr(search, "prunable", lambda _: 0.75)
    monkeypatch.setattr(search, "prune", lambda whole, _, fraction: (tried.append(fraction), whole)[1])
    smaller(graph, made, "auto", 0)
    assert tried == [fraction for fraction in FRACTIONS if fraction <= 0.75] and len(tried) == 2
    monkeypatch.setattr(search, "prunable", lambda _: 0.5)
    assert smaller(graph, made, "auto", 0) == [graph] and len(tried) == 2


def test_auto_counts_active_units_alone(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy most of which is never active loses more still, and what was lost already is not tried again."""
    made = trial(graph, monkeypatch, lambda number: True)
    alive = prune(graph, made.states, 0.75)
    left = multiply_accumulates(alive) / multiply_accumulates(graph)
    tried: list[float] = []
    monkeypatch.setattr(search, "drop_dead", lambda *_: alive)
    monkeypatch.setattr(search, "prune", lambda whole, _, fraction: (tried.append(fraction), alive)[1])
    smaller(graph, made, "auto", 0)
    assert tried == pytest.approx([1 - (1 - fraction) * left for fraction in FRACTIONS], abs=1e-4) and tried[0] > 0.85


def test_a_share_beyond_what_can_be_pruned_is_an_error(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the most that can be, and does not round what was asked for to all."""
    made = trial(graph, monkeypatch, lambda number: True)
    assert prunable(graph) == 1 - 6 / 640
    with pytest.raises(ValueError, match=r"^99\.99% of this policy's .* only up to 99\.062%"):
        smaller(graph, made, 0.9999, 0)


def test_the_very_same_policy_plays_once(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passed as a candidate is not played again when it is judged at the end; another policy is."""
    made = trial(graph, monkeypatch, lambda number: True)
    policy, _ = fewer_bits(graph, made, "auto")
    again = made.scores(policy, lambda: pytest.fail("it has played"))
    assert again is made.passes[-1].scores and len(made.asked) == 1
    assert made.scores(FrozenPolicy(graph), lambda: policy.act).passed and len(made.asked) == 2
    assert made.scores(FrozenPolicy(graph), lambda: pytest.fail("the same layers in another object")).passed


def test_fresh_episodes_are_played_anew(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other episodes a policy that was judged is judged again, and both judgements are noted in one list."""
    made = trial(graph, monkeypatch, lambda number: True)
    made.note("one", FrozenPolicy(graph), FLOAT32, gate=True)
    fresh = made.on_fresh_episodes(7)
    fresh.note("two", FrozenPolicy(graph), FLOAT32, gate=True)
    assert (made.seed, fresh.seed) == (0, 7) and len(made.asked) == 2
    assert [done.name for done in fresh.passes] == ["one", "two"] and fresh.passes is made.passes


@pytest.mark.parametrize("good", [0, 1, 2])
def test_auto_goes_on_while_the_gate_passes(graph: Graph, monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    """All that passed come back, the smallest last; the first failure ends the search."""
    made = trial(graph, monkeypatch, lambda number: number <= good)
    *others, found = smaller(graph, made, "auto", 5)
    assert len(made.asked) == good + 1 and len(others) == good
    sizes = [multiply_accumulates(each) for each in (*others, found)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == multiply_accumulates(graph)
    assert multiply_accumulates(found) == (made.passes[-2].macs if good else multiply_accumulates(graph))
    if good:
        assert multiply_accumulates(found) <= (1 - FRACTIONS[good - 1] + 0.1) * multiply_accumulates(graph)


def test_float32_is_the_graph_itself(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rounded."""
    policy, bits = fewer_bits(graph, trial(graph, monkeypatch, lambda number: False), "float32")
    assert policy.graph is graph and policy.integer is None and bits.name == "float32"


@pytest.mark.parametrize("wanted", ["int8", "int16"])
def test_a_precision_is_obeyed(graph: Graph, monkeypatch: pytest.MonkeyPatch, wanted: Any) -> None:
    """The gate is not asked, the verdict comes at the end."""
    made = trial(graph, monkeypatch, lambda number: False)
    policy, bits = fewer_bits(graph, made, wanted)
    assert policy.integer is not None and bits == Bits(wanted, int(wanted[3:])) and not made.asked
    assert weight_bytes(policy.integer) < weight_bytes(graph)


@pytest.mark.parametrize(("first_good", "name"), [(1, "int8"), (2, "int8, int16 in"), (4, "int16"), (9, "int16")])
def test_auto_widens_until_the_gate_passes(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, first_good: int, name: str
) -> None:
    """8 bits first, then 16 where it hurts most, then 16 everywhere; what fails to the end is returned all the same."""
    made = trial(graph, monkeypatch, lambda number: number >= first_good)
    policy, bits = fewer_bits(graph, made, "auto")
    assert bits.name.startswith(name) and policy is made.asked[-1]
    assert len(made.asked) == min(first_good, 2 + len(search.WIDENED))
    assert bool(bits.wide) == name.startswith("int8, int16")


def test_passes_say_what_they_did(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass has its size, its agreement and, where it was asked, the gate's figures, ready for JSON."""
    said: list[str] = []
    made = trial(graph, monkeypatch, lambda number: True)
    made.say = said.append
    done = made.note("as it was", FrozenPolicy(graph), FLOAT32, gate=True)
    assert done.agreement.agree == 1 and done.figures()["gate"]["passed"] is True
    assert made.note("again", FrozenPolicy(graph), FLOAT32, gate=False).figures()["gate"] is None
    assert said[0].startswith("playing the live policy's episodes, 4 of them")
    assert said[1].startswith("as it was: 640 multiply-accumulates") and said[1].endswith("passes")
    assert torch.is_grad_enabled()
