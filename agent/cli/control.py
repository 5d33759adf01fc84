"""What onlookers see of a run and may ask of it while it trains: published after every tick, heeded between two."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from agent.cli.record import Record
from agent.cli.session import Session, evaluation_seed
from agent.cli.stock_session import StockSession
from agent.cli.stop import Stop
from agent.telemetry.rates import Rates
from agent.types import Tick
from agent.viewer.publish import Publisher, Thought
from agent.viewer.requests import Request, Requests

PAUSE_S = 0.05  # between two looks at who wants a paused run to end or to go on


class Stopwatch:
    """Seconds on a clock that stands still while a run does."""

    def __init__(self) -> None:
        self.left_out_s = 0.0
        self._stopped: float | None = None

    def __call__(self) -> float:
        """Return the seconds now."""
        return (time.perf_counter() if self._stopped is None else self._stopped) - self.left_out_s

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stand still inside."""
        self._stopped = time.perf_counter()
        try:
            yield
        finally:
            self.left_out_s += time.perf_counter() - self._stopped
            self._stopped = None


class Inference:
    """Acting without learning, greedy as when the agent is judged, on the games that training has left.

    Nothing of it is counted, learned from or kept. The open episodes of training end in replay as truncated where it
    left them, and `close` starts the games anew for it. The games play at the speed at which a person watches them.
    """

    def __init__(self, session: Session):
        self._session = session
        session.replay.cut(session.games.current)
        self._actor = session.judged(evaluation_seed(session.settings, session.clock.steps))
        self._interval_s = 1.0 / (session.settings.game.realtime or session.spec.fps)
        self._due = time.perf_counter()

    @property
    def due_in_s(self) -> float:
        """Seconds until the next step is due."""
        return self._due - time.perf_counter()

    def tick(self) -> tuple[Tick, Thought | None]:
        """Play one step."""
        session = self._session
        self._due = max(self._due, time.perf_counter() - self._interval_s) + self._interval_s
        action = self._actor.act(session.games.current.observation, 0)
        session.games.send(action)
        step = session.games.recv()
        steps, updates = session.clock.steps, session.learner.updates
        return Tick(steps, updates, step, action, 0.0, 0.0, 0.0, 0.0), self._actor.last

    def close(self) -> None:
        """Leave games that begin."""
        self._session.restart_games()


