"""Plays an Icebox artefact with numpy and one runtime: onnxruntime, or the artefact's own C, compiled here.

This one file is all that is needed beside the artefact's folder; it imports nothing else of Icebox, and no torch:

    player = Player("lunar-lander")
    action = player.act(observations)[0]  # observations as the game gives them, [N, *shape]

`python player.py FOLDER` checks an artefact on its golden states and says how fast this machine plays it.

Every file is compared with the manifest before it is used. That finds damage, not malice: the C of an artefact is a
program, and runtime="c" and "auto" run it. Play what you do not trust with runtime="onnx".
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

FORMAT, VERSION = "icebox-policy", 1
MANIFEST, MEASURED = "MANIFEST.json", "measured.json"
REQUIRED = ("README.md", "golden.npz", "policy.json", "policy.safetensors")
EMITTED = ("policy.c", "policy.h", "policy.onnx")
BESIDE = (MANIFEST, MEASURED, "player.py", "__pycache__")  # may lie in the folder without being in the manifest
MANIFEST_BYTES, JSON_BYTES, FILE_BYTES = 1 << 16, 16 << 20, 1 << 30  # more than this is not read
PATIENCE = 16 << 20  # bytes of C; "auto" compiles no more where onnxruntime plays, for it takes many seconds
TOLERANCE = 1e-5  # of the largest output, for float32 policies
FEW = 64  # numbers up to which Python looks through them faster than numpy does

# The C that `_engine_in_c` compiles together with policy.c; its buffers make one decision a call without arguments.
GLUE = b"""#include "policy.h"
#include <stdint.h>
#ifdef ICEBOX_CONTINUOUS
typedef float icebox_choice;
enum { ICEBOX_CHOICES = POLICY_ACTIONS };
#else
typedef int64_t icebox_choice;
enum { ICEBOX_CHOICES = 1 };
#endif
const int64_t icebox_sizes[] = {POLICY_OBSERVATION_SIZE, POLICY_OUTPUTS, sizeof(policy_input), sizeof(policy_output),
                                ICEBOX_CHOICES};
