"""The plan against what is really allocated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from agent.config import Settings
from agent.memory import _control_group_free, estimate, free_memory, size
from agent.replay.replay import Replay

GIB = 2**30


class Game(NamedTuple):
    """What the plan must know of a game."""

    observation_shape: tuple[int, ...]
    observation_dtype: str
    stack: int


ATARI = Game((4, 84, 84), "uint8", 4)
MINATAR = Game((10, 10, 4), "uint8", 1)
LANDER = Game((8,), "float32", 1)
NETWORK = [torch.empty(1_000_000)]


def settings(
    capacity: int = 100_000, n_step: int = 3, num_games: int = 8, device: str = "auto", compression: str = "none"
) -> Settings:
    """Settings that differ from the defaults in what the plan looks at."""
    return Settings.model_validate(
        {
            "replay": {"capacity": capacity, "n_step": n_step, "device": device, "compression": compression},
            "game": {"num_games": num_games},
        }
    )


def plan(spec: Game, chosen: Settings, device: str = "cpu", **free: float):
    """A plan for a machine with that many GiB free."""
    return estimate(
        spec, chosen, parameters=NETWORK, device=device, free={name: int(gib * GIB) for name, gib in free.items()}
    )


@pytest.mark.parametrize(
    ("spec", "capacity", "n_step", "num_games"),
    [(ATARI, 3000, 3, 8), (LANDER, 100_000, 1, 8), (LANDER, 50_001, 10, 3), (MINATAR, 20_000, 3, 64)],
)
def test_agrees_with_what_replay_holds(spec: Game, capacity: int, n_step: int, num_games: int) -> None:
    """The plan's bytes are those of the real replay within one percent."""
    chosen = settings(capacity, n_step, num_games=num_games)
    replay = Replay(
        num_games=num_games,
        capacity=capacity,
        observation_shape=spec.observation_shape,
        observation_dtype=spec.observation_dtype,
        stack=spec.stack,
        n_step=n_step,
        discount=0.99,
        priority_exponent=0.5,
        reward_clip=None,
        generator=torch.Generator(),
        device="cpu",
    )
    assert plan(spec, chosen, cpu=8).replay_bytes == pytest.approx(replay.bytes, rel=0.01)


def test_a_million_atari_frames() -> None:
    """2^20 transitions of Atari stay under 7,300 bytes each."""
    found = plan(ATARI, settings(2**20), cpu=16)
    assert found.replay_bytes / 2**20 < 7_300
    assert found.replay_device == "cpu"


def test_replay_goes_to_the_gpu_if_it_fits() -> None:
    """auto follows the agent to the GPU, falls back to the host, and an explicit choice is kept."""
    big = settings(1_000_000)
    assert plan(ATARI, big, "cuda", cpu=16, cuda=24).replay_device == "cuda"
    assert plan(ATARI, big, "cuda", cpu=16, cuda=4).replay_device == "cpu"
    assert plan(ATARI, big, "cpu", cpu=16).replay_device == "cpu"
    assert plan(ATARI, settings(1_000_000, device="cpu"), "cuda", cpu=16, cuda=24).replay_device == "cpu"
    with pytest.raises(ValueError, match="on the GPU; 4.0 GiB are free"):
        plan(ATARI, settings(1_000_000, device="cuda"), "cuda", cpu=16, cuda=4)
    with pytest.raises(ValueError, match="--device cuda"):
        plan(ATARI, settings(1_000_000, device="cuda"), "cpu", cpu=16)


def test_a_compressed_replay() -> None:
    """It needs less than half, stays on the host whatever the GPU has, and is announced as a guess."""
    whole, compressed = settings(1_000_000), settings(1_000_000, compression="lz4")
    found = plan(ATARI, compressed, "cuda", cpu=16, cuda=24)
    assert found.replay_device == "cpu"
    assert 0.4 < found.replay_bytes / plan(ATARI, whole, cpu=16).replay_bytes < 0.5
    assert str(found).startswith("replay about 2.7 GiB on the host")
    with pytest.raises(ValueError, match="replay.capacity 1000000 needs about 2.7 GiB .* at most --replay.capacity"):
        plan(ATARI, compressed, cpu=2)
    with pytest.raises(ValueError, match="fits. With --replay.compression lz4 all of them need about 2.7 GiB"):
        plan(ATARI, whole, cpu=4)
    for spec, gib in ((LANDER, 0.03), (ATARI, 2)):  # no pictures; too many even so
        with pytest.raises(ValueError, match="capacity [0-9]+ fits.$"):
            plan(spec, whole, cpu=gib)


@pytest.mark.parametrize(("spec", "gib"), [(ATARI, 5.2), (ATARI, 0.5), (LANDER, 0.05)])
def test_the_remedy_fits(spec: Game, gib: float) -> None:
    """What does not fit is refused before it is allocated; the capacity that the error names fits, and is not timid."""
    with pytest.raises(ValueError, match="replay.capacity 10000000 needs") as caught:
        plan(spec, settings(10_000_000), cpu=gib)
    most = int(str(caught.value).rpartition("--replay.capacity ")[2].split()[0])
    assert plan(spec, settings(most), cpu=gib).replay_device == "cpu"
    with pytest.raises(ValueError):
        plan(spec, settings(int(most * 1.15)), cpu=gib)


def test_too_little_for_anything_is_said() -> None:
    """Where not even the networks, or one batch, fit, the error says so instead of naming a capacity."""
    with pytest.raises(ValueError, match="networks and batches need"):
        plan(ATARI, settings(), cpu=0.01)
    with pytest.raises(ValueError, match="not even one batch"):
        plan(ATARI, settings(100_000, num_games=256, n_step=5), cpu=0.05)


def test_the_line_for_the_launcher() -> None:
    """The plan reads as one line with units."""
    line = str(plan(ATARI, settings(1_000_000), "cuda", cpu=16, cuda=4))
    assert line == "replay up to 6.6 GiB on the host (16.0 GiB free), learning 36 MiB on the GPU (4.0 GiB free)"
    line = str(plan(ATARI, settings(1_000_000), cpu=16))
    assert line == "replay up to 6.6 GiB and learning 36 MiB on the host (16.0 GiB free)"
    assert [size(n) for n in (5, 2048, 3 * 2**20, 5.25 * GIB)] == ["5 B", "2 KiB", "3 MiB", "5.2 GiB"]


def test_a_container_has_less_than_its_host(tmp_path: Path) -> None:
    """The limit of a control group counts, of either version, and what it holds as page cache is free."""
    assert _control_group_free(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    (tmp_path / "memory.stat").write_text("anon 60\ninactive_file 30\n")
    assert _control_group_free(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert _control_group_free(tmp_path) == 930
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("500\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("400\n")
    (tmp_path / "memory/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 50\n")
    assert _control_group_free(tmp_path) == 150


def test_this_machine_has_free_memory() -> None:
    """Looked up, not given, the free memory of the host is a number of bytes above zero."""
    free = free_memory("cpu")
    assert list(free) == ["cpu"] and isinstance(free["cpu"], int) and free["cpu"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_freed_memory_is_kept() -> None:
    """A block that is allocated again and again is cleared by the system once and not every time."""
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from agent.memory import keep_freed_memory\n"
        "assert sys.argv[1] == 'no' or keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def use(): a = np.ones(40 << 20, np.uint8); b = np.ones(40 << 20, np.uint8)\n"
        "use(); before = faults(); use(); use(); print(faults() - before)\n"
    )
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", code, asked], capture_output=True, text=True, check=True).stdout)
        for asked in ("yes", "no")
    )
    assert kept < returned / 10
