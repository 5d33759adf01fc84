"""The same weights and the same batches give the same weights as stable-baselines3's DQN and sb3-contrib's QR-DQN."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv

from agent.config import LearnerSettings, NetworkSettings
from agent.learner import Learner
from agent.losses import make_loss, q_learning, quantile_q_learning
from agent.nets.q_network import make_q_network
from agent.schedules import constant
from agent.types import Batch

TOLERANCE = 1e-6
QUANTILES = 7


class SpacesOnly(gymnasium.Env):
    """An environment that is never played."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


class Both:
    """SB3's DQN, or QR-DQN, and our learner on the same network, fed with the same batches."""

    def __init__(
        self,
        shape,
        dtype,
        hidden,
        policy,
        *,
        algorithm=DQN,
        target_interval,
        max_grad_norm=10.0,
        batch_size=32,
        adam_epsilon=1e-8,
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
        quantile = algorithm is QRDQN
        self.theirs = algorithm(
            policy,
            DummyVecEnv([lambda: SpacesOnly(space, spaces.Discrete(4))]),
            learning_rate=settings.learning_rate,
            buffer_size=1,
            gamma=settings.discount,
            target_update_interval=target_interval,
            max_grad_norm=max_grad_norm,
            policy_kwargs={"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": adam_epsilon}}
            | ({"net_arch": list(hidden)} if policy == "MlpPolicy" else {})
            | ({"n_quantiles": QUANTILES} if quantile else {}),
            seed=1,
            device="cpu",
        )
        self.theirs.set_logger(Logger(None, []))
        self.theirs.replay_buffer.sample = lambda batch_size, env=None: self.their_batch
        their_network = self.theirs.quantile_net if quantile else self.theirs.q_net
        self.their_target = self.theirs.quantile_net_target if quantile else self.theirs.q_net_target
        generator = torch.Generator().manual_seed(2)
        wanted = NetworkSettings(hidden=hidden, distribution="quantile" if quantile else "none", quantiles=QUANTILES)
        network = make_q_network(wanted, shape, dtype == "uint8", 4, generator)
        pairs = list(zip(network.parameters(), their_network.parameters(), strict=True))
        with torch.no_grad():
            for own, their in pairs:
                own.copy_(their)
        self.pairs = pairs
        self.learner = Learner(
            network,
            self,
            make_loss(wanted, settings),
            settings,
            learning_rate=constant(settings.learning_rate),
            importance_exponent=constant(0.0),
            generator=generator,
            discount=constant(settings.discount),
            n_step=constant(1),
        )
        self.shape, self.dtype, self.batch_size, self.discount = shape, dtype, batch_size, settings.discount
        self.generator = torch.Generator().manual_seed(3)

    def draw(self, batch_size):
        """Nothing is drawn: the batch is there."""

    def sample_at(self, draw, importance_exponent, n_step, discount):
        return self.ours

    def update_priorities(self, index, priority):
        """Nothing is prioritized."""

    def make_batch(self):
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
        self.their_batch = ReplayBufferSamples(s_tm1, action[:, None], s_t, done[:, None], reward[:, None])

    def update(self):
        """Let both learn from one new batch; SB3's counter of steps moves with its updates."""
        self.make_batch()
        self.theirs.train(gradient_steps=1, batch_size=self.batch_size)
        self.theirs._on_step()
        self.learner.update(1, 0)

    def difference(self):
        """Return the largest difference between our weights and theirs, online and target."""
        pairs = [*self.pairs, *zip(self.learner.target.parameters(), self.their_target.parameters(), strict=True)]
        return max((own - their).detach().abs().max().item() for own, their in pairs)


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
@pytest.mark.parametrize("target_interval", [1, 3, 1000])
@pytest.mark.parametrize("max_grad_norm", [10.0, 0.1])
def test_updates_equal_stable_baselines3(algorithm, target_interval, max_grad_norm):
    """After one and after more updates all weights equal SB3's, with target copies at every, some or no update."""
    both = Both(
        (8,),
        "float32",
        (32, 16),
        "MlpPolicy",
        algorithm=algorithm,
        target_interval=target_interval,
        max_grad_norm=max_grad_norm,
    )
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


@pytest.mark.parametrize(
    ("algorithm", "updates", "adam_epsilon"), [(DQN, 1, 1e-8), (DQN, 3, 1.5e-4), (QRDQN, 3, 1.5e-4)]
)
def test_updates_on_frames_equal_stable_baselines3(algorithm, updates, adam_epsilon):
    """The same holds for stacked frames and the Nature network, each side scaling the bytes itself, once."""
    # More than one update with Dopamine's epsilon: with SB3's, Adam blows rounding errors of almost vanishing gradients
    # up to whole steps.
    both = Both(
        (4, 84, 84),
        "uint8",
        (512,),
        "CnnPolicy",
        algorithm=algorithm,
        target_interval=2,
        batch_size=4,
        adam_epsilon=adam_epsilon,
    )
    for _ in range(updates):
        both.update()
        assert both.difference() <= TOLERANCE


@pytest.mark.parametrize(
    ("algorithm", "wrong"),
    [
        (DQN, partial(q_learning, double=False, kind="mse")),
        (QRDQN, partial(quantile_q_learning, double=True, fractions=None)),
    ],
)
def test_a_wrong_loss_is_noticed(algorithm, wrong):
    """The comparison is not blind: with the squared error, or another bootstrap action, the weights part."""
    both = Both((8,), "float32", (32, 16), "MlpPolicy", algorithm=algorithm, target_interval=1000)
    both.learner.loss = wrong
    for _ in range(10):  # double Q-learning chooses like Q-learning until the networks have parted
        both.update()
    assert both.difference() > TOLERANCE
