"""Tests of agent/cli/record.py: when something is due, and what a failing disk costs."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_runs import settings

from agent import checkpoint
from agent.cli import record as module
from agent.cli.record import Beat, Record, load_checkpoint
from agent.telemetry.run_folder import RunFolder
from envs.step import Episode


@given(st.integers(0, 50), st.integers(0, 200), st.lists(st.integers(0, 60), max_size=30))
def test_a_beat_is_due_once_a_multiple_was_reached(interval: int, start: int, gaps: list[int]) -> None:
    """A beat is due exactly when a multiple of the interval lies behind the last step, up to this one; never with 0."""
    beat, steps = Beat(interval, start), start
    for gap in gaps:
        reached = any(interval and at % interval == 0 for at in range(steps + 1, steps + gap + 1))
        steps += gap
        assert beat.due(steps) == reached
        assert not beat.due(steps)


class Kept:
    """A record on a run folder of its own, and what the disk does."""

    def __init__(self, root: Path, quiet: bool = False, resumed: dict[str, Any] | None = None):
        self.settings = settings(telemetry={"interval_s": 3600.0})
        self.folder = RunFolder.create(root, "cartpole", 0, None, self.settings, ["test"])
        self.record = Record(self.folder, "cartpole", self.settings, ["test"], quiet=quiet, resumed=resumed)

    def evaluate(self, steps: int, mean: float) -> None:
        episodes = [Episode(0, mean - 1, 5), Episode(1, mean + 1, 5)]
        assert self.record.evaluation(steps, episodes, lambda: {"value": np.array([mean])}) == mean


@pytest.fixture
def kept(tmp_path: Path):
    """A record that is closed in the end."""
    made = Kept(tmp_path)
    yield made
    made.record.close()


def fails(*arguments: Any, **options: Any) -> None:
    """Stand in for a function that meets a full disk."""
    raise checkpoint.CheckpointError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_fails_costs_itself_only(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is said, older checkpoints stay, the next one is saved; only the last one raises."""
    kept.record.checkpoint(100, lambda: {"weights": 1})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", fails)
        kept.record.checkpoint(200, lambda: {"weights": 2})
        with pytest.raises(checkpoint.CheckpointError):
            kept.record.checkpoint(200, lambda: {"weights": 2}, last=True)
    assert "Training goes on without this checkpoint" in kept.folder.log.read_text()
    assert kept.folder.meta()["steps"] == 100
    kept.record.checkpoint(300, lambda: {"weights": 3})
    tree, skipped = load_checkpoint(kept.folder)
    assert (tree["steps"], tree["agent"], skipped) == (300, {"weights": 3}, [])
    assert (kept.folder.meta()["steps"], kept.folder.meta()["checkpoint"]) == (300, 2)


