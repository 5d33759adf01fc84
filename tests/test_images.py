"""Pictures read back with Pillow, and the overlay against a loop over its pixels."""

import io

import numpy as np
from PIL import Image, ImageSequence

from agent.telemetry.images import LARGEST, SIDE, Picture, frame, gif, overlaid, png


def scenes(count: int, height: int, width: int) -> list[np.ndarray]:
    """Pictures of few colours that all differ."""
    made = []
    for number in range(count):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, : width // 2] = (200, 30 + number, 40)
        picture[number % height, :] = 255
        made.append(picture)
    return made


def read(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    assert image.size == (picture.width, picture.height)
    return image


def test_an_animation_has_its_frames_in_order_and_at_their_pace() -> None:
    """Every frame comes back nearly as it was, shown for its time, over and over."""
    pictures = scenes(12, 210, 160)
    image = read(gif([frame(picture) for picture in pictures], 15))
    assert image.info["loop"] == 0 and image.n_frames == 12
    for number, shown in enumerate(ImageSequence.Iterator(image)):
        assert shown.info["duration"] == 70
        difference = np.asarray(shown.convert("RGB")).astype(int) - pictures[number]
        assert np.abs(difference).max() <= 8
    assert next(ImageSequence.Iterator(read(gif([frame(each) for each in pictures], 1000)))).info["duration"] == 20


def test_one_picture_is_an_animation_too() -> None:
    """An episode that ends at once can be shown."""
    assert read(gif([frame(scenes(1, 210, 160)[0])], 15)).size == (160, 210)


def test_boards_are_enlarged_cell_by_cell_and_large_pictures_made_smaller() -> None:
    """A board's cells become squares with sharp edges; a picture of 400 x 600 keeps its proportions."""
    board = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    shown = np.asarray(read(png(board)))
    assert shown.shape == (SIDE, SIDE, 3)
    assert (shown.reshape(10, 16, 10, 16, 3) == board[:, None, :, None]).all()
    assert read(png(np.zeros((400, 600, 3), np.uint8))).size == (LARGEST, 213)


def test_the_map_lies_in_red_over_a_grey_picture() -> None:
    """Where the weight is 0 the picture is grey and dim, where it is 1 it is red, in between it is mixed."""
    picture = np.random.default_rng(1).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    weights = np.random.default_rng(2).random((10, 10)).astype(np.float32)
    weights[0, 0], weights[0, 1] = 0.0, 1.0
    shown = overlaid(picture, weights)
    for row, column in np.ndindex(10, 10):
        grey = 0.6 * picture[row, column].mean()
        wanted = [grey + weights[row, column] * (red - grey) for red in (255, 40, 40)]
        assert np.abs(shown[row, column] - wanted).max() <= 0.51
    assert tuple(shown[0, 1]) == (255, 40, 40) and len(set(shown[0, 0].tolist())) == 1
    assert overlaid(np.zeros((210, 160, 3), np.uint8), np.ones((84, 84))).shape == (210, 160, 3)
