"""Deadlines by a clock that is moved by what is done: nothing here depends on how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from timed import MS, Play

from agent.cli.main import main
from agent.cli.record import load_checkpoint
from agent.realtime import DEBT, REHEARSALS, Prediction


def test_nothing_is_missed_where_everything_fits() -> None:
    """The game is stepped every 10 ms, each step with the answer to the one before, and the time left is learned in."""
    play = Play()
    play.play(3)  # learning begins: the clock is stopped once
    before, updates = len(play.games.stepped), play.learner.updates
    play.play(100)
    times, actions = zip(*play.games.stepped[before:], strict=True)
    assert np.allclose(np.diff(times), 10 * MS, atol=0.05 * MS)
    assert play.replay.stored == [(at, at) for at in range(103)]
    assert list(actions) == list(range(3, 103))
    assert play.pace.missed == 0
    # 9 ms are left, so four slices of 2 ms: that is 400 of 3 to the update.
    assert (play.learner.updates - updates) == pytest.approx(400 / 3, abs=3)


def test_updates_are_no_more_than_owed() -> None:
    """Time that is left over is slept through; what the measuring took is paid back."""
    play = Play(samples_per_insert=0.5)
    ticks = play.play(200)
    assert ticks[-1].updates == pytest.approx(100, abs=2)
    assert play.clock.owed <= 1


def test_nothing_is_learned_before_the_start() -> None:
    """Until updates are owed none is made, and no clock is stopped."""
    play = Play(learning_starts=50)
    assert play.play(50)[-1].updates == 0
    assert play.pace.take()["realtime/stops"] == 0
    assert play.play(3)[-1].updates > REHEARSALS
    assert play.pace.take()["realtime/stops"] == 1


def test_a_late_action_is_replaced_by_the_last_one() -> None:
    """The game goes on in time with the action it had, replay stores that one, and the late one is played next."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: (12 if at == 5 else 1) * MS
    play.play(10)
    # The answer to 5 comes 2 ms late; there is time enough to answer 6.
    assert [action for _, action in play.replay.stored] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9]
    assert [action for _, action in play.games.stepped] == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9]
    assert (play.pace.missed, play.pace.deadlines) == (1, 10)
    assert play.lateness() <= 2.1


