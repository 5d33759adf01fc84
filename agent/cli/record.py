"""Everything a run writes and says while it trains, in one hand, whichever algorithm trains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from agent import checkpoint
from agent.cli.pictures import Act, Pictures, Values
from agent.cli.stop import Stop
from agent.cli.words import command as command_line
from agent.cli.words import complain
from agent.config import Settings
from agent.durable import make_directory, write_atomic
from agent.telemetry.board import Board
from agent.telemetry.evaluations import Evaluations, summary
from agent.telemetry.monitor import Monitor
from agent.telemetry.progress import Progress
from agent.telemetry.provenance import versions
from agent.telemetry.run_folder import RunFolder
from agent.types import Episode


FACTS = ("config.yaml", "command.txt", "meta.json")  # what makes a folder with checkpoints a run


class Beat:
    """Says once for every multiple of `interval` steps that has been reached; never when `interval` is 0.

    It follows from the step count alone, so it needs no state in a checkpoint.
    """

    def __init__(self, interval: int, steps: int):
        self._interval = interval
        self._next = (steps // interval + 1) * interval if interval else 0

    def due(self, steps: int) -> bool:
        """Return whether a multiple was reached since the last time."""
        if not self._interval or steps < self._next:
            return False
        self._next = (steps // self._interval + 1) * self._interval
        return True


class Record:
    """A run's folder, logs, dashboard, progress line and checkpoints, opened together and closed together."""

    def __init__(
        self,
        folder: RunFolder,
        game: str,
        settings: Settings,
        command: Sequence[str],
        *,
        quiet: bool,
        resumed: Mapping[str, Any] | None = None,
        stop: Stop | None = None,
    ):
        """`stop` is told what is safe, for the case that it ends the process."""
        self.folder = folder
        self.stop = stop or Stop()
        self.settings = settings
        steps = int(resumed["steps"]) if resumed else 0
        self._nowhere = open(os.devnull, "w", encoding="utf-8") if quiet else None  # noqa: SIM115 - closed by close
        self._lost: set[str] = set()
        self._files = {name: file.read_bytes() for name in FACTS if (file := folder.path / name).exists()}
        self.saved = steps if resumed else None  # the step whose state is in the newest checkpoint; None: none since
        self.progress = Progress(game, settings.steps, folder.log, stream=self._nowhere)
        self.monitor = Monitor(folder.monitor, game)
        self.evaluations = Evaluations(folder.evaluations)
        self.board = Board(folder.path, resumed_at=steps if resumed else None, warn=self.warn)
        if resumed:
            for part in ("monitor", "evaluations", "board"):
                getattr(self, part).load_state_dict(resumed[part])
        else:
            self.board.describe(settings, command, versions())
        self.pictures = Pictures(game, settings, self.progress.say)
        self.telemetry_s = 0.0  # that the dashboard has taken in this process
        # The step of the last evaluation.
        self.judged: int = max(resumed["evaluations"]["timesteps"], default=0) if resumed else 0
        self._left_best = _mean_of_best(folder) if resumed else None
        self._begun = self._flushed = time.monotonic()
        self._steps_begun = steps
        self._judging_s = 0.0  # that evaluations have taken in this process
        self._trained_s = float(resumed.get("seconds", resumed["monitor"]["elapsed_s"])) if resumed else 0.0

    def warn(self, sentence: str) -> None:
        """Say what went wrong, also where only that is wanted."""
        self.progress.say(sentence)
        if self._nowhere is not None:
            with suppress(OSError, ValueError):
                complain(sentence)

    @contextmanager
    def _spared(self, lost: str, *, once: bool = False) -> Iterator[None]:
        """Let a disk that is full or broken cost what is done inside, with a sentence, and not the run."""
        try:
            yield
        except OSError as error:
            if not (once and lost in self._lost):
                self.warn(f"{lost}, training goes on: {error}")
            self._lost.add(lost)

    def flush(self, steps: int, values: Callable[[], Mapping[str, float]], *, now: bool = False) -> None:
        """Write `values()` and the scores of recent episodes, if the telemetry's interval has passed or `now`."""
        if not now and time.monotonic() - self._flushed < self.settings.telemetry.interval_s:
            return
        self._flushed = time.monotonic()
        shown = {**self.monitor.means(), **values()}
        with self._telemetry():
            self.board.write(steps, shown)
        with self._spared("Episodes cannot be written to monitor.csv", once=True):
            self.monitor.flush()
        self.progress.update(steps, shown)

    @property
    def seconds(self) -> float:
        """Seconds that the run has trained, across resumes, without evaluations and without pauses."""
        return self._trained_s + time.monotonic() - self._begun - self._judging_s

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Count the time inside as an evaluation's."""
        started = self.seconds
        try:
            yield
        finally:
            self._judging_s += self.seconds - started

    def portray(self, steps: int, act: Act, q: Values | None, *, last: bool = False) -> None:
        """Show the policy `act` at play, with what `q` looks at, if it is time; see `Pictures`."""
        with self._telemetry():
            drawn = self.pictures.draw(steps, act, q, last=last)
            if drawn:
                self.board.show(steps, drawn)

    @contextmanager
    def _telemetry(self) -> Iterator[None]:
        """Count the time inside as the dashboard's."""
        started = time.perf_counter()
        yield
        self.telemetry_s += time.perf_counter() - started

    def show_average(self, steps: int) -> None:
        """End the progress line with the speed since the start or resume; the last interval may be an evaluation."""
        if steps > self._steps_begun:
            average = (steps - self._steps_begun) / (time.monotonic() - self._begun)
            self.progress.update(steps, {"time/steps_per_s": average})

    def evaluation(
        self,
        steps: int,
        episodes: Iterable[Episode],
        weights: Callable[[], Mapping[str, Any]],
        seen: Sequence[Episode] = (),
    ) -> float:
        """Take an evaluation's episodes, keep the weights when they are the best so far, and return the mean score.

        `seen` are episodes from the training seeds, played alike: they count for the gap only.
        """
        played = list(episodes)
        scores, lengths = [each.score for each in played], [each.length for each in played]
        best = self._best()
        values = summary(scores, lengths)
        with self._spared("The evaluation could not be written to evaluations.npz"):
            self.evaluations.add(steps, scores, lengths, self.seconds)
        self.judged = steps
        self.saved = None  # without this evaluation
        mean, gap = values["eval/mean_reward"], ""
        if seen:
            trained = sum(each.score for each in seen) / len(seen)
            values |= {"eval/train_mean_reward": trained, "eval/gap": trained - mean}
            gap = f"; on the training seeds {trained:.1f}, gap {trained - mean:.1f}"
        self.board.write(steps, values)
        is_best = best is None or mean > best
        self.progress.say(
            f"evaluation at {steps:,} steps: mean {mean:.1f} of {len(played)} episodes, 95% interval "
            f"[{values['eval/ci_low']:.1f}, {values['eval/ci_high']:.1f}]{', the best so far' if is_best else ''}{gap}"
        )
        if is_best:
            self._save_best(steps, mean, len(played), weights())
        return mean

    def _best(self) -> float | None:
        """Return the best mean so far, None before the first: a lost part of the run may have left a better one."""
        known = [mean for mean in (self.evaluations.best, self._left_best) if mean is not None]
        return max(known, default=None)

    def _save_best(self, steps: int, mean: float, episodes: int, weights: Mapping[str, Any]) -> None:
        directory = self.folder.path / "best"
        with self._spared("The best weights could not be kept"):
            # What a lost part of a resumed run has left there goes on counting, damaged or not.
            number = max(checkpoint.numbers(directory), default=0) + 1
            tree = {"weights": dict(weights), "steps": steps, "mean": mean, "episodes": episodes}
            checkpoint.save(directory, number, tree, keep=1)

    def leave_out(self, seconds: float) -> None:
        """Take it that the run has stood still for so long: its speed is told without that."""
        self._begun += seconds
        self._flushed += seconds

    def checkpoint(self, steps: int, agent: Callable[[], Mapping[str, Any]], *, last: bool = False) -> bool:
        """Save `agent()` and this record, durably, and say so; return whether that was done.

        A disk that is full costs this checkpoint only, unless it is the `last`: then OSError is raised.
        """
        try:
            self._rescue()
            number = max(checkpoint.numbers(self.folder.checkpoints), default=0) + 1
            tree = {
                "steps": steps,
                "agent": dict(agent()),
                "monitor": self.monitor.state_dict(),
                "evaluations": self.evaluations.state_dict(),
                "board": self.board.state_dict(),
                "seconds": self.seconds,
            }
            self.board.flush()
            with self.stop.writing():
                checkpoint.save(
                    self.folder.checkpoints,
                    number,
                    tree,
                    keep=self.settings.checkpoint.keep,
                    on_durable=lambda path: self._announce(steps, number),
                )
        except OSError as error:
            if last:
                raise
            self.warn(f"Training goes on without this checkpoint: {error}")
            return False
        return True

    def _rescue(self) -> None:
        """Make the run folder anew if somebody has removed it: a checkpoint is worth nothing without its settings."""
        if not self._files or (self.folder.path / "meta.json").exists():
            return
        make_directory(self.folder.path)
        for name, content in self._files.items():
            write_atomic(self.folder.path / name, content)
        self.warn("The folder of this run was removed, its logs are lost; it is made anew for the checkpoint.")

    def _announce(self, steps: int, number: int) -> None:
        self.saved, self.stop.newest = steps, f"Checkpoint {number} at {steps:,} steps"
        with self._spared("meta.json could not be written"):
            self.folder.note(steps=steps, checkpoint=number)
        self.progress.say(f"checkpoint {number} at {steps:,} steps is safe")

    def close(self) -> None:
        """Write what is left and close all files."""
        self.progress.close()
        with self._spared("The last episodes could not be written to monitor.csv"):
            self.monitor.close()
        self.board.close()
        if self._nowhere is not None:
            self._nowhere.close()


def load_checkpoint(folder: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """Return the newest intact checkpoint of a run, and a sentence about each newer one that is broken."""
    try:
        loaded = checkpoint.load_newest(folder.checkpoints)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder.path} has no checkpoint to go on from ({error}). "
            f"Start a new run with: {command_line('train', folder.game)}"
        ) from None
    return loaded.tree, loaded.skipped


def _mean_of_best(folder: RunFolder) -> float | None:
    """Return the mean score of the weights in best/, None where none are intact."""
    try:
        return float(checkpoint.load_newest(folder.path / "best").tree["mean"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
