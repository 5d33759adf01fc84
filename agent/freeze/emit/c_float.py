"""Float layers as C: what agent/freeze/graph.py computes, to the rounding of float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.freeze.emit.c_program import (
    Buffer,
    Program,
    Tensor,
    columns,
    flattened,
    interleaved,
    natural,
    patches,
    pool,
    seen_by,
    spread,
)
from agent.freeze.emit.c_text import kernel, real
from agent.freeze.graph import (
    Activate,
    Clip,
    Conv,
    Dense,
    Flatten,
    Fractions,
    Layer,
    MaxPool,
    Norm,
    Residual,
)

EXPRESSIONS = {
    "relu": "v > 0.0f ? v : 0.0f",
    "tanh": "tanhf(v)",
    "sigmoid": "0.5f + 0.5f * tanhf(0.5f * v)",
    "elu": "v > 0.0f ? v : expf(v) - 1.0f",
    "leaky_relu": "v > 0.0f ? v : 0.01f * v",
    "silu": "v * (0.5f + 0.5f * tanhf(0.5f * v))",
}
LARGEST = np.finfo(np.float32).max  # stands for infinity
WIDTHS = (16, 8, 4)  # outputs that are computed together


def lower(program: Program, layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Append what the layers compute of `x` to the program and return where the result lies."""
    for layer in layers:
        x = _lower(program, layer, x)
    return x


def _lower(program: Program, layer: Layer, x: Tensor) -> Tensor:
    match layer:
        case Clip():
            return _clip(program, layer, x)
        case Flatten():
            return flattened(x)
        case Dense():
            return _dense(program, layer, x)
        case Conv():
            return _conv(program, layer, x)
        case Norm():
            return _norm(program, layer, _real(program, interleaved(program, x)))
        case MaxPool():
            lowest = "0" if x.ctype == "uint8_t" else real(-LARGEST)
            return pool(program, layer, interleaved(program, x), lowest)
        case Activate():
            return _entrywise(program, "float_activate", x, activation=_activation(program, layer.activation))
        case Residual():
            x = _real(program, interleaved(program, natural(program, x)))
            branch = natural(program, lower(program, layer.layers, replace(x, kept=True)))
            words = {"activation": _activation(program, layer.activation)}
            return _entrywise(program, "float_residual", x, branch=branch.buffer, **words)
        case Fractions():
            return _fractions(program, layer, x)


def _activation(program: Program, kind: str) -> str:
    """Define an activation and return its name, none for none."""
    if kind == "none":
        return ""
    program.need("float_activation", kind=kind, expression=EXPRESSIONS[kind])
    return f"policy_{kind}"


def _entrywise(program: Program, name: str, x: Tensor, **words: object) -> Tensor:
    """Append a function of each entry, in x's own place unless x is kept; buffers among the words are read too."""
    others = {word: value for word, value in words.items() if isinstance(value, Buffer)}
    y = x.buffer if x.ctype == "float" and not x.kept else program.buffer("float", x.size)
    own = program.function(name, **{"in": x.ctype}, count=x.size, **words)
    arguments = ", ".join("{" + each + "}" for each in ("x", *others, "y"))
    program.call(f"{own}({arguments});", x=x.buffer, **others, y=y)
    return replace(x, buffer=y, kept=False)


def _real(program: Program, x: Tensor) -> Tensor:
    """Return x as floats."""
    return x if x.ctype == "float" else _entrywise(program, "float_activate", x, activation="")


def _clip(program: Program, layer: Clip, x: Tensor) -> Tensor:
    order = (1, 2, 0) if len(x.shape) == 3 and not x.planar else tuple(range(len(x.shape)))
    limits = [np.clip(each, -LARGEST, LARGEST).transpose(order) for each in (layer.low, layer.high)]
    low, high = (program.constant(each.astype(np.float32), "limit") for each in limits)
    return _entrywise(program, "float_clip", x, low=low, high=high)


def _norm(program: Program, layer: Norm, x: Tensor) -> Tensor:
    scale, shift = layer.scale, layer.shift
    if len(x.shape) == 1 and x.pixels > 1:
        scale, shift = scale[x.flat_order()], shift[x.flat_order()]
    if layer.center:
        program.need("float_mean")
    words = {
        "scale": program.constant(scale, "scale"),
        "shift": program.constant(shift, "shift"),
        "channels": len(scale),
        "mean": f"policy_mean(x, {x.size})" if layer.center else "0.0f",
        "trained": real(layer.count),
        "epsilon": real(layer.epsilon),
        "activation": _activation(program, layer.activation),
    }
    return _entrywise(program, "float_norm", x, **words)