policy_input icebox_input[POLICY_OBSERVATION_SIZE];
policy_output icebox_output[POLICY_OUTPUTS];
icebox_choice icebox_action[ICEBOX_CHOICES];
void icebox_run(const policy_input *x, int64_t count, policy_output *y, icebox_choice *action) {
  for (int64_t i = 0; i < count; i++) {
    policy_forward(x + i * POLICY_OBSERVATION_SIZE, y + i * POLICY_OUTPUTS);
#ifdef ICEBOX_CONTINUOUS
    policy_actions(y + i * POLICY_OUTPUTS, action + i * ICEBOX_CHOICES);
#else
    action[i] = policy_action(y + i * POLICY_OUTPUTS);
#endif
  }
}
void icebox_decide(void) { icebox_run(icebox_input, 1, icebox_output, icebox_action); }
"""


class Golden(NamedTuple):
    """States, and what the policy must give there."""

    observation: np.ndarray  # [N, *shape], uint8 or f32
    output: np.ndarray  # [N, outputs], i32 or f32
    action: np.ndarray  # i64 [N], or f32 [N, n]


class Engine(NamedTuple):
    """A policy loaded into a runtime. One decision: fill `input`, call `decide`, read `action`."""

    name: str
    input: np.ndarray  # [1, *shape]
    action: np.ndarray  # i64 [1], or f32 [1, n]
    decide: Callable[[], object]
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [N, *shape] -> outputs [N, outputs], actions


class Refused(ValueError):
    """The policy failed its gate, for `reason`; `way` is how to play it nevertheless."""

    def __init__(self, reason: str, way: str = "allow_refused=True") -> None:
        super().__init__(f"This policy failed its gate: {reason}. To play it nevertheless: {way}.")
        self.reason = reason


class Player:
    """A frozen policy that acts. One thread per player; players do not share anything."""

    def __init__(self, folder: Path | str, runtime: str = "auto", allow_refused: bool = False) -> None:
        """Load the artefact in `folder`.

        `runtime` is "onnx", "c", or "auto" for whichever gives the golden outputs and is faster at one observation; C
        of more than 16 MB is compiled only when there is no other, or when asked for. ValueError when the artefact is
        damaged or no runtime plays it; Refused, a ValueError, when its gate refused it, unless `allow_refused`.
        """
        self.folder = Path(folder)
        files = read_files(folder)
        self.card = read_card(files["policy.json"])
        self.golden = read_golden(files["golden.npz"], self.card)
        if self.card["refused"] is not None and not allow_refused:
            raise Refused(f"{self.card['refused'].get('reason')!s:.500}")
        engines = _working_engines(files, self.card, self.golden, runtime)
        self.runtimes = _microseconds(engines, self.golden.observation[:1])  # name -> microseconds per decision
        self._engine = min(engines, key=lambda engine: self.runtimes[engine.name])
        self.runtime = self._engine.name
        self._one, self._dtype = self._engine.input.shape, np.dtype(self.card["observation"]["dtype"])
        self._input, self._action, self._decide = self._engine.input, self._engine.action, self._engine.decide
        self._is_float = self._dtype.kind == "f"
        self._few = self._is_float and self._input.size <= FEW
        self._numbers = self._input.reshape(-1).tolist

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions, [N, *shape] -> i64 [N], or f32 [N, n] when they are continuous.

        ValueError for observations of another shape or type, and for those with a NaN or an infinity in them.
        """
        try:  # one observation as it must be, without a detour: this is what a game waits for
            if observations.shape == self._one and observations.dtype is self._dtype:
                self._input[...] = observations
                # A sum is not finite when a number is not; Python's are too large for those of float32 to overflow it.
                if self._is_float and not (math.isfinite(sum(self._numbers())) if self._few else _finite(self._input)):
                    raise _not_finite(observations)
                self._decide()
                return self._action.copy()
        except AttributeError:
            pass  # a list
        return self._engine.run(self._checked(observations))[1]

    def outputs(self, observations: np.ndarray) -> np.ndarray:
        """Return action values, logits or what is squashed: [N, *shape] -> i32 or f32 [N, outputs], as emitted."""
        return self._engine.run(self._checked(observations))[0]

    def fresh(self, num_games: int = 1) -> FrameStack:
        """Return an empty stack of frames for games that give single frames, at the start of an episode."""
        last = self.card["graphs"]["float"]["channels_last"]
        return FrameStack(self._one[1:], self._dtype, self.card["observation"]["stack"], num_games, channels_last=last)

    def _checked(self, observations: Any) -> np.ndarray:
        x = np.asarray(observations)
        if x.shape[1:] != self._one[1:] or x.ndim != len(self._one):
            raise ValueError(f"This policy takes observations of shape [N, *{self._one[1:]}], not {x.shape}.")
        if not np.can_cast(x.dtype, self._dtype, "same_kind"):  # floats for bytes have lost their meaning
            raise ValueError(f"This policy takes observations of {self._dtype}, not of {x.dtype}.")
        with np.errstate(over="ignore"):  # what is too large for float32 is named below
            x = np.ascontiguousarray(x, self._dtype)
        if self._is_float and not _finite(x):
            raise _not_finite(x)
        return x


def _finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(x).all())


def _not_finite(x: np.ndarray) -> ValueError:
    """Return the error that says where in the observations [N, *shape] the first number is that is not finite."""
    row, *place = (int(index) for index in np.argwhere(~np.isfinite(x))[0])
    return ValueError(f"Observation {row} is not finite: {x[(row, *place)]} at {place}. No action is right for that.")


