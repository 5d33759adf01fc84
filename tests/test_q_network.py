"""The Q-network: which parts it is made of, and where its weights come from."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from agent.config import NetworkSettings
from agent.nets.heads import DuelingHead, LinearHead
from agent.nets.impala import Impala
from agent.nets.noisy import NoisyLinear
from agent.nets.q_network import TORSOS, QNetwork, make_q_network, torso_kind
from agent.nets.spectral import SpectralConv2d
from agent.nets.torsos import MinAtar, Mlp, Nature


BTR = {
    "torso": "impala",
    "width": 2,
    "spectral_norm": True,
    "dueling": True,
    "noisy": True,
    "distribution": "implicit",
    "quantiles": 8,
    "hidden": (512,),
}  # Clark et al. 2024
SMALL = BTR | {"width": 1, "max_pool": 2, "hidden": (6,)}  # the same parts for pictures of 16x16
PICTURE = (4, 16, 16)


def make(
    shape: tuple[int, ...] = (4,), pixels: bool = False, actions: int = 3, seed: int = 0, **changes: Any
) -> QNetwork:
    generator = torch.Generator().manual_seed(seed)
    return make_q_network(NetworkSettings(**changes), shape, pixels, actions, generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(*shape: int) -> torch.Tensor:
    """Random bytes."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=seeded())


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    ("shape", "pixels", "torso"),
    [
        ((4,), False, Mlp),
        ((4, 84, 84), True, Nature),
        ((4, 36, 36), True, Nature),
        ((96, 96, 3), True, Nature),
        ((4, 35, 84), True, Mlp),
        ((4, 8, 8), True, Mlp),
        ((84, 84), True, Mlp),
        ((4, 10, 10), False, MinAtar),
        ((100, 10, 10), False, MinAtar),
        ((4, 3, 3), False, MinAtar),
        ((4, 2, 9), False, Mlp),
        ((3, 84, 84), False, Mlp),
        ((9, 9), False, Mlp),
    ],
)
def test_auto_looks_at_shape_and_pixels(shape: tuple[int, ...], pixels: bool, torso: type[nn.Module]) -> None:
    """`auto` is nature for large pictures, minatar for small grids that are no pictures, and mlp for all else."""
    assert TORSOS[torso_kind(NetworkSettings(), shape, pixels)] is torso
    assert type(make(shape, pixels, hidden=(2,)).torso) is torso


@pytest.mark.parametrize(
    ("kind", "torso"), [("mlp", Mlp), ("minatar", MinAtar), ("nature", Nature), ("impala", Impala)]
)
def test_a_named_torso_is_taken(kind: str, torso: type[nn.Module]) -> None:
    """What the settings name is built, whatever `auto` would have been."""
    for pixels, dtype in ((True, torch.uint8), (False, torch.uint8), (False, torch.float32)):
        network = make((2, 36, 36), pixels, torso=kind, hidden=(6, 4), max_pool=5)
        assert type(network.torso) is torso and network.torso.features == 6
        values = network(torch.ones((5, 2, 36, 36), dtype=dtype))
        assert values.shape == (5, 3) and values.dtype == torch.float32


@pytest.mark.parametrize(("dueling", "head"), [(False, LinearHead), (True, DuelingHead)])
def test_the_head_owns_the_last_hidden_layer(dueling: bool, head: type[nn.Module]) -> None:
    """All widths but the last stand in the torso; the head begins with the last one."""
    network = make(hidden=(7, 6, 5), dueling=dueling)
    assert type(network.head) is head
    linear = [layer for layer in network.torso.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(4, 7), (7, 6)]
    streams = list(network.head.children())
    assert [(stream[0].in_features, stream[0].out_features) for stream in streams] == [(6, 5)] * len(streams)
    assert streams[-1][-1].out_features == 3


@pytest.mark.parametrize("torso", ["mlp", "minatar", "nature", "impala"])
def test_only_pixels_are_scaled(torso: str) -> None:
    """The torso is told: pictures are divided by 255, boards of zeros and ones are not, though both are bytes."""
    shape = (2, 36, 36)
    pictures, boards = (make(shape, pixels, torso=torso, hidden=(4,), max_pool=5) for pixels in (True, False))
    x = torch.randint(256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pictures(x), boards(x / 255))
    torch.testing.assert_close(boards(x % 2), boards((x % 2).float()))


