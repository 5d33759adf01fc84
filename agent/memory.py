"""What a run will need on the host and on the GPU, and where replay goes, known before anything is allocated."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import psutil
import torch

from agent.config import LEAST_COMPRESSED, Settings

# Of a row of replay, without its frame: action 2, reward 4, two ends 2, history 1, on the host valid 1; of the sum tree
# a leaf 8 and, per 64 leaves, a sum and a running sum.
ROW_BYTES = 18.25
# Of a compressed row: where its block lies. Of its frame: the most that LZ4 left of 23 Atari games (Up 'n Down 0.38,
# Ms. Pac-Man 0.28, Pong 0.04); noise would stay whole. Of each game: pages that are being filled and emptied.
PLACE_BYTES = 12
COMPRESSED_SHARE = 0.4
PAGES_BYTES = 3 << 18
# Of every weight: online and target network, gradient, Adam's two moments.
COPIES_OF_WEIGHTS = 5
# Kept free on each device: activations, workspaces, the evaluation's games, other programs.
RESERVE = 0.1
# Of glibc's malloc.h; and the size of a block, and of free memory, from which on it goes back to the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT_BYTES = -1, -3, 1 << 30
PLACES = {"cpu": "on the host", "cuda": "on the GPU"}
# (limit, usage, page cache that counts as usage) of the control group, version 2 and version 1.
CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


class Observed(Protocol):
    """What must be known of a game; envs/spec.py's GameSpec fits."""

    observation_shape: tuple[int, ...]
    observation_dtype: str
    stack: int


class MemoryPlan(NamedTuple):
    """Where replay goes and what is needed; `str` is a line for the launcher."""

    replay_device: str  # "cpu" or "cuda"
    replay_bytes: int
    network_device: str
    network_bytes: int  # weights, target, gradients, optimizer, batches
    free: Mapping[str, int]  # bytes, by device
    bound: str = "up to"  # how sure `replay_bytes` is: "about" when it depends on the pictures

    def __str__(self) -> str:
        """Say it in words."""
        replay, network = size(self.replay_bytes), size(self.network_bytes)
        if self.replay_device == self.network_device:
            return f"replay {self.bound} {replay} and learning {network} {self._place(self.replay_device)}"
        return (
            f"replay {self.bound} {replay} {self._place(self.replay_device)}, "
            f"learning {network} {self._place(self.network_device)}"
        )

    def _place(self, device: str) -> str:
        return f"{PLACES[device]} ({size(self.free[device])} free)"


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def estimate(
    spec: Observed,
    settings: Settings,
    *,
    parameters: Iterable[torch.Tensor],
    device: torch.device | str,
    free: Mapping[str, int] | None = None,
) -> MemoryPlan:
    """Return what a run of these settings needs when its replay is full; `parameters` are the network's.

    `device` is the agent's. Replay set to `auto` lies there if it fits, else on the host. `free` is the free memory in
    bytes by device ("cpu", "cuda"); None: looked up. Raises ValueError with a remedy when it does not fit.
    """
    device = torch.device(device).type
    compressed = settings.replay.compression != "none"
    free = free_memory(device) if free is None else free
    wanted = settings.replay.device
    if wanted == "cuda" and device != "cuda":
        raise ValueError("replay.device cuda needs the agent on the GPU too: --device cuda, or --replay.device auto.")
    replay = replay_bytes(spec, settings, settings.replay.capacity)
    elements = math.prod(spec.observation_shape)
    # Observations before and after, as stored and as float32, twice for what is kept for the gradient.
    batch = 4 * settings.learner.batch_size * elements * (np.dtype(spec.observation_dtype).itemsize + 4)
    copies = COPIES_OF_WEIGHTS + (settings.learner.average_updates is not None)
    network = copies * sum(weight.nbytes for weight in parameters) + batch
    places = ["cpu"] if compressed else [device, "cpu"] if wanted == "auto" else [wanted]
    for place in places:
        room = {where: int(there * (1.0 - RESERVE)) for where, there in free.items()}
        room[device] -= network
        if room[device] < 0:
            raise ValueError(
                f"The networks and batches need {size(network)} {PLACES[device]}; {size(free[device])} are free, "
                f"{RESERVE:.0%} of which are kept in reserve: choose a smaller learner.batch_size or network."
            )
        if replay <= room[place]:
            return MemoryPlan(place, replay, device, network, dict(free), "about" if compressed else "up to")
    raise ValueError(
        f"replay.capacity {settings.replay.capacity} needs {'about ' * compressed}{size(replay)} {PLACES[place]}; "
        f"{size(free[place])} are free, {size(free[place] - room[place])} of which are needed otherwise: "
        + _remedy(spec, settings, room[place])
    )