def test_frames_that_nobody_could_answer_are_not_answered() -> None:
    """Behind by frames, the game catches up with the newest action there is, and every frame of it is a miss."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: (45 if at == 5 else 1) * MS
    play.play(12)
    assert [action for _, action in play.replay.stored] == [0, 1, 2, 3, 4, 4, 5, 5, 5, 9, 10, 11]
    assert play.pace.missed == 4
    assert [at for at, _ in play.replay.stored] == list(range(12)), "no frame is lost"
    times = [time for time, _ in play.games.stepped]
    assert times[11] - times[0] == pytest.approx(110 * MS, abs=0.1 * MS), "the deadlines are where they were"


def test_an_actor_that_is_always_slow_still_plays() -> None:
    """One that needs longer than an interval misses every deadline, and its actions come late but come."""
    play = Play(samples_per_insert=1e-9)
    play.actor.takes = lambda at: 12 * MS
    play.play(100)
    stored = play.replay.stored[10:]
    assert play.pace.missed >= 98
    assert all(0 < at - action <= 3 for at, action in stored)


def test_a_slice_is_not_begun_where_it_does_not_fit() -> None:
    """Slices that fit at the start of an interval only are begun there; no step is late for one."""
    play = Play()
    play.learner.takes = lambda number: 6 * MS
    play.play(3)
    play.learner.began.clear()
    play.pace.take()
    play.play(60)
    assert play.pace.missed == 0 and play.lateness() < 0.1
    assert len(play.learner.began) == pytest.approx(60, abs=3)


def test_slices_longer_than_an_interval_are_never_begun() -> None:
    """Once measured they stand still, cost no deadline, and a person is told once that nothing is learned."""
    play = Play()
    told: list[str] = []
    play.pace.say = told.append
    play.learner.takes = lambda number: 11 * MS
    play.play(3)
    play.learner.began.clear()
    play.play(900)
    assert not play.learner.began and play.pace.missed == 0 and not told
    play.play(1_300)
    assert len(told) == 1 and "a part of an update takes 11.0 ms" in told[0]


def test_long_pieces_are_made_shorter_while_that_helps() -> None:
    """Pieces of more than an eighth of an interval are halved; that stops where they do not get shorter."""
    learned = {}
    for most_parts, parts in ((1, 1), (8, 4), (2, 2)):
        play = Play()
        play.learner.takes, play.learner.most_parts = lambda number: 4 * MS, most_parts
        play.play(300)
        assert play.learner.parts == parts and play.pace.missed == 0
        learned[parts] = play.learner.updates
    assert learned[1] < learned[2] < learned[4]
    stubborn = Play()
    stubborn.learner.takes = lambda number: 4 * MS * stubborn.learner.parts  # whatever the parts, it takes as long
    stubborn.learner.most_parts = 64
    stubborn.play(100)
    assert stubborn.learner.parts == 2


def test_slices_that_were_measured_on_a_busy_machine_are_measured_anew() -> None:
    """When for ten seconds nothing has fitted the clock is stopped once more, and learning begins; nobody is warned."""
    play = Play()
    told: list[str] = []
    play.pace.say = told.append
    play.learner.takes = lambda number: 60 * MS
    play.play(3)
    play.learner.takes = lambda number: 2 * MS
    play.play(990)
    updates, stops = play.learner.updates, play.pace.take()["realtime/stops"]
    play.play(110)
    assert play.learner.updates - updates > 100
    assert (play.pace.take()["realtime/stops"] - stops, play.pace.missed, told) == (1, 0, [])


def test_who_learns_is_not_warned() -> None:
    """Where slices fit now and then, nobody is told anything."""
    play = Play()
    told: list[str] = []
    play.pace.say = told.append
    play.learner.takes = lambda number: 8 * MS
    play.play(2_500)
    assert play.learner.updates > 100 and not told


def test_whole_updates_take_a_faster_form_while_the_clock_stands() -> None:
    """Once it is found they fill the intervals, in one piece each; finding it is a stop and costs no deadline."""
    play = Play()
    play.learner.compiled_s = 1 * MS
    play.play(1)
    anew = play.actor.asked + 1
    play.actor.takes = lambda at: (5.0 if play.actor.asked == anew else 0.0) + 1 * MS  # the actor's form as well
    play.play(2)
    assert (play.learner.settled, play.pace.take()["realtime/stops"], play.pace.missed) == (1, 1, 0)
    updates, began = play.learner.updates, len(play.learner.began)
    play.play(100)
    assert play.learner.updates - updates == len(play.learner.began) - began, "none was begun in pieces"
    assert play.learner.updates - updates == pytest.approx(850, abs=60)
    assert (play.learner.settled, play.pace.missed) == (1, 0) and play.lateness() < 0.1


def test_no_form_is_looked_for_that_could_hardly_fit() -> None:
    """Of an update that takes many intervals nothing is made that would stop the clock for a minute."""
    play = Play()
    play.learner.compiled_s = 12 * MS
    play.learner.takes = lambda number: 8 * MS  # 24 ms whole: within three intervals
    play.play(3)
    assert play.learner.settled == 1
    play = Play()
    play.learner.takes = lambda number: 11 * MS
    play.play(3)
    assert play.learner.settled == 0


def test_a_form_that_has_to_be_found_anew_stops_the_clock() -> None:
    """Where the learner says that it must settle again, it may, and costs no deadline."""
    play = Play()
    play.play(20)
    stops, updates = play.pace.take()["realtime/stops"], play.learner.updates
    play.learner.to_settle, play.learner.compiled_s = True, 1 * MS
    play.play(50)
    assert play.learner.compiled and not play.learner.to_settle
    assert (play.pace.take()["realtime/stops"] - stops, play.pace.missed) == (1, 0)
    assert play.learner.updates - updates > 350


def test_a_person_is_told_once_that_many_deadlines_are_missed() -> None:
    """More than one of twenty in a minute is worth a warning that says what helps; fewer are not."""
    for every, said in ((30, 0), (10, 1)):
        play = Play(samples_per_insert=1e-9)
        told: list[str] = []
        play.pace.say = told.append
        play.actor.takes = lambda at, every=every: (12 if at % every == 5 else 1) * MS
        play.play(5_900)
        assert not told
        play.play(7_000)
        assert len(told) == said
    assert told[0].startswith("warning: 10% of the last minute's deadlines were missed")
    assert "--realtime" in told[0] and "--learner.samples-per-insert" in told[0]


def test_a_run_is_summed_up() -> None:
    """The last sentence says how many deadlines there were, and how many were missed."""
    play = Play(samples_per_insert=1e-9)
    play.play(8)
    assert play.pace.summary() == "real time: 0 of 8 deadlines missed"
    play.actor.takes = lambda at: (12 if at == 11 else 1) * MS
    play.play(1_992)
    assert play.pace.summary() == "real time: 1 of 2,000 deadlines missed (0.05%)"


def test_slices_that_grow_soon_cost_no_deadline() -> None:
    """A slice that suddenly takes longer than an interval costs one deadline, and one as part of a whole update; then
    both are left alone, and tried again after longer and longer."""
    play = Play()
    play.play(10)
    play.learner.takes = lambda number: (15 if number == 1 else 2) * MS
    play.play(7)
    assert play.pace.missed <= 2
    play.play(1_000)
    assert play.pace.missed <= 14


def test_a_disturbance_does_not_end_learning() -> None:
    """After slices that took ten times as long, and take as long as ever again, learning soon goes on as before."""
    play = Play()
    play.play(10)
    play.learner.takes = lambda number: 20 * MS
    play.play(20)
    play.learner.takes = lambda number: 2 * MS
    play.play(100)
    updates, missed = play.learner.updates, play.pace.missed
    play.play(100)
    assert play.learner.updates - updates >= 95
    assert play.pace.missed == missed


def test_a_prediction_outlives_a_disturbance() -> None:
    """One slow slice changes little, many change it; one that cost a deadline counts at once, for a while."""
    prediction = Prediction(1.0)
    for seconds in (1.0, 1.1, 0.9, 1.0, 5.0):
        prediction.add(seconds)
    assert prediction.seconds <= 1.1 and prediction.least == 0.9
    for _ in range(8):
        prediction.add(2.0)
    assert prediction.seconds == 2.0
    for patience in (8, 16, 32):
        prediction.add(7.0, costly=True)
        for _ in range(patience - 1):
            prediction.doubt()
            assert prediction.seconds == 7.0
        prediction.doubt()
        assert prediction.seconds == 2.0
    for _ in range(10):
        prediction.doubt()
    assert prediction.seconds == 0.9, "the shortest of late"


def test_a_suspended_machine_costs_one_deadline() -> None:
    """An hour that is lost between two deadlines is not caught up with, frame by frame."""
    play = Play()
    play.play(10)
    takes = play.actor.takes
    play.actor.takes = lambda at: 3600.0 if at == 12 else takes(at)
    play.play(30)
    assert play.pace.missed <= 2
    times = [time for time, _ in play.games.stepped]
    assert max(np.diff(times)) > 3000 and times[-1] - times[-10] == pytest.approx(90 * MS, abs=0.1 * MS)


def test_an_onlooker_who_takes_long_stops_the_clock() -> None:
    """An evaluation between two ticks costs no deadline; a few milliseconds of logging do not move one."""
    play = Play()
    play.play(10)
    stops = play.pace.take()["realtime/stops"]
    for pause_s, stopped in ((3 * MS, 0), (30.0, 1)):
        begun = play.games.stepped[-1][0]
        play.time.now_s += pause_s
        play.play(5)
        assert play.pace.take()["realtime/stops"] - stops == stopped
        assert play.pace.missed == 0
        passed = play.games.stepped[-1][0] - begun
        assert passed == pytest.approx(50 * MS if not stopped else 30.05, abs=2 * MS)


def test_games_that_are_started_anew_are_answered() -> None:
    """What a consumer has started anew (a checkpoint of games without state) is answered before it is stepped."""
    play = Play()
    play.play(5)
    play.games.steps = 0
    play.games.current = play.games._step()
    play.play(3)
    assert play.replay.stored[5:] == [(0, 0), (1, 1), (2, 2)]


def test_debts_are_bounded() -> None:
    """What does not fit is carried up to a bound and then dropped."""
    play = Play(samples_per_insert=1_000.0)
    play.play(50)
    assert 0 < play.clock.owed <= DEBT + 1_000


def test_garbage_is_collected_only_while_the_clock_stands() -> None:
    """At the start, after measuring, and after a stop; never in between."""
    play = Play()
    play.play(100)
    assert play.settled == 2
    play.time.now_s += 1.0
    play.play(100)
    assert play.settled == 3


def test_counts_go_on_after_a_resume() -> None:
    """Deadlines and misses are those of the run."""
    play, other = Play(), Play()
    play.actor.takes = lambda at: (12 if at == 5 else 1) * MS
    play.play(10)
    other.pace.load_state_dict(play.pace.state_dict())
    other.play(10)
    assert other.pace.state_dict() == {"deadlines": 20, "missed": play.pace.missed}
    assert other.pace.take()["realtime/missed"] == play.pace.missed == 1


def test_time_is_told_by_its_parts() -> None:
    """Acting, learning, storing and waiting (for the deadline and the game) make up the interval."""
    play = Play()
    play.play(10)
    parts: list[Any] = [tick.acting_s + tick.learning_s + tick.waiting_s + tick.storing_s for tick in play.play(50)]
    assert np.allclose(parts, 10 * MS, atol=0.05 * MS)


def test_a_run_in_real_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train --realtime` plays one game, learns, saves and judges; `resume` goes on by the same clock."""
    code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--realtime", "400", "--steps", "400")
    assert code == 0
    assert "cartpole: 400 steps in 1 game by the clock, 400 decisions a second, seed 0" in capsys.readouterr().err
    assert folder.settings().game.num_games == 1
    said = folder.log.read_text()
    assert "  missed " in said and "real time: " in said and " deadlines missed" in said
    saved = load_checkpoint(folder)[0]["agent"]
    assert saved["pace"]["deadlines"] == pytest.approx(400, abs=40)  # those after an end are no steps
    assert 0 < saved["learner"]["updates"] <= 300 * 4 / 32 + 2 * REHEARSALS
    assert main(["resume", str(folder.path), "--steps", "500", "--quiet"]) == 0
    resumed = load_checkpoint(folder)[0]["agent"]
    assert resumed["clock"]["steps"] == 500
    assert resumed["pace"]["deadlines"] >= saved["pace"]["deadlines"] + 100
    assert resumed["learner"]["updates"] > saved["learner"]["updates"]
