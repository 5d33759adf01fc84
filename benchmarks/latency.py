"""How long a decision takes with the learner off, on, and in real time, and how real time keeps its deadlines.

    .venv/bin/python benchmarks/latency.py --minutes 10     # prints a table, writes results/latency.json

Everything runs as `icebox train` runs it: with the logs, the dashboard and the progress line of a run in a temporary
folder. In real time the learner may use all the time that is left (samples_per_insert is set as high as that), and a
latency counts from when the frame was due, the game's own time and every delay included; otherwise it is the time that
the actor takes. What the time left allows: each interval less acting, storing and the game, over the median update of
the learner alone, in its fastest form and with all its threads. The learner off and on run for a minute at most.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli.main import SPIN_COUNT  # noqa: E402

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # as `icebox` does, before torch is imported

import torch  # noqa: E402

from agent.cli.drive import drive  # noqa: E402
from agent.cli.record import Record  # noqa: E402
from agent.cli.session import Session  # noqa: E402
from agent.cli.settings import load_settings, merge  # noqa: E402
from agent.cli.stop import Stop  # noqa: E402
from agent.config import Settings  # noqa: E402
from agent.realtime import Pace  # noqa: E402
from agent.telemetry.run_folder import RunFolder  # noqa: E402
from agent.types import Tick  # noqa: E402
from benchmarks.results import write  # noqa: E402

CASES = {"atari/pong": 60, "minatar/breakout": 200}  # decisions a second
MODES = ("off", "on", "clock alone", "real time")
LEARNING, CLOCKED = MODES[1::2], MODES[2:]  # "clock alone": what the machine itself costs a game by the clock
STARTS = 200  # environment steps before learning; what is measured comes after them
PERCENTILES = (50.0, 95.0, 99.0, 99.9)
LATE_S = 1e-3
MOST_MISSED, MOST_P99_MS, LEAST_OF_ALLOWED = 1e-3, 8.0, 0.8  # the goals


class Recording(Pace):
    """Keeps every latency and every lateness."""

    answers_s: list[float]
    lateness_s: list[float]

    def __init__(self, per_second: float):
        super().__init__(per_second)
        self.answers_s, self.lateness_s = [], []

    def wait(self) -> None:
        """As real time waits."""
        super().wait()
        self.lateness_s.append(self._lateness_s[-1])

    def answered(self) -> None:
        """As real time notes it."""
        super().answered()
        self.answers_s.append(self._answers_s[-1])


class Run(NamedTuple):
    """What one run gave: its ticks after learning began, and the learner that was."""

    ticks: list[Tick]
    pace: Recording | None
    update_s: float  # the learner alone, median; 0 when it is off


def settings_for(game: str, mode: str, seconds: float, threads: int) -> Settings:
    """Return the game's own settings with one game, a network that always acts, and nothing that stops the clock."""
    steps = STARTS + int(seconds * CASES[game])
    changes: dict[str, Any] = {
        "steps": steps,
        "device": "cpu",
        "threads": threads,
        "game": {"num_games": 1},
        "actor": {"epsilon_start": 0.01, "epsilon_end": 0.01},
        "replay": {"capacity": 50_000},
        "learner": {"learning_starts": STARTS if mode in LEARNING else steps},
        "evaluation": {"interval_steps": 0},
        "checkpoint": {"interval_steps": 0},
    }
    if mode in CLOCKED:
        changes["game"]["realtime"] = CASES[game]
        changes["learner"]["samples_per_insert"] = 1e6
    return Settings.model_validate(merge(load_settings(game).model_dump(), changes))


