"""Policies that stable-baselines3 saved, as they act and as a graph; nothing that is in their files is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from agent.freeze.archive import LARGEST
from agent.freeze.convert import Statistics, from_modules
from agent.freeze.graph import Continuous, Discrete, Graph
from agent.freeze.sb3_layers import Acting, acting_layers, channels
from agent.freeze.sb3_live import Choice, Live, LiveParts, Observation, as_tensor
from agent.freeze.sb3_saved import Saved, read_saved
from agent.freeze.spaces import Box, MultiBinary, MultiDiscrete, OtherSpace, Part, Parts, Space, kind_of, num_entries
from agent.freeze.spaces import Discrete as DiscreteSpace
from agent.freeze.vec_normalize import read_statistics


@dataclass(frozen=True, eq=False)
class Stranger:
    """A policy that somebody else trained: as it was, and as a graph."""

    file: str
    algo: str
    network: Live | LiveParts  # observations as the game gives them, [N, *shape] -> outputs f32 [N, A]
    choose: Callable[[np.ndarray], np.ndarray]  # outputs [N, A] -> actions, as stable-baselines3 takes them
    observations: Space
    actions: Space
    make_graph: Callable[[], Graph]
    sb3_version: str | None
    notes: tuple[str, ...]

    @cached_property
    def graph(self) -> Graph:
        """The same folded, as plain arrays; ValueError for what can act and not be frozen."""
        try:
            return self.make_graph()
        except ValueError as error:
            raise ValueError(f"{self.file} cannot be frozen: {error}") from error

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """Return bit for bit what `predict(deterministic=True)` returns for a batch, [N, *shape] or a dict of such."""
        if not isinstance(self.observations, Parts):
            return self.choose(self.network(as_tensor(observation, self.observations)).numpy())
        if not isinstance(observation, Mapping) or set(observation) != set(self.observations.parts):
            raise ValueError(f"This policy takes observations named {', '.join(self.observations.parts)}.")
        seen = {name: as_tensor(observation[name], part) for name, part in self.observations.parts.items()}
        return self.choose(self.network(seen).numpy())


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
        return _stranger(str(path), saved, moments, notes)


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
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB.")
    with path.open("rb") as file:
        return file.read(size)  # no more, however it grows meanwhile


def _stranger(
    file: str, saved: Saved, statistics: Statistics | dict[str, Statistics] | None, notes: list[str]
) -> Stranger:
    choice, num_outputs = _choice(saved)
    if isinstance(saved.observations, Parts):
        live, make_graph = _of_parts(saved, saved.observations, statistics, num_outputs), _no_graph_of_parts
    else:
        live, make_graph = _of_one(saved, saved.observations, statistics, num_outputs, notes)
    if isinstance(saved.actions, Box) and saved.kind != "deterministic actor":
        notes.append("Actions are the mean of their distribution, as with `predict(deterministic=True)`.")
    return Stranger(
        file, saved.algo, live.eval(), choice, saved.observations, saved.actions, make_graph, saved.version,
        tuple(notes),
    )  # fmt: skip


def _of_one(
    saved: Saved, space: Part, statistics: Statistics | dict[str, Statistics] | None, num_outputs: int, notes: list[str]
) -> tuple[Live, Callable[[], Graph]]:
    """Return the network for observations of one space, and how to make its graph."""
    if saved.extractor == "combined":
        raise ValueError(f"its features extractor is for a Dict space, its observations are a {kind_of(space)} space.")
    shape = _shape(space)
    is_picture = isinstance(space, Box) and space.is_picture
    # A picture is turned to channels first before its space is stored; one that was not is known by the weights.
    maps = channels(saved.tensors) if saved.extractor == "nature" else None
    channels_last = len(shape) == 3 and maps is not None and shape[0] != maps == shape[-1]
    if saved.extractor == "nature" or is_picture and saved.extractor != "small grid":
        order = "last" if channels_last else "first, as VecTransposeImage turns them"
        notes.append(f"Pictures come with channels {order}: {list(shape)}.")
    if isinstance(space, Box) and space.low.dtype not in (np.uint8, np.float32):
        notes.append(f"Observations of {space.low.dtype} are given as float32, as the network is given them.")
    scaled = is_picture and saved.normalize_images
    moments = _fitting(statistics, space)
    acting = acting_layers(
        saved.kind,
        saved.tensors,
        (shape[-1], *shape[:-1]) if channels_last else shape,
        num_outputs,
        saved.activation,
        extractor=saved.extractor,
        clip_mean=saved.clip_mean,
    )
    _cross_check(saved, acting)

    def make_graph() -> Graph:
        if not isinstance(space, Box | MultiBinary):
            raise ValueError(f"its observations are a {kind_of(space)} space: it can act, but not be frozen.")
        picture_or_bits = isinstance(space, MultiBinary) or space.low.dtype == np.uint8
        return from_modules(
            acting.plain,
            shape,
            "uint8" if picture_or_bits else "float32",
            _head(saved),
            channels_last=channels_last,
            scale=1 / 255 if scaled else None,
            statistics=moments,
        )

    return Live(acting.live, space, moments, scaled=scaled, channels_last=channels_last), make_graph


def _of_parts(
    saved: Saved, space: Parts, statistics: Statistics | dict[str, Statistics] | None, num_outputs: int
) -> LiveParts:
    """Return the network for several observations at once."""
    if saved.extractor != "combined":
        raise ValueError("its observations are a Dict space, but its features extractor takes one array.")
    if isinstance(statistics, Statistics):
        raise ValueError("The statistics are of one observation, the policy takes several.")
    moments = statistics or {}
    if unknown := set(moments) - set(space.parts):
        raise ValueError(f"The statistics are of {ascii(min(unknown))[:80]}, which the policy does not take.")
    pictures = {name for name, part in space.parts.items() if _is_convolved(part, saved.normalize_images)}
    acting = acting_layers(
        saved.kind,
        saved.tensors,
        {name: _shape(part) for name, part in space.parts.items()},
        num_outputs,
        saved.activation,
        extractor=saved.extractor,
        clip_mean=saved.clip_mean,
        pictures=pictures,
    )
    _cross_check(saved, acting)
    parts = {}
    for name, part in space.parts.items():
        scaled = isinstance(part, Box) and part.is_picture and saved.normalize_images
        parts[name] = Live(acting.parts[name], part, _fitting(moments.get(name), part), scaled=scaled)
    return LiveParts(parts, acting.live)


def _no_graph_of_parts() -> Graph:
    raise ValueError("its observations are a Dict space: it can act, but frozen policies and games here have one.")


def _is_convolved(part: Part, normalize_images: bool) -> bool:
    """What CombinedExtractor gives a NatureCNN: pictures, and whatever has three axes where nothing is normalised."""
    return isinstance(part, Box) and (part.is_picture if normalize_images else len(part.shape) == 3)


def _shape(space: Part) -> tuple[int, ...]:
    """Return the shape in which a network sees observations, channels as in the space."""
    if isinstance(space, OtherSpace):
        raise ValueError(f"its observations are a {kind_of(space)} space, which is not supported.")
    if isinstance(space, DiscreteSpace | MultiDiscrete):
        return (num_entries(space),)
    if space.shape == ():
        raise ValueError("its observations are a single number without an axis.")
    return space.shape


def _fitting(statistics: Statistics | dict[str, Statistics] | None, space: Part) -> Statistics | None:
    if isinstance(statistics, dict):
        raise ValueError("The statistics are of several observations, the policy takes one.")
    if statistics is not None and not (isinstance(space, Box) and statistics.mean.shape == space.shape):
        taken = space.shape if isinstance(space, Box) else kind_of(space)
        raise ValueError(f"The statistics are of observations {statistics.mean.shape}, the policy takes {taken}.")
    return statistics


def _choice(saved: Saved) -> tuple[Choice, int]:
    """Return how outputs become actions, and how many outputs that takes."""
    space, actor_critic = saved.actions, saved.kind == "actor critic"
    match space:
        case DiscreteSpace(n=n, start=start) if actor_critic or saved.kind in ("action values", "quantiles"):
            if start != 0:
                raise ValueError(f"its actions start at {start}, not at 0.")
            return Choice(saved.kind, space, squashed=False), n
        case MultiDiscrete() if actor_critic:
            return Choice(saved.kind, space, squashed=False), num_entries(space)
        case MultiBinary(shape=(n,)) if actor_critic:
            return Choice(saved.kind, space, squashed=False), n
        case Box() if saved.kind not in ("action values", "quantiles") and space.shape:
            squashed = not actor_critic or saved.squash_output
            if squashed and not np.isfinite([space.low, space.high]).all():
                raise ValueError("its actions are squashed between limits that are not finite.")
            return Choice(saved.kind, space, squashed=squashed), math.prod(space.shape)
    raise ValueError(f"its actions are a {kind_of(space)} space, which is not supported for {saved.algo}.")


def _head(saved: Saved) -> Discrete | Continuous:
    """Return the same as the head of a graph."""
    space = saved.actions
    if isinstance(space, DiscreteSpace):
        return Discrete(space.n)
    if not isinstance(space, Box):
        raise ValueError(f"its actions are a {kind_of(space)} space: it can act, but not be frozen.")
    if len(space.shape) != 1 or space.low.dtype.kind != "f":
        raise ValueError(
            f"its actions are {space.low.dtype} {space.shape}: it can act, but only a list of real numbers be frozen."
        )
    largest = np.finfo(np.float32).max  # no limit at all, but a number
    low, high = (np.clip(limit, -largest, largest).astype(np.float32).tolist() for limit in (space.low, space.high))
    squashed = saved.kind != "actor critic" or saved.squash_output
    return Continuous(tuple(low), tuple(high), "tanh" if squashed else "clip")


def _cross_check(saved: Saved, acting: Acting) -> None:
    """Raise ValueError when the file says of its network something else than its tensors show."""
    if saved.widths is not None and saved.widths != acting.widths:
        raise ValueError(f"its net_arch says hidden layers of {saved.widths}, its tensors have {acting.widths}.")
    for features in acting.features:
        if saved.features != features:
            raise ValueError(f"its features_dim says {saved.features} features, its tensors have {features}.")
    if saved.kind == "quantiles" and saved.quantiles * acting.plain[-1].out_features != acting.rows:
        raise ValueError(f"its n_quantiles says {saved.quantiles}, but its last layer gives {acting.rows} numbers.")
