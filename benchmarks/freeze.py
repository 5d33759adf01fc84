"""What freezing costs and brings: size, agreement, score and latency of frozen policies beside the live ones.

    .venv/bin/python benchmarks/freeze.py policies NAME SOURCE [--prune auto] [--board cortex-m4] [--precisions float32 auto]
    .venv/bin/python benchmarks/freeze.py impala       # an untrained IMPALA x1: latency beside torch's
    .venv/bin/python benchmarks/freeze.py nature       # an untrained Nature DQN: latency beside SB3's `predict` too

`policies` freezes one run or zip in each precision, with ONNX and C, through the same code as `icebox freeze`, and writes
results/freeze/NAME.json: for each precision the card (gate, passes, sizes) and what was measured. Latencies are medians
of one decision on one thread, all contenders in turn in the same run.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.dqn.policies import CnnPolicy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli import freeze, freeze_report  # noqa: E402
from agent.cli.source import load_source  # noqa: E402
from agent.config import NetworkSettings  # noqa: E402
from agent.freeze import graph as floats  # noqa: E402
from agent.freeze import integer as integers  # noqa: E402
from agent.freeze.convert import from_q_network  # noqa: E402
from agent.freeze.emit.c import emit_c  # noqa: E402
from agent.freeze.emit.c_compile import compile_shared  # noqa: E402
from agent.freeze.emit.to_onnx import emit_onnx  # noqa: E402
from agent.freeze.graph import Graph, multiply_accumulates  # noqa: E402
from agent.freeze.integer import IntegerGraph  # noqa: E402
from agent.freeze.latency import Decide, latencies, throughput  # noqa: E402
from agent.freeze.quantize import quantize  # noqa: E402
from agent.nets.q_network import make_q_network  # noqa: E402
from agent.seeding import torch_generator  # noqa: E402
from benchmarks.results import write  # noqa: E402


def policies(options: argparse.Namespace) -> dict[str, Any]:
    """Freeze one source in every precision; return each card without its layers, and the timings."""
    found: dict[str, Any] = {"source": Path(options.source).name}
    for precision in options.precisions:
        asked = freeze.Arguments(
            source=options.source,
            out=options.out / options.name / precision,
            precision=precision,
            prune=options.prune,
            board=options.board,
            runs_dir=options.runs_dir,
            episodes=options.episodes,
            most_episodes=max(options.episodes, options.most_episodes),
        )
        source = load_source(asked.source, asked.runs_dir, None, asked.weights)
        folder, card, measured = freeze.freeze(source, asked)
        print(freeze_report.table(card, measured, folder), flush=True)
        measured = {key: value for key, value in measured.items() if key not in ("machine", "date")}
        found[precision] = {"card": card.model_dump(mode="json"), "measured": measured}
    return found


def in_c(graph: Graph | IntegerGraph, outputs: np.ndarray, states: np.ndarray) -> Decide:
    """Return a policy in C that decides, after comparing it with the outputs of the first states."""
    files = emit_c(graph, golden=(states[: len(outputs)], outputs), title="benchmark")
    with tempfile.TemporaryDirectory() as scratch:
        library = ctypes.CDLL(str(compile_shared(files, Path(scratch) / "policy.so")))
    assert library.policy_self_test() == 0
    given = np.empty_like(outputs[0])
    place = given.ctypes.data_as(ctypes.c_void_p)

    def decide(observation: np.ndarray) -> int:
        library.policy_forward(observation.ctypes.data_as(ctypes.c_void_p), place)
        return library.policy_action(place)

    return decide


def untrained(options: argparse.Namespace) -> dict[str, Any]:
    """Return the latency of an untrained network for Atari: torch eager, C and onnxruntime in both precisions.

    An IMPALA x1 with QR-DQN's head; or the network of the Nature paper, beside `predict` of stable-baselines3's DQN.
    """
    import onnxruntime

    torch.set_num_threads(1)
    settings = NetworkSettings(torso="nature", hidden=(512,))
    if options.name == "impala":
        settings = NetworkSettings(torso="impala", hidden=(512,), distribution="quantile", quantiles=32)
    shape = (4, 84, 84)
    network = make_q_network(settings, shape, True, 6, torch_generator(0, "network")).requires_grad_(False)
    states = np.random.default_rng(0).integers(0, 256, (200, *shape), dtype=np.uint8)
    graph = from_q_network(network, shape, "uint8", 6)

    def session(raw: bytes):
        asked = onnxruntime.SessionOptions()
        asked.intra_op_num_threads = asked.inter_op_num_threads = 1
        loaded = onnxruntime.InferenceSession(raw, asked, providers=["CPUExecutionProvider"])
        return lambda observation: loaded.run(["action"], {"observation": observation})

    def live(observation: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(observation)).argmax(dim=1).numpy()

    whole = quantize(graph, states)
    float_session = session(emit_onnx(graph))
    contenders = {"live, torch": live, "frozen, onnx float32": float_session}
    contenders["frozen, onnx int8"] = session(emit_onnx(whole))
    contenders["frozen, c float32"] = in_c(graph, floats.run(graph, states[:1]), states)
    contenders["frozen, c int8"] = in_c(whole, integers.run(whole, states[:1]), states)
    if options.name == "nature":
        theirs = CnnPolicy(Box(0, 255, shape, np.uint8), Discrete(6), lambda _: 1e-4)
        contenders["live, stable-baselines3 predict"] = lambda seen: theirs.predict(seen, deterministic=True)
    return {
        "macs": multiply_accumulates(graph),
        "latency": latencies(contenders, states, seconds=10),
        "decisions_per_s": throughput(float_session, states, freeze_report.BATCHES, seconds=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("policies")
    verb.set_defaults(run=policies)
    verb.add_argument("name")
    verb.add_argument("source")
    verb.add_argument("--precisions", nargs="+", default=["float32", "auto"])
    verb.add_argument("--prune", default="none")
    verb.add_argument("--board", default="none")
    verb.add_argument("--episodes", type=int, default=100)
    verb.add_argument("--most-episodes", type=int, default=1600)
    verb.add_argument("--runs-dir", type=Path, default=Path("runs"))
    verb.add_argument("--out", type=Path, default=Path("runs/frozen"))
    for name in ("impala", "nature"):
        verbs.add_parser(name).set_defaults(run=untrained, name=name)
    options = parser.parse_args()
    print(write(f"freeze/{options.name}", options.run(options)))


if __name__ == "__main__":
    main()
