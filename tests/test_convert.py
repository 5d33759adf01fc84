"""A frozen network computes what the learning one does when it acts, for every kind of network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from agent.config import NetworkSettings
from agent.freeze.convert import Statistics, exact_q_network, from_modules, from_q_network, rounded
from agent.freeze.graph import Clip, Continuous, Conv, Dense, Discrete, Flatten, Fractions, Graph, Norm, run
from agent.nets import impala, torsos
from agent.nets.q_network import QNetwork, make_q_network
from agent.nets.spectral import SpectralConv2d

ACTIONS = 3
# torso, shape, whether the observations are camera pictures
PLACES = {
    "vector": ("mlp", (7,), False),
    "grid": ("mlp", (2, 5), False),
    "camera": ("mlp", (4, 5, 3), True),
    "minatar": ("minatar", (4, 10, 9), False),
    "nature": ("nature", (4, 40, 44), True),
    "nature, channels last": ("nature", (44, 40, 3), True),
    "impala": ("impala", (2, 16, 20), True),
    "impala, channels last": ("impala", (40, 36, 1), True),
}


def trained(place: str, **settings: Any) -> QNetwork:
    """A network whose every weight has moved from where it began, spectral norms and noise too."""
    torso, shape, pixels = PLACES[place]
    chosen = {"hidden": (12, 9), "quantiles": 5, "cosines": 6, "max_pool": None, **settings}
    network = make_q_network(
        NetworkSettings(torso=torso, **chosen), shape, pixels, ACTIONS, torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.std() if parameter.numel() > 1 and parameter.std() > 0 else 1.0
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    for _ in range(3):
        network.power_iterate()
    return network.requires_grad_(False)


def observations(place: str, number: int = 4) -> np.ndarray:
    """Random observations of a place, in the game's own dtype and not near zero on average."""
    torso, shape, pixels = PLACES[place]
    random = np.random.default_rng(0)
    if pixels or torso == "minatar":
        return random.integers(0, 256 if pixels else 2, (number, *shape), np.uint8)
    return (1 + random.standard_normal((number, *shape))).astype(np.float32)


def frozen(place: str, network: QNetwork, convert: Callable[..., Graph] = from_q_network) -> Graph:
    """The graph of a network of that place."""
    return convert(network, PLACES[place][1], observations(place, 1).dtype.name, ACTIONS)


