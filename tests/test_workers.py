"""Games under supervision: whatever a worker does, a fresh one takes its place and the others keep their step."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from envs import workers
from envs.fakes import CountingGame
from envs.host import counted
from envs.make import make_vector_env
from envs.spec import game_seeds
from envs.step import Step
from envs.workers import WorkerVector
from tests.faults.broken_games import DEEDS, FAULTS, GARBAGE, BrokenGame, Fickle, registered

GAMES = 8
HANGS = ("hang", "stop")
SHORT_S = 2.0  # far more than a sound worker needs on a busy machine
LONG_S = 60.0


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a vector of broken games by their options; all of them are closed in the end, and no child is left."""
    before = children()
    made, names = [], []

    def make(num_games: int = GAMES, *, vectorize: str = "workers", deadline_s: float = LONG_S, **options: Any) -> Any:
        name = registered(partial(options.pop("game", BrokenGame), **options))
        names.append(name)
        vector = make_vector_env(
            f"gym:{name.__enter__()}", num_games, 5, vectorize=vectorize, deadline_s=deadline_s
        )
        made.append(vector)
        return vector

    yield make
    for vector in made:
        vector.close()
    for name in names:
        name.__exit__(None, None, None)
    assert children() <= before


def children() -> set[int]:
    """The ids of all processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def same_row(one: Step, other: Step, row: int) -> bool:
    """Whether two steps agree about one game, bit for bit."""
    fields = ("observation", "reward", "terminated", "truncated", "first")
    return all(getattr(one, name)[row].tobytes() == getattr(other, name)[row].tobytes() for name in fields)


def check_fault(make: Callable[..., Any], fault: str, when: str, at: int, number: int, folder: Path, steps: int) -> Any:
    """Let `number` of eight games fail once and compare every step with that of games that never fail."""
    deadline_s = SHORT_S if fault in HANGS else LONG_S
    sound = make(vectorize="inline")
    began = time.monotonic()
    vector = make(fault=fault, when=when, at=at, number=number, tickets=str(folder), deadline_s=deadline_s)
    longest = time.monotonic() - began
    fallen = np.zeros(GAMES, dtype=bool)
    fallen |= ~np.array([same_row(vector.current, sound.current, row) for row in range(GAMES)])  # at the first reset
    assert vector.current.first.all() and not vector.current.restarted.any()
    random = np.random.default_rng(at)
    for _ in range(steps):
        action = random.integers(3, size=GAMES)
        sound.send(action)
        expected = sound.recv()
        began = time.monotonic()
        vector.send(action)
        step = vector.recv()
        longest = max(longest, time.monotonic() - began)
        fallen |= step.restarted
        for row in np.flatnonzero(step.restarted):
            fresh = BrokenGame()
            first, _ = fresh.reset(seed=vector._seed(row))
            assert step.observation[row].tobytes() == first.tobytes() and step.first[row] and step.reward[row] == 0
            assert not (step.terminated[row] or step.truncated[row])
        assert not {episode.game for episode in step.episodes} & set(np.flatnonzero(step.restarted))
        for row in np.flatnonzero(~fallen):
            assert same_row(step, expected, row), "a game that did not fail must neither lose a step nor be reset"
    assert fallen.sum() == number == vector.restarts
    assert longest < deadline_s + 60.0, "ten seconds on a quiet machine"
    news = vector.news()
    assert len(news) == number and all("was replaced: it" in line for line in news), news
    return news


@pytest.mark.parametrize("number", [1, GAMES])
@pytest.mark.parametrize("when", ["first reset", "reset", "step"])
@pytest.mark.parametrize("fault", ["kill", "hang", "raise", "exit", "garbage"])
def test_a_game_that_fails_is_replaced(fault: str, when: str, number: int, play, tmp_path) -> None:
    """One of eight or all, at its first reset, at a later one or in a step: the others keep their step."""
    at = {"first reset": 1, "reset": 2, "step": 5}[when]
    news = check_fault(play, fault, when.split()[-1], at, number, tmp_path, 25)
    said = {
        "kill": r"its process was killed (SIGKILL)",
        "hang": f"it did not answer within {SHORT_S:g} s",
        "raise": "it raised ArithmeticError: the game is broken",
        "exit": "its process ended with exit code 3",
        "garbage": "its observation has shape (2,), not (3,)",
    }[fault]
    assert all(said in line and line.endswith("; its open episode is discarded") for line in news), news


@pytest.mark.parametrize("fault", ["stop", "scribble", *sorted(set(GARBAGE) - {"garbage"})])
def test_other_faults_are_met_as_well(fault: str, play, tmp_path) -> None:
    """A stopped process, bytes out of turn, and every kind of garbage."""
    check_fault(play, fault, "step", 4, 1, tmp_path, 12)


@pytest.mark.night
@pytest.mark.parametrize("case", range(200))
def test_random_faults(case: int, play, tmp_path) -> None:
    """Any fault at any moment in any number of games."""
    random = np.random.default_rng(case)
    fault = FAULTS[random.integers(len(FAULTS))]
    when = "reset" if random.random() < 0.4 and fault not in ("scribble", *list(GARBAGE)[4:]) else "step"
    at = int(random.integers(1, 4 if when == "reset" else 9))
    check_fault(play, fault, when, at, int(random.integers(1, GAMES + 1)), tmp_path, 40)


@pytest.mark.parametrize("vectorize", ["workers", "inline"])
@pytest.mark.parametrize("fault", ["raise", "garbage"])
def test_a_game_that_fails_again_and_again_ends_the_run(fault: str, vectorize: str, play) -> None:
    """After five failures within a thousand steps `send` raises GameFailure with the game's own error; the state can
    still be taken, and put back it begins the game anew."""
    vector = play(2, vectorize=vectorize, fault=fault, at=3)
    restarted = 0
    with pytest.raises(workers.GameFailure, match=r"IceboxBroken.*game 0 failed 5 times within 1,000 steps") as raised:
        for _ in range(100):
            vector.send(np.array([1, 1]))
            restarted += vector.recv().restarted
    assert ("the game is broken" if fault == "raise" else "shape (2,)") in str(raised.value)
    assert restarted.tolist() == [5, 5] and vector.restarts == 8
    state = vector.state_dict()
    assert state["games"] == {"0": None, "1": None}
    with pytest.raises(workers.GameFailure):
        vector.send(np.array([1, 1]))
    assert vector.reset(3).observation.shape == (2, 3)
    resumed = play(2, vectorize=vectorize)
    put_back(state, resumed)
    resumed.send(np.array([1, 1]))
    step = resumed.recv()
    assert step.restarted.all() and step.first.all() and not step.observation[:, 1:].any()


@pytest.mark.parametrize("vectorize", ["workers", "inline"])
def test_a_game_that_never_starts_is_named(vectorize: str, play) -> None:
    """Four failing resets in a row are an error of the reset, with the game's own."""
    with pytest.raises(workers.GameFailure, match="could not be started 3 times in a row.*ArithmeticError"):
        play(2, vectorize=vectorize, fault="raise", when="reset", at=1)


