"""TD targets and losses against slow loops in float64, written from the papers."""

from __future__ import annotations

from math import exp, log
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import LearnerSettings, NetworkSettings
from agent.losses import Munchausen, make_loss, q_learning, quantile_q_learning, td_target
from agent.types import Batch

STATES, ACTIONS, ROWS, K = 9, 4, 24, 5
DISCOUNT = 0.9
MUNCHAUSEN = {
    None: None,
    "target": Munchausen(0.9, 0.3, -1.0, "target"),
    "online": Munchausen(0.7, 0.03, -0.8, "online"),
}


class Window(NamedTuple):
    """What really happened between `s_tm1` and `s_t`."""

    s_tm1: int
    action: int
    rewards: list[float]  # up to three
    terminated: bool  # a truncated window is only shorter
    s_t: int
    weight: float


def windows(rng: np.random.Generator) -> list[Window]:
    """One to three rewards each; some windows terminate, the short ones that do not were truncated."""
    return [
        Window(
            s_tm1=int(rng.integers(STATES)),
            action=int(rng.integers(ACTIONS)),
            rewards=[float(np.float32(r)) for r in rng.normal(size=rng.integers(1, 4))],
            terminated=bool(rng.random() < 0.3),
            s_t=int(rng.integers(STATES)),
            weight=float(np.float32(rng.random())),
        )
        for _ in range(ROWS)
    ]


def as_batch(rows: list[Window]) -> Batch:
    """The same windows as replay hands them out."""
    return Batch(
        s_tm1=torch.tensor([row.s_tm1 for row in rows]),
        a_tm1=torch.tensor([row.action for row in rows]),
        r_t=torch.tensor([sum(DISCOUNT**j * r for j, r in enumerate(row.rewards)) for row in rows]),
        discount_t=torch.tensor([0.0 if row.terminated else DISCOUNT ** len(row.rewards) for row in rows]),
        s_t=torch.tensor([row.s_t for row in rows]),
        weight=torch.tensor([row.weight for row in rows]),
        index=torch.arange(len(rows)),
    )


