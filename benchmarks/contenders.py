"""Who is measured by benchmarks/throughput.py. A contender trains until the watch says that it is enough.

Each runs in a process of its own, with the interpreter of the virtual environment that has its libraries; only what it
needs is imported. Every contender plays on the games as its own users have them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import (
    DISCOUNT, EPSILON, GAMES, LEARNING_RATE, LEARNING_STARTS, MAX_GRAD_NORM, TARGET_INTERVAL, UPDATES_PER_BEAT, Case,
    our_settings, sb3_settings,
)  # fmt: skip
from benchmarks.watch import Finished, Watch

ROOT = Path(__file__).resolve().parents[1]

MODES = ("eager", "compiled", "captured")  # values of learner.execution: each is a contender


class Contender(NamedTuple):
    """Somebody who is measured: the folder of the environment with its libraries, and what to install there."""

    title: str
    run: Callable[[Case, Watch], None]
    environment: str = ".venv"
    install: str = ""

    @property
    def python(self) -> Path:
        """The interpreter to run it with: ours when it needs nothing that we do not have."""
        return Path(sys.executable) if self.environment == ".venv" else ROOT / self.environment / "bin" / "python"


def make_session(case: Case, execution: str, **changes: Any) -> Any:
    """Return our agent with the settings of `case`, others laid over them; `execution` says how its updates run."""
    from agent.cli.session import Session
    from agent.cli.settings import merge
    from agent.config import Settings

    tree = merge(merge(our_settings(case), {"learner": {"execution": execution}}), changes)
    return Session(case.game, Settings.model_validate(tree))


def settled_ticks(session: Any) -> Iterator[Any]:
    """Return the session's ticks from where updates run as the settings ask, compiled or not; SystemExit if not."""
    from agent.learner import EAGER_UPDATES

    wanted, said = session.settings.learner.execution, []
    session.learner.say = said.append
    ticks = session.ticks()
    least = 10 if wanted == "eager" else EAGER_UPDATES + 10
    while next(ticks).updates < least:
        pass
    if session.learner.execution != wanted:
        raise SystemExit(f"{session.game}: updates are not {wanted}: {' '.join(said)}")
    return ticks


def ours(mode: str) -> Callable[[Case, Watch], None]:
    """Return our contender, whose learner runs in `mode`; it chooses its threads itself."""

    def run(case: Case, watch: Watch) -> None:
        session = make_session(case, mode)
        try:
            for tick in settled_ticks(session):
                if not watch.beat(tick.steps, tick.updates):
                    break
        finally:
            session.close()

    return run


def sb3(case: Case, watch: Watch) -> None:
    """stable-baselines3's DQN on its DummyVecEnv; MinAtar's network is our extractor, which it has none for."""
    import torch
    from stable_baselines3 import DQN

    torch.set_num_threads(case.threads)
    policy, policy_kwargs = "MlpPolicy", {"net_arch": list(case.hidden)}
    if case.kind == "grid":
        from agent.sb3.extractors import SmallGrid

        policy = "CnnPolicy"
        policy_kwargs = {"features_extractor_class": SmallGrid, "normalize_images": False, "net_arch": []}
    elif case.kind == "nature":
        policy, policy_kwargs = "CnnPolicy", {}
    arguments = sb3_settings(case) | {"max_grad_norm": MAX_GRAD_NORM, "policy_kwargs": policy_kwargs}
    arguments["device"] = case.device
    _learn(DQN(policy, _sb3_games(case), **arguments), watch)


def sbx(case: Case, watch: Watch) -> None:
    """sbx's DQN, whose networks are jax's; jax's threads are those that it starts by itself."""
    import torch
    from sbx import DQN

    torch.set_num_threads(1)  # it only holds replay
    policy: Any = {"mlp": "MlpPolicy", "nature": "CnnPolicy"}.get(case.kind)
    if case.kind == "grid":
        from benchmarks.sbx_grid import GridPolicy

        policy = GridPolicy
    arguments = sb3_settings(case) | {"policy_kwargs": {"net_arch": [case.hidden[0]]}}  # one width for all layers
    _learn(DQN(policy, _sb3_games(case), **arguments), watch)


def _learn(algorithm: Any, watch: Watch) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Beat(BaseCallback):
        def _on_step(self) -> bool:
            return watch.beat(self.num_timesteps, self.model._n_updates)

    algorithm.learn(10**9, Beat(), log_interval=None)


def _sb3_games(case: Case) -> Any:
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    if case.kind == "nature":
        return VecFrameStack(make_atari_env(_atari_id(case), GAMES, seed=0, wrapper_kwargs=_ATARI_WRAPPER), 4)
    return make_vec_env(case.gymnasium_id or _minatar_env(case), GAMES, seed=0)


_ATARI_WRAPPER = {  # our defaults, Machado et al. 2018
    "noop_max": 0, "frame_skip": 4, "screen_size": 84, "terminal_on_life_loss": False, "clip_reward": True,
    "action_repeat_probability": 0.25,
}  # fmt: skip


def _atari_id(case: Case) -> str:
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    return str(case.gymnasium_id)


