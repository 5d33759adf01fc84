"""What compilers and linkers say of a policy in C: no warning, no heap, nothing undefined, and C++ takes its header."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.freeze import integer as integers
from agent.freeze.graph import Graph
from compiled import EVERY, Policy, build, emitted
from integer_graphs import Builder

SKETCH = Path(__file__).parent.parent / "docs" / "arduino" / "lander"

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")
COMPILERS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}"))
    for name in ("gcc", "clang")
]
# Each path that an x86-64 processor may take; only what this one can do is run.
PATHS = ["-mno-avx2", "-mavx2"] if platform.machine() == "x86_64" else ["-DPLAIN"]
SELF_TEST = '#include "policy.h"\nint main(void) { return policy_self_test(); }\n'


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("graph", EVERY.values(), ids=EVERY)
def test_no_warning_and_no_heap(compiler: str, graph: Policy, tmp_path: Path) -> None:
    """Both compilers are silent, with the self-test and without; what the code calls is in a list."""
    stack = 1 if len(graph.shape) == 1 else 2
    files = emitted(graph, stack=stack)
    for flags in ([], *([path, "-DPOLICY_SELF_TEST"] for path in PATHS)):
        build(files, tmp_path, [compiler, *WARNINGS, "-O2", *flags, "-c", "policy.c"])
    called = build(files, tmp_path, ["nm", "-u", "policy.o"]).split()
    allowed = {"memset", "memcpy", "memmove", "U"}  # what compilers write for loops
    if isinstance(graph, Graph):
        allowed |= {"tanhf", "expf", "sqrtf", "_GLOBAL_OFFSET_TABLE_"}
    assert set(called) <= allowed
    includes = set(re.findall(rb"#include (\S+)", files["policy.c"] + files["policy.h"]))
    vectors = {b"<arm_mve.h>"}  # in its own #if
    assert includes - vectors <= {b'"policy.h"', b"<stdint.h>"} | ({b"<math.h>"} if isinstance(graph, Graph) else set())


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("path", ["-DPLAIN", "-march=native"])
@pytest.mark.parametrize("graph", EVERY.values(), ids=EVERY)
def test_sanitizers(compiler: str, graph: Policy, path: str, tmp_path: Path) -> None:
    """Recorded decisions come out right under the address and undefined-behaviour sanitizers."""
    flags = [path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-std=c99", "-DPOLICY_SELF_TEST"]
    command = [compiler, *flags, "main.c", "policy.c", "-lm", "-o", "main"]
    build(emitted(graph), tmp_path, command, main=SELF_TEST)
    build({}, tmp_path, ["./main"])


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_header_in_cpp(tmp_path: Path) -> None:
    """An Arduino's sketch is C++: it includes the header and links with the C."""
    files = emitted(EVERY["integer picture"])
    build(files, tmp_path, ["gcc", "-std=c99", "-DPOLICY_SELF_TEST", "-c", "policy.c"])
    (tmp_path / "sketch.cpp").write_text(SELF_TEST.replace("(void)", "()"))
    build({}, tmp_path, ["g++", "-Wall", "-Wextra", "sketch.cpp", "policy.o", "-o", "sketch"])
    build({}, tmp_path, ["./sketch"])


# What a board's own header gives a sketch, so that one can run here: time goes on by 4 ms a look at the clock.
ARDUINO = """#include <stdint.h>
#include <stdio.h>
enum { LOW, HIGH, OUTPUT, A0 };
static uint32_t clock_now;
static uint32_t micros() { return clock_now += 4000; }
static int analogRead(int pin) { return 64 * pin; }
static void digitalWrite(int, int) {}
static void pinMode(int, int) {}
struct { void begin(int) {} void print(int n) { printf("%d", n); } void print(const char *s) { printf("%s", s); }
         void println(uint32_t n) { printf("%u\\n", (unsigned)n); } } Serial;
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_arduino_sketch(tmp_path: Path) -> None:
    """The example in docs/ compiles with a policy of its shape, and decides every 20 ms."""
    graph = Builder((8,), "float32").dense(12).done(4)
    shutil.copytree(SKETCH, tmp_path, dirs_exist_ok=True)
    build(emitted(graph), tmp_path, ["gcc", "-std=c99", "-c", "policy.c"])
    loops = "int main() { setup(); for (int i = 0; i < 29; i++) loop(); }"
    (tmp_path / "sketch.cpp").write_text(f'{ARDUINO}#include "lander.ino"\n{loops}\n')
    build({}, tmp_path, ["g++", "-Wall", "-Wextra", "-Werror", "sketch.cpp", "policy.o", "-o", "sketch"])
    said = build({}, tmp_path, ["./sketch"]).splitlines()
    sensors = np.float32([64 * (3 + i) / 512 - 1 for i in range(8)])
    action = integers.run(graph, sensors[None]).argmax()
    # Each turn looks at the clock once, and twice more when it decides.
    clock = due = 4
    decisions = 0
    for _ in range(29):
        clock += 4
        if clock >= due:
            clock, due, decisions = clock + 8, due + 20, decisions + 1
    assert said == [f"{action} in us 4000"] * decisions and decisions < 15