class FrameStack:
    """The last `stack` frames of each game, oldest first; frames before the start of an episode are zero."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, stack: int, num_games: int = 1, *, channels_last: bool = False
    ) -> None:
        """`shape` is that of the whole observation; its first axis is made of `stack` frames, or its last one."""
        self._stacked = np.zeros((num_games, *shape), dtype)
        along = np.moveaxis(self._stacked, -1, 1) if channels_last else self._stacked
        one = along.shape[1] // stack
        self._before, self._later = along[:, :-one], along[:, one:]
        self._newest = self._stacked[..., -one:] if channels_last else self._stacked[:, -one:]

    def push(self, frames: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        """Take the next frame of every game, [N, ...], and return the observations, [N, *shape].

        `starts`, bool [N], says which of the frames are the first of an episode: what came before them is dropped.
        """
        if starts is not None:
            self._stacked[starts] = 0
        self._before[...] = self._later
        self._newest[...] = np.asarray(frames).reshape(self._newest.shape)
        return self._stacked.copy()


# --- reading the folder ----------------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """Return the one way in which an artefact's JSON is written: ASCII, keys sorted, nothing that is not finite."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def read_files(folder: Path | str) -> dict[str, bytes]:
    """Return the contents of an artefact's files after comparing every one with the manifest.

    ValueError naming the file when one is damaged, missing, no regular file, or not in the manifest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    raw = read_file(folder, MANIFEST, MANIFEST_BYTES)
    manifest = parse_json(raw, MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is not that of a frozen policy.")
    if manifest.get("version") != VERSION:
        raise ValueError(f"{MANIFEST} has version {manifest.get('version')!r:.50}; this reads version {VERSION}.")
    records = manifest.get("files")
    if not isinstance(records, dict) or not all(_is_record(record) for record in records.values()):
        raise ValueError(f"{MANIFEST} is damaged.")
    for name in REQUIRED:
        if name not in records:
            raise ValueError(f"{MANIFEST} does not list {name}.")
    for name in records:
        if name not in REQUIRED + EMITTED:
            raise ValueError(f"{MANIFEST} names {name!r:.200}, which is no file of a frozen policy.")
    if raw != canonical({"format": FORMAT, "version": VERSION, "files": records}):
        raise ValueError(f"{MANIFEST} is damaged.")
    for name in sorted(os.listdir(folder)):
        if name not in records and name not in BESIDE and not name.startswith("."):
            raise ValueError(f"{name!r:.200} does not belong to this frozen policy: {MANIFEST} does not list it.")
    return {name: _verified(folder, name, record) for name, record in records.items()}


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or set(record) != {"bytes", "sha256"}:
        return False
    return type(record["bytes"]) is int and isinstance(record["sha256"], str)


def _verified(folder: Path, name: str, record: dict[str, Any]) -> bytes:
    data = read_file(folder, name, JSON_BYTES if name.endswith(".json") else FILE_BYTES)
    if len(data) != record["bytes"]:
        raise ValueError(f"{name} is damaged: it has {len(data)} bytes, {MANIFEST} says {record['bytes']}.")
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise ValueError(f"{name} is damaged: its SHA-256 is not the one in {MANIFEST}.")
    return data


def read_file(folder: Path, name: str, limit: int) -> bytes:
    """Return a regular file's contents, at most `limit` bytes; ValueError naming it when it is none."""
    try:
        status = os.lstat(folder / name)
        if stat.S_ISLNK(status.st_mode):
            raise ValueError(f"{name} is a symbolic link: copy the file itself into {str(folder)!r}.")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name} is not a regular file.")
        if status.st_size > limit:
            raise ValueError(f"{name} has {status.st_size} bytes; a frozen policy's has at most {limit}.")
        with open(folder / name, "rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise ValueError(f"{name} is missing in {str(folder)!r}.") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}.") from error


