"""Tests of agent/telemetry/evaluations.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.telemetry.evaluations import Evaluations, best_in, read, summary


def test_file_is_what_stable_baselines3_writes(tmp_path: Path) -> None:
    """The arrays have the names, shapes and kinds of EvalCallback's file, made here by SB3 itself."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.env_util import make_vec_env

    theirs = tmp_path / "theirs"
    env = make_vec_env("CartPole-v1")
    callback = EvalCallback(env, n_eval_episodes=3, eval_freq=10, log_path=str(theirs), verbose=0)
    DQN("MlpPolicy", make_vec_env("CartPole-v1"), buffer_size=100, seed=0).learn(20, callback=callback)

    ours = Evaluations(tmp_path / "evaluations.npz")
    with np.load(theirs / "evaluations.npz", allow_pickle=False) as expected:
        for row in range(2):
            ours.add(expected["timesteps"][row], expected["results"][row], expected["ep_lengths"][row])
        with np.load(tmp_path / "evaluations.npz", allow_pickle=False) as written:
            assert sorted(written) == sorted([*expected, "seconds"])  # ours alone; nobody stumbles over one more
            for name in expected:
                assert written[name].dtype == expected[name].dtype
                np.testing.assert_array_equal(written[name], expected[name])


def test_summary_speaks_in_tags() -> None:
    """Means, interquartile mean and an interval around the mean come under the dashboard's tags."""
    tags = summary([1.0, 2.0, 3.0, 100.0], [10, 10, 10, 50])
    assert tags["eval/mean_reward"] == 26.5 and tags["eval/mean_ep_length"] == 20.0 and tags["eval/iqm"] == 2.5
    assert tags["eval/ci_low"] < 26.5 < tags["eval/ci_high"]


def test_best_is_the_best_mean(tmp_path: Path) -> None:
    """`best` and `best_in` give the highest mean score, None where there is none."""
    path = tmp_path / "evaluations.npz"
    log = Evaluations(path)
    assert log.best is None and best_in(path) is None
    log.add(100, [1.0, 3.0], [5, 5])
    log.add(200, [9.0, -2.0], [5, 5])
    log.add(300, [0.0, 0.0], [5, 5])
    assert log.best == 3.5 == best_in(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    assert best_in(path) is None
    path.write_bytes(b"")
    assert best_in(path) is None


def test_history_is_steps_with_scores(tmp_path: Path) -> None:
    """The history holds every evaluation in order, also after it was put back."""
    log, resumed = Evaluations(tmp_path / "a.npz"), Evaluations(tmp_path / "b.npz")
    assert log.history == []
    log.add(100, [1.0, 3.0], [5, 6])
    log.add(250, [0.0, 2.0], [7, 8])
    resumed.load_state_dict(log.state_dict())
    assert log.history == resumed.history == [(100, [1.0, 3.0]), (250, [0.0, 2.0])]


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """After loading a state the file holds what it held then, and a run resumed from the beginning has none."""
    path = tmp_path / "evaluations.npz"
    log = Evaluations(path)
    empty = json.loads(json.dumps(log.state_dict()))
    log.add(100, [1.0, 3.0], [5, 6])
    state, content = json.loads(json.dumps(log.state_dict())), path.read_bytes()
    log.add(200, [9.0, -2.0], [5, 5])
    resumed = Evaluations(path)
    resumed.load_state_dict(state)
    assert path.read_bytes() == content and resumed.best == 2.0
    resumed.load_state_dict(empty)
    assert not path.exists() and resumed.best is None


def test_evaluations_of_different_sizes_do_not_mix(tmp_path: Path) -> None:
    """A table cannot hold them, so the setting to keep is named; lengths must match scores."""
    log = Evaluations(tmp_path / "evaluations.npz")
    log.add(100, [1.0, 3.0], [5, 6])
    with pytest.raises(ValueError, match="evaluation.episodes"):
        log.add(200, [1.0], [5])
    with pytest.raises(ValueError, match="a length for every score"):
        log.add(200, [1.0, 2.0], [5])
    with pytest.raises(ValueError, match="different lengths"):
        log.load_state_dict({"timesteps": [1], "results": [], "ep_lengths": []})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A file gives back its steps, scores, lengths and seconds, also after a resume; unknown seconds are no number."""
    log, resumed = Evaluations(tmp_path / "a.npz"), Evaluations(tmp_path / "b.npz")
    log.add(100, [1.0, 3.0], [5, 6])
    log.add(250, [0.0, 2.0], [7, 8], 12.5)
    resumed.load_state_dict(json.loads(json.dumps(log.state_dict(), allow_nan=False)))
    for name in "ab":
        history = read(tmp_path / f"{name}.npz")
        assert history.steps.tolist() == [100, 250] and history.scores.tolist() == [[1.0, 3.0], [0.0, 2.0]]
        assert history.lengths.tolist() == [[5, 6], [7, 8]] and str(history.seconds.tolist()) == "[nan, 12.5]"


def test_checkpoints_from_before_seconds_were_kept_still_load(tmp_path: Path) -> None:
    """A state without them loads, and so does a file that EvalCallback wrote; the seconds are not known then."""
    log = Evaluations(tmp_path / "a.npz")
    log.load_state_dict({"timesteps": [10], "results": [[1.0]], "ep_lengths": [[2]]})
    assert np.isnan(read(tmp_path / "a.npz").seconds).tolist() == [True]
    np.savez(tmp_path / "b.npz", timesteps=np.array([10]), results=np.ones((1, 1)), ep_lengths=np.ones((1, 1), int))
    assert np.isnan(read(tmp_path / "b.npz").seconds).tolist() == [True]


@pytest.mark.parametrize(
    "arrays",
    [
        {"results": np.full((1, 2), np.nan)},
        {"results": np.array([["a", "b"]])},
        {"results": np.array([[None, None]])},  # would need pickle
        {"results": np.ones((2, 2))},
        {"timesteps": np.array([-1])},
        {"timesteps": np.array([[1]])},
        {"ep_lengths": np.ones((1, 3))},
        {"seconds": np.ones(2)},
    ],
)
def test_damaged_files_are_a_sentence(arrays: dict, tmp_path: Path) -> None:
    """Arrays that do not fit, are no numbers or would run code are refused by name; a missing file stays one."""
    sound = {"timesteps": np.array([1]), "results": np.ones((1, 2)), "ep_lengths": np.ones((1, 2), int)}
    np.savez(tmp_path / "a.npz", **(sound | arrays))
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        read(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "b.npz")


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """What a small file would unpack to is known before it is done."""
    np.savez_compressed(tmp_path / "a.npz", results=np.zeros((1, 40 << 20)), timesteps=np.array([1]))
    with pytest.raises(ValueError, match="unpack to more than 256 MiB"):
        read(tmp_path / "a.npz")
