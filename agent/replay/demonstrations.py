"""Demonstrations: what a person played, one file per episode, written while it is played and checked when read.

A file is a safetensors file of `observation` [T + 1, *frame_shape], `action` i16 [T], `reward` f32 [T] (raw),
`terminated` and `truncated` bool [T]; its metadata hold one key, `demonstration`: the facts as JSON. docs/formats.md
describes both. Frames are stored as replay's film takes them: the newest of each stack, once.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from agent.durable import make_directory, remove_leftovers, sync_directory, write_new

FORMAT, VERSION, KEY = "icebox-demonstration", 1, "demonstration"
LONGEST = 216_000  # steps of one episode, an hour at 60 a second; what is played beyond is not kept
CHUNK_BYTES = 4 << 20
# name: (what safetensors calls its type, torch's type)
_STEPS = {
    "action": ("I16", torch.int16),
    "reward": ("F32", torch.float32),
    "terminated": ("BOOL", torch.bool),
    "truncated": ("BOOL", torch.bool),
}
_FRAMES = {"uint8": ("U8", torch.uint8), "float32": ("F32", torch.float32)}


class Game(Protocol):
    """What must be known of a game; envs/spec.py's GameSpec fits."""

    name: str
    observation_shape: tuple[int, ...]
    observation_dtype: str
    stack: int
    num_actions: int
    action_names: tuple[str, ...]
    frame_skip: int
    fps: float


def game_facts(game: Game, settings: Mapping[str, Any], versions: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what a demonstration says about its game; `settings` are those of the game's family, empty without one.

    ValueError when the game cannot be demonstrated: its actions are continuous, or an action is not what is played
    where a life was lost.
    """
    if not game.num_actions:
        raise ValueError(f"{game.name} has continuous actions: demonstrations are for games with buttons.")
    if settings.get("life_loss_ends"):
        raise ValueError("demonstrations are whole games: play them with life_loss_ends off, a run may have it on.")
    return {
        "game": game.name,
        "settings": dict(settings),
        "frame_shape": frame_shape(game),
        "dtype": game.observation_dtype,
        "stack": game.stack,
        "actions": list(game.action_names),
        "frame_skip": game.frame_skip,
        "steps_per_s": game.fps,
        "versions": dict(versions),
    }


def frame_shape(game: Game) -> list[int]:
    """Return the shape of what film stores of one observation: the newest frame of a stack."""
    return list(game.observation_shape[1:] if game.stack > 1 else game.observation_shape)


# --- writing ---------------------------------------------------------------------------------------------------------


class DemonstrationWriter:
    """Writes each episode of one game into a file of its own in `folder`, which appears once the episode is over.

    Frames go to a temporary file as they come, so that memory does not grow with the episode. An OSError, such as a
    full disk, drops the episode that is open and nothing else.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """`facts` are those of `game_facts`."""
        self.folder, self._facts = Path(folder), dict(facts)
        self._frame_shape = tuple(facts["frame_shape"])
        self._open: _Open | None = None

    def begin(self, observation: np.ndarray, seed: int | None) -> None:
        """Begin an episode with its first observation, [*observation_shape] or [1, *observation_shape].

        One that is still open is ended first, as `end` says.
        """
        self.end()
        make_directory(self.folder)
        remove_leftovers(self.folder)
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        frames = self.folder / f".{stem}.tmp"
        self._open = _Open(stem, seed, frames, open(frames, "xb"))  # noqa: SIM115: closed by `end` or `drop`
        self._write(observation)

    def step(
        self, action: int, reward: float, observation: np.ndarray, terminated: bool, truncated: bool
    ) -> Path | None:
        """Add what one action led to; return the finished file when the episode ended with it."""
        episode = self._open
        if episode is None:
            return None  # the episode was dropped, is over, or has not begun
        episode.steps.append((int(action), float(reward), bool(terminated), bool(truncated)))
        self._write(observation)
        over = terminated or truncated or len(episode.steps) >= LONGEST
        return self.end() if over else None

    def end(self) -> Path | None:
        """Finish the open episode and return its file, None when nothing was played.

        An episode that is not over is cut here: its last step is marked truncated, as replay does with open episodes.
        """
        episode = self._open
        if episode is None:
            return None
        if not episode.steps:
            self.drop()
            return None
        action, reward, terminated, truncated = episode.steps[-1]
        complete = terminated or truncated
        episode.steps[-1] = action, reward, terminated, truncated or not terminated
        path, temporary = self.folder / f"{episode.stem}.safetensors", self.folder / f".{episode.stem}.whole.tmp"
        try:
            episode.file.close()
            write_new(temporary, self._parts(episode, complete))
            os.replace(temporary, path)
            sync_directory(self.folder)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
            self.drop()
        return path

    def drop(self) -> None:
        """Forget the open episode."""
        episode, self._open = self._open, None
        if episode is not None:
            with suppress(OSError):
                episode.file.close()
            with suppress(OSError):
                os.unlink(episode.frames)

    def _write(self, observation: np.ndarray) -> None:
        stack = self._facts["stack"]
        whole = (stack, *self._frame_shape) if stack > 1 else self._frame_shape
        if np.shape(observation) not in (whole, (1, *whole)):
            self.drop()
            raise ValueError(f"An observation of shape {np.shape(observation)} is none of {self._facts['game']}.")
        newest = np.reshape(observation, (-1, *self._frame_shape))[-1]
        try:
            self._open.file.write(newest.astype(self._facts["dtype"]).tobytes())
        except OSError:
            self.drop()
            raise

    def _parts(self, episode: _Open, complete: bool) -> Iterator[bytes]:
        """The file part by part: header, frames, then an array for each of what is known of the steps."""
        count, dtype = len(episode.steps), self._facts["dtype"]
        columns = [list(column) for column in zip(*episode.steps, strict=True)]
        arrays = dict(zip(_STEPS, columns, strict=True))
        facts = {
            "format": FORMAT,
            "version": VERSION,
            **self._facts,
            "seed": episode.seed,
            "length": count,
            "score": float(np.sum(arrays["reward"])),
            "complete": complete,
            "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        shape = [count + 1, *self._frame_shape]
        end = int(np.prod(shape)) * np.dtype(dtype).itemsize
        header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(facts)}}
        header["observation"] = {"dtype": _FRAMES[dtype][0], "shape": shape, "data_offsets": [0, end]}
        data = []
        for name in ("reward", "action", "terminated", "truncated"):  # the widest first
            kind, torch_type = _STEPS[name]
            data.append(torch.tensor(arrays[name], dtype=torch_type).numpy().tobytes())
            header[name] = {"dtype": kind, "shape": [count], "data_offsets": [end, end + len(data[-1])]}
            end += len(data[-1])
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        yield struct.pack("<Q", len(text)) + text
        with open(episode.frames, "rb") as frames:
            while chunk := frames.read(CHUNK_BYTES):
                yield chunk
        yield from data


