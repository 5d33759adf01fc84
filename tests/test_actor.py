"""Greedy and epsilon-greedy actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agent.actor import Actor
from agent.schedules import Linear, constant
from agent.seeding import numpy_generator, torch_generator
from agent.state_tree import encode

CPU = torch.device("cpu")


class Network(nn.Module):
    """Values are the observation times a weight, plus noise; notes how it was asked."""

    def __init__(self, noisy: bool = False) -> None:
        super().__init__()
        self.noisy = noisy
        self.noise: list[torch.Tensor | None] = []
        self.weight = nn.Parameter(torch.ones(()))
        self.asked: list[tuple[torch.dtype, bool]] = []

    def forward(self, observation: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        self.asked.append((observation.dtype, torch.is_inference_mode_enabled()))
        self.noise.append(noise)
        return observation.float() * self.weight + (0.0 if noise is None else noise)

    def draw_noise(self, generator: torch.Generator) -> torch.Tensor | None:
        return torch.randn(5, generator=generator) if self.noisy else None


def actor(epsilon: float | Callable[[int], float], num_actions: int = 5, seed: int = 0, **other: Any) -> Actor:
    schedule = epsilon if callable(epsilon) else constant(epsilon)
    return Actor(Network(), num_actions, schedule, numpy_generator(seed, "actor"), CPU, **other)


def noisy(seed: int, epsilon: float = 0.0) -> Actor:
    """An actor that explores by noise."""
    one = actor(epsilon, seed=seed, noise=torch_generator(seed, "noise"))
    one.network = Network(noisy=True)
    return one


def zeros(games: int, num_actions: int) -> np.ndarray:
    """Observations whose greedy action is 0."""
    return np.eye(1, num_actions, dtype=np.float32).repeat(games, 0)


def test_greedy_is_the_largest_value() -> None:
    """The greedy action of each game is the position of its own largest value, as i64 on the host."""
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    for action in (actor(0.0).greedy(values), actor(0.0).act(values, 0)):
        assert action.dtype == np.int64 and action.shape == (7,)
        assert action.tolist() == values.argmax(1).tolist()


def test_the_network_sees_what_the_game_gave_in_inference_mode() -> None:
    """Observations reach the network in their own dtype, and no graph is recorded."""
    one = actor(0.0, 3)
    one.greedy(np.zeros((2, 3), np.uint8))
    one.act(np.zeros((2, 3), np.float32), 0)
    assert one.network.asked == [(torch.uint8, True), (torch.float32, True)]
    assert not torch.is_inference_mode_enabled()


def test_weights_are_shared() -> None:
    """A weight that the learner changes in place changes the next action."""
    network = Network()
    one = Actor(network, 3, constant(0.0), numpy_generator(0, "actor"), CPU)
    observation = np.array([[1, 2, 3]], np.float32)
    assert one.act(observation, 0).tolist() == [2]
    with torch.no_grad():
        network.weight.neg_()
    assert one.act(observation, 0).tolist() == [0]


def test_epsilon_is_the_share_of_random_actions() -> None:
    """Each action that is not the best one is as frequent as epsilon says, and the best one has the rest."""
    games, num_actions, epsilon = 40_000, 4, 0.3
    counts = np.bincount(actor(epsilon, num_actions).act(zeros(games, num_actions), 0), minlength=num_actions)
    share = np.array([1 - epsilon + epsilon / num_actions, *[epsilon / num_actions] * 3])
    deviation = np.sqrt(games * share * (1 - share))
    assert (np.abs(counts - games * share) < 4.5 * deviation).all()


def test_games_explore_on_their_own() -> None:
    """Whether one game explores, and what it does then, says nothing about the next game or the next call."""
    num_actions, calls = 1000, 6_000
    one = actor(0.5, num_actions)
    actions = np.stack([one.act(zeros(2, num_actions), step) for step in range(calls)])
    explored = actions != 0  # [calls, 2]
    bound = 4.5 * np.sqrt(0.25 * 0.75 * calls)
    assert abs((explored[:, 0] & explored[:, 1]).sum() - 0.25 * calls) < bound
    assert abs((explored[1:, 0] & explored[:-1, 0]).sum() - 0.25 * calls) < bound
    both = actions[explored.all(1)]
    assert (both[:, 0] == both[:, 1]).mean() < 0.02
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.12


def test_the_schedule_is_asked_for_the_step() -> None:
    """Epsilon is what the schedule says at the step that was given."""
    asked = []

    def epsilon(step: int) -> float:
        asked.append(step)
        return float(step == 7)

    one = actor(epsilon, 1000)
    assert not one.act(zeros(50, 1000), 6).any()
    assert np.count_nonzero(one.act(zeros(50, 1000), 7)) > 40
    assert asked == [6, 7]


def test_pure_exploration_does_not_ask_the_network() -> None:
    """With epsilon 1 actions are uniform over all of them, and the network is left alone."""
    one = actor(1.0, 3)
    counts = np.bincount(one.act(zeros(30_000, 3), 0))
    assert one.network.asked == []
    assert counts.dtype == np.int64 and len(counts) == 3
    assert (np.abs(counts - 10_000) < 4.5 * np.sqrt(30_000 * 2 / 9)).all()


@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_the_generator_moves_the_same_whatever_happens(epsilon: float) -> None:
    """After as many calls the generator stands at the same place, explored or not, seen this or that."""
    quiet, bold = actor(0.0), actor(epsilon)
    rng = np.random.default_rng(1)
    for step in range(20):
        quiet.act(zeros(3, 5), step)
        bold.act(rng.normal(size=(3, 5)).astype(np.float32), 1000 * step)
        assert quiet.state_dict() == bold.state_dict()
    assert actor(0.0).state_dict() != quiet.state_dict()


def test_greedy_draws_nothing() -> None:
    """Playing greedily leaves the exploration's generator where it is."""
    one = actor(0.5)
    before = one.state_dict()
    one.greedy(zeros(3, 5))
    assert one.state_dict() == before


