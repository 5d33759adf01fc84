"""Tests of agent/cli/freeze_report.py: names, reasons and what a newcomer reads; the whole table is in test_freeze.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.cli.freeze_report import folder_name, reason, table, to_dashboard
from agent.freeze.card import Card, Observation, Precision
from agent.freeze.gate import compare
from agent.telemetry.run_folder import RunFolder


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("20260101-000000_s0", "atari-pong-20260101-000000_s0-int8"),
        ('"; system("x"); //', "atari-pong-system-x-int8"),
        ("../../etc", "atari-pong-..-..-etc-int8"),
        ("ä b\n", "atari-pong-b-int8"),
    ],
)
def test_folder_names_fit_any_file_system(name: str, folder: str) -> None:
    """No name from outside brings a separator, a blank or a quote into a path."""
    assert folder_name("atari/pong", name, "int8, int16 in 1 of 3 layers") == folder
    assert folder_name("atari/pong", name, "int8", pruned=True) == f"{folder}-pruned", "beside the one that is not"


def test_the_reason_has_every_figure() -> None:
    """Who is refused reads both scores, the interval and the margin."""
    text = reason(compare(np.full(100, 200.0), np.full(100, 150.0), 0.05))
    for part in ("100 paired episodes", "150.0", "200.0", "-50.0", "-10.0"):
        assert part in text


MEASURED = {
    "latency": {"frozen, onnx": {"p50_us": 2.0, "p99_us": 3.0}, "live, torch": {"p50_us": 50.0, "p99_us": 60.0}},
    "runtime": "onnx",
    "energy_uj_per_decision": "not measured",
}


def judged_card(agree: float = 0.97) -> Card:
    """The card of a policy that has passed its gate."""
    choices = {"states": 10, "agree": agree, "ties": 0, "largest_difference": 1.0, "regret": 0.1, "within": 0.0}
    scores = compare(np.full(100, 200.0), np.full(100, 199.0), 0.05)
    return Card(
        game="lunar-lander", algorithm="DQN", source={"name": "run", "weights": "the last"},
        observation=Observation(layout="features", low=None, high=None, stack=1, frame_skip=1, preprocessing="As it is."),
        action_names=["left", "right"], precision=Precision(name="int8", weight_bits=8, activation_bits=8, wide=[]),
        macs=50, sizes={"weights": 60}, arena_bytes=None, score=None,
        gate={"choices": choices, "scores": scores.figures()}, passes=[{"macs": 100, "weight_bytes": 400}], refused=None,
        versions={},
    )  # fmt: skip


def test_the_runs_dashboard_shows_the_frozen_policy(tmp_path: Path) -> None:
    """Size, speed, agreement and score are points of a run of the artefact's name below the run's, with their charts."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    to_dashboard(RunFolder(tmp_path), "lander-int8", judged_card(), MEASURED, 5_000)
    reader = event_accumulator.EventAccumulator(str(tmp_path / "board" / "lander-int8")).Reload()
    points = {tag: [(each.step, each.value) for each in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    assert points == {
        "frozen/weights_kib": [(5_000, 60 / 1024)],
        "frozen/live_weights_kib": [(5_000, 400 / 1024)],
        "frozen/latency_p50": [(5_000, 2.0)],
        "frozen/latency_p99": [(5_000, 3.0)],
        "frozen/live_latency_p50": [(5_000, 50.0)],
        "frozen/agreement": [(5_000, pytest.approx(0.97))],
        "frozen/score": [(5_000, 199.0)],
        "frozen/live_score": [(5_000, 200.0)],
        "frozen/score_gap": [(5_000, -1.0)],
    }
    assert "custom_scalars__config__" in reader.Tags()["tensors"]
    assert not [path for path in tmp_path.iterdir() if path.is_file()], "the run's own events end where they did"


def test_a_run_that_cannot_be_written_costs_the_dashboard_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing can be written below the run, freezing says so and goes on."""
    (tmp_path / "board").write_text("a file is in the way")
    to_dashboard(RunFolder(tmp_path), "lander-int8", judged_card(), MEASURED, 5_000)
    assert "The frozen policy is not on the run's dashboard." in capsys.readouterr().err


@pytest.mark.parametrize(("agree", "words"), [(0.97, "plays as before"), (0.8, "though it plays otherwise")])
def test_another_play_with_the_same_score_is_said(agree: float, words: str, tmp_path: Path) -> None:
    """A policy that passes by its score but often chooses otherwise is not called the same; a refused one neither."""
    card, measured = judged_card(agree), MEASURED
    text = table(card, measured, tmp_path)
    assert words in text and "25 times the frozen policy's" in text and "50, before 100 (50%)" in text
    pruned = card.model_copy(update={"macs": 1, "passes": [{"macs": 1600, "weight_bytes": 400}]})
    tiny = table(pruned, measured, tmp_path)
    assert "1, before 1,600 (0.06%)" in tiny, "little is not nothing"
    refused = table(card.model_copy(update={"refused": "it lost"}), measured, tmp_path)
    assert "REFUSED: it lost" in refused and words not in refused
