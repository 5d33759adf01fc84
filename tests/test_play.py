"""Tests of agent/cli/play.py: the viewer as a person starts it, and episodes with a frozen policy without it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_verify import made, reseal  # noqa: F401
from viewer_server import Served

from agent.cli.main import main
from agent.cli.artefacts import trusted_player
from agent.cli.play import said
from agent.freeze import artefact


def test_episodes_are_played_and_reported(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """So many episodes as asked for, the same for the same seed, whatever runtime plays."""
    found = []
    for runtime in ("c", "onnx", "auto"):
        assert main(["play", str(made), "--episodes", "3", "--runtime", runtime, "--seed", "5", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert len(found[0]["scores"]) == 3
    assert found[0]["scores"] == found[1]["scores"] == found[2]["scores"]
    assert [each["runtime"] for each in found[:2]] == ["c", "onnx"]


def test_c_that_does_not_follow_from_the_layers_is_not_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    """A stranger's C that gives all golden outputs and does more besides is never compiled: ONNX plays instead."""
    shutil.copytree(made, tmp_path / "copy")
    marker = tmp_path / "ran"
    with (tmp_path / "copy" / "policy.c").open("a") as file:
        file.write(
            '\n#include <stdio.h>\n__attribute__((constructor)) static void evil(void) {'
            f' FILE *f = fopen("{marker}", "w"); if (f) fclose(f); }}\n'
        )
    reseal(tmp_path / "copy")
    assert trusted_player(tmp_path / "copy", "auto", allow_refused=False).runtime == "onnx"
    assert "not compiled" in capsys.readouterr().err
    assert main(["play", str(tmp_path / "copy"), "--runtime", "c", "--episodes", "1"]) == 2
    assert not marker.exists()


def test_a_refused_policy(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """What failed its gate is played only with the flag that the error names."""
    whole = artefact.read(made)
    artefact.write(tmp_path / "a", replace(whole, card=whole.card.model_copy(update={"refused": "it lost 9 points"})))
    assert main(["play", str(tmp_path / "a"), "--episodes", "1"]) == 2
    assert "failed its gate: it lost 9 points. To play it nevertheless: --allow-refused." in capsys.readouterr().err
    assert main(["play", str(tmp_path / "a"), "--episodes", "1", "--allow-refused"]) == 0


def test_bad_arguments_are_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """No episodes, a negative seed, a folder that is no artefact, and words that stand for nothing."""
    for words, named in (
        ([str(made), "--episodes", "0"], "--episodes"),
        ([str(made), "--seed", "-1"], "--seed"),
        ([str(made.parent), "--episodes", "1"], "MANIFEST.json"),
        (["latest", "--episodes", "1"], "icebox eval"),
        ([str(made), "--port", "0"], "--port"),
        ([str(made), "--host", ""], "--host"),
        ([str(made), "--json"], "only with --episodes"),
        (["pacmann", "--runs-dir", str(made)], "no run, artefact, zip or game"),
        (["latest", "--runs-dir", str(made)], "no run"),
        ([str(made.parent), "--runs-dir", str(made)], "not a run folder"),
        (["nothing.zip"], "does not exist"),
        (["cartpole", "--game", "pong"], "--game: only for a zip"),
        (["cartpole", "--host", "192.0.2.1", "--runs-dir", str(made)], "no address of this machine"),
        (["gym:Pendulum-v1", "--runs-dir", str(made)], "continuous actions"),
    ):
        assert main(["play", *words]) == 2, words
        assert named in capsys.readouterr().err, words
    assert not list(made.glob(".*")), "what is refused leaves nothing behind"


def test_the_link_says_how_to_reach_it_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ssh line names the machine as this person reached it; another host than loopback comes with a warning."""
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    text = said("http://127.0.0.1:8080/", 8080, "127.0.0.1", "C", "W")
    assert text.splitlines()[0] == "Open  http://127.0.0.1:8080/#token=C"
    assert "http://127.0.0.1:8080/#token=W" in text
    assert "ssh -L 8080:127.0.0.1:8080 " in text and "@10.0.0.2" in text and "encrypted" not in text
    text = said("http://box:8080/", 8080, "0.0.0.0", None, "W")
    assert "#token=W" in text and "nothing is encrypted" in text and text.count("#token=") == 1


def start(*words: str) -> tuple[subprocess.Popen[str], str, int, str]:
    """Start the viewer; return its process, everything said with the link, its port and its token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "play", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    text = ""
    while "Ctrl-C" not in text:
        line = process.stdout.readline()
        assert line, "the viewer ended before it said anything"
        text += line
    port, token = re.search(r"http://127.0.0.1:(\d+)/#token=(\S+)", text).groups()
    return process, text, int(port), token


def test_the_viewer_opens_plays_and_ends(made: Path, tmp_path: Path) -> None:  # noqa: F811
    """From the command line to the first pictures of an artefact and a person's game; Ctrl-C ends it with a farewell.

    A port that is taken gives way to the next, and that is said.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        process, text, port, token = start(str(made), "--port", str(wanted), "--runs-dir", str(tmp_path))
    try:
        assert "ssh -L" in text and port != wanted and f"port {wanted} is taken, so it is {port}" in text
        with Served(None, None, None, port, None).page(token) as page:
            assert [room["id"] for room in page.hear("hello")["rooms"]] == ["frozen", "you"]
            page.say({"type": "look", "rooms": ["frozen"]})
            for _ in range(5):
                packet = page.hear("packet")
                page.say({"type": "got", "room": "frozen", "n": packet["n"]})
            assert packet["step"] >= 1 and len(packet["q"]) == 2 and packet["width"] == 600
            process.send_signal(signal.SIGINT)
            bye = page.hear("bye", 60)
            assert bye["said"] == "The viewer was closed." and bye["again"] == f"icebox play {made}"
            assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
