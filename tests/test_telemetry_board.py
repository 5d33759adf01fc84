"""Tests of agent/telemetry/board.py (tests/test_board.py is about the verb, agent/cli/board.py)."""

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agent.config import Settings
from agent.telemetry.board import KEY_SETTINGS, Board, flat, key_settings
from agent.telemetry.images import frame, gif, png
from agent.telemetry.tags import TAGS, action_tags

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
plugin_event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator")


def _read(folder: Path):
    accumulator = event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    return accumulator.Reload()


def _points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _read(folder).Scalars(tag)]


def _layout(folder: Path) -> dict[str, list[str]]:
    """Return the newest layout as TensorBoard takes it: section -> charts."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    content = _read(folder).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    return {c.title: [chart.title for chart in c.chart] for c in layout_pb2.Layout.FromString(content).category}


def test_numbers_are_read_back(tmp_path: Path) -> None:
    """Every tag of the table can be written, and TensorBoard's reader gives steps and values back."""
    board = Board(tmp_path)
    board.write(10, {tag: float(i) for i, tag in enumerate(TAGS)})
    board.write(20, {"train/loss": 0.25, "q/max": math.nan})
    board.close()
    assert _points(tmp_path, "train/loss")[1] == (20, 0.25)
    assert math.isnan(_points(tmp_path, "q/max")[1][1])
    assert set(_read(tmp_path).Tags()["scalars"]) == set(TAGS)


def test_an_unknown_tag_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    """A misspelled tag does not make a stray chart."""
    board = Board(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'train/loss'"):
        board.write(1, {"train/los": 1.0})
    with pytest.raises(ValueError, match="Add it to the table"):
        board.write(1, {"zzzzzz": 1.0})
    board.close()


def test_layout_grows_with_what_is_written(tmp_path: Path) -> None:
    """The dashboard has a chart for what was written and none for what was not; a resumed run keeps its charts."""
    board = Board(tmp_path)
    board.write(1, {"time/fps": 1.0})
    board.write(2, {"train/loss": 1.0})
    state = board.state_dict()
    board.close()
    speed = ["Steps per second (steps/s)"]
    assert _layout(tmp_path) == {"Value health": ["Loss"], "Speed and machine": speed}
    resumed = Board(tmp_path, resumed_at=2)
    resumed.load_state_dict(state)
    resumed.write(3, {"q/max": 1.0})
    resumed.close()
    values = ["Q-values (discounted reward)", "Loss"]
    assert _layout(tmp_path) == {"Value health": values, "Speed and machine": speed}


def test_the_shares_of_all_actions_are_one_chart(tmp_path: Path) -> None:
    """Tags that are named after the game's actions can be written, and the layout has the chart that draws them."""
    board = Board(tmp_path)
    tags = action_tags(["NOOP", "fire left engine"])
    board.write(1, dict.fromkeys(tags, 0.5))
    state = board.state_dict()
    board.close()
    assert set(_read(tmp_path).Tags()["scalars"]) == set(tags)
    assert _layout(tmp_path) == {"Acting": ["Actions (share)"]}
    assert state == {"written": ["rollout/action_share"]}


def test_pictures_are_read_back(tmp_path: Path) -> None:
    """An animation and a still are in the Images tab byte for byte; a picture without an explanation is refused."""
    board = Board(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    moving, still = gif([frame(each) for each in pictures], 10), png(pictures[0])
    board.show(7, {"play/greedy_episode": moving, "play/saliency": still})
    with pytest.raises(ValueError, match="'play/other' is not a picture"):
        board.show(8, {"play/other": still})
    board.close()
    for tag, picture in (("play/greedy_episode", moving), ("play/saliency", still)):
        (found,) = _read(tmp_path).Images(tag)
        assert (found.step, found.encoded_image_string) == (7, picture.data)
        assert (found.height, found.width) == (picture.height, picture.width)


def test_resume_withdraws_the_points_after_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points up to the checkpoint stay, later ones are replaced by the resumed run's."""
    board = Board(tmp_path)
    for steps in (100, 200, 300, 400):
        board.write(steps, {"train/loss": steps / 100})
    board.close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2)  # event files are read in the order of their names' seconds
    resumed = Board(tmp_path, resumed_at=200)
    resumed.write(300, {"train/loss": -3.0})
    resumed.close()
    assert _points(tmp_path, "train/loss") == [(100, 1.0), (200, 2.0), (300, -3.0)]
    server = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()  # the reader behind the web page
    assert [event.step for event in server.Tensors("train/loss")] == [100, 200, 300]


def test_text_holds_settings_command_and_versions(tmp_path: Path) -> None:
    """The Text tab shows how the run was made and what the charts mean."""
    board = Board(tmp_path)
    board.describe(Settings(), ["icebox", "train", "a b"], {"torch": "2.13.0"})
    board.close()
    reader = _read(tmp_path)
    texts = {tag: reader.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in reader.Tags()["tensors"]}
    assert texts["1 command/text_summary"] == "    icebox train 'a b'"
    assert f"| learner.batch_size | {Settings().learner.batch_size} |" in texts["2 settings/text_summary"]
    assert "| torch | 2.13.0 |" in texts["3 versions/text_summary"]
    assert "`time/act_latency_p99` | ms |" in texts["4 what the charts show/text_summary"]


def test_hparams_row_has_key_settings_and_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is one row in HParams, in its own folder and not in a run beside it."""
    board = Board(tmp_path)
    board.write(100, {"train/loss": 1.0})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2)  # event files are read in the order of their names' seconds
    board.finish(Settings(), 100, 231.5)
    board.close()
    reader = _read(tmp_path)
    assert _points(tmp_path, "hparam/score") == [(100, 231.5)]
    assert reader.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert set(KEY_SETTINGS) <= set(flat(Settings()))


def test_the_row_of_another_algorithm_has_what_it_heeds() -> None:
    """PPO's row shows PPO's batch size and none of our learner's; lists and tables have no place in a row."""
    own = {"batch_size": 64, "learning_rate": 3e-4, "policy_kwargs": {"net_arch": [8]}}
    assert key_settings(Settings(algo="ppo", sb3={"ppo": own, "a2c": {"n_steps": 5}}, seed=3)) == {
        "algo": "ppo",
        "seed": 3,
        "steps": 100_000,
        "game.num_games": 8,
        "ppo.batch_size": 64,
        "ppo.learning_rate": 3e-4,
    }
    assert set(key_settings(Settings())) == set(KEY_SETTINGS)


def test_a_full_disk_costs_the_dashboard_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails there is one warning, and every later call does nothing."""
    warned: list[str] = []
    board = Board(tmp_path, warn=warned.append)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writer, "add_scalar", refuse)
    for steps in range(3):
        board.write(steps, {"train/loss": 1.0})
    board.finish(Settings(), 3, 1.0)
    board.flush()
    board.close()
    assert len(warned) == 1 and "No space left" in warned[0] and "training goes on" in warned[0]


def test_a_folder_that_cannot_be_written_costs_the_dashboard(tmp_path: Path) -> None:
    """A board that cannot be opened warns and swallows what it is given."""
    (tmp_path / "file").touch()
    warned: list[str] = []
    board = Board(tmp_path / "file" / "below", warn=warned.append)
    board.describe(Settings(), ["icebox"], {})
    board.write(1, {"train/loss": 1.0})
    board.load_state_dict({"written": ["train/loss"]})
    board.close()
    assert len(warned) == 1


def test_importing_the_module_loads_neither_tensorboard_nor_torch() -> None:
    """The writer is imported when a run opens its board."""
    code = "import sys, agent.telemetry.board; sys.exit('tensorboard' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