def agree(found: np.ndarray, wanted: np.ndarray, tolerance: float, *, shifted: bool = False) -> None:
    """Both are the same within a share of the largest; with `shifted`, up to a constant per state."""
    if shifted:
        found, wanted = found - found.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def in_double(monkeypatch: pytest.MonkeyPatch, network: QNetwork) -> QNetwork:
    """The network computing in f64; it needs observations in f64, which torsos otherwise make f32."""
    for module in (torsos, impala):
        monkeypatch.setattr(module, "as_float", lambda x, pixels: x.double() / 255.0 if pixels else x.double())
    twin = copy.deepcopy(network).double()
    twin.fold()
    return twin


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("distribution", ["none", "quantile", "implicit"])
def test_every_network(place: str, distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without dueling, noise, layer norm and spectral norm: f32 within 1e-5, f64 within 1e-9."""
    x = observations(place)
    # Where channels stand last nothing but their place is new.
    every = product([False, True], repeat=3) if "last" not in place else [(False,) * 3, (True,) * 3]
    for dueling, noisy, norms in every:
        network = trained(
            place, distribution=distribution, dueling=dueling, noisy=noisy, layer_norm=norms,
            spectral_norm=norms and place.startswith("impala"),
        )  # fmt: skip
        with torch.no_grad():
            live = network(torch.from_numpy(x)).numpy()
        agree(run(frozen(place, network), x), live, 1e-5, shifted=dueling)
        with monkeypatch.context() as patch:
            twin = in_double(patch, network)
            exact = run(frozen(place, twin, exact_q_network), x, np.float64)
            agree(exact, twin(torch.from_numpy(x)).numpy(), 1e-9, shifted=dueling)


@pytest.mark.parametrize("distribution", ["none", "implicit"])
@pytest.mark.parametrize("place", ["vector", "camera", "minatar", "nature", "impala"])
def test_a_torso_without_dense_layers(place: str, distribution: str) -> None:
    """With one hidden layer the head follows the observation or the maps at once, and takes their scale."""
    network, x = trained(place, hidden=(9,), distribution=distribution), observations(place)
    agree(run(frozen(place, network), x), network(torch.from_numpy(x)).numpy(), 1e-5)


def test_fractions_are_rounded_as_the_network_rounds_them() -> None:
    """With 64 cosines of many fractions f32's own error in their arguments is frozen too, so that 1e-5 still holds."""
    network, x = trained("vector", distribution="implicit", cosines=64, quantiles=30), observations("vector", 100)
    agree(run(frozen("vector", network), x), network(torch.from_numpy(x)).numpy(), 1e-5)


def test_impala_pools_as_torch_does() -> None:
    """The adaptive pooling to 6x6 of maps of 11x11, which 84x84 pictures give, has the windows of a max-pool."""
    place, x = "impala", np.random.default_rng(0).integers(0, 256, (2, 1, 84, 84), np.uint8)
    network = make_q_network(NetworkSettings(torso=place, hidden=(9,)), (1, 84, 84), True, 2, torch.Generator())
    graph = from_q_network(network, (1, 84, 84), "uint8", 2)
    pool = graph.layers[-4]
    assert (pool.kernel, pool.stride, pool.padding) == (3, 2, 1)
    with torch.no_grad():
        agree(run(graph, x), network(torch.from_numpy(x)).numpy(), 1e-5)


def test_pooling_that_no_max_pool_does_is_refused() -> None:
    """Maps of 8x8 pooled to 6x6 are refused with both sizes and the setting that would avoid it."""
    network = make_q_network(NetworkSettings(torso="impala", hidden=(9,)), (1, 64, 64), True, 2, torch.Generator())
    with pytest.raises(ValueError, match=r"AdaptiveMaxPool2d\(output_size=6\).* 8x8 .*--network\.max-pool"):
        from_q_network(network, (1, 64, 64), "uint8", 2)


def test_as_few_layers_as_can_be() -> None:
    """Scaling, noise, quantiles, the state's value, centring and activations leave no layer of their own."""
    settings = {"distribution": "quantile", "dueling": True, "noisy": True, "layer_norm": True}
    layers = frozen("nature", trained("nature", **settings)).layers
    assert [type(layer) for layer in layers] == [*[Conv] * 3, Flatten, Dense, Norm, Dense, Norm, Dense]
    assert [getattr(layer, "activation", "") for layer in layers] == [
        "relu", "relu", "relu", "", "none", "relu", "none", "relu", "none",
    ]  # fmt: skip
    assert not any(layer.center for layer in layers if isinstance(layer, Norm))
    assert layers[-1].weight.shape == (ACTIONS, 9)
    assert [type(layer) for layer in frozen("vector", trained("vector", distribution="implicit")).layers] == [
        Dense, Fractions,
    ]  # fmt: skip


def test_weights_are_float32_and_their_own() -> None:
    """Every array is f32, and learning on does not reach into what was frozen."""
    network, x = trained("nature", layer_norm=True, distribution="implicit"), observations("nature")
    graph = frozen("nature", network)
    assert all(value.dtype == np.float32 for layer in graph.layers for value in vars(layer).values()
               if isinstance(value, np.ndarray))  # fmt: skip
    before = run(graph, x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    np.testing.assert_array_equal(run(graph, x), before)


def test_sigma_is_never_stale() -> None:
    """A spectral norm is divided out of the weights as they are, even when nobody has folded since they moved."""
    network, x = trained("impala", spectral_norm=True), observations("impala")
    before = network(torch.from_numpy(x)).numpy()
    with torch.no_grad():
        for layer in network.torso.modules():
            if isinstance(layer, SpectralConv2d):
                layer.weight += layer.weight.std() * torch.randn_like(layer.weight)
    graph = frozen("impala", network)
    network.fold()
    live = network(torch.from_numpy(x)).numpy()
    assert np.abs(live - before).max() > 0.1 * np.abs(live).max(), "the weights have moved"
    agree(run(graph, x), live, 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_diverged_networks_are_refused(value: float) -> None:
    """A weight that is not finite, or not in float32, names its layer."""
    network = trained("vector").double()
    network.torso.layers[0].weight[0, 0] = value
    with pytest.raises(ValueError, match="diverged"):
        frozen("vector", network)


def test_what_does_not_fit_is_refused() -> None:
    """Other torsos, other numbers of actions and other dtypes are refused by name."""
    network = trained("vector")
    with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
        from_q_network(network, (7,), "float32", 4)
    with pytest.raises(ValueError, match="float64"):
        from_q_network(network, (7,), "float64", 3)
    network.torso = nn.Linear(7, 12)
    with pytest.raises(ValueError, match="Linear and LinearHead"):
        frozen("vector", network)


def statistics(shape: tuple[int, ...], clip_obs: float = 1.5) -> Statistics:
    """Statistics that are far from doing nothing, with limits that bind often."""
    random = np.random.default_rng(3)
    return Statistics(random.normal(2, 3, shape), random.uniform(0.01, 5, shape), 1e-8, clip_obs)


def test_statistics_are_those_of_vec_normalize() -> None:
    """Raw observations give what stable-baselines3's VecNormalize and then the network give, clipped or not."""
    known, layers = statistics((3,)), [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)]
    games = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]), clip_obs=known.clip_obs, training=False)
    games.obs_rms.mean, games.obs_rms.var = known.mean, known.var
    x = np.float32(known.mean + 3 * np.random.default_rng(0).standard_normal((200, 3)) * np.sqrt(known.var))
    normalised = games.normalize_obs(x)
    games.close()
    assert (np.abs(normalised) == 1.5).any(1).mean() > 0.2 and (np.abs(normalised) < 1.5).all(1).any()
    graph = from_modules(layers, (3,), "float32", Continuous((-2.0,), (2.0,), "clip"), statistics=known)
    assert [type(layer) for layer in graph.layers] == [Clip, Dense, Dense]
    with torch.no_grad():
        wanted = nn.Sequential(*layers)(torch.from_numpy(normalised).float()).numpy()
    agree(run(graph, x), wanted, 1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_of_pictures(channels_last: bool) -> None:
    """Behind a flatten every place has its own; in front of a convolution every channel, if there is no padding."""
    shape = (5, 6, 2) if channels_last else (2, 5, 6)
    head, x = Discrete(4), np.random.default_rng(0).integers(0, 9, (30, *shape), np.uint8)
    known = statistics(shape)
    normalised = np.clip((x - known.mean) / np.sqrt(known.var + known.epsilon), -1.5, 1.5)
    if channels_last:
        normalised = np.moveaxis(normalised, -1, 1)
    flat = [nn.Flatten(), nn.Linear(60, 4)]
    graph = from_modules(flat, shape, "uint8", head, channels_last=channels_last, statistics=known, scale=0.5)
    with torch.no_grad():
        wanted = nn.Sequential(*flat)(torch.from_numpy(np.ascontiguousarray(0.5 * normalised)).float()).numpy()
    agree(run(graph, x), wanted, 1e-5)

    axis = (1, 1, 2) if channels_last else (2, 1, 1)
    even = Statistics(*(np.broadcast_to(np.random.default_rng(5).uniform(1, 3, axis), shape) for _ in "mv"), 1e-8, 9.0)
    normalised = (x - even.mean) / np.sqrt(even.var + even.epsilon)
    if channels_last:
        normalised = np.moveaxis(normalised, -1, 1)
    convolution = nn.Conv2d(2, 3, 3)
    layers = [convolution, nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)]
    graph = from_modules(layers, shape, "uint8", head, channels_last=channels_last, statistics=even)
    with torch.no_grad():
        wanted = nn.Sequential(*layers)(torch.from_numpy(np.ascontiguousarray(normalised)).float()).numpy()
    agree(run(graph, x), wanted, 1e-5)
    for kind, known, match in [(nn.Conv2d(2, 3, 3), known, "place"), (nn.Conv2d(2, 3, 3, padding=1), even, "padding")]:
        with pytest.raises(ValueError, match=match):
            from_modules([kind], shape, "uint8", head, channels_last=channels_last, statistics=known)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": np.zeros(4)}, r"\(4,\).*\(3,\)"),
        ({"mean": np.float64([0, np.nan, 0])}, "cannot be"),
        ({"var": np.float64([1, -1, 1])}, "cannot be"),
        ({"clip_obs": 0.0}, "cannot be"),
        ({"clip_obs": np.nan}, "cannot be"),
    ],
)
def test_impossible_statistics_are_refused(change: dict[str, Any], match: str) -> None:
    """Statistics of another shape, or with numbers that no observations have, are refused."""
    fields = {"mean": np.zeros(3), "var": np.ones(3), "epsilon": 1e-8, "clip_obs": 10.0}
    with pytest.raises(ValueError, match=match):
        from_modules([nn.Linear(3, 2)], (3,), "float32", Discrete(2), statistics=Statistics(**(fields | change)))


def test_freezing_twice_gives_the_same_bytes() -> None:
    """The same network gives the same numbers, and rounding what is rounded changes nothing."""
    network = trained("impala", spectral_norm=True, layer_norm=True, distribution="quantile")
    first, second = frozen("impala", network), frozen("impala", network)
    x = observations("impala")
    assert run(first, x).tobytes() == run(second, x).tobytes() == run(rounded(first), x).tobytes()