def parse_json(raw: bytes, name: str) -> Any:
    """Return what is in a JSON file; ValueError naming it when it is none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be read as JSON: {error!s:.200}.") from error


def read_card(raw: bytes) -> dict[str, Any]:
    """Return policy.json after checking all that playing relies on."""
    card = parse_json(raw, "policy.json")
    try:
        observation, actions, refused = card["observation"], card["actions"], card["refused"]
        channels_last = card["graphs"]["float"]["channels_last"]
        shape, stack = observation["shape"], observation["stack"]
        sound = (
            (card["format"], card["version"]) == (FORMAT, VERSION)
            and isinstance(shape, list)
            and 1 <= len(shape) <= 4
            and all(type(size) is int and 1 <= size < 1 << 24 for size in (*shape, stack))
            and math.prod(shape) < 1 << 24
            and isinstance(channels_last, bool)
            and observation["dtype"] in ("uint8", "float32")
            and actions["kind"] in ("discrete", "continuous")
            and (refused is None or isinstance(refused, dict))
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"policy.json lacks what a player needs: {error!r:.200}.") from error
    if not sound:
        raise ValueError("policy.json does not describe a policy that this player can play.")
    if shape[-1 if channels_last else 0] % stack:
        raise ValueError(f"policy.json has a stack of {stack} frames, of which no observation {shape} is made.")
    return card


def read_golden(raw: bytes, card: dict[str, Any]) -> Golden:
    """Return the golden states; nothing in the file is executed or unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if [(info.filename, info.compress_type) for info in archive.infolist()] != [
                (f"{name}.npy", zipfile.ZIP_STORED) for name in Golden._fields
            ]:
                raise ValueError("it holds other arrays")
            golden = Golden(*(_array(archive.read(f"{name}.npy")) for name in Golden._fields))
        count, kind = len(golden.observation), card["actions"]["kind"]
        if count < 1 or golden.observation.shape[1:] != tuple(card["observation"]["shape"]):
            raise ValueError(f"its observations have the shape {golden.observation.shape}")
        if golden.observation.dtype != card["observation"]["dtype"] or golden.output.dtype not in ("int32", "float32"):
            raise ValueError(f"it holds {golden.observation.dtype} and {golden.output.dtype}")
        if golden.output.ndim != 2 or not len(golden.output) == len(golden.action) == count:
            raise ValueError("its arrays do not have the same length")
        if (golden.action.dtype, golden.action.ndim) != (("int64", 1) if kind == "discrete" else ("float32", 2)):
            raise ValueError(f"its actions are not {kind}")
        if kind == "discrete" and not ((golden.action >= 0) & (golden.action < golden.output.shape[1])).all():
            raise ValueError("it holds actions that there are not")
        if not all(np.isfinite(array).all() for array in golden):
            raise ValueError("not all of it is finite")
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"golden.npz is not what it must be: {error!s:.200}.") from error
    return golden


def _array(raw: bytes) -> np.ndarray:
    file = io.BytesIO(raw)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its arrays are of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.name not in ("uint8", "float32", "int32", "int64") or not dtype.isnative:
        raise ValueError(f"it holds an array of {dtype}")
    if math.prod(shape) * dtype.itemsize != len(raw) - file.tell():
        raise ValueError("an array is cut off")
    return np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape)


# --- the runtimes ----------------------------------------------------------------------------------------------------


def _working_engines(files: dict[str, bytes], card: dict[str, Any], golden: Golden, runtime: str) -> list[Engine]:
    """Return the runtimes that give the golden outputs; ValueError that says what to do when there is none."""
    loaders = {"onnx": _engine_in_onnx, "c": _engine_in_c}
    if runtime not in ("auto", *loaders):
        raise ValueError(f"There is no runtime {runtime!r:.100}: use auto, onnx or c.")
    if "policy.onnx" in files:
        check_onnx(files["policy.onnx"])
    engines, problems = [], []
    for name in loaders if runtime == "auto" else (runtime,):
        if f"policy.{name}" not in files:
            problems.append(f"The artefact has no policy.{name}.")
            continue
        if engines and name == "c" and len(files["policy.c"]) > PATIENCE:
            continue
        try:
            engine = loaders[name](files, card, golden)
            fault = golden_fault(golden, *engine.run(golden.observation))
        except _Missing as missing:
            problems.append(str(missing))
            continue
        except Exception as error:  # onnxruntime's have no common class but this
            fault = f"{error!s:.300}"
        if fault:
            problems.append(f"policy.{name} is not what it must be: {fault}.")
            warnings.warn(f"{problems[-1]} It is not used.", RuntimeWarning, stacklevel=3)
        else:
            engines.append(engine)
    if not engines:
        raise ValueError(" ".join(["No runtime plays this policy here.", *problems]))
    return engines


class _Missing(Exception):
    """A runtime is not there; the message says what to do."""


