"""A policy as policy.c and policy.h: nothing from outside in the code, the frames kept, the reference's actions."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze.emit.c import GOLDEN_BYTES, emit_c, memory
from agent.freeze.graph import Graph
from agent.freeze.integer import S16
from compiled import EVERY, Compiled, Policy, emitted, float_vector, integer_vector, reference, states
from integer_graphs import Builder

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def tokens(code: bytes) -> list[str]:
    """What a C compiler reads, without comments, and without the one array that may differ."""
    text = re.sub(r"/\*.*?\*/", " ", code.decode("ascii"), flags=re.DOTALL)
    text = re.sub(r"const unsigned char policy_title\[\d+\] = \{[\d,\s]*\};", " ", text)
    return re.findall(r'"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|[\d.][\w.]*(?:(?<=p)[+-]\d+f?)?|[^\s\w]', text)


@pytest.mark.parametrize(
    "title", ['"; system("x"); //', "*/ int x; /*", "??/\n#error\\", "\0\x7fé\ud800🚀", "a" * 9999]
)
def test_title_changes_no_token(title: str) -> None:
    """Whatever a run is called, the code has the same tokens; the name is there as bytes."""
    graph = EVERY["integer vector"]
    named, plain = emitted(graph, title=title), emitted(graph, title="plain")
    assert tokens(named["policy.c"]) == tokens(plain["policy.c"]) and named["policy.h"] == plain["policy.h"]
    assert named["policy.c"] != plain["policy.c"] and len(tokens(plain["policy.c"])) > 1000
    (found,) = re.findall(rb"policy_title\[\d+\] = \{([\d,\s]*)\}", named["policy.c"])
    spelt = bytes(int(number) for number in found.split(b",")[:-1])
    assert spelt == title.encode("utf-8", "backslashreplace") + b"\0"


@pytest.mark.parametrize("graph", EVERY.values(), ids=EVERY)
def test_same_bytes(graph: Policy) -> None:
    """Emitting twice gives the same files."""
    assert emitted(graph) == emitted(graph)


@needs_gcc
@pytest.mark.parametrize("graph", [EVERY["float picture"], EVERY["integer picture"]], ids=["float", "integer"])
def test_self_test_counts(graph: Policy, tmp_path: Path) -> None:
    """It tells how many recorded decisions come out otherwise, by one integer or by more than 1e-5."""
    observations = states(graph, 5)
    outputs = reference(graph, observations)
    right = Compiled(graph, tmp_path, emit_c(graph, golden=(observations, outputs), title=""))
    assert right.library.policy_self_test() == 0
    outputs[1, 0] += 1 if outputs.dtype == np.int32 else 1e-3
    outputs[4, 3] -= 1 if outputs.dtype == np.int32 else 1e-3
    wrong = Compiled(graph, tmp_path, emit_c(graph, golden=(observations, outputs), title=""))
    assert wrong.library.policy_self_test() == 2


@needs_gcc
@pytest.mark.parametrize("last", [False, True])
def test_frames_are_kept(last: bool, tmp_path: Path) -> None:
    """policy_step sees the newest frame and those before it, the oldest first, zeros before an episode's first."""
    shape = (4, 3, 6) if last else (6, 4, 3)
    graph = Builder(shape, "uint8", channels_last=last).conv(4, 2).flatten().done()
    policy = Compiled(graph, tmp_path, stack=3)
    axis = -1 if last else 0
    frame_shape = (4, 3, 2) if last else (2, 4, 3)
    frames = np.random.default_rng(2).integers(1, 256, (5, *frame_shape)).astype(np.uint8)
    for _ in range(2):  # two episodes
        policy.library.policy_reset()
        zeros = [np.zeros(frame_shape, np.uint8)] * 2
        stacked = [np.concatenate([*zeros, *frames][turn : turn + 3], axis) for turn in range(5)]
        np.testing.assert_array_equal(policy.step(frames), reference(graph, np.stack(stacked)))


@needs_gcc
def test_first_of_equal_actions(tmp_path: Path) -> None:
    """The action is the index of the largest output, the first of several."""
    policy = Compiled(EVERY["integer picture"], tmp_path)
    for outputs in ([3, 7, 7, 1], [-5, -5, -9, -5], [0, 0, 0, 1], [-(2**31), -(2**31), 5, 2**31 - 1]):
        y = np.int32(outputs)
        assert policy.library.policy_action(y.ctypes.data_as(ctypes.c_void_p)) == y.argmax()


