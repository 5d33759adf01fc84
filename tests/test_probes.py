"""Probes against slow looks at the same states, and the run that they look at against one without them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lives import differences
from torch import nn

from agent import probes
from agent.cli.session import Session
from agent.config import NetworkSettings, Settings
from agent.evaluation import play_episodes
from agent.nets.q_network import make_q_network
from agent.probes import Probes, StartValues, dormant_share, effective_rank, outputs_and_activations
from agent.telemetry.tags import TAGS
from envs.fakes import CountingGame

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quantile, dueling": {"network": {"distribution": "quantile", "quantiles": 5, "dueling": True}},
    "implicit, noisy": {"network": {"distribution": "implicit", "quantiles": 4, "noisy": True, "dueling": True}},
    "prioritized, averaged": {"replay": {"priority_exponent": 0.6}, "learner": {"average_updates": 10}},
    "munchausen": {"learner": {"munchausen": 0.9}},
}


def begun(kind: str = "plain", game: str = "cartpole") -> Session:
    """A session that has learned a little, with more transitions in replay than a look takes."""
    laid = KINDS[kind]
    settings = {
        "steps": 5_000,
        "device": "cpu",
        "game": {"num_games": 4},
        "replay": {"capacity": 1_000, "n_step": 3} | laid.get("replay", {}),
        "network": {"hidden": [16, 16]} | laid.get("network", {}),
        "learner": {"learning_starts": 300, "learning_rate": 1e-2, "samples_per_insert": 4} | laid.get("learner", {}),
    }
    torch.set_num_threads(1)
    session = Session(game, Settings.model_validate(settings))
    play(session, 500)
    return session


def play(session: Session, until: int, each: Any = lambda steps: None) -> None:
    for tick in session.ticks():
        each(tick.steps)
        if tick.steps >= until:
            return


class Clock:
    """A clock that goes on by `each` whenever it is read."""

    def __init__(self, each: float = 0.0) -> None:
        self.now, self.each = 0.0, each

    def __call__(self) -> float:
        self.now += self.each
        return self.now


def look(session: Session) -> tuple[Probes, Clock, dict[str, float]]:
    """One look, and what it found."""
    clock = Clock()
    seen = Probes(session.learner, session.replay, 0, clock=clock)
    clock.now = probes.LEAST_S
    seen.after(session.clock.steps)
    return seen, clock, seen.take()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_looked_at_is_the_same_run(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a look as often as possible everything that lasts ends as without, for every kind of network and loss."""
    monkeypatch.setattr(probes, "LEAST_S", 0.0)
    monkeypatch.setattr(probes, "WINDOW", 2)
    ends, looks = [], 0
    for watched in (False, True):
        session = begun(kind)
        seen = Probes(session.learner, session.replay, 0, clock=Clock())
        found: list[dict[str, float]] = []
        looking = lambda steps: (seen.after(steps), found.append(seen.take()))  # noqa: E731
        play(session, 800, looking if watched else lambda steps: None)
        ends.append(copy.deepcopy(session.state_dict()))
        session.close()
    for each in found:
        assert set(each) <= set(TAGS) and np.isfinite(list(each.values())).all()
        looks += "net/srank" in each
    assert looks > 10 and sum("policy/churn" in each for each in found) > 10
    assert differences(*ends) == []


