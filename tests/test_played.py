"""Tests of agent/cli/played.py: the games that a person played are listed, and Minari gets them as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from taught import play, play_cartpole

from agent.cli import played as verb
from agent.cli.main import main
from agent.replay.demonstrations import read


def test_the_verb_lists_what_was_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each file with game, steps and score, and the command that learns from them."""
    episodes = play(tmp_path / "played", 3, longest=4, p_end=0.3)
    assert main(["played", str(tmp_path / "played")]) == 0
    _, *lines, last = capsys.readouterr().out.splitlines()
    for number, (episode, line) in enumerate(zip(episodes, lines, strict=True)):
        assert line.split()[:3] == [f"{number:04d}.safetensors", "fake/counting", str(len(episode.action))]
        assert line.endswith("left before its end") != episode.complete
    assert last == f"To learn from them: icebox train fake/counting --demonstrations {tmp_path / 'played'}"
    assert main(["played", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err


def test_minari_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Minari the export says how to get it; a name without a version and two games at once are refused."""
    play(tmp_path, 2)
    found = read(tmp_path)
    monkeypatch.setattr(verb, "is_installed", lambda module: False)
    with pytest.raises(ValueError, match=r"pip install 'minari\[hdf5\]>=0.5.4'"):
        verb.export(found, "pong/human-v0")
    with pytest.raises(ValueError, match="a name ends with a version, such as pong/human-v0, not 'pong'"):
        verb.export(found, "pong")


def test_minari_gives_back_what_was_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its episodes hold the very frames, actions, rewards and ends."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    play(tmp_path / "played", 3)
    found = read(tmp_path / "played")
    assert verb.export(found, "counting/human-v0") == tmp_path / "sets" / "counting" / "human-v0"
    for episode, each in zip(minari.load_dataset("counting/human-v0").iterate_episodes(), found, strict=True):
        played = each.load()
        np.testing.assert_array_equal(episode.observations, played.observation)
        np.testing.assert_array_equal(episode.actions, played.action)
        np.testing.assert_array_equal(episode.rewards, played.reward)
        np.testing.assert_array_equal(episode.terminations, played.terminated)
        np.testing.assert_array_equal(episode.truncations, played.truncated)
    with pytest.raises(ValueError, match="already exists"):
        verb.export(found, "counting/human-v0")
    play_cartpole(tmp_path / "played", 1)
    with pytest.raises(ValueError, match="its game differs from that of"):
        verb.export(read(tmp_path / "played"), "counting/human-v1")
