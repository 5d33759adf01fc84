"""What the machine does to a run: disks that are full, read-only or gone, clocks that jump, terminals that close."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from faults.crash_states import put_in
from faults.failing_os import FailingOs
from short_runs import settings
from test_drive import When, begun, saved_at

from agent import checkpoint
from agent.cli.drive import drive
from agent.cli.main import _open_streams, main
from agent.cli.record import load_checkpoint
from agent.telemetry.lock import Lock
from agent.telemetry.progress import Progress
from agent.telemetry.rates import Rates
from agent.telemetry.run_folder import RunFolder, find, list_runs
from agent.types import Tick
from envs.step import Episode, Step

ROOT = Path(__file__).resolve().parents[1]
SHORT: dict[str, Any] = {
    "steps": 800,
    "learner": {"execution": "eager", "learning_starts": 100, "samples_per_insert": 1},
    "evaluation": {"interval_steps": 0},
    "checkpoint": {"interval_steps": 50},
    "telemetry": {"interval_s": 0.01},
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def removed(path: Path) -> None:
    """Remove a folder in which another thread may be making a file."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def trained(root: Path, at: dict[int, Callable[[RunFolder], object]]) -> tuple[RunFolder, list[str]]:
    """Train a short run during which things happen at steps; return its folder and all that was said."""
    said: list[str] = []
    with begun(root, settings(**SHORT)) as (session, record, folder):
        say, left = record.progress.say, dict(at)
        record.progress.say = lambda sentence: (said.append(sentence), say(sentence))

        def look() -> bool:
            for step in [step for step in left if session.steps >= step]:
                left.pop(step)(folder)
            return False

        assert drive(session, record, When(look)) and not left
        episodes = record.monitor.episodes
    rows = folder.monitor.read_text().splitlines()[2:] if folder.monitor.exists() else []
    assert all(row.count(",") == 2 and float(row.split(",")[0]) > 0 for row in rows)
    assert len(rows) == episodes or not folder.monitor.exists()
    return folder, said


def stuff(folder: RunFolder) -> None:
    """Fill the disk to its last byte."""
    for size in (65_536, 1):
        try:
            with open(folder.path / "stuffing", "ab", buffering=0) as file:
                while file.write(bytes(size)):
                    pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_full_disk_costs_the_checkpoints_that_do_not_fit(small_disk: Path) -> None:
    """Training goes on and every loss is said; with room again the next checkpoint and all episodes are there."""
    folder, said = trained(small_disk, {210: stuff, 450: lambda folder: (folder.path / "stuffing").unlink()})
    lost = [sentence for sentence in said if "Training goes on without this checkpoint" in sentence]
    assert len(lost) == 4 and all("No space left on device" in sentence for sentence in lost)
    assert sum("The TensorBoard dashboard stops here, training goes on" in sentence for sentence in said) == 1
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and tree["steps"] == folder.meta()["steps"] >= 800
    safe = [sentence for sentence in said if sentence.endswith("is safe")]
    assert len(safe) == 16 - len(lost)
    assert not [path for path in folder.path.rglob("*") if path.name.startswith((".tmp", ".del"))]


