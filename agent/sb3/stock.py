"""SB3's and sb3-contrib's own algorithms for the launcher: built from settings, trained, kept without pickle.

They draw from Python's, numpy's and torch's global generators; that is theirs to decide, and their states are kept.
"""

from __future__ import annotations

import difflib
import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecEnv

from agent.config import Settings
from agent.guard import Faults
from agent.sb3.extractors import SmallGrid
from agent.sb3.vec_env import FinishedEpisode


class Kind(NamedTuple):
    """An algorithm and the actions it can choose."""

    make: type[BaseAlgorithm]
    discrete: bool
    continuous: bool


ALGORITHMS = {
    "dqn-sb3": Kind(DQN, discrete=True, continuous=False),
    "qrdqn": Kind(QRDQN, discrete=True, continuous=False),
    "ppo": Kind(PPO, discrete=True, continuous=True),
    "a2c": Kind(A2C, discrete=True, continuous=True),
    "sac": Kind(SAC, discrete=False, continuous=True),
    "td3": Kind(TD3, discrete=False, continuous=True),
    "tqc": Kind(TQC, discrete=False, continuous=True),
}

# What the launcher decides, or what cannot be written in a YAML file.
_NOT_SETTINGS = {
    *("self", "policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"),
    *("replay_buffer_class", "rollout_buffer_class"),
}


def build(algo: str, venv: VecEnv, settings: Settings) -> BaseAlgorithm:
    """Return the algorithm called `algo`, ready to train on `venv`: SB3's defaults, then `settings.sb3[algo]`.

    Seed and device come from `settings`. The replay buffer never holds more than the run's steps. In `settings.sb3` a
    number for `action_noise` is the standard deviation of normal noise, and `train_freq` may be [1, "episode"].
    Raises ValueError, with the remedy, when it does not fit the game's actions and for settings it does not have.
    """
    require_known("algorithm under sb3", settings.sb3, ALGORITHMS)
    require_fitting_actions(algo, venv.action_space)
    make = ALGORITHMS[algo].make
    given = dict(settings.sb3.get(algo, {}))
    require_known(f"setting under sb3.{algo}", given, _argument_names(make))
    policy, policy_kwargs = _policy(venv.observation_space)
    arguments = _readable(given, venv.action_space)
    arguments["policy_kwargs"] = policy_kwargs | dict(given.get("policy_kwargs") or {})
    if issubclass(make, OffPolicyAlgorithm):
        arguments["buffer_size"] = _buffer_size(make, given, settings.steps, venv.num_envs)
    device = settings.device
    if device == "auto" and policy == "MlpPolicy" and not issubclass(make, OffPolicyAlgorithm):
        device = "cpu"  # as SB3 advises: small on-policy networks only wait for a GPU
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*enough memory to store the complete.*")
            # SB3 seeds numpy's global generator, which takes 32 bits.
            return make(policy, venv, seed=settings.seed % 2**32, device=device, **arguments)  # type: ignore[call-arg]
    except (MemoryError, UserWarning) as error:
        raise ValueError(
            f"{algo}'s replay buffer does not fit into memory ({str(error).strip()}): "
            f"write a smaller buffer_size under sb3.{algo} into a YAML file."
        ) from error
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{algo} does not take this game with what stands under sb3.{algo}: {error}.") from error


