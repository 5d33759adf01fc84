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


def ask(path: str, query: str, host: str) -> tuple[str, str]:
    """What the board with a stand-in for TensorBoard answers: status and body."""
    answered: list[str] = []

    def tensorboard(environ: dict[str, object], start_response: object) -> list[bytes]:
        answered.append("200 OK")
        return [b"TensorBoard"]

    given = {"PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": host}
    body = board.entered(tensorboard)(given, lambda status, headers: answered.append(status))
    return answered[0], b"".join(body).decode()


def test_the_address_leads_through_the_entrance_once() -> None:
    """The bare address gives the page that chooses how charts are drawn; all else is TensorBoard."""
    assert ask("/", "", "localhost:6006") == ("200 OK", board.ENTRANCE)
    assert 'location.replace("/?charts"' in board.ENTRANCE and '"#custom_scalars"' in board.ENTRANCE
    for path, query in (("/", "charts"), ("/data/environment", ""), ("/index.js", "")):
        assert ask(path, query, "127.0.0.1:6006") == ("200 OK", "TensorBoard")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:6006", "", "[::1]:6006", "0.0.0.0"])
def test_other_names_are_refused(host: str) -> None:
    """A page that makes its own name mean this machine gets nothing, whatever it asks for."""
    for path in ("/", "/data/environment"):
        status, body = ask(path, "", host)
        assert status == "403 Forbidden" and "TensorBoard" not in body


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
