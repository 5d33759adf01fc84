"""Tests of agent/cli/watch.py: a viewer beside a training, which lives and dies with it and does not matter to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import short_runs
from room_fakes import eventually
from viewer_server import Served

from agent.cli import watch
from agent.cli.watch import viewer_beside


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_no_viewer_unless_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started."""
    monkeypatch.setattr(watch.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with viewer_beside(tmp_path, tmp_path, wanted=False):
        pass


def test_a_viewer_that_dies_is_no_matter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """This folder is no run, so the viewer ends with a sentence, and the block goes on to its end."""
    with viewer_beside(tmp_path, tmp_path):
        time.sleep(0.1)
    with viewer_beside(tmp_path, tmp_path):
        eventually(lambda: "not a run folder" in capfd.readouterr().err, 60)


def test_a_viewer_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores the friendly signal is killed soon after."""
    (tmp_path / "launcher").write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ > {tmp_path / 'pid'}\nwhile :; do sleep 0.1; done\n")
    (tmp_path / "launcher").chmod(0o755)
    monkeypatch.setattr(watch.sys, "executable", str(tmp_path / "launcher"))
    monkeypatch.setattr(watch, "END_S", 0.2)
    with viewer_beside(tmp_path, tmp_path):
        pid = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    assert not alive(pid)


@pytest.mark.slow
def test_a_training_is_watched_and_ends_with_its_viewer(tmp_path: Path) -> None:
    """`train --watch` prints a link; behind it the run plays live, Ctrl-C saves the run, and the viewer is gone."""
    config = tmp_path / "tiny.yaml"
    config.write_text(str(short_runs.TINY | {"steps": 10_000_000}).replace("'", '"'))
    words = ["train", "cartpole", "--config", str(config), "--runs-dir", str(tmp_path / "runs"), "--watch", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        port, token = re.search(r"http://127.0.0.1:(\d+)/#token=(\S+)", line).groups()
        with Served(None, None, None, int(port), None).page(token) as page:
            assert [room["id"] for room in page.hear("hello")["rooms"]] == ["live", "latest", "you"]
            page.say({"type": "look", "rooms": ["live"]})
            for _ in range(10):
                packet = page.hear("packet", 60)
                page.say({"type": "got", "room": "live", "n": packet["n"]})
            assert packet["room"] == "live" and packet["policy_updates"] > 0
            page.say({"type": "do", "id": 1, "what": "pause", "room": None, "value": None})
            assert page.hear("done", 60)["ok"]
            page.say({"type": "do", "id": 2, "what": "go on", "room": None, "value": None})
            assert page.hear("done", 60)["ok"]
            (viewer,) = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent_of(pid) == process.pid]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert not alive(viewer)
        assert (tmp_path / "runs" / ".viewer").is_file(), "its tokens are kept with the run's, wherever one stands"
    finally:
        process.kill()
        process.wait()


def parent_of(pid: str) -> int | None:
    """The process that started this one."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None