@needs_gcc
@pytest.mark.parametrize("graph", [float_vector(), float_vector("clip")], ids=["tanh", "clip"])
def test_continuous_actions_of_floats(graph: Graph, tmp_path: Path) -> None:
    """Squashed or cut to their limits as the reference does."""
    outputs = np.float32([[0, 0, 0], [-90, 1, 90], [0.1, 0.2, 0.3], [-0.05, 5, -7]])
    found = Compiled(graph, tmp_path).call("policy_actions", outputs, np.float32)
    np.testing.assert_allclose(found, floats.decide(graph.head, outputs), atol=1e-6)


@needs_gcc
@pytest.mark.parametrize("squash", [True, False])
def test_continuous_actions_of_integers(squash: bool, tmp_path: Path) -> None:
    """The same action to the last bit, from the smallest output to the largest."""
    graph = integer_vector(squash=squash)
    policy = Compiled(graph, tmp_path)
    rng = np.random.default_rng(3)
    sizes = 2.0 ** rng.uniform(0, 31, (500, 3)) * rng.choice([-1, 1], (500, 3))
    outputs = sizes.clip(-(2**31), 2**31 - 1).astype(np.int32)
    if squash:
        np.testing.assert_array_equal(policy.call("policy_squash", outputs, np.int16), integers.squash(graph, outputs))
    np.testing.assert_array_equal(policy.call("policy_actions", outputs, np.float32), integers.decide(graph, outputs))


def header(files: dict[str, bytes]) -> dict[str, int]:
    """The numbers that policy.h states."""
    return {name: int(value) for name, value in re.findall(r"#define POLICY_(\w+) (\d+)", files["policy.h"].decode())}


def test_arena_of_the_usual_policies() -> None:
    """Lunar Lander's two layers of 128 with norms take 1 kB at most, MinAtar's convolution 8 kB; both are stated."""
    lander = Builder((8,), "float32").dense(128, S16, multiplier_bits=15).norm(center=True)
    lander.dense(128, S16, multiplier_bits=15).norm()
    minatar = Builder((4, 10, 10), "uint8").conv(16, 3).flatten().dense(128, S16, multiplier_bits=15).norm()
    for graph, most, flash, stack in ((lander.done(4), 1024, 32 << 10, 1), (minatar.done(6), 8192, 160 << 10, 2)):
        stated, kept = header(emitted(graph, stack=stack)), memory(graph, stack=stack)
        assert 0 < stated["ARENA_BYTES"] == kept.arena <= most
        assert 0 < stated["CONSTANT_BYTES"] == kept.constants <= flash
        assert stated["STACK_BYTES"] == kept.frames == (400 if stack > 1 else 0)
        assert kept.figures() == {"constants": kept.constants, "arena": kept.arena, "frames": kept.frames}


def test_sizes_in_the_header() -> None:
    """Observation, frame, stack, outputs and actions, and the types of the numbers."""
    found = header(emitted(EVERY["float picture"], stack=2))
    sizes = {"OBSERVATION_SIZE": 24, "FRAME_SIZE": 12, "STACK": 2, "OUTPUTS": 4, "ACTIONS": 4}
    assert {name: found[name] for name in sizes} == sizes
    text = emitted(EVERY["integer vector"])["policy.h"]
    assert b"typedef float policy_input;" in text and b"typedef int32_t policy_output;" in text


def test_recorded_decisions_are_few_when_large() -> None:
    """The self-test of a policy of large observations takes what fits, and one at least."""
    for side, count in ((60, GOLDEN_BYTES // 3600), (300, 1)):
        graph = Builder((1, side, side), "uint8").pool(side // 2, side // 2).flatten().done(2)
        (found,) = re.findall(rb"policy_golden_outputs\[(\d+)\]", emitted(graph, golden=20)["policy.c"])
        assert int(found) == 2 * count


def test_what_does_not_fit_is_refused() -> None:
    """Recorded decisions of another shape or none, and a stack that does not divide the observation."""
    graph = EVERY["integer picture"]
    x = states(graph, 2)
    y = reference(graph, x)

    def refused(words: str, golden: Sequence[np.ndarray], stack: int = 1) -> None:
        with pytest.raises(ValueError, match=words):
            emit_c(graph, stack=stack, golden=(golden[0], golden[1]), title="")

    refused("observations have shape", (x[:, :1], y))
    refused("at least one observation", (x[:0], y[:0]))
    refused("as many outputs", (x, y[:1]))
    refused("no stack of 3", (x, y), stack=3)
    refused("no stack of 0", (x, y), stack=0)
