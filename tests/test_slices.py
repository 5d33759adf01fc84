"""An update that is broken off and gone on with is the update that it would have been."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Iterator
from typing import Any

import pytest
import torch
from lives import differences

from agent.cli.session import Session
from agent.config import Settings
from agent.loop import interleave
from agent.slices import WHOLE, Slices

VARIANTS: dict[str, dict[str, Any]] = {
    "double": {},
    "implicit, noisy, prioritized, averaged": {
        "replay": {"priority_exponent": 0.6},
        "network": {"distribution": "implicit", "noisy": True, "dueling": True},
        "learner": {"average_updates": 20, "fractions": 3, "target_fractions": 4, "target_interval": 3},
    },
}


def session(variant: str) -> Session:
    """A session in the middle of learning, by the loop that does not watch the clock."""
    settings = {
        "device": "cpu",
        "game": {"num_games": 1, "realtime": 50},
        "network": {"hidden": [16, 16]},
        "learner": {"learning_starts": 100},
        "replay": {"capacity": 500},
    }
    for group, values in VARIANTS[variant].items():
        settings[group] = settings.get(group, {}) | values
    found = Session("cartpole", Settings.model_validate(settings))
    for tick in interleave(found.games, found.actor, found.replay, found.learner, found.clock):
        if tick.steps >= 200:
            return found
    raise AssertionError


@pytest.fixture(params=VARIANTS)
def played(request: pytest.FixtureRequest) -> Iterator[tuple[Session, Slices]]:
    """A session and its slices."""
    found = session(request.param)
    assert found.slices is not None
    yield found, found.slices
    found.close()


def test_an_update_in_pieces_is_the_whole_update(played: tuple[Session, Slices]) -> None:
    """Handing back before every slice changes neither weights, moments, priorities nor generators, bit for bit."""
    found, slices = played
    before = copy.deepcopy(found.state_dict())
    for _ in range(7):
        found.learner.update(1, 200)
    whole = copy.deepcopy(found.state_dict())
    found.load_state_dict(before)
    handed_back, wanted = 0, slices.updates + 7
    while slices.updates < wanted:
        asked: list[Hashable] = []

        def once(what: Hashable) -> bool:
            asked.append(what)
            return what != WHOLE and asked[0] in (WHOLE, what) and len(asked) <= 2

        slices.advance(200, once)
        handed_back += 1
        if slices.updates < wanted:
            found.actor.act(found.games.current.observation, 10**6)  # as real time does in between
            found.actor.load_state_dict(before["actor"])
    assert handed_back > 7 * 10
    assert differences(found.state_dict(), whole) == []


def test_weights_change_in_the_last_slice_alone(played: tuple[Session, Slices]) -> None:
    """Whoever acts, judges or saves while an update is open sees the weights and the replay of before."""
    found, slices = played
    weights = copy.deepcopy(found.learner.network.state_dict())
    tree = found.replay.tree.leaves.clone()
    asked = []

    def all_but_the_last(what: Hashable) -> bool:
        asked.append(what)
        return what != WHOLE and (slices.updates == updates)

    updates = slices.updates
    slices.advance(200, all_but_the_last)
    last = max(what for what in asked if what != WHOLE)
    weights, tree = copy.deepcopy(found.learner.network.state_dict()), found.replay.tree.leaves.clone()
    slices.advance(200, lambda what: what != WHOLE and what != last)
    assert slices.updates == updates + 1
    assert differences(found.learner.network.state_dict(), weights) == []
    assert torch.equal(found.replay.tree.leaves, tree)
    slices.advance(200, lambda what: what == last)
    assert slices.updates == updates + 2
    assert differences(found.learner.network.state_dict(), weights) != []


def test_a_whole_update_is_asked_for_first(played: tuple[Session, Slices]) -> None:
    """Where the whole fits it is done in one piece, in the caller's thread; nothing is asked within it."""
    found, slices = played
    asked, updates = [], slices.updates

    def twice(what: Hashable) -> bool:
        asked.append(what)
        return len(asked) <= 2

    slices.advance(200, twice)
    assert asked == [WHOLE, WHOLE, WHOLE, 0] and slices.updates == updates + 2


def test_an_error_in_an_update_reaches_the_caller(played: tuple[Session, Slices]) -> None:
    """What goes wrong in the other thread is raised here, and the next update can be begun."""
    found, slices = played
    update, found.learner.update = found.learner.update, None
    with pytest.raises(TypeError):
        slices.advance(200, lambda what: what != WHOLE)
    found.learner.update, updates = update, slices.updates
    slices.advance(200, lambda what: what != WHOLE and slices.updates == updates)
    assert slices.updates == updates + 1


