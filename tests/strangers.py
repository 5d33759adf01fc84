"""What the tests of foreign policies share: the zoo, fresh small policies, and how stable-baselines3 plays them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, TRPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution

from agent.freeze import graph
from agent.freeze.graph import Continuous, Discrete
from agent.freeze.sb3_policy import Stranger

ZOO = Path(__file__).parent / "zoo"
ALGORITHMS = {"A2C": A2C, "DDPG": DDPG, "DQN": DQN, "PPO": PPO, "QR-DQN": QRDQN, "SAC": SAC, "TD3": TD3, "TQC": TQC}
ALGORITHMS["TRPO"] = TRPO
OFF_POLICY = (DDPG, DQN, QRDQN, SAC, TD3, TQC)

INF = np.inf
VECTOR = {"dtype": np.float32}
CARTPOLE = spaces.Box(-INF, INF, (4,), **VECTOR)
LUNAR = spaces.Box(-INF, INF, (8,), **VECTOR)


class Known(NamedTuple):
    """A file of the zoo, and its spaces, which today's gymnasium cannot unpickle."""

    file: str
    algorithm: str
    observations: spaces.Box
    actions: spaces.Space


SIX = [
    Known("dqn-CartPole-v1", "DQN", CARTPOLE, spaces.Discrete(2)),
    Known("dqn-LunarLander-v2", "DQN", LUNAR, spaces.Discrete(4)),
    Known("ppo-LunarLander-v2", "PPO", LUNAR, spaces.Discrete(4)),
    Known("qrdqn-CartPole-v1", "QR-DQN", CARTPOLE, spaces.Discrete(2)),
    Known("sac-Pendulum-v1", "SAC", spaces.Box(-8, 8, (3,), **VECTOR), spaces.Box(-2, 2, (1,), **VECTOR)),
    Known("a2c-MountainCar-v0", "A2C", spaces.Box(-2, 2, (2,), **VECTOR), spaces.Discrete(3)),
]


def load_known(known: Known) -> BaseAlgorithm:
    """Load one of the six as its makers meant it; these are trusted."""
    given: dict[str, Any] = {"observation_space": known.observations, "action_space": known.actions}
    given |= dict.fromkeys(("lr_schedule", "exploration_schedule", "clip_range", "learning_rate"), lambda _: 0.0)
    given |= {"buffer_size": 1, "train_freq": 1, "n_envs": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ALGORITHMS[known.algorithm].load(ZOO / f"{known.file}.zip", custom_objects=given, device="cpu")


class Silent(gym.Env):
    """A game of the given spaces in which nothing happens."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space):
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Give any observation."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Give any observation."""
        return self.observation_space.sample(), 0.0, False, False, {}


def fresh(
    algorithm: str, observations: spaces.Space, actions: spaces.Space, policy: str = "MlpPolicy", **kwargs: Any
) -> BaseAlgorithm:
    """Make a policy that was never trained, with weights that saturate and clip something."""
    maker = ALGORITHMS[algorithm]
    if maker in OFF_POLICY:
        kwargs.setdefault("buffer_size", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = maker(policy, Silent(observations, actions), seed=0, device="cpu", **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            scale = 0.3 if parameter.ndim == 1 else 2 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def sample(space: spaces.Space, count: int) -> np.ndarray:
    """Return observations that a game with this space might give, [count, *shape]."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (count, *space.shape)).astype(space.dtype)
    if space.dtype == np.uint8:
        brightness = rng.random((count, *(1 for _ in space.shape)))  # else all noise looks the same
        return (rng.integers(0, 256, (count, *space.shape)) * brightness).astype(np.uint8)
    return (rng.standard_normal((count, *space.shape)) * 2).astype(space.dtype)


def values_of(model: BaseAlgorithm, observations: np.ndarray) -> np.ndarray | None:
    """Return what stable-baselines3 chooses a discrete action by, [N, A]; None for continuous ones."""
    seen = torch.as_tensor(observations)
    with torch.no_grad():
        if isinstance(model, QRDQN):
            return model.policy.quantile_net(seen).mean(dim=1).numpy()
        if isinstance(model, DQN):
            return model.policy.q_net(seen).numpy()
        if isinstance(model, PPO | A2C | TRPO):
            distribution = model.policy.get_distribution(seen)
            if isinstance(distribution, CategoricalDistribution):
                return distribution.distribution.logits.numpy()  # up to a constant
    return None


def check_alike(
    stranger: Stranger, model: BaseAlgorithm, raw: np.ndarray, seen: np.ndarray | None = None, tolerance: float = 1e-5
) -> None:
    """Assert that a policy acts on `raw` bit for bit as stable-baselines3 on `seen`, which its wrappers made of it.

    Outputs of its network and of its graph are as near as their order of summing lets them be.
    """
    seen = raw if seen is None else seen
    expected, _ = model.predict(seen, deterministic=True)
    np.testing.assert_array_equal(stranger.act(raw), expected)
    head = stranger.graph.head
    given = raw if stranger.graph.dtype == "uint8" else raw.astype(np.float32)
    with torch.no_grad():
        live = stranger.network(torch.as_tensor(given)).numpy()
    frozen = graph.run(stranger.graph, given)
    assert stranger.graph.shape == raw.shape[1:]
    assert live.shape == frozen.shape == (len(raw), stranger.graph.num_outputs)
    values = values_of(model, seen)
    for outputs, slack in ((live, 1e-6), (frozen, tolerance)):
        actions = graph.decide(head, outputs)
        if values is None:
            assert isinstance(head, Continuous)
            span = np.float32(head.high) - np.float32(head.low)
            np.testing.assert_allclose(actions / span, expected / span, rtol=0, atol=10 * slack)
            assert len(np.unique(actions.round(3))) > len(raw) / 20, "these observations tell nothing apart"
            continue
        assert isinstance(head, Discrete)
        centred, wanted = (each - each.mean(axis=1, keepdims=True) for each in (outputs, values))
        reach = np.abs(wanted).max()
        np.testing.assert_allclose(centred, wanted, rtol=0, atol=slack * reach)
        best = np.sort(values, axis=1)
        tie = best[:, -1] - best[:, -2] <= 2 * slack * reach
        assert ((actions == expected) | tie).all() and tie.mean() < 0.02
        assert len(np.unique(expected)) > 1, "these observations tell nothing apart"
