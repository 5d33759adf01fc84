"""What a zip says: settings as they were given, and the algorithm by what only it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces as gymnasium_spaces
from torch import nn

from agent.freeze.sb3_saved import CLIP_MEAN, FEATURES, QUANTILES, Saved, read_saved
from agent.freeze.spaces import Box, Discrete
from hostile import members_of, pickled, with_data, zipped
from strangers import SIX, ZOO, fresh

SEEN = gymnasium_spaces.Box(-1, 1, (4,), np.float32)
CHOICE = gymnasium_spaces.Discrete(3)
PUSH = gymnasium_spaces.Box(-1, 1, (2,), np.float32)


def saved_as(folder: Path, algorithm: str, actions: gymnasium_spaces.Space, **kwargs: Any) -> Saved:
    """What the file of a fresh policy says."""
    fresh(algorithm, SEEN, actions, policy_kwargs=kwargs).save(folder / "policy.zip")
    return read_saved((folder / "policy.zip").read_bytes())


@pytest.mark.parametrize("known", SIX, ids=lambda known: known.file)
def test_the_zoo(known: Any) -> None:
    """The files of 2020 and 2021 say which algorithm they are from, and their spaces."""
    saved = read_saved((ZOO / f"{known.file}.zip").read_bytes())
    assert saved.algo == known.algorithm and saved.extractor == "flatten"
    assert isinstance(saved.observations, Box) and saved.observations.shape == known.observations.shape
    assert isinstance(saved.actions, Discrete) == (known.algorithm != "SAC")
    hidden = {"DQN": [256, 256], "QR-DQN": [256, 256], "SAC": [64, 64]}
    assert saved.widths == hidden.get(known.algorithm)
    assert saved.was_normalized == {"A2C": True, "PPO": False}.get(known.algorithm)


def test_defaults(tmp_path: Path) -> None:
    """What was not given is what every version has taken."""
    saved = saved_as(tmp_path, "DQN", CHOICE)
    assert (saved.clip_mean, saved.quantiles, FEATURES["nature"]) == (CLIP_MEAN, QUANTILES, 512) == (2.0, 200, 512)
    assert saved.widths is None and saved.normalize_images and not saved.squash_output and saved.was_normalized is None
    assert saved.activation is nn.ReLU and saved_as(tmp_path, "PPO", CHOICE).activation is nn.Tanh


def test_settings(tmp_path: Path) -> None:
    """What was given is found: as plain JSON, and as a pickle when a class is among it."""
    for extra in ({}, {"activation_fn": nn.SiLU}):
        saved = saved_as(tmp_path, "QR-DQN", CHOICE, net_arch=[7, 5], n_quantiles=9, normalize_images=False, **extra)
        assert (saved.widths, saved.quantiles, saved.normalize_images) == ([7, 5], 9, False)
        assert saved.activation is (nn.SiLU if extra else nn.ReLU)
    assert saved_as(tmp_path, "SAC", PUSH, net_arch={"pi": [3], "qf": [4]}, clip_mean=1.5).clip_mean == 1.5


@pytest.mark.parametrize(
    ("arch", "widths"),
    [([64, 32], [64, 32]), ([], []), ({"vf": [3]}, []), ([64, {"pi": [5], "vf": [6]}], [64, 5]), ([{"pi": [5]}], [5])],
)
def test_hidden_layers(arch: Any, widths: list[int], tmp_path: Path) -> None:
    """Every way to write net_arch, of old versions too, says the layers of the acting half."""
    saved_as(tmp_path, "PPO", CHOICE)
    members = with_data(members_of(tmp_path / "policy.zip"), policy_kwargs={"net_arch": arch})
    assert read_saved(zipped(members)).widths == widths


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "TRPO", "TD3", "DDPG", "SAC", "TQC"])
def test_algorithms_that_share_a_class(algorithm: str, tmp_path: Path) -> None:
    """Algorithms whose policies are of one class are told apart."""
    assert saved_as(tmp_path, algorithm, PUSH, net_arch=[4]).algo == algorithm


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"squash_output": True}, "squashed without state-dependent noise"),
        ({"squash_output": 1}, "neither true nor false"),
        ({"clip_mean": "2"}, "should be a number"),
        ({"features_extractor_kwargs": {"features_dim": 1.5}}, "whole numbers"),
        ({"net_arch": [2.5]}, "whole numbers"),
    ],
)
def test_settings_that_cannot_be(kwargs: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Settings of another type, or that no version has together, are refused."""
    saved_as(tmp_path, "PPO", PUSH)
    members = members_of(tmp_path / "policy.zip")
    with pytest.raises(ValueError, match=said):
        read_saved(zipped(with_data(members, policy_kwargs=pickled(kwargs))))
