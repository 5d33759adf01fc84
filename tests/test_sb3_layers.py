"""Layers from tensors alone: every algorithm and every kind of network as today's stable-baselines3 saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agent.freeze import graph
from agent.freeze.convert import from_modules
from agent.freeze.graph import Discrete
from agent.freeze.sb3_layers import Extractor, Quantiles, acting_layers, channels
from agent.freeze.sb3_policy import load_zip
from agent.sb3.extractors import SmallGrid
from strangers import check_alike, fresh, sample

INF = np.inf
SEEN = spaces.Box(-INF, INF, (5,), np.float32)
WIDE = spaces.Box(-INF, INF, (2, 3), np.float64)
RAM = spaces.Box(0, 255, (6,), np.uint8)
PICTURE = spaces.Box(0, 255, (3, 36, 44), np.uint8)
CHANNELS_LAST = spaces.Box(0, 255, (36, 44, 2), np.uint8)
PLANES = spaces.Box(0, 1, (3, 4, 5), np.uint8)  # three axes, but no picture
SCALED = spaces.Box(-INF, INF, (3, 36, 44), np.float32)
GRID = spaces.Box(0, 255, (4, 10, 10), np.uint8)
FEW, ONE_OF = spaces.Discrete(3), spaces.Discrete(4)
PUSH = spaces.Box(np.float32([-2, -1]), np.float32([1, 3]), dtype=np.float32)
SMALL = {"features_extractor_kwargs": {"features_dim": 16}}

WIDTH = {"features_extractor_kwargs": {"features_dim": 16}}  # not SMALL's, which stable-baselines3 adds to
SMALL_GRID = {"features_extractor_class": SmallGrid, "normalize_images": False, "net_arch": []}

CASES: dict[str, tuple[str, spaces.Space, spaces.Space, str, dict[str, Any]]] = {
    "dqn": ("DQN", SEEN, FEW, "MlpPolicy", {}),
    "dqn, no hidden layer": ("DQN", SEEN, FEW, "MlpPolicy", {"net_arch": []}),
    "dqn, deep": ("DQN", WIDE, FEW, "MlpPolicy", {"net_arch": [9, 8, 7, 6]}),
    "dqn, bytes": ("DQN", RAM, FEW, "MlpPolicy", {"net_arch": [9]}),
    "dqn, zeros and ones": ("DQN", spaces.MultiBinary([2, 9]), FEW, "MlpPolicy", {"net_arch": [9]}),
    "dqn, planes": ("DQN", PLANES, FEW, "MlpPolicy", {"net_arch": [9]}),
    "dqn, flat picture": ("DQN", PICTURE, FEW, "MlpPolicy", {"net_arch": [9]}),
    "dqn, pictures": ("DQN", PICTURE, FEW, "CnnPolicy", {"net_arch": [9], **SMALL}),
    "dqn, channels last": ("DQN", CHANNELS_LAST, FEW, "CnnPolicy", SMALL),
    "dqn, small grid": ("DQN", GRID, FEW, "CnnPolicy", SMALL_GRID),
    "qr-dqn": ("QR-DQN", SEEN, ONE_OF, "MlpPolicy", {"n_quantiles": 7, "net_arch": [16]}),
    "qr-dqn, 200 quantiles": ("QR-DQN", SEEN, ONE_OF, "MlpPolicy", {"net_arch": []}),
    "qr-dqn, pictures": ("QR-DQN", PICTURE, FEW, "CnnPolicy", {"n_quantiles": 5, **SMALL}),
    "ppo": ("PPO", SEEN, ONE_OF, "MlpPolicy", {}),
    "ppo, two networks": ("PPO", SEEN, ONE_OF, "MlpPolicy", {"net_arch": {"pi": [7], "vf": [5, 4]}}),
    "ppo, no hidden layer": ("PPO", SEEN, ONE_OF, "MlpPolicy", {"net_arch": {"vf": [5]}}),
    "ppo, relu": ("PPO", SEEN, ONE_OF, "MlpPolicy", {"activation_fn": nn.ReLU}),
    "ppo, limited": ("PPO", SEEN, PUSH, "MlpPolicy", {}),
    "ppo, noise by state": ("PPO", SEEN, PUSH, "MlpPolicy", {"use_sde": True}),
    "ppo, squashed": ("PPO", SEEN, PUSH, "MlpPolicy", {"use_sde": True, "squash_output": True}),
    "ppo, pictures": ("PPO", PICTURE, FEW, "CnnPolicy", SMALL),
    "ppo, two extractors": ("PPO", PICTURE, FEW, "CnnPolicy", {"share_features_extractor": False, **SMALL}),
    "ppo, layers behind pictures": ("PPO", PICTURE, FEW, "CnnPolicy", {"net_arch": [8], **SMALL}),
    "ppo, scaled": ("PPO", SCALED, FEW, "CnnPolicy", {"normalize_images": False, **SMALL}),
    "dqn, bytes as they are": ("DQN", PICTURE, FEW, "MlpPolicy", {"normalize_images": False, "net_arch": [9]}),
    "ppo, small grid": ("PPO", GRID, FEW, "CnnPolicy", SMALL_GRID),
    "ppo, small grid of its own size": ("PPO", GRID, FEW, "CnnPolicy", {**SMALL_GRID, **WIDTH}),
    "a2c": ("A2C", SEEN, ONE_OF, "MlpPolicy", {}),
    "a2c, pictures": ("A2C", CHANNELS_LAST, FEW, "CnnPolicy", SMALL),
    "trpo": ("TRPO", SEEN, PUSH, "MlpPolicy", {"net_arch": [8]}),
    "sac": ("SAC", SEEN, PUSH, "MlpPolicy", {"net_arch": [16, 16]}),
    "sac, two networks": ("SAC", SEEN, PUSH, "MlpPolicy", {"net_arch": {"pi": [8], "qf": [4, 4]}}),
    "sac, no hidden layer": ("SAC", SEEN, PUSH, "MlpPolicy", {"net_arch": []}),
    "sac, pictures": ("SAC", PICTURE, PUSH, "CnnPolicy", {"net_arch": [8], **SMALL}),
    "sac, noise by state": ("SAC", SEEN, PUSH, "MlpPolicy", {"use_sde": True, "net_arch": [8]}),
    "sac, clipped early": ("SAC", SEEN, PUSH, "MlpPolicy", {"use_sde": True, "clip_mean": 0.5, "net_arch": [8]}),
    "sac, not clipped": ("SAC", SEEN, PUSH, "MlpPolicy", {"use_sde": True, "clip_mean": 0.0, "net_arch": [8]}),
    "tqc": ("TQC", SEEN, PUSH, "MlpPolicy", {"net_arch": [16]}),
    "tqc, noise by state": ("TQC", SEEN, PUSH, "MlpPolicy", {"use_sde": True, "net_arch": [16]}),
    "tqc, pictures": ("TQC", PICTURE, PUSH, "CnnPolicy", {"net_arch": [8], **SMALL}),
    "td3": ("TD3", SEEN, PUSH, "MlpPolicy", {"net_arch": [16]}),
    "td3, no hidden layer": ("TD3", SEEN, PUSH, "MlpPolicy", {"net_arch": []}),
    "td3, pictures": ("TD3", PICTURE, PUSH, "CnnPolicy", {"net_arch": [8], **SMALL}),
    "ddpg": ("DDPG", SEEN, PUSH, "MlpPolicy", {"net_arch": [16]}),
}
CASES |= {
    f"{name.lower()}, {kind.__name__}": (name, SEEN, actions, "MlpPolicy", {"activation_fn": kind, "net_arch": [9]})
    for name, actions in (("DQN", FEW), ("PPO", FEW), ("SAC", PUSH), ("TD3", PUSH))
    for kind in (nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.SiLU)
}


@pytest.mark.parametrize("case", CASES)
def test_as_stable_baselines3_plays(case: str, tmp_path: Path) -> None:
    """What is read from a zip chooses as the model that was saved: as layers and as a graph."""
    algorithm, observations, actions, policy, kwargs = CASES[case]
    given = dict(kwargs)
    top = {"use_sde": True} if given.pop("use_sde", False) else {}
    model = fresh(algorithm, observations, actions, policy, policy_kwargs=given, **top)
    path = tmp_path / "policy.zip"
    model.save(path)
    before = torch.get_rng_state()
    stranger = load_zip(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert stranger.algo == algorithm
    raw = sample(model.observation_space, 200 if policy == "CnnPolicy" else 1000)
    tolerance = 1e-4 if observations is RAM else 1e-5
    check_alike(stranger, model, raw, tolerance=tolerance)


def tensors_of(*names: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random tensors of the given shapes, underscores in pairs for dots."""
    rng = np.random.default_rng(0)
    return {name.replace("__", "."): rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_shared_layers_of_old_versions() -> None:
    """Before 1.8 policy and value could share their first layers: these come first, each with its activation."""
    tensors = tensors_of(
        mlp_extractor__shared_net__0__weight=(7, 4),
        mlp_extractor__shared_net__0__bias=(7,),
        mlp_extractor__policy_net__0__weight=(6, 7),
        mlp_extractor__policy_net__0__bias=(6,),
        mlp_extractor__value_net__0__weight=(5, 7),
        mlp_extractor__value_net__0__bias=(5,),
        action_net__weight=(3, 6),
        action_net__bias=(3,),
        value_net__weight=(1, 5),
        value_net__bias=(1,),
    )
    acting = acting_layers("actor critic", tensors, (4,), 3, nn.Tanh, extractor="flatten", clip_mean=2.0)
    assert acting.widths == [7, 6]
    x = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    y = np.tanh(x @ tensors["mlp_extractor.shared_net.0.weight"].T + tensors["mlp_extractor.shared_net.0.bias"])
    y = np.tanh(y @ tensors["mlp_extractor.policy_net.0.weight"].T + tensors["mlp_extractor.policy_net.0.bias"])
    y = y @ tensors["action_net.weight"].T + tensors["action_net.bias"]
    np.testing.assert_allclose(nn.Sequential(*acting.live)(torch.from_numpy(x)).numpy(), y, atol=1e-5)


def test_mean_limited_in_plain_layers() -> None:
    """The limit of a mean as dense layers equals clipping, exactly where it clips, however far outside the mean is."""
    tensors = tensors_of(actor__mu__0__weight=(3, 4), actor__mu__0__bias=(3,), actor__log_std=(4, 3))
    acting = acting_layers("squashed actor", tensors, (4,), 3, nn.ReLU, extractor="flatten", clip_mean=1.5)
    x = np.random.default_rng(1).standard_normal((300, 4)).astype(np.float32) * np.float32([1, 1, 100, 1e6])
    plain = from_modules(acting.plain, (4,), "float32", Discrete(3))
    frozen = graph.run(plain, x)
    y = x @ tensors["actor.mu.0.weight"].T + tensors["actor.mu.0.bias"]
    np.testing.assert_allclose(frozen, np.clip(y, -1.5, 1.5), rtol=0, atol=1e-6)
    outside = np.abs(y) > 2
    assert outside.any() and (frozen[outside] == np.clip(y, -1.5, 1.5)[outside]).all()
    near = x * np.float32([1, 1, 1e-2, 1e-6])
    live = nn.Sequential(*acting.live)(torch.from_numpy(near)).numpy()
    np.testing.assert_allclose(graph.run(plain, near), live, rtol=0, atol=1e-6)


def test_quantiles_are_averaged_per_action() -> None:
    """Outputs lie as quantile after quantile, each with all actions; their mean is over quantiles."""
    outputs = torch.arange(6.0).reshape(1, 6)  # [[0, 1], [2, 3], [4, 5]]
    assert Quantiles(2)(outputs).tolist() == [[2.0, 3.0]]


def test_channels() -> None:
    """The acting extractor says how many channels it takes: an actor-critic's own before the shared one."""
    assert channels(tensors_of(q_net__features_extractor__cnn__0__weight=(32, 3, 8, 8))) == 3
    both = tensors_of(
        features_extractor__cnn__0__weight=(32, 3, 8, 8), pi_features_extractor__cnn__0__weight=(32, 5, 8, 8)
    )
    assert channels(both) == 5
    assert channels(tensors_of(action_net__weight=(3, 4))) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q_net__q_net__0__weight": (8, 5)}, "4 numbers arrive"),
        ({"q_net__q_net__0__bias": (9,)}, "9 biases"),
        ({"q_net__q_net__2__weight": (2, 8)}, "its last layer gives 2 numbers, but its actions need 3"),
        ({"q_net__q_net__0__weight": (8, 4, 1)}, "not float32 with 2 axes"),
        ({"q_net__q_net__1__weight": (8,)}, "not dense ones"),
        ({"q_net__other__weight": (8,)}, "of a layer that no policy of its class has"),
        ({"lstm__weight": (8,)}, "of a layer that no policy of its class has"),
        ({"q_net__features_extractor__cnn__0__weight": (8,)}, "said to be FlattenExtractor"),
        ({"q_net__q_net__2__bias": None}, "no tensor 'q_net.q_net.2.bias'"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    """A tensor that is missing, too many, or of a wrong shape is refused by its name."""
    shapes = {"q_net__q_net__0__weight": (8, 4), "q_net__q_net__0__bias": (8,)}
    shapes |= {"q_net__q_net__2__weight": (3, 8), "q_net__q_net__2__bias": (3,), **change}
    if "q_net__q_net__2__weight" in change:
        shapes["q_net__q_net__2__bias"] = (2,)
    tensors = tensors_of(**{name: shape for name, shape in shapes.items() if shape is not None})
    with pytest.raises(ValueError, match=said):
        acting_layers("action values", tensors, (4,), 3, nn.ReLU, extractor="flatten", clip_mean=2.0)


@pytest.mark.parametrize(
    ("extractor", "name", "space", "kwargs", "shapes"),
    [
        ("nature", "NatureCNN", PICTURE, SMALL, [(3, 36, 52), (2, 36, 44), (3, 30, 44), (5,)]),
        ("small grid", "SmallGrid", GRID, SMALL_GRID, [(4, 9, 10), (3, 10, 10), (4, 2, 10), (5,)]),
    ],
)
def test_pictures_that_do_not_fit(
    extractor: Extractor, name: str, space: spaces.Box, kwargs: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    """Convolutions on other channels, on pictures of another size or too small, or on no pictures are refused."""
    state = fresh("DQN", space, FEW, "CnnPolicy", policy_kwargs=kwargs).policy.state_dict()
    tensors = {key: value.numpy() for key, value in state.items()}
    acting_layers("action values", tensors, space.shape, 3, nn.ReLU, extractor=extractor, clip_mean=2.0)
    for shape in shapes:
        with pytest.raises(ValueError, match=f"{name}|numbers arrive"):
            acting_layers("action values", tensors, shape, 3, nn.ReLU, extractor=extractor, clip_mean=2.0)
