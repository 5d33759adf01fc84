"""Tests of agent/telemetry/machine.py."""

import mmap

import numpy as np
import psutil
import pytest
import torch

from agent.telemetry.machine import Machine
from agent.telemetry.tags import TAGS


def test_host_memory_is_this_processs() -> None:
    """Memory that is written to appears in the figure, in GiB; a process that uses no GPU says nothing about one."""
    machine = Machine()
    before = machine.figures()["machine/host_memory_gib"]
    held = mmap.mmap(-1, 2**28)  # a quarter of a GiB, fresh: an array may lie in memory that was freed and kept
    np.frombuffer(held, np.uint8)[:] = 1
    after = machine.figures()["machine/host_memory_gib"]
    assert 0.2 < after - before < 0.4 and held[-1] == 1
    assert after == pytest.approx(psutil.Process().memory_info().rss / 2**30, rel=0.1)
    if not torch.cuda.is_initialized():
        assert set(machine.figures()) == {"machine/host_memory_gib"}


@pytest.mark.gpu
def test_a_gpu_in_use_tells_its_memory_and_how_busy_it_is() -> None:
    """On a GPU its memory is what torch holds, and while it computes its utilisation is above 0."""
    held = torch.ones(2**28, dtype=torch.uint8, device="cuda")
    machine = Machine()
    assert machine.figures()["machine/gpu_memory_gib"] >= 0.25 and held.any()
    x = torch.randn(4096, 4096, device="cuda")
    busy = []
    for _ in range(60):
        for _ in range(20):
            x = torch.tanh(x @ x)
        torch.cuda.synchronize()
        busy.append(machine.figures().get("machine/gpu_utilisation", 1.0))
    assert 0.0 < max(busy) <= 1.0
    assert set(machine.figures()) <= set(TAGS)
