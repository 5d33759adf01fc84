"""Policies that stable-baselines3 saved, as layers and as a graph; nothing that is in their files is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from agent.freeze.archive import LARGEST
from agent.freeze.convert import Statistics, from_modules
from agent.freeze.graph import Continuous, Discrete, Graph
from agent.freeze.sb3_layers import Acting, acting_layers, channels
from agent.freeze.sb3_saved import Saved, read_saved
from agent.freeze.spaces import Box, MultiBinary, OtherSpace, Space
from agent.freeze.spaces import Discrete as DiscreteSpace
from agent.freeze.vec_normalize import read_statistics


@dataclass(frozen=True, eq=False)
class Stranger:
    """A policy that somebody else trained: as it was, and as a graph."""

    algo: str
    network: nn.Module  # observations as the game gives them, [N, *shape] -> outputs f32 [N, A]
    graph: Graph
    low: np.ndarray  # [*shape], what the file says of observations
    high: np.ndarray
    sb3_version: str | None
    notes: tuple[str, ...]

    @property
    def head(self) -> Discrete | Continuous:
        """How outputs become actions."""
        return self.graph.head

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as the game gives it."""
        return self.graph.shape

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Of observations as the game gives them."""
        return self.graph.dtype


class Live(nn.Module):
    """The policy as stable-baselines3 computes it: VecNormalize, pictures as shares of 255, the layers."""

    def __init__(self, layers: list[nn.Module], statistics: Statistics | None, *, pictures: bool, channels_last: bool):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.statistics, self.pictures, self.channels_last = statistics, pictures, channels_last

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *shape] -> [N, A]"""
        x = observation
        if self.statistics is not None:
            mean, var = (torch.from_numpy(one) for one in (self.statistics.mean, self.statistics.var))
            x = (x.double() - mean) / (var + self.statistics.epsilon).sqrt()
            x = x.clamp(-self.statistics.clip_obs, self.statistics.clip_obs)
        x = x.float()
        if self.channels_last:
            x = x.movedim(-1, 1)  # [N, C, H, W]
        return self.layers(x / 255.0 if self.pictures else x)


def load_zip(path: Path, statistics: Path | None = None) -> Stranger:
    """Return the policy in a zip that stable-baselines3 saved, 1.0 to today, with VecNormalize's `statistics` in front.

    Without `statistics` those in NAME.vecnormalize.pkl beside NAME.zip are taken when there are any. Raises ValueError
    saying what is wrong with which file; nothing in the files is run, imported or written.
    """
    path = Path(path)
    with _reading(path):
        beside = path.with_name(f"{path.stem}.vecnormalize.pkl")
        if statistics is None and beside.is_file():
            statistics = beside
    moments, notes = None, []
    if statistics is not None:
        with _reading(statistics):
            moments = read_statistics(_content(statistics))
        verb = "are normalised by the statistics in" if moments else "are not normalised, so says"
        notes.append(f"Observations {verb} {Path(statistics).name}.")
    with _reading(path):
        saved = read_saved(_content(path))
        if statistics is None and saved.was_normalized:
            notes.append("It was trained behind VecNormalize: if that normalised observations, pass its statistics.")
        return _stranger(saved, moments, notes)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read is a refusal that names it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # none is known; a stranger's file shall not show a traceback all the same
        raise ValueError(f"{path} cannot be loaded: it is damaged ({type(error).__name__}).") from error


