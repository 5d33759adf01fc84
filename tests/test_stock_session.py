"""Tests of agent/cli/stock_session.py: stable-baselines3's algorithms on our games, with the whole of their state."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from lives import differences
from short_runs import settings

from agent import checkpoint
from agent.cli.stock_session import StockSession
from agent.sb3 import stock


def play(session: StockSession, steps: int) -> None:
    """Train until `steps`."""
    stock.train(
        session.algorithm,
        steps,
        on_beat=lambda steps, episodes: True,
        on_settled=lambda steps: None,
        on_scalars=lambda steps, values: None,
        interval_s=3600.0,
    )


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_the_state_survives_a_checkpoint(algo: str, tmp_path: Path) -> None:
    """What a session gives out and a new one takes back, through files, gives the same policy and the same state.

    But for the ends of the rows before the games, which start anew: no return may run across them.
    """
    session, other = (StockSession("cartpole", settings(algo=algo)) for _ in range(2))
    play(session, 256)
    checkpoint.save(tmp_path, 1, {"agent": session.state_dict(), "weights": session.weights()}, keep=1)
    tree = checkpoint.load_newest(tmp_path).tree
    observation = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    other.load_state_dict(tree["agent"])
    assert set(differences(other.state_dict(), tree["agent"])) <= {"/replay/arrays/timeouts"}
    assert other.algorithm.num_timesteps == tree["weights"]["steps"] == 256
    assert (session.act(0)(observation) == other.act(0)(observation)).all()
    fresh = StockSession("cartpole", settings(algo=algo, seed=9))
    fresh.algorithm.policy.load_state_dict(tree["weights"]["policy"])
    assert (session.act(0)(observation) == fresh.act(0)(observation)).all()
    for each in (session, other, fresh):
        each.close()


def test_its_games_differ(tmp_path: Path) -> None:
    """The copies of the game and the judge's games start differently."""
    session = StockSession("cartpole", settings(algo="ppo"))
    starts = np.unique(session.venv.reset().round(6), axis=0)
    assert len(starts) == 4
    session.close()


def test_its_games_share_their_few_seeds() -> None:
    """With game.seeds every copy, and the judge on training seeds, starts from the same few."""
    chosen = settings(algo="ppo", game={"seeds": 3, "num_games": 12})
    session = StockSession("cartpole", chosen)
    starts = session.venv.reset()
    known = {start.tobytes() for start in starts}
    for _ in range(60):
        observation, _, done, _ = session.venv.step(np.zeros(12, np.int64))
        known |= {observation[row].tobytes() for row in np.flatnonzero(done)}
    firsts = []
    session.judge.play(lambda seen: firsts.append(seen) or np.zeros(3, np.int64), 3, 0, seen=True)
    assert len(known) == 3 and {start.tobytes() for start in firsts[0]} <= known
    session.close()


def test_a_rate_that_cannot_be_lowered_is_refused() -> None:
    """The plateau rule cannot lower the learning rate of stable-baselines3's algorithms, and says what can be had."""
    chosen = settings(algo="ppo", evaluation={"plateau": {"action": "lower"}})
    with pytest.raises(ValueError, match="lower cannot be had with ppo.* Take stop or none"):
        StockSession("cartpole", chosen)


def test_acting_is_deterministic_and_changes_nothing() -> None:
    """Judging draws no random number: the same observation, the same action, and every generator as before."""
    session = StockSession("cartpole", settings(algo="ppo"))
    observation = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    before = copy.deepcopy(session.state_dict())
    actions = [session.act(0)(observation) for _ in range(3)]
    assert (actions[0] == actions[1]).all() and (actions[0] == actions[2]).all()
    assert actions[0].shape == (50,) and np.issubdtype(actions[0].dtype, np.integer)
    assert differences(session.state_dict(), before) == []
    session.close()


def test_continuous_actions_reach_the_game() -> None:
    """SAC's actions are vectors within the game's limits, and its episodes can be judged."""
    session = StockSession("gym:Pendulum-v1", settings(algo="sac", steps=50))
    actions = session.act(0)(np.zeros((3, 3), np.float32))
    assert actions.shape == (3, 1) and (np.abs(actions) <= 2).all()
    (episode,) = session.judge.play(session.act(0), 1, 0)
    assert episode.length == 200 and episode.score < 0
    session.close()


def test_one_thread_for_a_small_network() -> None:
    """Torch's threads are chosen as for our own agent, and --threads decides."""
    before = torch.get_num_threads()
    try:
        for threads, expected in ((0, 1), (2, 2)):
            StockSession("cartpole", settings(algo="ppo", threads=threads)).close()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_misfit_closes_its_games(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the algorithm does not fit, the games that were made for it are closed."""
    closed = []
    from agent.sb3.gym_env import DummyVecEnv

    monkeypatch.setattr(DummyVecEnv, "close", lambda self: closed.append(self))
    with pytest.raises(ValueError, match="sac chooses continuous actions"):
        StockSession("cartpole", settings(algo="sac"))
    assert len(closed) == 1
