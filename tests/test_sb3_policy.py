"""Zips of stable-baselines3: six of the zoo as it plays them, statistics, and what is refused by name."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import ARS, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from agent.freeze import graph
from agent.freeze.graph import Continuous, Discrete
from agent.freeze.sb3_policy import load_zip
from agent.freeze.spaces import Box
from hostile import members_of, pickled, with_data, zipped
from strangers import SIX, ZOO, Known, Silent, check_alike, fresh, load_known, sample

SEEN = spaces.Box(-np.inf, np.inf, (5,), np.float32)
PUSH = spaces.Box(-1, 1, (2,), np.float32)


def states(known: Known) -> np.ndarray:
    """Observations such as the game gives, [1000, *shape]."""
    spread = {"a2c-MountainCar-v0": [0.4, 0.03], "sac-Pendulum-v1": [0.7, 0.7, 4.0]}.get(known.file, 1.0)
    return sample(known.observations, 1000) / 2 * np.float32(spread)


def normalized_by_its_makers(observations: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What VecNormalize makes of them, loaded as its makers meant it, with gymnasium in gym's place."""
    monkeypatch.setitem(sys.modules, "gym", gymnasium)
    for name in ("spaces", "spaces.box", "spaces.discrete"):
        monkeypatch.setitem(sys.modules, f"gym.{name}", importlib.import_module(f"gymnasium.{name}"))
    game = DummyVecEnv([lambda: Silent(spaces.Box(-2, 2, (2,), np.float32), spaces.Discrete(3))])
    return VecNormalize.load(str(ZOO / "a2c-MountainCar-v0.vecnormalize.pkl"), game).normalize_obs(observations)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("known", SIX, ids=lambda known: known.file)
