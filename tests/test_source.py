"""Tests of agent/cli/source.py: what can be frozen, which game it plays, and that its graph is its live policy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import short_runs

from agent.cli.source import load_source
from agent.freeze.graph import decide, run
from agent.freeze.vec_normalize import read_statistics
from strangers import SIX, Known, load_known

ZOO = Path(__file__).parent / "zoo"


def states(source, count: int = 50) -> np.ndarray:
    """Random observations of the source's game: numbers, or grids of zeros and ones."""
    rng, shape = np.random.default_rng(0), (count, *source.spec.observation_shape)
    if source.spec.observation_dtype == "uint8":
        return rng.integers(0, 2, shape, np.uint8)
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("game", "algo"),
    [(game, algo) for game in ("cartpole", "minatar/breakout") for algo in ("icebox", "ppo", "dqn-sb3")],
)
def test_the_graph_of_a_run_is_its_live_policy(tmp_path: Path, game: str, algo: str) -> None:
    """The run of our agent and of stable-baselines3's algorithms: graph and live network give the same outputs."""
    folder = short_runs.train(tmp_path / "runs", game, "--quiet", "--algo", algo, "--steps", "200")[1]
    source = load_source(str(folder.path), tmp_path, None, "last")
    observation = states(source)
    np.testing.assert_allclose(run(source.graph, observation), source.outputs(observation), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(source.act(observation), decide(source.graph.head, source.outputs(observation)))
    assert source.game == game and source.described.endswith("the last")


@pytest.mark.parametrize(
    ("name", "game", "algorithm"),
    [("dqn-LunarLander-v2", "lunar-lander", "DQN"), ("sac-Pendulum-v1", "gym:Pendulum-v1", "SAC")],
)
def test_a_zip_says_its_game_by_its_name(name: str, game: str, algorithm: str) -> None:
    """The game is read off the file's name, newest version first, and this is said."""
    source = load_source(str(ZOO / f"{name}.zip"), Path("runs"), None, "best")
    assert (source.game, source.algorithm) == (game, algorithm)
    assert any(game in note for note in source.notes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("known", SIX, ids=lambda known: known.file)
def test_a_zip_acts_bit_for_bit(known: Known) -> None:
    """A zip is played, watched and judged as stable-baselines3 itself plays it."""
    source = load_source(str(ZOO / f"{known.file}.zip"), Path("runs"), None, "best")
    model, observation = load_known(known), states(source, 202)
    for rows in (observation[:200], observation[1:3]):
        seen = rows
        if known.algorithm == "A2C":
            one = read_statistics((ZOO / "a2c-MountainCar-v0.vecnormalize.pkl").read_bytes())
            seen = (rows - one.mean) / np.sqrt(one.var + one.epsilon)
            seen = np.clip(seen, -one.clip_obs, one.clip_obs).astype(np.float32)
        assert source.act(rows).tobytes() == model.predict(seen.copy(), deterministic=True)[0].tobytes()


def test_what_cannot_be_frozen_is_named(tmp_path: Path) -> None:
    """A zip without a game, one for another game, one that is not there, and --game for a run are refused."""
    for name in ("agent.zip", "mine-Acrobot-v1.zip"):
        shutil.copy(ZOO / "dqn-CartPole-v1.zip", tmp_path / name)
    for arguments, match in [
        ((str(tmp_path / "agent.zip"), tmp_path, None, "best"), "--game"),
        ((str(tmp_path / "agent.zip"), tmp_path, "lunar-lander", "best"), "takes observations .*: it is no policy"),
        ((str(tmp_path / "agent.zip"), tmp_path, "gym:Pendulum-v1", "best"), "takes observations .* it is no policy"),
        ((str(tmp_path / "mine-Acrobot-v1.zip"), tmp_path, None, "best"), "takes observations .*: name its game with"),
        ((str(tmp_path / "none.zip"), tmp_path, None, "best"), "does not exist"),
        (("latest", tmp_path, "cartpole", "best"), "--game is for zips"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            load_source(*arguments)
    source = load_source(str(tmp_path / "agent.zip"), tmp_path, "cartpole", "best")
    assert source.spec.num_actions == 2
