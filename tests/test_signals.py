"""SIGTERM, SIGHUP and Ctrl-C at any moment of a run: it saves and ends, leaves no child, and goes on from there."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import short_runs
import torch
import torch._dynamo  # noqa: F401 - here, and not in every life
import torch.utils.tensorboard  # noqa: F401

from agent import checkpoint
from agent.cli import resume, stop, train  # noqa: F401 - as above
from agent.cli.main import main
from agent.cli.record import load_checkpoint
from agent.cli.session import Judge
from agent.learner import Learner
from agent.telemetry.rates import Rates
from agent.telemetry.run_folder import RunFolder
from agent.viewer.live_reader import LiveReader
from envs.classic import Replayable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked, since importing torch takes seconds")
LIMIT_S = 120.0  # a busy machine takes its time
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
MOMENTS = 4 * ["set-up"] + 8 * ["training"] + 6 * ["saving"] + 4 * ["evaluating"] + 2 * ["paused", "compiling", "hung"]
MOMENTS += ["judged games hung"]
ENDLESS: dict[str, Any] = short_runs.TINY | {
    "steps": 10**9,
    "learner": {"learning_starts": 64, "samples_per_insert": 4, "execution": "eager"},
    "evaluation": {"interval_steps": 400, "episodes": 2, "num_games": 2, "stop_at_score": None},
    "checkpoint": {"interval_steps": 40, "keep": 2},
}


def wait_for(what: Callable[[], Any]) -> Any:
    """What `what()` says as soon as it says something."""
    until = time.monotonic() + LIMIT_S
    while not (found := what()):
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.002)
    return found


class Life:
    """One process of a run, forked from this one, with something done to it before it starts."""

    def __init__(self, root: Path, words: list[str], prepare: Callable[[Life], object] = lambda life: None):
        self.page, self.err = mmap.mmap(-1, 2), root / "err"
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                os.dup2(os.open(self.err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - pytest's is another
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the suite under nohup ignores it
                torch.set_num_threads(1)
                prepare(self)
                code = main(words)
            finally:
                os._exit(code)

    # --- in the child ------------------------------------------------------------------------------------------------

    def reach(self) -> None:
        """Say that the moment has come."""
        self.page[0] = 1

    def hold(self) -> None:
        """Stay in this moment until the signal was sent."""
        self.reach()
        wait_for(lambda: self.page[1])

    def hang(self) -> None:
        """Never answer again."""
        self.reach()
        while True:
            time.sleep(0.01)

    # --- in the parent -----------------------------------------------------------------------------------------------

    def reached(self) -> bool:
        """Whether the moment has come; fails when the process has ended before."""
        assert self.code() is None, f"it ended before the moment: {self.err.read_text()}"
        return bool(self.page[0])

    def code(self) -> int | None:
        """The exit code, None while it runs."""
        if self.pid is not None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, self._code = None, os.waitstatus_to_exitcode(status)
                return self._code
            return None
        return self._code

    def send(self, *numbers: int) -> int:
        """Send signals; return the exit code once it has ended and left no child behind."""
        children = psutil.Process(self.pid).children(recursive=True)
        for number in numbers:
            os.kill(self.pid, number)
        self.page[1] = 1
        code = wait_for(lambda: None if self.code() is None else [self.code()])[0]
        wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
        return code

    def kill(self) -> None:
        """End it in any case."""
        if self.code() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def playing(pid: int) -> list[psutil.Process]:
    """The children of a process that are viewers."""
    found = []
    for each in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it has just ended
            if "play" in each.cmdline():
                found.append(each)
    return found


def at(moment: str, chance: random.Random) -> Callable[[Life], None]:
    """What is done to a process so that it says, and where need be waits, when the moment has come."""
    after = chance.randrange(40)

    def from_call(owner: Any, name: str, act: Callable[[], object], after: int = after) -> None:
        """Do `act` in every call of `owner.name` from number `after` on."""
        real, left = getattr(owner, name), [after]

        def stand_in(*given: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                act()
            return real(*given, **options)

        setattr(owner, name, stand_in)

    def prepare(life: Life) -> None:
        stop.PATIENCE_S, stop.NO_ANSWER_S = 1e6, 0.2  # what hangs is soon left, what is slow is never ended by force
        if moment == "long updates":
            from_call(torch.optim.Adam, "step", life.reach)
        elif moment in ("training", "paused"):
            from_call(Rates, "add", life.reach)
        elif moment == "saving":
            from_call(checkpoint, "write_new", life.hold, after % 7)
        elif moment == "evaluating":
            play = Judge.play

            def held(judge: Judge, act: Any, *given: Any, **options: Any) -> Any:
                return play(judge, lambda observation: (life.hold(), act(observation))[1], *given, **options)

            Judge.play = held
        elif moment == "compiling":
            Learner._wanted, Learner._resume_execution = lambda learner: "compiled", lambda learner, before: None
            Learner.unsettled = lambda learner, steps: learner._to_try is not None
            Learner._tried = lambda *given: life.hang()
        elif moment == "judged games hung":
            from_call(Judge, "play", lambda: from_call(Replayable, "step", life.hang), 0)
        elif moment == "hung":
            from_call(Replayable, "step", life.hang)
        elif moment == "hung where no signal is heard":
            stop.PATIENCE_S = 0.5
            deaf = partial(hashlib.pbkdf2_hmac, "sha256", b"", b"", 2**31 - 1)  # half an hour
            from_call(Replayable, "step", lambda: (life.reach(), deaf()), 400)

    return prepare


def sent(life: Life, moment: str, number: int, chance: random.Random, folder: RunFolder | None) -> int:
    """The exit code after one signal at a moment."""
    if moment == "set-up" and folder is not None:
        wait_for(lambda: json.loads((folder.path / "meta.json").read_text())["process"]["pid"] == life.pid)
    elif moment != "set-up":
        wait_for(life.reached)
    if moment == "training":
        time.sleep(chance.uniform(0.0, 0.2))
    if moment == "paused":
        LiveReader(folder.path).ask("pause")
        wait_for(lambda: life.code() is not None or "by a viewer: paused" in folder.log.read_text())
    return life.send(number)


def left_behind(folder: RunFolder, life: Life) -> int:
    """The step that the run stands at: whole, with nothing half-written beside it."""
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and folder.status == "stopped", life.err.read_text()
    names = [path.name for path in folder.path.rglob("*")]
    assert not [name for name in names if name.startswith((".tmp", ".del")) or name.endswith(".tmp")]
    assert "Traceback" not in life.err.read_text()
    return tree["steps"]


def begin(root: Path, settings: dict[str, Any]) -> tuple[list[str], RunFolder]:
    """The words that go on with a run that was stopped as soon as it was there, and its folder."""
    (root / "endless.yaml").write_text(json.dumps(settings))
    words = ["train", "cartpole", "--config", str(root / "endless.yaml"), "--runs-dir", str(root / "runs")]
    life = Life(root, words)
    try:
        path = wait_for(lambda: next((root / "runs").glob("cartpole/*/meta.json"), None)).parent
        folder = RunFolder.open(path)
        assert life.send(signal.SIGTERM) == 0, life.err.read_text()
        left_behind(folder, life)
    finally:
        life.kill()
    return ["resume", str(path)], folder


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.night)])
def test_at_any_moment_it_saves_and_goes_on(rounds: int, tmp_path: Path) -> None:
    """29 lives of one run, each stopped once: SIGTERM and SIGHUP end with 0, Ctrl-C with 130; all go on from there."""
    words, folder = begin(tmp_path, ENDLESS)
    chance = random.Random(7)
    moments = chance.sample(MOMENTS * rounds, len(MOMENTS) * rounds)
    steps = load_checkpoint(folder)[0]["steps"]
    for index, moment in enumerate(moments):
        number = SIGNALS[index % 3]
        life = Life(tmp_path, words, at(moment, chance))
        try:
            code = sent(life, moment, number, chance, folder)
        finally:
            life.kill()
        said = f"life {index}, {moment}: {life.err.read_text()}"
        assert code == (130 if number == signal.SIGINT else 0), said
        found = f"resumed at {steps:,} of" in said
        assert found or (moment == "hung" and f"The checkpoint at {steps:,} steps is safe" in said), said
        now = left_behind(folder, life)
        assert now >= steps and (now > steps or moment != "training"), said
        steps = now
    assert steps > 400


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_stable_baselines_stops_at_any_moment(algo: str, tmp_path: Path) -> None:
    """SB3's own runs end alike, also in the midst of updates that take for ever or of a game that does not answer."""
    chance = random.Random(algo)
    endless = {"n_epochs": 10**6} if algo == "ppo" else {"gradient_steps": 10**6}
    sb3 = {algo: short_runs.TINY["sb3"][algo] | endless}
    words, folder = begin(tmp_path, ENDLESS | {"algo": algo, "sb3": sb3})
    for moment, number in (("hung", signal.SIGTERM), ("long updates", signal.SIGHUP)):
        before = load_checkpoint(folder)[0]["steps"]
        life = Life(tmp_path, words, at(moment, chance))
        try:
            code = sent(life, moment, number, chance, folder)
        finally:
            life.kill()
        assert code == 0, f"{moment}: {life.err.read_text()}"
        assert left_behind(folder, life) >= before


