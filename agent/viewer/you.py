"""The room in which a person plays: the keys held by the page that pressed last, at the game's own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.replay.demonstrations import DemonstrationWriter
from agent.viewer.hub import Hub
from agent.viewer.policies import Policy
from agent.viewer.rooms import KEY_S, Chosen, Game, PlayRoom, Recorder

KeyMap = Sequence[tuple[frozenset[str], int]]


class YouRoom(PlayRoom):
    """A person plays. Every episode waits for a first key; a key that is tapped between two steps counts for one."""

    def __init__(
        self,
        hub: Hub,
        make_game: Callable[[int], Game],
        keys: KeyMap,
        idle: int | None,
        *,
        make_advisor: Callable[[], Policy] | None = None,
        seed: int = 0,
        recorder: Recorder | None = None,
        writer: DemonstrationWriter | None = None,
    ) -> None:
        """`keys`: codes of KeyboardEvent -> action, most keys first, and `idle` the action without any; None: the last.

        `make_advisor` gives the policy that says what it thinks of the position while that is wanted; it is called in
        this room's thread. `writer` keeps what was played for a training to start from.
        """
        super().__init__("you", "you", "You", hub, make_game, None, seed=seed, recorder=recorder)
        self._make_advisor = make_advisor
        self._keys, self._idle, self._writer = keys, idle, writer
        self._last = 0  # action
        self._known = frozenset().union(*(codes for codes, _ in keys))
        self._lock = threading.Lock()
        self._player: object = None  # the client that pressed last
        self._held: frozenset[str] = frozenset()
        self._tapped: frozenset[str] = frozenset()  # pressed since the last step, held or not
        self._pressed_at: float | None = None
        self._began = False

    def press(self, client: object, held: Sequence[str]) -> None:
        """Take the keys that a client holds now; whoever presses a new key takes the game over. From any thread."""
        now_held = frozenset(held) & self._known
        with self._lock:
            if self._player is not client:
                if not now_held:
                    return
                self._player, self._held = client, frozenset()
            pressed = now_held - self._held
            self._held = now_held
            self._tapped |= pressed
            if pressed and self._pressed_at is None:
                self._pressed_at = time.monotonic()
            self._began = self._began or bool(pressed)
        self.wake.set()

    def release(self, client: object) -> None:
        """Let go of what a client held that is gone. From any thread."""
        with self._lock:
            if self._player is client:
                self._player, self._held = None, frozenset()

    @property
    def has_advisor(self) -> bool:
        """Whether there is a policy that could say something."""
        return self._make_advisor is not None

    @property
    def is_advising(self) -> bool:
        """Whether what it thinks is shown."""
        return self.policy is not None

    def advise(self, wanted: bool) -> None:
        """Show what the policy thinks of the position, that of this moment, or no longer. From any thread."""

        def take() -> None:
            self.policy = self._ahead = None
            if wanted:
                try:
                    self.policy = self._make_advisor()
                except (ValueError, OSError) as error:  # a run whose checkpoints are gone, for instance
                    self.notice = f"The agent cannot be asked: {error}"
            if not self._is_ready():
                self._show_position()
            self.on_change()

        self.order(take)

    def _is_ready(self) -> bool:
        return self._began

    def _soonest(self) -> float:
        return float("inf") if self._pressed_at is None else self._pressed_at + KEY_S

    def _choose(self) -> Chosen:
        with self._lock:
            held, self._tapped, self._pressed_at = self._held | self._tapped, frozenset(), None
        if self._step == 0:
            self._write(lambda writer: writer.begin(self._game.observation, self.seed))
        values, _, act_ms = self._think()
        return Chosen(self._action(held), values, act_ms, sorted(held))

    def _action(self, held: frozenset[str]) -> Any:
        without = self._last if self._idle is None else self._idle
        self._last = next((action for codes, action in self._keys if codes <= held), without)
        return self._last

    def _begin(self) -> None:
        with self._lock:
            self._began, self._tapped, self._pressed_at = False, frozenset(), None

    def _stepped(self, chosen: Chosen, reward: float, terminated: bool, truncated: bool) -> None:
        step = int(chosen.action), reward, self._game.observation, terminated, truncated
        self._write(lambda writer: writer.step(*step))

    def _shut(self) -> None:
        self._write(lambda writer: writer.end())
        super()._shut()

    def _write(self, what: Callable[[DemonstrationWriter], object]) -> None:
        """Keep what is played; where that cannot be done, the game goes on without."""
        if self._writer is None:
            return
        try:
            what(self._writer)
        except (OSError, ValueError) as error:
            self._writer = None
            self.notice = f"Your games are not kept: {error}"
            self.on_change()
