"""Packets of an episode as one animated picture that any browser or chat shows: WebP or GIF."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops

from agent.viewer.packet import unpack

WIDE = 320  # pixels that small games are scaled up to, about
LARGEST = 1 << 22  # pixels of a picture; larger ones are passed over
MOST_PICTURES = 2_000  # of an animation; of longer episodes every second, third, ... is shown, at the same speed
MOST_PER_S = 50.0  # browsers show a GIF's picture for a tenth of a second when it asks for less than a fiftieth
LAST_S = 1.0  # for so long the last picture stays
LOUD = ([0] * 16 + [255] * 240) * 3  # a JPEG's pixel that changed by less than 16 has not changed
COLOURS = 256  # of a GIF's picture


class Shot(NamedTuple):
    """A picture, and how long it is shown."""

    picture: Image.Image  # RGB
    seconds: float
    exact: bool  # kept without loss


def animate(
    packets: Iterable[bytes],
    form: str,
    pictures_per_s: float,
    count: int,
    on_share: Callable[[float], None] = lambda share: None,
) -> bytes:
    """Return about `count` packets as an animated "webp" or "gif" that shows `pictures_per_s` of them a second.

    Small games are scaled up by a whole number to about 320 pixels. One picture is held in memory at a time, and what
    has been encoded. `on_share` is told how much is done, 0 .. 1. ValueError when no packet holds a picture.
    """
    shots = shots_of(_counted(packets, count, on_share), pictures_per_s, count)
    first = next(shots, None)
    if first is None:
        raise ValueError("This episode holds no picture that can be shown.")
    (width, height), patches = first.picture.size, patches_of(itertools.chain([first], shots))
    if form == "gif":
        return _gif(patches, width, height, scale_of(height, width))
    return _webp(patches, width, height, scale_of(height, width), first.exact)


def _counted(packets: Iterable[bytes], count: int, on_share: Callable[[float], None]) -> Iterator[bytes]:
    for number, packet in enumerate(packets):
        on_share(number / max(1, count))
        yield packet


def shots_of(packets: Iterable[bytes], pictures_per_s: float, count: int) -> Iterator[Shot]:
    """Yield the pictures to show, thinned where they are too many or too fast; damaged ones are passed over."""
    step = max(1, -(-count // MOST_PICTURES), int(np.ceil(pictures_per_s / MOST_PER_S - 1e-6)))
    before: Shot | None = None
    for number, packet in enumerate(packets):
        last = number == count - 1
        if number % step and not last or (shot := _decode(packet, step / pictures_per_s)) is None:
            continue
        if before is not None:
            if shot.picture.size != before.picture.size:
                continue
            yield before
        before = shot
    if before is not None:
        yield before._replace(seconds=LAST_S)


def _decode(packet: bytes, seconds: float) -> Shot | None:
    try:
        image = Image.open(io.BytesIO(unpack(packet)[1]), formats=("WEBP", "JPEG", "PNG"))
        if image.width * image.height > LARGEST:
            return None
        return Shot(image.convert("RGB"), seconds, image.format != "JPEG")
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):  # whatever Pillow says of damaged files
        return None


def scale_of(height: int, width: int) -> int:
    """Return by which whole number a game's picture is scaled up."""
    return max(1, round(WIDE / max(height, width)))


class Patch(NamedTuple):
    """What changed from one picture to the next, a rectangle, and from when to when it is the newest."""

    left: int
    top: int
    pixels: np.ndarray  # u8 [h, w, 3]
    since: float  # seconds
    until: float

    def lasts(self, per_s: int) -> int:
        """How long it is the newest in parts of a second, so rounded that errors do not add up."""
        return round(self.until * per_s) - round(self.since * per_s)


