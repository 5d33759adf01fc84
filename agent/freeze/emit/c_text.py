"""Text of generated C: numbers, arrays and the kernels' templates; nothing from outside gets in but as a number."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np

KERNELS = Path(__file__).parent / "kernels"
WIDTH = 110  # of a line of numbers


def real(value: float) -> str:
    """Return a float32 as a hexadecimal C99 constant, exactly; ValueError when it is not finite."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        raise ValueError("A number of this policy is not finite: it has diverged and cannot become C.")
    mantissa, exponent = float(single).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}f"


def double(value: float) -> str:
    """Return a float64 as a hexadecimal C99 constant, exactly; ValueError when it is not finite."""
    if not np.isfinite(value):
        raise ValueError("A limit of this policy's actions is not finite, so that it cannot become C.")
    return float(value).hex()


def constants(ctype: str, name: str, values: np.ndarray, before: str = "static ") -> str:
    """Return the definition of a constant array with these values in C order, with its storage class `before` it."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if ctype == "double":
        texts = [double(value) for value in flat.tolist()]
    elif flat.dtype.kind == "f":
        real(np.abs(flat).max(initial=0))  # refuses what is not finite
        distinct, places = np.unique(flat.astype(np.float32).view(np.uint32), return_inverse=True)
        words = [real(value) for value in distinct.view(np.float32)]
        texts = [words[place] for place in places.reshape(-1).tolist()]
    else:
        texts = [str(value) for value in flat.tolist()]
    lines, line = [], ""
    for text in texts:
        if len(line) + len(text) > WIDTH:
            lines.append(line)
            line = ""
        line += text + ","
    lines.append(line)
    return f"{before}const {ctype} {name}[{len(flat)}] = {{\n" + "\n".join(lines) + "\n};\n"


def smallest(values: np.ndarray) -> str:
    """Return the narrowest of C's signed integer types of 8 to 64 bits that holds every value."""
    for bits in (8, 16, 32):
        if values.size == 0 or (values.min() >= -(2 ** (bits - 1)) and values.max() < 2 ** (bits - 1)):
            return f"int{bits}_t"
    return "int64_t"


@cache
def _read(name: str) -> str:
    return (KERNELS / f"{name}.c").read_text(encoding="utf-8")


def kernel(file: str, /, **values: object) -> str:
    """Return the kernel `file` with each @word@ replaced; KeyError when a word has no value."""
    return re.sub(r"@(\w+)@", lambda match: str(values[match[1]]), _read(file))
