"""benchmarks/throughput.py and what it is made of: the clock, who is compared with whom, where the time goes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from agent.config import Settings
from benchmarks import shares, watch
from benchmarks.cases import CASES, GAMES, UPDATES_PER_BEAT, our_settings, sb3_settings
from benchmarks.throughput import ratios
from benchmarks.watch import Watch


@pytest.mark.parametrize("name", sorted(CASES))
def test_ours_and_sb3_are_asked_for_the_same(name: str) -> None:
    """Updates per step, batch, target interval, exploration and replay agree between our settings and SB3's."""
    case = CASES[name]
    mine, other = Settings.model_validate(our_settings(case)), sb3_settings(case)
    updates_per_step = mine.learner.samples_per_insert / mine.learner.batch_size
    assert updates_per_step == other["gradient_steps"] / (other["train_freq"] * GAMES) == UPDATES_PER_BEAT / GAMES
    assert mine.learner.batch_size == other["batch_size"] == case.batch
    assert mine.learner.target_interval == other["target_update_interval"] * updates_per_step
    assert mine.actor.epsilon_start == mine.actor.epsilon_end == other["exploration_final_eps"]
    assert (mine.replay.capacity, mine.replay.n_step, mine.learner.double) == (other["buffer_size"], 1, False)


def test_the_window_begins_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the steps before learning nor those of the warm-up count, and the run ends with the window."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watch.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(watch, "tree_seconds", lambda: clock.now / 2)
    looked = Watch(seconds=10.0, warm_up_s=3.0)
    beats = 0
    while True:
        beats += 1
        clock.now += 0.1
        if not looked.beat(100 * beats, 25 * beats):
            break
    assert looked.result["steps_per_s"] == pytest.approx(1_000.0)
    assert looked.result["updates_per_s"] == pytest.approx(250.0)
    assert looked.result["steps_per_cpu_s"] == pytest.approx(2_000.0)
    assert clock.now > 13.0 and looked.result["wall_s"] == pytest.approx(10.0, abs=0.2)


def test_ratios_are_those_of_pairs() -> None:
    """A ratio compares runs of the same repeat, so that a machine that grows slower is nobody's loss."""
    runs = {"ours-eager": [{"f": 30.0}, {"f": 3.0}, {"f": 9.0}], "sb3": [{"f": 10.0}, {"f": 1.0}, {"f": 1.0}]}
    assert ratios(runs, "f") == {"ours-eager": {"sb3": {"median": 3.0, "min": 3.0, "max": 9.0}}}


def test_inner_parts_are_not_counted_twice() -> None:
    """A part's seconds are less those of the parts that it calls, and all together are the whole."""
    clocks = shares.Clocks()
    inner = clocks.timed("inner", lambda: time.sleep(0.02))

    def outer_body() -> None:
        time.sleep(0.01)
        inner()
        inner()

    started = time.perf_counter()
    clocks.timed("outer", outer_body)()
    whole = time.perf_counter() - started
    assert clocks.seconds["inner"] >= 0.04
    assert clocks.seconds["outer"] < whole - 0.04 + 1e-3
    assert sum(clocks.seconds.values()) == pytest.approx(whole, abs=1e-3)


def test_timing_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """While timed, the parts of a real session are counted; afterwards every method is its own again."""
    import torch

    from benchmarks.contenders import make_session, settled_ticks

    session = make_session(CASES["cartpole"], "eager")
    try:
        ticks = settled_ticks(session)
        places = shares.seams(session)
        before = [(vars(owner).get(name), getattr(owner, name)) for _, owner, name in places]
        clocks = shares.Clocks()
        with shares.timing(session, clocks):
            for _ in range(20):
                next(ticks)
        assert {"game", "forward", "backward", "optimizer", "replay gather", "replay insert"} <= clocks.seconds.keys()
        assert [(vars(owner).get(name), getattr(owner, name)) for _, owner, name in places] == before
        forward, backward = shares.layer_calls(session.network, torch.zeros(5, 4))
        assert [tuple(call().shape) for call in forward] == [(5, 64), (5, 64), (5, 2)]
        assert len(backward) == 5  # of weights and biases three times, of inputs not at the first layer
    finally:
        session.close()
