"""Tests of agent/telemetry/lock.py."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.telemetry.lock import Lock, is_alive, this_process

DESCRIBE = "import json; from agent.telemetry.lock import this_process; print(json.dumps(this_process()), flush=True)"


def _dead_process() -> dict:
    """Describe a process that has ended."""
    return json.loads(subprocess.run([sys.executable, "-c", DESCRIBE], capture_output=True, check=True).stdout)


def _try(directory: Path, start: object, results: object) -> None:
    lock = Lock(directory)
    start.wait()
    try:
        lock.acquire()
        results.put(os.getpid())
        time.sleep(0.5)  # outlive the others' attempts
    except RuntimeError:
        results.put(None)


def test_a_process_knows_itself_and_the_dead() -> None:
    """This process is alive; an ended one, one with a reused pid, and one from before a restart are not."""
    me = this_process()
    assert is_alive(me)
    assert not is_alive(_dead_process())
    assert not is_alive(me | {"start": "another boot:1"})
    assert not is_alive({})


def test_a_process_of_another_host_counts_as_alive() -> None:
    """Nothing can be known about another machine's process, so it keeps what it holds."""
    assert is_alive(_dead_process() | {"host": "elsewhere"})


def test_a_killed_child_that_nobody_waited_for_is_dead() -> None:
    """A zombie holds nothing."""
    command = [sys.executable, "-c", DESCRIBE + "; input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    description = json.loads(child.stdout.readline())
    assert is_alive(description)
    child.kill()
    deadline = time.monotonic() + 10
    while is_alive(description) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(description)
    child.communicate()


def test_a_held_lock_is_refused_and_names_its_owner(tmp_path: Path) -> None:
    """The second owner is told the pid of the first and what to delete; after the release it may have the lock."""
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    with pytest.raises(RuntimeError, match=rf"process {os.getpid()}.*delete .*\.lock-1"):
        second.acquire()
    first.release()
    second.acquire()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock-2"]


def test_a_dead_owner_loses_the_lock(tmp_path: Path) -> None:
    """A lock left by a killed process does not have to be removed by hand."""
    (tmp_path / ".lock-7").write_text(json.dumps(_dead_process()))
    Lock(tmp_path).acquire()
    assert [path.name for path in tmp_path.iterdir()] == [".lock-8"]


def test_an_ownerless_lock_is_held_only_while_it_may_be_being_written(tmp_path: Path) -> None:
    """An empty lock file counts for a few seconds, then it is what a crash left."""
    path = tmp_path / ".lock-1"
    path.touch()
    with pytest.raises(RuntimeError, match="in use"):
        Lock(tmp_path).acquire()
    os.utime(path, (0, 0))
    Lock(tmp_path).acquire()


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_processes_one_wins(tmp_path: Path, left_behind: bool) -> None:
    """However many processes find a folder free, or its owner dead, at the same moment: one gets it."""
    if left_behind:
        (tmp_path / ".lock-1").write_text(json.dumps(_dead_process()))
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(6), context.Queue()
    processes = [context.Process(target=_try, args=(tmp_path, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    winners = [pid for pid in (results.get(timeout=30) for _ in processes) if pid is not None]
    for process in processes:
        process.join()
    assert len(winners) == 1
