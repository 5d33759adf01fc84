"""The state of SB3's own algorithms: everything but the games comes back."""

import random
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv

from agent import checkpoint
from agent.config import Settings
from agent.sb3.state import load_state_dict, restart_games, state_dict
from agent.sb3.stock import build, train

TINY = {"learning_starts": 10, "buffer_size": 40, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}
CASES = {
    "dqn-sb3": {**TINY, "target_update_interval": 14, "exploration_final_eps": 0.9},
    "qrdqn": {**TINY, "target_update_interval": 14},
    "ppo": {"n_steps": 8, "batch_size": 8, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}},
    "a2c": {"policy_kwargs": {"net_arch": [8]}},
    "sac": TINY,
    "td3": {**TINY, "action_noise": 0.2},
    "tqc": {**TINY, "ent_coef": 0.1},
}


def make(algo, steps=100, games=2, **changes):
    discrete = algo in ("dqn-sb3", "qrdqn", "ppo", "a2c")
    game = {"id": "CartPole-v1"} if discrete else {"id": "Pendulum-v1", "max_episode_steps": 9}
    venv = DummyVecEnv([lambda: Monitor(gymnasium.make(**game))] * games)
    return build(algo, venv, Settings(steps=steps, device="cpu", sb3={algo: CASES[algo] | changes}))


def run(algorithm, steps):
    """Train up to `steps`."""
    nothing = {"on_settled": lambda steps: None, "on_scalars": lambda steps, values: None}
    train(algorithm, steps, on_beat=lambda steps, episodes: True, **nothing, interval_s=1e9)


def differences(one, other, path=""):
    """Return the paths at which two trees differ, the wall-clock times of episodes aside."""
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return [f"{path} keys"]
        return [place for key in one for place in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, (np.ndarray, torch.Tensor)):
        return [] if np.array_equal(np.asarray(one), np.asarray(other)) else [path]
    if path == "/episodes":
        one, other = ([episode[:2] for episode in episodes] for episodes in (one, other))
    return [] if one == other else [path]


def saved_and_loaded(directory, algorithm):
    checkpoint.save(directory, 1, state_dict(algorithm), keep=1)
    return checkpoint.load_newest(directory).tree


@pytest.mark.parametrize("algo", CASES)
def test_resumed_equals_straight(algo, tmp_path):
    """Training on from a checkpoint equals training on in memory when the games restart in both: nothing is lost."""
    straight = make(algo)
    run(straight, 60)
    tree = saved_and_loaded(tmp_path, straight)
    assert differences(tree, state_dict(straight)) == []
    restart_games(straight)
    run(straight, 100)
    resumed = make(algo)
    load_state_dict(resumed, tree)
    assert resumed.num_timesteps == tree["counters"]["num_timesteps"] >= 60
    run(resumed, 100)
    assert differences(state_dict(straight), state_dict(resumed)) == []
    assert differences(tree, state_dict(resumed)) != []


ITEMS = {
    "dqn-sb3": [
        *("counters/num_timesteps", "counters/_n_calls", "counters/exploration_rate", "counters/_episode_num"),
        *("modules/policy", "optimizers/policy.optimizer", "replay", "episodes"),
        *("random/python", "random/numpy", "random/actions"),
    ],
    "ppo": ["random/torch"],
    "sac": ["variables", "optimizers/ent_coef_optimizer"],
    "td3": ["counters/_n_updates"],
}


@pytest.mark.parametrize(("algo", "item"), [(algo, item) for algo, items in ITEMS.items() for item in items])
def test_every_item_matters(algo, item):
    """With any one item of the state as in a fresh algorithm, the resumed run ends differently."""

    def end(state):
        resumed = make(algo)
        load_state_dict(resumed, state)
        run(resumed, 100)
        return state_dict(resumed)

    fresh = state_dict(make(algo))
    played = make(algo)
    run(played, 42)
    random.random()  # SB3's algorithms do not use Python's generator, a custom part of them may
    # Copied, because weights and replay are the algorithm's own memory.
    state = deepcopy(state_dict(played))
    right = deepcopy(end(state))
    assert differences(right, end(state)) == []
    *path, last = item.split("/")
    part, fresh_part = state, fresh
    for key in path:
        part, fresh_part = part[key], fresh_part[key]
    part[last] = fresh_part[last]
    assert differences(right, end(state)) != []


def test_another_network_is_refused():
    """A state that belongs to another network, algorithm or number of games is refused with ValueError."""
    state = state_dict(make("dqn-sb3"))
    with pytest.raises(ValueError, match="another algorithm or network"):
        load_state_dict(make("dqn-sb3", policy_kwargs={"net_arch": [9]}), state)
    with pytest.raises(ValueError):
        load_state_dict(make("sac"), state)
    played = make("dqn-sb3")
    run(played, 80)
    with pytest.raises(ValueError, match="number of games"):
        load_state_dict(make("dqn-sb3", games=1), state_dict(played))
    with pytest.raises(ValueError, match="raise buffer_size"):
        load_state_dict(make("dqn-sb3", buffer_size=20), state_dict(played))


def test_full_replay_moves_into_a_larger_one():
    """A full ring laid into a larger buffer keeps every transition, oldest first, and goes on behind the newest."""
    played = make("dqn-sb3")
    run(played, 70)
    ring = played.replay_buffer
    assert ring.full and ring.pos != 0
    larger = make("dqn-sb3", buffer_size=100)
    load_state_dict(larger, state_dict(played))
    replay = larger.replay_buffer
    assert (replay.pos, replay.full) == (20, False)
    assert np.array_equal(replay.observations[:20], np.roll(ring.observations, -ring.pos, axis=0))
    assert np.array_equal(replay.rewards[:20], np.roll(ring.rewards, -ring.pos, axis=0))


def test_n_step_returns_stop_where_games_restarted():
    """After a restart of the games no n-step return runs from the last old transition into a new episode."""
    algorithm = make("dqn-sb3", buffer_size=100, n_steps=3)
    run(algorithm, 40)
    restart_games(algorithm)
    break_at = algorithm.replay_buffer.pos - 1
    run(algorithm, 80)
    replay = algorithm.replay_buffer
    batch = replay._get_samples(np.full(8, break_at))
    assert torch.allclose(batch.discounts, torch.tensor(0.99))
    rows = [row for row in replay.next_observations[break_at]]
    for found, done in zip(batch.next_observations.numpy(), batch.dones.numpy(), strict=True):
        assert any(np.array_equal(found, row) for row in rows)
        game = next(game for game, row in enumerate(rows) if np.array_equal(found, row))
        ended = replay.dones[break_at, game] * (1 - replay.timeouts[break_at, game])
        assert done[0] == ended


def test_state_holds_no_module():
    """The tree consists of what a checkpoint can keep, and the entropy coefficient of SAC is in it."""
    state = state_dict(make("sac"))
    assert set(state["variables"]) == {"log_ent_coef"}
    assert "ent_coef_optimizer" in state["optimizers"]
    assert isinstance(recursive_getattr(make("tqc"), "ent_coef_tensor"), torch.Tensor)