def test_the_six(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the six chooses, as layers and as a graph, what it chooses in stable-baselines3 on 1,000 observations."""
    stranger = load_zip(ZOO / f"{known.file}.zip")
    assert stranger.algo == known.algorithm
    assert stranger.sb3_version == {"QR-DQN": "1.0rc1", "SAC": None}.get(known.algorithm, "1.0rc0")
    raw = states(known)
    seen = normalized_by_its_makers(raw, monkeypatch) if known.algorithm == "A2C" else raw
    check_alike(stranger, load_known(known), raw, seen)


def test_spaces_and_limits() -> None:
    """Spaces, head and limits are those of the file."""
    stranger = load_zip(ZOO / "sac-Pendulum-v1.zip")
    assert stranger.graph.head == Continuous((-2.0,), (2.0,), "tanh") and stranger.graph.dtype == "float32"
    seen = stranger.observations
    assert isinstance(seen, Box) and seen.low.tolist() == [-1, -1, -8] and seen.high.tolist() == [1, 1, 8]
    assert any("mean of their distribution" in note for note in stranger.notes)
    stranger = load_zip(ZOO / "a2c-MountainCar-v0.zip")
    assert stranger.graph.head == Discrete(3) and stranger.graph.shape == (2,)
    assert stranger.notes == ("Observations are normalised by the statistics in a2c-MountainCar-v0.vecnormalize.pkl.",)


def test_without_its_statistics(tmp_path: Path) -> None:
    """Without the statistics beside it a policy that had some says so, plays otherwise, and takes them when told."""
    alone = Path(shutil.copy(ZOO / "a2c-MountainCar-v0.zip", tmp_path / "alone.zip"))
    stranger, whole = load_zip(alone), load_zip(ZOO / "a2c-MountainCar-v0.zip")
    assert any("pass its statistics" in note for note in stranger.notes)
    raw = states(SIX[-1])
    outputs = [graph.run(each.graph, raw) for each in (stranger, whole)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1
    told = load_zip(alone, statistics=ZOO / "a2c-MountainCar-v0.vecnormalize.pkl")
    np.testing.assert_array_equal(graph.run(told.graph, raw), outputs[1])


@pytest.mark.parametrize("clip", [10.0, 0.8])
@pytest.mark.parametrize("kind", ["vectors", "pictures as they are", "pictures over 255"])
def test_fresh_statistics(kind: str, clip: float, tmp_path: Path) -> None:
    """Statistics of today stand before the layers, clipped; pictures that a policy divides by 255 too."""
    space = SEEN if kind == "vectors" else spaces.Box(0, 255, (2, 3, 4), np.uint8)
    algorithm = fresh("PPO", space, PUSH, policy_kwargs={"normalize_images": kind != "pictures as they are"})
    raw = sample(space, 1000) * (np.float32([1, 10, 0.1, 1, 1]) if kind == "vectors" else np.uint8(1))
    normalize = VecNormalize(DummyVecEnv([lambda: Silent(space, PUSH)]), clip_obs=clip)
    normalize.obs_rms.update(raw)
    normalize.obs_rms.mean[0] += 0.3
    algorithm.save(tmp_path / "policy.zip")
    normalize.save(str(tmp_path / "policy.vecnormalize.pkl"))
    stranger = load_zip(tmp_path / "policy.zip")
    seen = normalize.normalize_obs(raw)
    assert seen.dtype == np.float32 and (np.abs(seen) == np.float32(clip)).any() == (clip < 1)
    check_alike(stranger, algorithm, raw, seen, tolerance=1e-4)


def test_statistics_that_do_not_normalise(tmp_path: Path) -> None:
    """Statistics of rewards only leave observations alone, and are named all the same."""
    algorithm = fresh("PPO", SEEN, PUSH)
    algorithm.save(tmp_path / "policy.zip")
    VecNormalize(DummyVecEnv([lambda: Silent(SEEN, PUSH)]), norm_obs=False).save(str(tmp_path / "other.pkl"))
    stranger = load_zip(tmp_path / "policy.zip", tmp_path / "other.pkl")
    assert stranger.notes[0] == "Observations are not normalised, so says other.pkl."
    check_alike(stranger, algorithm, sample(SEEN, 1000))


def test_statistics_of_another_game(tmp_path: Path) -> None:
    """Statistics of observations of another shape are refused."""
    fresh("PPO", SEEN, PUSH).save(tmp_path / "policy.zip")
    with pytest.raises(ValueError, match=r"policy.zip cannot be loaded: The statistics are of observations \(2,\)"):
        load_zip(tmp_path / "policy.zip", ZOO / "a2c-MountainCar-v0.vecnormalize.pkl")


def test_channels_last(tmp_path: Path) -> None:
    """Where the space was stored with channels last, and the weights say that these are few, pictures are turned."""
    picture = spaces.Box(0, 255, (3, 36, 44), np.uint8)
    small = {"features_extractor_kwargs": {"features_dim": 16}}
    fresh("DQN", picture, spaces.Discrete(3), "CnnPolicy", policy_kwargs=small).save(tmp_path / "first.zip")
    turned = pickled(spaces.Box(0, 255, (36, 44, 3), np.uint8))
    members = with_data(members_of(tmp_path / "first.zip"), observation_space=turned)
    (tmp_path / "last.zip").write_bytes(zipped(members))
    first, last = load_zip(tmp_path / "first.zip"), load_zip(tmp_path / "last.zip")
    assert (first.graph.shape, last.graph.shape) == ((3, 36, 44), (36, 44, 3)) and last.graph.channels_last
    raw = sample(picture, 50)
    with torch.no_grad():
        expected = first.network(torch.from_numpy(raw))
        torch.testing.assert_close(last.network(torch.from_numpy(np.moveaxis(raw, 1, -1).copy())), expected)
    np.testing.assert_allclose(graph.run(last.graph, np.moveaxis(raw, 1, -1)), expected.numpy(), atol=1e-4)


def test_actions_without_limits(tmp_path: Path) -> None:
    """Old versions allowed actions without limits: they get limits that no number exceeds."""
    fresh("PPO", SEEN, PUSH).save(tmp_path / "policy.zip")
    free = pickled(spaces.Box(-np.inf, np.inf, (2,), np.float32))
    (tmp_path / "free.zip").write_bytes(zipped(with_data(members_of(tmp_path / "policy.zip"), action_space=free)))
    head = load_zip(tmp_path / "free.zip").graph.head
    assert isinstance(head, Continuous) and head.squash == "clip"
    assert np.isfinite([head.low, head.high]).all() and np.float32(head.high[0]) == np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("algorithm", "policy", "said", "expected"),
    [
        ("QR-DQN", "MlpPolicy", {"n_quantiles": 6}, "n_quantiles says 6, but its last layer gives 15 numbers"),
        ("QR-DQN", "MlpPolicy", {}, "n_quantiles says 200, but its last layer gives 15 numbers"),
        ("DQN", "CnnPolicy", {}, "features_dim says 512 features, its tensors have 16"),
    ],
)
def test_a_file_that_contradicts_itself(
    algorithm: str, policy: str, said: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """Settings that do not fit the tensors are refused: one of the two is not of this policy."""
    seen = SEEN if policy == "MlpPolicy" else spaces.Box(0, 255, (3, 36, 44), np.uint8)
    kwargs = {"n_quantiles": 5} if policy == "MlpPolicy" else {"features_extractor_kwargs": {"features_dim": 16}}
    path = tmp_path / "policy.zip"
    fresh(algorithm, seen, spaces.Discrete(3), policy, policy_kwargs=kwargs).save(path)
    path.write_bytes(zipped(with_data(members_of(path), policy_kwargs=said)))
    with pytest.raises(ValueError, match=expected):
        load_zip(path)


class OwnExtractor(BaseFeaturesExtractor):
    """An extractor of somebody's own."""

    def __init__(self, space: spaces.Space):
        super().__init__(space, 5)
        self.layer = nn.Linear(5, 5)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, 5] -> [N, 5]"""
        return self.layer(observation)


class OwnPolicy(ActorCriticPolicy):
    """A policy of somebody's own."""


