"""What goes over the wire and into .ep files: u32 little-endian length | JSON meta | image | saliency.

`meta` says in "format" what the image is, and in "saliency_bytes" how many of the last bytes are the saliency: a grey
PNG to be stretched over the image, white where it counts most.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

LARGEST = 256  # up to so many pixels in width and height, pictures are sent without loss
JPEG_QUALITY = 88
HEAD = struct.Struct("<I")
LENGTH = HEAD  # before each packet in an .ep file
LARGEST_PACKET = 8 << 20


def pack(meta: Mapping[str, Any], image: bytes, saliency: bytes = b"") -> bytes:
    """Return one packet; `saliency_bytes` is added to the meta, and numbers that are not finite become null."""
    head = json.dumps(plain({**meta, "saliency_bytes": len(saliency)}), separators=(",", ":"), allow_nan=False).encode()
    return b"".join((HEAD.pack(len(head)), head, image, saliency))


def unpack(packet: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Return meta, image and saliency of a packet; ValueError when it is none."""
    if len(packet) < HEAD.size:
        raise ValueError("A packet is cut off before its length.")
    (length,) = HEAD.unpack_from(packet)
    end = HEAD.size + length
    if end > len(packet):
        raise ValueError("A packet is cut off within its facts.")
    try:
        meta = json.loads(packet[HEAD.size : end])
        behind = int(meta["saliency_bytes"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"The facts of a packet cannot be read: {error!r:.200}.") from None
    if not 0 <= behind <= len(packet) - end:
        raise ValueError("A packet is cut off within its saliency.")
    return meta, packet[end : len(packet) - behind], packet[len(packet) - behind :]


def read_packets(path: Path) -> Iterator[bytes]:
    """Yield the packets of an .ep file; one that was cut off ends it."""
    with open(path, "rb") as file:
        yield from packets_in(file)


def packets_in(file: BinaryIO) -> Iterator[bytes]:
    """The same for an open file."""
    while len(head := file.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        packet = file.read(length) if length <= LARGEST_PACKET else b""
        if len(packet) < length:
            return
        yield packet


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: NumPy's numbers as Python's, floats with six digits, not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def encode_picture(picture: np.ndarray) -> tuple[bytes, str]:
    """Return a picture, u8 [H, W, 3], as bytes and their format: lossless "webp" of small ones, "jpeg" of large."""
    image, file = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    if max(image.size) <= LARGEST:
        image.save(file, "WEBP", lossless=True, quality=0, method=0)
        return file.getvalue(), "webp"
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue(), "jpeg"


def encode_saliency(importance: np.ndarray) -> bytes:
    """Return importance, f32 [H, W] in 0 .. 1, as a grey PNG: white is most."""
    grey = np.nan_to_num(np.clip(importance, 0, 1) * 255).astype(np.uint8)  # [H, W]
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=1)
    return file.getvalue()
