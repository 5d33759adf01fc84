"""Tests of agent/cli/control.py: what is asked of a run is done and acknowledged, and who looks changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lives import differences, what_lasts
from short_runs import settings
from test_drive import When, begun

from agent import checkpoint
from agent.cli.control import Control, Stopwatch
from agent.cli.drive import drive, drive_stock
from agent.cli.session import Session
from agent.cli.stop import Stop
from agent.viewer.live_reader import LiveReader

ROOT = Path(__file__).parent.parent
ANSWER_S = 30.0  # a busy machine takes its time
ENDLESS: dict[str, Any] = {
    "steps": 1_000_000,
    "evaluation": {"interval_steps": 0, "epsilon": 0.0},
    "checkpoint": {"interval_steps": 0},
    "learner": {"execution": "eager", "learning_starts": 100, "samples_per_insert": 4},
}


def wait_for(what: Callable[[], Any]) -> Any:
    """What `what()` says as soon as it says something."""
    until = time.monotonic() + ANSWER_S
    while not (found := what()):
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.002)
    return found


class Viewer(threading.Thread):
    """A viewer in a thread: plays `script(self)`, then ends the run."""

    def __init__(self, session: Any, record: Any, stop: Stop, script: Callable[[Viewer], None]):
        super().__init__(daemon=True)
        self.session, self.record, self.stop, self.script = session, record, stop, script
        self.live = LiveReader(record.folder.path)
        self.meta: dict[str, Any] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.wait(lambda meta: meta["steps"] > 150)
            self.script(self)
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            self.error = error
        finally:
            self.stop.signal = self.stop.signal or signal.SIGINT

    def wait(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first publication of which `until` is true."""

        def newest() -> dict[str, Any] | None:
            self.live.watch()
            if (found := self.live.read()) is not None:
                self.meta = found[0]
            return self.meta if self.meta and until(self.meta) else None

        return wait_for(newest)

    def ask(self, what: str) -> tuple[bool, str]:
        """Ask, and return what was acknowledged."""
        number = self.live.ask(what)
        meta = self.wait(lambda meta: (meta["acknowledged"] or {}).get("id") == number)
        return meta["acknowledged"]["ok"], meta["acknowledged"]["said"]


def played(root: Path, script: Callable[[Viewer], None], *, change: Any = None, **changes: Any) -> Any:
    """Train cartpole until `script` has been played; return session, record and folder of the run, which is closed."""
    with begun(root, settings(**(ENDLESS | changes))) as (session, record, folder):
        if change is not None:
            change(session)
        stop = Stop()
        viewer = Viewer(session, record, stop, script)
        with Control(session, record, stop) as control:
            viewer.start()
            (drive if isinstance(session, Session) else drive_stock)(session, record, stop, control)
            viewer.join()
        if viewer.error is not None:
            raise viewer.error
        assert not (folder.path / "live").exists()
        if isinstance(session, Session):
            session.replay.check()
    return session, record, folder


def test_a_pause_stops_everything_until_it_goes_on(tmp_path: Path) -> None:
    """Paused, no step is played and none learned; figures go on, and afterwards so does the run."""

    def script(viewer: Viewer) -> None:
        assert viewer.ask("go on") == (True, "It is not paused: training.")
        assert viewer.ask("pause")[0] and viewer.meta["mode"] == "paused"
        before, at = what_moves(viewer.session), viewer.meta["time"]
        viewer.wait(lambda meta: meta["time"] > at + 1.5)
        assert what_moves(viewer.session) == before and viewer.meta["steps_per_s"] == 0.0
        assert viewer.ask("go on") == (True, "training goes on") and viewer.meta["mode"] == "training"
        viewer.wait(lambda meta: meta["steps"] > before[0] + 50)

    _, _, folder = played(tmp_path, script)
    assert "asked by a viewer: paused" in folder.log.read_text()


def what_moves(session: Session) -> tuple[int, int, int]:
    """What a run that trains changes."""
    return session.clock.steps, session.learner.updates, len(session.replay)


