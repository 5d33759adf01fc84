"""A C program in the making: constants, functions, the calls of one decision, and one arena that its buffers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from agent.freeze.emit.c_text import constants, kernel, smallest
from agent.freeze.graph import MaxPool

# A buffer lives in the pool of its kind, so that no memory is ever read as another type than it was written.
POOLS = {
    "uint8_t": "bytes",
    "int8_t": "bytes",
    "int16_t": "halves",
    "int32_t": "words",
    "float": "floats",
}
SIZES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8, "float": 4, "double": 8}
ORDER = {"words": "int32_t", "floats": "float", "halves": "int16_t", "bytes": "uint8_t"}  # widest first: no gaps
ALIGNMENT = 8  # elements


@dataclass(eq=False)
class Buffer:
    """`count` numbers, needed from step `first` to step `last`; `offset` is given when the arena is planned."""

    ctype: str
    count: int
    first: int = -1
    last: int = -1
    offset: int = 0
    outside: str = ""  # the C name of memory that is not in the arena

    def text(self) -> str:
        """Return the C expression that points to it."""
        if self.outside:
            return self.outside
        place = f"arena.{POOLS[self.ctype]}" + (f" + {self.offset}" if self.offset else "")
        return f"(int8_t *)({place})" if self.ctype == "int8_t" else place


@dataclass(frozen=True, eq=False)
class Tensor:
    """Where a layer's output lies, and how: [C, H, W] as rows of pixels of channels unless `planar`.

    A flat one that was [C, H, W] lies in the order of its pixels until someone asks for its own: `pixels` tells how
    many there are. `kept` says that it is needed again, so that nobody may write over it.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    low: int = 0  # limits of the integers
    high: int = 0
    planar: bool = False
    pixels: int = 1
    kept: bool = False

    @property
    def ctype(self) -> str:
        """The C type of its entries."""
        return self.buffer.ctype

    @property
    def size(self) -> int:
        """How many entries it has."""
        return int(np.prod(self.shape))

    @property
    def largest(self) -> int:
        """The largest magnitude of its integers."""
        return max(abs(self.low), abs(self.high))

    def flat_order(self) -> np.ndarray:
        """Return for each place in memory the index of its entry, [size]."""
        return np.arange(self.size).reshape(-1, self.pixels).T.reshape(-1)


