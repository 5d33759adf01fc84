"""Heads against their formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from agent.nets.heads import DuelingHead, LinearHead, Stream
from agent.nets.noisy import Noise, NoisyLinear, factorised_noise

N, FEATURES, WIDTH, ACTIONS = 4, 3, 8, 5
STREAM = partial(Stream, FEATURES, WIDTH)


def features() -> torch.Tensor:
    return torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(0))


def noise(head: nn.Module) -> Noise:
    """Noise for every layer of the head, in the order in which they stand in it."""
    layers = [layer for layer in head.modules() if isinstance(layer, NoisyLinear)]
    sizes = [size for layer in layers for size in (layer.in_features, layer.out_features)]
    return factorised_noise(sizes, torch.Generator().manual_seed(1), torch.device("cpu"))


def linear(layer: nn.Linear, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    """A linear layer written out; with noise (eps_in, eps_out) a noisy one."""
    weight, bias = layer.weight, layer.bias
    if noise is not None:
        weight = weight + layer.weight_sigma * noise[1][:, None] * noise[0]
        bias = bias + layer.bias_sigma * noise[1]
    return x @ weight.T + bias


def written_out(layers: nn.Sequential, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    """Two linear layers with a ReLU between them, written out."""
    hidden = linear(layers[0], x, noise and noise[:2]).clamp(min=0.0)
    return linear(layers[-1], hidden, noise and noise[2:])


@pytest.mark.parametrize("quantiles", [1, 7])
def test_linear_head(quantiles: int) -> None:
    """One hidden layer with ReLU, then the values as they are, negative ones included."""
    head = LinearHead(STREAM, ACTIONS, quantiles)
    values = head(features())
    torch.testing.assert_close(values, written_out(head.action_values, features()).view(N, quantiles, ACTIONS))
    assert values.shape == (N, quantiles, ACTIONS)
    outputs = quantiles * ACTIONS
    assert [tuple(p.shape) for p in head.parameters()] == [(WIDTH, FEATURES), (WIDTH,), (outputs, WIDTH), (outputs,)]


@pytest.mark.parametrize("quantiles", [1, 7])
def test_dueling_head(quantiles: int) -> None:
    """Q = V + A - mean A (Wang et al. 2016, equation 9) per quantile, each stream with a hidden layer of its own."""
    head = DuelingHead(STREAM, ACTIONS, quantiles)
    values = head(features())
    assert values.shape == (N, quantiles, ACTIONS)
    state_value = written_out(head.state_value, features())  # [N, K]
    advantages = written_out(head.advantages, features())  # [N, K * A]
    for k in range(quantiles):
        of_k = advantages[:, k * ACTIONS : (k + 1) * ACTIONS]
        torch.testing.assert_close(values[:, k], state_value[:, k : k + 1] + of_k - of_k.mean(1, keepdim=True))
    hidden = 2 * (FEATURES + 1) * WIDTH
    assert sum(p.numel() for p in head.parameters()) == hidden + (WIDTH + 1) * quantiles * (1 + ACTIONS)


@pytest.mark.parametrize("quantiles", [1, 7])
def test_dueling_streams_mean_what_their_names_say(quantiles: int) -> None:
    """Q's mean over actions is each quantile's state value; adding to all advantages changes nothing; V moves all."""
    head = DuelingHead(STREAM, ACTIONS, quantiles)
    before = head(features())
    torch.testing.assert_close(before.mean(-1), head.state_value(features()), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        head.advantages[-1].bias += 3.0
        torch.testing.assert_close(head(features()), before, rtol=1e-4, atol=1e-5)
        head.state_value[-1].bias += 2.0
        torch.testing.assert_close(head(features()), before + 2.0, rtol=1e-4, atol=1e-5)


def test_the_layout_of_quantiles() -> None:
    """Output k * A + a of the last layer is quantile k of action a, as in sb3-contrib."""
    for head, last in (
        (LinearHead(STREAM, ACTIONS, 7), "action_values"),
        (DuelingHead(STREAM, ACTIONS, 7), "advantages"),
    ):
        before = head(features())
        with torch.no_grad():
            head.get_submodule(last)[-1].bias[2 * ACTIONS + 3] += 10.0
        moved = (head(features()) - before).abs() > 5.0
        assert moved[:, 2, 3].all() and moved.sum() == N


@pytest.mark.parametrize("sigma", [None, 0.5])
@pytest.mark.parametrize("kind", [LinearHead, DuelingHead])
def test_rows_do_not_see_each_other(kind: type[nn.Module], sigma: float | None) -> None:
    """The values of an observation are the same alone, in a batch and behind further axes, with noise too."""
    head = kind(partial(STREAM, sigma=sigma), ACTIONS, 2)
    eps = noise(head) or None
    torch.testing.assert_close(head(features(), eps)[2:3], head(features()[2:3], eps))
    torch.testing.assert_close(head(features().view(2, 2, FEATURES), eps), head(features(), eps).view(2, 2, 2, ACTIONS))


def test_noise_reaches_every_layer() -> None:
    """Each noisy layer takes its own pair of vectors: hidden before output, state value before advantages."""
    head = LinearHead(partial(STREAM, sigma=0.5), ACTIONS, 2)
    eps = noise(head)
    torch.testing.assert_close(head(features(), eps).flatten(1), written_out(head.action_values, features(), eps))

    head = DuelingHead(partial(STREAM, sigma=0.5), ACTIONS)
    eps = noise(head)
    assert len(eps) == 8
    advantages = written_out(head.advantages, features(), eps[4:])
    expected = written_out(head.state_value, features(), eps[:4]) + advantages - advantages.mean(1, keepdim=True)
    torch.testing.assert_close(head(features(), eps).squeeze(1), expected)


@pytest.mark.parametrize("kind", [LinearHead, DuelingHead])
def test_all_linear_layers_are_noisy_or_none(kind: type[nn.Module]) -> None:
    """With sigma hidden and output layers of all streams are noisy; without noise they are their means; else plain."""
    head, plain = kind(partial(STREAM, sigma=0.5), ACTIONS), kind(STREAM, ACTIONS)
    assert all(isinstance(layer, NoisyLinear) for layer in head.modules() if isinstance(layer, nn.Linear))
    assert not any(isinstance(layer, NoisyLinear) for layer in plain.modules())
    missing = plain.load_state_dict(head.state_dict(), strict=False)
    assert not missing.missing_keys and all("sigma" in name for name in missing.unexpected_keys)
    assert torch.equal(head(features()), plain(features()))
    assert not torch.allclose(head(features(), noise(head)), plain(features()))


@pytest.mark.parametrize("sigma", [None, 0.5])
@pytest.mark.parametrize("kind", [LinearHead, DuelingHead])
def test_layer_norm(kind: type[nn.Module], sigma: float | None) -> None:
    """With layer_norm the hidden layer of every stream is normalised before its ReLU, with noise or without."""
    head = kind(partial(STREAM, layer_norm=True, sigma=sigma), ACTIONS)
    for layers in head.children():
        assert [type(layer) for layer in layers][1:3] == [nn.LayerNorm, nn.ReLU] and len(layers) == 4
        for eps in [None] if sigma is None else [None, noise(layers)]:
            hidden = linear(layers[0], features(), eps and eps[:2])
            centred = hidden - hidden.mean(1, keepdim=True)
            hidden = (centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()).clamp(min=0)
            torch.testing.assert_close(layers(features(), eps), linear(layers[-1], hidden, eps and eps[2:]))
    names = [name.split(".", 1)[1] for name, _ in kind(STREAM, ACTIONS).named_parameters()]
    assert set(names) == {"0.weight", "0.bias", "2.weight", "2.bias"}, "without it, as old checkpoints have it"
