"""Adam on lists of tensors against torch's class."""

from __future__ import annotations

import pytest
import torch

from agent.adam import Adam

SHAPES = [(7, 3), (7,), (), (2, 3, 4)]
ONE, NO = torch.ones(()), torch.zeros(())


def parameters(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def gradients(seed: int) -> list[torch.Tensor]:
    return [parameter * 10.0 ** (seed % 5 - 3) for parameter in parameters(100 + seed)]


def test_steps_equal_torchs_bit_for_bit() -> None:
    """Over steps of changing size all parameters equal those of torch.optim.Adam with its fused kernel."""
    ours, theirs = parameters(), [torch.nn.Parameter(parameter) for parameter in parameters()]
    adam = Adam(ours, epsilon=1.5e-4)
    reference = torch.optim.Adam(theirs, eps=1.5e-4, fused=True)
    for step in range(20):
        rate = reference.param_groups[0]["lr"] = 1e-2 / (step + 1)
        for parameter, gradient in zip(theirs, gradients(step), strict=True):
            parameter.grad = gradient
        reference.step()
        adam.move(gradients(step), rate, ONE, NO)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_rate_in_a_tensor_is_the_same_rate() -> None:
    """A step size that lies in a tensor moves parameters as the number does, to f32's precision."""
    ours, theirs = parameters(), parameters()
    for step, (one, other) in enumerate([(Adam(ours, 1e-8), Adam(theirs, 1e-8))] * 3):
        one.move(gradients(step), 0.037, ONE, NO)
        other.move(gradients(step), torch.tensor(0.037), ONE, NO)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_gradients_are_divided_first() -> None:
    """A step with a divisor is the step with gradients that were divided before."""
    ours, theirs = parameters(), parameters()
    adam, other = Adam(ours, 1e-8), Adam(theirs, 1e-8)
    for step in range(5):
        adam.move(gradients(step), 0.01, torch.tensor(4.0), NO)
        other.move([gradient / 4.0 for gradient in gradients(step)], 0.01, ONE, NO)
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_state_goes_back_in_place() -> None:
    """Loading copies the moments, leaves them where they lie, and an empty state is that before the first step."""
    ours, theirs = parameters(), parameters()
    adam, other = Adam(ours, 1e-8), Adam(theirs, 1e-8)
    adam.move(gradients(0), 0.1, ONE, NO)
    places = [tensor.data_ptr() for tensor in other.written]
    other.load_moments(adam.moments())
    assert [tensor.data_ptr() for tensor in other.written] == places
    assert all(torch.equal(one, two) for one, two in zip(adam.written, other.written, strict=True))
    adam.move(gradients(1), 0.1, ONE, NO)
    assert not torch.equal(adam.written[0], other.written[0]), "they share nothing"
    other.load_moments({})
    assert not any(tensor.any() for tensor in other.written)


def test_state_is_torchs() -> None:
    """The state in torch's form goes to torch's class and back, for whoever saves optimizers."""
    adam, other = Adam(parameters(), 1e-8), Adam(parameters(), 1e-8)
    adam.move(gradients(0), 0.1, ONE, NO)
    theirs = torch.optim.Adam(parameters())
    theirs.load_state_dict(adam.state_dict())
    other.load_state_dict(theirs.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(adam.written, other.written, strict=True))


@pytest.mark.parametrize("damage", [lambda state: state.popitem(), lambda state: state["0"].pop("step")])
def test_a_state_of_other_parameters_is_refused(damage) -> None:
    """A missing parameter or moment is an error, not a moment that stays as it was."""
    adam = Adam(parameters(), 1e-8)
    state = adam.moments()
    damage(state)
    with pytest.raises(KeyError):
        adam.load_moments(state)


def test_a_step_can_be_skipped() -> None:
    """Where it is told to skip, not a bit changes, even of NaN gradients, but the count of such steps."""
    adam, other = Adam(parameters(), 1e-8), Adam(parameters(), 1e-8)
    for one in (adam, other):
        one.move(gradients(0), 0.1, ONE, NO)
    adam.move([torch.full_like(gradient, torch.nan) for gradient in gradients(1)], 0.1, torch.tensor(torch.nan), ONE)
    *ours, skipped = adam.written
    *theirs, made = other.written
    assert all(map(torch.equal, ours, theirs)) and (float(skipped), float(made)) == (1.0, 0.0)
    assert all(map(torch.equal, adam.param_groups[0]["params"], other.param_groups[0]["params"]))
    for one in (adam, other):
        one.move(gradients(2), 0.1, ONE, NO)
    assert all(map(torch.equal, adam.param_groups[0]["params"], other.param_groups[0]["params"]))
