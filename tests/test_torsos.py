"""Torsos: shapes, and pixels scaled exactly once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agent.nets.torsos import MinAtar, Mlp, Nature, has_channels_last, is_large, mlp_layers


def picture(*shape: int) -> torch.Tensor:
    """Random bytes."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def twins(kind: type[nn.Module], shape: tuple[int, ...], widths: list[int]) -> tuple[nn.Module, nn.Module]:
    """The torso for pictures and the one for other observations with the same weights."""
    ours, others = kind(shape, widths, pixels=True), kind(shape, widths)
    others.load_state_dict(ours.state_dict())
    return ours, others


def test_mlp_layers() -> None:
    """Each width is a linear layer with a ReLU behind it, the last one too; no width is no layer."""
    layers, features = mlp_layers(4, [6, 5])
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU] * 2
    assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == [(4, 6), (6, 5)]
    assert features == 5
    assert mlp_layers(4, []) == ([], 4)


@pytest.mark.parametrize(("kind", "shape"), [(Mlp, (7,)), (MinAtar, (2, 8, 9)), (Nature, (2, 40, 44))])
def test_layer_norm(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    """With layer_norm every fully connected layer is Linear, LayerNorm, ReLU, written out here without the gain."""
    torso = kind(shape, [6, 5], layer_norm=True)
    assert [type(layer) for layer in torso.layers] == [nn.Linear, nn.LayerNorm, nn.ReLU] * 2
    x, inputs = picture(3, *shape) % 2, []
    torso.layers.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    features = torso(x)
    expected = inputs[0]
    with torch.no_grad():
        for linear in (torso.layers[0], torso.layers[3]):
            expected = expected @ linear.weight.T + linear.bias
            centred = expected - expected.mean(1, keepdim=True)
            expected = (centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert not [m for m in kind(shape, [6, 5]).modules() if isinstance(m, nn.LayerNorm)]


def test_flattening_only() -> None:
    """Without layers vectors come through as they are, in f32, and pictures as shares of 255."""
    x = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Mlp((2, 5), [])(x), x.float().reshape(3, 10))
    torch.testing.assert_close(Mlp((2, 5), [], pixels=True)(picture(3, 2, 5)), picture(3, 2, 5).reshape(3, 10) / 255)


@pytest.mark.parametrize(
    ("kind", "shape", "widths"),
    [(Mlp, (7,), [5]), (MinAtar, (2, 8, 9), [5]), (Nature, (2, 40, 44), [5]), (Nature, (4, 36, 36), [])],
)
def test_pictures_are_scaled_once(kind: type[nn.Module], shape: tuple[int, ...], widths: list[int]) -> None:
    """Pictures give what the same in [0, 1] gives to the torso for other observations, which takes bytes as such."""
    ours, others = twins(kind, shape, widths)
    x = picture(3, *shape)
    before = x.clone()
    torch.testing.assert_close(ours(x), others(x / 255))
    torch.testing.assert_close(others(x), others(x.float()))
    assert not torch.allclose(ours(x), others(x))
    assert torch.equal(x, before), "the observation itself is not written to"


def test_minatar_planes_are_not_scaled() -> None:
    """Zeros and ones reach the convolution as zeros and ones."""
    torso = MinAtar((4, 10, 10), [])
    planes = picture(3, 4, 10, 10) % 2
    convolved = F.conv2d(planes.float(), torso.convolution.weight, torso.convolution.bias)
    torch.testing.assert_close(torso(planes), convolved.clamp(min=0).flatten(1))
    assert torso.convolution.weight.shape == (16, 4, 3, 3) and torso.features == 16 * 8 * 8


def test_minatar_layers_follow_the_convolution() -> None:
    """With widths, fully connected layers stand behind the flattened planes."""
    torso, flat = MinAtar((2, 5, 7), [6]), MinAtar((2, 5, 7), [])
    flat.load_state_dict(torso.state_dict(), strict=False)
    planes = picture(3, 2, 5, 7) % 2
    linear = torso.layers[0]
    torch.testing.assert_close(torso(planes), (flat(planes) @ linear.weight.T + linear.bias).clamp(min=0))


def test_nature_is_the_network_of_the_paper() -> None:
    """Filters, strides and the 3136 features behind four 84x84 frames are those of Mnih et al. 2015, with ReLUs."""
    torso = Nature((4, 84, 84), [], pixels=True)
    kinds = [type(layer) for layer in torso.convolutions]
    assert kinds == [nn.Conv2d, nn.ReLU] * 3
    shapes = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in torso.convolutions[::2]]
    assert shapes == [(4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]
    assert torso.features == 3136
    assert [p.shape for p in Nature((4, 84, 84), [9]).layers.parameters()] == [(9, 3136), (9,)]


@settings(max_examples=25)
@given(
    st.sampled_from([Mlp, MinAtar, Nature]),
    st.integers(1, 3),
    st.integers(36, 50),
    st.integers(36, 50),
    st.lists(st.integers(1, 9), max_size=2),
)
def test_features_are_what_comes_out(
    kind: type[nn.Module], channels: int, height: int, width: int, widths: list[int]
) -> None:
    """`features` is the width of the output, for every shape, and the output is f32 and never negative."""
    shape = (channels, height, width)
    torso = kind(shape, widths, pixels=True)
    features = torso(picture(2, *shape))
    assert features.shape == (2, torso.features) and features.dtype == torch.float32
    assert torso.features == (widths[-1] if widths else torso.features)
    assert (features >= 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_nature_takes_channels_last(channels: int) -> None:
    """Pictures as Gymnasium has them, [H, W, C], give what the same pictures give channels first."""
    last, first = Nature((96, 90, channels), [5], pixels=True), Nature((channels, 96, 90), [5], pixels=True)
    first.load_state_dict(last.state_dict())
    x = picture(3, 96, 90, channels)
    torch.testing.assert_close(last(x), first(x.permute(0, 3, 1, 2)))


@pytest.mark.parametrize(
    ("shape", "last", "large"),
    [
        ((3, 36, 36), False, True),
        ((4, 84, 84), False, True),
        ((36, 36, 3), True, True),
        ((96, 35, 3), True, False),
        ((35, 96, 3), False, False),
        ((96, 96, 2), False, False),
        ((84, 84), False, False),
        ((7,), False, False),
    ],
)
def test_where_channels_stand(shape: tuple[int, ...], last: bool, large: bool) -> None:
    """Channels are last where there are 1, 3 or 4 of them behind a side of 36 or more; both sides must be so large."""
    assert (has_channels_last(shape), is_large(shape)) == (last, large)


@pytest.mark.parametrize("shape", [(4, 35, 84), (4, 84, 35), (96, 35, 3), (84, 84), (7,), (1, 4, 84, 84)])
def test_nature_needs_frames(shape: tuple[int, ...]) -> None:
    """What three convolutions cannot take is refused with its shape, the least that is needed and the remedy."""
    with pytest.raises(ValueError, match=r"nature .*height >= 36.*--network\.torso mlp") as error:
        Nature(shape, [])
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(4, 2, 9), (4, 9, 2), (9, 9), (7,)])
def test_minatar_needs_a_grid(shape: tuple[int, ...]) -> None:
    """What is no grid, or smaller than the convolution, is refused with its shape, what is needed and the remedy."""
    with pytest.raises(ValueError, match=r"minatar .*height >= 3.*--network\.torso mlp") as error:
        MinAtar(shape, [])
    assert str(shape) in str(error.value)
    assert MinAtar((4, 3, 3), []).features == 16