def test_values_are_the_heads_of_the_torsos_features() -> None:
    """Without a distribution forward is the head after the torso and nothing else, the one quantile that there is."""
    network, x = make(), torch.randn(6, 4, generator=seeded(1))
    assert torch.equal(network(x)[:, None], network.head(network.torso(x)))
    assert torch.equal(network.quantiles(x)[:, 0], network(x))
    assert network.distribution == "none" and network.fractions.tolist() == [0.5]


@pytest.mark.parametrize("shape", [(4,), (2, 10, 10), (2, 36, 36)])
def test_weights_come_from_the_generator_alone(shape: tuple[int, ...]) -> None:
    """The same seed gives the same weights wherever torch's own generator stands; another seed gives others."""
    pixels = shape == (2, 36, 36)
    with torch.random.fork_rng(devices=[]):
        first = weights(make(shape, pixels))
        torch.rand(7)
        assert torch.equal(weights(make(shape, pixels)), first)
    assert (weights(make(shape, pixels, seed=1)) == first).float().mean() < 0.01


def test_torchs_own_generator_stays_where_it_is() -> None:
    """Building a network draws nothing from torch's global generator, nor does a build that fails."""
    before = torch.get_rng_state()
    make(dueling=True)
    with pytest.raises(ValueError):
        make((4,), torso="nature")
    make(PICTURE, True, **SMALL).draw_noise(seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gpus_generators_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a network seeds no GPU's global generator."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    make()
    assert seeded == []


def test_two_networks_from_one_generator_differ() -> None:
    """The generator moves on, so a second network does not repeat the first."""
    generator = torch.Generator().manual_seed(0)
    first, second = (make_q_network(NetworkSettings(), (4,), False, 2, generator) for _ in range(2))
    assert not torch.equal(weights(first), weights(second))


def test_weights_are_drawn_as_torch_draws_them() -> None:
    """Every layer's weights and biases fill the interval of plus or minus 1 / sqrt(fan in)."""
    for network in (make((4,), hidden=(256, 256)), make((2, 36, 36), True, hidden=(64,), noisy=True)):
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = layer.weight[0].numel() ** -0.5
                assert 0.8 * bound < layer.weight.abs().max() <= bound
                assert layer.bias.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": 0}, r"discrete actions; for continuous ones use --algo sac, td3 or tqc"),
        ({"torso": "minatar", "shape": (4,)}, r"minatar torso .*channels, height .* \(4,\): --network\.torso mlp"),
        ({"torso": "impala", "shape": (4,)}, r"impala torso .*channels, height .* \(4,\): --network\.torso mlp"),
        ({"torso": "impala", "shape": (4, 10, 10)}, r"max_pool \(6\).* 2x2 .*\(4, 10, 10\): --network\.max-pool 2"),
        ({"torso": "nature", "shape": (4, 10, 10)}, r"nature torso .*36.* \(4, 10, 10\): --network\.torso mlp"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names what is wrong and what would be right."""
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_the_size_of_btr() -> None:
    """Its x2 network with all 18 actions has 2.91M weights without sigma, 2.52M of them behind the torso."""
    network = make((4, 84, 84), True, 18, **BTR)
    means = {name: p.numel() for name, p in network.named_parameters() if not name.endswith("_sigma")}
    assert round(sum(means.values()) / 1e6, 2) == 2.91
    assert round(sum(count for name, count in means.items() if not name.startswith("torso.")) / 1e6, 2) == 2.52
    noisy = [layer.out_features for layer in network.modules() if isinstance(layer, NoisyLinear)]
    assert noisy == [512, 1, 512, 18]


@pytest.mark.parametrize("dueling", [False, True])
def test_fixed_quantiles(dueling: bool) -> None:
    """A quantile network has K values per action at the midpoints, and their mean is the action's value."""
    network, x = make(distribution="quantile", quantiles=5, dueling=dueling), torch.randn(6, 4, generator=seeded(1))
    quantiles = network.quantiles(x)
    assert quantiles.shape == (6, 5, 3) and quantiles.std(1).min() > 0
    assert torch.equal(quantiles, network.head(network.torso(x)))
    torch.testing.assert_close(network(x), sum(quantiles[:, k] for k in range(5)) / 5)
    torch.testing.assert_close(network.fractions, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))


@pytest.mark.parametrize("dueling", [False, True])
def test_quantiles_at_any_fraction(dueling: bool) -> None:
    """An implicit network's values are the head of features times embedding, fraction by fraction."""
    network = make(distribution="implicit", quantiles=5, cosines=7, dueling=dueling)
    x, fractions = torch.randn(6, 4, generator=seeded(1)), torch.rand(6, 9, generator=seeded(2))
    quantiles = network.quantiles(x, fractions)
    assert quantiles.shape == (6, 9, 3) and network.embedding.linear.in_features == 7
    for n in range(6):
        for t in range(9):
            features = network.torso(x[n : n + 1]) * network.embedding(fractions[n, t])
            torch.testing.assert_close(quantiles[n, t], network.head(features)[0, 0])
    assert quantiles.std(1).min() > 0
    fixed = network.quantiles(x)
    assert fixed.shape == (6, 5, 3)
    torch.testing.assert_close(fixed, network.quantiles(x, network.fractions.expand(6, 5)))
    torch.testing.assert_close(network(x), sum(fixed[:, k] for k in range(5)) / 5)


@pytest.mark.parametrize("distribution", ["none", "quantile"])
def test_only_implicit_networks_take_fractions(distribution: str) -> None:
    """Asking another network for chosen fractions is an error that names the setting."""
    with pytest.raises(ValueError, match=r"network\.distribution implicit"):
        make(distribution=distribution).quantiles(torch.zeros(2, 4), torch.rand(2, 5, generator=seeded()))


@pytest.mark.parametrize("distribution", ["none", "quantile", "implicit"])
@pytest.mark.parametrize("dueling", [False, True])
def test_noise_is_an_argument(distribution: str, dueling: bool) -> None:
    """Without noise the means count; with it all values move, alike for rows that are alike; no call keeps any."""
    network = make(noisy=True, distribution=distribution, dueling=dueling, quantiles=5)
    x, generator = torch.ones(2, 4), seeded()
    mean, first, second = network(x), network.draw_noise(generator), network.draw_noise(generator)
    noisy = network(x, first)
    assert not torch.isclose(noisy, mean).any() and not torch.isclose(network(x, second), noisy).any()
    torch.testing.assert_close(noisy[0], noisy[1])
    torch.testing.assert_close(network.quantiles(x, noise=first).mean(1), noisy)
    assert torch.equal(network(x), mean) and torch.equal(network(x, first), noisy)
    again = network.draw_noise(seeded())
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True)), "one state, one draw"


