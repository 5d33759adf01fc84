"""Stand-ins for what a room of the viewer is made of: a game that counts, a policy that knows, a recorder that keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from agent.viewer.hub import Client, Hub
from agent.viewer.packet import unpack
from agent.viewer.policies import Facts


class CountingGame:
    """Its observation is (seed, step), its reward the action, its picture's red the step; it ends after `length` steps."""

    def __init__(self, seed: int, *, length: int = 1000, steps_per_s: float = 40.0, pictures: int = 1) -> None:
        self.spec = SimpleNamespace(name="counting", num_actions=3, action_names=("idle", "left", "right"))
        self.length, self.steps_per_s, self.pictures = length, steps_per_s, pictures
        self.actions: list[int] = []
        self.stepped_at: list[float] = []
        self.seeds: list[int | None] = []
        self.closed = False
        self.restart(seed)

    def restart(self, seed: int | None = None) -> None:
        self.seed, self.t = seed, 0
        self.seeds.append(seed)

    @property
    def observation(self) -> np.ndarray:
        return np.array([[self.seed, self.t]], np.float32)

    @property
    def picture(self) -> np.ndarray:
        return np.full((4, 6, 3), self.t % 256, np.uint8)

    def step(self, action: int) -> tuple[list[np.ndarray], float, bool, bool]:
        self.t += 1
        self.actions.append(action)
        self.stepped_at.append(time.monotonic())
        return [self.picture] * self.pictures, float(action), self.t >= self.length, False

    def close(self) -> None:
        self.closed = True


class KnowingPolicy:
    """Values are (0, t, 1): at step 0 it takes action 2, later action 1."""

    network = None

    def __init__(self, *, discount: float | None = 0.5, reward_clip: float | None = None, updates: int | None = 10) -> None:
        self.facts = Facts("knows", "values", discount, reward_clip, updates)
        self.asked = 0

    def scores(self, observations: np.ndarray) -> np.ndarray:
        t = observations[:, 1]
        return np.stack([0 * t, t, 0 * t + 1], axis=1).astype(np.float64)

    def q(self, observation: np.ndarray) -> tuple[np.ndarray, int]:
        self.asked += 1
        values = self.scores(observation)[0]
        return values, int(values.argmax())

    def refresh(self) -> None:
        pass


class Keeper:
    """A recorder."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.ended: list[tuple[Any, ...]] = []
        self.dropped = 0

    def add(self, room: str, packet: bytes) -> None:
        self.packets.append(packet)

    def drop(self, room: str) -> None:
        self.dropped += 1

    def end(self, *facts: Any, **more: Any) -> None:
        self.ended.append(facts)


class Seen(Hub):
    """A hub in which somebody looks at everything, or nothing, and which keeps what it is offered."""

    def __init__(self, looked: bool = True) -> None:
        super().__init__()
        self.open = looked
        self.metas: list[dict[str, Any]] = []
        self.offered_at: list[float] = []

    def looked(self, room: str) -> bool:
        return self.open

    def offer(self, room: str, meta: Any, picture: np.ndarray, saliency: bytes = b"") -> Any:
        frame = super().offer(room, meta, picture, saliency)
        self.offered_at.append(time.monotonic())
        self.metas.append({**unpack(frame.packet())[0], "red": int(picture[0, 0, 0])})
        return frame


def eventually(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return what `true` returns once it is true; AssertionError when it does not become so."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return found


def told(client: Client) -> list[Any]:
    """Everything that a client would be sent now, texts as they are and packets as their meta."""
    found = []
    while (message := client._next()) is not None:
        found.append(message if isinstance(message, str) else unpack(message)[0])
    return found