def test_a_worker_that_hangs_does_not_keep_a_run(tmp_path: Path) -> None:
    """A game in a process of its own that does not answer is left, and its process is gone with the run's."""
    words, folder = begin(tmp_path, ENDLESS | {"game": {"num_games": 2, "vectorize": "workers"}})
    life = Life(tmp_path, words, at("hung", random.Random(1)))
    try:
        assert sent(life, "hung", signal.SIGTERM, random.Random(), folder) == 0, life.err.read_text()
    finally:
        life.kill()
    left_behind(folder, life)


def test_what_hears_no_signal_is_ended_by_force(tmp_path: Path) -> None:
    """A game that hangs in machine code ends with its run: after the patience, or at once with a second signal; what is
    lost, and what not, is said."""
    words, folder = begin(tmp_path, ENDLESS)
    prepare = at("hung where no signal is heard", random.Random(2))

    def endlessly_patient(life: Life) -> None:
        prepare(life)
        stop.PATIENCE_S = 1e6

    for numbers, prepared in (((signal.SIGTERM,), prepare), ((signal.SIGTERM, signal.SIGINT), endlessly_patient)):
        life = Life(tmp_path, words, prepared)
        try:
            wait_for(life.reached)
            # Which of two that are sent at once comes first is the system's affair.
            assert life.send(*numbers) in [128 + number for number in numbers], life.err.read_text()
        finally:
            life.kill()
        tree, skipped = load_checkpoint(folder)
        assert skipped == [] and tree["steps"] >= 40
        if len(numbers) == 1:
            last = life.err.read_text().splitlines()[-1]
            newest = f"Checkpoint {checkpoint.numbers(folder.checkpoints)[-1]} at {tree['steps']:,} steps is safe."
            assert "ended without a last checkpoint. " + newest in last
            assert last.endswith(f"icebox resume {folder.path}")


def test_while_the_viewer_beside_it_starts(tmp_path: Path) -> None:
    """`train --watch` that is stopped while its viewer is still loading takes that with it."""
    (tmp_path / "endless.yaml").write_text(json.dumps(ENDLESS))
    words = ["train", "cartpole", "--config", str(tmp_path / "endless.yaml"), "--runs-dir", str(tmp_path / "runs")]
    life = Life(tmp_path, [*words, "--watch"])
    try:
        viewer = wait_for(lambda: playing(life.pid))
        assert life.send(signal.SIGTERM) == 0, life.err.read_text()
    finally:
        life.kill()
    assert not viewer[0].is_running()
    left_behind(RunFolder.open(next((tmp_path / "runs").glob("cartpole/*/meta.json")).parent), life)
