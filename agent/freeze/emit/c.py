"""A policy as self-contained C99: policy.c and policy.h, constant weights, no heap, one static arena of stated size.

The integer path needs <stdint.h> only and gives the integers of agent/freeze/integer.py; the float path needs <math.h>
only where the policy takes a root, an exponential or a tanh. The kernels are in kernels/, written by hand; what they do
by AVX stands in #if beside the plain C, gives the same integers and has static memory of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from agent.freeze.emit import c_float, c_integer
from agent.freeze.emit.c_program import Buffer, Program, Tensor, arena, arena_bytes, natural
from agent.freeze.emit.c_text import constants, kernel, real
from agent.freeze.graph import Continuous, Discrete, Graph, require_finite
from agent.freeze.integer import IntegerGraph

GOLDEN_BYTES = 1 << 16  # of observations in the self-test, at least one of them
TOLERANCE = 1e-5  # of float outputs, or of the largest of a decision where that is larger than 1


@dataclass(frozen=True)
class Memories:
    """What a policy in C keeps where, in bytes."""

    constants: int  # in flash: weights and tables, without code
    arena: int  # in RAM: for one decision
    frames: int  # in RAM: the stack that policy_step keeps

    def figures(self) -> dict[str, int]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def memory(graph: Graph | IntegerGraph, *, stack: int = 1) -> Memories:
    """Return what the policy will keep in flash and RAM, without its code."""
    return _memories(graph, _lowered(graph).program, stack)


def emit_c(
    graph: Graph | IntegerGraph, *, stack: int = 1, golden: tuple[np.ndarray, np.ndarray], title: str
) -> dict[str, bytes]:
    """Return {"policy.c", "policy.h"}; the same bytes for the same input.

    `stack` is how many frames make an observation. `golden` are observations [N, *shape] with the outputs, i32 or f32
    [N, outputs], that the self-test must find; of large ones only the first few are taken. `title` becomes an array of
    bytes. ValueError for what C cannot be made of.
    """
    observations, outputs = golden
    _check(graph, stack, observations, outputs)
    lowered = _lowered(graph)
    program = lowered.program
    memories = _memories(graph, program, stack)
    words = _words(graph, stack)
    integer = isinstance(graph, IntegerGraph)
    header = kernel(
        "header",
        **words,
        discrete=int(isinstance(graph.head, Discrete)),
        outputs=_num_outputs(graph.head),
        output="int32_t" if integer else "float",
        arena=memories.arena,
        stack_bytes=memories.frames,
        constants=memories.constants,
        decide=lowered.prototypes,
    )
    functions = "".join(program.functions)
    math = any(name in functions + lowered.decide for name in ("tanhf(", "expf(", "sqrtf("))
    body = program.statements()
    turns = "".join(f"    int {name};\n" for name in "ik" if any(f"for ({name} =" in line for line in body))
    title_bytes = np.frombuffer(title.encode("utf-8", "backslashreplace") + b"\0", np.uint8)
    parts = [
        "/* A frozen policy, written by Icebox. What it is for and how well it plays is in the card beside it. */\n",
        '#include "policy.h"\n',
        "typedef char policy_needs_an_int_of_32_bits[sizeof(int) >= 4 ? 1 : -1];\n",
        "#include <math.h>\n" if math else "",
        "\n",
        # First, for what they define is used by the arrays.
        kernel("int_target") if integer else kernel("float_lanes"),
        constants("unsigned char", "policy_title", title_bytes, before=""),
        *program.data,
        "\n",
        arena(program.plan(), "static POLICY_ALIGNED " if integer else "static "),
        kernel("picture", count=program.picture) if program.picture else "",
        "\n",
        functions,
        "void policy_forward(const policy_input *observation, policy_output *outputs)\n{\n",
        turns,
        *(f"    {line}\n" for line in body),
        "}\n\n",
        kernel("stack" if stack > 1 else "stack_none", **words),
        lowered.decide,
        _self_test(words, observations, outputs, integer),
    ]
    return {"policy.c": "".join(parts).encode(), "policy.h": header.encode()}


@dataclass(frozen=True)
class _Lowered:
    program: Program  # up to the outputs
    decide: str  # from there to the action
    prototypes: str


def _lowered(graph: Graph | IntegerGraph) -> _Lowered:
    program = Program()
    shape = (graph.shape[-1], *graph.shape[:-1]) if graph.channels_last else graph.shape
    observation = Buffer("uint8_t" if graph.dtype == "uint8" else "float", int(np.prod(shape)), outside="observation")
    x = Tensor(observation, shape, 0, 255, planar=len(shape) > 1 and not graph.channels_last, kept=True)
    if isinstance(graph, IntegerGraph):
        y, output = c_integer.lower(program, graph.layers, x), "int32_t"
    else:
        require_finite(graph)
        y, output = c_float.lower(program, graph.layers, x), "float"
    if y.shape != (_num_outputs(graph.head),):
        raise ValueError(f"The last layer gives {y.shape} numbers, but the head takes {_num_outputs(graph.head)}.")
    y = natural(program, y)
    program.need("copy", **{"in": y.ctype}, out=output)
    program.call(f"policy_copy_{y.ctype}({{y}}, {y.size}, outputs);", y=y.buffer)
    return _Lowered(program, *_decision(program, graph))


def _num_outputs(head: Discrete | Continuous) -> int:
    return head.num_actions if isinstance(head, Discrete) else len(head.low)


def _memories(graph: Graph | IntegerGraph, program: Program, stack: int) -> Memories:
    size = int(np.prod(graph.shape)) * (1 if graph.dtype == "uint8" else 4)
    return Memories(program.constant_bytes, arena_bytes(program.plan()), size if stack > 1 else 0)


def _check(graph: Graph | IntegerGraph, stack: int, observations: np.ndarray, outputs: np.ndarray) -> None:
    """Raise ValueError when the recorded decisions or the stack do not fit the policy."""
    if observations.shape[1:] != graph.shape or len(observations) != len(outputs) or not len(outputs):
        raise ValueError(
            f"The recorded observations have shape {observations.shape} and their outputs {outputs.shape}; the policy "
            f"takes {graph.shape}: pass at least one observation and as many outputs."
        )
    lying = graph.shape[-1] if graph.channels_last else graph.shape[0]
    if stack < 1 or lying % stack:
        raise ValueError(f"An observation of shape {graph.shape} is no stack of {stack} frames.")


def _words(graph: Graph | IntegerGraph, stack: int) -> dict[str, object]:
    """Return sizes of an observation: what lies together in it, and how much of that is the newest frame's."""
    size = int(np.prod(graph.shape))
    length = graph.shape[-1] if graph.channels_last else size
    return {
        "observation": size,
        "frame": size // stack,
        "stack": stack,
        "length": length,
        "part": length // stack,
        "input": "uint8_t" if graph.dtype == "uint8" else "float",
    }