def skip_unsound_updates(algorithm: BaseAlgorithm, faults: Faults) -> None:
    """Let no optimizer of `algorithm` make a step with a gradient that is not finite; count those in `faults`.

    Without gradients torch's optimizers move neither weights nor moments. Looking waits for the device, as SB3 itself
    does in every update.
    """

    def look(name: str, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        norms = torch._foreach_norm([each.grad for each in parameters])
        is_unsound = bool(norms) and not bool(torch.isfinite(torch.stack(norms)).all())
        for each in parameters if is_unsound else ():
            each.grad = None
        faults.updates(1, int(is_unsound), name)
        faults.check()

    for name in algorithm.get_parameters():
        part = recursive_getattr(algorithm, name)
        if isinstance(part, torch.optim.Optimizer):
            part.register_step_pre_hook(partial(look, name))


def require_fitting_actions(algo: str, action_space: spaces.Space) -> None:
    """Raise ValueError naming the algorithms that fit when `algo` cannot choose actions of this kind."""
    discrete = isinstance(action_space, spaces.Discrete)
    kind = ALGORITHMS[algo]
    if kind.discrete if discrete else kind.continuous:
        return
    fitting = [name for name, other in ALGORITHMS.items() if (other.discrete if discrete else other.continuous)]
    wanted, found = ("continuous", "discrete") if discrete else ("discrete", "continuous")
    remedy = ", ".join(["icebox"] * discrete + fitting)
    raise ValueError(f"{algo} chooses {wanted} actions, but this game's are {found}: use --algo with one of {remedy}.")


def require_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for the first name in `given` that is not in `known`, with the nearest right one."""
    known = sorted(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            raise ValueError(f"Unknown {what}: {name!r}. {hint}")


def train(
    algorithm: BaseAlgorithm,
    steps: int,
    *,
    on_beat: Callable[[int, list[FinishedEpisode]], bool],
    on_settled: Callable[[int], None],
    on_scalars: Callable[[int, dict[str, float]], None],
    interval_s: float,
) -> None:
    """Train until `algorithm.num_timesteps` has reached `steps`, or until `on_beat` returns False.

    `on_beat(steps, episodes)` follows every step of the games. `on_settled(steps)` comes when everything played so far
    is stored and learned from: the moment to evaluate and to take `state_dict`; it also comes last. SB3's own tags
    reach `on_scalars(steps, values)` at most every `interval_s` seconds and at the end. A stop waits for the next
    settled moment, except that PPO and A2C drop their unfinished rollout and go back to the step at which it began.
    """
    algorithm.set_logger(Logger(folder=None, output_formats=[_Scalars(on_scalars)]))
    remaining = steps - algorithm.num_timesteps
    if remaining <= 0:
        return
    callback = _Forward(on_beat, on_settled, interval_s)
    try:
        algorithm.learn(remaining, callback, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
    except _Stopped:
        pass
    callback.settle(final=True)


class _Stopped(Exception):
    """Leaves SB3's `learn` between two rollouts."""


class _Forward(BaseCallback):
    """Passes SB3's events on; see `train`."""

    def __init__(
        self,
        on_beat: Callable[[int, list[FinishedEpisode]], bool],
        on_settled: Callable[[int], None],
        interval_s: float,
    ):
        super().__init__()
        self._on_beat = on_beat
        self._on_settled = on_settled
        self._interval_s = interval_s
        self._flushed = time.perf_counter()
        self._settled_steps: int | None = None
        self._stopping = False

    def settle(self, final: bool = False) -> None:
        """Flush SB3's tags when it is time, then tell that everything is stored and learned from."""
        if final or time.perf_counter() - self._flushed >= self._interval_s:
            self._flushed = time.perf_counter()
            self.model.dump_logs()
        self._on_settled(self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        if self._stopping:
            raise _Stopped
        if self._settled_steps is not None:
            self.settle()
        self._settled_steps = self.model.num_timesteps

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        episodes = [
            FinishedEpisode(game, float(info["episode"]["r"]), int(info["episode"]["l"]))
            for game, info in enumerate(infos)
            if "episode" in info
        ]
        if self._on_beat(self.model.num_timesteps, episodes):
            return True
        if isinstance(self.model, OffPolicyAlgorithm):
            self._stopping = True
            return True
        # Weights have not changed since the rollout began: with the step put back this is the state of that moment.
        self.model.num_timesteps = self._settled_steps
        # Where the games stand, which SB3 would note only later: they go on from here.
        self.model._last_obs, self.model._last_episode_starts = self.locals["new_obs"], self.locals["dones"]
        return False


class _Scalars(KVWriter):
    """Hands what SB3 would write to TensorBoard to a callable."""

    def __init__(self, on_scalars: Callable[[int, dict[str, float]], None]):
        self._on_scalars = on_scalars

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Pass on the numbers among `key_values`."""
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if "tensorboard" not in (key_excluded[key] or ()) and isinstance(value, (int, float, np.number))
        }
        self._on_scalars(step, numbers)

    def close(self) -> None:
        """Nothing is held."""


def _argument_names(make: type[BaseAlgorithm]) -> set[str]:
    return set(inspect.signature(make.__init__).parameters) - _NOT_SETTINGS


def _policy(space: spaces.Space) -> tuple[str, dict[str, Any]]:
    """Return SB3's name of the policy for these observations and the arguments it needs."""
    if not is_image_space(space):
        return "MlpPolicy", {}
    if min(sorted(space.shape)[1:]) >= 36:  # type: ignore[arg-type]
        return "CnnPolicy", {}
    # Zeros and ones already; the head stands directly on the extractor's hidden layer, as in MinAtar's own network.
    return "CnnPolicy", {"features_extractor_class": SmallGrid, "normalize_images": False, "net_arch": []}


def _readable(given: Mapping[str, Any], action_space: spaces.Space) -> dict[str, Any]:
    """Return `given` with what YAML cannot say put into SB3's form."""
    arguments = dict(given)
    if isinstance(arguments.get("train_freq"), list):
        arguments["train_freq"] = tuple(arguments["train_freq"])
    if "action_noise" in arguments and arguments["action_noise"] is not None:
        deviation = np.full(action_space.shape, float(arguments["action_noise"]), np.float32)  # type: ignore[arg-type]
        arguments["action_noise"] = NormalActionNoise(np.zeros_like(deviation), deviation)
    return arguments


def _buffer_size(make: type[BaseAlgorithm], given: Mapping[str, Any], steps: int, num_envs: int) -> int:
    """Return the transitions to allocate: more than the run has steps would never be filled.

    SB3's default of a million Atari observations is 56 GB, most of which a short run never touches.
    """
    wanted = given.get("buffer_size", inspect.signature(make.__init__).parameters["buffer_size"].default)
    return min(wanted, -(-steps // num_envs) * num_envs)