def test_failures_far_apart_are_borne(play, monkeypatch) -> None:
    """Failures that lie further back than the window do not add up."""
    monkeypatch.setattr("envs.supervision.WITHIN_STEPS", 10)
    vector = play(1, vectorize="inline", fault="raise", at=3)
    for _ in range(60):  # one failure every three steps: three within ten
        vector.send(np.array([0]))
        vector.recv()
    assert vector.restarts >= 15


@pytest.mark.parametrize("vectorize", ["workers", "inline"])
def test_a_state_with_replaced_games_goes_on_alike(vectorize: str, play) -> None:
    """Also the luck of later replacements is the same: both vectors fail at the same steps and say the same."""
    fickle = {"game": lambda **options: Fickle(BrokenGame(**options), ("raise", "no end"), 0.04)}
    one, other = play(3, vectorize=vectorize, **fickle), play(3, vectorize="inline", **fickle)
    random = np.random.default_rng(1)
    restarts = 0
    for number in range(60):
        if number in (0, 30):
            state = one.state_dict()
            put_back(state, other)
            assert one.restarts == other.restarts
        action = random.integers(3, size=3)
        one.send(action)
        other.send(action)
        left, right = one.recv(), other.recv()
        assert all(same_row(left, right, row) for row in range(3)) and left.episodes == right.episodes
        assert left.restarted.tolist() == right.restarted.tolist()
        restarts += left.restarted.sum()
    assert restarts > 3 and one.news() and one.restarts == other.restarts


