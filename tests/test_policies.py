"""Tests of agent/viewer/policies.py: whoever plays gives the action and the numbers behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_verify import made as small_artefact  # noqa: F401

from agent.cli.artefacts import trusted_player
from agent.freeze import artefact
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.graph import Continuous, Discrete
from agent.viewer import policies
from agent.viewer.policies import ArtefactPolicy, Facts, LatestPolicy, LivePolicy, scores_of
from agent.viewer.publish import flat_weights, put_weights

FACTS = Facts("a policy", "values")


def linear(weights: list[list[float]]) -> torch.nn.Linear:
    """A network of one matrix, [A, inputs]."""
    network = torch.nn.Linear(len(weights[0]), len(weights), bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor(weights))
    return network


def test_a_live_policy_gives_its_outputs_and_the_best() -> None:
    """The action is the largest output; where actions are continuous there is no choice to show."""
    policy = LivePolicy(lambda x: np.float32([[0.1, 0.7, 0.2]]), Discrete(3), FACTS)
    values, action = policy.q(np.zeros((1, 4), np.float32))
    assert values.tolist() == pytest.approx([0.1, 0.7, 0.2]) and action == 1
    policy = LivePolicy(lambda x: np.float32([[9.0, -0.5]]), Continuous((-1.0, -1.0), (1.0, 1.0), "clip"), FACTS)
    values, action = policy.q(np.zeros((1, 4), np.float32))
    assert values is None and action.tolist() == [1.0, -0.5]


def test_a_live_policy_chooses_as_it_is_told() -> None:
    """Where a policy brings its own way from outputs to an action, that is taken and not the head's."""
    outputs = np.float32([[0.1, 0.7, 0.2]])
    second = LivePolicy(lambda x: outputs, Discrete(3), FACTS, choose=lambda given: np.argsort(given)[:, 1])
    assert second.q(np.zeros((1, 4), np.float32))[1] == 2


def test_the_latest_policy_takes_new_weights_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second at most it asks; weights with another number of updates are written into the same tensors."""
    now = 100.0
    monkeypatch.setattr(policies.time, "monotonic", lambda: now)
    network, other = linear([[1.0, 0.0], [0.0, 1.0]]), linear([[0.0, 1.0], [1.0, 0.0]])
    published: list[Any] = []
    asked: list[int] = []

    def newest() -> Any:
        asked.append(1)
        return published[-1] if published else None

    policy = LatestPolicy(network, 2, Facts("latest", "values"), newest, put_weights)
    observation, place = np.float32([[3.0, 1.0]]), network.weight.data_ptr()
    policy.refresh()
    assert policy.q(observation)[1] == 0 and policy.facts.updates is None
    published.append(({"updates": 7}, flat_weights(other)))
    policy.refresh()  # too early
    assert policy.q(observation)[1] == 0 and len(asked) == 1
    now += 1.0
    policy.refresh()
    assert policy.q(observation) == (pytest.approx([1.0, 3.0]), 1)
    assert policy.facts.updates == 7 and network.weight.data_ptr() == place


def test_weights_of_another_network_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another shape that has taken the folder's place does not break the room."""
    network = linear([[1.0, 0.0], [0.0, 1.0]])
    policy = LatestPolicy(network, 2, Facts("latest", "values"), lambda: ({"updates": 9}, np.zeros(3)), put_weights)
    policy.refresh()
    assert policy.facts.updates is None and policy.q(np.float32([[0.0, 2.0]]))[1] == 1


def test_an_artefact_gives_its_values_on_their_scale(small_artefact: Path) -> None:  # noqa: F811
    """The emitted policy's own actions, and its integers times their step, which are near the live values."""
    folder = small_artefact
    made = artefact.read(folder)
    frozen = FrozenPolicy(made.graph, made.integer)
    player = trusted_player(folder, "auto", allow_refused=True)
    policy = ArtefactPolicy(player, frozen, FACTS)
    for observation in made.golden.observation[:5]:
        values, action = policy.q(observation[None])
        assert action == player.act(observation[None])[0] == values.argmax()
        assert values.tolist() == frozen.outputs(frozen.raw(observation[None]))[0].tolist()
    policy.refresh()
    assert policy.network is None


@pytest.mark.parametrize(
    ("algorithm", "scores"),
    [("DQN", "values"), ("QR-DQN", "values"), ("qrdqn", "values"), ("IQN", "values"), ("Munchausen-DQN", "values"),
     ("PPO", "logits"), ("A2C", "logits")],
)  # fmt: skip
def test_what_outputs_are(algorithm: str, scores: str) -> None:
    """Values of value-based algorithms, preferences of the others, nothing of continuous actions."""
    assert scores_of(algorithm, False) == scores
    assert scores_of(algorithm, True) is None
