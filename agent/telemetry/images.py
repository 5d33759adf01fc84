"""Pictures for the Images tab of TensorBoard: an animation as GIF, a still as PNG, a map laid over a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 160  # least of a picture, in pixels: a board of 10 x 10 cells is enlarged, cell by cell
LARGEST = 320  # most of it: what is larger is only heavier
HEAT = np.array([255.0, 40.0, 40.0])


class Picture(NamedTuple):
    """An encoded picture, as TensorBoard takes it."""

    data: bytes
    height: int
    width: int


def frame(picture: np.ndarray) -> Image.Image:
    """Return a picture, u8 [H, W, 3], as a frame for `gif`: small, in 256 colours of its own."""
    return _sized(picture).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def gif(frames: Sequence[Image.Image], per_s: float) -> Picture:
    """Return at least one `frame` as an animation without end, shown at `per_s` frames per second.

    GIF counts hundredths of a second, and browsers take less than two of them for ten.
    """
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=max(20, round(100 / per_s) * 10), loop=0
    )
    return Picture(buffer.getvalue(), frames[0].height, frames[0].width)


def png(picture: np.ndarray) -> Picture:
    """Return a picture, u8 [H, W, 3], as a still."""
    image = _sized(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), image.height, image.width)


def overlaid(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a picture, u8 [H, W, 3], greyed and dimmed, with weights [h, w] in 0 .. 1 over it in red, u8 [H, W, 3]."""
    height, width = picture.shape[:2]
    smooth = Image.Resampling.BILINEAR if min(weights.shape) >= 36 else Image.Resampling.NEAREST
    heat = np.asarray(Image.fromarray(np.asarray(weights, np.float32)).resize((width, height), smooth))[..., None]
    grey = 0.6 * picture.astype(np.float64).mean(axis=2, keepdims=True)
    return np.rint(grey + np.clip(heat, 0.0, 1.0) * (HEAT - grey)).astype(np.uint8)


def _sized(picture: np.ndarray) -> Image.Image:
    """The picture between SIDE and LARGEST; enlarged by whole numbers, so that edges stay sharp."""
    image = Image.fromarray(picture)
    if min(image.size) < SIDE:
        return image.resize([-(-SIDE // min(image.size)) * side for side in image.size], Image.Resampling.NEAREST)
    if max(image.size) > LARGEST:
        share = LARGEST / max(image.size)
        return image.resize([max(1, round(side * share)) for side in image.size], Image.Resampling.BILINEAR)
    return image
