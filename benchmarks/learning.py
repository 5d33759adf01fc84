"""What each part of the agent is worth: seeds x games x algorithms, ours beside stable-baselines3's, paired.

    .venv/bin/python benchmarks/learning.py run minatar --games breakout --seeds 0 1 2 --minutes 60 --side-by-side
    .venv/bin/python benchmarks/learning.py report minatar        # JSON and one PNG per game from what is there

One cell is one run of one algorithm with one seed on one game. `run` does the cells of a suite in an order that pairs
algorithms (all algorithms of a game and seed, one after the other or side by side, then the next), leaves out those that
are finished, and when its minutes are over, or at SIGTERM or Ctrl-C, saves the open cell and ends: the same command goes
on from there. A finished cell is one file, results/learning/SUITE/GAME/ALGORITHM_sSEED.json.

Seconds are of training alone: the clock stands still during evaluations. On the CPU every run has one thread and
seconds are those of its process, so that neighbours on a shared machine cost it little; the wall clock stands beside.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent import checkpoint  # noqa: E402
from agent.cli.session import Session, evaluation_seed, family_settings  # noqa: E402
from agent.cli.settings import load_settings, merge  # noqa: E402
from agent.cli.stock_session import StockSession  # noqa: E402
from agent.config import Settings  # noqa: E402
from agent.sb3 import stock  # noqa: E402
from agent.telemetry.protocol import protocol  # noqa: E402
from benchmarks.results import RESULTS, write  # noqa: E402
from benchmarks.suites import SUITES, Suite  # noqa: E402
from envs.make import spec  # noqa: E402

UNSEEN_SEED = 777_000_000
ONLINE = 100  # episodes in the running mean of training scores, as Young and Tian report them


class Cell:
    """One run: its settings, where it stands, and its curve; survives the end of the process by its checkpoint."""

    def __init__(self, suite: Suite, game: str, algorithm: str, seed: int, open_cells: Path):
        self.suite, self.game, self.algorithm, self.seed = suite, game, algorithm, seed
        self.name = f"learning/{suite.name}/{game.replace('/', '-')}/{algorithm}_s{seed}"
        self.folder = open_cells / self.name
        self.settings = settings_of(suite, game, algorithm, seed)
        self.curve: list[dict[str, Any]] = []
        self.online: deque[float] = deque(maxlen=ONLINE)
        self.since: list[float] = []  # training scores since the last row: Dopamine's figure for an iteration
        self.cpu_s = self.wall_s = 0.0

    @property
    def finished(self) -> bool:
        """Whether its result stands in the results."""
        return (RESULTS / f"{self.name}.json").exists()

    def train(self, deadline: Deadline) -> bool:
        """Train from where it stands; return whether it was finished. When `deadline` is over it is saved open."""
        stock_algorithm = self.settings.algo != "icebox"
        session: Any = (
            StockSession(self.game, self.settings, num_games=1)
            if stock_algorithm
            else Session(self.game, self.settings)
        )
        torch.set_num_threads(1)  # whatever the session chose
        try:
            if checkpoint.numbers(self.folder):
                self._load(session)
            (self._train_stock if stock_algorithm else self._train_ours)(session, deadline)
            done = bool(self.curve) and self.curve[-1]["steps"] >= self.settings.steps
            if done:
                self._write(session)
            else:
                checkpoint.save(self.folder, self._number(), self._state(session), keep=1)
        finally:
            session.close()
        return done

    def _train_ours(self, session: Session, deadline: Deadline) -> None:
        clock = _Clock(self)
        for tick in session.ticks():
            self._played(tick.step.episodes)
            if tick.steps >= self._due():
                clock.stop()
                self._judge(session, tick.steps, tick.updates)
                if tick.steps >= self.settings.steps:
                    return
                clock.start()
            if deadline:
                clock.stop()
                return

    def _train_stock(self, session: StockSession, deadline: Deadline) -> None:
        clock = _Clock(self)

        def on_beat(steps: int, episodes: list[Any]) -> bool:
            self._played(episodes)
            return not deadline

        def on_settled(steps: int) -> None:
            if steps >= self._due():
                clock.stop()
                self._judge(session, steps, session.algorithm._n_updates)
                clock.start()

        stock.train(
            session.algorithm,
            self.settings.steps,
            on_beat=on_beat,
            on_settled=on_settled,
            on_scalars=lambda steps, values: None,
            interval_s=3600.0,
        )
        clock.stop()

    def _played(self, episodes: Sequence[Any]) -> None:
        scores = [episode.score for episode in episodes]
        self.online.extend(scores)
        self.since += scores

    def _due(self) -> int:
        return (int(self.curve[-1]["steps"]) // self.suite.every + 1) * self.suite.every if self.curve else self.suite.every

    def _judge(self, session: Session | StockSession, steps: int, updates: int) -> None:
        seed = evaluation_seed(self.settings, steps)
        scores = self._scores(session, self.suite.episodes, seed)
        row = {
            "steps": steps,
            "updates": updates,
            "cpu_s": round(self.cpu_s, 2),
            "wall_s": round(self.wall_s, 2),
            "mean": round(float(np.mean(scores)), 3),
            "online": round(float(np.mean(self.online)), 3) if self.online else None,
            "training": round(float(np.mean(self.since)), 3) if self.since else None,
        }
        self.since = []
        self.curve.append(row)
        print(self.game, self.algorithm, f"s{self.seed}", row, flush=True)

    def _scores(self, session: Session | StockSession, episodes: int, seed: int) -> list[float]:
        return [episode.score for episode in session.judge.play(session.act(seed), episodes, seed)]

    def _write(self, session: Session | StockSession) -> None:
        scores = self._scores(session, self.suite.unseen, UNSEEN_SEED + self.seed)
        facts = spec(self.game, **family_settings(self.settings))
        write(
            self.name,
            {
                "suite": self.suite.name,
                "game": self.game,
                "algorithm": self.algorithm,
                "seed": self.seed,
                "protocol": protocol(facts.name, self.settings),
                "frames_per_step": facts.frame_skip,
                "device": "cuda" if torch.cuda.is_available() and self.settings.device != "cpu" else "cpu",
                "final": {"episodes": len(scores), "mean": float(np.mean(scores)), "scores": scores},
                "curve": self.curve,
                "settings": self.settings.model_dump(mode="json"),
            },
        )
        shutil.rmtree(self.folder, ignore_errors=True)

    def _number(self) -> int:
        return max(checkpoint.numbers(self.folder), default=0) + 1

    def _state(self, session: Session | StockSession) -> dict[str, Any]:
        own = {"curve": self.curve, "online": list(self.online), "since": self.since, "cpu_s": self.cpu_s, "wall_s": self.wall_s}
        return {"cell": own, "session": session.state_dict()}

    def _load(self, session: Session | StockSession) -> None:
        tree = checkpoint.load_newest(self.folder).tree
        session.load_state_dict(tree["session"])
        own = tree["cell"]
        self.curve, self.cpu_s, self.wall_s = list(own["curve"]), own["cpu_s"], own["wall_s"]
        self.online.extend(own["online"])
        self.since = list(own["since"])


class _Clock:
    """Adds the seconds between start and stop to a cell's."""

    def __init__(self, cell: Cell):
        self._cell = cell
        self.start()

    def start(self) -> None:
        self._began = (time.process_time(), time.perf_counter())

    def stop(self) -> None:
        self._cell.cpu_s += time.process_time() - self._began[0]
        self._cell.wall_s += time.perf_counter() - self._began[1]
        self.start()