@dataclass
class _Open:
    """An episode that is being played."""

    stem: str
    seed: int | None
    frames: Path
    file: BinaryIO
    steps: list[tuple[int, float, bool, bool]] = field(default_factory=list)


# --- reading ---------------------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """The arrays of a demonstration, backed by its file."""

    observation: np.ndarray  # [T + 1, *frame_shape]
    action: np.ndarray  # i16 [T]
    reward: np.ndarray  # f32 [T], raw
    terminated: np.ndarray  # bool [T]
    truncated: np.ndarray  # bool [T]


class Demonstration(NamedTuple):
    """One checked file."""

    path: Path
    facts: Mapping[str, Any]

    def load(self) -> Played:
        """Return its arrays."""
        return _load(self.path)[1]


def read(path: Path) -> list[Demonstration]:
    """Return the demonstrations of a file or of a folder, by name, each checked.

    FileNotFoundError when there are none, ValueError naming the file that is damaged or none.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(each for each in path.glob("*.safetensors") if not each.name.startswith("."))
        if not files:
            raise FileNotFoundError(
                f"{path} holds no demonstrations (*.safetensors): the viewer keeps what you play in RUN/demonstrations."
            )
    elif path.is_file():
        files = [path]
    else:
        raise FileNotFoundError(f"{path} does not exist.")
    return [Demonstration(file, _load(file)[0]) for file in files]


def _load(path: Path) -> tuple[Mapping[str, Any], Played]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = _facts((file.metadata() or {}).get(KEY))
            if set(file.keys()) != {"observation", *_STEPS}:
                raise ValueError(f"its arrays are {', '.join(sorted(file.keys()))}.")
            tensors = {name: file.get_tensor(name) for name in ("observation", *_STEPS)}
        return facts, _checked(facts, tensors)
    except SafetensorError:
        raise ValueError(f"{path} is no demonstration: it is damaged, cut off or of another format.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no demonstration: {error}") from None


def _facts(text: str | None) -> Mapping[str, Any]:
    """Return the facts that a file's metadata hold, each of its type; ValueError says what is wrong."""
    if text is None:
        raise ValueError(f"its metadata have no {KEY!r}.")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its facts are not JSON.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"its facts do not say {FORMAT}.")
    if facts.get("version") != VERSION:
        raise ValueError(f"its version is {facts.get('version')!r:.40}, this Icebox reads {VERSION}.")
    kinds = {
        "game": str, "settings": dict, "frame_shape": list, "dtype": str, "stack": int, "actions": list,
        "frame_skip": int, "length": int, "score": (int, float),
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(facts.get(name), kind) or isinstance(facts[name], bool):
            raise ValueError(f"its fact {name!r} is missing or of another kind.")
    if not all(type(length) is int and length > 0 for length in facts["frame_shape"]):
        raise ValueError("its frame shape is none.")
    return facts


def _checked(facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Played:
    count, dtype = facts["length"], facts["dtype"]
    if not 1 <= count <= LONGEST:
        raise ValueError(f"its length is {count}, not 1 to {LONGEST}.")
    if dtype not in _FRAMES:
        raise ValueError(f"its frames are {dtype!r:.40}, not uint8 or float32.")
    wanted = {"observation": (_FRAMES[dtype][1], [count + 1, *facts["frame_shape"]])}
    wanted |= {name: (kind, [count]) for name, (_, kind) in _STEPS.items()}
    for name, (kind, shape) in wanted.items():
        if tensors[name].dtype != kind or list(tensors[name].shape) != shape:
            found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            raise ValueError(f"its {name} is {found}, its facts say {kind} {shape}.")
    played = Played(**{name: tensors[name].numpy() for name in wanted})
    if played.action.min() < 0 or played.action.max() >= len(facts["actions"]):
        raise ValueError(f"an action is none of its {len(facts['actions'])}.")
    if not np.isfinite(played.reward).all() or (dtype == "float32" and not np.isfinite(played.observation).all()):
        raise ValueError("a number in it is not finite.")
    ended = played.terminated | played.truncated
    if ended[:-1].any() or not ended[-1]:
        raise ValueError("the end of its episode is not its last step.")
    return played
