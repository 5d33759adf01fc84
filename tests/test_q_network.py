"""The Q-network: which parts it is made of, and where its weights come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from agent.config import NetworkSettings
from agent.nets.heads import DuelingHead, LinearHead
from agent.nets.q_network import TORSOS, QNetwork, make_q_network, torso_kind
from agent.nets.torsos import MinAtar, Mlp, Nature


def make(
    shape: tuple[int, ...] = (4,), pixels: bool = False, actions: int = 3, seed: int = 0, **changes: Any
) -> QNetwork:
    generator = torch.Generator().manual_seed(seed)
    return make_q_network(NetworkSettings(**changes), shape, pixels, actions, generator)


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


@pytest.mark.parametrize(("kind", "torso"), [("mlp", Mlp), ("minatar", MinAtar), ("nature", Nature)])
def test_a_named_torso_is_taken(kind: str, torso: type[nn.Module]) -> None:
    """What the settings name is built, whatever `auto` would have been."""
    for pixels, dtype in ((True, torch.uint8), (False, torch.uint8), (False, torch.float32)):
        network = make((2, 36, 36), pixels, torso=kind, hidden=(6, 4))
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


@pytest.mark.parametrize("torso", ["mlp", "minatar", "nature"])
def test_only_pixels_are_scaled(torso: str) -> None:
    """The torso is told: pictures are divided by 255, boards of zeros and ones are not, though both are bytes."""
    shape = (2, 36, 36)
    pictures, boards = (make(shape, pixels, torso=torso, hidden=(4,)) for pixels in (True, False))
    x = torch.randint(256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pictures(x), boards(x / 255))
    torch.testing.assert_close(boards(x % 2), boards((x % 2).float()))


def test_values_are_the_heads_of_the_torsos_features() -> None:
    """Forward is the head after the torso and nothing else."""
    network, x = make(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network(x), network.head(network.torso(x)))


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
    for network in (make((4,), hidden=(256, 256)), make((2, 36, 36), True, hidden=(64,))):
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = layer.weight[0].numel() ** -0.5
                assert 0.8 * bound < layer.weight.abs().max() <= bound
                assert layer.bias.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": 0}, r"discrete actions; for continuous ones use --algo sac, td3 or tqc"),
        ({"torso": "minatar", "shape": (4,)}, r"minatar torso needs .*channels, height .* \(4,\): --network\.torso mlp"),
        ({"torso": "nature", "shape": (4, 10, 10)}, r"nature torso .*36.* \(4, 10, 10\): --network\.torso mlp"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names what is wrong and what would be right."""
    with pytest.raises(ValueError, match=message):
        make(**arguments)
