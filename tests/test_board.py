"""Tests of agent/cli/board.py: TensorBoard on loopback, on a free port, ended by Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from agent.cli import board
from agent.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


def test_the_wanted_port_when_free() -> None:
    """A port that nothing listens on is taken as asked."""
    with socket.socket() as probe:
        probe.bind((board.HOST, 0))
        port = probe.getsockname()[1]
    assert board.free_port(port) == port


def test_another_port_when_taken() -> None:
    """A port that is in use is replaced by a free one."""
    with socket.socket() as taken:
        taken.bind((board.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert board.free_port(port) not in (port, 0)


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is not there, runs that are not there, and a port out of range are code 2."""
    runs = tmp_path / "runs"
    assert main(["board", "--runs-dir", str(runs)]) == 2
    assert capsys.readouterr().err == f"icebox: there are no runs in {runs} yet. Start one: icebox train lunar-lander\n"
    assert main(["board", "latest", "--runs-dir", str(runs)]) == 2
    assert "There is no run 'latest'" in capsys.readouterr().err
    assert main(["board", "--port", "70000"]) == 2
    assert capsys.readouterr().err == "icebox: --port: must be a whole number from 0 to 65535, got 70000.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process")
def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    """The printed address answers on this machine, and Ctrl-C ends it with 0 and no traceback."""
    command = [sys.executable, "-m", "agent.cli.main", "board", "--runs-dir", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        address = re.search(r"http://localhost:(\d+)/#custom_scalars", line)
        assert address, line + process.stderr.read()
        url = f"http://127.0.0.1:{address[1]}/data/environment"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()
