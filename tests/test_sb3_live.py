"""Strangers act bit for bit: fresh models of every algorithm, observation and action, read here and played there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from torch import nn

from agent.freeze import sb3_live
from agent.freeze.sb3_policy import load_zip
from agent.freeze.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from strangers import Silent, fresh, sample

INF = np.inf
VECTOR = spaces.Box(-INF, INF, (5,), np.float32)
TABLE = spaces.Box(-3, 3, (2, 3), np.float64)
PICTURE = spaces.Box(0, 255, (3, 36, 40), np.uint8)
LAST = spaces.Box(0, 255, (36, 40, 2), np.uint8)
SCALED = spaces.Box(0, 1, (3, 36, 40), np.float32)
MIXED = spaces.Dict(vector=VECTOR, picture=PICTURE)
MANY = spaces.Dict(
    [
        ("z", spaces.Discrete(4)),
        ("flags", spaces.MultiBinary(3)),
        ("seen last", LAST),
        ("places", spaces.MultiDiscrete([3, 2])),
        ("a", TABLE),
    ]
)
FEW = spaces.Discrete(3)
PUSH = spaces.Box(np.float32([-2, -1]), np.float32([1, 3]), dtype=np.float32)
ODD = spaces.Box(np.array([[-1e5, 7], [-1e-3, -3.3]]), np.array([[1e5, 7.5], [1e-3, 0.1]]), dtype=np.float64)
SEVERAL, SWITCHES = spaces.MultiDiscrete([3, 2, 4]), spaces.MultiBinary(5)

MLP, CNN, DICT = "MlpPolicy", "CnnPolicy", "MultiInputPolicy"
SMALL = {MLP: {}, CNN: {"features_dim": 24}, DICT: {"cnn_output_dim": 12}}
SEEN = {MLP: VECTOR, CNN: PICTURE, DICT: MIXED}
VALUES, ACTORS = ("DQN", "QR-DQN"), ("SAC", "TD3", "TQC")

Case = tuple[str, str, spaces.Space, spaces.Space, dict[str, Any], dict[str, Any]]


def case(
    algorithm: str, policy: str, seen: spaces.Space | None = None, actions: spaces.Space | None = None, **kwargs: Any
) -> Case:
    """A policy that differs from the defaults in `kwargs`; those of the algorithm stand in `top`."""
    top = kwargs.pop("top", {})
    actions = actions or (PUSH if algorithm in ACTORS else FEW)
    # A dictionary of its own for each: stable-baselines3 adds to what it is given.
    kwargs = {"features_extractor_kwargs": dict(SMALL[policy]), **kwargs}
    return algorithm, policy, seen or SEEN[policy], actions, kwargs, top


def matrix() -> dict[str, Case]:
    """Every algorithm with every kind of observation, as it comes and with something changed."""
    cases: dict[str, Case] = {}
    for policy in (MLP, CNN, DICT):
        for name in (*VALUES, *ACTORS, "PPO", "A2C"):
            cases[f"{name} {policy}"] = case(name, policy)
        for name in ("PPO", "A2C"):
            apart = {"pi": [9, 8], "vf": [7]}
            cases[f"{name} {policy} two extractors"] = case(
                name, policy, net_arch=apart, share_features_extractor=False, activation_fn=nn.ELU, ortho_init=False
            )
            for kind, actions in (("pushes", PUSH), ("odd", ODD), ("several", SEVERAL), ("switches", SWITCHES)):
                cases[f"{name} {policy} {kind}"] = case(name, policy, actions=actions, net_arch=[11])
            sde = {"use_sde": True}
            cases[f"{name} {policy} sde"] = case(name, policy, actions=PUSH, top=sde, full_std=False, use_expln=True)
            cases[f"{name} {policy} squashed"] = case(name, policy, actions=ODD, top=sde, squash_output=True)
        for name in ("SAC", "TQC"):
            arch = {"pi": [9], "qf": [8, 7]}
            cases[f"{name} {policy} sde"] = case(name, policy, top={"use_sde": True}, net_arch=arch, clip_mean=0.7)
            cases[f"{name} {policy} odd"] = case(name, policy, actions=ODD, n_critics=3, net_arch=[])
        linear = {"net_arch": {"pi": [], "qf": [4]}, "n_critics": 3, "share_features_extractor": True}
        cases[f"TD3 {policy} odd"] = case("TD3", policy, actions=ODD, **linear)
        cases[f"TQC {policy} quantiles"] = case("TQC", policy, n_quantiles=7, activation_fn=nn.Tanh)
        some = {"n_quantiles": 13, "net_arch": [10], "activation_fn": nn.SiLU}
        cases[f"QR-DQN {policy} quantiles"] = case("QR-DQN", policy, **some)
        cases[f"DQN {policy} deep"] = case("DQN", policy, net_arch=[9, 8, 7], activation_fn=nn.LeakyReLU)
    for name in (*VALUES, *ACTORS, "PPO", "A2C"):
        cases[f"{name} many observations"] = case(name, DICT, MANY, net_arch=[9])
        cases[f"{name} channels last"] = case(name, CNN, LAST)
        cases[f"{name} scaled pictures"] = case(name, CNN, SCALED, normalize_images=False)
        cases[f"{name} bytes as they are"] = case(name, CNN, normalize_images=False)
        scaled = spaces.Dict(grid=spaces.Box(-1, 1, (4, 36, 36)), vector=VECTOR)
        cases[f"{name} dict of scaled pictures"] = case(name, DICT, scaled, normalize_images=False)
    for kind in (nn.GELU, nn.SELU, nn.CELU, nn.Softplus, nn.Mish, nn.Hardswish, nn.ReLU6, nn.Softsign, nn.Hardtanh):
        cases[f"PPO {kind.__name__}"] = case("PPO", MLP, activation_fn=kind)
    for name in ("DQN", "PPO"):
        cases[f"{name} places"] = case(name, MLP, spaces.Discrete(17), net_arch=[9])
        cases[f"{name} several places"] = case(name, MLP, spaces.MultiDiscrete([5, 3, 9]))
        cases[f"{name} switches seen"] = case(name, MLP, spaces.MultiBinary([4, 3]))
        cases[f"{name} table"] = case(name, MLP, TABLE)
        cases[f"{name} flat picture"] = case(name, MLP, PICTURE, net_arch=[9])
    cases["PPO two actions of one"] = case("PPO", MLP, actions=spaces.MultiDiscrete([1, 2]))
    cases["PPO whole numbers"] = case("PPO", MLP, actions=spaces.Box(-2, 3, (2,), np.int32))
    return cases


CASES = matrix()


def seen_by(space: spaces.Space, count: int) -> Any:
    """Observations of a space, of several when it is a dictionary."""
    if isinstance(space, spaces.Dict):
        return {name: seen_by(part, count) for name, part in space.spaces.items()}
    rng = np.random.default_rng(1)
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, count)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(0, space.nvec, (count, len(space.nvec)))
    return sample(space, count)


def of(observations: Any, index: slice) -> Any:
    """Some of the observations."""
    if isinstance(observations, dict):
        return {name: each[index] for name, each in observations.items()}
    return observations[index]


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two arrays are of the same dtype and shape, bit for bit."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


@torch.no_grad()
def outputs_of(model: BaseAlgorithm, observations: Any) -> np.ndarray:
    """What stable-baselines3 computes before it chooses."""
    policy, seen = model.policy, model.policy.obs_to_tensor(observations)[0]
    match type(model).__name__:
        case "DQN":
            return policy.q_net(seen).numpy()
        case "QRDQN":
            return policy.quantile_net(seen).mean(dim=1).numpy()
        case "SAC" | "TQC":
            return policy.actor.get_action_dist_params(seen)[0].numpy()
        case "TD3":
            features = policy.actor.extract_features(seen, policy.actor.features_extractor)
            return policy.actor.mu[:-1](features).numpy()
    features = BasePolicy.extract_features(policy, seen, policy.pi_features_extractor)
    return policy.action_net(policy.mlp_extractor.forward_actor(features)).numpy()


@pytest.mark.parametrize("name", CASES)
def test_bit_for_bit(name: str, tmp_path: Path) -> None:
    """A fresh policy, read without running anything of its file, acts on 200 observations as the saved one itself."""
    algorithm, policy, seen, actions, kwargs, top = CASES[name]
    model = fresh(algorithm, seen, actions, policy, policy_kwargs=kwargs, **top)
    model.save(tmp_path / "policy.zip")
    generator = torch.get_rng_state()
    stranger = load_zip(tmp_path / "policy.zip")
    assert torch.equal(torch.get_rng_state(), generator) and stranger.algo == algorithm
    observations = seen_by(model.observation_space, 200)
    assert same_bits(stranger.act(observations), model.predict(observations, deterministic=True)[0])
    outputs = outputs_of(model, observations)  # a choice among few would hide a difference
    seen_there = model.policy.obs_to_tensor(observations)[0]
    with torch.no_grad():
        assert same_bits(stranger.network(seen_there).numpy(), outputs)
    assert len(np.unique(outputs, axis=0)) > 10, "these observations tell nothing apart"
    for index in (slice(0, 1), slice(1, 2), slice(7, 12)):
        few = of(observations, index)
        assert same_bits(stranger.act(few), model.predict(few, deterministic=True)[0])


def test_the_matrix_is_whole() -> None:
    """Every algorithm is tried with every kind of observation that stable-baselines3 supports."""
    tried = {(case[0], case[1]) for case in CASES.values()}
    assert tried == {(name, policy) for name in (*VALUES, *ACTORS, "PPO", "A2C") for policy in (MLP, CNN, DICT)}


@pytest.mark.parametrize("order", ["first", "last"])
def test_stacked_frames(order: str, tmp_path: Path) -> None:
    """Frames stacked along either axis of channels, given as the game or as its wrapper orders them."""
    frame = spaces.Box(0, 255, (1, 36, 40) if order == "first" else (36, 40, 1), np.uint8)
    games = VecFrameStack(DummyVecEnv([lambda: Silent(frame, FEW)]), 4, channels_order=order)
    model = fresh("PPO", games.observation_space, FEW, CNN, policy_kwargs={"features_extractor_kwargs": SMALL[CNN]})
    model.save(tmp_path / "policy.zip")
    stranger = load_zip(tmp_path / "policy.zip")
    for space in (games.observation_space, model.observation_space):
        observations = sample(space, 200)
        assert same_bits(stranger.act(observations), model.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize("kind", ["vector", "wide", "bytes", "dictionary"])
def test_normalised_observations(kind: str, tmp_path: Path) -> None:
    """Behind VecNormalize's statistics a policy takes raw observations and acts as with its wrapper."""
    space: spaces.Space = {"vector": VECTOR, "wide": TABLE, "bytes": PICTURE, "dictionary": MIXED}[kind]
    keys = ["vector"] if kind == "dictionary" else None
    normalize = VecNormalize(DummyVecEnv([lambda: Silent(space, PUSH)]), clip_obs=1.3, norm_obs_keys=keys)
    raw = seen_by(space, 200)
    for moments, seen in [(normalize.obs_rms, raw)] if keys is None else [(normalize.obs_rms["vector"], raw["vector"])]:
        moments.update(seen * 0.7 + 0.1)
    policy, seen_space = (DICT, normalize.observation_space) if keys else (MLP, normalize.observation_space)
    given = {"features_extractor_kwargs": dict(SMALL[policy]), "normalize_images": kind != "bytes"}
    model = fresh("PPO", seen_space, PUSH, policy, policy_kwargs=given)
    model.save(tmp_path / "policy.zip")
    normalize.save(str(tmp_path / "policy.vecnormalize.pkl"))
    stranger = load_zip(tmp_path / "policy.zip")
    assert any("normalised by the statistics in" in note for note in stranger.notes)
    expected, _ = model.predict(normalize.normalize_obs(raw), deterministic=True)
    assert same_bits(stranger.act(raw), expected)
    (tmp_path / "policy.vecnormalize.pkl").unlink()
    assert not same_bits(load_zip(tmp_path / "policy.zip").act(raw), expected)


