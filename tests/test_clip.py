"""Tests of agent/viewer/clip.py: animations show the packets' pictures, at their speed, whatever decodes them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from agent.viewer import clip
from agent.viewer.clip import animate, scale_of
from agent.viewer.packet import encode_picture, pack


def moving(count: int, height: int = 21, width: int = 16, colours: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Pictures of few colours in which a square moves, stays for a while, and at times all changes."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    ground, pictures = palette[rng.integers(0, colours, (height, width))], []
    for t in range(count):
        if t % 13 == 12:
            ground = palette[rng.integers(0, colours, (height, width))]
        picture = ground.copy()
        at = t // 3 * 2  # three times the same
        y, x = at % (height - 3), at % (width - 3)
        picture[y : y + 3, x : x + 3] = palette[t // 3 % colours]
        pictures.append(picture)
    return pictures


def packets(pictures: list[np.ndarray]) -> list[bytes]:
    """As they go over the wire."""
    return [pack({"step": t, "format": "webp"}, encode_picture(picture)[0]) for t, picture in enumerate(pictures)]


def shown(data: bytes) -> list[tuple[int, np.ndarray]]:
    """Every frame with the milliseconds that it is shown, as Pillow decodes them."""
    image, found = Image.open(io.BytesIO(data)), []
    for number in range(image.n_frames):
        image.seek(number)
        image.load()
        found.append((image.info["duration"], np.asarray(image.convert("RGB"))))
    return found


def huge(side: int) -> bytes:
    """A PNG that claims to be a square of so many pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10_000))
    file = b"\x89PNG\r\n\x1a\n"
    for each in (head, data, b"IEND"):
        file += struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each))
    return file


@pytest.mark.parametrize("form", ["webp", "gif"])
@pytest.mark.parametrize(("height", "width"), [(21, 16), (10, 10), (7, 33), (210, 160), (250, 251)])
def test_every_picture_at_its_time(form: str, height: int, width: int) -> None:
    """At every moment the picture is the packet's of that moment, pixel by pixel, each pixel a square."""
    pictures = moving(40, height, width)
    frames = shown(animate(packets(pictures), form, 20.0, 40))
    scale, clock = scale_of(height, width), 0
    assert frames[0][1].shape == (height * scale, width * scale, 3)
    for milliseconds, frame in frames:
        expected = pictures[min(39, clock // 50)]
        np.testing.assert_array_equal(frame, expected.repeat(scale, 0).repeat(scale, 1))
        clock += milliseconds
    assert clock == 39 * 50 + 1000 and len(frames) < 30  # what did not change is one frame


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(10, 10, 32), (84, 84, 4), (210, 160, 2), (400, 600, 1), (900, 900, 1)]
)
def test_small_games_become_watchable(height: int, width: int, scale: int) -> None:
    """The longer side is about 320 pixels where the game's own is smaller."""
    assert scale_of(height, width) == scale


def test_a_gif_of_many_colours_has_no_noise() -> None:
    """More than 256 colours become the nearest ones, without the dots of dithering: a smooth slope stays one."""
    slope = np.zeros((40, 200, 3), np.uint8)
    slope[:, :, 0], slope[:, :, 1] = np.arange(200), np.arange(40)[:, None] * 5
    (_, frame), *_ = shown(animate(packets([slope]), "gif", 10.0, 1))
    off = np.abs(frame[::2, ::2].astype(int) - slope)
    assert off.max() <= 24 and (np.diff(frame[::2, ::2, 0].astype(int), axis=1) >= 0).mean() > 0.98


def test_jpegs_do_not_flicker() -> None:
    """In pictures kept with loss, what only their noise changed stays as it is."""
    rng = np.random.default_rng(0)
    ground = np.full((60, 80, 3), 90, np.uint8)
    made = []
    for t in range(6):
        picture = (ground + rng.integers(-4, 5, ground.shape)).astype(np.uint8)
        picture[10:20, 10 * t : 10 * t + 10] = 250
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90)
        made.append(pack({"step": t}, file.getvalue()))
    for form in ("webp", "gif"):
        frames = [frame for _, frame in shown(animate(made, form, 10.0, 6))]
        corner = np.stack([frame[160:, :40] for frame in frames]).astype(int)
        assert len(frames) == 6 and np.ptp(corner, axis=0).max() <= 2


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_long_episodes_are_thinned_at_the_same_speed(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most pictures every so many is shown, for as long as all would be; the last one is always there."""
    monkeypatch.setattr(clip, "MOST_PICTURES", 20)
    pictures = moving(90, colours=8)
    frames = shown(animate(packets(pictures), form, 10.0, 90))
    assert len(frames) <= 20 and sum(each for each, _ in frames) == pytest.approx(9_900, abs=500)
    np.testing.assert_array_equal(frames[-1][1][::15, ::15], pictures[-1])


def test_fast_games_are_shown_at_their_speed() -> None:
    """120 pictures a second are more than browsers show: fewer, so that a second stays a second."""
    pictures = moving(240)
    frames = shown(animate(packets(pictures), "gif", 120.0, 240))
    assert min(each for each, _ in frames) >= 20 and sum(each for each, _ in frames) == pytest.approx(3_000, abs=40)


def test_damaged_packets_are_passed_over() -> None:
    """Noise, other sizes, bombs and cut pictures are left out; of nothing else there is no animation."""
    good = packets(moving(9)[::3])
    other, bombs = packets(moving(1, 30, 30)), [pack({}, huge(side)) for side in (3_000, 30_000)]
    bad = [b"", b"\xff" * 100, pack({}, b"no picture"), *bombs, good[0][:-40], *other]
    mixed = [good[0], *bad, good[1], good[2]]
    (_, first), *_, (_, last) = shown(animate(mixed, "webp", 10.0, len(mixed)))
    np.testing.assert_array_equal(first, shown(animate(good[:1], "webp", 10.0, 1))[0][1])
    np.testing.assert_array_equal(last, shown(animate(good[2:], "webp", 10.0, 1))[0][1])
    with pytest.raises(ValueError, match="holds no picture"):
        animate(bad[:-1], "gif", 10.0, len(bad) - 1)


def test_memory_does_not_grow_with_the_episode() -> None:
    """Pictures are decoded one at a time: ten times as many need no more memory than what is encoded."""
    peaks = []
    for count in (20, 200):
        made = packets(moving(count, 120, 120))
        tracemalloc.start()
        size = len(animate(iter(made), "gif", 30.0, count))
        peaks.append(tracemalloc.get_traced_memory()[1] - size)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000
