"""Statistics of VecNormalize, read without unpickling them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agent.freeze.convert import Statistics
from agent.freeze.vec_normalize import read_statistics
from hostile import Bomb
from strangers import ZOO, Silent

SEEN = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def normalizer(steps: int = 20, observations: spaces.Space = SEEN, **settings: Any) -> VecNormalize:
    """Statistics of a few observations."""
    observations.seed(0)
    normalize = VecNormalize(DummyVecEnv([lambda: Silent(observations, spaces.Discrete(2))]), **settings)
    normalize.reset()
    for _ in range(steps):
        normalize.step(np.array([0]))
    return normalize


@given(st.integers(2, 5), st.floats(0.1, 20), st.floats(1e-9, 0.1))
def test_as_it_was_saved(protocol: int, clip: float, epsilon: float) -> None:
    """Means, variances and limits are those of the object, through every protocol."""
    normalize = normalizer(3, clip_obs=clip, epsilon=epsilon)
    statistics = read_statistics(pickle.dumps(normalize, protocol))
    assert isinstance(statistics, Statistics)
    np.testing.assert_array_equal(statistics.mean, normalize.obs_rms.mean)
    np.testing.assert_array_equal(statistics.var, normalize.obs_rms.var)
    assert (statistics.clip_obs, statistics.epsilon) == (clip, epsilon)


def test_of_the_zoo() -> None:
    """Statistics from 2021, over gym's spaces, are read."""
    statistics = read_statistics((ZOO / "a2c-MountainCar-v0.vecnormalize.pkl").read_bytes())
    assert isinstance(statistics, Statistics) and statistics.clip_obs == 10 and statistics.epsilon == 1e-8
    np.testing.assert_allclose(statistics.mean, [-0.443361, 0.007997], atol=1e-6)
    np.testing.assert_allclose(statistics.var, [0.181855, 0.000908], atol=1e-6)


def test_rewards_only() -> None:
    """Where only rewards were normalised there is nothing to do to observations."""
    assert read_statistics(pickle.dumps(normalizer(norm_obs=False))) is None


def test_of_several_observations() -> None:
    """Of several observations those have statistics that were normalised."""
    normalize = normalizer(3, spaces.Dict(a=SEEN, b=SEEN, c=spaces.Discrete(2)), norm_obs_keys=["b"])
    statistics = read_statistics(pickle.dumps(normalize))
    assert isinstance(statistics, dict) and list(statistics) == ["b"]
    np.testing.assert_array_equal(statistics["b"].mean, normalize.obs_rms["b"].mean)


def changed(**attributes: Any) -> bytes:
    """Statistics with other attributes; `mean` and `var` are those of the observations."""
    normalize = normalizer()
    for name, value in attributes.items():
        setattr(normalize.obs_rms if name in ("mean", "var") else normalize, name, value)
    return pickle.dumps(normalize)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged or cut short"),
        (pickle.dumps({"obs_rms": 1}), "no VecNormalize"),
        (changed()[:-9], "damaged or cut short"),
        (changed() + b".", "followed by something"),
        (changed(mean=np.array([0, np.nan, 0])), "not finite"),
        (changed(var=np.array([1, np.inf, 1])), "not finite"),
        (changed(var=np.array([1.0, -1.0, 1.0])), "do not go together"),
        (changed(var=np.ones(2)), "do not go together"),
        (changed(clip_obs=0.0), "do not go together"),
        (changed(clip_obs=float("nan")), "do not go together"),
        (changed(epsilon=-1.0), "do not go together"),
        (changed(epsilon=0.0, var=np.zeros(3)), "divide by zero"),
        (changed(epsilon="much"), "should be a number"),
        (changed(norm_obs=None), "whether observations are normalised"),
        (changed(mean=np.array([0, 1, 2])), "not finite"),
        (changed(obs_rms={"a": 1}), "which of several observations"),
        (changed(obs_rms={"a": 1}, norm_obs_keys=["a"]), "no means and variances"),
        (changed(obs_rms={"a": 1}, norm_obs_keys=["b"]), "no means and variances"),
        (changed(obs_rms={"a": 1}, norm_obs_keys=[1]), "which of several observations"),
        (changed(obs_rms=None), "no means and variances"),
    ],
)
def test_what_is_not_sound(content: bytes, said: str) -> None:
    """What holds no statistics, or some that cannot be, is refused, and the reason is said."""
    with pytest.raises(ValueError, match=said):
        read_statistics(content)


def test_nothing_runs(tmp_path: Path) -> None:
    """What stands beside the statistics is not run; what stands in their place is refused."""
    marker = tmp_path / "marker"
    assert read_statistics(changed(old_reward=Bomb(marker))) is not None
    for attributes in ({"mean": Bomb(marker)}, {"clip_obs": Bomb(marker)}, {"obs_rms": Bomb(marker)}):
        with pytest.raises(ValueError, match="should be|no means"):
            read_statistics(changed(**attributes))
    with pytest.raises(ValueError, match="no VecNormalize"):
        read_statistics(pickle.dumps(Bomb(marker)))
    assert not marker.exists()