def _minatar_env(case: Case) -> Callable[[], Any]:
    """MinAtar's own environment, channels first, in the least code: its Gymnasium wrappers would cost peers time."""
    import gymnasium
    import numpy as np
    from minatar import Environment

    class MinAtar(gymnasium.Env):
        def __init__(self) -> None:
            self.game = Environment(case.game.split("/")[1], sticky_action_prob=0.1)
            height, width, channels = self.game.state_shape()
            self.observation_space = gymnasium.spaces.Box(0, 255, (channels, height, width), np.uint8)
            self.action_space = gymnasium.spaces.Discrete(self.game.num_actions())

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            if seed is not None:
                self.game.seed(seed)
            self.game.reset()
            return self._observation(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            reward, ended = self.game.act(int(action))
            return self._observation(), float(reward), bool(ended), False, {}

        def _observation(self) -> Any:
            return self.game.state().transpose(2, 0, 1).astype(np.uint8)

    return MinAtar


def tianshou(case: Case, watch: Watch) -> None:
    """Tianshou's DQN with its off-policy trainer; Atari in its worker processes, each frame stored once."""
    import gymnasium
    import torch
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv, ShmemVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams

    class Clipped(DQN):
        """Its DQN hands no limit of the gradient's norm to the optimizer that can keep one."""

        def _create_policy_optimizer(self, optim: Any) -> Any:
            return self._create_optimizer(self.policy, optim, max_grad_norm=MAX_GRAD_NORM)

    torch.set_num_threads(case.threads)
    frames: dict[str, Any] = {}
    if case.kind == "nature":
        import numpy as np
        from tianshou.env.atari import atari_wrapper

        name = _atari_id(case)
        atari_wrapper.get_space_dtype = lambda space: np.uint8  # its own np.integer is refused since numpy 2.3

        def make() -> Any:
            game = gymnasium.make(name, repeat_action_probability=_ATARI_WRAPPER["action_repeat_probability"])
            return atari_wrapper.wrap_deepmind(game, episode_life=False, clip_rewards=True, frame_stack=4)

        games = ShmemVectorEnv([make] * GAMES)
        frames = {"ignore_obs_next": True, "save_only_last_obs": True, "stack_num": 4}
    elif case.gymnasium_id:
        games = DummyVectorEnv([lambda: gymnasium.make(case.gymnasium_id)] * GAMES)
    else:
        games = DummyVectorEnv([_minatar_env(case)] * GAMES)
    observations, actions = games.observation_space[0], games.action_space[0]
    policy = DiscreteQLearningPolicy(
        model=_tianshou_network(case, observations.shape, int(actions.n)), action_space=actions, eps_training=EPSILON
    )
    algorithm = Clipped(
        policy=policy, optim=AdamOptimizerFactory(lr=LEARNING_RATE), gamma=DISCOUNT, is_double=False,
        target_update_freq=TARGET_INTERVAL, huber_loss_delta=1.0,
    )  # fmt: skip
    collector = Collector(algorithm, games, VectorReplayBuffer(case.capacity, GAMES, **frames), exploration_noise=True)
    collector.reset()
    collector.collect(n_step=LEARNING_STARTS)

    def on_step(epoch: int, steps: int) -> None:
        if not watch.beat(LEARNING_STARTS + steps, algorithm._iter):
            raise Finished

    parameters = OffPolicyTrainerParams(
        training_collector=collector, max_epochs=1, epoch_num_steps=10**9, batch_size=case.batch,
        collection_step_num_env_steps=GAMES, update_step_num_gradient_steps_per_sample=UPDATES_PER_BEAT / GAMES,
        training_fn=on_step, verbose=False, show_progress=False,
    )  # fmt: skip
    try:
        algorithm.run_training(parameters)
    except Finished:
        pass
    games.close()


def _tianshou_network(case: Case, shape: Any, num_actions: int) -> Any:
    import torch
    from tianshou.env.atari.atari_network import DQNet
    from tianshou.utils.net.common import Net

    if case.kind == "mlp":
        return Net(state_shape=shape, action_shape=num_actions, hidden_sizes=list(case.hidden))
    if case.kind == "nature":

        class Scaled(DQNet):
            def forward(self, obs: Any, state: Any = None, info: Any = None) -> Any:
                return super().forward(torch.as_tensor(obs, dtype=torch.float32) / 255.0, state, info)

        return Scaled(*shape, num_actions)
    from agent.nets.torsos import MinAtar

    class Grid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.torso = MinAtar(shape, case.hidden)
            self.last = torch.nn.Linear(self.torso.features, num_actions)

        def forward(self, obs: Any, state: Any = None, info: Any = None) -> Any:
            return self.last(self.torso(torch.as_tensor(obs))), state

    return Grid()


CONTENDERS = {
    **{f"ours-{mode}": Contender(f"Icebox, {mode}", ours(mode)) for mode in MODES},
    "sb3": Contender("stable-baselines3 DQN", sb3, ".venv-peers", "a path file to .venv, opencv-python-headless"),
    "sbx": Contender(
        "sbx-rl DQN (jax)", sbx, ".venv-sbx", "sbx-rl ale-py opencv-python-headless minatar gymnasium[box2d] psutil"
    ),
    "tianshou": Contender("Tianshou DQN", tianshou, ".venv-peers", "a path file to .venv, tianshou"),
}
