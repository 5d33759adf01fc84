"""Which pixels an action's value hangs on: by its gradient, quick and noisy, or by hiding patches, slow and true."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from agent.nets.torsos import has_channels_last, is_large

# Greydanus et al. 2018 have patches of sigma 5, every 5 pixels, and a blur of sigma 3, on pictures of 80 x 80.
PATCH = 0.6  # sigma of a patch, in distances between patches
BLUR = 3 / 80  # sigma of the blur, in sides of the picture
SMOOTH = 2 / 80  # sigma with which a gradient is smoothed, in sides of the picture

Network = Callable[[torch.Tensor], torch.Tensor]  # [N, *observation_shape] -> [N, A]
Values = Callable[[np.ndarray], np.ndarray]  # the same in numpy, observations in the game's own dtype


def gradient(network: Network, observation: np.ndarray, action: int) -> np.ndarray:
    """Return how fast the action's value changes with each pixel, [1, *observation_shape] -> f32 [H, W] in 0 .. 1.

    That is the length of the gradient over a pixel's channels (or the frames of the stack); of large pictures it is
    smoothed. The largest is 1, all are 0 where no pixel counts. Raises ValueError when observations are not pictures.
    """
    planes = _planes(observation)
    device = next((each.device for each in getattr(network, "parameters", list)()), "cpu")
    with torch.inference_mode(False), torch.enable_grad():
        pixels = torch.tensor(observation, dtype=torch.float32, device=device, requires_grad=True)
        (slope,) = torch.autograd.grad(network(pixels)[0, action], pixels)
    length = np.linalg.norm(_channels_first(slope.cpu().numpy()[0], observation), axis=0)  # [H, W]
    if is_large(observation.shape[1:]):
        across, along = (_smoothing(side, SMOOTH * side) for side in planes.shape[1:])
        length = across @ length @ along.T
    return _scaled(length)


def perturbation(q: Values, observation: np.ndarray, action: int, grid: int = 10) -> np.ndarray:
    """Return how much the action's value changes when each of grid x grid patches is hidden, f32 [H, W] in 0 .. 1.

    Half the squared change, as Greydanus et al. 2018 have it. `q` is asked once, for grid * grid observations. A patch
    of a large picture is blurred through a Gaussian window; of a small board, whose cells are zeros and ones, a blur
    would be no board at all: there a patch is emptied, at the default grid cell by cell. The largest is 1, all are 0
    where no patch counts. Raises ValueError when observations are not pictures.
    """
    planes = _planes(observation)  # [C, H, W]
    height, width = planes.shape[1:]
    rows, columns = min(grid, height), min(grid, width)
    if is_large(observation.shape[1:]):
        blurred = _smoothing(height, BLUR * height) @ planes @ _smoothing(width, BLUR * width).T
        window = _windows(height, width, rows, columns)[:, None]  # [P, 1, H, W]
        hidden = planes + window * (blurred - planes)
    else:
        window = _cells(height, width, rows, columns)[:, None]
        hidden = np.where(window, 0.0, planes)
    if observation.dtype.kind in "iu":
        hidden = np.rint(hidden)
    hidden = hidden.astype(observation.dtype)  # [P, C, H, W]
    if has_channels_last(observation.shape[1:]):
        hidden = np.moveaxis(hidden, 1, -1)
    before = float(np.asarray(q(observation))[0, action])
    change = 0.5 * (np.asarray(q(np.ascontiguousarray(hidden)), np.float64)[:, action] - before) ** 2  # [P]
    return _scaled(_spread(height, rows) @ change.reshape(rows, columns) @ _spread(width, columns).T)


def _planes(observation: np.ndarray) -> np.ndarray:
    """The picture with its channels first, f32 [C, H, W]."""
    if observation.ndim != 4 or len(observation) != 1:
        shown = tuple(observation.shape[1:])
        raise ValueError(f"Saliency needs one picture [1, channels, height, width]; this observation is {shown}.")
    return _channels_first(observation[0], observation).astype(np.float32)


def _channels_first(picture: np.ndarray, observation: np.ndarray) -> np.ndarray:
    return np.moveaxis(picture, -1, 0) if has_channels_last(observation.shape[1:]) else picture


def _scaled(weights: np.ndarray) -> np.ndarray:
    most = float(weights.max())
    if not 0.0 < most < np.inf:  # nothing counts, or a network that has diverged
        return np.zeros(weights.shape, np.float32)
    return (weights / most).astype(np.float32)


@lru_cache
def _smoothing(side: int, sigma: float) -> np.ndarray:
    """The matrix f32 [side, side] that smooths one axis by a Gaussian; every row adds up to 1, also at the edges."""
    place = np.arange(side)
    weights = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _centres(side: int, count: int) -> np.ndarray:
    """Where the middles of `count` equal parts of an axis lie, in pixels, f64 [count]."""
    return (np.arange(count) + 0.5) * side / count - 0.5


@lru_cache
def _windows(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Gaussian windows, 1 in the middle of their patch, f32 [rows * columns, H, W]."""
    along = [
        np.exp(-0.5 * ((np.arange(side) - _centres(side, count)[:, None]) / (PATCH * side / count)) ** 2)
        for side, count in ((height, rows), (width, columns))
    ]
    return np.einsum("ih,jw->ijhw", *along).reshape(-1, height, width).astype(np.float32)


@lru_cache
def _cells(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """The cells of each patch of a board, bool [rows * columns, H, W]."""
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    patch = row[:, None] * columns + column  # [H, W]
    return patch == np.arange(rows * columns)[:, None, None]


@lru_cache
def _spread(side: int, count: int) -> np.ndarray:
    """The matrix f64 [side, count] that stretches an axis of patches over its pixels, linearly between the middles."""
    middle = _centres(side, count)
    return np.stack([np.interp(np.arange(side), middle, unit) for unit in np.eye(count)], axis=1)
