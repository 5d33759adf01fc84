"""The same weights and the same batches give the same weights as stable-baselines3's DQN."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv

from agent.config import LearnerSettings, NetworkSettings
from agent.learner import Learner
from agent.losses import q_learning
from agent.nets.q_network import make_q_network
from agent.schedules import constant
from agent.types import Batch

TOLERANCE = 1e-6


class SpacesOnly(gymnasium.Env):
    """An environment that is never played."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


class Both:
    """SB3's DQN and our learner on the same network, fed with the same batches."""

    def __init__(
        self, shape, dtype, hidden, policy, *, target_interval, max_grad_norm=10.0, batch_size=32, adam_epsilon=1e-8
    ):
        bound = (0, 255) if dtype == "uint8" else (-np.inf, np.inf)
        space = spaces.Box(*bound, shape, np.dtype(dtype).type)
        settings = LearnerSettings(
            learning_rate=6.3e-4,
            adam_epsilon=adam_epsilon,
            max_grad_norm=max_grad_norm,
            discount=0.97,
            target_interval=target_interval,
            loss="huber",
            double=False,
            batch_size=batch_size,
        )
        self.dqn = DQN(
            policy,
            DummyVecEnv([lambda: SpacesOnly(space, spaces.Discrete(4))]),
            learning_rate=settings.learning_rate,
            buffer_size=1,
            gamma=settings.discount,
            target_update_interval=target_interval,
            max_grad_norm=max_grad_norm,
            policy_kwargs={"optimizer_kwargs": {"eps": adam_epsilon}}
            | ({"net_arch": list(hidden)} if policy == "MlpPolicy" else {}),
            seed=1,
            device="cpu",
        )
        self.dqn.set_logger(Logger(None, []))
        self.dqn.replay_buffer.sample = lambda batch_size, env=None: self.theirs
        generator = torch.Generator().manual_seed(2)
        network = make_q_network(NetworkSettings(hidden=hidden), shape, dtype == "uint8", 4, generator)
        pairs = list(zip(network.parameters(), self.dqn.q_net.parameters(), strict=True))
        with torch.no_grad():
            for own, their in pairs:
                own.copy_(their)
        self.pairs = pairs
        self.learner = Learner(
            network,
            self,
            partial(q_learning, double=settings.double, kind=settings.loss),
            settings,
            learning_rate=constant(settings.learning_rate),
            importance_exponent=constant(0.0),
        )
        self.shape, self.dtype, self.batch_size, self.discount = shape, dtype, batch_size, settings.discount
        self.generator = torch.Generator().manual_seed(3)

    def sample(self, batch_size, importance_exponent):
        return self.ours

    def update_priorities(self, index, td_error):
        """Nothing is prioritized."""

    def draw(self):
        """Draw a batch whose errors lie on both sides of the Huber loss's corner, with terminations."""
        count, generator = self.batch_size, self.generator
        size = (count, *self.shape)
        if self.dtype == "uint8":
            s_tm1, s_t = (torch.randint(256, size, generator=generator, dtype=torch.uint8) for _ in range(2))
        else:
            s_tm1, s_t = (torch.randn(size, generator=generator) for _ in range(2))
        action = torch.randint(4, (count,), generator=generator)
        reward = 3.0 * torch.randn(count, generator=generator)
        done = (torch.rand(count, generator=generator) < 0.3).float()
        one = torch.ones(count)
        self.ours = Batch(s_tm1, action, reward, self.discount * (one - done), s_t, one, torch.arange(count))
        self.theirs = ReplayBufferSamples(s_tm1, action[:, None], s_t, done[:, None], reward[:, None])

    def update(self):
        """Let both learn from one new batch; SB3's counter of steps moves with its updates."""
        self.draw()
        self.dqn.train(gradient_steps=1, batch_size=self.batch_size)
        self.dqn._on_step()
        self.learner.update(1, 0)

    def difference(self):
        """Return the largest difference between our weights and theirs, online and target."""
        pairs = [*self.pairs, *zip(self.learner.target.parameters(), self.dqn.q_net_target.parameters(), strict=True)]
        return max((own - their).detach().abs().max().item() for own, their in pairs)


@pytest.mark.parametrize("target_interval", [1, 3, 1000])
@pytest.mark.parametrize("max_grad_norm", [10.0, 0.1])
def test_updates_equal_stable_baselines3(target_interval, max_grad_norm):
    """After one and after more updates all weights equal SB3's, with target copies at every, some or no update."""
    both = Both((8,), "float32", (32, 16), "MlpPolicy", target_interval=target_interval, max_grad_norm=max_grad_norm)
    before = [own.detach().clone() for own, _ in both.pairs]
    assert both.difference() == 0.0
    for update in range(1, 11):
        both.update()
        assert both.difference() <= TOLERANCE
        copied = all(
            torch.equal(own, target)
            for own, target in zip(both.learner.network.parameters(), both.learner.target.parameters(), strict=True)
        )
        assert copied == (update % target_interval == 0)
        assert all(not torch.equal(own, old) for (own, _), old in zip(both.pairs, before, strict=True))


@pytest.mark.parametrize(("updates", "adam_epsilon"), [(1, 1e-8), (3, 1.5e-4)])
def test_updates_on_frames_equal_stable_baselines3(updates, adam_epsilon):
    """The same holds for stacked frames and the Nature network, each side scaling the bytes itself, once."""
    # More than one update with Dopamine's epsilon: with SB3's, Adam blows rounding errors of almost vanishing gradients
    # up to whole steps.
    both = Both((4, 84, 84), "uint8", (512,), "CnnPolicy", target_interval=2, batch_size=4, adam_epsilon=adam_epsilon)
    for _ in range(updates):
        both.update()
        assert both.difference() <= TOLERANCE


def test_a_wrong_loss_is_noticed():
    """The comparison is not blind: with the squared error the weights part at once."""
    both = Both((8,), "float32", (32, 16), "MlpPolicy", target_interval=1000)
    both.learner.loss = partial(q_learning, double=False, kind="mse")
    both.update()
    assert both.difference() > TOLERANCE
