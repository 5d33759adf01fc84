"""The state of one of SB3's own algorithms as a tree of tensors, arrays and JSON: more than `save` has, without pickle.

Kept: weights, optimizer moments, counters, replay, statistics of finished episodes, all random generators, and the
games where they can tell how they stand: then a run goes on as if it had never stopped, bit for bit on a CPU. Where
they cannot (Atari) they start new episodes. An unfinished rollout of PPO or A2C is never kept (see stock.train), and
where `use_sde` is set the noise of the rollout that is about to begin is drawn anew.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from agent.seeding import numpy_state, seed_for, set_numpy_state

# _n_calls times DQN's target copies; exploration_rate is what it acts with until the next step sets it.
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
_REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def state_dict(algorithm: BaseAlgorithm) -> dict[str, Any]:
    """Return the whole state of `algorithm`; to be taken when it is settled (see stock.train)."""
    modules, optimizers = {}, {}
    for name, parameters in algorithm.get_parameters().items():
        if isinstance(recursive_getattr(algorithm, name), torch.optim.Optimizer):
            optimizers[name] = {str(index): dict(moments) for index, moments in parameters["state"].items()}
        else:
            modules[name] = dict(parameters)
    state = {
        "modules": modules,
        "optimizers": optimizers,
        "variables": {name: recursive_getattr(algorithm, name).detach() for name in _variables(algorithm)},
        "counters": {name: getattr(algorithm, name) for name in _COUNTERS if hasattr(algorithm, name)},
        "episodes": [
            [float(episode["r"]), int(episode["l"]), float(episode["t"])] for episode in algorithm.ep_info_buffer or ()
        ],
        "successes": [float(success) for success in algorithm.ep_success_buffer or ()],
        "random": _random_state(algorithm),
        "games": _games_state(algorithm),
    }
    if isinstance(algorithm, OffPolicyAlgorithm):
        state["replay"] = _replay_state(algorithm.replay_buffer)
    return state


def load_state_dict(algorithm: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    """Put back what `state_dict` gave into a freshly built `algorithm`; raise ValueError when it does not fit.

    The replay buffer may be larger than it was. Games whose state is not there start new episodes, from seeds that no
    earlier part of the run has used.
    """
    try:
        parameters: dict[str, Any] = dict(state["modules"])
        for name, moments in state["optimizers"].items():
            parameters[name] = recursive_getattr(algorithm, name).state_dict()
            # Cloned, because an optimizer keeps the tensors that it is given.
            parameters[name]["state"] = {int(index): _cloned(moment) for index, moment in moments.items()}
        algorithm.set_parameters(parameters, exact_match=True)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"This state belongs to another algorithm or network: {error}.") from error
    with torch.no_grad():
        for name in _variables(algorithm):
            recursive_getattr(algorithm, name).copy_(state["variables"][name])
    for name, value in state["counters"].items():
        setattr(algorithm, name, value)
    window = algorithm._stats_window_size
    algorithm.ep_info_buffer = deque((dict(zip("rlt", episode)) for episode in state["episodes"]), maxlen=window)
    algorithm.ep_success_buffer = deque(state["successes"], maxlen=window)
    if isinstance(algorithm, OffPolicyAlgorithm):
        _load_replay(algorithm.replay_buffer, state["replay"])
    if state.get("games") is None:  # older checkpoints have none
        restart_games(algorithm)
    else:
        _load_games(algorithm, state["games"])
    _load_random_state(algorithm, state["random"])


def restart_games(algorithm: BaseAlgorithm) -> None:
    """Let the games start new episodes when training goes on, from seeds that belong to this step of the run."""
    algorithm._last_obs = None  # makes `learn` reset the games
    algorithm.env.seed(seed_for(algorithm.seed or 0, f"games at step {algorithm.num_timesteps}") % 2**31)
    replay = getattr(algorithm, "replay_buffer", None)
    if replay is None or replay.size() == 0:
        return
    # No n-step return may run from the last row into what comes next.
    last = replay.pos - 1
    replay.timeouts[last] = np.maximum(replay.timeouts[last], 1.0 - replay.dones[last])
    if replay.optimize_memory_usage:
        # Here the next row is also the last one's next observation, and is about to be overwritten. As SB3 does.
        replay.dones[last] = 1.0


def _cloned(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in moments.items()}


def _variables(algorithm: BaseAlgorithm) -> list[str]:
    """Return the names of tensors outside modules: the entropy coefficient of SAC and TQC."""
    return algorithm._get_torch_save_params()[1]


def _replay_state(replay: ReplayBuffer) -> dict[str, Any]:
    """Return the filled rows of a replay buffer; views, which are copied only when they are written."""
    rows = replay.size()
    arrays = {name: getattr(replay, name)[:rows] for name in _REPLAY_ARRAYS if hasattr(replay, name)}
    return {"arrays": arrays, "position": replay.pos, "full": replay.full}


def _load_replay(replay: ReplayBuffer, state: Mapping[str, Any]) -> None:
    """Put back what `_replay_state` gave; a buffer that was full is laid out anew, oldest first, in a larger one."""
    rows = len(state["arrays"]["actions"])
    if rows > replay.buffer_size:
        raise ValueError(f"The state has {rows} rows of replay, the buffer {replay.buffer_size}: raise buffer_size.")
    grown = state["full"] and rows < replay.buffer_size
    for name, array in state["arrays"].items():
        own = getattr(replay, name)
        if own.shape[1:] != array.shape[1:] or own.dtype != array.dtype:
            raise ValueError(
                f"The replay buffer's {name} are {own.dtype} {own.shape[1:]}, the state's are {array.dtype} "
                f"{array.shape[1:]}: the number of games or the observations changed."
            )
        own[:rows] = np.roll(array, -state["position"], axis=0) if grown else array
    replay.pos, replay.full = (rows, False) if grown else (state["position"], state["full"])


def _games(algorithm: BaseAlgorithm) -> list[Any]:
    """Return our games below SB3's wrappers, each a vector of one; an empty list unless all can tell how they stand."""
    games = [getattr(env.unwrapped, "games", None) for env in getattr(algorithm.env.unwrapped, "envs", ())]
    return games if all(getattr(game, "stateful", False) for game in games) else []


