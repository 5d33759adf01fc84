"""Whole numbers on their way from step to step against the reference's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.freeze import integer
from agent.freeze.emit.onnx_nodes import Nodes
from agent.freeze.emit.onnx_steps import (
    Integers,
    as_bytes,
    as_double,
    as_int32,
    requantize,
    rounded_to_bytes,
    whole,
    zero_point,
)
from agent.freeze.integer import S8, S16, U8
from onnx_runs import answers, file_of

S32 = (-(2**31), 2**31 - 1)


def around_halves(multiplier: int, shift: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Totals on, just below and just above the places where rounding turns, and anywhere."""
    turns = (rng.integers(-(2**20), 2**20, 500) * 2 + 1) * 2.0 ** (shift - 1) / multiplier
    anywhere = rng.integers(-most, most, 500)
    turns = np.clip(turns, -most, most - 1).astype(np.int64)
    return np.concatenate([turns, turns + 1, anywhere, [most, -most, 0]])


@settings(max_examples=150)
@given(
    multiplier=st.integers(0, 30).flatmap(lambda places: st.integers(1, 2**places)),
    shift=st.integers(0, 62),
    bits=st.integers(3, 53),
    limits=st.sampled_from([U8, S8, S16, S32]),
    whole=st.booleans(),
    seed=st.integers(0, 99),
)
def test_requantize(multiplier: int, shift: int, bits: int, limits: tuple[int, int], whole: bool, seed: int) -> None:
    """Every total gives the reference's integer, products of more than 53 bits too, from float64 and from int64."""
    bits = min(bits, 62 - multiplier.bit_length())
    totals = around_halves(multiplier, shift, 2**bits, np.random.default_rng(seed))[:, None]
    dtype = np.int64 if whole else np.float64

    def add(nodes: Nodes, x: str) -> str:
        total = Integers(x, -(2**bits), 2**bits, (1,), dtype)
        return requantize(nodes, total, np.int32([multiplier]), np.int8([shift]), *limits).name

    output, _ = answers(file_of(add, (1,), np.dtype(dtype).name, (1,), "float64"), totals.astype(dtype))
    np.testing.assert_array_equal(output, integer.requantize(totals, multiplier, shift, *limits))


def test_each_channel_has_its_own_factor() -> None:
    """Factors are broadcast, also where only some of the products are long."""
    multiplier, shift = np.int64([1, 40000, 2**30]).reshape(3, 1, 1), np.int64([0, 15, 60]).reshape(3, 1, 1)
    totals = np.random.default_rng(0).integers(-(2**31), 2**31, (9, 3, 4, 4))

    def add(nodes: Nodes, x: str) -> str:
        return requantize(nodes, Integers(x, *S32, (3, 4, 4)), multiplier, shift, *S16).name

    output, _ = answers(file_of(add, (3, 4, 4), "float64", (3, 4, 4), "float64"), totals.astype(np.float64))
    np.testing.assert_array_equal(output, integer.requantize(totals, multiplier, shift, *S16))


@pytest.mark.parametrize("limits", [U8, S8, (0, 100), (-5, 5), (3, 7), (-128, 127)])
def test_bytes(limits: tuple[int, int]) -> None:
    """What fits a byte comes back from it unchanged, by every way."""
    q = np.arange(limits[0], limits[1] + 1)[:, None]

    def add(nodes: Nodes, x: str) -> str:
        stored = as_bytes(nodes, Integers(x, *limits, (1,)))
        assert stored.fits_byte and as_bytes(nodes, stored) is stored
        twice = nodes.add("Add", nodes.cast(as_int32(nodes, stored), np.float64), as_double(nodes, stored))
        return nodes.cast(twice, np.int32)

    output, _ = answers(file_of(add, (1,), "float64", (1,), "int32"), q.astype(np.float64))
    np.testing.assert_array_equal(output, 2 * q)


def test_zero_points() -> None:
    """What is never negative keeps its zero; what has too many values is no byte."""
    assert [zero_point(*limits) for limits in (U8, S8, (-128, 127), (-1, 0), (0, 256), (-129, 0), S16)] == [
        *(0, 128, 128, 128), *(None, None, None),
    ]  # fmt: skip
    assert not Integers("x", *S16, (1,)).fits_byte
    assert Integers("x", *S16, (1,)).largest == 32767


@pytest.mark.parametrize(("most", "size"), [(127, 1), (128, 2), (32767, 2), (32768, 4), (2**31 - 1, 4), (2**31, 8)])
def test_constants_take_few_bytes(most: int, size: int) -> None:
    """Constant integers come back as float64 and lie in the file in as few bytes as their limits allow."""
    numbers = np.random.default_rng(0).integers(-most - 1, most + 1, 500)
    numbers[:2] = most, -most - 1

    def add(nodes: Nodes, x: str) -> str:
        return nodes.add("Add", x, whole(nodes, numbers))

    data = file_of(add, (500,), "float64", (500,), "float64")
    np.testing.assert_array_equal(answers(data, np.zeros((1, 500)))[0], [numbers])
    assert 500 * size < len(data) < 500 * size + 400


@pytest.mark.parametrize("limits", [U8, S8, (0, 100), (-5, 5)])
def test_rounding_to_bytes(limits: tuple[int, int]) -> None:
    """Halves go to even and the limits hold, -127 too, which is not uint8's."""
    x = np.concatenate([np.arange(-600, 600) / 2, np.float32([1e30, -1e30, 0.49999997])]).astype(np.float32)[:, None]

    def add(nodes: Nodes, x: str) -> str:
        return as_double(nodes, rounded_to_bytes(nodes, x, *limits, (1,)))

    output, _ = answers(file_of(add, (1,), "float32", (1,), "float64"), x)
    np.testing.assert_array_equal(output, np.clip(np.rint(x), *limits))