def test_pieces_are_eager_whatever_whole_updates_are(played: tuple[Session, Slices]) -> None:
    """While whole updates run compiled, one in pieces is the eager one, bit for bit."""
    found, slices = played
    before, updates = copy.deepcopy(found.state_dict()), slices.updates
    found.learner.update(1, 200)
    eager = copy.deepcopy(found.state_dict())
    found.load_state_dict(before)
    found.learner.execution, found.learner._run, found.learner._proven_n = "compiled", None, found.learner.n_step(200)
    slices.advance(200, lambda what: what != WHOLE and slices.updates == updates)
    found.learner.execution = "eager"
    assert differences(found.state_dict(), eager) == []
    with pytest.raises(TypeError):  # the whole one is the learner's own
        slices.advance(200, lambda what: what == WHOLE)


def test_no_update_is_begun_before_the_learner_has_settled(played: tuple[Session, Slices]) -> None:
    """An open one is brought to its end first; to settle takes a minute, which is not a slice's."""
    found, slices = played
    updates = slices.updates
    slices.advance(200, lambda what: what in (0, 1, 2))
    found.learner.unsettled = lambda steps: True
    assert not slices.unsettled(200)
    slices.advance(200, lambda what: True)
    assert slices.updates == updates + 1 and slices.unsettled(200)
    slices.advance(200, lambda what: True)
    assert slices.updates == updates + 1


def test_whole_updates_run_where_the_learner_has_its_threads(played: tuple[Session, Slices]) -> None:
    """With more threads than the caller has they are the other thread's, and so is settling; else the caller's."""
    found, _ = played
    ran: list[tuple[str, int]] = []

    def note(*args: Any) -> None:
        ran.append((threading.current_thread().name, torch.get_num_threads()))

    here = threading.current_thread().name, torch.get_num_threads()
    found.learner.update = found.learner.settle = note
    for threads, expected in ((here[1], here), (here[1] + 1, ("learner", here[1] + 1))):
        slices, asked = Slices(found.learner, threads), []
        slices.advance(200, lambda what: asked.append(what) or asked == [WHOLE])
        assert not slices.settle(200)
        slices.close()
        assert ran == [expected] * 2
        ran.clear()
    assert torch.get_num_threads() == here[1]


def test_closing_drops_an_open_update() -> None:
    """The thread ends wherever its update stands, and a second close does nothing."""
    found = session("double")
    threads, updates = threading.active_count(), found.learner.updates
    found.slices.advance(200, lambda what: what in (0, 1, 2))
    assert threading.active_count() == threads + 1
    found.close()
    found.close()
    assert threading.active_count() == threads and found.learner.updates == updates


def test_a_batch_in_parts_is_the_batch(played: tuple[Session, Slices]) -> None:
    """More and shorter pieces lead to the same weights and priorities but for rounding; drawn fractions are others."""
    found, slices = played
    before, drawn = copy.deepcopy(found.state_dict()), found.learner.network.embedding is not None
    count: dict[int, int] = {}
    after: dict[int, list[torch.Tensor]] = {}
    for _ in range(3):
        asked: list[Hashable] = []
        updates = slices.updates
        slices.advance(200, lambda what: asked.append(what) or (what != WHOLE and slices.updates == updates))
        count[slices.parts] = len(asked)
        after[slices.parts] = [weight.detach().clone() for weight in found.learner.network.parameters()]
        after[slices.parts].append(found.replay.tree.leaves.clone())
        found.load_state_dict(before)
        assert slices.divide()
    assert count[1] < count[2] < count[4]
    old = [weight.detach().clone() for weight in found.learner.network.parameters()]
    for one, two, four, weight in zip(after[1], after[2], after[4], old, strict=False):
        assert not torch.equal(one, weight)
        if not drawn:
            assert (one - two).norm() <= 1e-4 * (one - weight).norm() >= (one - four).norm()
    if not drawn:
        assert torch.allclose(after[1][-1], after[4][-1], rtol=1e-5)


def test_a_batch_is_divided_between_updates_and_not_to_nothing(played: tuple[Session, Slices]) -> None:
    """An open update is brought to its end as it was begun, and parts keep at least four transitions."""
    found, slices = played
    slices.advance(200, lambda what: what in (0, 1, 2))
    assert not slices.divide() and slices.parts == 1
    updates = slices.updates
    slices.advance(200, lambda what: slices.updates == updates and what != WHOLE)
    while slices.divide():
        pass
    assert 4 <= found.learner.settings.batch_size / slices.parts < 8