def _padded(outputs: int) -> int:
    return -(-outputs // WIDTHS[-1]) * WIDTHS[-1]


def _blocks(program: Program, rows: np.ndarray, call: str) -> tuple[str, int]:
    """Define a matrix, [out, in], in blocks of outputs; return the calls that multiply by it and the padded outputs.

    `call` is a call for the block {width}, of outputs {o} and weights {weight}.
    """
    outputs, inputs = rows.shape
    padded = _padded(outputs)
    whole = np.zeros((padded, inputs), np.float32)
    whole[:outputs] = rows
    parts, lines, start = [], [], 0
    for width in WIDTHS:
        stop = start + (padded - start) // width * width
        if stop > start:
            parts.append(whole[start:stop].reshape(-1, width, inputs).transpose(0, 2, 1).reshape(-1))
            lines.append((width, start, stop))
        start = stop
    weight = program.constant(np.concatenate(parts), "weight")
    texts = []
    for width, start, stop in lines:
        loop = f"for (o = {start}; o < {stop}; o += {width})"
        texts.append(f"    {loop}\n        {call.format(width=width, o='o', weight=f'{weight} + o * {inputs}')}")
    return "\n".join(texts), padded


def _need_rows(program: Program, name: str, padded: int, ctype: str) -> None:
    """Define the kernels for so many outputs."""
    for width in WIDTHS:
        if padded >= width:
            program.need(name, width=width, **{"in": ctype})
        padded %= width


def _dense(program: Program, layer: Dense, x: Tensor) -> Tensor:
    rows = columns(layer.weight, x)
    outputs, inputs = rows.shape
    call = f"policy_rows_{{width}}_{x.ctype}({{weight}}, x, {inputs}, y + {{o}});"
    blocks, padded = _blocks(program, rows, call)
    _need_rows(program, "float_rows", padded, x.ctype)
    words = {"inputs": inputs, "outputs": outputs, "blocks": blocks, "bias": program.constant(layer.bias, "bias")}
    activation = _activation(program, layer.activation)
    name = program.function("float_dense", **{"in": x.ctype}, **words, activation=activation)
    y = program.buffer("float", padded)
    program.call(name + "({x}, {y});", x=x.buffer, y=y)
    return Tensor(y, (outputs,))


def _conv(program: Program, layer: Conv, x: Tensor) -> Tensor:
    rows = patches(layer.weight, x)
    outputs, inputs = rows.shape
    call = f"policy_columns_{{width}}({{weight}}, columns, {inputs}, total + {{o}}, {_padded(outputs)});"
    blocks, padded = _blocks(program, rows, call)
    program.need("float_windows")
    _need_rows(program, "float_columns", padded, "float")
    seen, down, across = seen_by(x, layer.weight.shape[2:], layer.stride, layer.padding)
    name = program.function(
        "float_conv_windows",
        "gather",
        "float_conv",
        "conv_end",
        **seen,
        **spread(program, x, layer.padding),
        inputs=inputs,
        outputs=outputs,
        padded=padded,
        blocks=blocks.replace("\n", "\n    ").replace("    for", "        for", 1),
        bias=program.constant(layer.bias, "bias"),
        activation=_activation(program, layer.activation),
    )
    patch, taken = program.buffer(x.ctype, inputs), program.buffer("float", 4 * inputs)
    total, y = program.buffer("float", 4 * padded), program.buffer("float", outputs * down * across)
    arguments = {"x": x.buffer, "patch": patch, "taken": taken, "total": total, "y": y}
    program.call(name + "({x}, {patch}, {taken}, {total}, {y});", **arguments)
    return Tensor(y, (outputs, down, across))


def _fractions(program: Program, layer: Fractions, x: Tensor) -> Tensor:
    order = x.flat_order() if x.pixels > 1 else slice(None)
    factors = program.constant(layer.factors[:, order], "factors")
    scaled = program.buffer("float", x.size)
    own = program.function("float_scale", **{"in": x.ctype}, count=x.size)
    number = len(layer.factors)
    outputs = next(len(each.weight) for each in reversed(layer.layers) if isinstance(each, Dense))
    total = program.buffer("float", outputs)
    program.need("float_sum")
    program.call(f"for (i = 0; i < {outputs}; i++) ({{sum}})[i] = 0.0f;", sum=total)
    program.call(f"for (k = 0; k < {number}; k++) {{{{")
    program.call(f"{own}({{x}}, {factors} + k * {x.size}, {{y}});", x=x.buffer, y=scaled)
    inner = lower(program, layer.layers, replace(x, buffer=scaled, kept=False))
    program.call(f"policy_add({{x}}, {outputs}, {real(1 / number)}, {{sum}});", x=inner.buffer, sum=total)
    # Named once more behind the last call of the loop: the next turn reads it again.
    program.call("}}", x=x.buffer)
    return replace(inner, buffer=total)
