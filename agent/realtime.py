"""A game that does not wait: it steps by the wall clock, and the learner gets what is left of every interval.

In one interval, in this order: the step that is due, the answer to what it shows, storing, the learner's slices, sleep.
So an action waits for its deadline, not the deadline for its action, and a slice that takes longer than predicted eats
into the next answer's time before it can cost a deadline.
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from agent.loop import Acts, Clock, Remembers
from agent.types import Tick, VectorEnv

SPIN_S = 1e-3  # before a deadline the clock is watched and not slept through: sleep wakes late by up to that
OVERRUNS = 0.01  # share of the intervals in which a slice may end after the deadline by more than LATE of an interval
LATE = 1 / 20  # a step is late by, to be noticed
STANDSTILL_S = 0.1  # an onlooker who takes longer (evaluation, checkpoint) has stopped the clock
SUSPENDED_S = 1.0  # so far behind the game is not caught up with, frame by frame: the machine was suspended
DEBT = 64  # updates carried from one interval to the next at most; what is owed beyond is dropped
REHEARSALS = 8  # updates that are measured before learning begins: whole and in pieces, by turns
COARSE = 1 / 8  # of an interval: of longer pieces the last one leaves too much time unused
SHORTER = 0.8  # of the longest piece is left where it pays to take a batch in more parts
LIKELY = 3  # intervals that a whole update may take for a faster form of it to be worth a try: it hardly fits otherwise
MANY_MISSED = 0.05  # of a minute's deadlines, and a person is told
STARVED_S = 10.0  # without a slice that fits, before all are measured anew; for as long once more: a person is told
REMEMBERED = 16_384  # latencies kept between two points of the log


class LearnsInSlices(Protocol):
    """Updates the network, and lets itself be interrupted; see `agent.slices.Slices`."""

    updates: int

    def unsettled(self, steps: int) -> bool:
        """Return whether no update is begun any more before `settle` was called."""

    def settle(self, steps: int) -> bool:
        """Choose the form of whole updates, in a minute if need be; return whether it is another one now."""

    def divide(self) -> bool:
        """Make pieces shorter from the next update on; return whether that can be."""

    def advance(self, steps: int, fits: Callable[[Hashable], bool]) -> None:
        """Go on with updates until `fits` refuses the next slice; where none is open, a whole update is asked first."""


class Prediction:
    """How long a kind of slice takes, before it is done: three quarters of the latest took no longer.

    One that cost a deadline is expected to take as long again; it is tried anew after a while, twice as long each time.
    Single disturbances are no property of a kind of slice: for them there is the allowance of `Pace`.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._recent = deque([seconds], maxlen=16)
        self._patience = 0  # refusals until it is tried anew
        self._refusals = 0

    def add(self, seconds: float, *, costly: bool = False) -> None:
        """Learn from one that was done."""
        self._recent.append(seconds)
        self._patience, self._refusals = min(max(8, 2 * self._patience), 4096) if costly else 0, 0
        self.seconds = seconds if costly else self._typical()

    def doubt(self) -> None:
        """Ease towards the shortest of late: what is refused is not measured, and must not be refused for ever."""
        self._refusals += 1
        if self._refusals >= self._patience:
            self._recent.append(self.least)
            self.seconds = self._typical()

    @property
    def least(self) -> float:
        """What the shortest of the latest took: nothing else ran then."""
        return min(self._recent)

    def _typical(self) -> float:
        return sorted(self._recent)[(3 * len(self._recent) - 1) // 4]


def settle() -> None:
    """Collect garbage and exempt all that lives from later collections, which then take microseconds, not 0.1 s."""
    gc.collect()
    gc.freeze()


class Pace:
    """The deadlines: when the next one is, what fits before it, and how well they are kept.

    A deadline is missed when its action is not ready; a step may still be late for it, which is told apart.
    """

    def __init__(
        self,
        per_second: float,
        *,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        settle: Callable[[], None] = settle,
    ):
        self.now = now
        self._sleep, self._settle = sleep, settle
        self._interval = 1.0 / per_second
        self._due = 0.0
        self._predictions: dict[Hashable, Prediction] = {}
        self._whole: Hashable = None  # which of them is an update in one piece
        self._allowance = self._interval / 50  # between the predicted end of a slice and the deadline
        self._sliced = False  # whether a slice was run since the last deadline
        self._starved = 0  # intervals in a row in which updates were owed and no slice fitted
        self._measure_anew = self._starving = math.ceil(STARVED_S * per_second)  # of them, before all are measured anew
        self._refused_s = 0.0  # what the slice that did not fit was expected to take
        self.say: Callable[[str], None] = lambda sentence: None
        self.deadlines = self.missed = 0  # of the run, those before a resume included
        self._minute = math.ceil(60.0 * per_second), 0, 0  # deadlines to look back at; how many there were, and missed
        self._warned = False
        self._stops = 0
        self._answers_s: deque[float] = deque(maxlen=REMEMBERED)
        self._lateness_s: deque[float] = deque(maxlen=REMEMBERED)

    def start(self) -> None:
        """Start the clock, anew if need be: the next deadline is one interval away."""
        self._settle()
        self._due = self.now() + self._interval

    def go_on(self, since: float) -> None:
        """Start the clock anew if an onlooker, who was given the tick at `since`, has stopped it."""
        if self.now() - since > STANDSTILL_S:
            self._stops += 1
            self.start()

    def prepare(self, learner: LearnsInSlices, clock: Clock) -> bool:
        """Measure all slices, when learning begins, whole updates take another form, or for long none has fitted: they
        might have been measured while the machine was busy. Return whether that was now, and the clock has stopped.
        """
        settled = not learner.unsettled(clock.steps)
        anew = self._starved == self._measure_anew
        if clock.owed <= 0 or (self._predictions and settled and not anew):
            return False
        if anew:
            self._measure_anew *= 2
        before, self._due = learner.updates, math.inf  # no deadline can be missed meanwhile
        if settled:
            self._rehearse(learner, clock)
        if not settled or self._predictions[self._whole].least <= LIKELY * self._interval:
            if learner.settle(clock.steps) or not settled:
                self._rehearse(learner, clock)
        longest = self._longest()
        while longest > COARSE * self._interval and learner.divide():
            self._rehearse(learner, clock)
            if self._longest() > SHORTER * longest:
                break
            longest = self._longest()
        clock.owed -= learner.updates - before
        self._stops += 1
        return True

    def learn(self, learner: LearnsInSlices, clock: Clock) -> None:
        """Do what is owed and fits before the deadline."""
        owed = clock.owed + learner.updates
        left = self._due - self.now()
        fresh = left > self._interval / 2  # there will hardly be more time than now
        in_pieces, refused = self._pieces_pay(left - self._allowance), None

        def accept(what: Hashable, now: float) -> bool:
            nonlocal fresh, refused
            before, refused = refused, what
            if learner.updates >= owed or (before == self._whole and not in_pieces):
                return False
            known = self._predictions.get(what)
            if now + (known.seconds if known else self._interval / 2) + self._allowance <= self._due:
                fresh, self._sliced, refused = False, True, None
                return True
            if known:
                self._refused_s = known.seconds
                if fresh:
                    known.doubt()
            return False

        learner.advance(clock.steps, self._timed(accept))
        clock.owed = min(owed - learner.updates, DEBT)
        self._starved = self._starved + 1 if clock.owed > 0 and not self._sliced else 0
        if self._starved == 2 * self._starving:
            self.say(
                f"warning: nothing is learned: a part of an update takes {self._refused_s * 1e3:.1f} ms and does not "
                "fit between two decisions. Fewer of them (--realtime), a smaller network, or a less busy machine "
                "helps."
            )

    def _pieces_pay(self, left: float) -> bool:
        """Return whether an update is to be begun in pieces where no whole one fits any more.

        What is begun must be ended in pieces, which may take much longer than a compiled update: where so many whole
        ones fit into an interval that as many in pieces would not, the rest of it is better left alone.
        """
        if self._whole not in self._predictions:
            return True
        whole = self._predictions[self._whole].seconds
        pieces = sum(known.seconds for what, known in self._predictions.items() if what != self._whole)
        return pieces * (left // whole) <= left

    def _longest(self) -> float:
        """Return what the longest of the pieces takes when nothing disturbs it."""
        return max((known.least for what, known in self._predictions.items() if what != self._whole), default=0.0)

    def _rehearse(self, learner: LearnsInSlices, clock: Clock) -> None:
        """Make a few updates, whole and in pieces, in whatever time they take; an open one is brought to its end."""
        for number in range(REHEARSALS):
            wanted, asked = learner.updates + 1, 0

            def accept(what: Hashable, now: float) -> bool:
                nonlocal asked
                asked += 1
                if self._whole is None:
                    self._whole = what
                return learner.updates < wanted and (number % 2 == 0 or asked > 1)

            learner.advance(clock.steps, self._timed(accept))
            if number == 1:  # first calls allocate
                self._predictions.clear()

    def _timed(self, accept: Callable[[Hashable, float], bool]) -> Callable[[Hashable], bool]:
        """Return what to ask before every slice: it asks `accept` and learns how long the last one took."""
        running: Hashable | None = None
        since = 0.0

        def fits(what: Hashable) -> bool:
            nonlocal running, since
            now = self.now()
            if running in self._predictions:
                costly = now - self._due > self._interval / 2  # less can be made up for by a quick answer
                self._predictions[running].add(now - since, costly=costly)
            elif running is not None:
                self._predictions[running] = Prediction(now - since)
            running, since = (what, now) if accept(what, now) else (None, now)
            return running is not None

        return fits

    def wait(self) -> None:
        """Sleep until the deadline, the last of it awake; the next deadline is one interval later.

        When it has long passed, the clock starts anew: that is one deadline missed, however long it took.
        """
        left = self._due - self.now()
        if self._sliced:
            # Where one of a hundred last slices ends late, the steps up and down cancel out. On a busy machine no
            # allowance is enough, and a large one is time lost.
            late = left < -LATE * self._interval
            self._allowance += self._interval / 50 * (1.0 if late else -OVERRUNS / (1.0 - OVERRUNS))
            self._allowance = min(max(self._allowance, 0.0), self._interval / 8)
            self._sliced = False
        if left > SPIN_S:
            self._sleep(left - SPIN_S)
        while (now := self.now()) < self._due:
            self._sleep(0.0)
        late = now - self._due
        if late > SUSPENDED_S:
            self.missed += 1
            self._stops += 1
            self._due = now
        self.deadlines += 1
        self._lateness_s.append(late)
        self._due += self._interval
        self._look_back()

    def _look_back(self) -> None:
        """Tell a person, once, when the last minute's deadlines were not kept."""
        per_minute, deadlines, missed = self._minute
        if self.deadlines < deadlines + per_minute:
            return
        share = (self.missed - missed) / (self.deadlines - deadlines)
        self._minute = per_minute, self.deadlines, self.missed
        if share > MANY_MISSED and not self._warned:
            self._warned = True
            self.say(
                f"warning: {share:.0%} of the last minute's deadlines were missed, the game went on with the action "
                "before. Fewer decisions a second (--realtime), a smaller network, fewer updates "
                "(--learner.samples-per-insert), or a less busy machine helps."
            )

    def summary(self) -> str:
        """Return in a sentence how the run's deadlines were kept."""
        share = f" ({self.missed / self.deadlines:.2%})" if self.missed else ""
        return f"real time: {self.missed:,} of {self.deadlines:,} deadlines missed{share}"

    def in_time(self) -> bool:
        """Return whether the next deadline lies ahead; False is a deadline missed."""
        ready = self.now() <= self._due
        self.missed += not ready
        return ready

    def answered(self) -> None:
        """Note how long after its own deadline a frame is answered, whether in time or given up."""
        self._answers_s.append(self.now() - (self._due - self._interval))

    def take(self) -> dict[str, float]:
        """Return what was seen since the last call, and the run's misses, under their TensorBoard tags."""
        counts = {"missed": self.missed, "deadlines": self.deadlines, "stops": self._stops}
        found = {f"realtime/{name}": float(count) for name, count in counts.items()}
        for name, seconds in (("acting", self._answers_s), ("lateness", self._lateness_s)):
            if seconds:
                found[f"realtime/{name}_ms_p99"] = float(1e3 * np.percentile(seconds, 99))
                seconds.clear()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the counts; predictions belong to the machine, and deadlines to the moment."""
        return {"deadlines": self.deadlines, "missed": self.missed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.deadlines, self.missed = int(state["deadlines"]), int(state["missed"])
        self._minute = self._minute[0], self.deadlines, self.missed


def realtime(
    games: VectorEnv, actor: Acts, replay: Remembers, learner: LearnsInSlices, clock: Clock, pace: Pace
) -> Iterator[Tick]:
    """Play and learn for ever at the given pace, yielding after every step.

    Where an action is not ready when it is due, the game goes on with the last one that was, and that is what replay
    stores; an answer that comes late is played next. Frames that nobody could answer in time are not answered at all.

    What a consumer does to the arguments between two ticks is heeded, as by `interleave`; a tick is yielded when what
    it shows has been answered already, so that nobody who looks delays an action.
    """
    step = games.current
    action = newest = actor.act(step.observation, clock.steps)
    pace.start()
    try:
        while True:
            started = pace.now()
            if pace.prepare(learner, clock):
                newest = actor.act(step.observation, clock.steps)  # the network may act in another form from now on
                pace.start()
            pace.learn(learner, clock)
            learned = pace.now()
            pace.wait()
            games.send(action)
            next_step = games.recv()
            received = pace.now()
            played, action = action, newest
            if pace.in_time():
                newest = actor.act(next_step.observation, clock.steps)
                action = newest if pace.in_time() else action
            pace.answered()
            acted = pace.now()
            clock.advance(replay.insert(step, played, next_step))
            stored = pace.now()
            yield Tick(
                clock.steps,
                learner.updates,
                next_step,
                played,
                acting_s=acted - received,
                learning_s=learned - started,
                waiting_s=received - learned,
                storing_s=stored - acted,
            )
            step = games.current
            if step is not next_step:  # they were started anew
                action = newest = actor.act(step.observation, clock.steps)
            pace.go_on(stored)
    finally:
        gc.unfreeze()