def test_a_worker_that_dies_between_two_steps(play) -> None:
    """Its state begins anew, and so does its row of the next step; scenes come from the fresh game."""
    vector = play(3, vectorize="workers")
    other = play(3, vectorize="inline")
    for _ in range(3):
        vector.send(np.array([1, 1, 1]))
        vector.recv()
    kill(vector.pids[1])
    assert vector.scene(1).arrays["observation"][1] == 0, "the fresh game is at its beginning"
    kill(vector.pids[2])
    state = vector.state_dict()
    assert [state["games"][row] is None for row in "012"] == [False, True, True]
    assert state["score"]["length"].tolist() == [3, 0, 0]
    put_back(state, other)
    for number in range(3):
        for games in (vector, other):
            games.send(np.array([2, 2, 2]))
        left, right = vector.recv(), other.recv()
        assert all(same_row(left, right, row) for row in range(3))
        assert left.restarted.tolist() == right.restarted.tolist() == [False, number == 0, number == 0]
        assert left.observation[:, 1].tolist() == [4 + number, number, number]
    kill(vector.pids[0])
    put_back(state, vector)  # that has lost a worker
    vector.send(np.array([2, 2, 2]))
    assert vector.recv().restarted.all()


def put_back(state: dict[str, Any], vector: Any) -> None:
    """Put a state back into a vector whose game was registered under another name."""
    vector.load_state_dict(state | {"game": vector.spec.name})


def kill(pid: int) -> None:
    """Kill a process of ours; whoever begun it will find out."""
    psutil.Process(pid).send_signal(signal.SIGKILL)


def test_replacements_leave_no_process_and_no_file(play) -> None:
    """After sixteen replacements there are as many processes and open files as before them, after close as at first."""
    here = psutil.Process()
    files = here.num_fds()
    vector = play(4, fault=None)
    counts = []
    for round_ in range(16):
        counts.append((here.num_fds(), len(children())))
        assert len(set(vector.pids)) == 4
        kill(vector.pids[round_ % 4])
        vector.send(np.zeros(4, dtype=np.int64))
        assert vector.recv().restarted.tolist() == [row == round_ % 4 for row in range(4)]
    assert set(counts) == {counts[0]} and vector.restarts == 16
    vector.close()
    vector.close()
    assert here.num_fds() == files


def test_a_worker_that_dies_before_its_game_is_made(tmp_path) -> None:
    """It is replaced by the first reset, and how it ended is said."""
    game = CountingGame(1).spec
    vector = WorkerVector(game, 2, partial(counted, game, partial(waiting_for, tmp_path / "go")))
    try:
        first, second = vector.pids
        kill(first)
        (tmp_path / "go").touch()
        assert vector.reset(0).observation.tolist() == [[0, 0, 0], [0, 0, 0]]
        assert vector.pids[0] != first and vector.pids[1] == second
        assert vector.news() == [
            "game 0 was replaced: its process was killed (SIGKILL); its open episode is discarded"
        ]
    finally:
        vector.close()