def test_state_goes_on_where_it_was() -> None:
    """An actor with another seed that takes the state, by way of JSON, explores exactly as the first one would have."""
    first, second = actor(0.5, 1000), actor(0.5, 1000, seed=1)
    observation = zeros(5, 1000)  # an odd number leaves half a 64-bit draw behind
    for step in range(3):
        first.act(observation, step)
    state = json.loads(json.dumps(first.state_dict()))
    expected = [first.act(observation, step).tolist() for step in range(10)]
    assert [second.act(observation, step).tolist() for step in range(10)] != expected
    second.load_state_dict(state)
    assert [second.act(observation, step).tolist() for step in range(10)] == expected


class Coins:
    """A generator whose coin for every game is the same, and whose random action is always the last one."""

    def __init__(self, coin: float) -> None:
        self.coin = coin

    def random(self, games: int) -> np.ndarray:
        return np.full(games, self.coin)

    def integers(self, num_actions: int, size: int) -> np.ndarray:
        return np.full(size, num_actions - 1)


@pytest.mark.parametrize("ladder", [0.0, 1.0, 7.0])
@pytest.mark.parametrize("games", [1, 2, 6])
def test_the_ladder_gives_every_game_its_epsilon(ladder: float, games: int) -> None:
    """Game i of B acts randomly at coins below epsilon^(1 + ladder i / (B - 1)) and not at that; 0 steps: all alike."""
    schedule = Linear(0.9, 0.4, 100)
    for step in (0, 30, 200):
        for i in range(games):
            epsilon = schedule(step) ** (1.0 + ladder * (i / (games - 1) if i else 0.0))
            for coin, random in ((epsilon * (1 - 1e-12), True), (epsilon * (1 + 1e-12), False)):
                one = actor(schedule, ladder=ladder)
                one._generator = Coins(coin)
                assert (one.act(zeros(games, 5), step)[i] == 4) == random