def test_the_figures_are_those_of_a_slow_look() -> None:
    """Gap, TD error, priorities, dormant units and rank follow from the states that were asked, one by one."""
    session = begun("prioritized, averaged")
    seen, _, found = look(session)
    states = seen._asked[1]
    network, replay = session.learner.network, session.replay
    hidden, gaps = [], []
    for state in states:
        with torch.no_grad():
            first = torch.relu(network.torso.layers[0](state[None]))
            second = torch.relu(network.head.action_values[0](first))
            values = sorted(network(state[None])[0].tolist())
        hidden.append((first[0].double().numpy(), second[0].double().numpy()))
        gaps.append(values[-1] - values[-2])
    assert len(states) == 256 and found["q/action_gap"] == pytest.approx(np.mean(gaps), rel=1e-4)
    dormant = 0
    for layer in range(2):
        means = [np.mean([each[layer][unit] for each in hidden]) for unit in range(16)]
        dormant += sum(mean <= 0.025 * np.mean(means) for mean in means)
    assert found["net/dormant_frac"] == pytest.approx(dormant / 32)
    singular = np.linalg.svd(np.stack([each[1] for each in hidden]), compute_uv=False)
    fewest = next(k for k in range(1, 17) if singular[:k].sum() >= 0.99 * singular.sum())
    assert found["net/srank"] == fewest
    leaves = replay.tree.leaves[replay.tree.leaves > 0].numpy()
    assert found["replay/priority_p99"] == pytest.approx(np.quantile(leaves, 0.99))
    assert 0 < found["train/td_error_p95"] < 100


def test_td_errors_are_those_of_the_loss() -> None:
    """The percentile is that of target minus prediction over the drawn transitions, with the run's own targets."""
    session = begun()
    replay, learner = session.replay, session.learner
    draws = torch.Generator().manual_seed(probes.torch_generator(0, "probes").initial_seed())
    places = (torch.arange(256, dtype=torch.float64) + torch.rand(256, dtype=torch.float64, generator=draws)) / 256
    batch = replay.sample_at(places, 0.0, 3)
    errors = []
    for row in range(256):
        with torch.no_grad():
            q_tm1 = learner.network(batch.s_tm1[row : row + 1])[0, batch.a_tm1[row]]
            best = learner.network(batch.s_t[row : row + 1])[0].argmax()
            target = batch.r_t[row] + batch.discount_t[row] * learner.target(batch.s_t[row : row + 1])[0, best]
        errors.append(abs(float(target - q_tm1)))
    assert look(session)[2]["train/td_error_p95"] == pytest.approx(np.quantile(errors, 0.95), rel=1e-4)


def test_change_is_told_after_a_window_of_updates() -> None:
    """Churn and movement compare the same states and weights a hundred updates apart, and are told per hundred."""
    session = begun()
    seen, clock, found = look(session)
    learner = session.learner
    updates, states, before, _ = seen._asked
    assert not {"policy/churn", "train/update_ratio"} & set(found)
    weights = [parameter.detach().clone() for parameter in learner.network.parameters()]
    learner.updates += 99
    seen.after(0)
    assert seen.take() == {}
    learner.updates = updates + 125
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.mul_(1.5)
        values = learner.network(states)
        learner.network.head.action_values[-1].bias[1] += (values[:, 0] - values[:, 1]).median()  # half of each
        after = [int(learner.network(state[None])[0].argmax()) for state in states]
    now = list(learner.network.parameters())
    moved = sum(float(((a.detach() - b) ** 2).sum()) for a, b in zip(now, weights, strict=True)) ** 0.5
    size = sum(float((b**2).sum()) for b in weights) ** 0.5
    seen.after(0)
    share = sum(one != other for one, other in zip(before.tolist(), after, strict=True)) / 256
    assert 0 < share < 1
    assert seen.take() == {
        "policy/churn": pytest.approx(0.8 * share),
        "train/update_ratio": pytest.approx(0.8 * moved / size, rel=1e-5),
    }
    assert seen._asked is None and len(states) == 256


def test_looks_take_no_more_than_their_share() -> None:
    """However long a look takes, the next waits until all of them, and it, are at most their share of the time."""
    session = begun()
    clock = Clock()
    seen = Probes(session.learner, session.replay, 0, clock=clock)
    looks, costs = 0, iter([1.0, 1.0, 0.001, 0.001, 0.3, 0.4, 0.5, 0.5])
    for method in ("_look", "_changed"):
        plain = getattr(seen, method)

        def slow(*given: Any, plain: Any = plain) -> dict[str, float]:
            nonlocal looks
            clock.now += next(costs, 0.5)
            looks += 1
            return plain(*given)

        setattr(seen, method, slow)
    shares = []
    for _ in range(20_000):
        clock.now += 0.1
        session.learner.updates += 10
        seen.after(600)
        shares.append(seen.spent_s / clock.now)
    assert looks > 10 and max(shares[8_000:]) <= 1.001 * probes.SHARE
    session.learner.updates = 0
    assert Probes(session.learner, session.replay, 0, clock=Clock(1e6)).after(0) is None  # nothing was learned yet


