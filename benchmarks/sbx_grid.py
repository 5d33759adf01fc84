"""MinAtar's network for sbx, which has only fully connected layers and Nature's: for its own environment, with jax."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from sbx.common.type_aliases import RLTrainState
from sbx.dqn.policies import DQNPolicy


class GridNetwork(nn.Module):
    """One 3x3 convolution of 16 channels and one hidden layer (Young and Tian 2019); boards come channels first."""

    n_actions: int
    n_units: int

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        """[N, C, H, W] -> [N, A]."""
        x = jnp.transpose(x, (0, 2, 3, 1)).astype(jnp.float32)
        x = nn.relu(nn.Conv(16, kernel_size=(3, 3), padding="VALID")(x))
        x = nn.relu(nn.Dense(self.n_units)(x.reshape((x.shape[0], -1))))
        return nn.Dense(self.n_actions)(x)


class GridPolicy(DQNPolicy):
    """sbx's DQN policy with that network."""

    def build(self, key: jax.Array, lr_schedule: object) -> jax.Array:
        """Make network and optimizer, as sbx's own policies do."""
        key, qf_key = jax.random.split(key, 2)
        observation = jnp.array([self.observation_space.sample()])
        self.qf = GridNetwork(n_actions=int(self.action_space.n), n_units=self.n_units)
        self.qf_state = RLTrainState.create(
            apply_fn=self.qf.apply,
            params=self.qf.init({"params": qf_key}, observation),
            target_params=self.qf.init({"params": qf_key}, observation),
            tx=self.optimizer_class(learning_rate=lr_schedule(1), **self.optimizer_kwargs),
        )
        self.qf.apply = jax.jit(self.qf.apply)
        return key