def golden_fault(golden: Golden, outputs: np.ndarray, actions: np.ndarray) -> str:
    """Return how a runtime's answers on the golden states differ from what they must be; empty when they do not.

    Integers must be equal. Floats may differ by 1e-5 of the largest output, and actions where that leaves a choice.
    """
    if (outputs.dtype, outputs.shape) != (golden.output.dtype, golden.output.shape):
        return f"it gives {outputs.dtype} {outputs.shape}, not {golden.output.dtype} {golden.output.shape}"
    if (actions.dtype, actions.shape) != (golden.action.dtype, golden.action.shape):
        return f"its actions are {actions.dtype} {actions.shape}, not {golden.action.dtype} {golden.action.shape}"
    exact, rows = golden.output.dtype == np.int32, np.arange(len(outputs))
    wanted = golden.output.astype(np.float64)
    slack = 0.0 if exact else TOLERANCE * max(1.0, np.abs(wanted).max())
    wrong = ~(np.abs(outputs - wanted) <= slack).all(axis=1)  # NaN is wrong
    if actions.ndim == 2:
        near = np.abs(actions - golden.action) <= TOLERANCE * np.maximum(1.0, np.abs(golden.action))
        wrong |= ~near.all(axis=1)
    else:
        known = (actions >= 0) & (actions < outputs.shape[1])
        good = wanted >= wanted.max(axis=1, keepdims=True) - 2 * slack  # [N, outputs]
        wrong |= ~known | ~good[rows, np.where(known, actions, 0)] | ~good[rows, golden.action]
        wrong |= exact & (actions != golden.action)
    if not wrong.any():
        return ""
    return f"it differs on {wrong.sum()} of {len(wrong)} golden states, first on state {wrong.argmax()}"


def _microseconds(engines: list[Engine], observation: np.ndarray) -> dict[str, float]:
    """Return the median time of one decision; the engines take turns, so that a busy machine is unfair to none."""
    rounds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(7):
        for engine in engines:
            count, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < 1e-3 or not count:
                engine.input[...] = observation
                engine.decide()
                count += 1
            rounds[engine.name].append(spent / count * 1e6)
    return {name: statistics.median(spent) for name, spent in rounds.items()}