def test_rows_of_a_larger_array(tmp_path: Path) -> None:
    """Observations that numpy has not aligned, as rows of others, are acted on as by themselves."""
    space = spaces.Box(-INF, INF, (17,), np.float32)
    model = fresh("PPO", space, PUSH)
    model.save(tmp_path / "policy.zip")
    stranger = load_zip(tmp_path / "policy.zip")
    observations = sample(space, 60)
    for at in range(50):
        rows = observations[at : at + 2]
        assert same_bits(stranger.act(rows), model.predict(rows.copy(), deterministic=True)[0])


def test_probabilities_that_are_equal() -> None:
    """Logits that differ by less than their probabilities can tell choose the first of these, as stable-baselines3."""
    logits = np.float32([[1e-8, 2e-8], [0, 1]])
    choices = sb3_live.Choice("actor critic", Discrete(2, 0), squashed=False)(logits)
    assert choices.tolist() == [0, 1] and logits.argmax(axis=1).tolist() == [1, 1]
    values = sb3_live.Choice("action values", Discrete(2, 0), squashed=False)(logits)
    assert values.tolist() == [1, 1]


def test_choices() -> None:
    """Outputs become switches, several choices, or numbers within limits, each as its space says."""
    outputs = np.float32([[-1, 2, 0.5, -3, 4]])
    assert sb3_live.Choice("actor critic", MultiBinary((5,)), squashed=False)(outputs).tolist() == [[0, 1, 1, 0, 1]]
    assert sb3_live.Choice("actor critic", MultiDiscrete((2, 3)), squashed=False)(outputs).tolist() == [[1, 2]]
    box = Box(np.zeros((1, 5), np.float32), np.full((1, 5), 2, np.float32))
    assert sb3_live.Choice("actor critic", box, squashed=False)(outputs).tolist() == [[[0, 2, 0.5, 0, 2]]]
    squashed = sb3_live.Choice("squashed actor", box, squashed=True)(outputs)
    np.testing.assert_allclose(squashed, [np.tanh(outputs) + 1], rtol=1e-6)


def test_observations_that_do_not_fit(tmp_path: Path) -> None:
    """Observations of another shape, or without one of their parts, are refused."""
    given = {"features_extractor_kwargs": dict(SMALL[DICT])}
    fresh("PPO", MIXED, FEW, DICT, policy_kwargs=given).save(tmp_path / "a.zip")
    stranger, seen = load_zip(tmp_path / "a.zip"), seen_by(MIXED, 4)
    for wrong in (seen["vector"], {"vector": seen["vector"]}, {**seen, "more": seen["vector"]}):
        with pytest.raises(ValueError, match="observations named vector, picture"):
            stranger.act(wrong)
    with pytest.raises(ValueError, match=r"observations of shape \(5,\), not \(4,\)"):
        stranger.act({**seen, "vector": seen["vector"][:, :4]})
