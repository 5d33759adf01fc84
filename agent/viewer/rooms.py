"""Rooms in which somebody plays: each a thread with a game of its own, at the game's pace, idle when nobody looks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from agent.viewer.hub import Frame, Hub
from agent.viewer.look import Looker
from agent.viewer.metronome import Metronome, wait_until
from agent.viewer.policies import Policy

Kind = Literal["live", "latest", "frozen", "you"]
SHOWN_PER_S = 60.0  # more pictures than this are not sent: a fast room leaves some out
END_S = 1.2  # for so long the last picture of an episode stays, at normal speed
KEY_S = 0.05  # a key waits no longer for the next step, however slow the game
IDLE_S = 0.5  # how often a room that nobody looks at looks around


class Game(Protocol):
    """One copy of a game (envs/shown.py)."""

    spec: Any
    observation: np.ndarray
    picture: np.ndarray
    steps_per_s: float

    def restart(self, seed: int | None = None) -> None: ...
    def step(self, action: Any) -> tuple[list[np.ndarray], float, bool, bool]: ...
    def close(self) -> None: ...


class Recorder(Protocol):
    """Keeps the episodes that are shown (agent/viewer/episodes.py)."""

    def add(self, room: str, packet: bytes) -> None: ...
    def drop(self, room: str) -> None: ...
    def end(
        self, room: str, score: float, length: int, seed: int | None, *, pictures_per_s: float | None = None
    ) -> Any: ...


class Room:
    """A thread that shows something. `fault` says why it has stopped."""

    kind: Kind

    def __init__(self, id: str, title: str, hub: Hub) -> None:
        self.id, self.title, self.hub = id, title, hub
        self.fault: str | None = None
        self.notice: str | None = None  # something else to know
        self.on_change: Callable[[], None] = lambda: None  # pages are to be told of the room anew
        self.on_episode: Callable[[], None] = lambda: None
        self.wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"room {id}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it, but not for ever."""
        self._closing = True
        self.wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        try:
            self._open()
            while not self._closing:
                self._turn()
        except Exception as error:  # whatever a game or a runtime raises ends this room and no other
            self.fault = str(error) or type(error).__name__
            self.on_change()
        finally:
            self._shut()

    def _open(self) -> None:
        """Make what only this thread may use."""

    def _turn(self) -> None:
        raise NotImplementedError

    def _shut(self) -> None:
        """Free what `_open` made."""


class Chosen(NamedTuple):
    """What is done in one step, and what was thought of it."""

    action: Any
    values: np.ndarray | None  # f64 [A], of the policy, whoever plays
    act_ms: float | None
    held: Sequence[str] | None = None  # keys


