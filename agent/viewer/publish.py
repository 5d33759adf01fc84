"""Publishes what a run is doing into RUN/live, for whoever looks: rates, pictures and weights only when watched.

A publication shows game 0 at the moment in which an action was chosen: the picture, the values of all actions, the
action, the reward that followed, and how wrong the values were about it. For that the next moment's values are needed,
so it goes out two steps late.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.telemetry.rates import Rates
from agent.types import Tick
from agent.viewer.slot import SlotWriter, pack
from envs.scenes import Scene

FIGURES_S = 1.0
UNSEEN_S = 10.0  # the same while nobody watches
LOOK_S = 0.25  # between two looks whether anybody watches
WATCHED_S = 3.0  # so long after the viewer's last sign
PICTURES_PER_S = 30.0
PICTURES_SHARE, WEIGHTS_SHARE = 0.006, 0.001  # of the wall time, at most, and only while somebody watches
WEIGHTS_S = 1.0
SMOOTHING = 0.1  # of the newest second in the speed that the remaining time is told from

Thought = tuple[np.ndarray, torch.Tensor]  # observations [B, *shape] and the values that they were answered with [B, A]


def flat_weights(network: torch.nn.Module) -> np.ndarray:
    """Return all that `network` holds as f32 [P], in the order of its state."""
    state = network.state_dict().values()
    return torch.cat([part.detach().reshape(-1).float() for part in state]).cpu().numpy()


@torch.no_grad()
def put_weights(network: torch.nn.Module, flat: np.ndarray) -> None:
    """Write into `network`, in place, what `flat_weights` took from one like it; ValueError when it is of another."""
    state = network.state_dict()
    size = sum(part.numel() for part in state.values())
    if flat.shape != (size,):
        raise ValueError(f"The weights are of another network: {flat.size:,} numbers, this one has {size:,}.")
    start = 0
    for name, part in state.items():
        values = torch.from_numpy(flat[start : start + part.numel()].copy())
        state[name] = values.reshape(part.shape).to(part.dtype)
        start += part.numel()
    network.load_state_dict(state)


class Moment:
    """One moment of game 0, from its picture until all that is told about it is known."""

    def __init__(self, scene: Scene | None, observation: np.ndarray, about: dict[str, Any]):
        """`observation` is the very array that the actor is given, by which its answer is known."""
        self.scene = scene
        self.about = about | {"action": None, "q": None, "td_error": None, "reward": None}
        self.done = about["ended"]  # no action follows the end of an episode
        self._observation = observation
        self._following: np.ndarray | None = None
        self._values: list[float] | None = None
        self.cost_s = 0.0
        self._reward = self._discount = 0.0  # as they are learned from

    def hear(self, thought: Thought | None) -> None:
        """Take the values, if they are of this moment or of the one that followed."""
        if thought is None or self.done:
            return
        observation, values = thought
        if observation is self._observation:
            self._values = values[0].tolist()
        elif observation is self._following:
            self._settle(max(values[0].tolist()))

    def follow(self, tick: Tick, discount: float, reward_clip: float | None) -> None:
        """Take the tick after this moment, and then the one after that, with which it is done in any case."""
        if self.done or self._following is not None:
            self.done = True
            return
        step = tick.step
        self._following = step.observation
        reward = float(step.reward[0])
        self._reward = reward if reward_clip is None else min(max(reward, -reward_clip), reward_clip)
        self._discount = discount
        self.about["reward"] = _finite(reward)
        if tick.action is not None:
            self.about["action"] = np.asarray(tick.action[0]).tolist()
        if self._values is None:
            self.done = True
            return
        self.about["q"] = [_finite(value) for value in self._values]
        if step.terminated[0]:
            self._settle(0.0)

    def _settle(self, best: float) -> None:
        value = self._values[self.about["action"]]
        self.about["td_error"] = _finite(self._reward + self._discount * best - value)
        self.done = True


class Publisher:
    """Consumes the ticks of a run and publishes into `folder` (RUN/live).

    `start` is where the run stands, in environment steps and updates. `scene` is what game 0 is drawn from, `figures`
    gives what else is told once a second, as JSON's values; `network` is whose weights are published. It
    measures what it costs and spaces what it does accordingly. Whatever goes wrong here costs the viewer, which `warn`
    is told once, and never the run.
    """

    def __init__(
        self,
        folder: Path,
        rates: Rates,
        start: tuple[int, int],
        total_steps: int,
        *,
        scene: Callable[[], Scene],
        figures: Callable[[], Mapping[str, Any]],
        network: torch.nn.Module | None,
        discount: Callable[[int], float],
        reward_clip: float | None,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.folder, self.mode = folder, "training"
        self._rates, self._total_steps = rates, total_steps
        self._scene: Callable[[], Scene] | None = scene
        self._more, self._network = figures, network
        self._discount, self._reward_clip = discount, reward_clip
        self._warn, self._clock = warn, clock
        self._open, self._begun = True, False  # a tick has come
        self._now: SlotWriter | None = None
        self._weights: SlotWriter | None = None
        self._pending: list[Moment] = []
        self._shown: Moment | None = None
        self._acknowledged: dict[str, Any] | None = None
        self._measured: dict[str, Any] = {}  # of the last second with a tick in it
        self._speed: float | None = None
        self._figures = b"{}"
        self._steps, self._updates = start
        self._pictures = 0
        self._episode, self._score, self._length = 0, 0.0, 0
        self._sign: int | None = None  # the viewer's last, as the file's time of change
        self._watched_until = self._next_look = self._next_figures = -math.inf
        self._next_picture = self._next_weights = -math.inf
        self._weights_at = -1
        self._costs_s: deque[float] = deque(maxlen=15)  # of a picture each
        with self._spared():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "watched").unlink(missing_ok=True)  # by a viewer of an earlier process
            self._now, self._weights = SlotWriter(folder / "now.slot"), SlotWriter(folder / "weights.slot")

    @contextmanager
    def _spared(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - an onlooker's misfortune is never the run's
            self.close()
            self._warn(f"Nobody can look at this run any more, training goes on: {error}")

    def passes(self, tick: Tick) -> bool:
        """Count a tick of which nothing is to be told, and say so; else do nothing: it is for `tick` then.

        What nobody looks at is to cost next to nothing, and a tick may take but a fraction of a millisecond.
        """
        if self._pending or (now := self._clock()) >= self._next_look or now < self._watched_until:
            return False
        self._count(tick)
        return True

    def _count(self, tick: Tick) -> None:
        step = tick.step
        if step.first[0]:
            self._begin()
        else:
            self._score += float(step.reward[0])
            self._length += 1
        self._steps, self._updates, self._begun = tick.steps, tick.updates, True

    def tick(self, tick: Tick, thought: Thought | None, *, restarted: bool = False) -> None:
        """Take one turn of the loop; `thought` is what the actor was asked last, and answered.

        `restarted`: the games were started anew since.
        """
        if not self._open:
            return
        self._count(tick)
        now = self._clock()
        watched = now < self._watched_until
        if watched and self.mode == "training":
            self._rates.add(tick)
        with self._spared():
            if self._pending:
                self._go_on(tick, thought)
            if restarted:
                self.restarted()
            elif watched and now >= self._next_picture:
                self._begin_picture(tick, thought)
            if now >= self._next_look:
                self._look(now)

    def switch(self, mode: str) -> None:
        """Take it that another mode holds from now on; what is not yet told of the one before is dropped."""
        self.mode = mode
        self._pending.clear()

    def restarted(self) -> None:
        """Take it that the games were started anew since the last tick."""
        self._begin()
        self._pending.clear()

    def breathe(self) -> None:
        """Publish what is due where no tick comes: the run is paused, or judged."""
        now = self._clock()
        if self._open and now >= self._next_look:
            with self._spared():
                self._look(now)
                if self._begun and self._shown is None and not self._pending and now < self._watched_until:
                    self._shown = Moment(self._drawn(), np.empty(0), self._about(ended=False))
                    self._publish()

    def acknowledge(self, number: int, ok: bool, said: str) -> None:
        """Publish at once what came of a request, and the mode that holds now."""
        self._acknowledged = {"id": number, "ok": ok, "said": said}
        if self._open:
            with self._spared():
                self._publish_figures(self._clock())

    def close(self) -> None:
        """Remove what was published: the run has ended, or cannot be looked at. A second call does nothing."""
        self._open = False
        for slot in (self._now, self._weights):
            if slot is not None:
                slot.close()
        self._now = self._weights = None

    # --- what is due -------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        self._next_look = now + LOOK_S
        try:
            sign = os.stat(self.folder / "watched").st_mtime_ns
        except OSError:
            sign = self._sign
        if sign != self._sign:
            if now >= self._watched_until:  # the first sign: who looks is told at once
                self._rates.skip(self._steps, self._updates)
                self._speed, self._next_figures = None, now
            self._sign, self._watched_until = sign, now + WATCHED_S
        if now >= self._next_figures:
            self._publish_figures(now)
        if now < self._watched_until and now >= self._next_weights and self._updates != self._weights_at:
            self._publish_weights(now)

    def _publish_figures(self, now: float) -> None:
        watched = now < self._watched_until
        self._next_figures = now + (FIGURES_S if watched else UNSEEN_S)
        if watched:
            self._measure()
        else:
            self._shown, self._measured, self._speed = None, {}, None
            self._pending.clear()
        training = self.mode == "training"
        speed = self._speed if training else None
        figures = {
            "total_steps": self._total_steps,
            "mode": self.mode,
            "steps_per_s": self._measured.get("time/steps_per_s", 0.0) if training else 0.0,
            "updates_per_s": self._measured.get("time/updates_per_s", 0.0) if training else 0.0,
            "shares": self._shares(),
            "memory_gib": self._measured.get("machine/host_memory_gib"),
            "act_ms": self._measured.get("time/act_latency_p50") or None,
            "eta_s": max(0, self._total_steps - self._steps) / speed if speed else None,
            "acknowledged": self._acknowledged,
            **self._more(),
        }
        self._figures = _JSON(figures).encode()
        self._publish()

    def _measure(self) -> None:
        taken = self._rates.take()
        if not taken:
            return
        self._measured = taken
        newest = taken["time/steps_per_s"]
        if self.mode == "training" and newest > 0.0:
            self._speed = newest if self._speed is None else self._speed + SMOOTHING * (newest - self._speed)

    def _shares(self) -> dict[str, float] | None:
        """Return the phases' shares, None where nobody measures them: stable-baselines3's loop is its own."""
        shares = {tag.removeprefix("time/share_"): value for tag, value in self._measured.items() if "/share_" in tag}
        return shares if shares.get("other", 1.0) < 1.0 else None

    def _publish_weights(self, now: float) -> None:
        if self._network is None:
            return
        self._weights_at = self._updates
        meta = {"updates": self._updates, "steps": self._steps}
        self._weights.write(*pack(meta, {"weights": flat_weights(self._network)}))
        self._next_weights = now + max(WEIGHTS_S, (self._clock() - now) / WEIGHTS_SHARE)

    # --- game 0 ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._episode, self._score, self._length = self._episode + 1, 0.0, 0

    def _begin_picture(self, tick: Tick, thought: Thought | None) -> None:
        begun = self._clock()
        step = tick.step
        about = self._about(ended=bool(step.terminated[0] or step.truncated[0]))
        moment = Moment(self._drawn(), step.observation, about)
        moment.hear(thought)  # a game by the clock is answered before its tick
        self._pending.append(moment)
        # Typical costs, not the newest: whoever is interrupted by another process has not spent that.
        typical_s = sorted(self._costs_s)[len(self._costs_s) // 2] if self._costs_s else 0.0
        self._next_picture = begun + max(1.0 / PICTURES_PER_S, typical_s / PICTURES_SHARE)
        moment.cost_s = self._clock() - begun
        if moment.done:
            self._publish_done()

    def _drawn(self) -> Scene | None:
        if self._scene is None:
            return None
        try:
            return self._scene()
        except Exception as error:  # noqa: BLE001 - whatever a game's own drawing raises
            self._scene = None
            self._warn(f"Game 0 of this run cannot be shown, its figures can: {error}")
            return None

    def _about(self, *, ended: bool) -> dict[str, Any]:
        self._pictures += 1
        known = {"picture": self._pictures, "episode": self._episode, "step": self._length}
        return known | {"score": _finite(self._score), "ended": ended}

    def _go_on(self, tick: Tick, thought: Thought | None) -> None:
        """Tell the moments what came after them, and publish those of which all is known."""
        discount = self._discount(tick.steps)
        for moment in self._pending:
            begun = self._clock()
            moment.hear(thought)
            moment.follow(tick, discount, self._reward_clip)
            moment.hear(thought)
            moment.cost_s += self._clock() - begun
        self._publish_done()

    def _publish_done(self) -> None:
        while self._pending and self._pending[0].done:
            begun = self._clock()
            moment = self._shown = self._pending.pop(0)
            self._publish()
            if moment.about["picture"] > 1:  # the first of all takes longer
                self._costs_s.append(moment.cost_s + self._clock() - begun)

    def _publish(self) -> None:
        """Write the figures and the newest moment of which all is known."""
        shown = self._shown
        scene = None if shown is None else shown.scene
        told = {
            "steps": self._steps,
            "updates": self._updates,
            "time": time.time(),
            "scene": None if scene is None else {"kind": scene.kind, "facts": scene.facts},
            **(self._unseen() if shown is None else shown.about),
        }
        meta = self._figures[:-1] + b", " + _JSON(told).encode()[1:]
        self._now.write(*pack(meta, {} if scene is None else scene.arrays))

    def _unseen(self) -> dict[str, Any]:
        """What is told about game 0 while nobody watches."""
        known = {"picture": self._pictures, "episode": self._episode, "step": self._length}
        known |= {"score": _finite(self._score), "ended": False}
        return known | {"action": None, "q": None, "td_error": None, "reward": None}


def _finite(value: Any) -> Any:
    """Return a number as JSON knows it: None for one that is not finite; TypeError for what is no number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    raise TypeError(f"{type(value).__name__} is no number")


_JSON = json.JSONEncoder(allow_nan=False, check_circular=False, default=_finite).encode
