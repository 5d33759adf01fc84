"""Saliency against finite differences, patches hidden one by one, and networks that look at a planted pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from agent.config import NetworkSettings
from agent.explain.saliency import gradient, perturbation
from agent.nets.q_network import QNetwork, make_q_network


def board(*shape: int, seed: int = 0) -> np.ndarray:
    """A board of zeros and ones, u8 [1, *shape]."""
    return np.random.default_rng(seed).integers(0, 2, (1, *shape), dtype=np.uint8)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """A camera picture, u8 [1, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (1, *shape), dtype=np.uint8)


def network(shape: tuple[int, ...], pixels: bool, **settings: object) -> QNetwork:
    """A fresh network of three actions."""
    made = NetworkSettings(hidden=[16], **settings)
    return make_q_network(made, shape, pixels, 3, torch.Generator().manual_seed(0))


def in_numpy(module: nn.Module):
    """The network as perturbation asks it."""

    @torch.inference_mode()
    def q(observation: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(observation)).numpy()

    return q


def looks_at(*place: int):
    """Values of two actions: the second is the brightness at this place of the picture [C, H, W], the first is not."""

    def q(observation):
        seen = observation[(slice(None), *place)]
        seen = seen * 1.0
        stack = torch.stack if isinstance(seen, torch.Tensor) else np.stack
        return stack([0.0 * seen, seen], 1)

    return q


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Each cell's figure is the length of the value's slope over its channels, divided by the largest."""
    seen = board(4, 6, 5)
    module = network((4, 6, 5), False).double()
    # The torso makes f32 of what comes in, so the slow version asks the layers behind that for f64.
    torso = module.torso
    points = torch.from_numpy(seen).double()
    slopes = np.empty((4, 6, 5))
    for place in np.ndindex(4, 6, 5):
        values = []
        for sign in (-1e-6, 1e-6):
            moved = points.clone()
            moved[(0, *place)] += sign
            with torch.no_grad():
                values.append(module.head(torso.layers(torch.relu(torso.convolution(moved)).flatten(1)))[0, 0, 2].item())
        slopes[place] = (values[1] - values[0]) / 2e-6
    wanted = np.sqrt((slopes**2).sum(0))
    found = gradient(module.float(), seen, 2)
    assert found.dtype == np.float32 and found.shape == (6, 5)
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-4)


@pytest.mark.parametrize("place", [(1, 30, 50), (3, 0, 0), (0, 83, 41)])
def test_both_find_the_pixel_that_a_network_looks_at(place: tuple[int, int, int]) -> None:
    """On an Atari picture the most salient pixel is the planted one, or in its patch, and far ones do not count."""
    seen = picture(4, 84, 84)
    seen[0, :, place[1], place[2]] = 255  # so that a blur changes it
    _, row, column = place
    far = np.hypot(*np.meshgrid(np.arange(84) - row, np.arange(84) - column, indexing="ij")) > 30
    for found, slack in ((gradient(looks_at(*place), seen, 1), 0), (perturbation(looks_at(*place), seen, 1), 5)):
        y, x = np.unravel_index(found.argmax(), found.shape)
        assert max(abs(y - row), abs(x - column)) <= slack
        assert found.max() == 1.0 and found.min() >= 0.0 and found[far].max() < 0.02


def test_on_a_board_each_cell_is_emptied() -> None:
    """On a small board the map is the change when one cell is emptied in all its channels, cell by cell."""
    seen, q = board(4, 10, 10), in_numpy(network((4, 10, 10), False))
    wanted = np.empty((10, 10))
    for row, column in np.ndindex(10, 10):
        without = seen.copy()
        without[0, :, row, column] = 0
        wanted[row, column] = 0.5 * (q(without)[0, 1] - q(seen)[0, 1]) ** 2
    np.testing.assert_allclose(perturbation(q, seen, 1), wanted / wanted.max(), rtol=1e-3, atol=1e-5)


def test_on_a_picture_a_patch_is_blurred_through_a_window() -> None:
    """What the network is shown is Greydanus's: inside the window the blurred picture, outside the picture itself."""
    seen = picture(2, 40, 50)
    shown: list[np.ndarray] = []

    def q(observation: np.ndarray) -> np.ndarray:
        shown.append(observation)
        return np.zeros((len(observation), 1))

    assert not perturbation(q, seen, 0, grid=5).any()
    hidden = shown[1].astype(float)  # [25, 2, 40, 50]
    assert shown[1].dtype == np.uint8 and hidden.shape == (25, 2, 40, 50)
    row, column = 1, 3  # a patch of 8 x 10 pixels, its middle at (11.5, 34.5)
    y, x = np.mgrid[:40, :50]
    window = np.exp(-0.5 * (((y - 11.5) / 4.8) ** 2 + ((x - 34.5) / 6.0) ** 2))
    for channel in range(2):
        blurred = np.empty((40, 50))
        for i, j in np.ndindex(40, 50):
            weight = np.exp(-0.5 * (((y - i) / 1.5) ** 2 + ((x - j) / 1.875) ** 2))
            blurred[i, j] = (weight * seen[0, channel]).sum() / weight.sum()
        wanted = window * blurred + (1 - window) * seen[0, channel]
        assert np.abs(hidden[5 * row + column, channel] - wanted).max() <= 0.51


def test_an_action_that_looks_at_nothing_has_an_empty_map() -> None:
    """Where no pixel counts, or the network has diverged, the map is 0 and not a division by 0."""
    seen = picture(4, 84, 84)
    assert not gradient(looks_at(0, 3, 3), seen, 0).any() and not perturbation(looks_at(0, 3, 3), seen, 0).any()
    assert not perturbation(lambda given: np.full((len(given), 1), np.nan), seen, 0).any()


@pytest.mark.parametrize(
    ("shape", "pixels", "settings"),
    [
        ((4, 84, 84), True, {"distribution": "implicit", "dueling": True, "noisy": True, "quantiles": 4}),
        ((4, 84, 84), True, {"torso": "impala", "distribution": "quantile", "spectral_norm": True}),
        ((96, 96, 3), True, {}),  # channels last, as Gymnasium has them
        ((7, 10, 10), False, {}),
    ],
)
def test_every_network_and_layout_has_both_maps(
    shape: tuple[int, ...], pixels: bool, settings: dict[str, object]
) -> None:
    """All torsos and heads give maps of the picture's size, also inside inference mode; the network is untouched."""
    module = network(shape, pixels, **settings)
    seen = picture(*shape) if pixels else board(*shape)
    sides = shape[:2] if shape[-1] == 3 else shape[1:]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.inference_mode():
        found = gradient(module, seen, 1)
    assert found.shape == perturbation(in_numpy(module), seen, 1).shape == sides and found.max() == 1.0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_what_is_no_picture_is_refused_by_its_shape() -> None:
    """A vector of numbers has no pixels: the sentence says which shape was given and which is needed."""
    with pytest.raises(ValueError, match=r"needs one picture .* this observation is \(8,\)"):
        gradient(looks_at(0), np.zeros((1, 8), np.float32), 0)
    with pytest.raises(ValueError, match="needs one picture"):
        perturbation(looks_at(0), np.zeros((2, 4, 84, 84), np.uint8), 0)
