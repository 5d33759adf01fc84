"""Fast forms of a function against the eager one: what they must do alike, and that a broken one is found out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agent.capture import TOLERANCE, CudaGraphs, Kept, Programs, _filled, _positions, make_fast, try_out


class Walk:
    """Moves a weight and a counter in place by what it is given; returns two figures."""

    def __init__(self, device: str = "cpu"):
        self.weight = torch.linspace(-1.0, 1.0, 12, device=device).view(4, 3)
        self.small = torch.full((2,), 1e-6, device=device)

    @property
    def groups(self) -> list[list[torch.Tensor]]:
        return [[self.weight], [self.small]]

    def __call__(self, times: int, rate: torch.Tensor, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, Any]:
        (x,) = given
        value = (x @ self.weight.T).tanh()
        for _ in range(times):
            self.weight.sub_(rate * value.T @ x)
        self.small.mul_(1.0 + 1e-3 * rate)
        return value.sum(), (value.mean(1),)


def calls(device: str = "cpu", times: int = 2) -> list[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(4, 5, 3, generator=generator).to(device)
    return [(times, torch.tensor(0.1 * (call + 1), device=device), (x,)) for call, x in enumerate(xs)]


def test_the_same_function_agrees_and_nothing_has_changed() -> None:
    """A function tried against itself differs by nothing, and all that it writes is as it was before."""
    walk = Walk()
    before = walk.weight.clone(), walk.small.clone()
    trial = try_out(walk, make_fast(walk, "eager"), calls(), walk.groups)
    assert trial.agrees and trial.difference == 0.0 and trial.eager_s > 0.0 and trial.fast_s > 0.0
    assert torch.equal(walk.weight, before[0]) and torch.equal(walk.small, before[1])


def stale_rate(walk: Walk) -> Any:
    first: list[torch.Tensor] = []

    def broken(times: int, rate: torch.Tensor, given: Any) -> Any:
        first.append(rate.clone())
        return walk(times, first[0], given)

    return broken


def forgets_the_small(walk: Walk) -> Any:
    def broken(*arguments: Any) -> Any:
        small = walk.small.clone()
        result = walk(*arguments)
        walk.small.copy_(small)
        return result

    return broken


def returns_old_figures(walk: Walk) -> Any:
    kept: list[Any] = []

    def broken(*arguments: Any) -> Any:
        kept.append(walk(*arguments))
        return kept[0]

    return broken


def not_a_number(walk: Walk) -> Any:
    def broken(*arguments: Any) -> Any:
        result = walk(*arguments)
        walk.weight[0, 0] = torch.nan
        return result

    return broken


@pytest.mark.parametrize("break_it", [stale_rate, forgets_the_small, returns_old_figures, not_a_number])
def test_a_broken_form_is_noticed(break_it: Any) -> None:
    """A constant built in, a write left out (however small beside the others), old results, a NaN: none agrees."""
    walk = Walk()
    before = walk.weight.clone()
    trial = try_out(walk, break_it(walk), calls(), walk.groups)
    assert not trial.agrees and trial.difference > TOLERANCE
    assert torch.equal(walk.weight, before)


def test_a_form_that_breaks_in_the_middle_is_an_error_of_its_own() -> None:
    """An exception of the fast form reaches the caller."""

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        try_out(Walk(), broken, calls(), [])


def test_kept_tensors_come_back() -> None:
    """Changes are counted from when they were kept, and restoring writes in place."""
    tensor = torch.arange(3.0)
    kept, place = Kept([tensor]), tensor.data_ptr()
    tensor += 2.0
    assert kept.changes()[0].tolist() == [2.0, 2.0, 2.0]
    kept.restore()
    assert tensor.tolist() == [0.0, 1.0, 2.0] and tensor.data_ptr() == place


@pytest.mark.slow
def test_a_program_does_the_same() -> None:
    """A compiled function agrees with the eager one, for each set of plain arguments, through calls of its own."""
    walk = Walk()
    programs = make_fast(walk, "compiled")
    for times in (2, 1, 2, *range(3, 11)):  # torch itself would stop at eight
        assert try_out(walk, programs, calls(times=times), walk.groups).agrees
    assert isinstance(programs, Programs) and len(programs._made) == 10
    walk.weight.zero_()
    x = torch.ones(5, 3)
    total, (means,) = programs(1, torch.tensor(1.0), (x,))
    assert total == 0.0 and torch.equal(means, torch.zeros(5)), "it reads the weights as they are now"


def test_a_program_returns_what_the_function_returns() -> None:
    """Outputs are found by what they are, in tuples in tuples and beside None; what is none of them is refused."""
    one, two = torch.zeros(2), torch.zeros(2)
    form = _positions((two, None, (one, two)), [one, two])
    assert form == (1, None, (0, 1))
    assert _filled(form, ["a", "b"]) == ("b", None, ("a", "b"))
    with pytest.raises(ValueError, match="does not return"):
        _positions((one.clone(),), [one, two])


@pytest.mark.gpu
@pytest.mark.parametrize("times", [1, 3])
def test_a_cuda_graph_does_the_same(times: int) -> None:
    """A captured function agrees with the eager one, for each set of plain arguments, and its rehearsal is undone."""
    walk = Walk("cuda")
    before = walk.weight.clone()
    graphs = CudaGraphs(walk, [tensor for group in walk.groups for tensor in group])
    assert try_out(walk, graphs, calls("cuda"), walk.groups).agrees
    assert try_out(walk, graphs, calls("cuda", times), walk.groups).agrees
    assert torch.equal(walk.weight, before)