def test_logs_that_fail_do_not_end_a_run(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither monitor.csv nor evaluations.npz nor the best weights are worth a run; each loss is said."""
    monkeypatch.setattr(kept.record.monitor, "flush", fails)
    monkeypatch.setattr(kept.record.evaluations, "add", fails)
    monkeypatch.setattr(checkpoint, "save", fails)
    kept.record.flush(100, dict, now=True)
    kept.record.flush(200, dict, now=True)
    kept.evaluate(200, 7.0)
    log = kept.folder.log.read_text()
    assert log.count("monitor.csv, training goes on") == 1
    assert "evaluations.npz, training goes on" in log and "The best weights could not be kept" in log
    assert kept.record.judged == 200
    monkeypatch.undo()


def test_quiet_is_quiet_but_for_what_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --quiet evaluations and checkpoints are only logged; a checkpoint that fails is said."""
    quiet = Kept(tmp_path, quiet=True)
    quiet.evaluate(100, 1.0)
    quiet.record.checkpoint(100, dict)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(checkpoint, "save", fails)
    quiet.record.checkpoint(200, dict)
    quiet.record.close()
    err = capsys.readouterr().err
    assert err.startswith("icebox: Training goes on without this checkpoint") and err.count("\n") == 1
    assert "evaluation at 100 steps" in quiet.folder.log.read_text()


def test_the_best_weights_are_those_of_the_best_evaluation(kept: Kept) -> None:
    """Only an evaluation that is better than all before replaces the weights that are kept."""
    for steps, mean in ((100, 5.0), (200, 9.0), (300, 3.0), (400, 9.0)):
        kept.evaluate(steps, mean)
    tree = checkpoint.load_newest(kept.folder.path / "best").tree
    assert (tree["steps"], tree["mean"], tree["episodes"], tree["weights"]["value"].tolist()) == (200, 9.0, 2, [9.0])
    assert kept.folder.log.read_text().count("the best so far") == 2


def test_the_gap_is_that_between_training_and_unseen_seeds(kept: Kept) -> None:
    """Episodes on the training seeds are said and drawn beside the others; score and best are without them."""
    written: dict[str, float] = {}
    kept.record.board.write = lambda steps, values: written.update(values)
    unseen, seen = ([Episode(0, score, 5) for score in scores] for scores in ((1.0, 3.0), (4.0, 5.0)))
    assert kept.record.evaluation(100, unseen, dict) == 2.0
    assert not written.keys() & {"eval/gap", "eval/train_mean_reward"}
    assert kept.record.evaluation(200, unseen, dict, seen) == kept.record.evaluations.best == 2.0
    assert (written["eval/mean_reward"], written["eval/train_mean_reward"], written["eval/gap"]) == (2.0, 4.5, 2.5)
    first, second = (line for line in kept.folder.log.read_text().splitlines() if "evaluation at" in line)
    assert first.endswith("the best so far") and second.endswith("; on the training seeds 4.5, gap 2.5")


def test_a_resumed_record_goes_on_where_the_checkpoint_was(kept: Kept) -> None:
    """Episodes and evaluations after the checkpoint are gone from their files; the best before it still counts."""
    kept.record.monitor.record([Episode(0, 1.0, 10)])
    kept.evaluate(100, 5.0)
    kept.record.checkpoint(150, dict)
    kept.record.monitor.record([Episode(0, 2.0, 20)])
    kept.evaluate(200, 9.0)
    kept.record.close()
    tree, _ = load_checkpoint(kept.folder)
    again = Record(kept.folder, "cartpole", kept.settings, ["test"], quiet=True, resumed=tree)
    assert (again.judged, again.evaluations.best, again.monitor.episodes) == (100, 5.0, 1)
    again.close()
    assert [row.split(",")[:2] for row in kept.folder.monitor.read_text().splitlines()[2:]] == [["1.0", "10"]]
    with np.load(kept.folder.evaluations) as arrays:
        assert arrays["timesteps"].tolist() == [100]


def test_a_lost_part_of_a_run_leaves_its_best_weights(kept: Kept) -> None:
    """Those of an evaluation after the checkpoint stay until a better one comes, as long as they are intact."""
    kept.evaluate(100, 5.0)
    kept.record.checkpoint(150, dict)
    kept.evaluate(200, 9.0)
    kept.record.close()
    tree, _ = load_checkpoint(kept.folder)
    kept.record = Record(kept.folder, "cartpole", kept.settings, ["test"], quiet=True, resumed=tree)
    for mean, best in ((7.0, 9.0), (9.0, 9.0), (9.5, 9.5)):
        kept.evaluate(300, mean)
        assert checkpoint.load_newest(kept.folder.path / "best").tree["mean"] == best


def test_numbers_are_asked_for_only_when_they_are_written(kept: Kept) -> None:
    """Between two flushes nothing is asked, since asking waits for the device; `now` asks."""
    asked = []
    for _ in range(3):
        kept.record.flush(100, lambda: asked.append(1) or {})
    assert asked == []
    kept.record.flush(100, lambda: asked.append(1) or {}, now=True)
    assert asked == [1]


def test_the_last_line_shows_the_average_speed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end the progress line shows steps per second since the start, not those of the last interval."""
    kept.record.flush(500, lambda: {"time/steps_per_s": 3.0}, now=True)
    begun = kept.record._begun
    monkeypatch.setattr(module.time, "monotonic", lambda: begun + 5)
    kept.record.show_average(600)
    monkeypatch.undo()
    kept.record.progress.close()
    assert kept.folder.log.read_text().splitlines()[-1].endswith("600/600  100%  120 steps/s  ETA 0:00")


def test_no_checkpoint_is_said_with_a_remedy(kept: Kept) -> None:
    """A run without an intact checkpoint names the command that starts a new one."""
    with pytest.raises(FileNotFoundError, match="Start a new run with: icebox train cartpole"):
        load_checkpoint(kept.folder)


def test_seconds_of_training_leave_evaluations_and_pauses_out(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written beside an evaluation are the seconds that the run has trained, across a resume."""
    record, now = kept.record, kept.record._begun
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    now += 10.0
    with record.judging():
        now += 100.0
    now += 7.0
    record.leave_out(5.0)
    kept.evaluate(100, 5.0)
    assert record.seconds == pytest.approx(12.0)
    record.checkpoint(150, dict)
    record.close()
    tree, _ = load_checkpoint(kept.folder)
    again = Record(kept.folder, "cartpole", kept.settings, ["test"], quiet=True, resumed=tree)
    now += 3.0
    assert again.seconds == pytest.approx(15.0)
    again.close()
    with np.load(kept.folder.evaluations) as arrays:
        assert arrays["seconds"].tolist() == pytest.approx([12.0])
