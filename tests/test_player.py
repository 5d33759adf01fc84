"""Playing an artefact: the reference's answers from every runtime, alone with numpy, and sentences where it cannot."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import GRAPHS, artefact_of, dense_c, dense_files, dense_graph, dense_onnx, golden_of, observations

from agent.freeze import graph as floats
from agent.freeze import integer as integers
from agent.freeze import player as module
from agent.freeze.artefact import write
from agent.freeze.emit.c import emit_c
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.graph import Dense, Discrete, Graph
from agent.freeze.player import FrameStack, Golden, Player, Refused, golden_fault, main

ROOT = Path(__file__).parents[1]
KINDS = {"vector": {}, "bytes": {"dtype": "uint8"}, "continuous": {"squash": True}}


def written(folder: Path, graph: Graph, files: dict[str, bytes] | None = None, **facts: Any) -> Path:
    """An artefact of a policy of one dense layer."""
    write(folder, artefact_of(graph, dense_files(graph) if files is None else files, **facts))
    return folder


def other(graph: Graph) -> Graph:
    """Another policy with the same observation and head."""
    layer = graph.layers[-1]
    return replace(graph, layers=(*graph.layers[:-1], Dense(layer.weight[::-1].copy(), layer.bias)))


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact that every runtime plays."""
    return written(tmp_path_factory.mktemp("vector") / "a", dense_graph())


@pytest.mark.parametrize("runtime", ["onnx", "c"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_reference(kind: str, runtime: str, tmp_path: Path) -> None:
    """Outputs and actions, of one observation and of many, are those of numpy; each answer is an array of its own."""
    graph = dense_graph(**KINDS[kind])
    player = Player(written(tmp_path / "a", graph), runtime)
    x = observations(graph, 50, seed=1)
    y = floats.run(graph, x)
    wanted = floats.decide(graph.head, y)
    assert player.runtime == runtime and list(player.runtimes) == [runtime]
    np.testing.assert_allclose(player.outputs(x), y, rtol=1e-5, atol=1e-5)
    singles = [player.act(x[index : index + 1]) for index in range(50)]
    for actions in (player.act(x), np.concatenate(singles)):
        assert actions.dtype == wanted.dtype and actions.shape == wanted.shape
        np.testing.assert_allclose(actions, wanted, rtol=1e-5, atol=1e-5)
    assert player.outputs(x).dtype == np.float32
    assert player.act(x[:0]).shape == wanted[:0].shape


@pytest.mark.parametrize("runtime", ["onnx", "c"])
def test_other_arrays(vector: Path, runtime: str) -> None:
    """Lists, doubles and slices are taken for what they are; one observation stays as it was."""
    player, graph = Player(vector, runtime), dense_graph()
    x = observations(graph, 8)
    wanted = player.act(x)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    for each in (x.tolist(), x.astype(np.float64), wide, np.asfortranarray(x)):
        assert np.array_equal(player.act(each), wanted)
        assert np.array_equal(player.act(each[:1]), wanted[:1])
    before = x.copy()
    player.act(x[:1])
    assert np.array_equal(x, before)


@pytest.mark.parametrize("runtime", ["onnx", "c"])
@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(6, np.float32), r"shape \[N, \*\(6,\)\], not \(6,\)"),
        (np.zeros((1, 7), np.float32), r"not \(1, 7\)"),
        (np.zeros((2, 1), np.float32), r"not \(2, 1\)"),
        (np.zeros((1, 6), complex), "float32, not of complex128"),
        (np.array([["a"] * 6]), "float32, not of"),
        (3.0, r"not \(\)"),
        (None, r"not \(\)"),
    ],
)
def test_observations_that_do_not_fit(vector: Path, runtime: str, observation: Any, message: str) -> None:
    """A wrong shape or type is refused in words, never broadcast."""
    with pytest.raises(ValueError, match=message):
        Player(vector, runtime).act(observation)


@pytest.mark.parametrize("size", [6, 100])
def test_observations_that_are_not_finite(tmp_path: Path, size: int) -> None:
    """A NaN or an infinity, wherever it stands, alone or among others, is refused by its place; 1e38 is a number."""
    weight = np.ones((4, size), np.float32)
    graph = Graph((size,), "float32", (Dense(weight, np.zeros(4, np.float32)),), Discrete(4))
    player = Player(written(tmp_path / "a", graph), "c")
    for value, count, dtype in itertools.product((np.nan, np.inf, -np.inf), (1, 3), (np.float32, np.float64)):
        x = np.full((count, size), -3e38, dtype)
        assert player.act(x).shape == (count,)
        x[-1, size - 2] = value
        for ask in (player.act, player.outputs):
            with pytest.raises(ValueError, match=rf"Observation {count - 1} is not finite: {value} at \[{size - 2}\]"):
                ask(x)
    with pytest.raises(ValueError, match=r"Observation 0 is not finite: inf at \[0\]"):
        player.act(np.full((1, size), 1e300))  # of float64, which float32 does not hold
    np.testing.assert_array_equal(player.act(player.golden.observation[:1]), player.golden.action[:1])


