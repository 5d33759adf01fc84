"""Literals of generated C: exact, finite, of the right width."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.freeze.emit.c_text import KERNELS, constants, double, kernel, real, smallest


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_are_exact(value: float) -> None:
    """A float32 comes back from its text to the last bit, sign of zero included, and the text is one C99 constant."""
    text = real(value)
    assert re.fullmatch(r"-?0x[01](\.[0-9a-f]*[1-9a-f])?p[+-]\d+f", text)
    assert float.fromhex(text[:-1]).hex() == float(np.float32(value)).hex()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_are_exact(value: float) -> None:
    """So does a float64."""
    assert float.fromhex(double(value)).hex() == value.hex()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_only_finite_numbers(value: float) -> None:
    """What is not finite, or not in float32, has no text; it would be a name."""
    with pytest.raises(ValueError, match="not finite"):
        real(value)
    with pytest.raises(ValueError, match="not finite"):
        constants("float", "x", np.array([0, value]))


def test_arrays() -> None:
    """Values in C order, equal ones alike, in lines of bounded length."""
    values = np.random.default_rng(0).integers(-99, 99, (9, 40))
    text = constants("int8_t", "x", values)
    assert text.startswith("static const int8_t x[360] = {\n") and text.endswith("};\n")
    assert [int(word) for word in re.findall(r"-?\d+(?=,)", text)] == values.reshape(-1).tolist()
    assert max(map(len, text.splitlines())) < 120
    floats = np.float32([0.5, -0.0, 0.0, 0.5])
    assert constants("float", "x", floats).splitlines()[1] == "0x1p-1f,-0x0p+0f,0x0p+0f,0x1p-1f,"
    assert "0x1.8000000000000p+1" in constants("double", "x", np.array([3.0]))


def test_smallest_type() -> None:
    """The narrowest signed type that holds the values."""
    for most, ctype in ((127, "int8_t"), (128, "int16_t"), (2**31 - 1, "int32_t"), (2**31, "int64_t")):
        assert smallest(np.array([0, most])) == ctype
        assert smallest(np.array([0, -most - 1])) == ctype


def test_kernels_are_filled_completely() -> None:
    """A word without a value stops instead of being written."""
    names = [path.stem for path in KERNELS.glob("*.c")]
    assert len(names) > 30
    with pytest.raises(KeyError, match="type"):
        kernel("transpose")
    assert "@" not in kernel("transpose", type="float")
