"""Distillation: the student comes to choose as the live policy does, and never becomes worse at it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.freeze import distil as distillation
from agent.freeze.distil import distil
from agent.freeze.graph import Continuous, Dense, Discrete, Graph, arrays, decide, run
from agent.freeze.prune import prune


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers, f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def policy(head: Discrete | Continuous, offset: float = 0.0, scale: float = 1.0) -> Graph:
    """A policy whose outputs differ little between actions, around `offset`."""
    layers = (
        Dense(normal(40, 5), normal(40), "relu"),
        Dense(normal(30, 40, seed=1) / 6, normal(30), "relu"),
        Dense(scale * normal(4, 30, seed=2) / 5, np.float32(scale * (normal(4) / 5 + offset))),
    )
    return Graph((5,), "float32", layers, head)


HEADS = {
    "discrete": Discrete(4),
    "tanh": Continuous((-2.0,) * 4, (2.0,) * 4, "tanh"),
    "clip": Continuous((-1.0,) * 4, (1.0,) * 4, "clip"),
}
STATES, FRESH = normal(4000, 5, seed=5), normal(4000, 5, seed=6)


def wrong(live: Graph, student: Graph) -> float:
    """The share of fresh states with another choice, or the mean distance of continuous actions."""
    one, two = decide(live.head, run(live, FRESH)), decide(live.head, run(student, FRESH))
    return float((one != two).mean() if isinstance(live.head, Discrete) else np.abs(one - two).mean())


@pytest.mark.parametrize("name", HEADS)
def test_a_pruned_student_wins_back_most(name: str) -> None:
    """After some hundred updates the actions in states that it never saw are wrong by a sixth less at least."""
    live = policy(HEADS[name])
    student = prune(live, STATES, 0.92)
    found = distil(student, STATES, run(live, STATES), steps=600)
    assert 0 < wrong(live, found) < 5 / 6 * wrong(live, student)
    assert [layer.weight.shape for layer in found.layers] == [layer.weight.shape for layer in student.layers]


@pytest.mark.parametrize(("offset", "scale"), [(100.0, 1.0), (0.0, 1000.0), (0.0, 1e-3)])
def test_values_of_any_size_teach_alike(offset: float, scale: float) -> None:
    """What is common to all actions of a state does not matter to the choice, nor does the unit of values."""
    live = policy(HEADS["discrete"], offset, scale)
    student = prune(live, STATES, 0.92)
    assert wrong(live, distil(student, STATES, run(live, STATES), steps=600)) < 5 / 6 * wrong(live, student)


def test_an_error_costs_more_where_it_changes_the_choice() -> None:
    """Of two errors of the same size the one that reverses close values costs more; a common offset costs nothing."""
    live = torch.tensor([[1.0, 0.9, -5], [0.2, 0.3, -4], [-3.0, 0.5, 0.4]])
    loss = distillation._loss(HEADS["discrete"], live)
    index = np.arange(3)
    apart = torch.tensor([[0.1, -0.1, 0], [-0.1, 0.1, 0], [0.0, 0.1, -0.1]])
    assert loss(live - apart, index) > loss(live + apart, index) + 0.3
    far = torch.tensor([[0.0, 0.1, -0.1]] * 2 + [[-0.1, 0.1, 0.0]])
    assert loss(live - apart, index) > loss(live + far, index) + 0.3, "between actions of which one is out of question"
    torch.testing.assert_close(loss(live + torch.tensor([[7.0], [-2], [0]]), index), loss(live, index))
    assert loss(live[:1], index[:1]) < loss(live[1:2], index[:1]), "each state has its own target"


def test_same_arguments_same_weights() -> None:
    """Twice the same gives the same bytes, another seed others; nothing that was handed in is written to."""
    live = policy(HEADS["discrete"])
    student, targets = prune(live, STATES, 0.92), run(live, STATES)
    before = [array.copy() for layer in student.layers for _, array in arrays(layer)]
    state = torch.random.get_rng_state()
    targets.setflags(write=False)
    one, two, other = (distil(student, STATES, targets, steps=50, seed=seed) for seed in (0, 0, 1))
    for index in range(3):
        assert np.array_equal(one.layers[index].weight, two.layers[index].weight)
    assert not np.array_equal(one.layers[0].weight, other.layers[0].weight)
    after = [array for layer in student.layers for _, array in arrays(layer)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", HEADS)
def test_never_worse_than_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When learning only does harm, the student comes back as it was."""
    live = policy(HEADS[name])
    monkeypatch.setattr(distillation, "LEARNING_RATE", 1e3)
    student = prune(live, STATES, 0.3)
    assert distil(student, STATES, run(live, STATES), steps=20) is student
    assert distil(student, STATES, run(live, STATES), steps=0) is student
    assert distil(live, STATES, run(live, STATES), steps=20) is live, "nothing is better than perfect"
    assert distil(student, STATES[:1], run(live, STATES[:1]), steps=5) is student, "the one state is held out"


def test_judged_where_it_does_not_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the states is for judging and the rest for learning; no state is in both."""
    judged: set[int] = set()
    learned: set[int] = set()
    score, loss = distillation._score, distillation._loss

    def note_judging(*arguments: object) -> float:
        judged.update(arguments[-1].tolist())
        return score(*arguments)

    def note_learning(*arguments: object) -> object:
        inner = loss(*arguments)

        def noting(outputs: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
            if outputs.requires_grad:
                learned.update(chosen.tolist())
            return inner(outputs, chosen)

        return noting

    monkeypatch.setattr(distillation, "_score", note_judging)
    monkeypatch.setattr(distillation, "_loss", note_learning)
    live = policy(HEADS["discrete"])
    distil(live, STATES, run(live, STATES), steps=60)
    assert len(judged) == 400 and not judged & learned and len(learned) > 3400


@pytest.mark.parametrize(
    ("macs", "steps", "taken"),
    [
        (2_000, 3000, (3000, 256)), (10**6, 3000, (3000, 128)), (5 * 10**7, 3000, (250, 32)), (5 * 10**7, 9, (9, 256)),
        (10**12, 3000, (1, 32)),
    ],
)  # fmt: skip
def test_large_students_learn_for_as_long_as_one_waits(
    macs: int, steps: int, taken: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch shrinks first, then the steps: a small student gets all that was asked for, every student a step."""
    monkeypatch.setattr(distillation, "multiply_accumulates", lambda _: macs)
    assert distillation.affordable(policy(HEADS["discrete"]), steps) == taken


@pytest.mark.parametrize("shape", [(3999, 4), (4000, 3), (4000,)])
def test_targets_must_fit(shape: tuple[int, ...]) -> None:
    """Targets of another number of states or outputs are refused, with both shapes."""
    with pytest.raises(ValueError, match=r"\(4000, 4\), not ") as refused:
        distil(policy(HEADS["discrete"]), STATES, np.zeros(shape, np.float32), steps=1)
    assert str(shape) in str(refused.value)