def recurrent() -> Any:
    """A policy with a memory."""
    return RecurrentPPO("MlpLstmPolicy", Silent(SEEN, PUSH), device="cpu")


def pickled_with_code() -> Any:
    """A policy class that goes into the file with its code."""
    own = type("Inline", (ActorCriticPolicy,), {"__module__": "__main__", "extra": lambda self: 1})
    return PPO(own, Silent(SEEN, PUSH), device="cpu")


def tiny(**kwargs: Any) -> Any:
    """A policy that differs from what is supported in one thing."""
    defaults = {"algorithm": "PPO", "seen": SEEN, "actions": PUSH, "policy": "MlpPolicy"}
    given = [kwargs.pop(name, default) for name, default in defaults.items()]
    return fresh(*given, policy_kwargs=kwargs or None)


MIXED = spaces.Dict(a=SEEN, b=SEEN)
UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "recurrent": (recurrent, "RecurrentActorCriticPolicy: it is recurrent"),
    "masked": (lambda: MaskablePPO("MlpPolicy", Silent(SEEN, spaces.Discrete(2))), "masked actions"),
    "CrossQ": (lambda: CrossQ("MlpPolicy", Silent(SEEN, PUSH), buffer_size=1), "CrossQPolicy, a class of its own"),
    "ARS": (lambda: ARS("MlpPolicy", Silent(SEEN, PUSH)), "ARSPolicy, a class of its own|does not belong there"),
    "own policy": (lambda: PPO(OwnPolicy, Silent(SEEN, PUSH)), r"OwnPolicy, a class of its own"),
    "own policy with its code": (pickled_with_code, r"__main__.Inline, a class of its own"),
    "own extractor": (lambda: tiny(features_extractor_class=OwnExtractor), "extractor is test_sb3_policy.OwnExtractor"),
    "own activation": (lambda: tiny(activation_fn=lambda: nn.ReLU()), "its activation is no class"),
    "PReLU": (lambda: tiny(activation_fn=nn.PReLU), "activation.PReLU: only ReLU, Tanh"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    """What is not supported is refused in a sentence that names the file and what it is."""
    make, said = UNSUPPORTED[case]
    path = tmp_path / "policy.zip"
    make().save(path)
    with pytest.raises(ValueError, match=said) as refusal:
        load_zip(path)
    assert str(refusal.value).startswith(f"{path} cannot be loaded: ") and str(refusal.value).endswith(".")


NOT_FROZEN: dict[str, tuple[Any, str]] = {
    "several observations": (lambda: tiny(seen=MIXED, policy="MultiInputPolicy"), "observations are a Dict space"),
    "GELU": (lambda: tiny(activation_fn=nn.GELU), "GELU"),
    "several choices": (lambda: tiny(actions=spaces.MultiDiscrete([2, 3])), "actions are a MultiDiscrete space"),
    "switches": (lambda: tiny(actions=spaces.MultiBinary(3)), "actions are a MultiBinary space"),
    "a table": (lambda: tiny(actions=spaces.Box(-1, 1, (2, 2))), "only a list of real numbers"),
    "places": (lambda: tiny(seen=spaces.Discrete(5)), "observations are a Discrete space"),
    "several places": (lambda: tiny(seen=spaces.MultiDiscrete([5, 5])), "observations are a MultiDiscrete space"),
}


@pytest.mark.parametrize("case", NOT_FROZEN)
def test_what_acts_and_cannot_be_frozen(case: str, tmp_path: Path) -> None:
    """What acts as in stable-baselines3 and is no graph says so when a graph is asked for, and names the file."""
    make, said = NOT_FROZEN[case]
    path = tmp_path / "policy.zip"
    make().save(path)
    stranger = load_zip(path)
    with pytest.raises(ValueError, match=said) as refusal:
        assert stranger.graph
    assert str(refusal.value).startswith(f"{path} cannot be frozen: ") and str(refusal.value).endswith(".")