@pytest.mark.parametrize(
    ("shape", "pixels", "settings", "layers"),
    [
        ((4, 84, 84), True, {}, 4),
        ((4, 84, 84), True, {"torso": "impala", "spectral_norm": True, "dueling": True}, 15),
        ((4, 10, 10), False, {"distribution": "implicit"}, 3),
        ((6,), False, {"layer_norm": True, "noisy": True}, 1),
    ],
)
def test_every_relu_is_seen(shape: tuple[int, ...], pixels: bool, settings: dict[str, Any], layers: int) -> None:
    """Whatever the torso, what leaves each ReLU is kept: no value is negative, and the outputs are the network's own."""
    network = make_q_network(
        NetworkSettings(hidden=[32], **settings), shape, pixels, 3, torch.Generator().manual_seed(0)
    )
    seen = torch.rand(5, *shape)
    with torch.no_grad():
        q, kept = outputs_and_activations(network, seen)
        assert torch.equal(q, network(seen))
    assert len(kept) == layers and all((each >= 0).all() for each in kept)
    assert 0 <= dormant_share(kept) < 1


def test_dormant_units_and_rank_of_planted_features() -> None:
    """Dead channels and units are counted, a dead layer whole; the rank is the features' number of directions."""
    maps = torch.rand(20, 8, 5, 5)
    maps[:, :3] = 0.0
    maps[:, 3] *= 0.001
    dense = torch.rand(20, 4, 12)
    dense[..., 0] = 0.0
    assert dormant_share([maps, dense]) == 5 / 20
    assert dormant_share([torch.zeros(20, 6)]) == 1.0
    directions = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))[0]
    assert effective_rank(directions[:, :7] @ directions[:7] * 3.0) == 7
    assert effective_rank(torch.ones(30, 9)) == 1 and effective_rank(torch.zeros(30, 9)) == 1


class Promising(nn.Module):
    """Values that say which game was seen: 10 times its number, 1 more for the second action."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        value = 10.0 * observation[:, :1] + self.weight
        return torch.cat([value, value + 1.0], dim=1)


@pytest.mark.parametrize(("clip", "same_step"), [(None, False), (1.0, False), (1.0, True)])
def test_what_came_is_the_discounted_return_of_each_games_first_episode(clip: float | None, same_step: bool) -> None:
    """A loop over everything that happened, clipped as the learner clips it and with the value where it was cut off."""
    games = CountingGame(5, end_probability=0.1, truncation_share=0.5, same_step=same_step)
    told = StartValues(Promising(), 0.9, clip)
    assert told.figures() == {}
    happened: list[Any] = []

    def on_step(*given: Any) -> None:
        happened.append(given)
        told(*given)

    act = lambda observation: (observation[:, 0].astype(np.int64) + 1) % 2  # noqa: E731
    play_episodes(games, act, 12, 3, on_step=on_step)
    promised, came, cuts = [], [], 0
    for game in range(5):
        promised.append(10.0 * game + (game + 1) % 2)
        total, weight = 0.0, 1.0
        for _, _, step in happened:
            reward = float(step.reward[game])
            total += weight * (reward if clip is None else max(-clip, min(clip, reward)))
            weight *= 0.9
            if step.terminated[game] or step.truncated[game]:
                if step.truncated[game]:
                    total += weight * (10.0 * game + 1.0)
                    cuts += 1
                break
        came.append(total)
    assert 0 < cuts < 5
    assert told.figures() == {
        "q/start_value": pytest.approx(np.mean(promised)),
        "q/start_return": pytest.approx(np.mean(came)),
        "q/overestimation": pytest.approx(np.mean(promised) - np.mean(came)),
    }