class PlayRoom(Room):
    """A policy plays, one episode after the other; the next one has the next seed, so that rooms stay comparable."""

    def __init__(
        self,
        id: str,
        kind: Kind,
        title: str,
        hub: Hub,
        make_game: Callable[[int], Game],
        policy: Policy | None,
        *,
        seed: int = 0,
        newest_updates: Callable[[], int | None] = lambda: None,
        recorder: Recorder | None = None,
    ) -> None:
        """`newest_updates` says with how many the trainer's own weights are learned by now."""
        super().__init__(id, title, hub)
        self.kind, self.policy, self.seed = kind, policy, seed
        self.speed, self.paused = 1.0, False
        self.looker = Looker()
        self._make_game, self._newest_updates, self._recorder = make_game, newest_updates, recorder
        self._orders: deque[Callable[[], None]] = deque()
        self._game: Game | None = None
        self._metronome = Metronome()
        self._step = self._episode = 0
        self._score, self._shown_at = 0.0, 0.0
        self._ended = False
        self._ahead: tuple[np.ndarray | None, Any, float] | None = None  # what is thought of the next observation

    # --- from any thread ---------------------------------------------------------------------------------------------

    def order(self, what: Callable[[], None]) -> None:
        """Have the room's own thread do something between two steps."""
        self._orders.append(what)
        self.wake.set()

    def restart(self, seed: int | None = None) -> None:
        """Begin an episode anew; None: with the next seed."""
        self.order(lambda: self._restart(self.seed + 1 if seed is None else seed))

    def set_paused(self, paused: bool) -> None:
        """Stop or go on."""
        self.paused = paused
        self.wake.set()

    def set_speed(self, speed: float) -> None:
        """Play so many times as fast as the game is meant to be."""
        self.speed = speed
        self.wake.set()

    def replace(self, policy: Policy) -> None:
        """Let another policy play from the next step on."""

        def take() -> None:
            self.policy, self._ahead = policy, None
            self.on_change()

        self.order(take)

    # --- the room's thread -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._game = self._make_game(self.seed)
        self._restart(self.seed)

    def _shut(self) -> None:
        if self._game is not None:
            self._game.close()

    def _turn(self) -> None:
        while self._orders:
            self._orders.popleft()()
        if self.paused or not self.hub.looked(self.id) or not self._is_ready():
            self.wake.wait(IDLE_S)
            self.wake.clear()
            self._metronome.reset()
            return
        period = 1 / (self._game.steps_per_s * self.speed)
        if self._ended:
            if not self._sleep(self._metronome.next(END_S / self.speed)):
                self._restart(self.seed + 1)
            return
        if not self._sleep(self._metronome.next(period)):
            self._play(period)

    def _sleep(self, due: float) -> bool:
        """Wait for the deadline; return whether an order or the end came first."""
        while True:
            self.wake.clear()
            if self._orders or self._closing or self.paused:
                return True
            due = min(due, self._soonest())
            if not wait_until(due, self.wake):
                self._metronome.hasten(due)
                return False

    def _is_ready(self) -> bool:
        return True

    def _soonest(self) -> float:
        """When the next step must be made at the latest, whatever the pace."""
        return float("inf")

    def _choose(self) -> Chosen:
        values, action, act_ms = self._think()
        return Chosen(action, values, act_ms)

    def _think(self) -> tuple[np.ndarray | None, Any, float | None]:
        """What the policy makes of the observation; asked once for each."""
        if self.policy is None:
            return None, None, None
        if self._ahead is None:
            self.policy.refresh()
            before = time.perf_counter()
            values, action = self.policy.q(self._game.observation)
            self._ahead = values, action, (time.perf_counter() - before) * 1e3
        return self._ahead

    def _play(self, period: float) -> None:
        chosen = self._choose()
        saliency = self.looker.look(self.policy, self._game.observation, chosen.values, chosen.action)
        pictures, reward, terminated, truncated = self._game.step(chosen.action)
        self._step += 1
        self._score += reward
        self._ended = terminated or truncated
        self._ahead = None
        td_error = self._td_error(chosen, reward, terminated)
        facts = self._facts(chosen, reward, td_error)
        for number, picture in enumerate(pictures, 1):
            last = number == len(pictures)
            if number > 1:
                due = self._metronome.last + period * (number - 1) / len(pictures)
                while wait_until(due, self.wake) and not self._closing:  # orders wait for the whole step
                    self.wake.clear()
                    if time.monotonic() >= due:
                        break
            self._show(facts | {"ended": self._ended and last}, picture, saliency, always=self._ended and last)
        self._stepped(chosen, reward, terminated, truncated)
        if self._ended and self._recorder is not None:
            usual = min(self._game.steps_per_s * len(pictures), SHOWN_PER_S / self.speed)  # by the game's own clock
            self._recorder.end(self.id, self._score, self._step, self.seed, pictures_per_s=usual)
            self.on_episode()

    def _td_error(self, chosen: Chosen, reward: float, terminated: bool) -> float | None:
        """One step's error by the values that are shown; None where there are none, or where an episode was cut."""
        facts = None if self.policy is None else self.policy.facts
        if chosen.values is None or facts is None or facts.scores != "values" or facts.discount is None:
            return None
        if facts.reward_clip is not None:
            reward = float(np.clip(reward, -facts.reward_clip, facts.reward_clip))
        if terminated:
            following = 0.0
        else:
            values = self._think()[0]  # of the next observation; not asked for again in the next step
            following = float(values.max())
        return reward + facts.discount * following - float(chosen.values[chosen.action])

    def _facts(self, chosen: Chosen, reward: float, td_error: float | None) -> dict[str, Any]:
        facts = None if self.policy is None else self.policy.facts
        updates, newest = None if facts is None else facts.updates, self._newest_updates()
        is_value = chosen.values is not None and facts is not None and facts.scores == "values"
        return {
            "step": self._step,
            "episode": self._episode,
            "score": self._score,
            "reward": reward,
            "action": chosen.action,
            "q": chosen.values,
            "value": float(chosen.values.max()) if is_value else None,
            "td_error": td_error,
            "policy_updates": updates,
            "policy_age_updates": None if None in (updates, newest) else max(0, newest - updates),
            "act_ms": chosen.act_ms,
            "seed": self.seed,
            "held": chosen.held,
            "ended": False,
            "waiting": not self._is_ready(),
            "time": time.time(),
        }

    def _show(self, facts: dict[str, Any], picture: np.ndarray, saliency: bytes = b"", *, always: bool) -> None:
        """Offer a picture, unless the last one was offered too short a time ago to be seen."""
        now = time.monotonic()
        if not always and now - self._shown_at < 0.9 / SHOWN_PER_S:
            return
        self._shown_at = now
        frame: Frame = self.hub.offer(self.id, facts, picture, saliency)
        if self._recorder is not None:
            self._recorder.add(self.id, frame.packet())

    def _restart(self, seed: int) -> None:
        if not self._ended and self._recorder is not None:
            self._recorder.drop(self.id)
        self.seed = seed
        self._game.restart(seed)
        self._step, self._score, self._ended, self._ahead = 0, 0.0, False, None
        self._episode += 1
        self._metronome.reset()
        self._begin()
        self._show_position()

    def _show_position(self) -> None:
        """Show the picture in which nothing has been done yet."""
        values, _, act_ms = self._think()
        self._show(self._facts(Chosen(None, values, act_ms), 0.0, None), self._game.picture, always=True)

    def _begin(self) -> None:
        """Called when an episode begins."""

    def _stepped(self, chosen: Chosen, reward: float, terminated: bool, truncated: bool) -> None:
        """Called after every step."""
