"""Tests of agent/telemetry/report/gather.py: a run folder in any state is read as far as it goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reported

from agent.telemetry.report.gather import Watched, gather


def test_a_run_is_read_with_its_times(tmp_path: Path) -> None:
    """Means, seconds, seed and state come from the folder, and a sound finished run has nothing to be noted."""
    run = gather(reported.run(tmp_path, [10.0, 30.0], seed=3))
    assert (run.name, run.game, run.seed, run.status, run.steps) == ("cartpole/run0_s3", "cartpole", 3, "done", 2000)
    assert run.means.tolist() == [10.0, 30.0] and run.seconds.tolist() == [5.0, 7.0]
    assert run.notes == [] and not run.seconds_estimated


def test_times_that_were_not_kept_are_estimated(tmp_path: Path) -> None:
    """Without recorded seconds they follow from the training episodes, beyond the last at the mean speed."""
    path = reported.run(tmp_path, [10.0, 30.0, 50.0], seconds=False)
    rows = "".join(f"1.0,500,{5.0 * row}\n" for row in range(1, 5))
    (path / "monitor.csv").write_text('#{"env_id": "cartpole"}\nr,l,t\n' + rows + "half a row")
    run = gather(path)
    assert run.seconds_estimated and run.seconds.tolist() == [10.0, 20.0, 30.0] and run.trained_episodes == 4
    (path / "monitor.csv").unlink()
    assert np.isnan(gather(path).seconds).all()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("meta.json", b"{", "meta.json is damaged"),
        ("meta.json", b'{"started": "2026-11-21T12:00:00", "status": "running", "process": 7}', "meta.json is damaged"),
        ("config.yaml", b"steps: [", "config.yaml is missing or damaged"),
        ("config.yaml", b"a: &a [1]\nb: *a\n", "config.yaml is missing or damaged"),
        ("config.yaml", b"\xff\xfe", "config.yaml is missing or damaged"),
        ("evaluations.npz", b"PK\x03\x04 no archive", "evaluations.npz is damaged"),
        ("evaluations.npz", b"", "evaluations.npz is damaged"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_noted(file: str, content: bytes, said: str, tmp_path: Path) -> None:
    """Each file of a run may be damaged: a sentence says so, and the others are still read."""
    path = reported.run(tmp_path, [10.0])
    (path / "monitor.csv").write_text('#{"env_id": "cartpole"}\nr,l,t\n7.0,500,5.0\n')
    (path / file).write_bytes(content)
    run = gather(path)
    assert said in " ".join(run.notes) and run.game == "cartpole" and run.trained_score == 7.0
    assert (run.history is None) == (file == "evaluations.npz")


def test_a_resumed_run_has_the_length_that_it_was_resumed_to(tmp_path: Path) -> None:
    """Not the one that its config.yaml names, which is what it was started with."""
    path = reported.run(tmp_path, [10.0])
    before = gather(path).settings.steps
    meta = json.loads((path / "meta.json").read_text())
    for total, steps in ((before + 500, before + 500), ("many", before), (None, before), (-1, before)):
        (path / "meta.json").write_text(json.dumps(meta | {"total_steps": total}))
        assert gather(path).settings.steps == steps


def test_unfinished_runs_say_how_far_they_went(tmp_path: Path) -> None:
    """A stopped, crashed or running run names its last evaluation, one without any its training score."""
    assert gather(reported.run(tmp_path, [1.0], status="stopped")).notes == [
        "it was stopped, last evaluated after 1,000 steps"
    ]
    running = gather(reported.run(tmp_path, [], status="running"))  # its process is gone
    assert running.notes[0] == "it holds no evaluation" and "it has crashed" in running.notes[1]


def test_kept_episodes_are_listed_best_first(tmp_path: Path) -> None:
    """Rows of the index that are no episodes, or were left before their end, are passed over."""
    path = reported.run(tmp_path, [1.0])
    (path / "episodes").mkdir()
    good = {"room": "latest", "score": 5.0, "length": 9, "finished": True}
    rows = [good, good | {"score": 7.0}, good | {"finished": False}]
    index = path / "episodes" / "index.json"
    index.write_text(json.dumps({"format": "icebox-episodes", "version": 1, "episodes": rows}))
    assert gather(path).episodes == [Watched("latest", 7.0, 9), Watched("latest", 5.0, 9)]
    for bad in ("[]", "{", '{"format": "icebox-episodes", "version": 1, "episodes": [{"finished": true}]}'):
        index.write_text(bad)
        assert gather(path).episodes == []


def test_reading_leaves_the_folder_alone(tmp_path: Path) -> None:
    """Nothing in the run folder is written, made or removed."""
    path = reported.run(tmp_path, [1.0])
    before = {each: each.stat().st_mtime_ns for each in [path, *path.rglob("*")]}
    gather(path)
    assert {each: each.stat().st_mtime_ns for each in [path, *path.rglob("*")]} == before
