"""Heads against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agent.nets.heads import DuelingHead, LinearHead

N, FEATURES, WIDTH, ACTIONS = 4, 3, 8, 5


def features() -> torch.Tensor:
    return torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(0))


def stream(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Two linear layers with a ReLU between them, written out."""
    first, second = layers[0], layers[-1]
    return (x @ first.weight.T + first.bias).clamp(min=0.0) @ second.weight.T + second.bias


def test_linear_head() -> None:
    """One hidden layer with ReLU, then the values as they are, negative ones included."""
    head = LinearHead(FEATURES, WIDTH, ACTIONS)
    values = head(features())
    torch.testing.assert_close(values, stream(head.action_values, features()))
    assert values.shape == (N, ACTIONS)
    assert [tuple(p.shape) for p in head.parameters()] == [(WIDTH, FEATURES), (WIDTH,), (ACTIONS, WIDTH), (ACTIONS,)]


def test_dueling_head() -> None:
    """Q = V + A - mean A (Wang et al. 2016, equation 9), each stream with a hidden layer of its own."""
    head = DuelingHead(FEATURES, WIDTH, ACTIONS)
    advantages = stream(head.advantages, features())
    expected = stream(head.state_value, features()) + advantages - advantages.mean(1, keepdim=True)
    torch.testing.assert_close(head(features()), expected)
    assert head(features()).shape == (N, ACTIONS)
    hidden = 2 * (FEATURES + 1) * WIDTH
    assert sum(p.numel() for p in head.parameters()) == hidden + (WIDTH + 1) * (1 + ACTIONS)


def test_dueling_streams_mean_what_their_names_say() -> None:
    """The mean of Q over actions is the state value; adding to all advantages changes nothing; V moves all of Q."""
    head = DuelingHead(FEATURES, WIDTH, ACTIONS)
    before = head(features())
    torch.testing.assert_close(before.mean(1, keepdim=True), head.state_value(features()))
    with torch.no_grad():
        head.advantages[-1].bias += 3.0
        torch.testing.assert_close(head(features()), before, rtol=1e-4, atol=1e-5)
        head.state_value[-1].bias += 2.0
        torch.testing.assert_close(head(features()), before + 2.0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [LinearHead, DuelingHead])
def test_rows_do_not_see_each_other(kind: type[nn.Module]) -> None:
    """The values of an observation are the same alone and in a batch."""
    head = kind(FEATURES, WIDTH, ACTIONS)
    torch.testing.assert_close(head(features())[2:3], head(features()[2:3]))