def settings_of(suite: Suite, game: str, algorithm: str, seed: int) -> Settings:
    """Return the settings of one run: the launcher's for this game and preset, the algorithm's, the suite's steps."""
    entry = suite.algorithms[algorithm]
    tree = load_settings(game, preset=entry.preset).model_dump()
    for changes in (suite.settings, entry.settings):
        tree = merge(tree, changes)
    return Settings.model_validate(tree | {"seed": seed, "steps": suite.steps})


class Deadline:
    """Over when its minutes are, or when somebody asks the process to end."""

    def __init__(self, minutes: float):
        self._ends = time.monotonic() + 60 * minutes
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._now)

    @property
    def minutes_left(self) -> float:
        """Minutes until then, 0 when it is over."""
        return max(0.0, (self._ends - time.monotonic()) / 60)

    def __bool__(self) -> bool:
        return time.monotonic() >= self._ends

    def _now(self, number: int, frame: FrameType | None) -> None:
        self._ends = 0.0


def run(suite: Suite, games: list[str], algorithms: list[str], seeds: list[int], deadline: Deadline, cells: Path) -> bool:
    """Run the cells asked for, one after the other; return whether all are finished."""
    for seed in seeds:
        for game in games:
            # Who goes first alternates, so that a machine that grows slower is nobody's loss.
            for algorithm in algorithms if seed % 2 == 0 else reversed(algorithms):
                cell = Cell(suite, game, algorithm, seed, cells)
                if not cell.finished and (deadline or not cell.train(deadline)):
                    return False
    return True


def run_side_by_side(
    suite: Suite, games: list[str], algorithms: list[str], seeds: list[int], deadline: Deadline, cells: Path
) -> bool:
    """Run all algorithms of a game and seed at the same time, each in a process of its own; return as `run`."""
    for seed in seeds:
        for game in games:
            open_cells = [name for name in algorithms if not Cell(suite, game, name, seed, cells).finished]
            if open_cells and deadline:
                return False
            here = [sys.executable, __file__, "run", suite.name, "--games", game, "--seeds", str(seed)]
            more = ["--minutes", str(deadline.minutes_left), "--cells", str(cells)]
            children = [subprocess.Popen([*here, *more, "--algorithms", name]) for name in open_cells]
            while any(child.poll() is None for child in children):
                time.sleep(0.5)
                if deadline:
                    for child in children:
                        child.terminate()
            if any(child.returncode for child in children):
                raise SystemExit(f"{game}, seed {seed}: a run failed, see above")
    return not deadline


def main() -> None:
    """Run or report what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["run", "report"])
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--games", nargs="+", default=None, help="of the suite (all)")
    parser.add_argument("--algorithms", nargs="+", default=None, help="of the suite (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1e6, help="after these the open run is saved")
    parser.add_argument("--side-by-side", action="store_true", help="a process per algorithm, at the same time")
    parser.add_argument("--cells", type=Path, default=Path("runs"), help="where open runs are kept")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    if options.part == "report":
        from benchmarks.curves import report

        report(suite, RESULTS)
        return
    games = [game for game in suite.games if not options.games or game in options.games or game.split("/")[-1] in options.games]
    algorithms = [name for name in suite.algorithms if not options.algorithms or name in options.algorithms]
    runner = run_side_by_side if options.side_by_side else run
    finished = runner(suite, games, algorithms, options.seeds, Deadline(options.minutes), options.cells)
    print("all finished" if finished else "not finished: the same command goes on")


if __name__ == "__main__":
    main()