class Control:
    """Publishes a run and does what is asked of it. `clock` counts the seconds in which it trained.

    With nobody there the run is bit for bit what it is without this.
    """

    def __init__(self, session: Session | StockSession, record: Record, stop: Stop):
        self._session, self._record, self._stop = session, record, stop
        self.clock = Stopwatch()
        self._before_pause = "training"
        self._inference: Inference | None = None
        self._owed: Request | None = None  # a checkpoint that waits for a moment in which one can be taken
        self._live, settings = record.folder.path / "live", session.settings
        ours = isinstance(session, Session)
        start = session.steps, session.learner.updates if ours else 0
        self._publisher = Publisher(
            self._live,
            Rates(*start, clock=self.clock),
            start,
            settings.steps,
            scene=session.scene,
            figures=self._figures,
            network=session.learner.average if ours else None,
            discount=session.learner.discount if ours else lambda steps: settings.learner.discount,
            reward_clip=settings.replay.reward_clip,
            warn=record.warn,
        )
        self._requests: Requests | None = None
        try:
            self._requests = Requests(self._live / "requests")
        except OSError as error:
            record.warn(f"This run cannot be controlled from a viewer, training goes on: {error}")

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.close()
        if self._requests is not None:
            self._requests.close()
        with suppress(OSError):  # another user's, or a viewer has just left a sign in it again
            (self._live / "watched").unlink(missing_ok=True)
            self._live.rmdir()

    @property
    def mode(self) -> str:
        """The mode that holds: training, paused or inference only."""
        return self._publisher.mode

    def _figures(self) -> dict[str, Any]:
        """What is told of the run once a second, beside its rates."""
        said = [[at, sentence] for at, sentence in self._record.progress.said]
        return {"game": self._session.game, "events": said} | self._session.figures()

    # --- called by the run -------------------------------------------------------------------------------------------

    def after(self, tick: Tick) -> None:
        """Publish a tick of our agent, then do what is asked: a pause or inference last until training goes on."""
        session = self._session
        restarted = session.games.current is not tick.step
        if not restarted and self._publisher.passes(tick):
            return
        self._publisher.tick(tick, session.actor.last, restarted=restarted)
        self._heed(tick.steps)

    def after_beat(self, steps: int) -> None:
        """The same for a step of stable-baselines3's games."""
        step, updates = self._session.games.current, self._session.algorithm._n_updates
        self._publisher.tick(Tick(steps, updates, step, None, 0.0, 0.0, 0.0, 0.0), None)
        self._heed(steps)

    def settled(self, steps: int) -> None:
        """Take the checkpoint that was asked for: here stable-baselines3's algorithms can be saved."""
        if self._owed is not None:
            request, self._owed = self._owed, None
            self._save(request, steps)

    def breathe(self) -> None:
        """Stay in touch while the run is judged: figures go out, and a stop is heeded."""
        self._publisher.breathe()
        request = None if self._requests is None else self._requests.next(only="stop")
        if request is not None:
            self._do(request, self._session.steps)

    # --- what is asked -----------------------------------------------------------------------------------------------

    def _heed(self, steps: int) -> None:
        self._poll(steps)
        if self.mode == "training":
            return
        with self.clock.stopped():
            left_out_s = self.clock.left_out_s
            self._stand_by(steps)
        self._record.leave_out(self.clock.left_out_s - left_out_s)

    def _stand_by(self, steps: int) -> None:
        """Wait, or play without learning, until training goes on or the run is to end."""
        while self.mode != "training" and self._stop.signal is None:
            if self.mode == "paused":
                time.sleep(PAUSE_S)
                self._publisher.breathe()
            else:
                if self._inference is None:
                    self._inference = Inference(self._session)
                self._infer()
            self._poll(steps)
        if self._inference is not None:
            self._rest()
            self._inference = None

    def _infer(self) -> None:
        wait_s = self._inference.due_in_s
        time.sleep(min(max(wait_s, 0.0), PAUSE_S))
        if wait_s <= PAUSE_S:
            self._publisher.tick(*self._inference.tick())
        else:
            self._publisher.breathe()

    def _rest(self) -> None:
        """Leave games that begin, as training and a checkpoint need them after inference."""
        self._inference.close()
        self._publisher.restarted()

    def _poll(self, steps: int) -> None:
        request = None if self._requests is None else self._requests.next()
        if request is not None:
            self._do(request, steps)

    def _do(self, request: Request, steps: int) -> None:
        """Do what is asked and say what was done."""
        if request.what == "checkpoint":
            if isinstance(self._session, Session):
                self._save(request, steps)
            elif self.mode == "paused":
                self._answer(request, False, "It can be saved only while it trains: let it go on first.")
            else:
                self._owed = request
            return
        wanted = {"pause": "paused", "go on": self._before_pause, "inference only": "inference only"}
        mode = wanted.get(request.what, "training")
        if request.what == "stop":
            self._stop.signal = signal.SIGINT
            self._answer(request, True, "stopping after this step, with one last checkpoint")
        elif mode == "inference only" and not isinstance(self._session, Session):
            self._answer(request, False, "stable-baselines3's algorithms cannot act without learning; pause it instead.")
        elif request.what == "go on" and self.mode != "paused":
            self._answer(request, True, f"It is not paused: {self.mode}.")
        else:
            self._switch(request, mode)

    def _switch(self, request: Request, mode: str) -> None:
        if mode == "paused" and self.mode != "paused":
            self._before_pause = self.mode
        said = {
            "training": "training goes on",
            "paused": "paused: it waits until a viewer lets it go on",
            "inference only": "inference only: it plays greedily, and nothing is counted or learned",
        }[mode]
        if mode != self.mode:
            self._publisher.switch(mode)
            self._record.progress.say(f"asked by a viewer: {said}")
        self._answer(request, True, said)

    def _save(self, request: Request, steps: int) -> None:
        if self._inference is not None:
            self._rest()
        saved = self._record.checkpoint(steps, self._session.state_dict)
        if self._inference is None and isinstance(self._session, Session) and not self._session.games.stateful:
            self._publisher.restarted()  # by the checkpoint
        self._answer(request, saved, self._record.progress.said[-1][1])

    def _answer(self, request: Request, ok: bool, said: str) -> None:
        self._publisher.acknowledge(request.id, ok, said)
