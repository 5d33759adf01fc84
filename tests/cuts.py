"""Short runs that are cut anywhere and go on from files in new objects: used by test_cuts.py, also as a script.

    python tests/cuts.py CASE CHECKPOINTS OUT

goes on with CASE from the newest checkpoint in CHECKPOINTS to its end, and writes a hash of everything there to OUT.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from golden.answers import hash_of
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from agent import checkpoint
from agent.appended import Appended
from agent.cli.session import Session
from agent.cli.stock_session import StockSession
from agent.config import Settings
from agent.sb3 import stock

# Pendulum, whose games never end early, with ends.
gymnasium.register("CutPendulum-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=17)

END = 420
OURS: dict[str, Any] = {
    "steps": END,
    "device": "cpu",
    "game": {"num_games": 3},
    "replay": {"capacity": 150},
    "network": {"hidden": [8]},
    "learner": {
        "learning_starts": 60, "samples_per_insert": 1, "batch_size": 8, "target_interval": 7, "learning_rate": 3e-3,
    },
    "actor": {"epsilon_steps": 300},
    "evaluation": {"interval_steps": 0},
}  # fmt: skip
RECENT = {"n_step": 3, "n_step_end": 1, "priority_exponent": 0.6}  # prioritised, n-step that shrinks
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dqn": ("cartpole", {"learner": {"double": False}}),
    "double dueling noisy": ("cartpole", {
        "network": {"dueling": True, "noisy": True, "layer_norm": True}, "replay": RECENT,
        "actor": {"epsilon_off_after": 200, "epsilon_ladder": 3.0},
    }),
    "qr": ("cartpole", {
        "network": {"distribution": "quantile", "quantiles": 5}, "replay": RECENT, "learner": {"average_updates": 9},
    }),
    "iqn": ("minatar/breakout", {
        "network": {"distribution": "implicit", "quantiles": 4, "cosines": 8}, "replay": RECENT,
        "learner": {"fractions": 3, "target_fractions": 3, "learning_rate_end": 0.0},
    }),
    "munchausen": ("cartpole", {"learner": {"munchausen": 0.9, "discount_end": 0.9}, "game": {"seeds": 3}}),
    "spectral impala": ("minatar/freeway", {
        "network": {"torso": "impala", "spectral_norm": True, "max_pool": 2}, "game": {"minatar": {"max_steps": 25}},
        "learner": {"samples_per_insert": 0.3}, "replay": {"reward_clip": 1.0},
    }),
    "atari": ("atari/pong", {
        "game": {"num_games": 2, "atari": {"max_frames": 100}}, "replay": {**RECENT, "compression": "lz4"},
        "network": {"distribution": "quantile", "quantiles": 4}, "learner": {"samples_per_insert": 0.2},
    }),
}  # fmt: skip
STOCK: dict[str, Any] = {"steps": END, "device": "cpu", "game": {"num_games": 2}, "evaluation": {"interval_steps": 0}}
OFF_POLICY = {
    "learning_starts": 40, "batch_size": 8, "buffer_size": 160, "train_freq": 5, "policy_kwargs": {"net_arch": [8]},
}  # fmt: skip
ON_POLICY = {"policy_kwargs": {"net_arch": [8]}}
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("cartpole", {**ON_POLICY, "n_steps": 8, "batch_size": 8, "n_epochs": 2}),
    "a2c": ("gym:CutPendulum-v0", ON_POLICY),
    "dqn-sb3": ("minatar/breakout", {
        **OFF_POLICY, "target_update_interval": 36, "exploration_final_eps": 0.4, "n_steps": 3, "policy_kwargs": {},
    }),
    "qrdqn": ("cartpole", {**OFF_POLICY, "target_update_interval": 36}),
    "sac": ("gym:CutPendulum-v0", OFF_POLICY),
    "td3": ("gym:CutPendulum-v0", {**OFF_POLICY, "action_noise": 0.2}),
    "tqc": ("gym:CutPendulum-v0", OFF_POLICY),
}
Log = list[tuple[int, float, int]]  # game, score, length of each episode that ended


def settings_of(case: str) -> tuple[str, Settings]:
    """Return the game and the settings of a case."""
    if case in ALGORITHMS:
        game, given = ALGORITHMS[case]
        return game, Settings.model_validate(STOCK | {"algo": case, "sb3": {case: given}})
    game, changes = CASES[case]
    laid = {name: {**OURS.get(name, {}), **value} for name, value in changes.items()}
    return game, Settings.model_validate(OURS | laid)


def cuts_of(case: str, count: int) -> list[int]:
    """Return `count` steps at which a case is cut, drawn for it; the first before anything was learned."""
    draw = random.Random(case)
    return [20, *sorted(draw.sample(range(45, END - 30), count - 1))]


def begin(case: str, tree: Mapping[str, Any] | None = None) -> Session | StockSession:
    """Return a new session, with the state from a checkpoint if one is given."""
    torch.set_num_threads(1)
    game, settings = settings_of(case)
    session = (StockSession if case in ALGORITHMS else Session)(game, settings)
    torch.set_num_threads(1)
    if tree is not None:
        try:
            session.load_state_dict(tree)
        except BaseException:
            session.close()
            raise
    return session


def play(
    session: Session | StockSession,
    log: Log,
    cuts: Iterable[int] = (),
    on_cut: Callable[[int], None] = lambda steps: None,
    stop: int | None = None,
) -> None:
    """Train to the end, or until `stop` is asked; `on_cut(steps)` comes at the first moment to save after each cut."""
    due = sorted(cuts)

    def save(steps: int) -> None:
        if due and steps >= due[0]:
            due[:] = [each for each in due if each > steps]
            on_cut(steps)

    def beat(steps: int, episodes: Iterable[Any]) -> bool:
        log.extend((each.game, each.score, each.length) for each in episodes)
        return stop is None or steps < stop

    if isinstance(session, Session):
        for tick in session.ticks():
            more = beat(tick.steps, tick.step.episodes) and tick.steps < END
            if more:
                save(tick.steps)
            else:
                return
    else:
        stock.train(
            session.algorithm, END, on_beat=beat, on_settled=save, on_scalars=lambda steps, values: None, interval_s=1e9
        )


def store(directory: Path, session: Session | StockSession) -> None:
    """Write the next checkpoint of a session."""
    number = max(checkpoint.numbers(directory), default=0) + 1
    checkpoint.save(directory, number, {"agent": session.state_dict()}, keep=10**6)


def load(directory: Path, number: int) -> dict[str, Any]:
    """Read one."""
    return checkpoint.load(directory / f"checkpoint-{number:08d}")["agent"]


def everything(session: Session | StockSession, log: Log) -> dict[str, Any]:
    """Return a copy of all that two equal runs share at their end; uses the session up."""
    state = plain(session.state_dict())
    if isinstance(session, StockSession):
        state["episodes"] = [each[:2] for each in state["episodes"]]  # the third is the time of day
        return {"state": state, "log": log}
    size = 200 if session.spec.pixels else 2_000
    drawn = session.replay.sample(size, 0.5)  # by its own generator, with the priorities as they are
    return {"state": state, "log": log, "replay": {name: each.clone() for name, each in drawn._asdict().items()}}


def plain(value: Any) -> Any:
    """Return a copy of a state in which records that are kept apart (agent/appended.py) are arrays as well."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, Appended):
        found = sorted(value.records().items())
        places, data = np.array([place for place, _ in found]), b"".join(piece for _, piece in found)
        limits = {"first": value.first.copy(), "stop": value.stop.copy()}
        return limits | {"places": places, "data": np.frombuffer(data, np.uint8)}
    return copy.deepcopy(value)


def is_off_policy(session: Session | StockSession) -> bool:
    """Whether a stop waits for a moment at which everything is learned from."""
    return isinstance(session, Session) or isinstance(session.algorithm, OffPolicyAlgorithm)


if __name__ == "__main__":
    name, checkpoints, out = sys.argv[1:]
    went_on = begin(name, checkpoint.load_newest(Path(checkpoints)).tree["agent"])
    ended: Log = []
    play(went_on, ended)
    Path(out).write_text(hash_of(everything(went_on, ended)))
    went_on.close()