@lru_cache(maxsize=2)
def _compiled(source: bytes, header: bytes, continuous: bool) -> bytes:
    """Return policy.c with the glue as a shared library; a large one takes seconds, so the last ones are kept."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise _Missing("For policy.c install a C compiler (Debian: apt install gcc; macOS: xcode-select --install).")
    command = [compiler, "-std=c99", "-O3", "-ffp-contract=fast", "-w", "-shared", "-fPIC", "-o", "policy.so"]
    command += ["policy.c", "glue.c", "-lm", *["-DICEBOX_CONTINUOUS"] * continuous]
    with tempfile.TemporaryDirectory(prefix="icebox-") as private:
        for name, text in (("policy.c", source), ("policy.h", header), ("glue.c", GLUE)):
            (Path(private) / name).write_bytes(text)
        for native in (["-march=native"], []):  # not every compiler knows the processor it runs on
            whole = [*command, *native]
            done = subprocess.run(whole, cwd=private, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode == 0:
                return (Path(private) / "policy.so").read_bytes()
    raise ValueError(f"{compiler} does not compile it: {done.stderr.strip()[:300]}")


def _engine_in_c(files: dict[str, bytes], card: dict[str, Any], golden: Golden) -> Engine:
    continuous = card["actions"]["kind"] == "continuous"
    compiled = _compiled(files["policy.c"], files.get("policy.h", b""), continuous)
    with tempfile.TemporaryDirectory(prefix="icebox-", ignore_cleanup_errors=True) as private:
        path = Path(private) / "policy.so"  # a file of its own for every player: they must not share an arena
        path.write_bytes(compiled)
        try:
            # Keeps the interpreter's lock: letting go of it costs more than a small policy, and the arena is one.
            library = ctypes.PyDLL(str(path))
        except OSError as error:
            raise _Missing(f"The compiled policy.c cannot be loaded ({error!s:.300}); try another TMPDIR.") from error
    observation, output, action = golden
    wanted = (observation[0].size, output.shape[1], observation.itemsize, output.itemsize, action[0].size)
    sizes = tuple((ctypes.c_int64 * 5).in_dll(library, "icebox_sizes"))
    if sizes != wanted:
        raise ValueError(f"it is for another policy, its sizes are {sizes}")

    def buffer(name: str, like: np.ndarray) -> np.ndarray:
        return np.frombuffer((ctypes.c_char * like.nbytes).in_dll(library, name), like.dtype).reshape(like.shape)

    library.icebox_decide.restype = library.icebox_run.restype = None

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, action = (np.empty((len(x), *like.shape[1:]), like.dtype) for like in golden[1:])
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y, action)]
        library.icebox_run(pointers[0], ctypes.c_int64(len(x)), *pointers[1:])
        return y, action

    place, choice = buffer("icebox_input", golden.observation[:1]), buffer("icebox_action", golden.action[:1])
    return Engine("c", place, choice, library.icebox_decide, run)


def _engine_in_onnx(files: dict[str, bytes], card: dict[str, Any], golden: Golden) -> Engine:
    if importlib.util.find_spec("onnxruntime") is None:
        raise _Missing("For policy.onnx install onnxruntime (pip install onnxruntime).")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # more threads are slower at one observation
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(files["policy.onnx"], options, providers=["CPUExecutionProvider"])
    names = [[each.name for each in put] for put in (session.get_inputs(), session.get_outputs())]
    if names != [["observation"], ["output", "action"]]:
        raise ValueError(f"its inputs and outputs are {names!s:.200}")
    place, choice = (np.zeros((1, *like.shape[1:]), like.dtype) for like in (golden.observation, golden.action))
    binding = session.io_binding()
    binding.bind_input("observation", "cpu", 0, place.dtype, place.shape, place.ctypes.data)
    binding.bind_output("action", "cpu", 0, choice.dtype, choice.shape, choice.ctypes.data)

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(session.run(["output", "action"], {"observation": x}))

    return Engine("onnx", place, choice, partial(session.run_with_iobinding, binding), run)


# What of ONNX's protocol buffers is looked into: message -> field -> the message inside, or why it is refused.
_ONNX: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Opset", 20: "it holds training information", 25: "it defines functions"},
    "Graph": {1: "Node", 5: "Tensor", 15: "it has sparse weights"},
    "Node": {5: "Attribute", 7: "Domain"},
    "Opset": {1: "Domain"},
    "Attribute": {5: "Tensor", 6: "it has a graph inside a node", 10: "Tensor", 11: "it has graphs inside a node"}
    | dict.fromkeys((22, 23), "it has sparse weights"),
    "Tensor": dict.fromkeys((13, 14), "it takes weights from another file"),
}


def check_onnx(raw: bytes) -> None:
    """Raise ValueError when an ONNX model reads other files, or holds more than plain operators on dense weights."""
    todo = [("Model", memoryview(raw))]
    while todo:
        kind, data = todo.pop()
        for field, value in _fields(data):
            inside = _ONNX[kind].get(field, "")
            if inside == "Domain" and bytes(value) not in (b"", b"ai.onnx"):
                raise ValueError(f"policy.onnx is refused: it needs operators of {bytes(value)[:50]!r}.")
            if " " in inside:
                raise ValueError(f"policy.onnx is refused: {inside}.")
            if inside in _ONNX:
                todo.append((inside, value))


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the fields of a protocol buffer; of a number, which nobody asks for, its bytes."""
    at, end = 0, len(data)

    def varint(longest: int) -> int:
        nonlocal at
        value = 0
        for position in range(longest):
            if at == end:
                break
            byte, at = data[at], at + 1
            value |= (byte & 127) << (7 * position)
            if byte < 128:
                return value
        raise ValueError("policy.onnx is damaged: a number does not end.")

    while at < end:
        tag, start = varint(5), at
        if tag & 7 == 0:
            varint(10)
        elif tag & 7 in (1, 2, 5):
            size = varint(5) if tag & 7 == 2 else 8 if tag & 7 == 1 else 4
            start, at = at, at + size
        if tag & 7 in (3, 4, 6, 7) or at > end or tag >> 32:
            raise ValueError("policy.onnx is damaged: it has a field of no known kind.")
        yield tag >> 3, data[start:at]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check an artefact on its golden states and say how fast it plays here; 2 when it cannot be played."""
    parser = argparse.ArgumentParser(description="Check a frozen policy, and measure how fast it plays here.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runtime", choices=("auto", "onnx", "c"), default="auto")
    parser.add_argument("--allow-refused", action="store_true", help="play a policy that its gate refused")
    options = parser.parse_args(arguments)
    try:
        player = Player(options.folder, options.runtime, options.allow_refused)
    except Refused as refused:
        print(Refused(refused.reason, "--allow-refused"), file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{player.card.get('game')!s:.100}: {len(player.golden.action)} golden states, every answer as it must be.")
    for name, spent in sorted(player.runtimes.items(), key=lambda item: item[1]):
        print(f"  {name:5} {spent:9.1f} µs per decision{', used here' * (name == player.runtime)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