def patches_of(shots: Iterable[Shot]) -> Iterator[Patch]:
    """Yield what changes; pictures in which nothing does only make the one before last longer.

    A rectangle begins at even places, as WebP wants it.
    """
    canvas: Image.Image | None = None  # what is seen
    patch, now = None, 0.0
    for shot in shots:
        if canvas is None:
            canvas, box = shot.picture.copy(), (0, 0, *shot.picture.size)
        else:
            changed = ImageChops.difference(shot.picture, canvas)
            box = (changed if shot.exact else changed.point(LOUD)).getbbox()
            if box is None:
                now += shot.seconds
                continue
            box = (box[0] & ~1, box[1] & ~1, box[2], box[3])
        if patch is not None:
            yield patch._replace(until=now)
        part = shot.picture.crop(box)
        canvas.paste(part, box)
        patch, now = Patch(box[0], box[1], np.asarray(part), now, now), now + shot.seconds
    if patch is not None:
        yield patch._replace(until=now)


def _grown(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel as a square, [h, w, ...] -> [h * scale, w * scale, ...]."""
    return np.ascontiguousarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))


# --- WebP: a RIFF file of one still picture per patch (developers.google.com/speed/webp/docs/riff_container) ----------


def _webp(patches: Iterable[Patch], width: int, height: int, scale: int, exact: bool) -> bytes:
    parts = [_chunk(b"ANIM", struct.pack("<IH", 0, 0))]  # background, repeated for ever
    for patch in patches:
        still, (high, wide) = io.BytesIO(), patch.pixels.shape[:2]
        options = {"lossless": True, "quality": 30, "method": 1} if exact else {"quality": 82, "method": 2}
        Image.fromarray(_grown(patch.pixels, scale)).save(still, "WEBP", **options)
        place = (patch.left * scale // 2, patch.top * scale // 2, wide * scale - 1, high * scale - 1, patch.lasts(1000))
        over = b"\x02"  # it replaces what is below and stays
        parts.append(_chunk(b"ANMF", b"".join(map(_u24, place)) + over + still.getvalue()[12:]))
    canvas = struct.pack("<I", 2) + _u24(width * scale - 1) + _u24(height * scale - 1)  # 2: it is an animation
    body = b"".join([b"WEBP", _chunk(b"VP8X", canvas), *parts])
    return _chunk(b"RIFF", body)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _u24(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


# --- GIF: one picture with its own palette per patch (w3.org/Graphics/GIF/spec-gif89a.txt) ---------------------------


def _gif(patches: Iterable[Patch], width: int, height: int, scale: int) -> bytes:
    parts = [b"GIF89a", struct.pack("<HHBBB", width * scale, height * scale, 0, 0, 0)]
    parts.append(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # repeated for ever
    for patch in patches:
        palette, pixels = _still_gif(patch.pixels, scale)
        high, wide = patch.pixels.shape[:2]
        size = (len(palette) // 3).bit_length() - 2  # of 2^(size + 1) colours
        parts.append(b"\x21\xf9\x04\x04" + struct.pack("<H", min(65_535, patch.lasts(100))) + b"\0\0")  # 4: it stays
        place = (patch.left * scale, patch.top * scale, wide * scale, high * scale, 0x80 | size)
        parts += [b"\x2c" + struct.pack("<HHHHB", *place), palette, pixels]
    return b"".join([*parts, b"\x3b"])


def _still_gif(pixels: np.ndarray, scale: int) -> tuple[bytes, bytes]:
    """Return the palette and the compressed pixels of one picture; up to 256 colours are exact, more not dithered."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.getcolors(COLOURS) is None:  # an octree takes a seventh of the time of the usual median cut
        chosen = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        index, palette = np.asarray(chosen), bytes(chosen.getpalette("RGB"))
    else:
        packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)  # [h, w]
        colours, index = np.unique(packed, return_inverse=True)
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes()
    grown = _grown(index.reshape(pixels.shape[:2]).astype(np.uint8), scale)
    image, still = Image.frombytes("P", grown.shape[::-1], grown.tobytes()), io.BytesIO()
    image.putpalette(palette)
    image.save(still, "GIF", interlace=0, optimize=False)
    data = still.getvalue()
    end = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # behind the header and its palette
    at = end
    while data[at] == 0x21:  # an extension: its blocks until an empty one
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return data[13:end], data[at + 10 : -1]  # behind the picture's own header, before the file's last byte