@pytest.mark.parametrize("stateful", [True, False])
def test_inference_only_plays_and_keeps_nothing(stateful: bool, tmp_path: Path) -> None:
    """Greedy steps on the training games that are not counted, learned, stored or logged; then training goes on.

    A checkpoint that is taken meanwhile is one that a run can go on from.
    """
    saved: list[int] = []

    def script(viewer: Viewer) -> None:
        session = viewer.session
        assert viewer.ask("inference only")[0] and viewer.meta["mode"] == "inference only"
        last = viewer.meta["picture"]  # of training
        viewer.wait(lambda meta: meta["picture"] > last and meta["q"] is not None)
        rows = session.replay._valid.sum()  # after the cut, behind which they can all be sampled
        before, logged = what_moves(session), viewer.record.monitor.means()
        weights = [parameter.clone() for parameter in session.network.parameters()]
        games, shown = session.games.current, set()
        while len(shown) < 12:
            viewer.wait(lambda meta: meta["q"] is not None and meta["picture"] not in shown)
            shown.add(viewer.meta["picture"])
            assert viewer.meta["action"] == int(np.argmax(viewer.meta["q"]))
        assert what_moves(session) == before and session.games.current is not games
        assert viewer.record.monitor.means() == logged
        assert all(map(lambda a, b: bool((a == b).all()), session.network.parameters(), weights))
        ok, said = viewer.ask("checkpoint")
        assert ok and said.endswith(f"at {before[0]:,} steps is safe") and viewer.meta["mode"] == "inference only"
        saved.append(before[0])
        assert session.replay._valid.sum() == rows
        assert viewer.ask("pause")[0] and viewer.ask("go on")[0] and viewer.meta["mode"] == "inference only"
        assert viewer.ask("train")[0] and viewer.meta["mode"] == "training"
        viewer.wait(lambda meta: meta["steps"] > before[0] + 100)

    def change(session: Session) -> None:
        session.games.stateful = stateful

    session, _, folder = played(tmp_path, script, change=change)
    trees = [checkpoint.load(path) for path in sorted(folder.checkpoints.glob("checkpoint-*"))]
    (tree,) = [tree for tree in trees if tree["steps"] == saved[0]]
    other = Session("cartpole", session.settings)
    try:
        other.load_state_dict(tree["agent"])
        ticks = other.ticks()
        for _ in range(60):
            next(ticks)
        other.replay.check()
        assert other.clock.steps > saved[0] + 100
    finally:
        other.close()


def test_a_checkpoint_and_a_stop_are_asked_for(tmp_path: Path) -> None:
    """A checkpoint is taken at once and training goes on; a stop ends the run as Ctrl-C would, with its last one."""
    said = []

    def script(viewer: Viewer) -> None:
        said.append(viewer.ask("checkpoint"))
        before = viewer.meta["steps"]
        viewer.wait(lambda meta: meta["steps"] > before + 50)
        said.append(viewer.ask("stop"))

    session, _, folder = played(tmp_path, script)
    assert said[0][0] and said[0][1].startswith("checkpoint 1 at ") and said[1][0]
    assert checkpoint.numbers(folder.checkpoints)[-1] == 2
    assert folder.meta()["steps"] == session.clock.steps > 150


def test_a_stop_is_heeded_while_paused_and_while_judged(tmp_path: Path) -> None:
    """Ctrl-C ends a pause; a stop that a viewer asks for ends an evaluation, which is owed then."""
    played(tmp_path / "paused", lambda viewer: viewer.ask("pause"))  # its end sets the signal

    def script(viewer: Viewer) -> None:
        wait_for(lambda: viewer.session.judge._games)
        assert viewer.ask("stop")[0]

    evaluation = {"interval_steps": 200, "episodes": 1000}
    _, record, folder = played(tmp_path / "judged", script, evaluation=evaluation)
    assert record.evaluations.history == [] and checkpoint.numbers(folder.checkpoints)


@contextmanager
def crowd(folder: Path) -> Iterator[None]:
    """A viewer that looks as often as it can."""
    live, over = LiveReader(folder), threading.Event()

    def look() -> None:
        while not over.is_set():
            live.watch()
            live.read()
            live.weights()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("watched", [False, True])
def test_who_looks_changes_nothing(watched: bool, tmp_path: Path) -> None:
    """A run that is published, watched or not, is bit for bit the run without any of it."""
    chosen = settings(learner=ENDLESS["learner"])
    with begun(tmp_path / "alone", chosen) as (session, record, alone):
        assert drive(session, record, When())
    with begun(tmp_path, chosen) as (session, record, folder):
        with Control(session, record, When()) as control:
            if watched:
                with crowd(folder.path):
                    assert drive(session, record, When(), control)
                assert control._publisher._pictures > 0
            else:
                assert drive(session, record, When(), control)
            assert control._publisher._open
    assert differences(what_lasts(folder), what_lasts(alone)) == []