@dataclass
class Program:
    """What is emitted, in the order in which it was asked for."""

    data: list[str] = field(default_factory=list)
    functions: dict[str, None] = field(default_factory=dict)  # texts, each once
    calls: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    constant_bytes: int = 0
    layers: int = 0
    picture: int = 0  # numbers in the largest picture that is spread out, where vectors are wide

    def constant(self, values: np.ndarray, name: str, ctype: str = "", before: str = "static ") -> str:
        """Define an array, of the narrowest type that holds it unless one is named, and return its name."""
        ctype = ctype or ("float" if values.dtype.kind == "f" else smallest(values))
        name = f"policy_{name}_{len(self.data)}"
        self.data.append(constants(ctype, name, values, before))
        self.constant_bytes += SIZES[ctype] * values.size
        return name

    def need(self, file: str, /, **values: object) -> None:
        """Define a function that several layers may share, once."""
        self.functions[kernel(file, **values)] = None

    def function(self, *files: str, **values: object) -> str:
        """Define a layer's own function from a kernel, behind those it calls, and return its name."""
        self.layers += 1
        own = f"policy_layer_{self.layers}"
        for file in files:
            self.functions[kernel(file, name=own, **values)] = None
        return own

    def buffer(self, ctype: str, count: int) -> Buffer:
        """Return a new buffer; it lives from the first call that names it to the last."""
        made = Buffer(ctype, count)
        self.buffers.append(made)
        return made

    def call(self, text: str, /, **values: object) -> None:
        """Append a statement; {words} are replaced by buffers and numbers once the arena is planned."""
        for value in values.values():
            if isinstance(value, Buffer):
                value.first = len(self.calls) if value.first < 0 else value.first
                value.last = len(self.calls)
        self.calls.append((text, values))

    def statements(self) -> list[str]:
        """Return the calls with the buffers' places, after `plan`."""
        shown = []
        for text, values in self.calls:
            words = {name: value.text() if isinstance(value, Buffer) else value for name, value in values.items()}
            shown.append(text.format(**words))
        return shown

    def plan(self) -> dict[str, int]:
        """Give every buffer its place, largest first, beside none that lives at the same time; return pool sizes."""
        sizes: dict[str, int] = {}
        placed: list[Buffer] = []
        for each in sorted(self.buffers, key=lambda buffer: -buffer.count):
            if each.first < 0:
                continue
            pool = POOLS[each.ctype]
            beside = [
                other
                for other in placed
                if POOLS[other.ctype] == pool and other.first <= each.last and each.first <= other.last
            ]
            each.offset = 0
            for other in sorted(beside, key=lambda buffer: buffer.offset):
                if each.offset + each.count <= other.offset:
                    break
                end = other.offset + other.count
                each.offset = max(each.offset, -(-end // ALIGNMENT) * ALIGNMENT)
            placed.append(each)
            sizes[pool] = max(sizes.get(pool, 0), -(-(each.offset + each.count) // ALIGNMENT) * ALIGNMENT)
        return {pool: sizes[pool] for pool in ORDER if pool in sizes}


def arena_bytes(sizes: Mapping[str, int]) -> int:
    """Return the bytes of an arena with pools of these sizes."""
    return sum(SIZES[ORDER[pool]] * count for pool, count in sizes.items())


def arena(sizes: Mapping[str, int], before: str) -> str:
    """Return the definition of an arena with pools of these sizes, with its storage class `before` it."""
    if not sizes:
        return ""
    lines = [f"    {ORDER[pool]} {pool}[{count}];" for pool, count in sizes.items()]
    stated = "typedef char policy_arena_is_as_stated[sizeof arena == POLICY_ARENA_BYTES ? 1 : -1];\n"
    return before + "struct {\n" + "\n".join(lines) + "\n} arena;\n" + stated


def natural(program: Program, x: Tensor) -> Tensor:
    """Return a flat tensor whose entries lie in their own order."""
    if x.pixels == 1:
        return x
    return _transposed(program, x, x.pixels, x.size // x.pixels)


def interleaved(program: Program, x: Tensor) -> Tensor:
    """Return a picture that lies as rows of pixels of channels."""
    if not x.planar or len(x.shape) != 3:
        return x
    return _transposed(program, x, x.shape[0], x.shape[1] * x.shape[2])


def _transposed(program: Program, x: Tensor, rows: int, columns: int) -> Tensor:
    program.need("transpose", type=x.ctype)
    y = program.buffer(x.ctype, x.size)
    program.call(f"policy_transpose_{x.ctype}({{x}}, {rows}, {columns}, {{y}});", x=x.buffer, y=y)
    return replace(x, buffer=y, planar=False, pixels=1, kept=False)


def flattened(x: Tensor) -> Tensor:
    """Return a tensor as a flat one; nothing is moved."""
    if len(x.shape) == 1:
        return x
    pixels = 1 if x.planar or len(x.shape) != 3 else x.shape[1] * x.shape[2]
    return replace(x, shape=(x.size,), planar=False, pixels=pixels if x.shape[0] > 1 else 1)


def columns(weight: np.ndarray, x: Tensor) -> np.ndarray:
    """Return a dense layer's weight, [out, in], with its columns in the order in which `x` lies."""
    if len(x.shape) != 1:
        raise ValueError(f"A dense layer takes a flat input, not one of shape {x.shape}: flatten it first.")
    return weight[:, x.flat_order()] if x.pixels > 1 else weight


def patches(weight: np.ndarray, x: Tensor) -> np.ndarray:
    """Return a convolution's weight, [out, in, h, w], as rows in the order in which a patch of `x` is gathered."""
    order = (0, 1, 2, 3) if x.planar else (0, 2, 3, 1)
    return weight.transpose(order).reshape(len(weight), -1)


def seen_by(
    x: Tensor, kernel_size: tuple[int, ...], stride: int, padding: int
) -> tuple[dict[str, object], int, int]:
    """Return what the kernels that see windows of `x` are told, and how many windows there are down and across."""
    channels, height, width = x.shape
    down, across = ((side + 2 * padding - seen) // stride + 1 for side, seen in zip((height, width), kernel_size))
    words: dict[str, object] = {
        "in": x.ctype,
        "planes": channels if x.planar else 1,
        "channels": 1 if x.planar else channels,
        "height": height,
        "width": width,
        "kernel_height": kernel_size[0],
        "kernel_width": kernel_size[1],
        "stride": stride,
        "padding": padding,
        "out_height": down,
        "out_width": across,
        "places": down * across,
    }
    return words, down, across


def spread(program: Program, x: Tensor, padding: int) -> dict[str, object]:
    """Return what the kernels that spread `x` out, with zeros around, are told, and make room for it.

    Zeros between two rows, and between two planes, lie there once. One number more may be read behind the last.
    """
    channels, height, width = x.shape
    planes, channels = (channels, 1) if x.planar else (1, channels)
    wide = (width + padding) * channels
    program.picture = max(program.picture, padding * (wide + channels) + planes * (height + padding) * wide + 1)
    if not padding:  # nothing lies between
        return {"wide": wide, "areas": 1, "lines": 1, "line": x.size, "spread": x.size}
    return {"wide": wide, "areas": planes, "lines": height, "line": width * channels, "spread": wide}


def pool(program: Program, layer: MaxPool, x: Tensor, lowest: str) -> Tensor:
    """Append a pooling of a picture; `lowest` is the C text of a number below every other."""
    channels, _, _ = x.shape
    seen, rows, across = seen_by(x, (layer.kernel, layer.kernel), layer.stride, layer.padding)
    name = program.function("pool", **seen, lowest=lowest)
    y = program.buffer(x.ctype, channels * rows * across)
    program.call(name + "({x}, {y});", x=x.buffer, y=y)
    return replace(x, buffer=y, shape=(channels, rows, across), kept=False)