def _remedy(spec: Observed, settings: Settings, room: int) -> str:
    empty = replay_bytes(spec, settings, 0)
    row = (replay_bytes(spec, settings, 1000 * settings.game.num_games) - empty) / (1000 * settings.game.num_games)
    most = int((room - empty) / row) - settings.game.num_games  # a part of a row per game is a row per game
    most -= most % 10 ** max(0, len(str(most)) - 2)
    if most < settings.learner.batch_size:
        return "not even one batch would fit. Close other programs or use a larger machine."
    remedy = f"at most --replay.capacity {most} fits."
    replay = settings.replay
    if compressible(spec, settings) and replay.device != "cuda":
        compressed = settings.model_copy(update={"replay": replay.model_copy(update={"compression": "lz4"})})
        less = replay_bytes(spec, compressed, replay.capacity)
        if less <= room:
            remedy += f" With --replay.compression lz4 all of them need about {size(less)}."
    return remedy


def compressible(spec: Observed, settings: Settings) -> bool:
    """Return whether replay holds pictures that are not compressed and would be much smaller if they were."""
    pictures = spec.observation_dtype == "uint8" and _frame_bytes(spec) >= LEAST_COMPRESSED
    return pictures and settings.replay.compression == "none"


def replay_bytes(spec: Observed, settings: Settings, capacity: int) -> int:
    """Return what a full replay of `capacity` transitions holds; equals `Replay.bytes` within a percent.

    Compressed, it depends on the pictures: then it is more than Atari games were seen to need, and no limit.
    """
    games = settings.game.num_games
    rows = games * (-(-capacity // games) + spec.stack - 1 + settings.replay.n_step)
    frame = _frame_bytes(spec)
    if settings.replay.compression == "none":
        return int(rows * (frame + ROW_BYTES))
    return int(rows * (COMPRESSED_SHARE * frame + PLACE_BYTES + ROW_BYTES) + games * PAGES_BYTES)


def _frame_bytes(spec: Observed) -> int:
    return math.prod(spec.observation_shape) // spec.stack * np.dtype(spec.observation_dtype).itemsize


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees for its next allocation; return False where that cannot be asked for.

    By default glibc gives large blocks back at once. An update of a convolutional network on the CPU allocates and
    frees the same tens of MiB every time, and each page of them is then cleared anew by the system: a sixth of its time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def free_memory(device: str) -> dict[str, int]:
    """Return the free bytes on the host, within this control group's limit, and on the GPU if `device` is "cuda"."""
    free = {"cpu": min(psutil.virtual_memory().available, _control_group_free(Path("/sys/fs/cgroup")))}
    if device == "cuda":
        free["cuda"] = torch.cuda.mem_get_info()[0]
    return free


def _control_group_free(root: Path) -> float:
    """What a container may still take; infinity where there is no limit."""
    for limit, usage, statistics, cache in CGROUPS:
        try:
            left = int((root / limit).read_text()) - int((root / usage).read_text())
            cached = dict(line.split() for line in (root / statistics).read_text().splitlines())[cache]
            return max(0, left + int(cached))
        except (OSError, ValueError, KeyError):  # not this version, or the limit reads "max"
            continue
    return math.inf