def test_viewers_that_are_killed_disturb_nothing(tmp_path: Path) -> None:
    """Viewers that read, watch and ask, killed at any moment, leave a run that trains."""
    source = (
        "import sys; from pathlib import Path; from agent.viewer.live_reader import LiveReader\n"
        "live = LiveReader(Path(sys.argv[1])); print(0, flush=True)\n"
        "while True: live.watch(); live.read(); live.weights()"
    )

    def script(viewer: Viewer) -> None:
        for delay_s in (0.0, 0.01, 0.05):
            command = [sys.executable, "-c", source, str(viewer.record.folder.path)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(delay_s)
            process.kill()
            process.wait()
            before = viewer.session.clock.steps
            viewer.wait(lambda meta: meta["steps"] > before + 20)
        (viewer.live.folder / "requests" / f".{time.time_ns()}.tmp").write_text("killed while asking")

    played(tmp_path, script)


def test_malformed_requests_do_nothing(tmp_path: Path) -> None:
    """What is no request is removed without a word, and the next one is answered."""

    def script(viewer: Viewer) -> None:
        for name, text in (("1.json", "{"), ("2.json", '{"id": 2, "what": "explode"}'), ("x", "stop")):
            (viewer.live.folder / "requests" / name).write_text(text)
        assert viewer.ask("pause")[0]
        assert viewer.ask("train")[0]
        wait_for(lambda: not list((viewer.live.folder / "requests").iterdir()))

    played(tmp_path, script)


def test_a_pause_is_no_training_time(tmp_path: Path) -> None:
    """The rates, the remaining time and the average speed are told without it."""
    spent: list[float] = []

    def script(viewer: Viewer) -> None:
        begun_at = viewer.record._begun
        viewer.ask("pause")
        time.sleep(0.7)
        viewer.ask("train")
        viewer.wait(lambda meta: meta["mode"] == "training")
        wait_for(lambda: viewer.record._begun > begun_at)
        spent.append(viewer.record._begun - begun_at)

    played(tmp_path, script)
    assert spent[0] > 0.6


def test_a_stopwatch_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds inside are left out, of several stops too; inside it shows the moment of the stop."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Stopwatch()
    begun_at = clock()
    for _ in range(2):
        now[0] += 1.0
        with clock.stopped():
            shown = clock()
            now[0] += 10.0
            assert clock() == shown
    now[0] += 0.5
    assert clock() - begun_at == 2.5 and clock.left_out_s == 20.0


def test_a_pause_is_no_missed_deadline(tmp_path: Path) -> None:
    """By the wall clock a pause passes no deadline: it is one stop of the clock."""

    def script(viewer: Viewer) -> None:
        pace = viewer.session.pace
        viewer.ask("pause")
        before = pace.deadlines, pace.missed, pace._stops
        time.sleep(0.5)
        assert (pace.deadlines, pace.missed, pace._stops) == before
        viewer.ask("go on")
        wait_for(lambda: pace.deadlines > before[0] + 5)
        assert pace._stops > before[2]
        assert viewer.ask("inference only")[0]
        before = pace.deadlines
        viewer.wait(lambda meta: meta["mode"] == "inference only" and meta["q"] is not None)
        assert pace.deadlines == before
        viewer.ask("train")
        wait_for(lambda: pace.deadlines > before + 5)

    played(tmp_path, script, game={"num_games": 1, "realtime": 200.0})


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_stable_baselines_is_controlled_alike(algo: str, tmp_path: Path) -> None:
    """Figures, pictures, pause, checkpoint and stop; what its algorithms cannot do is said."""

    def script(viewer: Viewer) -> None:
        viewer.wait(lambda meta: meta["scene"] is not None)
        assert viewer.meta["q"] is None and viewer.meta["shares"] is None
        assert (viewer.meta["replay_capacity"] is None) == (algo == "ppo")
        ok, said = viewer.ask("inference only")
        assert not ok and "cannot act without learning" in said and viewer.meta["mode"] == "training"
        assert viewer.ask("checkpoint")[0]
        assert viewer.ask("pause")[0]
        before = viewer.session.steps
        assert not viewer.ask("checkpoint")[0]
        time.sleep(0.2)
        assert viewer.session.steps == before
        assert viewer.ask("go on")[0]
        viewer.wait(lambda meta: meta["steps"] > before + 50)
        assert viewer.ask("stop")[0]

    changes = {"algo": algo, "replay": {"capacity": 2000}, "steps": 50_000}
    _, _, folder = played(tmp_path, script, **changes)
    assert len(checkpoint.numbers(folder.checkpoints)) >= 2


def test_a_live_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A run that nobody can look at trains to its end and says so."""
    chosen = settings(learner=ENDLESS["learner"], steps=200)
    with begun(tmp_path, chosen) as (session, record, folder):
        (folder.path / "live").write_text("in the way")
        with Control(session, record, When()) as control:
            assert drive(session, record, When(), control)
    log = folder.log.read_text()
    assert "Nobody can look at this run" in log and "cannot be controlled from a viewer" in log


def test_ctrl_c_ends_a_paused_run_at_once(tmp_path: Path) -> None:
    """The real signal, while paused: the loop is left without another step."""
    with begun(tmp_path, settings(**ENDLESS)) as (session, record, _), Stop() as stop:
        at: list[int] = []

        def script(viewer: Viewer) -> None:
            viewer.ask("pause")
            at.append(viewer.session.clock.steps)
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: stop.signal is not None)

        viewer = Viewer(session, record, stop, script)
        with Control(session, record, stop) as control:
            viewer.start()
            assert not drive(session, record, stop, control)
            viewer.join()
        assert viewer.error is None and session.clock.steps == at[0] and stop.signal == signal.SIGINT
