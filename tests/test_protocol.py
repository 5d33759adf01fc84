"""Tests of agent/telemetry/protocol.py: what makes scores comparable is named."""

from __future__ import annotations

from typing import Any

from agent.config import Settings
from agent.telemetry.protocol import explained, protocol


def said(game: str, /, **tree: Any) -> str:
    return protocol(game, Settings.model_validate(tree))


def told(game: str, /, **tree: Any) -> dict[str, str]:
    return dict(explained(game, Settings.model_validate(tree)))


def test_the_protocol_says_how_it_was_played() -> None:
    """In one line: sticky actions, frames, actions, limits, and exploration."""
    atari = said("atari/pong", game={"atari": {"sticky_actions": 0.15, "frame_skip": 3, "max_frames": 5_000}})
    for part in ("sticky actions 0.15", "frame skip 3", "no-ops", "no fire at reset", "5,000 frames", "greedy"):
        assert part in atari
    assert "fire at reset" in said("atari/pong", game={"atari": {"fire_reset": True, "full_action_space": True}})
    assert "all 18 actions" in said("atari/pong", game={"atari": {"full_action_space": True}})
    minatar = said("minatar/breakout", evaluation={"epsilon": 0.05}, game={"minatar": {"ramping": False}})
    for part in ("sticky actions 0.1", "no ramping", "six actions", "27,000 steps", "epsilon 0.05"):
        assert part in minatar
    assert "sticky" not in said("cartpole")


def test_in_sentences_it_says_what_training_does_differently() -> None:
    """Life loss and clipped rewards belong to training, not to scores; nothing of another family is said."""
    atari = told("atari/pong", game={"atari": {"life_loss_ends": True, "noop_max": 30}}, replay={"reward_clip": 1.0})
    assert "scores count whole games" in atari["Lost lives"] and "Up to 30" in atari["Start of an episode"]
    assert atari["Rewards in training"] == "Clipped to at most 1 either way; scores are not."
    assert atari["Sticky actions"].startswith("With a chance of 25 % a frame")
    minatar = told("minatar/breakout", game={"minatar": {"sticky_actions": 0.0}})
    assert minatar["Sticky actions"].startswith("None") and "Lost lives" not in minatar
    assert "no no-ops" in told("cartpole")["The game"] and "Training seeds" not in told("cartpole")
    assert "Only 5" in told("cartpole", game={"seeds": 5})["Training seeds"]


def test_how_the_agent_acts_when_it_is_judged() -> None:
    """Greedy, a given epsilon, or the deterministic action of stable-baselines3's algorithms."""
    acting = "How the agent acts"
    assert "holds for the best" in told("cartpole")[acting]
    assert "One action in 1,000 is random" in told("cartpole", evaluation={"epsilon": 0.001})[acting]
    assert "One action in 20 is random (epsilon 0.05)" in told("cartpole", evaluation={"epsilon": 0.05})[acting]
    assert "without sampling" in told("cartpole", algo="ppo")[acting]
