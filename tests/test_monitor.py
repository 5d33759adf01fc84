"""Tests of agent/telemetry/monitor.py."""

import csv
import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from agent.telemetry.monitor import Monitor, read


class Ended(NamedTuple):
    """A finished episode."""

    game: int
    score: float
    length: int


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _episodes(count: int, seed: int = 0) -> list[Ended]:
    generator = np.random.default_rng(seed)
    return [Ended(0, float(generator.normal()), int(generator.integers(1, 500))) for _ in range(count)]


def _without_times(path: Path) -> list[list[str]]:
    with open(path) as file:
        return [row[:2] for row in csv.reader(file) if not row[0].startswith("#")]


def test_stable_baselines3_reads_it(tmp_path: Path) -> None:
    """SB3's load_results and results_plotter get scores, lengths and times back."""
    results_plotter = pytest.importorskip("stable_baselines3.common.results_plotter")
    from stable_baselines3.common.monitor import load_results

    clock = Clock()
    monitor = Monitor(tmp_path / "monitor.csv", "lunar-lander", clock=clock)
    episodes = _episodes(30)
    for episode in episodes:
        clock.now += 1.5
        monitor.record([episode])
    monitor.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = load_results(str(tmp_path))
    assert frame["r"].tolist() == [round(episode.score, 6) for episode in episodes]
    assert frame["l"].tolist() == [episode.length for episode in episodes]
    assert frame["t"].tolist() == pytest.approx([1.5 * (i + 1) for i in range(30)], abs=1e-5)
    x, y = results_plotter.ts2xy(frame, results_plotter.X_TIMESTEPS)
    assert x[-1] == sum(episode.length for episode in episodes) and len(y) == 30


def test_header_says_game_and_start(tmp_path: Path) -> None:
    """The first line is `#` and JSON with t_start and env_id, the second names the columns."""
    Monitor(tmp_path / "monitor.csv", "minatar/breakout").close()
    first, second = (tmp_path / "monitor.csv").read_text().splitlines()
    header = json.loads(first[1:])
    assert first[0] == "#" and header["env_id"] == "minatar/breakout" and header["t_start"] > 1.6e9
    assert second == "r,l,t"


def test_means_go_over_the_last_hundred_episodes(tmp_path: Path) -> None:
    """The means equal numpy's over the last 100 raw scores and lengths; before the first episode there are none."""
    monitor = Monitor(tmp_path / "monitor.csv", "g")
    assert monitor.means() == {}
    episodes = _episodes(250)
    monitor.record(episodes)
    means = monitor.means()
    assert means["rollout/ep_rew_mean"] == pytest.approx(np.mean([episode.score for episode in episodes[-100:]]))
    assert means["rollout/ep_len_mean"] == pytest.approx(np.mean([episode.length for episode in episodes[-100:]]))
    assert monitor.episodes == 250


def test_resumed_file_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    """Rows after the checkpoint are dropped and played again: all but t is equal, t goes on, the means are equal."""
    episodes = _episodes(300)
    straight = Monitor(tmp_path / "straight.csv", "g")
    straight.record(episodes)
    straight.close()

    clock = Clock()
    killed = Monitor(tmp_path / "monitor.csv", "g", clock=clock)
    clock.now += 50
    killed.record(episodes[:120])
    state = json.loads(json.dumps(killed.state_dict()))
    clock.now += 7
    killed.record(episodes[120:170])
    killed.flush()  # reached the disk, but the checkpoint does not know it
    killed.record(episodes[170:180])  # never reached the disk

    later = Clock()
    later.now = 5.0
    resumed = Monitor(tmp_path / "monitor.csv", "g", clock=later)
    resumed.load_state_dict(state)
    later.now += 1
    resumed.record(episodes[120:])
    resumed.close()
    assert _without_times(tmp_path / "monitor.csv") == _without_times(tmp_path / "straight.csv")
    assert resumed.means() == straight.means() and resumed.episodes == 300
    assert (tmp_path / "monitor.csv").read_text().splitlines()[122].endswith(",51.0")


def test_state_can_be_put_back_into_the_same_object(tmp_path: Path) -> None:
    """Loading into the monitor that gave the state drops what it took since, written or not."""
    monitor = Monitor(tmp_path / "monitor.csv", "g")
    monitor.record(_episodes(3))
    state, text = monitor.state_dict(), (tmp_path / "monitor.csv").read_text()
    monitor.record(_episodes(2))
    monitor.load_state_dict(state)
    monitor.close()
    assert (tmp_path / "monitor.csv").read_text() == text


def test_a_shortened_file_is_an_error_and_a_missing_one_is_begun_anew(tmp_path: Path) -> None:
    """Somebody's edit stops with a remedy, and the remedy works."""
    path = tmp_path / "monitor.csv"
    monitor = Monitor(path, "g")
    monitor.record(_episodes(5))
    state = monitor.state_dict()
    monitor.close()
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    shortened = Monitor(path, "g")
    with pytest.raises(ValueError, match="move it away"):
        shortened.load_state_dict(state)
    shortened.close()
    path.unlink()
    anew = Monitor(path, "g")
    anew.load_state_dict(state)
    anew.record(_episodes(1))
    anew.close()
    assert len(path.read_text().splitlines()) == 3 and anew.episodes == 6


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A log gives back its game, scores, lengths and times; rows that are damaged are passed over."""
    clock, path = Clock(), tmp_path / "monitor.csv"
    log = Monitor(path, "cartpole", clock=clock)
    for score in (1.5, -2.0):
        clock.now += 10.0
        log.record([Ended(0, score, 100)])
    log.close()
    path.write_text(path.read_text() + "nan,5,1\n1,2\n#[1]\n3.0,-5,1\n3.0,10")
    played = read(path)
    assert played.game == "cartpole" and played.scores.tolist() == [1.5, -2.0]
    assert played.lengths.tolist() == [100.0, 100.0] and played.seconds.tolist() == [10.0, 20.0]


def test_when_steps_were_played_follows_from_the_episodes(tmp_path: Path) -> None:
    """Between the ends of episodes it is interpolated, after the last it goes on as fast as before; else not known."""
    path = tmp_path / "monitor.csv"
    path.write_text("r,l,t\n1,100,10\n1,300,20\n")
    assert read(path).seconds_at(np.array([0, 50, 100, 250, 400, 800])).tolist() == [0.0, 5.0, 10.0, 15.0, 20.0, 40.0]
    path.write_text("r,l,t\n")
    assert np.isnan(read(path).seconds_at(np.array([5]))).all()
