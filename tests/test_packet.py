"""Tests of agent/viewer/packet.py: what goes over the wire comes out as it went in."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from agent.viewer.packet import encode_picture, encode_saliency, pack, plain, unpack


def test_a_packet_comes_out_as_it_went_in() -> None:
    """Meta, image and saliency are the same, whatever bytes they hold."""
    meta = {"room": "live", "n": 7, "q": np.array([1.5, -0.25]), "held": None}
    found, image, saliency = unpack(pack(meta, b"\x00picture", b"png\xff"))
    assert found == {"room": "live", "n": 7, "q": [1.5, -0.25], "held": None, "saliency_bytes": 4}
    assert (image, saliency) == (b"\x00picture", b"png\xff")
    assert unpack(pack({}, b"i"))[1:] == (b"i", b"")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_what_is_not_finite_becomes_null(value: float) -> None:
    """JSON knows no NaN: a browser would throw the whole packet away."""
    assert plain({"q": [value, 1.0]}) == {"q": [None, 1.0]}
    json.dumps(plain([value]), allow_nan=False)


def test_numbers_keep_what_matters() -> None:
    """Times keep their microseconds, small values six digits, counts all of theirs; what is unknown becomes text."""
    assert plain(1_795_285_457.965405) == 1_795_285_457.965405
    assert plain(np.float64(1 / 3e5)) == 3.33333e-06
    assert plain(np.int64(2**40)) == 2**40
    assert plain({1: (True, np.bool_(False), {"a"})}) == {"1": [True, False, ["a"]]}
    assert plain(object).startswith("<class")


@pytest.mark.parametrize("cut", [0, 3, 10, -1])
def test_a_packet_that_is_cut_off_is_named(cut: int) -> None:
    """Half a packet is an error, not half a picture."""
    with pytest.raises(ValueError, match="packet"):
        unpack(pack({"n": 1}, b"", b"saliency")[:cut])


@pytest.mark.parametrize("head", [b"[]", b'{"saliency_bytes": -1}', b'{"saliency_bytes": "x"}', b"\xff", b"[" * 9999])
def test_a_packet_of_nonsense_is_named(head: bytes) -> None:
    """Facts that no packet has are an error of one kind."""
    with pytest.raises(ValueError, match="packet"):
        unpack(len(head).to_bytes(4, "little") + head + b"image")


def test_small_pictures_lose_nothing() -> None:
    """An Atari screen comes back pixel for pixel as WebP; a large picture comes back much the same as JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8)
    data, form = encode_picture(noise)
    assert form == "webp"
    assert (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) == noise).all()
    smooth = np.linspace(0, 255, 400 * 600 * 3).reshape(400, 600, 3).astype(np.uint8)
    data, form = encode_picture(smooth[:, ::-1])
    assert form == "jpeg"
    assert np.abs(np.asarray(Image.open(io.BytesIO(data)), int) - smooth[:, ::-1]).mean() < 4


def test_saliency_is_a_grey_picture() -> None:
    """White is most; what lies outside of 0 .. 1 or is no number is none or all, not noise."""
    image = Image.open(io.BytesIO(encode_saliency(np.array([[0.0, 0.5, 1.0], [np.nan, -3.0, 9.0]], np.float32))))
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 127, 255], [0, 0, 255]]
