"""Plain torch layers, folded, compute what they computed; what cannot be folded is refused by name."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from agent.freeze.convert import from_modules
from agent.freeze.folding import Folding
from agent.freeze.graph import Activate, Conv, Dense, Discrete, Flatten, Graph, MaxPool, Norm, run, run_layers

FUSED = (Dense, Conv, Norm)


def moved(modules: list[nn.Module], seed: int = 0) -> nn.Sequential:
    """The layers in eval mode with every weight and running statistic moved from where it began."""
    network, generator = nn.Sequential(*copy.deepcopy(modules)).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                spread = 0.5 * torch.randn(tensor.shape, generator=generator)
                tensor += spread.abs() if name.endswith("running_var") else spread
    return network.requires_grad_(False)


def folded(network: nn.Sequential, shape: tuple[int, ...]) -> Graph:
    """Its graph, whatever it gives."""
    outputs = network(torch.zeros(1, *shape)).shape[1]
    return from_modules(list(network), shape, "float32", Discrete(outputs))


def kinds(graph: Graph) -> list[type]:
    """What its layers are."""
    return [type(layer) for layer in graph.layers]


def agree(network: nn.Sequential, shape: tuple[int, ...]) -> Graph:
    """The graph, which gives what the network gives within 1e-5."""
    graph, x = folded(network, shape), 1 + np.random.default_rng(1).standard_normal((9, *shape)).astype(np.float32)
    wanted = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(graph, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    return graph


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.SiLU])
def test_activations_are_fused(activation: type[nn.Module]) -> None:
    """Every activation goes into the dense layer, convolution or norm before it, through a flatten too."""
    network = moved([
        nn.Conv2d(2, 3, 2), activation(), nn.Conv2d(3, 4, 2), nn.GroupNorm(1, 4), activation(), nn.Conv2d(4, 4, 1),
        nn.Flatten(), activation(), nn.Linear(16, 5), nn.LayerNorm(5), activation(), nn.Linear(5, 3), activation(),
    ])  # fmt: skip
    graph = agree(network, (2, 4, 4))
    assert kinds(graph) == [Conv, Conv, Norm, Conv, Flatten, Dense, Norm, Dense]
    assert [layer.activation == "none" for layer in graph.layers if isinstance(layer, FUSED)] == [
        False, True, False, False, True, False, False,
    ]  # fmt: skip


def test_activations_that_cannot_be_fused_stay() -> None:
    """A second one in a row, one that comes first, and one behind a pooling that does not rise steadily are layers."""
    agree(moved([nn.Tanh(), nn.Linear(3, 4), nn.ReLU(), nn.Sigmoid()]), (3,))
    pooled = [nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.SiLU(), nn.Flatten()]
    assert kinds(agree(moved(pooled), (1, 4, 4))) == [Conv, MaxPool, Activate, Flatten]
    pooled[2] = nn.ELU()
    assert kinds(agree(moved(pooled), (1, 4, 4))) == [Conv, MaxPool, Flatten]


def test_layer_norm_behind_a_dense_layer_needs_no_mean() -> None:
    """The mean is taken out of the weights; behind an activation, a flattened map or nothing it is taken as before."""
    graph = agree(moved([nn.Linear(3, 5), nn.LayerNorm(5, eps=0.1), nn.Linear(5, 2)]), (3,))
    assert [layer.center for layer in graph.layers if isinstance(layer, Norm)] == [False]
    np.testing.assert_allclose(graph.layers[0].weight.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(graph.layers[0].bias.mean(), 0, atol=1e-7)
    plain = [nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 5), nn.ReLU(), nn.LayerNorm(5, bias=False)]
    maps = [nn.Conv2d(2, 3, 2), nn.LayerNorm((3, 3, 3), elementwise_affine=False), nn.Flatten(), nn.LayerNorm(27)]
    for modules, shape in [(plain, (5,)), (maps, (2, 4, 4))]:
        graph = agree(moved(modules), shape)
        assert [layer.center for layer in graph.layers if isinstance(layer, Norm)] == [True, True]


def test_batch_norm_folds_backwards_and_forwards() -> None:
    """Behind a layer with weights it folds into it; first, or behind an activation, into the next; no layer is left."""
    backwards = [nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)]
    graph = agree(moved([*backwards, nn.BatchNorm1d(4, affine=False), nn.Tanh()]), (2, 4, 4))
    assert kinds(graph) == [Conv, Flatten, Dense]
    forwards = [nn.BatchNorm2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Flatten()]
    graph = agree(moved([*forwards, nn.BatchNorm1d(27), nn.Linear(27, 4)]), (2, 4, 4))
    assert kinds(graph) == [Conv, Flatten, Dense]
    assert kinds(agree(moved([nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4)]), (3,))) == [Dense, Norm]


def test_nesting_and_what_does_nothing() -> None:
    """Sequentials inside sequentials are one row of layers; Identity and flattening what is flat are none."""
    inner = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(3, 4, bias=False)), nn.Flatten())
    assert kinds(agree(moved([nn.Flatten(), inner, nn.Sequential(), nn.ReLU()]), (3,))) == [Dense]


@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_named_paddings(padding: str | int) -> None:
    """The paddings that torch knows by name are numbers."""
    agree(moved([nn.Conv2d(2, 3, 3, padding=padding), nn.MaxPool2d((2, 2), (1, 1)), nn.Flatten()]), (2, 5, 4))


@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 8))
def test_adaptive_pooling_is_exact_or_refused(height: int, width: int, side: int) -> None:
    """Where it is not refused it gives torch's numbers; it never is where the side divides both of the maps'."""
    pool, folding = nn.AdaptiveMaxPool2d(side), Folding((2, height, width))
    x = np.random.default_rng(0).standard_normal((1, 2, height, width))
    try:
        folding.add([pool])
    except ValueError as error:
        assert height != width or height % side, "windows of one size, one behind the other"
        assert f"{height}x{width}" in str(error)
    else:
        np.testing.assert_array_equal(run_layers(folding.finished(), x), pool(torch.from_numpy(x)).numpy())


def test_adaptive_pooling_that_is_known_to_fit() -> None:
    """11x11 to 6x6 has windows of 3 at every second place, one place of padding around; one window may be all."""
    for side, out, expected in [(11, 6, (3, 2, 1)), (12, 6, (2, 2, 0)), (5, 1, (5, 1, 0)), (7, 4, (3, 2, 1))]:
        folding = Folding((2, side, side))
        folding.add([nn.AdaptiveMaxPool2d((out, out))])
        (pool,) = folding.finished()
        assert folding.shape == (2, out, out)
        assert (pool.kernel, pool.stride, pool.padding) == expected


def hooked() -> nn.Module:
    """A layer that does more than its class says."""
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


class Doubled(nn.Linear):
    """A layer of someone's own that inherits from a known one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice as much."""
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("module", "shape", "match"),
    [
        (nn.GELU(), (4,), r"GELU.* cannot be frozen: .*SiLU"),
        (nn.LSTM(4, 4), (4,), "LSTM"),
        (Doubled(4, 4), (4,), "Doubled"),
        (hooked(), (4,), "Linear.*hooks"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), (4,), "ParametrizedLinear"),
        (nn.ELU(0.5), (4,), r"ELU\(alpha=0.5\)"),
        (nn.LeakyReLU(0.2), (4,), "LeakyReLU"),
        (nn.Linear(4, 4), (5,), "4 features"),
        (nn.Linear(4, 4), (2, 4, 4), "Flatten"),
        (nn.Flatten(2), (2, 4, 4), "Flatten"),
        (nn.Conv2d(2, 2, 3), (4,), "Conv2d"),
        (nn.Conv2d(3, 2, 3), (2, 4, 4), "Conv2d"),
        (nn.Conv2d(2, 2, 5), (2, 4, 4), "larger"),
        (nn.Conv2d(2, 2, 3, groups=2), (2, 4, 4), "groups"),
        (nn.Conv2d(2, 2, 2, dilation=2), (2, 4, 4), "dilation"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 4, 4), "padding"),
        (nn.Conv2d(2, 2, 3, stride=(1, 2)), (2, 4, 4), "stride"),
        (nn.Conv2d(2, 2, 2, padding="same"), (2, 4, 4), "padding"),
        (nn.GroupNorm(2, 4), (4, 3, 3), "GroupNorm"),
        (nn.LayerNorm(3), (2, 3, 3), "LayerNorm"),
        (nn.LayerNorm((2, 3, 3)), (2, 3, 3), "LayerNorm"),
        (nn.BatchNorm1d(4), (4,), r"eval\(\)"),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), (2, 3, 3), "statistics"),
        (nn.BatchNorm1d(3).eval(), (4,), "BatchNorm1d"),
        (nn.MaxPool2d(2, ceil_mode=True), (2, 3, 3), "ceil_mode"),
        (nn.MaxPool2d((2, 3)), (2, 4, 4), "square"),
        (nn.MaxPool2d(5), (2, 4, 4), "MaxPool2d of 5"),
        (nn.AdaptiveMaxPool2d(3), (4,), "AdaptiveMaxPool2d"),
        (nn.Sequential(nn.Softplus()), (4,), "Softplus"),
    ],
)
def test_the_rest_is_refused_by_name(module: nn.Module, shape: tuple[int, ...], match: str) -> None:
    """What a graph cannot express exactly raises ValueError that says what it was."""
    with pytest.raises(ValueError, match=match):
        Folding(shape).add([module])


@pytest.mark.parametrize("behind", [nn.ReLU(), nn.LayerNorm(4), nn.Identity()])
def test_batch_norm_with_nowhere_to_fold_is_refused(behind: nn.Module) -> None:
    """Between two activations, before a norm or last of all behind an activation there is no weight to take it."""
    network = moved([nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), behind])
    with pytest.raises(ValueError, match="folded"):
        folded(network, (4,))
    convolution = moved([nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten()])
    with pytest.raises(ValueError, match="padding"):
        folded(convolution, (2, 4, 4))
