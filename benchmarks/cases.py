"""What throughput is measured on: four games and one DQN, the same for every contender. Imports nothing but Python."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

GAMES = 8  # copies that play side by side
UPDATES_PER_BEAT = 2  # per step of all games: one update per 4 environment steps, SB3's default for DQN
LEARNING_RATE = 1e-4
DISCOUNT = 0.99
EPSILON = 0.1  # fixed, so that nine steps in ten ask the network
TARGET_INTERVAL = 250  # updates
MAX_GRAD_NORM = 10.0
LEARNING_STARTS = 500  # environment steps, before the clock starts
STICKY_ATARI = 0.25

PROTOCOL = (
    "DQN with uniform one-step replay, Huber loss, no double Q-learning, Adam; 8 games, one update per 4 environment "
    "steps, target network every 250 updates, epsilon 0.1 throughout, gradients clipped to a norm of 10 (sbx has no "
    "clipping); no logging, no evaluation; the clock starts after 500 steps, compilation and a warm-up"
)


class Case(NamedTuple):
    """One game with its network. `hidden` are the fully connected layers; `threads` is for torch in the peers."""

    game: str
    kind: Literal["mlp", "grid", "nature"]
    hidden: tuple[int, ...]
    batch: int
    capacity: int  # transitions of replay
    gymnasium_id: str | None
    threads: int  # small networks lose by more than one
    reward_clip: float | None = None
    device: Literal["cpu", "cuda"] = "cpu"


CASES = {
    case.game: case
    for case in (
        Case("cartpole", "mlp", (64, 64), 64, 100_000, "CartPole-v1", 1),
        Case("minatar/breakout", "grid", (128,), 32, 100_000, None, 1),
        Case("lunar-lander", "mlp", (256, 256), 128, 100_000, "LunarLander-v3", 1),
        # SB3 keeps every stack twice, 56 kB a transition: a buffer of 40,000 takes 2.3 GB.
        Case("atari/pong", "nature", (512,), 32, 40_000, "PongNoFrameskip-v4", 2, 1.0),
    )
}


def our_settings(case: Case) -> dict[str, Any]:
    """Return the settings of ours, as differences from the defaults in agent/config.py."""
    return {
        "steps": 100_000_000,
        "device": case.device,
        "game": {"num_games": GAMES, "atari": {"sticky_actions": STICKY_ATARI}},
        "actor": {"epsilon_start": EPSILON, "epsilon_end": EPSILON},
        "replay": {"capacity": case.capacity, "n_step": 1, "priority_exponent": 0.0, "reward_clip": case.reward_clip},
        "network": {"hidden": case.hidden},
        "learner": {
            "batch_size": case.batch,
            "samples_per_insert": case.batch * UPDATES_PER_BEAT / GAMES,
            "learning_starts": LEARNING_STARTS,
            "learning_rate": LEARNING_RATE,
            "discount": DISCOUNT,
            "target_interval": TARGET_INTERVAL,
            "max_grad_norm": MAX_GRAD_NORM,
            "loss": "huber",
            "double": False,
        },
    }


def sb3_settings(case: Case) -> dict[str, Any]:
    """Return the arguments that stable-baselines3's DQN and sbx's have in common."""
    return {
        "learning_rate": LEARNING_RATE,
        "buffer_size": case.capacity,
        "learning_starts": LEARNING_STARTS,
        "batch_size": case.batch,
        "gamma": DISCOUNT,
        "train_freq": 1,  # steps of all games
        "gradient_steps": UPDATES_PER_BEAT,
        "target_update_interval": TARGET_INTERVAL * GAMES // UPDATES_PER_BEAT,  # environment steps
        "exploration_initial_eps": EPSILON,
        "exploration_final_eps": EPSILON,
        "seed": 0,
    }
