"""What is asked of the kept files of a release, once when they are made and again by every later version.

Everything is asked through the public functions that a user's commands go through, and answered as plain arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent import checkpoint
from agent.cli.record import load_checkpoint
from agent.cli.session import Session
from agent.cli.stock_session import StockSession
from agent.cli.train import make_session
from agent.freeze import artefact
from agent.freeze.player import Player
from agent.replay import demonstrations
from agent.seeding import numpy_generator
from agent.telemetry.run_folder import RunFolder
from agent.viewer.episodes import EpisodeLog, read_packets
from agent.viewer.packet import unpack

QUESTIONS = 256  # observations that a policy is asked about
BATCH = 64  # transitions that replay is asked for
Answers = dict[str, np.ndarray]


def hash_of(value: Any) -> str:
    """Return a SHA-256 over every bit of a tree: the names, types and shapes of its leaves, and what is in them."""
    digest = hashlib.sha256()

    def add(at: str, leaf: Any) -> None:
        if isinstance(leaf, Mapping):
            for key in sorted(leaf):
                add(f"{at}/{key}", leaf[key])
            leaf = {}
        elif isinstance(leaf, list) and any(isinstance(each, Mapping | torch.Tensor | np.ndarray) for each in leaf):
            for position, each in enumerate(leaf):
                add(f"{at}/{position}", each)
            leaf = []
        if isinstance(leaf, torch.Tensor):
            leaf = leaf.detach().cpu().contiguous().numpy()
        if isinstance(leaf, np.ndarray):
            digest.update(f"{at} {leaf.dtype} {leaf.shape} ".encode() + np.ascontiguousarray(leaf).tobytes() + b"\n")
        else:
            digest.update(f"{at} {leaf!r}\n".encode())

    add("", value)
    return digest.hexdigest()


def of_run(run: Path) -> tuple[Answers, dict[str, str]]:
    """Return what a run's newest checkpoint answers once a session has it, and hashes of what it read from the file."""
    folder = RunFolder.open(run)
    loaded, skipped = load_checkpoint(folder)
    assert skipped == []
    best = checkpoint.load_newest(run / "best").tree
    weights = {name: loaded["agent"][name] for name in ("learner", "modules") if name in loaded["agent"]}
    hashes = {"weights": hash_of(weights), "best": hash_of(best), "evaluations": hash_of(loaded["evaluations"])}
    torch.set_num_threads(1)
    session = make_session(folder.game, folder.settings())
    try:
        session.load_state_dict(loaded["agent"])
        answers = {"steps": np.array([loaded["steps"], session.steps])}
        return answers | (_of_ours(session) if isinstance(session, Session) else _of_stock(session)), hashes
    finally:
        session.close()


def _questions(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    random = numpy_generator(0, "golden questions")
    if dtype == "float32":
        return random.normal(size=(QUESTIONS, *shape)).astype(np.float32)
    return random.integers(0, 2, (QUESTIONS, *shape)).astype(dtype)


def _of_ours(session: Session) -> Answers:
    observation = _questions(session.spec.observation_shape, session.spec.observation_dtype)
    batch = session.replay.sample(BATCH, 0.5)  # drawn by replay's own generator, with the priorities that were saved
    answers = {f"batch.{name}": value.numpy() for name, value in batch._asdict().items()}
    answers |= {"replay.size": np.array(len(session.replay)), "updates": np.array(session.learner.updates)}
    answers |= {"games.observation": session.games.current.observation.copy()}
    return answers | {"output": session.q(observation), "action": session.act(0)(observation)}


@torch.no_grad()
def _of_stock(session: StockSession) -> Answers:
    observation = _questions(session.spec.observation_shape, session.spec.observation_dtype)
    policy, algorithm = session.algorithm.policy, session.algorithm
    given = torch.from_numpy(observation)
    replay = getattr(algorithm, "replay_buffer", None)
    if replay is None:
        output = policy.get_distribution(given).distribution.logits
        answers = {"value": policy.predict_values(given).numpy()}
    else:
        output = policy.q_net(given)
        names = ("observations", "next_observations", "actions", "rewards", "dones")
        answers = {f"replay.{name}": getattr(replay, name)[: replay.size()].copy() for name in names}
    return answers | {"output": output.numpy(), "action": session.act(0)(observation)}


def of_artefact(folder: Path, runtime: str) -> tuple[Answers, dict[str, str]]:
    """Return what a frozen policy answers in one runtime, and a hash of its golden states."""
    golden = artefact.read(folder).golden
    player = Player(folder, runtime=runtime)
    observation = _questions(golden.observation.shape[1:], golden.observation.dtype.name)
    return {"output": player.outputs(observation), "action": player.act(observation)}, {
        "golden": hash_of(golden._asdict())
    }


def of_episodes(folder: Path) -> tuple[Answers, dict[str, str]]:
    """Return the scores of kept games, and hashes of what their packets say and show."""
    said: list[str] = []
    log = EpisodeLog(folder, said.append)
    rows = log.list()
    packets = [unpack(packet) for row in rows for packet in read_packets(log.path(row["id"], "ep"))]
    log.close()
    assert said == []
    facts = ("id", "room", "score", "length", "seed", "keep", "finished", "cut", "pictures")
    hashes = {"rows": hash_of([{name: row[name] for name in facts} for row in rows])}
    shown = [{"meta": dict(meta), "rest": [bytes(part) for part in rest]} for meta, *rest in packets]
    hashes |= {"packets": hash_of(shown)}
    actions = [-1 if each[0]["action"] is None else each[0]["action"] for each in packets]
    return {"score": np.array([row["score"] for row in rows]), "action": np.array(actions)}, hashes


def of_demonstrations(folder: Path) -> tuple[Answers, dict[str, str]]:
    """Return what was played, step by step, and a hash of the facts beside it."""
    answers, facts = {}, []
    for number, found in enumerate(demonstrations.read(folder)):
        answers |= {f"{number}.{name}": array.copy() for name, array in found.load()._asdict().items()}
        facts.append(dict(found.facts))
    return answers, {"facts": hash_of(facts)}