def _games_state(algorithm: BaseAlgorithm) -> dict[str, Any] | None:
    games = _games(algorithm)
    if not games or algorithm._last_obs is None:
        return None
    return {
        "each": [game.state_dict() for game in games],
        "observation": algorithm._last_obs,
        "first": algorithm._last_episode_starts,
    }


def _load_games(algorithm: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    games = _games(algorithm)
    if len(games) != len(state["each"]):
        raise ValueError(f"The state has {len(state['each'])} games, the run {len(games)}.")
    algorithm.env.reset()  # SB3's wrappers take no step before it
    for game, each in zip(games, state["each"], strict=True):
        game.load_state_dict(each)
    algorithm._last_obs, algorithm._last_episode_starts = state["observation"].copy(), state["first"].copy()


def _random_state(algorithm: BaseAlgorithm) -> dict[str, Any]:
    version, python, python_normal = random.getstate()
    _, numpy, numpy_position, has_normal, numpy_normal = np.random.get_state()
    state = {
        "python": [version, list(python), python_normal],
        "numpy": [numpy.tolist(), int(numpy_position), int(has_normal), float(numpy_normal)],
        "torch": torch.get_rng_state(),
        "actions": numpy_state(algorithm.action_space.np_random),
    }
    if algorithm.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(algorithm.device)
    return state


def _load_random_state(algorithm: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    version, python, python_normal = state["python"]
    random.setstate((version, tuple(python), python_normal))
    numpy, position, has_normal, normal = state["numpy"]
    np.random.set_state(("MT19937", np.array(numpy, np.uint32), position, has_normal, normal))
    torch.set_rng_state(state["torch"])
    set_numpy_state(algorithm.action_space.np_random, state["actions"])
    if algorithm.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], algorithm.device)