def play(game: str, mode: str, seconds: float, threads: int) -> Run:
    """Train for that long, or for as many steps as would be played in it, and return what was seen."""
    settings = settings_for(game, mode, seconds, threads)
    session, ticks = Session(game, settings), []
    pace = session.pace = None if session.pace is None else Recording(CASES[game])

    def seen(played: Iterator[Tick], stop: Stop) -> Iterator[Tick]:
        for tick in played:
            if tick.steps == STARTS + 1:
                ends = time.perf_counter() + seconds
                if pace is not None:
                    pace.answers_s.clear()
                    pace.lateness_s.clear()
                    pace.missed = pace.deadlines = 0
            if tick.steps > STARTS + 1:
                ticks.append(tick._replace(step=None))
                if pace is None and time.perf_counter() > ends:
                    stop.signal = 0  # the learner on is slower than the clock would be
            yield tick

    with tempfile.TemporaryDirectory() as directory, Stop() as stop:
        folder = RunFolder.create(Path(directory), game, 0, None, settings, ["benchmarks/latency.py"])
        with folder.hold():
            record = Record(folder, game, settings, ["benchmarks/latency.py"], quiet=True)
            ticking = session.ticks
            session.ticks = lambda: seen(ticking(), stop)
            drive(session, record, stop)
            record.close()
    taken = []
    torch.set_num_threads(session.threads)
    for _ in range(40 if mode in LEARNING else 0):
        started = time.perf_counter()
        session.learner.update(1, session.clock.steps)
        taken.append(time.perf_counter() - started)
    session.close()
    return Run(ticks, pace, float(np.median(taken)) if taken else 0.0)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the percentiles of a list of seconds, in milliseconds."""
    return {f"p{each:g}_ms": float(1e3 * np.percentile(seconds, each)) for each in PERCENTILES}


def report(run: Run, interval_s: float, game_s: float) -> dict[str, Any]:
    """Return the figures of a run; `game_s` is how long a step of the game takes alone."""
    ticks, pace = run.ticks, run.pace
    took_s = sum(tick.acting_s + tick.learning_s + tick.waiting_s + tick.storing_s for tick in ticks)
    updates = ticks[-1].updates - ticks[0].updates
    figures = {
        "decisions": len(ticks),
        "latency": percentiles([tick.acting_s for tick in ticks] if pace is None else pace.answers_s),
        "updates_per_s": updates / took_s,
        "decisions_per_s": len(ticks) / took_s,
    }
    if pace is None:
        return figures
    figures |= {
        "acting": percentiles([tick.acting_s for tick in ticks]),
        "lateness": percentiles(pace.lateness_s),
        "deadlines": pace.deadlines,
        "missed": pace.missed,
        "late": sum(late > LATE_S for late in pace.lateness_s),
    }
    if not run.update_s:
        return figures
    left_s = [max(0.0, interval_s - tick.acting_s - tick.storing_s - game_s) for tick in ticks[1:]]
    allowed = sum(left_s) / run.update_s
    return figures | {
        "left_ms": 1e3 * float(np.mean(left_s)),
        "learning_ms": 1e3 * float(np.mean([tick.learning_s for tick in ticks])),
        "update_alone_ms": 1e3 * run.update_s,
        "updates": updates,
        "updates_allowed": allowed,
        "updates_over_allowed": updates / allowed,
    }


def main() -> None:
    """Measure each game in each mode, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of real time per game (default: 10)")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads (default: as a run chooses them)")
    parser.add_argument("--game", choices=list(CASES), help="this one only")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    head = f"{'game':20}{'learner':12}" + "".join(f"{f'p{each:g} ms':>10}" for each in PERCENTILES)
    print(f"{head}{'decisions/s':>13}{'updates/s':>11}{'missed':>8}{'late':>7}{'of allowed':>12}")
    for game in [arguments.game] if arguments.game else CASES:
        interval_s, game_s, results[game] = 1.0 / CASES[game], 0.0, {}
        for mode in MODES:
            seconds = 60.0 * (arguments.minutes if mode in CLOCKED else min(1.0, arguments.minutes))
            run = play(game, mode, seconds, arguments.threads)
            if mode == "off":
                game_s = float(np.median([tick.waiting_s for tick in run.ticks]))
            found = results[game][mode] = report(run, interval_s, game_s)
            row = f"{game:20}{mode:12}" + "".join(f"{value:10.2f}" for value in found["latency"].values())
            row += f"{found['decisions_per_s']:13.1f}{found['updates_per_s']:11.1f}"
            if mode in CLOCKED:
                row += f"{found['missed']:8}{found['late']:7}"
            if mode == "real time":
                row += f"{found['updates_over_allowed']:12.2f}"
            print(row, flush=True)
    reached = all(
        found["missed"] <= MOST_MISSED * found["deadlines"]
        and found["latency"]["p99_ms"] < MOST_P99_MS
        and found["updates_over_allowed"] >= LEAST_OF_ALLOWED
        for found in (modes["real time"] for modes in results.values())
    )
    payload = {
        "what": "milliseconds per decision; in real time from when the frame was due until its action is there",
        "decisions_a_second": CASES,
        "minutes": arguments.minutes,
        "goals": {"missed": MOST_MISSED, "p99_ms": MOST_P99_MS, "updates_over_allowed": LEAST_OF_ALLOWED},
        "reached": reached,
        "results": results,
    }
    print(f"{'within' if reached else 'OUTSIDE'} the goals; written to {write('latency', payload)}")
    sys.exit(not reached)


if __name__ == "__main__":
    main()
