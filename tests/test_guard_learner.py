"""An update that is not sound changes nothing, in whatever form it runs, and the run says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from faults.non_finite import Spoilt, spoilt_loss
from learners import N, Network, make, same
from test_learner_modes import STEPS as PLAYED
from test_learner_modes import learn
from test_learner_modes import make as make_session

from agent import learner as module
from agent.cli.session import Session
from agent.config import NetworkSettings
from agent.guard import STEPS, UPDATES
from agent.losses import q_learning
from agent.nets.q_network import make_q_network
from agent.slices import Slices

PLAIN = partial(q_learning, double=True, kind="huber")


def nothing_changed(learner: Any, update: Callable[[], None]) -> bool:
    """Whether an update leaves all that lasts but the generators and the number of updates."""
    def state() -> dict[str, Any]:
        every = learner.state_dict()
        return deepcopy({name: every[name] for name in ("network", "target", "average", "optimizer")})

    before = state()
    update()
    return same(before, state())


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_a_skipped_update_changes_nothing(place: str) -> None:
    """Weights, moments, target and average stay bit for bit, whether one update of a call is skipped or all of them."""
    learner = make(loss=spoilt_loss(PLAIN, {4, 7, 8}, place, np.inf), average_updates=10)
    for update in range(1, 7):
        assert nothing_changed(learner, partial(learner.update, 1, 0)) == (update == 4)
    assert nothing_changed(learner, partial(learner.update, 2, 0))
    assert not nothing_changed(learner, partial(learner.update, 2, 0))
    learner.count_skipped()
    assert learner.faults.counts[UPDATES] == 3 and learner.updates == 10
    taken = learner.metrics.take()
    assert all(np.isfinite(value) for value in taken.values()), "figures of skipped updates do not count"


def test_priorities_of_a_skipped_update_are_no_numbers() -> None:
    """So replay keeps those that it has; those of any other update come through untouched."""
    learner = make(loss=spoilt_loss(PLAIN, {2}, "gradient", np.nan))
    learner.update(3, 0)
    told = [entry[2] for entry in learner.replay.log if entry[0] == "priorities"]
    assert [bool(priority.isfinite().all()) for priority in told] == [True, False, True]
    assert bool(told[1].isnan().all()) and len(told[1]) == N


def test_a_skipped_update_leaves_spectral_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their u and v stand where they stood, and the folded weights still follow from them."""
    chosen = {"torso": "impala", "spectral_norm": True, "hidden": (8,), "max_pool": None}
    network = make_q_network(NetworkSettings(**chosen), (1, 8, 8), True, 2, torch.Generator().manual_seed(0))
    learner = make(network=network, loss=spoilt_loss(PLAIN, {2}, "loss", np.nan))
    sample = learner.replay.sample_at
    pictures = {name: torch.randint(0, 256, (N, 1, 8, 8), dtype=torch.uint8) for name in ("s_tm1", "s_t")}
    monkeypatch.setattr(learner.replay, "sample_at", lambda *given: sample(*given)._replace(**pictures))
    for update in (1, 2, 3):
        before = [vector.clone() for vector in network.statistics]
        learner.update(1, 0)
        stayed = [torch.equal(*pair) for pair in zip(before, network.statistics, strict=True)]
        assert len(stayed) == 24 and (all(stayed) if update == 2 else not any(stayed))
    folded = [buffer.clone() for name, buffer in network.named_buffers() if name.endswith("folded")]
    network.fold()
    assert all(map(torch.equal, folded, [each for name, each in network.named_buffers() if name.endswith("folded")]))


def test_updates_in_pieces_are_skipped_alike() -> None:
    """In real time, too: one that is broken off between its layers changes nothing when its loss is not finite."""
    learner = make(loss=spoilt_loss(PLAIN, {2}, "loss", np.nan), average_updates=5)
    slices = Slices(learner)
    asked = 0

    def fits(what: Any) -> bool:
        nonlocal asked
        asked += 1
        return what != "whole" and learner.updates == wanted - 1 and asked % 3 != 0

    for wanted in (1, 2, 3):
        def advance() -> None:
            while learner.updates < wanted:
                slices.advance(0, fits)

        assert nothing_changed(learner, advance) == (wanted == 2)
    slices.close()
    learner.count_skipped()
    assert learner.faults.counts[UPDATES] == 1 and isinstance(learner.network, Network)


@pytest.fixture
def session() -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def played(execution: str, **changes: dict[str, Any]) -> Session:
        made.append(make_session(execution, **changes))
        made[-1].games.reset(1)
        for tick in made[-1].ticks():
            if tick.steps >= PLAYED:
                return made[-1]

    yield played
    for each in made:
        each.close()


def check_form(session: Callable[..., Session], execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the same huge reward the fast form skips what the eager one skips, and keeps what that keeps."""
    monkeypatch.setattr(module, "EAGER_UPDATES", 10)
    changes = {"learner": {"loss": "mse"}, "replay": {"priority_exponent": 0.5, "n_step": 1, "n_step_end": None}}
    eager, fast = session("eager", **changes), session(execution, **changes)
    for each in (eager, fast):
        learn(each.learner, 20)
    assert fast.learner.execution == execution
    for each in (eager, fast):
        slot = int(each.replay.tree.leaves.argmax())
        each.replay.film.reward[slot] = 1e30
        before = deepcopy(each.learner.network.state_dict())
        for _ in range(5):
            leaves = each.replay.tree.leaves.clone()
            each.replay.tree.set(torch.tensor([slot], device=leaves.device), 1e6 * torch.ones_like(leaves[:1]))
            leaves = each.replay.tree.leaves.clone()
            each.learner.update(1, PLAYED)
            assert torch.equal(leaves, each.replay.tree.leaves), "no priority has changed"
        assert same(before, each.learner.network.state_dict())
        each.learner.count_skipped()
        assert each.faults.counts[UPDATES] == 5 and float(each.learner.optimizer._steps[0]) == 20.0


@pytest.mark.night  # compiles: a minute
def test_compiled_updates_are_skipped_alike(session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled update skips what an eager one skips."""
    check_form(session, "compiled", monkeypatch)


@pytest.mark.gpu
def test_captured_updates_are_skipped_alike(session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph skips what an eager update skips."""
    check_form(session, "captured", monkeypatch)


def test_a_session_counts_and_its_state_knows(session: Callable[..., Session]) -> None:
    """What was left out is among its metrics and in its state, and a session that goes on counts on."""
    one, other = session("eager"), session("eager")
    assert STEPS not in one.metrics()
    one.games = Spoilt(one.games, {3: {1: ("reward", np.nan)}, 9: {0: ("observation", np.inf)}})
    one.learner.loss = spoilt_loss(one.learner.loss, {5}, "loss", np.nan)
    ticks = one.ticks()
    for _ in range(40):
        next(ticks)
    found = one.metrics()
    assert (found[STEPS], found[UPDATES]) == (2.0, 1.0) and all(np.isfinite(value) for value in found.values())
    faults = one.state_dict()["faults"]
    assert faults == {"non_finite_steps": 2, "non_finite_updates": 1, "game_restarts": 0}
    other.faults.load_state_dict(faults)
    assert other.metrics()[STEPS] == 2.0
