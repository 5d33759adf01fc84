"""Tests of agent/replay/demonstrations.py: a file holds what was played, and a foreign one is refused in words."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from taught import FACTS, counting, play

from agent.replay.demonstrations import DemonstrationWriter, game_facts, read
from envs.make import spec


@pytest.mark.parametrize("stack", [1, 3])
def test_a_file_holds_what_was_played(stack: int, tmp_path: Path) -> None:
    """Every frame once, actions, raw rewards and ends come back, with the facts of game, seed and score."""
    episodes = play(tmp_path, 4, stack=stack)
    found = read(tmp_path)
    assert len(found) == 4 == len(list(tmp_path.iterdir()))
    for demonstration, episode in zip(found, episodes, strict=True):
        played, facts = demonstration.load(), demonstration.facts
        np.testing.assert_array_equal(played.observation, np.stack([seen[-1] for seen in episode.seen]))
        assert played.action.tolist() == episode.action and played.reward.tolist() == episode.reward
        assert played.terminated.tolist() == [False] * (facts["length"] - 1) + [episode.terminated]
        assert played.truncated[-1] == (not episode.terminated) and not played.truncated[:-1].any()
        assert facts["score"] == pytest.approx(sum(episode.reward)) and facts["complete"] == episode.complete
        assert (facts["game"], facts["stack"], facts["seed"]) == ("fake/counting", stack, episode.seed)


def test_safetensors_reads_it_without_us(tmp_path: Path) -> None:
    """The file is what docs/formats.md says: four arrays of steps and one of frames, facts as JSON in the metadata."""
    play(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    arrays = load_file(path)
    count = len(arrays["action"])
    assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == {
        "observation": ("uint8", (count + 1, 8, 8)),
        "action": ("int16", (count,)),
        "reward": ("float32", (count,)),
        "terminated": ("bool", (count,)),
        "truncated": ("bool", (count,)),
    }
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    facts = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["demonstration"])
    assert facts["format"] == "icebox-demonstration" and facts["version"] == 1


def test_numbers_as_observations(tmp_path: Path) -> None:
    """A game without pictures is kept in its own type, from observations with and without the axis of games."""
    cartpole = spec("cartpole")
    writer = DemonstrationWriter(tmp_path, game_facts(cartpole, {}, {}))
    seen = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    writer.begin(seen[:1], 7)
    assert writer.step(1, 1.0, seen[1], False, False) is None
    assert writer.step(0, 1.0, seen[2:3], False, False) is None
    path = writer.step(1, 1.0, seen[3], True, False)
    (demonstration,) = read(path)
    np.testing.assert_array_equal(demonstration.load().observation, seen)
    assert writer.end() is None and writer.step(0, 0.0, seen[0], False, False) is None


def test_an_episode_appears_when_it_is_over(tmp_path: Path) -> None:
    """What is open is a hidden file that no reader takes; without a step nothing is left; a new beginning cuts it."""
    writer = DemonstrationWriter(tmp_path, FACTS)
    frame = np.zeros((4, 8, 8), np.uint8)
    writer.begin(frame, 1)
    with pytest.raises(FileNotFoundError, match="holds no demonstrations"):
        read(tmp_path)
    assert writer.end() is None and not list(tmp_path.iterdir())
    writer.begin(frame, 2)
    writer.step(1, 3.0, frame, False, False)
    writer.begin(frame, 3)
    writer.drop()
    (found,) = read(tmp_path)
    assert (found.facts["seed"], found.facts["complete"], found.load().truncated.tolist()) == (2, False, [True])
    assert len(list(tmp_path.iterdir())) == 1


def test_an_observation_of_another_shape_is_named(tmp_path: Path) -> None:
    """It is an error that drops the episode and leaves no file."""
    writer = DemonstrationWriter(tmp_path, FACTS)
    writer.begin(np.zeros((4, 8, 8), np.uint8), 1)
    with pytest.raises(ValueError, match=r"\(8, 8\) is none of fake/counting"):
        writer.step(0, 0.0, np.zeros((8, 8), np.uint8), False, False)
    assert not list(tmp_path.iterdir())


def test_what_a_crash_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """An old temporary file goes when somebody plays again, a fresh one of another process stays."""
    old, fresh = tmp_path / ".a.tmp", tmp_path / ".b.tmp"
    for path in (old, fresh):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    DemonstrationWriter(tmp_path, FACTS).begin(np.zeros((4, 8, 8), np.uint8), 1)
    assert not old.exists() and fresh.exists()


def test_what_cannot_be_demonstrated() -> None:
    """A game without buttons cannot be demonstrated, nor one that ignores the action behind a lost life."""
    with pytest.raises(ValueError, match="gym:Pendulum-v1 has continuous actions"):
        game_facts(spec("gym:Pendulum-v1"), {}, {})
    with pytest.raises(ValueError, match="whole games"):
        game_facts(counting(), {"life_loss_ends": True}, {})


def change(**arrays: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict, dict], None]:
    """Change arrays of a file."""

    def apply(found: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        for name, function in arrays.items():
            found[name] = np.ascontiguousarray(function(found[name]))

    return apply


def claim(**facts: Any) -> Callable[[dict, dict], None]:
    """Change facts of a file."""
    return lambda found, known: known.update(facts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change(action=lambda a: a + 2), "an action is none of its 2"),
        (change(action=lambda a: a * 0 - 1), "an action is none of its 2"),
        (change(action=lambda a: a.astype(np.int64)), "its action is torch.int64"),
        (change(reward=lambda r: r * np.nan), "not finite"),
        (change(observation=lambda o: o[:-1]), "its observation is"),
        (change(truncated=lambda t: t | True), "the end of its episode is not its last step"),
        (change(truncated=lambda t: t & False, terminated=lambda t: t & False), "the end of its episode"),
        (lambda found, facts: found.pop("reward"), "its arrays are action, observation, terminated, truncated"),
        (claim(version=2), "its version is 2, this Icebox reads 1"),
        (claim(format="other"), "its facts do not say icebox-demonstration"),
        (claim(length=0), "its length is 0"),
        (claim(length=True), "its fact 'length' is missing"),
        (claim(dtype="float64"), "its frames are 'float64'"),
        (claim(game=None), "its fact 'game' is missing"),
        (claim(frame_shape=[8, "x"]), "its frame shape is none"),
        (claim(frame_shape=[4, 16]), "its observation is"),
    ],
)
def test_a_damaged_file_is_refused_in_words(damage: Callable[[dict, dict], None], said: str, tmp_path: Path) -> None:
    """Arrays and facts that do not fit each other are named with the file, and nothing else happens."""
    play(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    arrays, facts = load_file(path), dict(read(path)[0].facts)
    damage(arrays, facts)
    save_file(arrays, path, {"demonstration": json.dumps(facts)})
    with pytest.raises(ValueError, match=f"{path} is no demonstration: .*{said}"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x10\0\0\0\0\0\0\0{}", struct.pack("<Q", 2**62) + b"{}"])
def test_what_is_no_safetensors_file_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    """Nothing, noise, a header that is cut off and one that claims to be huge."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors is no demonstration: "):
        read(path)


def test_a_cut_file_and_facts_that_are_no_json(tmp_path: Path) -> None:
    """A file that lost its end, and metadata that are missing or not JSON, however deep they nest."""
    play(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    whole, arrays = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="is no demonstration"):
        read(path)
    for facts in (None, {"demonstration": "{"}, {"demonstration": "[" * 100_000}, {"other": "{}"}):
        save_file(arrays, path, facts)
        with pytest.raises(ValueError, match="its metadata have no 'demonstration'|its facts are not JSON"):
            read(path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Neither file nor folder."""
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