def test_noise_fits_the_noisy_layers_alone() -> None:
    """Noise is a pair of vectors per layer of the head; torso and embedding have none, nor has a plain network."""
    network = make(noisy=True, distribution="implicit", hidden=(7, 6, 5))
    sizes = [len(part) for part in network.draw_noise(seeded())]
    assert sizes == [6, 5, 5, 3]
    loud = make(noisy=True, noisy_sigma=2.0, hidden=(4,)).head.action_values[0]
    assert torch.equal(loud.weight_sigma, torch.ones(4, 4)), "2 / sqrt 4 inputs"
    assert {type(layer) for layer in network.modules() if isinstance(layer, nn.Linear)} == {nn.Linear, NoisyLinear}
    assert not any(isinstance(layer, NoisyLinear) for layer in network.torso.modules())
    assert make().draw_noise(generator := seeded()) is None
    assert torch.equal(generator.get_state(), seeded().get_state()), "and nothing is drawn for it"


def learn(network: QNetwork) -> None:
    """Change all weights in place, as an update does."""
    network.power_iterate()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(5))


def values(network: QNetwork) -> torch.Tensor:
    """What an actor sees."""
    with torch.inference_mode():
        return network(picture(3, *PICTURE))


def test_folded_weights_give_the_same_values() -> None:
    """After `power_iterate` or `fold` values without autograd equal those with it, bit for bit; else they are stale."""
    network = make(PICTURE, True, **SMALL)
    assert torch.equal(network(picture(3, *PICTURE)), values(network)), "fresh"
    learn(network)
    assert not torch.equal(network(picture(3, *PICTURE)), values(network))
    network.fold()
    assert torch.equal(network(picture(3, *PICTURE)), values(network))
    learn(network)
    network.power_iterate()
    assert torch.equal(network(picture(3, *PICTURE)), values(network))


