"""Networks with noise and precision bound to them."""

from __future__ import annotations

import pytest
import torch

from agent.config import NetworkSettings
from agent.nets.bound import bind
from agent.nets.q_network import QNetwork, make_q_network


def network(**settings: object) -> QNetwork:
    generator = torch.Generator().manual_seed(0)
    return make_q_network(NetworkSettings(hidden=(16,), **settings), (5,), False, 3, generator)


X = torch.linspace(-1.0, 1.0, 20).view(4, 5)


def test_nothing_to_bind_is_the_network() -> None:
    """Without noise and in 32 bits a loss gets the network itself."""
    plain = network()
    assert bind(plain, None, "none") is plain


def test_noise_is_bound() -> None:
    """Values and quantiles are those of the network when it is told this noise."""
    noisy = network(noisy=True, distribution="quantile", quantiles=4)
    noise = noisy.draw_noise(torch.Generator().manual_seed(1))
    bound = bind(noisy, noise, "none")
    assert torch.equal(bound(X), noisy(X, noise)) and not torch.equal(bound(X), noisy(X))
    assert torch.equal(bound.quantiles(X), noisy.quantiles(X, None, noise))
    assert bound.fractions is noisy.fractions


@pytest.mark.parametrize("distribution", ["none", "quantile"])
def test_bf16_is_near_and_comes_out_as_f32(distribution: str) -> None:
    """In bf16 the values are those of 32 bits to its precision, not to the bit, and are f32; so are the gradients."""
    plain = network(distribution=distribution)
    bound = bind(plain, None, "bf16")
    for ours, exact in ((bound(X), plain(X)), (bound.quantiles(X), plain.quantiles(X))):
        assert ours.dtype == torch.float32 and not torch.equal(ours, exact)
        torch.testing.assert_close(ours, exact, rtol=0.05, atol=0.02)
    gradients = torch.autograd.grad(bound(X).sum(), list(plain.parameters()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
