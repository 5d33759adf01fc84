"""The residual torso against the network of the paper, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agent.nets.impala import Impala
from agent.nets.spectral import SpectralConv2d


def picture(*shape: int) -> torch.Tensor:
    """Random bytes."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def written_out(torso: Impala, x: torch.Tensor, max_pool: int | None) -> torch.Tensor:
    """What a torso without fully connected layers gives for bytes, from its weights in their order alone."""
    modules = [m for m in torso.modules() if isinstance(m, nn.Conv2d | nn.GroupNorm)]

    def convolve(x: torch.Tensor) -> torch.Tensor:
        layer = modules.pop(0)
        weight = layer.weight
        if isinstance(layer, SpectralConv2d):
            weight = weight / (layer.u @ weight.reshape(len(weight), -1) @ layer.v)
        return F.conv2d(x, weight, layer.bias, padding=1)

    x = x.double().div(255).float()
    for _ in range(3):
        x = convolve(x)
        if isinstance(modules[0], nn.GroupNorm):
            norm = modules.pop(0)
            centred = x - x.mean((1, 2, 3), keepdim=True)
            x = centred / (centred.square().mean((1, 2, 3), keepdim=True) + norm.eps).sqrt()
            x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
        x = F.pad(x, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
        for _ in range(2):
            x = x + convolve(convolve(x.clamp(min=0)).clamp(min=0))
    assert not modules
    x = x.clamp(min=0)
    return (x if max_pool is None else F.adaptive_max_pool2d(x, max_pool)).flatten(1)


@pytest.mark.parametrize(
    "options",
    [
        {"max_pool": None},
        {"max_pool": 3, "width": 2},
        {"max_pool": 3, "spectral_norm": True},
        {"max_pool": None, "layer_norm": True},
        {"max_pool": 2, "spectral_norm": True, "layer_norm": True},
    ],
)
def test_the_network_of_the_paper(options: dict[str, Any]) -> None:
    """Blocks, order of activations, normalisation, pooling and the one division by 255 are the written-out ones."""
    torso, x = Impala((4, 21, 33), [], pixels=True, **options), picture(2, 4, 21, 33)
    with torch.no_grad():  # a norm that is not the identity
        for norm in (m for m in torso.modules() if isinstance(m, nn.GroupNorm)):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-1.0, 1.0)
    before = x.clone()
    torch.testing.assert_close(torso(x), written_out(torso, x, options["max_pool"]), rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before), "the observation itself is not written to"


def test_pictures_are_scaled_once() -> None:
    """Bytes give what the same in [0, 1] gives to the torso for other observations, which takes bytes as they are."""
    ours, others = Impala((2, 48, 48), [5], pixels=True), Impala((2, 48, 48), [5])
    others.load_state_dict(ours.state_dict())
    x = picture(3, 2, 48, 48)
    torch.testing.assert_close(ours(x), others(x / 255))
    assert not torch.allclose(ours(x), others(x))


@pytest.mark.parametrize(("width", "channels"), [(1, [16, 32, 32]), (2, [32, 64, 64]), (4, [64, 128, 128])])
def test_the_sizes_of_the_paper(width: int, channels: list[int]) -> None:
    """Fifteen 3x3 convolutions, 16, 32 and 32 channels times the width; 11x11 maps behind 84x84 frames, or 6x6."""
    torso = Impala((4, 84, 84), [], width=width)
    convolutions = [m for m in torso.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [count for count in channels for _ in range(5)]
    assert {c.kernel_size for c in convolutions} == {(3, 3)} and convolutions[0].in_channels == 4
    assert torso.features == 36 * channels[-1]
    assert Impala((4, 84, 84), [], width=width, max_pool=None).features == 121 * channels[-1]


def test_spectral_norm_is_for_residuals_only() -> None:
    """The twelve convolutions inside the residuals are normalised, stems and linear layers are not; off means none."""
    torso = Impala((4, 48, 48), [7], spectral_norm=True)
    convolutions = [type(m) for m in torso.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [nn.Conv2d, *[SpectralConv2d] * 4] * 3
    assert type(torso.layers[0]) is nn.Linear
    assert not [m for m in Impala((4, 48, 48), [7]).modules() if isinstance(m, SpectralConv2d)]


def test_layer_norm() -> None:
    """A norm over all channels and places follows every stem, and one over the features every linear layer."""
    torso = Impala((4, 48, 48), [7], layer_norm=True)
    assert [type(m) for m in torso.layers] == [nn.Linear, nn.LayerNorm, nn.ReLU]
    assert [(m.num_groups, m.num_channels) for m in torso.modules() if isinstance(m, nn.GroupNorm)] == [
        (1, 16),
        (1, 32),
        (1, 32),
    ]
    assert [type(m) for m in torso.blocks[0]][:3] == [nn.Conv2d, nn.GroupNorm, nn.MaxPool2d]
    plain = Impala((4, 48, 48), [7])
    assert not [m for m in plain.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm)]


@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(8, 50),
    st.integers(8, 50),
    st.booleans(),
    st.lists(st.integers(1, 9), max_size=2),
)
def test_features_are_what_comes_out(channels: int, height: int, width: int, pool: bool, widths: list[int]) -> None:
    """`features` is the width of the output for every shape, with the largest pooling that fits or none."""
    max_pool = (min(height, width) + 7) // 8 if pool else None
    torso = Impala((channels, height, width), widths, pixels=True, max_pool=max_pool)
    features = torso(picture(2, channels, height, width))
    assert features.shape == (2, torso.features) and features.dtype == torch.float32
    assert torso.features == (widths[-1] if widths else torso.features)
    assert (features >= 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last(channels: int) -> None:
    """Pictures as Gymnasium has them, [H, W, C], give what the same pictures give channels first."""
    last, first = Impala((64, 50, channels), [5], pixels=True), Impala((channels, 64, 50), [5], pixels=True)
    first.load_state_dict(last.state_dict())
    x = picture(3, 64, 50, channels)
    torch.testing.assert_close(last(x), first(x.permute(0, 3, 1, 2)))


@pytest.mark.parametrize("shape", [(4, 7, 84), (4, 84, 7), (7, 96, 3), (84, 84), (7,), (1, 4, 84, 84)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    """Vectors and grids that are too small are refused with their shape, the least that is needed and the remedy."""
    with pytest.raises(ValueError, match=r"impala .*height >= 8.*--network\.torso mlp") as error:
        Impala(shape, [], max_pool=None)
    assert str(shape) in str(error.value)
    assert Impala((4, 8, 8), [], max_pool=None).features == 32


@pytest.mark.parametrize(("shape", "last"), [((4, 40, 84), "5x11"), ((4, 10, 10), "2x2"), ((96, 40, 3), "12x5")])
def test_pooling_to_more_than_there_is_is_refused(shape: tuple[int, ...], last: str) -> None:
    """A max_pool above a side of the last maps names the maps, the observation and the largest that would do."""
    side = min(int(part) for part in last.split("x"))
    remedy = rf"max_pool \({side + 1}\).*{last}.*--network\.max-pool {side} or less, or None"
    with pytest.raises(ValueError, match=remedy) as error:
        Impala(shape, [], max_pool=side + 1)
    assert str(shape) in str(error.value)
    assert Impala(shape, [], max_pool=side).features == 32 * side**2
