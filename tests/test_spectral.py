"""Spectral normalisation against singular values, Miyato's gradient and torch's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from agent.nets.spectral import SpectralConv2d


def convolution(channels: int = 3, wider: int = 5) -> SpectralConv2d:
    """A convolution whose weight is far from norm 1."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return SpectralConv2d(channels, wider, kernel_size=3, padding=1)


def maps(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 6, 7, generator=torch.Generator().manual_seed(1))


def norm(weight: torch.Tensor) -> float:
    """The largest singular value of the weight as a matrix [out, in * height * width]."""
    return torch.linalg.svdvals(weight.detach().flatten(1).double())[0].item()


def shift(layer: SpectralConv2d) -> None:
    """Write other weights in place, as an optimizer does."""
    with torch.no_grad():
        layer.weight += torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("channels", "wider"), [(3, 5), (1, 20), (4, 2)])
def test_the_norm_tends_to_one(channels: int, wider: int) -> None:
    """After many iterations the largest singular value of the folded weight is 1, wherever the weights moved."""
    layer = convolution(channels, wider)
    assert 0.8 < norm(layer.folded) < 1.3, "a fresh layer is not far off"
    shift(layer)
    layer.fold()
    off = abs(norm(layer.folded) - 1.0)
    for _ in range(300):
        layer.power_iterate()
    assert norm(layer.folded) == pytest.approx(1.0, abs=1e-5) and off > 1e-2
    assert layer.u.norm().item() == pytest.approx(1.0) and layer.v.norm().item() == pytest.approx(1.0)
    torch.testing.assert_close(layer.folded * norm(layer.weight), layer.weight.detach(), rtol=1e-4, atol=1e-5)


def test_one_iteration_is_one_step() -> None:
    """v = W^T u and u = W v, each at length 1, in this order and once."""
    layer = convolution()
    shift(layer)
    matrix, u = layer.weight.detach().flatten(1).double(), layer.u.double()
    v = matrix.T @ u
    v = v / v.square().sum().sqrt()
    u = matrix @ v
    u = u / u.square().sum().sqrt()
    layer.power_iterate()
    torch.testing.assert_close(layer.v.double(), v)
    torch.testing.assert_close(layer.u.double(), u)
    torch.testing.assert_close(layer.folded.flatten(1).double(), matrix / (u @ matrix @ v))


def test_the_gradient_flows_through_sigma() -> None:
    """dL/dW = (G - <G, W / sigma> u v^T) / sigma with G = dL/d(W / sigma), u and v constants (Miyato et al. 2018)."""
    layer = convolution()
    shift(layer)  # sigma is no singular value now, the formula holds all the same
    downstream = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(3))
    (layer(maps()) * downstream).sum().backward()

    w, u, v = layer.weight.detach().double(), layer.u.double(), layer.v.double()
    sigma = sum(u[i] * w.flatten(1)[i, j] * v[j] for i in range(len(u)) for j in range(len(v)))
    normalised = (w / sigma).requires_grad_()
    convolved = F.conv2d(maps().double(), normalised, layer.bias.detach().double(), padding=1)
    (g,) = torch.autograd.grad((convolved * downstream).sum(), normalised)
    inner = (g * normalised.detach()).sum()
    expected = (g - inner * torch.outer(u, v).view_as(w)) / sigma
    torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer.weight.grad.double(), g / sigma, rtol=1e-2, atol=1e-2), "as if sigma were constant"


def test_as_torch_has_it() -> None:
    """With the same u and v, torch's parametrization gives the same values and gradients."""
    layer = convolution()
    theirs = spectral_norm(nn.Conv2d(3, 5, kernel_size=3, padding=1)).eval()  # eval: u and v stay
    state = theirs.state_dict()
    for name, value in (("original", layer.weight), ("0._u", layer.u), ("0._v", layer.v)):
        state[f"parametrizations.weight.{name}"].copy_(value.detach())
    state["bias"].copy_(layer.bias.detach())
    torch.testing.assert_close(layer(maps()), theirs(maps()))
    layer(maps()).square().sum().backward()
    theirs(maps()).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, theirs.parametrizations.weight.original.grad)


def test_with_and_without_autograd_bit_for_bit() -> None:
    """The folded weight gives the very values of the path with gradient, in no_grad and in inference mode."""
    layer = convolution()
    shift(layer)
    layer.power_iterate()
    with_gradient = layer(maps())
    assert with_gradient.requires_grad
    with torch.no_grad():
        assert torch.equal(layer(maps()), with_gradient)
    with torch.inference_mode():
        assert torch.equal(layer(maps()), with_gradient)


def test_a_forward_pass_changes_nothing() -> None:
    """Neither acting nor learning moves u, v or the folded weight, whatever the mode; only power_iterate does."""
    layer = convolution()
    shift(layer)
    layer.fold()
    before = [tensor.clone() for tensor in (layer.u, layer.v, layer.folded)]
    for mode in (True, False):
        layer.train(mode)(maps()).sum().backward()
        with torch.no_grad():
            layer(maps())
    assert all(torch.equal(now, old) for now, old in zip((layer.u, layer.v, layer.folded), before, strict=True))
    layer.power_iterate()
    assert not any(torch.equal(now, old) for now, old in zip((layer.u, layer.v, layer.folded), before, strict=True))


def test_folding_is_explicit() -> None:
    """Without autograd the folded weight counts as it stands until `fold`, which writes it in place."""
    layer = convolution()
    address = layer.folded.data_ptr()
    shift(layer)
    with torch.no_grad():
        assert not torch.allclose(layer(maps()), torch.enable_grad()(layer)(maps()))
        layer.fold()
        assert torch.equal(layer(maps()), torch.enable_grad()(layer)(maps()))
    assert layer.folded.data_ptr() == address


def test_loading_folds() -> None:
    """A state holds W, bias, u and v and no folded weight; who loads it acts as its owner does, bit for bit."""
    layer, other = convolution(), convolution()
    shift(layer)
    layer.power_iterate()
    assert set(layer.state_dict()) == {"weight", "bias", "u", "v"}
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(other(maps()), layer(maps()))
    outer, inner = nn.Sequential(convolution()), nn.Sequential(layer)
    outer.load_state_dict(inner.state_dict())
    assert torch.equal(outer[0].folded, layer.folded), "also inside another module"


def test_a_copy_is_its_own() -> None:
    """A deep copy shares no tensor with its source, the folded weight included."""
    layer = convolution()
    copy, before = deepcopy(layer), layer.folded.clone()
    shift(copy)
    copy.power_iterate()
    assert torch.equal(layer.folded, before) and not torch.equal(copy.folded, before)