def test_without_a_ladder_epsilon_is_the_schedules_to_the_bit() -> None:
    """A coin that equals epsilon never explores, the next smaller one always: no rounding comes in between."""
    for epsilon in np.random.default_rng(0).random(200):
        for coin, random in ((epsilon, False), (np.nextafter(epsilon, 0.0), True)):
            one = actor(float(epsilon))
            one._generator = Coins(coin)
            assert (one.act(zeros(9, 5), 0) == 4).all() == random


def test_noise_is_fresh_in_every_call_and_shared_by_its_games() -> None:
    """Each call of act draws one sample in the generator's order; the actions of all games are those it leads to."""
    one, generator = noisy(3), torch_generator(3, "noise")
    rng = np.random.default_rng(0)
    for step in range(20):
        observation = rng.normal(size=(7, 5)).astype(np.float32)
        sample = torch.randn(5, generator=generator)
        expected = (torch.from_numpy(observation) + sample).argmax(1)
        assert one.act(observation, step).tolist() == expected.tolist()
        assert torch.equal(one.network.noise[-1], sample)


def test_playing_greedily_has_no_noise() -> None:
    """greedy, and act without a generator for noise, use the mean weights; greedy does not move that generator."""
    one = noisy(3)
    before = one.state_dict()["noise"].clone()
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    assert one.greedy(values).tolist() == values.argmax(1).tolist()
    assert torch.equal(one.state_dict()["noise"], before)
    silent = actor(0.0)
    silent.network = Network(noisy=True)
    silent.act(values, 0)
    assert one.network.noise == silent.network.noise == [None]


def test_a_network_without_noise_may_be_given_a_generator() -> None:
    """Then nothing is drawn and the actions are those without one."""
    one = actor(0.0, noise=torch_generator(0, "noise"))
    before = one.state_dict()["noise"].clone()
    one.act(zeros(3, 5), 0)
    assert one.network.noise == [None] and torch.equal(one.state_dict()["noise"], before)


@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_the_noise_moves_the_same_whatever_happens(epsilon: float) -> None:
    """The noise's generator stands at the same place after as many calls, even if all games acted randomly."""
    quiet, bold = noisy(0), noisy(0, epsilon)
    for step in range(10):
        quiet.act(zeros(3, 5), step)
        bold.act(zeros(3, 5), step)
        assert torch.equal(quiet.state_dict()["noise"], bold.state_dict()["noise"])


def test_the_state_of_the_noise_goes_on_where_it_was() -> None:
    """With the state of another noisy actor the same samples follow bit for bit; a state without noise does not fit."""
    first, second = noisy(0, 0.3), noisy(1, 0.3)
    observation = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    first.act(observation, 0)
    assert encode(first.state_dict()), "every leaf can be kept in a checkpoint"
    state = {**first.state_dict(), "noise": first.state_dict()["noise"].clone()}
    expected = [first.act(observation, step).tolist() for step in range(20)]
    assert [second.act(observation, step).tolist() for step in range(20)] != expected
    second.load_state_dict(state)
    second.network.noise.clear()
    assert [second.act(observation, step).tolist() for step in range(20)] == expected
    assert all(map(torch.equal, second.network.noise, first.network.noise[-20:]))
    for one, other in ((first, actor(0.0)), (actor(0.0), first)):
        with pytest.raises(ValueError, match="noise"):
            one.load_state_dict(other.state_dict())


def test_the_last_answer_is_kept_for_who_looks() -> None:
    """After a call the actor has the very observation and the values of it; none where exploration did not ask."""
    one = actor(lambda step: float(step == 7))
    assert one.last is None
    observation = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    chosen = one.act(observation, 0)
    seen, values = one.last
    assert seen is observation and values.shape == (3, 5) and (values.argmax(1).numpy() == chosen).all()
    one.act(observation, 7)
    assert one.last is None
