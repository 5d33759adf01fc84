"""Which runs a learning benchmark is made of: games, algorithms, budget, and the protocol they share."""

from __future__ import annotations

from typing import Any, NamedTuple

from agent.cli.settings import merge


class Entry(NamedTuple):
    """An algorithm: the preset it starts from and what differs from it."""

    title: str
    settings: dict[str, Any]
    preset: str | None = None


class Suite(NamedTuple):
    """Runs that are compared. `settings` are shared by all algorithms; `every` and `steps` are environment steps."""

    name: str
    games: tuple[str, ...]
    algorithms: dict[str, Entry]
    steps: int
    every: int
    episodes: int
    unseen: int
    settings: dict[str, Any]


# Dopamine's MinAtar agents (dopamine/agents/*/configs/minatar): Adam 2.5e-4 at 3.125e-4, batch 32 every 4 steps, target
# every 1000 steps; epsilon, buffer and start of learning as Young and Tian 2019. One update per 4 steps is SB3's default.
_SB3_MINATAR = {
    "learning_rate": 2.5e-4, "buffer_size": 100_000, "learning_starts": 5_000, "batch_size": 32, "gamma": 0.99,
    "train_freq": 4, "gradient_steps": 1, "target_update_interval": 1_000, "exploration_fraction": 0.1,
    "exploration_final_eps": 0.1, "policy_kwargs": {"optimizer_kwargs": {"eps": 3.125e-4}},
}  # fmt: skip

# Dopamine 5873f54, baselines/atari/data: agents with the IMPALA torso. Batch 32 every 4 steps, learning from 20k steps,
# epsilon 1 -> 0.01 over 250k steps, target every 8k steps (2000 updates), replay of a million.
_DOPAMINE_IMPALA: dict[str, Any] = {
    "game": {"num_games": 32},
    "actor": {"epsilon_end": 0.01, "epsilon_steps": 250_000},
    "replay": {"capacity": 1_000_000, "n_step": 3, "reward_clip": 1.0},
    "network": {"torso": "impala", "max_pool": None, "hidden": (512,)},
    "learner": {
        "batch_size": 32, "samples_per_insert": 8.0, "learning_starts": 20_000, "learning_rate": 5e-5,
        "adam_epsilon": 3.125e-4, "discount": 0.99, "target_interval": 2_000, "double": False, "max_grad_norm": 1e9,
    },
    "evaluation": {"num_games": 10, "epsilon": 0.001},
}  # fmt: skip
_ATARI_PROTOCOL = {  # Machado et al. 2018 as in Dopamine; every 250k steps are its iterations of 1M frames
    "device": "cuda",
    "game": {"atari": {"sticky_actions": 0.25, "noop_max": 0, "fire_reset": False, "life_loss_ends": False}},
}


# rl-baselines3-zoo 22e3ff2, hyperparams/dqn.yml; "-1" gradient steps are train_freq x games = one update per step.
ZOO: dict[str, dict[str, Any]] = {
    "lunar-lander": dict(
        learning_rate=6.3e-4, batch_size=128, buffer_size=50_000, learning_starts=0, gamma=0.99, target_update_interval=250,
        train_freq=4, gradient_steps=-1, exploration_fraction=0.12, exploration_final_eps=0.1,
        policy_kwargs=dict(net_arch=[256, 256]),
    ),
    "cartpole": dict(
        learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1000, gamma=0.99,
        target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
        exploration_final_eps=0.04, policy_kwargs=dict(net_arch=[256, 256]),
    ),
}  # fmt: skip
ZOO_STEPS = {"lunar-lander": 100_000, "cartpole": 50_000}

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="minatar",
            games=tuple(f"minatar/{rom}" for rom in ("breakout", "space_invaders", "asterix", "freeway", "seaquest")),
            algorithms={
                "ours": Entry("Icebox, preset cpu", {}, preset="cpu"),
                "sb3-dqn": Entry("stable-baselines3 DQN", {"algo": "dqn-sb3", "sb3": {"dqn-sb3": _SB3_MINATAR}}),
                "sb3-qrdqn": Entry(
                    "sb3-contrib QR-DQN, as many quantiles as ours",
                    {
                        "algo": "qrdqn",
                        "sb3": {"qrdqn": merge(_SB3_MINATAR, {"policy_kwargs": {"n_quantiles": 32}})},
                    },
                ),
            },
            steps=1_000_000,
            every=50_000,
            episodes=20,
            unseen=100,
            settings={"device": "cpu", "threads": 1},
        ),
        Suite(
            name="dopamine",  # does it lie within Dopamine's five seeds at 2M and 5M frames?
            games=("atari/pong", "atari/breakout", "atari/boxing"),
            algorithms={
                "qr-impala": Entry(
                    "Icebox QR-DQN, IMPALA",
                    merge(
                        _DOPAMINE_IMPALA,
                        {
                            "network": {"distribution": "quantile", "quantiles": 200},
                            "replay": {
                                "priority_exponent": 0.5, "importance_exponent": 0.5, "importance_exponent_end": 0.5
                            },
                        },
                    ),  # fmt: skip
                ),
                "iqn-impala": Entry(
                    "Icebox IQN, IMPALA",
                    merge(
                        _DOPAMINE_IMPALA,
                        {
                            "network": {"distribution": "implicit", "quantiles": 32},
                            "learner": {"fractions": 64, "target_fractions": 64},
                        },
                    ),
                ),
            },
            steps=1_250_000,
            every=250_000,
            episodes=10,
            unseen=30,
            settings=_ATARI_PROTOCOL,
        ),
        Suite(
            name="btr",  # beside the published curve, one evaluation of 100 episodes per 1M frames
            games=("atari/pong", "atari/breakout", "atari/boxing"),
            algorithms={
                "btr": Entry("Icebox, preset btr", {}, preset="btr"),
                "short": Entry("Icebox, preset short", {}, preset="short"),
            },
            steps=2_500_000,
            every=250_000,
            episodes=100,
            unseen=100,
            settings={"device": "cuda"},
        ),
    )
}
