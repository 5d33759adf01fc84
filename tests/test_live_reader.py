"""Tests of agent/viewer/live_reader.py: a viewer reads what there is, and is told when nobody is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.viewer.live_reader import LiveReader
from agent.viewer.requests import Requests
from agent.viewer.slot import SlotWriter, pack


def test_without_a_trainer_there_is_nothing(tmp_path: Path) -> None:
    """Reading gives None, watching leaves nothing behind, and asking says that nobody trains."""
    live = LiveReader(tmp_path)
    assert live.read() is None and live.weights() is None and not live.alive
    live.watch()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="Nobody trains in"):
        live.ask("pause")


def test_it_outlives_trainers(tmp_path: Path) -> None:
    """One reader reads what one trainer after the other publishes, and its requests reach the one that is there."""
    live = LiveReader(tmp_path)
    for life in range(3):
        asked = Requests(tmp_path / "live" / "requests")
        now, weights = (SlotWriter(tmp_path / "live" / name) for name in ("now.slot", "weights.slot"))
        now.write(*pack({"steps": life}, {"picture": np.full((2, 2, 3), life, np.uint8)}))
        weights.write(*pack({"updates": life}, {"weights": np.full(5, life, np.float32)}))
        meta, arrays = live.read()
        assert meta == {"steps": life} and arrays["picture"].sum() == 12 * life and live.read() is None
        meta, flat = live.weights()
        assert meta == {"updates": life} and flat.tolist() == [life] * 5 and live.alive
        live.watch()
        assert (live.folder / "watched").exists()
        number = live.ask("pause")
        assert asked.next() == (number, "pause")
        for slot in (now, weights):
            slot.close()
        assert live.read() is None and not live.alive
    live.close()


def test_what_is_no_packet_is_not_read(tmp_path: Path) -> None:
    """A slot that holds something else is as good as empty, and weights without weights are none."""
    (tmp_path / "live").mkdir()
    live = LiveReader(tmp_path)
    now, weights = (SlotWriter(tmp_path / "live" / name) for name in ("now.slot", "weights.slot"))
    now.write(b"something else entirely")
    weights.write(*pack({"updates": 1}, {"other": np.zeros(3)}))
    assert live.read() is None and live.weights() is None
    now.write(*pack({"steps": 1}, {}))
    assert live.read() == ({"steps": 1}, {})
