"""The learner's running average of the weights, which is what is judged and frozen."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from learners import make, same


def weights(network: torch.nn.Module) -> torch.Tensor:
    """All parameters as one float64 vector."""
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()]).clone()


def test_without_it_the_network_itself_is_judged() -> None:
    """No copy is kept, and none stands in the state."""
    learner = make()
    assert learner.average is learner.network and "average" not in learner.state_dict()


def test_it_is_the_mean_first_and_exponential_later() -> None:
    """Against a slow reference over the weights after every call; calls of one update and of several."""
    over, learner = 8, make(average_updates=8)
    expected, updates = None, 0
    for count in (1, 1, 1, 3, 2, 1, 4, 1, 1):
        learner.update(count, 0)
        updates += count
        newest = weights(learner.network)
        share = max(count / updates, 1.0 - (1.0 - 1.0 / over) ** count)
        expected = newest if expected is None else expected + share * (newest - expected)
        assert weights(learner.average) == pytest.approx(expected, abs=1e-6)
    assert not torch.equal(weights(learner.average), weights(learner.network))


def test_it_has_the_newest_buffers_and_is_folded() -> None:
    """Buffers are no quantities to average; what is played without autograd is renewed after its weights."""
    learner = make(average_updates=8)
    learner.average.name = "average"
    learner.network.shift.fill_(3.0)
    log = learner.average.log = []
    learner.update(2, 0)
    assert learner.average.shift == 3.0 and log == ["average folds"]


def test_it_does_not_change_what_is_learned() -> None:
    """Weights, target and moments are those of a learner without it."""
    with_average, without = make(average_updates=5), make()
    for learner in (with_average, without):
        learner.update(7, 0)
    state = with_average.state_dict()
    del state["average"]
    assert same(state, without.state_dict())


def test_it_survives_a_checkpoint() -> None:
    """A learner that took the state of another goes on with the same average, in its own memory."""
    one, other = make(0, average_updates=5), make(1, average_updates=5)
    one.update(4, 0)
    place = next(other.average.parameters()).data_ptr()
    other.load_state_dict(deepcopy(one.state_dict()))
    other.replay.generator.set_state(one.replay.generator.get_state())
    for learner in (one, other):
        learner.update(3, 10)
    assert same(one.state_dict(), other.state_dict()) and next(other.average.parameters()).data_ptr() == place


def test_a_state_without_it_does_not_fit() -> None:
    """The average cannot be made up from the newest weights."""
    with pytest.raises(ValueError, match="not the state of a learner"):
        make(average_updates=5).load_state_dict(make().state_dict())