def test_floats_are_no_bytes(tmp_path: Path) -> None:
    """A policy for bytes does not take pictures that somebody has scaled."""
    player = Player(written(tmp_path / "a", dense_graph(dtype="uint8")), "c")
    for count in (1, 2):
        with pytest.raises(ValueError, match="uint8, not of float32"):
            player.act(np.zeros((count, 2, 3), np.float32))


def test_auto_takes_the_fastest(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every runtime that is there is timed on one observation, and the quickest plays."""
    player = Player(vector)
    assert set(player.runtimes) == {"onnx", "c"} and min(player.runtimes.values()) > 0
    assert player.runtime == min(player.runtimes, key=lambda name: player.runtimes[name])
    for fastest in ("onnx", "c"):
        times = {"onnx": 2.0, "c": 2.0} | {fastest: 1.0}
        monkeypatch.setattr(module, "_microseconds", lambda engines, x, times=times: times)
        assert Player(vector).runtime == fastest


def test_a_runtime_that_gives_other_answers_is_not_used(tmp_path: Path) -> None:
    """It is named in a warning; the other one plays."""
    graph = dense_graph()
    wrong = other(graph)
    files = {"policy.onnx": dense_onnx(graph)} | dense_c(wrong)
    with pytest.warns(RuntimeWarning, match=r"policy\.c is not what it must be: it differs on \d+ of 100"):
        assert Player(written(tmp_path / "c", graph, files)).runtime == "onnx"
    files = {"policy.onnx": dense_onnx(wrong)} | dense_c(graph)
    with pytest.warns(RuntimeWarning, match=r"policy\.onnx is not"):
        assert Player(written(tmp_path / "onnx", graph, files)).runtime == "c"
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match=r"policy\.onnx .*policy\.c"):
        Player(written(tmp_path / "both", graph, dense_files(wrong)))


def test_large_c_is_not_compiled_for_nothing(vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C that takes long to compile is left alone where onnxruntime plays, unless it is asked for."""
    monkeypatch.setattr(module, "PATIENCE", 100)
    assert list(Player(vector).runtimes) == ["onnx"]
    assert list(Player(vector, "c").runtimes) == ["c"]
    graph = dense_graph()
    assert Player(written(tmp_path / "a", graph, dense_c(graph))).runtime == "c"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"policy.onnx": b"\x08\x09"}, "policy.onnx is not what it must be"),
        ({"policy.onnx": b""}, "policy.onnx is not what it must be"),
        ({"policy.c": b"int policy = ;", "policy.h": b""}, "does not compile it"),
        (dense_c(dense_graph(dtype="uint8")), "it is for another policy, its sizes are"),
        ({"policy.onnx": dense_onnx(dense_graph(dtype="uint8"))}, "policy.onnx is not what it must be"),
        ({"policy.onnx": dense_onnx(dense_graph(squash=True))}, "its actions are float32"),
    ],
)
def test_files_that_no_runtime_takes(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    """What does not load, or belongs to another policy, is said in a sentence."""
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match=message) as error:
        Player(written(tmp_path / "a", dense_graph(), files))
    assert len(str(error.value)) < 1000