def test_every_spectral_convolution_iterates() -> None:
    """`power_iterate` moves u and v of all twelve, `fold` of none; a network without them takes both calls."""
    network = make(PICTURE, True, **SMALL)
    learn(network)
    layers = [layer for layer in network.modules() if isinstance(layer, SpectralConv2d)]
    assert len(layers) == 12
    before = [layer.u.clone() for layer in layers]
    network.fold()
    assert all(torch.equal(layer.u, u) for layer, u in zip(layers, before, strict=True))
    network.power_iterate()
    assert not any(torch.equal(layer.u, u) for layer, u in zip(layers, before, strict=True))
    plain = make()
    plain.power_iterate()
    plain.fold()
    assert torch.equal(weights(plain), weights(make()))


def test_a_target_copy_needs_the_buffers() -> None:
    """Copying the state, u and v with it, and folding makes the target equal, bit for bit; parameters alone do not."""
    network = make(PICTURE, True, **SMALL)
    target, stale = deepcopy(network), deepcopy(network)
    for _ in range(3):
        learn(network)
    network.fold()
    with torch.no_grad():
        for copy, source in zip(target.state_dict().values(), network.state_dict().values(), strict=True):
            copy.copy_(source)
        for copy, source in zip(stale.parameters(), network.parameters(), strict=True):
            copy.copy_(source)
    target.fold()
    stale.fold()
    assert torch.equal(values(target), values(network))
    assert not torch.allclose(values(stale), values(network), rtol=1e-3, atol=1e-3)


def test_a_deep_copy_is_its_own() -> None:
    """Iterating and folding the copy leaves the original alone, and the copy draws noise for its own layers."""
    network = make(PICTURE, True, **SMALL)
    before, copy = values(network), deepcopy(network)
    learn(copy)
    copy.power_iterate()
    assert torch.equal(values(network), before)
    assert torch.equal(copy(picture(3, *PICTURE)), values(copy)) and not torch.equal(values(copy), before)


def test_a_state_is_enough() -> None:
    """Loading a state gives the same values with and without autograd, and holds nothing that follows from others."""
    network, other = make(PICTURE, True, **SMALL), make(PICTURE, True, seed=1, **SMALL)
    for _ in range(3):
        learn(network)
    network.fold()
    other.load_state_dict(network.state_dict())
    assert torch.equal(values(other), values(network))
    assert torch.equal(other(picture(3, *PICTURE)), network(picture(3, *PICTURE)))
    assert not [name for name in network.state_dict() if name.endswith(("folded", "fractions", "frequencies"))]


def test_pictures_of_gymnasium() -> None:
    """Frames [H, W, 3] go through the whole network as [3, H, W] do with the same weights."""
    last, first = make((40, 48, 3), True, **SMALL), make((3, 40, 48), True, **SMALL)
    x = picture(5, 40, 48, 3)
    assert last(x).shape == (5, 3)
    torch.testing.assert_close(last(x), first(x.permute(0, 3, 1, 2)))


def test_layer_norm_is_everywhere_or_nowhere() -> None:
    """The setting reaches torso and head; plain networks have the parameter names of old checkpoints."""
    network = make(layer_norm=True, hidden=(6, 5), dueling=True)
    assert sum(isinstance(layer, nn.LayerNorm) for layer in network.modules()) == 3
    names = [f"{part}.{name}" for part in ("torso.layers.0", "head.action_values.0", "head.action_values.2")
             for name in ("weight", "bias")]  # fmt: skip
    assert list(make().state_dict()) == names
