"""The arena of generated C: buffers that live at the same time never share memory, and it is small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.freeze.emit.c_program import (
    ALIGNMENT,
    POOLS,
    Buffer,
    Program,
    Tensor,
    arena,
    arena_bytes,
    columns,
    flattened,
    natural,
    spread,
)

ctypes = st.sampled_from(sorted(POOLS))


@given(st.lists(st.tuples(ctypes, st.integers(1, 99), st.lists(st.integers(0, 12), min_size=1, max_size=3))))
def test_no_two_living_buffers_overlap(wanted: list[tuple[str, int, list[int]]]) -> None:
    """Checked place by place and moment by moment, against the pools' sizes too."""
    program = Program()
    buffers = [program.buffer(ctype, count) for ctype, count, _ in wanted]
    for moment in range(13):
        used = {f"b{i}": buffer for i, buffer in enumerate(buffers) if moment in wanted[i][2]}
        program.call("", **used)
    sizes = program.plan()
    for moment in range(13):
        taken: set[tuple[str, int]] = set()
        for buffer in buffers:
            if buffer.first <= moment <= buffer.last:
                places = {(POOLS[buffer.ctype], buffer.offset + i) for i in range(buffer.count)}
                assert not taken & places
                assert all(place < sizes[pool] for pool, place in places)
                taken |= places
    assert all(buffer.offset % ALIGNMENT == 0 for buffer in buffers)


def test_ping_pong() -> None:
    """A chain of layers needs room for its largest neighbours only, and a name that is never used needs none."""
    program = Program()
    chain = [program.buffer("uint8_t", count) for count in (64, 512, 128, 512, 64)]
    for x, y in zip(chain, chain[1:]):
        program.call("f({x}, {y});", x=x, y=y)
    program.buffer("uint8_t", 9999)
    sizes = program.plan()
    assert sizes == {"bytes": 640} and arena_bytes(sizes) == 640
    # The larger ones lie first, each where the one before the last lay.
    assert program.statements()[1:3] == ["f(arena.bytes, arena.bytes + 512);", "f(arena.bytes + 512, arena.bytes);"]


def test_pools_are_apart_by_type() -> None:
    """Bytes of both signs share one pool, others have their own, the widest first; signed bytes are cast."""
    program = Program()
    made = {ctype: program.buffer(ctype, 8) for ctype in POOLS}
    program.call("", **made)
    sizes = program.plan()
    assert list(sizes) == ["words", "floats", "halves", "bytes"]
    assert sizes["bytes"] == 16 and arena_bytes(sizes) == 16 + 16 + 32 + 32
    assert made["int8_t"].text().startswith("(int8_t *)(arena.bytes")
    assert arena(sizes, "static ").startswith("static struct {\n    int32_t words[8];\n    float floats[8];")


def test_flattened_pictures_keep_their_place() -> None:
    """Nothing moves when a picture becomes a vector: a dense layer's columns do, until the own order is asked for."""
    program = Program()
    picture = Tensor(Buffer("float", 24, outside="x"), (2, 3, 4))
    flat = flattened(picture)
    assert flat.shape == (24,) and flat.pixels == 12 and not program.calls
    lies = np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(columns(np.arange(24)[None], flat)[0], lies)
    assert natural(program, flat).pixels == 1 and len(program.calls) == 1
    planar = flattened(Tensor(picture.buffer, (2, 3, 4), planar=True))
    assert planar.pixels == 1 and flattened(flat) is flat


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("planar", [True, False])
def test_spread_pictures_read_as_padded_ones(planar: bool, padding: int) -> None:
    """Filled as the kernels fill it, a picture has zeros wherever a window leaves it, and room for one number more."""
    shape = channels, height, width = 3, 4, 5
    natural_order = np.arange(1, 61).reshape(shape)
    lies = (natural_order if planar else natural_order.transpose(1, 2, 0)).reshape(-1).tolist()
    program = Program()
    words = spread(program, Tensor(Buffer("uint8_t", 60, outside="x"), shape, planar=planar), padding)
    wide, areas, lines, line, each = (int(str(words[name])) for name in ("wide", "areas", "lines", "line", "spread"))
    step = 1 if planar else channels
    filled = [0] * (padding * (wide + step))
    for _ in range(areas):
        for _ in range(lines):
            filled += lies[:line] + [0] * (each - line)
            lies = lies[line:]
        filled += [0] * (padding * wide)
    assert not lies and program.picture == len(filled) + 1
    padded = np.pad(natural_order, ((0, 0), (padding, padding), (padding, padding)))
    for channel, row, column in np.ndindex(padded.shape):
        place = row * wide + column * step + (channel * (height + padding) * wide if planar else channel)
        assert filled[place] == padded[channel, row, column]


def test_constants_of_the_narrowest_type() -> None:
    """An array takes as many bytes as its values need, and each gets a name of its own."""
    program = Program()
    names = [program.constant(np.array(values), "x") for values in ([1, 2], [300], [70000], [2**40], [0.5])]
    assert len(set(names)) == 5
    assert program.constant_bytes == 2 + 2 + 4 + 8 + 4