class Table:
    """A network that is a table, [STATES, F, ACTIONS]: quantile (F = K) or implicit (F cosines of the fraction)."""

    def __init__(self, rng: np.random.Generator, kind: str, name: str = "", asked: list | None = None) -> None:
        self.kind, self.name, self.asked = kind, name, [] if asked is None else asked
        self.table = torch.from_numpy(rng.normal(size=(STATES, K, ACTIONS))).float().requires_grad_()
        self.fractions = (torch.arange(K) + 0.5) / K

    def __call__(self, s: torch.Tensor) -> torch.Tensor:
        self.asked.append((self.name, "mean", s, None))
        return self.read(s, self.fractions.expand(len(s), -1)).mean(1)

    def quantiles(self, s: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        self.asked.append((self.name, "quantiles", s, fractions))
        return self.read(s, self.fractions.expand(len(s), -1) if fractions is None else fractions)

    def read(self, s: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        if self.kind == "quantile":
            return self.table[s]
        return torch.cos(torch.pi * torch.arange(K) * fractions[:, :, None]) @ self.table[s]

    def basis(self, fraction: float) -> np.ndarray:
        """How much each of the F rows has to say at `fraction`, f64 [F]."""
        if self.kind == "quantile":
            return np.eye(K)[round(fraction * K - 0.5)]
        return np.cos(np.pi * np.arange(K) * fraction)

    def slow(self, s: int, fraction: float) -> list[float]:
        """The quantile of every action, in float64."""
        return list(self.basis(fraction) @ self.table.detach().double().numpy()[s])


def log_policy(q: list[float], temperature: float) -> list[float]:
    """Temperature times the logarithm of the softmax of q / temperature."""
    most = max(q)
    total = sum(exp((value - most) / temperature) for value in q)
    return [value - most - temperature * log(total) for value in q]


def mean(z: list[list[float]]) -> list[float]:
    """The mean over fractions, of every action."""
    return [sum(column) / len(z) for column in zip(*z, strict=True)]


def slow_target(
    row: Window, reference: list[float], z_t: list[list[float]], chooser: list[float], soft: Munchausen | None
) -> list[float]:
    """The target at each of the target's fractions; a plain network has a single one."""
    wanted = sum(DISCOUNT**j * r for j, r in enumerate(row.rewards))
    if soft is not None:
        wanted += soft.alpha * min(0.0, max(soft.clip, log_policy(reference, soft.temperature)[row.action]))
    if row.terminated:
        return [wanted] * len(z_t)
    if soft is None:
        best = max(range(ACTIONS), key=lambda action: chooser[action])
        values = [z[best] for z in z_t]
    else:
        scaled = log_policy(mean(z_t), soft.temperature)
        values = [sum(exp(p / soft.temperature) * (v - p) for v, p in zip(z, scaled, strict=True)) for z in z_t]
    return [wanted + DISCOUNT ** len(row.rewards) * value for value in values]


def slow(
    online: np.ndarray, target: np.ndarray, rows: list[Window], double: bool, kind: str, soft: Munchausen | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, TD errors and gradient by `online`, [STATES, ACTIONS], one window after the other."""
    loss, errors, gradient = 0.0, [], np.zeros_like(online)
    for row in rows:
        reference = (online if soft is not None and soft.reference == "online" else target)[row.s_tm1]
        chooser = (online if double else target)[row.s_t]
        (wanted,) = slow_target(row, list(reference), [list(target[row.s_t])], list(chooser), soft)
        error = wanted - online[row.s_tm1, row.action]
        if kind == "mse":
            each, slope = error**2, 2 * error
        else:
            each, slope = huber(error)
        loss += row.weight * each / len(rows)
        gradient[row.s_tm1, row.action] -= row.weight * slope / len(rows)
        errors.append(error)
    return loss, np.array(errors), gradient


def huber(error: float) -> tuple[float, float]:
    """The Huber loss and its slope."""
    return (error**2 / 2, error) if abs(error) < 1 else (abs(error) - 0.5, float(np.sign(error)))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["huber", "mse"]), st.sampled_from(list(MUNCHAUSEN)))
def test_equals_a_slow_loop(seed: int, double: bool, kind: str, soft: str | None) -> None:
    """Loss, TD errors and gradient equal those of a loop over the windows, and nothing flows into the bootstrap."""
    rng = np.random.default_rng(seed)
    rows = windows(rng)
    online, target = (torch.from_numpy(rng.normal(size=(STATES, ACTIONS))).float() for _ in range(2))
    online.requires_grad_()
    target.requires_grad_()
    batch, munchausen = as_batch(rows), MUNCHAUSEN[soft]
    result = q_learning(
        lambda s: online[s], lambda s: target[s], batch, double=double, kind=kind, munchausen=munchausen
    )
    result.loss.backward()
    tables = online.detach().double().numpy(), target.detach().double().numpy()
    loss, errors, gradient = slow(*tables, rows, double, kind, munchausen)
    np.testing.assert_allclose(result.loss.item(), loss, rtol=1e-5)
    np.testing.assert_allclose(result.td_error.numpy(), errors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(online.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
    assert target.grad is None
    assert torch.equal(result.priority, result.td_error.abs())
    assert torch.equal(result.q_tm1, online.detach()[batch.s_tm1])
    assert not any(part.requires_grad for part in result[1:])


def slow_quantiles(
    online: Table,
    target: Table,
    rows: list[Window],
    double: bool,
    soft: Munchausen | None,
    fractions_tm1: list[list[float]],
    fractions_t: list[list[float]],
) -> tuple[float, list[float], list[float], np.ndarray]:
    """Loss, TD errors, priorities and gradient by the online table, one pair of fractions after the other."""
    loss, errors, priorities, gradient = 0.0, [], [], np.zeros((STATES, K, ACTIONS))
    for row, taus, others in zip(rows, fractions_tm1, fractions_t, strict=True):
        z_tm1 = [online.slow(row.s_tm1, tau) for tau in taus]
        z_t = [target.slow(row.s_t, tau) for tau in others]
        reference = [target.slow(row.s_tm1, tau) for tau in others]
        if soft is not None and soft.reference == "online":
            reference = z_tm1
        chooser = [online.slow(row.s_t, tau) for tau in online.fractions.double().tolist()] if double else z_t
        wanted = slow_target(row, mean(reference), z_t, mean(chooser), soft)
        predicted = [z[row.action] for z in z_tm1]
        priority = 0.0
        for tau, prediction in zip(taus, predicted, strict=True):
            for y in wanted:
                delta = y - prediction
                asymmetry = abs(tau - (1.0 if delta < 0 else 0.0))
                each, slope = huber(delta)
                share = row.weight / len(rows) / len(wanted)
                loss += share * asymmetry * each
                gradient[row.s_tm1, :, row.action] -= share * asymmetry * slope * online.basis(tau)
                priority += abs(delta) / len(wanted)
        errors.append(sum(wanted) / len(wanted) - sum(predicted) / len(predicted))
        priorities.append(priority)
    return loss, errors, priorities, gradient


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([None, (8, 8), (3, 5), (5, 2), (1, 1)]),
    st.sampled_from(list(MUNCHAUSEN)),
)
def test_quantiles_equal_a_slow_loop(
    seed: int, double: bool, fractions: tuple[int, int] | None, soft: str | None
) -> None:
    """QR-DQN, IQN and both with Munchausen: loss, errors, priorities and gradient are those of loops over fractions."""
    rng = np.random.default_rng(seed)
    rows, kind = windows(rng), "quantile" if fractions is None else "implicit"
    online, target = Table(rng, kind), Table(rng, kind)
    batch, generator = as_batch(rows), torch.Generator().manual_seed(seed)
    result = quantile_q_learning(
        online, target, batch, generator, double=double, fractions=fractions, munchausen=MUNCHAUSEN[soft]
    )
    result.loss.backward()
    drawn = [
        [asked[3].double().tolist() for asked in network.asked if asked[3] is not None] for network in (online, target)
    ]
    if fractions is None:
        assert drawn == [[], []]
        drawn = [[online.fractions.double().expand(ROWS, -1).tolist()]] * 2
    loss, errors, priorities, gradient = slow_quantiles(
        online, target, rows, double, MUNCHAUSEN[soft], drawn[0][0], drawn[1][0]
    )
    np.testing.assert_allclose(result.loss.item(), loss, rtol=1e-5)
    np.testing.assert_allclose(result.td_error.numpy(), errors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.priority.numpy(), priorities, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(online.table.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
    assert target.table.grad is None
    with torch.no_grad():
        at = torch.tensor(drawn[0][0]).float()
        torch.testing.assert_close(result.q_tm1, online.read(batch.s_tm1, at).mean(1))
    assert not any(part.requires_grad for part in result[1:])


def test_random_fractions_are_uniform_and_fresh() -> None:
    """Every transition has fractions of its own, other ones for prediction and target, and other ones the next time."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    asked: list = []
    online, target = Table(rng, "implicit", asked=asked), Table(rng, "implicit", asked=asked)
    batch = as_batch([row for _ in range(40) for row in windows(rng)])
    for _ in range(2):
        quantile_q_learning(online, target, batch, generator, double=True, fractions=(6, 7))
    drawn = torch.cat([fractions.flatten() for _, _, _, fractions in asked if fractions is not None])
    assert len(drawn) == 2 * len(batch.r_t) * (6 + 7)
    assert len(drawn.unique()) > 0.99 * len(drawn)  # there are 2^24 of them, so a few meet
    share = drawn.histc(20, 0.0, 1.0) / len(drawn)
    assert (share - 0.05).abs().max() < 4.5 * (0.05 * 0.95 / len(drawn)) ** 0.5


def asked_for(asked: list, batch: Batch) -> list[tuple[str, str, str]]:
    """What the networks were asked, with the batch's field as the name of the state."""
    fields = {id(batch.s_tm1): "s_tm1", id(batch.s_t): "s_t"}
    return sorted((name, what, fields[id(s)]) for name, what, s, _ in asked)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("soft", list(MUNCHAUSEN))
@pytest.mark.parametrize("what", ["mean", "quantiles"])
def test_networks_are_asked_no_more_than_needed(double: bool, soft: str | None, what: str) -> None:
    """Each sees one state once; online also s_t to choose in double Q-learning, target s_tm1 if it is the reference."""
    rng = np.random.default_rng(0)
    asked: list = []
    networks = Table(rng, "quantile", "online", asked), Table(rng, "quantile", "target", asked)
    batch, munchausen = as_batch(windows(rng)), MUNCHAUSEN[soft]
    if what == "mean":
        q_learning(*networks, batch, double=double, kind="huber", munchausen=munchausen)
    else:
        quantile_q_learning(*networks, batch, double=double, fractions=None, munchausen=munchausen)
    expected = [("online", what, "s_tm1"), ("target", what, "s_t")]
    if double and soft is None:
        expected.append(("online", "mean", "s_t"))
    if soft == "target":
        expected.append(("target", what, "s_tm1"))
    assert asked_for(asked, batch) == sorted(expected)


class Curve:
    """A one-state network without actions to choose from: polynomials of the fraction, or one number per fraction."""

    def __init__(self, powers: int | None) -> None:
        self.fractions = (torch.arange(8) + 0.5) / 8
        self.powers = None if powers is None else torch.arange(powers)
        self.weights = torch.zeros(8 if powers is None else powers, requires_grad=True)

    def __call__(self, s: torch.Tensor) -> torch.Tensor:
        return self.quantiles(s).mean(1)

    def quantiles(self, s: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        if self.powers is None:
            return self.weights.expand(len(s), -1)[:, :, None]
        fractions = self.fractions.expand(len(s), -1) if fractions is None else fractions
        return ((2.0 * fractions[:, :, None] - 1.0) ** self.powers) @ self.weights[:, None]


DISTRIBUTIONS = {  # all wide against the corner of the Huber loss, below which it finds expectiles
    "coin": lambda u: torch.where(u < 0.7, -50.0, 90.0),
    "square": lambda u: 120.0 * u**2,
    "normal": lambda u: 40.0 * torch.special.ndtri(u),
}


@pytest.mark.parametrize(
    ("powers", "name", "at"),
    [
        (None, "coin", [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.8125, 0.9375]),
        (None, "normal", [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375]),
        (3, "square", [0.1, 0.3, 0.5, 0.7, 0.9]),
    ],
)
@pytest.mark.parametrize("soft", [None, "online"])
def test_a_known_distribution_is_recovered(powers: int | None, name: str, at: list[float], soft: str | None) -> None:
    """A game of one step, one state and one action: its quantiles are those of the reward's distribution."""
    network, generator = Curve(powers), torch.Generator().manual_seed(0)
    fractions = None if powers is None else (8, 2)
    rewards = DISTRIBUTIONS[name]((torch.arange(512) + 0.5) / 512)  # the distribution itself instead of samples
    state = torch.zeros(512, dtype=torch.int64)
    no, one = torch.zeros(512), torch.ones(512)
    batch = Batch(s_tm1=state, a_tm1=state, r_t=rewards, discount_t=no, s_t=state, weight=one, index=state)
    optimizer = torch.optim.Adam([network.weights], lr=3.0)
    for update in range(800):
        optimizer.param_groups[0]["lr"] = 3.0 * (1.0 - update / 800)
        optimizer.zero_grad()
        quantile_q_learning(
            network, network, batch, generator, double=True, fractions=fractions, munchausen=MUNCHAUSEN[soft]
        ).loss.backward()
        optimizer.step()
    found = network.quantiles(state[:1], None if powers is None else torch.tensor([at])).detach()[0, :, 0]
    if powers is None:
        found = found[[i for i, fraction in enumerate(network.fractions.tolist()) if fraction in at]]
    torch.testing.assert_close(found, DISTRIBUTIONS[name](torch.tensor(at)), rtol=0.0, atol=1.5)


@pytest.mark.parametrize("distribution", ["none", "quantile", "implicit"])
@pytest.mark.parametrize("learner", [{}, {"double": False, "loss": "mse", "fractions": 3, "target_fractions": 6}])
@pytest.mark.parametrize("munchausen", [0.0, 0.6])
def test_settings_choose_the_loss(distribution: str, learner: dict[str, Any], munchausen: float) -> None:
    """Every setting reaches the loss: the result is that of the function called by hand, bit for bit."""
    rng = np.random.default_rng(0)
    online, target = (Table(rng, "implicit" if distribution == "implicit" else "quantile") for _ in range(2))
    batch = as_batch(windows(rng))
    chosen = LearnerSettings(
        **learner,
        munchausen=munchausen,
        munchausen_temperature=0.2,
        munchausen_clip=-0.5,
        munchausen_reference="online",
    )
    soft = Munchausen(munchausen, 0.2, -0.5, "online") if munchausen else None
    loss = make_loss(NetworkSettings(distribution=distribution), chosen)
    result = loss(online, target, batch, torch.Generator().manual_seed(1))
    if distribution == "none":
        expected = q_learning(online, target, batch, double=chosen.double, kind=chosen.loss, munchausen=soft)
    else:
        fractions = (chosen.fractions, chosen.target_fractions) if distribution == "implicit" else None
        generator = torch.Generator().manual_seed(1)
        expected = quantile_q_learning(
            online, target, batch, generator, double=chosen.double, fractions=fractions, munchausen=soft
        )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(result, expected, strict=True))


def test_an_unknown_loss_is_refused() -> None:
    """A misspelled loss is not taken for another one."""
    values = torch.zeros(STATES, ACTIONS)
    batch = as_batch(windows(np.random.default_rng(0)))
    with pytest.raises(KeyError, match="hubber"):
        q_learning(lambda s: values[s], lambda s: values[s], batch, double=True, kind="hubber")


def test_the_selector_only_selects() -> None:
    """The value of the chosen action is read from `q_t`, whatever the selector thinks it is worth."""
    q_t = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    selector_q_t = torch.tensor([[0.0, 50.0, 40.0], [9.0, -1.0, 8.0]])
    target_t = td_target(torch.tensor([10.0, 20.0]), torch.tensor([0.5, 0.0]), q_t, selector_q_t)
    assert target_t.tolist() == [10.0 + 0.5 * 2.0, 20.0]
