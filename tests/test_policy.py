"""The Q-network as an SB3 policy."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agent.config import NetworkSettings
from agent.nets.torsos import MinAtar, Mlp, Nature
from agent.sb3.policy import QPolicy, network_dtype

VECTOR = spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = spaces.Discrete(3)


def test_plays_the_best_action():
    """Predictions are the best actions of the network, for one observation and for many."""
    policy = QPolicy(VECTOR, ACTIONS, NetworkSettings(hidden=(16,)), seed=0)
    observation = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    best = policy.q_net(torch.from_numpy(observation)).argmax(1).numpy()
    assert len(set(best)) > 1
    assert np.array_equal(policy.predict(observation)[0], best)
    assert [int(policy.predict(row)[0]) for row in observation[:10]] == best[:10].tolist()


def test_weights_follow_the_seed():
    """The seed alone decides the weights, and the target starts as a copy that takes no gradient."""
    torch.manual_seed(1)
    one = QPolicy(VECTOR, ACTIONS, NetworkSettings(), seed=5).state_dict()
    torch.manual_seed(2)
    policy = QPolicy(VECTOR, ACTIONS, NetworkSettings(), seed=5)
    assert all(torch.equal(one[name], value) for name, value in policy.state_dict().items())
    target = policy.q_net_target.state_dict()
    assert all(torch.equal(target[name], value) for name, value in policy.q_net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in policy.q_net_target.parameters())
    other = QPolicy(VECTOR, ACTIONS, NetworkSettings(), seed=6).state_dict()
    assert not all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("dueling", [False, True])
def test_saves_and_loads_alone(tmp_path, dueling):
    """The policy saves and loads by itself, as SB3's policies do."""
    policy = QPolicy(VECTOR, ACTIONS, {"hidden": (8, 8), "dueling": dueling}, seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    policy.save(tmp_path / "policy.pt")
    loaded = QPolicy.load(tmp_path / "policy.pt", device="cpu")
    observation = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(observation)[0], policy.predict(observation)[0])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in policy.state_dict().items())


def test_pictures_are_scaled_once():
    """Pictures reach the network as bytes, which scales them itself; every other type counts as float32."""
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    policy = QPolicy(space, ACTIONS, NetworkSettings(hidden=(8,)), seed=0)
    frames = np.random.default_rng(0).integers(256, size=(5, 4, 36, 36), dtype=np.uint8)
    seen = []
    policy.q_net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    policy.predict(frames)
    assert seen[0].dtype == torch.uint8 and np.array_equal(seen[0].numpy(), frames)
    assert policy.q_net.torso.pixels
    assert network_dtype(space) == "uint8"
    assert network_dtype(VECTOR) == network_dtype(spaces.Box(0, 1, (4,), np.float64)) == "float32"


@pytest.mark.parametrize(
    ("space", "torso", "pixels"),
    [
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), Nature, True),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), Nature, True),
        (spaces.Box(0, 255, (3, 8, 8), np.uint8), Mlp, True),
        (spaces.Box(0, 1, (6, 10, 10), np.uint8), MinAtar, False),
        (spaces.Box(0, 255, (6, 10, 10), np.float32), MinAtar, False),
        (VECTOR, Mlp, False),
    ],
)
def test_the_space_says_what_is_a_picture(space, torso, pixels):
    """Pictures are what SB3 calls an image: three axes of bytes from 0 to 255. Boards of zeros and ones are not."""
    network = QPolicy(space, ACTIONS, NetworkSettings(), seed=0).q_net
    assert type(network.torso) is torso and network.torso.pixels is pixels