def test_without_any_runtime(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is installed the error says what to install; a runtime of no name is refused."""
    module._compiled.cache_clear()
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert Player(vector).runtime == "onnx"
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install onnxruntime.*apt install gcc"):
        Player(vector)
    with pytest.raises(ValueError, match="There is no runtime 'tensorflow'"):
        Player(vector, "tensorflow")


def test_a_runtime_that_was_not_emitted(tmp_path: Path) -> None:
    """Asked for by name, it is missed by name."""
    graph = dense_graph()
    written(tmp_path / "a", graph, {"policy.onnx": dense_onnx(graph)})
    assert Player(tmp_path / "a").runtime == "onnx"
    with pytest.raises(ValueError, match=r"no policy\.c"):
        Player(tmp_path / "a", "c")


def test_a_refused_policy(tmp_path: Path) -> None:
    """It plays only for those who insist."""
    written(tmp_path / "a", dense_graph(), refused="it scores 3.0, the live policy 12.0")
    with pytest.raises(Refused) as error:
        Player(tmp_path / "a")
    assert str(error.value) == (
        "This policy failed its gate: it scores 3.0, the live policy 12.0. To play it nevertheless: allow_refused=True."
    )
    assert Player(tmp_path / "a", allow_refused=True).card["refused"] is not None


def test_players_share_nothing(tmp_path: Path) -> None:
    """Two policies played in turn, and a folder that is gone meanwhile, do not disturb each other."""
    graph = dense_graph()
    pair = [Player(written(tmp_path / name, each), "c") for name, each in (("a", graph), ("b", other(graph)))]
    shutil.rmtree(tmp_path / "a")
    x = observations(graph, 30)
    for one in np.split(x, 30):
        for player, each in zip(pair, (graph, other(graph)), strict=True):
            assert player.act(one)[0] == floats.decide(each.head, floats.run(each, one))[0]


def test_nothing_stays_in_the_temporary_folder(vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C is compiled in a folder of its own, which is gone when the player is ready."""
    module._compiled.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    player = Player(vector, "c")
    assert list(tmp_path.iterdir()) == []
    assert player.act(np.zeros((1, 6), np.float32)).shape == (1,)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_emitters_write(name: str, tmp_path: Path) -> None:
    """Each kind of layer, as emitted for real: integers bit for bit, floats near, with every runtime."""
    graph = GRAPHS[name]()
    golden, x = golden_of(graph), observations(graph, 50, seed=1)
    c = emit_c(graph, golden=(golden.observation[:2], golden.output[:2]), title='"; system("x"); //')
    write(tmp_path / "a", artefact_of(graph, {"policy.onnx": emit_onnx(graph)} | c))
    arithmetic = floats if isinstance(graph, Graph) else integers
    wanted = arithmetic.run(graph, x)
    actions = arithmetic.decide(graph.head if isinstance(graph, Graph) else graph, wanted)
    for runtime in ("onnx", "c"):
        player = Player(tmp_path / "a", runtime)
        slack = 0.0 if arithmetic is integers else 1e-5
        np.testing.assert_allclose(player.outputs(x), wanted, rtol=slack, atol=slack * np.abs(wanted).max())
        np.testing.assert_allclose(player.act(x), actions, rtol=1e-5, atol=1e-5)
        assert np.array_equal(player.act(x), np.concatenate([player.act(x[i : i + 1]) for i in range(len(x))]))


def test_golden_fault() -> None:
    """Integers must be equal, floats near; actions may differ where that leaves a choice; NaN is never right."""
    y = np.float32([[1, 2, 3], [5, 5, 1]])
    golden = Golden(np.zeros((2, 1), np.float32), y, np.int64([2, 0]))
    assert golden_fault(golden, y, golden.action) == ""
    assert golden_fault(golden, y + np.float32(4e-5), golden.action) == ""
    assert golden_fault(golden, y, np.int64([2, 1])) == "", "a tie"
    assert "1 of 2 golden states, first on state 0" in golden_fault(golden, y, np.int64([1, 0]))
    assert "state 1" in golden_fault(golden, np.float32([[1, 2, 3], [5, 5, np.nan]]), golden.action)
    assert "1 of 2" in golden_fault(golden, y + np.float32([[0], [1e-3]]), golden.action)
    for wrong in (3, -1):
        assert "state 0" in golden_fault(golden, y, np.int64([wrong, 0]))
    assert "float64" in golden_fault(golden, y.astype(np.float64), golden.action)
    assert "(1, 3)" in golden_fault(golden, y[:1], golden.action)
    assert "float32" in golden_fault(golden, y, golden.action.astype(np.float32))
    whole = golden._replace(output=y.astype(np.int32))
    assert golden_fault(whole, whole.output, whole.action) == ""
    assert "state 1" in golden_fault(whole, whole.output, np.int64([2, 1])), "the first of equals"
    assert "state 0" in golden_fault(whole, whole.output + np.int32([[1], [0]]), whole.action)
    swapped = golden._replace(action=np.int64([0, 0]))
    assert "state 0" in golden_fault(swapped, y, np.int64([2, 0])), "a golden action that its own output contradicts"


def test_golden_fault_of_continuous_actions() -> None:
    """They must be near, each of them."""
    golden = Golden(np.zeros((2, 1), "f4"), np.zeros((2, 2), "f4"), np.float32([[1, 2], [3, 100]]))
    assert golden_fault(golden, golden.output, golden.action * np.float32(1.000005)) == ""
    assert "1 of 2" in golden_fault(golden, golden.output, golden.action + np.float32([[0, 0], [1e-3, 0]]))


@pytest.mark.parametrize("channels_last", [False, True])
def test_frame_stack(channels_last: bool) -> None:
    """The newest frames of each game, oldest first, zeros before its episode, as a queue per game has them."""
    rng = np.random.default_rng(0)
    shape = (2, 3, 4) if channels_last else (4, 2, 3)
    stack = FrameStack(shape, np.dtype(np.uint8), 4, num_games=3, channels_last=channels_last)
    axis = -1 if channels_last else 0
    queues = [deque([np.zeros((2, 3), np.uint8)] * 4, 4) for _ in range(3)]
    seen = []
    for _ in range(30):
        frames = rng.integers(256, size=(3, 2, 3), dtype=np.uint8)
        starts = rng.random(3) < 0.2
        for queue, frame, start in zip(queues, frames, starts, strict=True):
            if start:
                queue.extend([np.zeros_like(frame)] * 4)
            queue.append(frame)
        seen.append((stack.push(frames, starts), np.stack([np.stack(queue, axis) for queue in queues])))
    assert all(np.array_equal(got, wanted) for got, wanted in seen), "what was given out does not change later"


def test_fresh(tmp_path: Path) -> None:
    """A policy of stacked frames brings the stack that its observations need; a policy without needs none."""
    graph = dense_graph(dtype="uint8")
    made = artefact_of(graph, dense_files(graph))
    stacked = made.card.model_copy(update={"observation": made.card.observation.model_copy(update={"stack": 2})})
    write(tmp_path / "a", replace(made, card=stacked))
    player = Player(tmp_path / "a", "onnx")
    frames = player.fresh(num_games=1)
    first = frames.push(np.uint8([[7, 8, 9]]))
    assert first.tolist() == [[[0, 0, 0], [7, 8, 9]]]
    second = frames.push(np.uint8([[1, 2, 3]]))
    assert second.tolist() == [[[7, 8, 9], [1, 2, 3]]]
    assert player.act(second).shape == (1,)
    assert player.fresh(2).push(np.zeros((2, 3), np.uint8)).shape == (2, 2, 3)


# --- alone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("runtime", ["onnx", "c", "auto"])
def test_what_playing_imports(vector: Path, tmp_path: Path, alone: bool, runtime: str) -> None:
    """Playing brings in neither torch nor stable-baselines3, and copied alone nothing of Icebox."""
    shutil.copy(module.__file__, tmp_path / "player.py")
    name = "player" if alone else "agent.freeze.player"
    script = (
        "import sys, importlib, numpy as np\n"
        f"player = importlib.import_module({name!r}).Player(sys.argv[1], {runtime!r})\n"
        "assert player.act(np.zeros((3, 6), np.float32)).shape == (3,)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    path = str(tmp_path if alone else ROOT)
    done = subprocess.run(
        [sys.executable, "-c", script, str(vector)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    imported = set(done.stdout.split())
    assert not imported & {"torch", "stable_baselines3", "gymnasium", "safetensors", "onnx", "pydantic", "envs"}
    assert ("agent" in imported) != alone
    assert ("onnxruntime" in imported) == (runtime != "c")


def test_the_command(vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that the golden states are right and how fast each runtime is; what is wrong ends with 2 and why."""
    assert main([str(vector)]) == 0
    said = capsys.readouterr().out
    assert "corridor: 100 golden states, every answer as it must be." in said
    assert "onnx" in said and "c " in said and "used here" in said
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    written(tmp_path / "a", dense_graph(), refused="no")
    assert main([str(tmp_path / "a")]) == 2
    assert capsys.readouterr().err == "This policy failed its gate: no. To play it nevertheless: --allow-refused.\n"
    assert main([str(tmp_path / "a"), "--allow-refused", "--runtime", "onnx"]) == 0


def test_the_player_beside_the_artefact(tmp_path: Path) -> None:
    """Copied into the artefact's folder it runs there, by name and as an import."""
    folder = written(tmp_path / "a", dense_graph())
    shutil.copy(module.__file__, folder / "player.py")
    for command in (["player.py", "."], ["-c", "import player; player.Player('.')"], ["player.py", "."]):
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


@pytest.mark.slow
def test_an_empty_environment(vector: Path, tmp_path: Path) -> None:
    """player.py, an artefact, numpy and onnxruntime in an empty environment: it plays, without a compiler."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "numpy", "onnxruntime"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"numpy and onnxruntime cannot be installed here: {done.stderr[-200:]}")
    shutil.copytree(vector, tmp_path / "policy")
    shutil.copy(module.__file__, tmp_path / "player.py")
    done = subprocess.run(
        [str(python), "player.py", "policy"], cwd=tmp_path, env={"PATH": str(environment / "bin")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "every answer as it must be" in done.stdout and "onnx" in done.stdout


def test_no_warning_without_a_cause(vector: Path) -> None:
    """A sound artefact is loaded in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Player(vector).golden.action) == len(golden_of(dense_graph()).action)
