"""The viewer's side of RUN/live: what the trainer publishes, and how to ask it for something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from agent.viewer.requests import ask
from agent.viewer.slot import SlotReader, unpack


class LiveReader:
    """Reads what the process that trains in `run_folder` publishes; nothing here waits for it or disturbs it.

    It may be made before that process starts and outlive it: without one there is simply nothing to read. One reader is
    one thread's; several of them do not know of each other.
    """

    def __init__(self, run_folder: Path):
        self.folder = Path(run_folder) / "live"
        self._now, self._weights = SlotReader(self.folder / "now.slot"), SlotReader(self.folder / "weights.slot")

    @property
    def alive(self) -> bool:
        """Whether a trainer has its slot there: it removes it when it ends. One that was killed leaves it."""
        return (self.folder / "now.slot").exists()

    def read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return the newest publication, (meta, arrays of its scene), None when it was read before or there is none.

        `meta["scene"]` is None where there is no picture: in the first second, or where the game cannot give one.
        """
        return _unpacked(self._now)

    def weights(self) -> tuple[dict[str, Any], np.ndarray] | None:
        """Return the newest weights, ({"updates", "steps"}, f32 [P] for `put_weights`), None when there are none new."""
        found = _unpacked(self._weights)
        if found is None or "weights" not in found[1]:
            return None
        return found[0], found[1]["weights"]

    def watch(self) -> None:
        """Say that somebody looks; at least every 2 seconds while anybody does, or pictures and weights cease."""
        if self.alive:
            try:
                (self.folder / "watched").touch()
            except OSError:  # another user's run: figures are what there is
                pass

    def ask(self, what: str) -> int:
        """Ask the trainer for one of `agent.viewer.requests.WHATS`; return the id that its acknowledgement will name.

        `meta["acknowledged"]` is {"id", "ok", "said"} of the request that was answered last; of several requests each is
        answered 0.1 s after the other. OSError when nobody trains here or it is another user's run.
        """
        if not self.alive:
            raise FileNotFoundError(f"Nobody trains in {os.fspath(self.folder.parent)} now.")
        return ask(self.folder / "requests", what)

    def close(self) -> None:
        """Close the files; reading opens them again."""
        self._now.close()
        self._weights.close()


def _unpacked(slot: SlotReader) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    packet = slot.read()
    if packet is None:
        return None
    try:
        return unpack(packet)
    except ValueError:  # not written by this program
        return None