class Still:
    """A game in which nothing happens."""

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Nothing."""
        return np.zeros(3, np.float32), {}

    def close(self) -> None:
        """Nothing."""


def waiting_for(path: Path) -> Still:
    """A game that takes until `path` exists to be made."""
    while not path.exists():
        time.sleep(0.01)
    return Still()


def test_close_ends_every_worker(play) -> None:
    """Also in the middle of a step, and of one that never ends; the fixture counts the processes."""
    for fault, at in ((None, 1), ("hang", 1), ("stop", 1)):
        vector = play(3, fault=fault, at=at)
        vector.send(np.zeros(3, dtype=np.int64))
        pids = vector.pids
        vector.close()
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_process_that_begins_workers_may_die(play) -> None:
    """Its workers die with it; a new one begins new workers."""
    vector = play(3)
    before = vector.pids
    kill(vector._nursery.pid)
    psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=60)
    vector.send(np.zeros(3, dtype=np.int64))
    assert vector.recv().restarted.all() and not set(vector.pids) & set(before)
    vector.send(np.zeros(3, dtype=np.int64))
    assert vector.recv().observation[:, 1].tolist() == [1, 1, 1]


def test_workers_leave_signals_to_their_parent(play) -> None:
    """SIGINT and SIGTERM, which a terminal or a supervisor sends to every process, do not end a worker."""
    vector = play(2)
    for pid, number in itertools.product(vector.pids, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        psutil.Process(pid).send_signal(number)
    for _ in range(3):
        vector.send(np.zeros(2, dtype=np.int64))
        assert not vector.recv().restarted.any()


@pytest.mark.parametrize("fault", [None, "hang", "stop"])
def test_workers_die_with_their_parent(fault: str | None) -> None:
    """kill -9 of the parent, which can clean up nothing, leaves no process, not even of games that hang."""
    code = f"""
import time
from functools import partial
import numpy as np, psutil
from envs.make import make_vector_env
from tests.faults.broken_games import BrokenGame, registered
with registered(partial(BrokenGame, fault={fault!r}, at=1)) as name:
    vectors = [make_vector_env("gym:" + name, 3, seed, vectorize="workers") for seed in (0, 1)]
    for vector in vectors:
        vector.send(np.zeros(3, dtype=np.int64))
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    running = [psutil.Process(pid) for pid in pids]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(running, timeout=60)
    assert len(pids) == 8 and not alive


def test_where_fork_is_not_safe_workers_are_spawned(monkeypatch) -> None:
    """A new interpreter per worker plays the same steps, and is replaced like the others; none is left."""
    resource_tracker.ensure_running()  # multiprocessing's own, which stays
    before = children()
    monkeypatch.setattr(workers, "_FORKS", False)
    vector, other = make_vector_env("cartpole", 2, 3, vectorize="workers"), make_vector_env("cartpole", 2, 3)
    try:
        assert vector.current.observation.tobytes() == other.current.observation.tobytes()
        kill(vector.pids[1])
        for number in range(3):
            for games in (vector, other):
                games.send(np.array([0, 1]))
            left, right = vector.recv(), other.recv()
            assert same_row(left, right, 0) and left.restarted.tolist() == [False, number == 0]
        assert "its process was killed (SIGKILL)" in vector.news()[0]
    finally:
        vector.close()
    assert children() <= before


def test_a_vector_that_nobody_closes_leaves_nothing() -> None:
    """A dropped vector ends its processes."""
    before = children()
    vector = make_vector_env("cartpole", 2, 0, vectorize="workers")
    assert isinstance(vector, WorkerVector) and len(children() - before) == 3
    assert len(game_seeds(0, 2)) == 2
    del vector
    assert children() <= before


def test_every_deed_is_tried() -> None:
    """The tests above name every fault of the kit."""
    assert set(DEEDS) == {"kill", "exit", "hang", "stop", "raise", "scribble"}
