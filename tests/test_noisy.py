"""Noisy layers against the formula, and their noise against its distribution."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from agent.nets.noisy import NoisyLinear, factorised_noise

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int, features: int) -> torch.Tensor:
    return torch.randn(count, features, generator=seeded(1))


def test_noise_is_as_the_formula_says() -> None:
    """The noise of every layer is sign(x) sqrt|x| of standard normal x: mean 0, variance E|x|, fourth moment 1."""
    eps_in, eps_out = factorised_noise([40_000, 10_000], seeded(), CPU)
    assert eps_in.shape == (40_000,) and eps_out.shape == (10_000,) and eps_in.dtype == torch.float32
    x = torch.randn(50_000, generator=seeded())
    assert torch.cat((eps_in, eps_out)).tolist() == pytest.approx(
        [math.copysign(math.sqrt(abs(value)), value) for value in x.tolist()], rel=1e-6, abs=1e-7
    )
    both = torch.cat((eps_in, eps_out))
    assert both.mean().abs() < 0.02
    assert both.var().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    assert both.pow(4).mean().item() == pytest.approx(1.0, abs=0.03)


def test_noise_comes_from_the_generator_alone() -> None:
    """The same state gives the same noise, the next draw another, and torch's own generator stays where it is."""
    generator, before = seeded(), torch.get_rng_state()
    state = generator.get_state()
    first, second = (factorised_noise([4, 3], generator, CPU) for _ in range(2))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    again = factorised_noise([4, 3], generator.set_state(state), CPU)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_goes_where_the_weights_are() -> None:
    """The draw happens on the generator's device and the result lies on the one asked for."""
    assert {part.device.type for part in factorised_noise([4, 3], seeded(), torch.device("meta"))} == {"meta"}


def test_the_formula() -> None:
    """y = (mu_w + sigma_w * eps_out eps_in^T) x + mu_b + sigma_b * eps_out, number by number."""
    layer, x = NoisyLinear(4, 3, sigma=0.5), rows(5, 4)
    with torch.no_grad():  # every sigma another one
        layer.weight_sigma.uniform_(generator=seeded(2))
        layer.bias_sigma.uniform_(generator=seeded(3))
    eps_in, eps_out = factorised_noise([4, 3], seeded(), CPU)
    expected = torch.empty(5, 3)
    for n in range(5):
        for o in range(3):
            y = (layer.bias[o] + layer.bias_sigma[o] * eps_out[o]).item()
            for i in range(4):
                y += ((layer.weight[o, i] + layer.weight_sigma[o, i] * eps_out[o] * eps_in[i]) * x[n, i]).item()
            expected[n, o] = y
    torch.testing.assert_close(layer(x, (eps_in, eps_out)), expected)
    torch.testing.assert_close(layer(x.view(5, 1, 1, 4), (eps_in, eps_out)), expected.view(5, 1, 1, 3))
    torch.testing.assert_close(layer.eval()(x, (eps_in, eps_out)), expected)  # the argument decides, not the mode


def test_without_noise_the_means_count() -> None:
    """Without noise it is the linear layer of the means, in training mode too; the mean over many draws is near it."""
    layer, x = NoisyLinear(4, 3, sigma=0.5).train(), rows(2, 4)
    mean = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), mean)
    generator = seeded()
    with torch.no_grad():
        draws = torch.stack([layer(x, factorised_noise([4, 3], generator, CPU)) for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.05)


def test_variance_is_as_the_formula_says() -> None:
    """Over draws Var y_o = s_w^2 E|x|^2 |input|^2 + s_b^2 E|x|, for all noise at its start, sigma0 / sqrt(inputs)."""
    layer, x, generator = NoisyLinear(9, 2, sigma=0.6), rows(1, 9), seeded()
    with torch.no_grad():
        draws = torch.cat([layer(x, factorised_noise([9, 2], generator, CPU)) for _ in range(20_000)])
    scale, of_noise = 0.6 / 3.0, math.sqrt(2 / math.pi)
    expected = scale**2 * (of_noise**2 * x.square().sum().item() + of_noise)
    assert draws.var(0).tolist() == pytest.approx([expected] * 2, rel=0.06)


def test_the_start() -> None:
    """Means fill the interval of plus or minus 1 / sqrt(inputs), all sigmas are sigma0 / sqrt(inputs)."""
    layer = NoisyLinear(100, 30, sigma=0.4)
    for mean in (layer.weight, layer.bias):
        assert 0.07 < mean.abs().max() <= 0.1
    assert torch.equal(layer.weight_sigma, torch.full((30, 100), 0.04))
    assert torch.equal(layer.bias_sigma, torch.full((30,), 0.04))


def test_noise_is_learned() -> None:
    """With noise the gradient reaches means and sigmas, d/dsigma being the noise times d/dmu."""
    layer, noise = NoisyLinear(4, 3, sigma=0.5), factorised_noise([4, 3], seeded(), CPU)
    layer(rows(5, 4), noise).square().sum().backward()
    torch.testing.assert_close(layer.weight_sigma.grad, layer.weight.grad * noise[1][:, None] * noise[0])
    torch.testing.assert_close(layer.bias_sigma.grad, layer.bias.grad * noise[1])
    assert (layer.weight.grad != 0).all()