def _content(path: Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise ValueError("it is not a file." if path.exists() else "there is no such file.")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB.")
    return path.read_bytes()


def _stranger(saved: Saved, statistics: Statistics | None, notes: list[str]) -> Stranger:
    low, high = _limits(saved.observations, notes)
    shape = low.shape
    is_picture = isinstance(saved.observations, Box) and saved.observations.is_picture
    # A picture is turned to channels first before its space is stored; one that was not is known by the weights.
    maps = channels(saved.tensors) if saved.extractor == "nature" else None
    channels_last = len(shape) == 3 and maps is not None and shape[0] != maps == shape[-1]
    if saved.extractor == "nature" or is_picture and saved.extractor != "small grid":
        order = "last" if channels_last else "first, as VecTransposeImage turns them"
        notes.append(f"Pictures come with channels {order}: {list(shape)}.")
    head = _head(saved, notes)
    acting = acting_layers(
        saved.kind,
        saved.tensors,
        (shape[-1], *shape[:-1]) if channels_last else shape,
        head.num_actions if isinstance(head, Discrete) else len(head.low),
        saved.activation,
        extractor=saved.extractor,
        clip_mean=saved.clip_mean,
    )
    _cross_check(saved, acting)
    scaled = is_picture and saved.normalize_images
    graph = from_modules(
        acting.plain,
        shape,
        low.dtype.name,
        head,
        channels_last=channels_last,
        scale=1 / 255 if scaled else None,
        statistics=statistics,
    )
    network = Live(acting.live, statistics, pictures=scaled, channels_last=channels_last).eval()
    return Stranger(saved.algo, network, graph, low, high, saved.version, tuple(notes))


def _limits(space: Space, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of observations, [*shape], in the dtype in which a game shall give them."""
    if isinstance(space, MultiBinary):
        return np.zeros(space.shape, np.uint8), np.ones(space.shape, np.uint8)
    if not isinstance(space, Box):
        raise ValueError(f"its observations are a {_kind(space)} space: only Box and MultiBinary are supported.")
    if space.shape == ():
        raise ValueError("its observations are a single number without an axis.")
    if space.low.dtype == np.uint8:
        return space.low, space.high
    if space.low.dtype != np.float32:
        notes.append(f"Observations of {space.low.dtype} are given as float32, as the network is given them.")
    return space.low.astype(np.float32), space.high.astype(np.float32)


def _head(saved: Saved, notes: list[str]) -> Discrete | Continuous:
    space = saved.actions
    if isinstance(space, DiscreteSpace) and saved.kind in ("actor critic", "action values", "quantiles"):
        if space.start != 0:
            raise ValueError(f"its actions start at {space.start}, not at 0.")
        return Discrete(space.n)
    if not isinstance(space, Box) or saved.kind in ("action values", "quantiles"):
        raise ValueError(f"its actions are a {_kind(space)} space, which is not supported for {saved.algo}.")
    if len(space.shape) != 1 or space.low.dtype.kind != "f":
        raise ValueError(f"its actions are {space.low.dtype} {space.shape}: only a list of real numbers is supported.")
    squashed = saved.kind != "actor critic" or saved.squash_output
    if squashed and not np.isfinite([space.low, space.high]).all():
        raise ValueError("its actions are squashed between limits that are not finite.")
    if saved.kind != "deterministic actor":
        notes.append("Actions are the mean of their distribution, as with `predict(deterministic=True)`.")
    largest = np.finfo(np.float32).max  # no limit at all, but a number
    low, high = (np.clip(limit, -largest, largest).astype(np.float32).tolist() for limit in (space.low, space.high))
    return Continuous(tuple(low), tuple(high), "tanh" if squashed else "clip")


def _kind(space: Space) -> str:
    return space.kind if isinstance(space, OtherSpace) else type(space).__name__


def _cross_check(saved: Saved, acting: Acting) -> None:
    """Raise ValueError when the file says of its network something else than its tensors show."""
    if saved.widths is not None and saved.widths != acting.widths:
        raise ValueError(f"its net_arch says hidden layers of {saved.widths}, its tensors have {acting.widths}.")
    if saved.extractor != "flatten" and saved.features != acting.features:
        raise ValueError(f"its features_dim says {saved.features} features, its tensors have {acting.features}.")
    if saved.kind == "quantiles" and saved.quantiles * acting.plain[-1].out_features != acting.rows:
        raise ValueError(f"its n_quantiles says {saved.quantiles}, but its last layer gives {acting.rows} numbers.")
