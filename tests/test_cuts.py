"""A run that is cut anywhere and goes on in new objects, from files, equals the run that was never cut, bit for bit.

Every setting of our agent and every algorithm of stable-baselines3, cut in the middle of episodes (`tests/cuts.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuts import ALGORITHMS, CASES, END, Log, begin, cuts_of, everything, is_off_policy, load, play, store
from golden.answers import hash_of
from lives import differences

SIZES = [pytest.param(4, id="4 cuts"), pytest.param(20, id="20 cuts", marks=pytest.mark.night)]


@pytest.mark.parametrize("cuts", SIZES)
@pytest.mark.parametrize("case", [*CASES, *ALGORITHMS])
def test_a_cut_run_equals_the_uncut_one(case: str, cuts: int, tmp_path: Path) -> None:
    """Weights, optimizer, target, replay, generators, games and the log of episodes are the same at the end."""
    if case == "atari":
        pytest.importorskip("ale_py")
    restarts = case == "atari"  # its games cannot give their state: there the uncut run saves as well
    at = cuts_of(case, cuts // 2 if restarts else cuts)
    saved, whole = [], []
    session = begin(case)
    open_episodes = 0

    def save(steps: int) -> None:
        nonlocal open_episodes
        store(tmp_path, session)
        saved.append((steps, len(log)))
        current = session.games.current
        open_episodes += not (current.first | current.terminated | current.truncated).all()

    log: Log = []
    play(session, log, at, save)
    assert len(saved) == len(at) or case == "ppo"  # in whose rollout of 16 steps two may fall
    assert open_episodes > len(saved) / 2 or restarts, "cuts between episodes would prove little"
    assert len(log) > 3, "the games must end now and then"
    end = everything(session, log)
    session.close()
    if not restarts:
        never = begin(case)
        play(never, whole)
        assert differences(everything(never, whole), end) == [], "saving changed the run"
        never.close()
    for number, (steps, ended) in enumerate(saved, 1):
        resumed = begin(case, load(tmp_path, number))
        assert resumed.steps == steps
        later = log[:ended]
        again = [each for each, _ in saved[number:]] if restarts else []
        play(resumed, later, again, lambda at: resumed.state_dict())  # noqa: B023: called before the next turn
        assert differences(everything(resumed, later), end) == [], f"cut at {steps} of {END}"
        resumed.close()


@pytest.mark.parametrize("case", ["qr", "sac"])
def test_a_new_process_goes_on_exactly(case: str, tmp_path: Path) -> None:
    """Nothing that only lived in the first process is needed: another one ends with the same hash of everything."""
    session = begin(case)
    log: Log = []

    def save(steps: int) -> None:
        store(tmp_path / "saved", session)
        log.clear()  # the other process has only what comes now

    play(session, log, [200], save)
    end = everything(session, log)
    session.close()
    words = [case, str(tmp_path / "saved"), str(tmp_path / "hash")]
    root = str(Path(__file__).resolve().parents[1])
    script = [sys.executable, str(Path(__file__).with_name("cuts.py")), *words]
    subprocess.run(script, check=True, env=os.environ | {"PYTHONPATH": root, "PYTHONHASHSEED": "7"})
    assert (tmp_path / "hash").read_text() == hash_of(end)


STOPPED = ["double dueling noisy", "ppo", "sac"]


@pytest.mark.parametrize(
    "case", [*STOPPED, *(pytest.param(each, marks=pytest.mark.night) for each in ALGORITHMS if each not in STOPPED)]
)
def test_a_stop_is_a_cut(case: str, tmp_path: Path) -> None:
    """A run that is asked to stop goes on exactly as if it had not been; PPO and A2C, which drop their open rollout, go
    on from the weights and the step at which it began, in the very games that were open."""
    uncut, log = begin(case), []
    play(uncut, log)
    end = everything(uncut, log)
    uncut.close()
    stopped, first = begin(case), []
    play(stopped, first, stop=205)
    steps, games = stopped.steps, stopped.games.current
    weights = hash_of({**stopped.weights(), "steps": 0})
    store(tmp_path, stopped)
    resumed = begin(case, load(tmp_path, 1))
    assert resumed.steps == steps and not games.first.all()
    assert (resumed.games.current.observation == games.observation).all()
    assert hash_of({**resumed.weights(), "steps": 0}) == weights
    stopped.close()
    exact = is_off_policy(resumed)
    play(resumed, first)
    found = everything(resumed, first)
    resumed.close()
    if exact:
        assert steps >= 205 and differences(found, end) == []
    else:
        counters = (each["state"]["counters"]["num_timesteps"] for each in (found, end))
        assert steps < 205 and len(set(counters)) == 1
