"""The learner's state: what it holds, where it is put back, and that learning goes on as if it had never stopped."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from learners import Network, Replay, addresses, make, same

from agent.learner import Learner
from agent.schedules import Linear
from agent.state_tree import encode


def test_loading_writes_weights_in_place() -> None:
    """A load changes the numbers the actor sees without moving them."""
    learner, other = make(0), make(1)
    learner.update(1, 0)
    other.update(1, 0)
    count = 2 * len(learner.network.state_dict()) + len(list(learner.network.parameters()))
    places = addresses(learner)[:count]
    learner.load_state_dict(deepcopy(other.state_dict()))
    assert addresses(learner)[:count] == places


def test_loading_writes_moments_in_place() -> None:
    """A load keeps Adam's moments where they are, as the class promises."""
    learner, other = make(0), make(1)
    learner.update(1, 0)
    other.update(1, 0)
    places = addresses(learner)
    learner.load_state_dict(deepcopy(other.state_dict()))
    assert addresses(learner) == places


def test_loading_shares_nothing_with_the_state() -> None:
    """Two learners of which one took the other's state learn on without disturbing each other."""
    learner, other = make(0), make(1, replay=Replay(5))
    learner.update(4, 0)
    other.load_state_dict(learner.state_dict())
    before = deepcopy(learner.state_dict())
    other.update(3, 0)
    assert same(learner.state_dict(), before)


def continued(learner: Learner, batches: Replay) -> Any:
    """The state after five more updates with `batches`."""
    learner.replay = deepcopy(batches)
    learner.update(2, 60)
    learner.update(3, 80)
    return learner.state_dict()


@pytest.mark.parametrize("left_out", [None, "network", "target", "optimizer", "updates", "generator"])
@pytest.mark.parametrize("used", [False, True])
def test_state_goes_on_where_it_was(left_out: str | None, used: bool) -> None:
    """A learner that takes the state goes on bit for bit as if never stopped; without any one item it does not."""
    rate = Linear(1e-2, 1e-3, 100)
    learner = make(network=Network(0, noisy=True), rate=rate)
    learner.update(4, 40)  # not on the beat, so the target is not the network
    state = deepcopy(learner.state_dict())
    assert sorted(state) == ["execution", "generator", "network", "optimizer", "target", "updates"]
    assert encode(state), "every leaf can be kept in a checkpoint"
    batches = deepcopy(learner.replay)
    expected = continued(learner, batches)
    other = make(network=Network(1, noisy=True), rate=rate, noise_seed=1)
    if used:
        other.update(5, 0)
    if left_out is not None:
        state[left_out] = deepcopy(other.state_dict()[left_out])
    other.load_state_dict(state)
    assert same(continued(other, batches), expected) == (left_out is None)


def test_the_state_of_a_learner_that_never_learned() -> None:
    """Going back to before the first update takes the moments away again."""
    learner = make()
    state = deepcopy(learner.state_dict())
    first = deepcopy(continued(learner, Replay(3)))
    learner.load_state_dict(state)
    assert same(continued(learner, Replay(3)), first)


@pytest.mark.parametrize("wrong", ["network", "target", "optimizer"])
def test_a_state_that_does_not_fit_is_refused(wrong: str) -> None:
    """What belongs to another network raises ValueError, as agent.types.Stateful says."""
    learner = make()
    learner.update(1, 0)
    state = deepcopy(learner.state_dict())
    state[wrong].popitem()
    with pytest.raises(ValueError):
        learner.load_state_dict(state)