def test_a_run_does_not_begin_on_a_disk_that_takes_nothing(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full or read-only: one sentence with the remedy, code 1, and not even a folder."""
    (small_disk / "runs").mkdir()
    stuff(RunFolder(small_disk))
    for reason in ("No space left on device", "Read-only file system"):
        assert main(["train", "cartpole", "--device", "cpu", "--runs-dir", str(small_disk / "runs")]) == 1
        err = capsys.readouterr().err
        assert reason in err and "--runs-dir" in err and err.count("\n") == 1
        assert not [path for path in (small_disk / "runs").rglob("*") if path.is_file()]
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("nth", [0, 7, 23])
def test_a_disk_that_fails_once_costs_one_checkpoint(
    code: int, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever operation is refused for whatever reason, one checkpoint at most is lost, and that is said."""
    disk = FailingOs(nth, code)
    folder, said = trained(tmp_path, {120: lambda folder: put_in(monkeypatch, checkpoint, disk)})
    assert disk.failed
    lost = [sentence for sentence in said if "raining goes on without this checkpoint" in sentence]
    assert len(lost) <= 1 and len(saved_at(folder)) == 16 - len(lost)
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and tree["steps"] >= 800


def test_a_disk_that_stays_read_only_ends_a_run_with_its_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that lies behind the last checkpoint is lost, which the exit says; what was safe before is intact."""
    disk = FailingOs(0, errno.EROFS, lasting=True)
    with pytest.raises(OSError, match="Read-only file system"):
        trained(tmp_path, {220: lambda folder: put_in(monkeypatch, checkpoint, disk)})
    monkeypatch.undo()
    folder = RunFolder.open(find(tmp_path, "latest"))
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and 200 <= tree["steps"] < 220


def test_a_folder_that_is_removed_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training goes on; the next checkpoint lies in a folder that can be resumed. Its older logs are lost."""
    folder, said = trained(tmp_path, {220: lambda folder: removed(folder.path)})
    assert sum("was removed" in sentence for sentence in said) == 1
    assert folder.meta()["steps"] >= 800 and folder.settings() == settings(**SHORT)
    assert main(["resume", str(folder.path), "--steps", "900", "--quiet"]) == 0
    assert folder.meta()["steps"] >= 900 and folder.status == "done"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_suspended_machine_slows_one_interval(tmp_path: Path) -> None:
    """Hours that the clock jumps show once, as slowness; the rates and the remaining time are those of before then."""
    clock, shown = Clock(), []
    rates = Rates(clock=clock)
    progress = Progress("game", 100_000, tmp_path / "train.log", clock=clock)
    one = np.zeros(1, bool)
    step, steps = Step(np.zeros((1, 1)), np.zeros(1), one, one, one, ()), 0
    for asleep_s in (0.0, 30_000.0, 0.0):
        clock.now += asleep_s
        for _ in range(100):
            steps, clock.now = steps + 1, clock.now + 0.01
            rates.add(Tick(steps, 0, step, np.zeros(1, np.int64), 0.002, 0.0, 0.008, 0.0))
        taken = rates.take()
        assert all(np.isfinite(value) and value >= 0.0 for value in taken.values())
        assert sum(value for tag, value in taken.items() if "/share_" in tag) == pytest.approx(1.0)
        progress.update(steps, taken)
        shown.append(taken["time/steps_per_s"])
    progress.close()
    assert shown[0] == pytest.approx(100.0) == pytest.approx(shown[2]) and 0.0 < shown[1] < 0.01
    assert "ETA 16:37" in (tmp_path / "train.log").read_text().splitlines()[-1]


def test_a_wall_clock_that_is_set_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints go on counting, the resumed run ends, the next run is the game's latest, and no lock is stuck."""
    runs, real, off = tmp_path / "runs", time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + off[0])
    code, folder = short_runs.train(runs, "cartpole", "--quiet", "--steps", "300", "--evaluation.interval-steps", "0")
    newest = checkpoint.numbers(folder.checkpoints)[-1]
    for off[0] in (-1e6, 1e7):
        steps = folder.meta()["steps"] + 100
        assert main(["resume", str(folder.path), "--quiet", "--steps", str(steps)]) == 0
        assert checkpoint.numbers(folder.checkpoints)[-1] > newest and load_checkpoint(folder)[0]["steps"] >= steps
        newest = checkpoint.numbers(folder.checkpoints)[-1]
    off[0] = 0.0
    ahead = folder.path / f".lock-{max(int(path.name[6:]) for path in folder.path.glob('.lock-*')) + 1}"
    ahead.write_text("")  # a crash while it was written, by a clock that was an hour ahead
    os.utime(ahead, (real() + 3600.0,) * 2)
    Lock(folder.path).acquire()
    assert [row.age_s >= 0.0 for row in list_runs(runs)] == [True]


def test_logs_that_cannot_be_written_are_said_once(tmp_path: Path) -> None:
    """A disk that takes no line of monitor.csv or train.log costs those lines, and the run is done."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with begun(tmp_path, settings(**SHORT)) as (_, record, _):
        said: list[str] = []
        record.monitor._file.close()
        record.monitor._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the record closes it
        record.progress._log, record.progress._print = Path("/dev/full"), said.append
        for steps in range(5):
            record.monitor.record([Episode(0, 1.0, 10)])
            record.flush(steps, dict, now=True)
        assert sum("cannot be written to monitor.csv" in each for each in said) == 1
        assert sum("train.log cannot be written, training goes on" in each for each in said) == 1
        assert record.monitor.means()["rollout/ep_len_mean"] == 10.0


def test_a_reader_of_its_output_that_is_gone_does_not_end_a_run(tmp_path: Path) -> None:
    """Whoever reads stdout and stderr dies: the run goes on to its end, is saved, and counts as done, with code 0."""
    (tmp_path / "tiny.yaml").write_text(str(short_runs.TINY).replace("'", '"'))
    words = ["train", "cartpole", "--config", str(tmp_path / "tiny.yaml"), "--runs-dir", str(tmp_path / "runs")]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        process.stdout.close()
        assert process.stderr.readline().startswith(b"cartpole: 600 steps")
        process.stderr.close()
        assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()
    folder = RunFolder.open(find(tmp_path / "runs", "latest"))
    assert folder.status == "done" and load_checkpoint(folder)[0]["steps"] >= 600
    assert "evaluation at" in folder.log.read_text()


def test_a_program_started_without_streams_has_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`icebox train 2>&-` must not write its progress into the first file that is opened."""
    monkeypatch.setattr(sys, "stderr", None)
    _open_streams()
    with sys.stderr as stream:
        assert stream.name == os.devnull and stream.writable()
