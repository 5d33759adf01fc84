"""The observation statistics that stable-baselines3's VecNormalize saved, read without unpickling."""

from __future__ import annotations

import numpy as np

from agent.freeze.convert import Statistics
from agent.freeze.spaces import MOST_PARTS
from agent.freeze.symbols import Name, Node, as_array, as_number, as_state, is_made_by, read_whole

VEC_NORMALIZE = Name("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize")
RUNNING_MEAN_STD = Name("stable_baselines3.common.running_mean_std", "RunningMeanStd")


def read_statistics(data: bytes) -> Statistics | dict[str, Statistics] | None:
    """Return the statistics, of those among several observations that are normalised when there are several.

    None when observations are left as they are; ValueError for anything else.
    """
    node = read_whole(data)
    if not is_made_by(node, VEC_NORMALIZE):
        raise ValueError("it holds no VecNormalize of stable-baselines3.")
    state = as_state(node)
    if state.get("norm_obs") is False:
        return None
    if state.get("norm_obs") is not True:
        raise ValueError("it does not say whether observations are normalised.")
    epsilon, clip = (float(as_number(state.get(name))) for name in ("epsilon", "clip_obs"))
    moments, keys = state.get("obs_rms"), state.get("norm_obs_keys")
    if not isinstance(moments, dict):
        return _statistics(moments, epsilon, clip)
    if not isinstance(keys, list) or not 0 < len(keys) <= MOST_PARTS or not all(isinstance(key, str) for key in keys):
        raise ValueError("it does not say which of several observations are normalised.")
    return {key: _statistics(moments.get(key), epsilon, clip) for key in keys}


def _statistics(moments: Node, epsilon: float, clip: float) -> Statistics:
    if not is_made_by(moments, RUNNING_MEAN_STD):
        raise ValueError("it has no means and variances of what it normalises.")
    mean, var = (_moment(as_state(moments).get(name)) for name in ("mean", "var"))
    if mean.shape != var.shape or (var < 0).any() or not (0 < clip < np.inf and 0 <= epsilon < np.inf):
        raise ValueError("its means, variances and limits do not go together.")
    if not (var + epsilon > 0).all():
        raise ValueError("it has variances of zero, which would divide by zero.")
    return Statistics(mean, var, epsilon, clip)


def _moment(node: Node) -> np.ndarray:
    moment = as_array(node)
    if moment.dtype.kind != "f" or not np.isfinite(moment).all():
        raise ValueError("it has means or variances that are not finite.")
    return moment.astype(np.float64)