def _decision(program: Program, graph: Graph | IntegerGraph) -> tuple[str, str]:
    """Define what turns outputs into an action; return its text and its prototypes."""
    head = graph.head
    if isinstance(head, Discrete):
        prototype = "int policy_action(const policy_output *outputs); /* the largest output, the first of several */\n"
        return kernel("decide_discrete"), prototype
    prototype = "void policy_actions(const policy_output *outputs, float *actions); /* within their limits */\n"
    integer = isinstance(graph, IntegerGraph)
    ctype = "double" if integer else "float"
    limits = {
        name: program.constant(np.asarray(values, np.float64), name, ctype)
        for name, values in (("low", head.low), ("high", head.high))
    }
    if head.squash == "clip":
        value = f"outputs[i] * {float(graph.step).hex()}" if isinstance(graph, IntegerGraph) else "outputs[i]"
        return kernel("decide_clip", real=ctype, value=value, **limits), prototype
    if not isinstance(graph, IntegerGraph):
        return kernel("decide_tanh", **limits), prototype
    assert graph.squash is not None
    program.need("int_limit", bits=64)
    program.need("int_round", bits=64)
    program.need("int_interpolate")
    arrays = {
        "multiplier": program.constant(graph.squash.multiplier, "multiplier", "int32_t"),
        "shift": program.constant(graph.squash.shift, "shift", "int8_t"),
        "table": program.constant(graph.squash.table, "table", "int16_t"),
    }
    squash = "void policy_squash(const policy_output *outputs, int16_t *unit); /* their tanh, times 32768 */\n"
    return kernel("decide_squash", **arrays, **limits), squash + prototype


def _self_test(words: dict[str, object], observations: np.ndarray, outputs: np.ndarray, integer: bool) -> str:
    """Return the self-test over the first recorded decisions that fit."""
    each = observations[0].nbytes
    count = min(len(observations), max(1, GOLDEN_BYTES // each))
    dtype = np.uint8 if words["input"] == "uint8_t" else np.float32
    shown = observations[:count].astype(dtype)
    expected = outputs[:count].astype(np.int32 if integer else np.float32)
    return kernel(
        "self_test",
        **words,
        golden=count,
        observations=constants("policy_input", "policy_golden_observations", shown),
        expected=constants("policy_output", "policy_golden_outputs", expected),
        differs=kernel("differs_integer") if integer else kernel("differs_float", tolerance=real(TOLERANCE)),
    )


