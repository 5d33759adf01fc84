"""Every item of a run's state is needed: with any one of them changed the run ends otherwise, or the state is refused.

The items are found by walking the state, so that a new one is tried as soon as it exists. What changes nothing stands
in `SPARE`, with the reason; an item that is neither needed nor there is superfluous, and turns this red.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuts import Log, begin, everything, load, play, store
from lives import differences

from agent.appended import Appended, Loaded

MIDDLE = 230
SPARE = {
    "games/score/current/reward": "what a step answered is only for onlookers once the step is stored",
    "games/score/current/restarted": "whether its worker was replaced on the way to it: replay has been told as well",
    "games/each/*/score/current/*": "the newest step, which SB3 has been told: it keeps the observation itself",
    "games/first": "where a rollout's first step stands in its episode; only recurrent policies would ask",
    "actor/generator/uinteger": "half a draw: the random action of one game, taken only where that game explores",
    "learner/optimizer/*/step": "all parameters step together: saved for each, as torch does, the last one counts",
    "replay/film/history": "how many frames behind a row are its episode's: asked only where frames are stacked",
    "random/actions/uinteger": "the same half of SB3's random actions, where there is none over",
}
Path_ = tuple[str, ...]


def leaves(tree: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Yield where every value of a state stands; a list of numbers is one value."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*at, key))
    elif isinstance(tree, list) and any(isinstance(each, (dict, list)) for each in tree):
        for index, value in enumerate(tree):
            yield from leaves(value, (*at, str(index)))
    else:
        yield at


def lookup(tree: Any, at: Path_) -> Any:
    """Return what stands there."""
    for key in at:
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def put(tree: Any, at: Path_, value: Any) -> None:
    """Put a value there."""
    parent = lookup(tree, at[:-1])
    parent[int(at[-1]) if isinstance(parent, list) else at[-1]] = value


def kind(at: Path_) -> str:
    """Return what values have in common that only differ in the game, the layer or the episode."""
    path = "/".join(at)
    path = re.sub(r"^(learner)/(\w+)/[^/]*(weight|bias)[^/]*$", r"\1/\2", path)
    path = re.sub(r"^(modules/\w+/\w+).*", r"\1", path)
    return re.sub(r"/\d+(?=/|$)", "/N", path)


def changed(value: Any, name: str = "") -> Any:
    """Return another value of the same type and shape, different throughout; None when there is none."""
    if isinstance(value, Appended):
        flipped = [group._replace(data=group.data ^ 1) for group in value.groups()]
        return Loaded(value.layout, value.first, value.stop, value.kept.copy(), [flipped])
    if isinstance(value, (torch.Tensor, np.ndarray)):
        if not len(value.reshape(-1)):
            return None
        other = value.clone() if isinstance(value, torch.Tensor) else value.copy()
        if other.dtype in (torch.bool, np.bool_):
            return ~other
        return other ^ 1 if other.dtype in (torch.uint8, np.uint8) else -3 * other - 5
    if isinstance(value, bool):
        return not value
    if name == "uinteger":
        return value ^ (2**32 - 1)
    if isinstance(value, (int, float)):
        return 1 - value if name == "has_uint32" else value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list) and value:
        return [changed(each) for each in value]
    return None


def end(case: str, tree: dict[str, Any]) -> dict[str, Any] | None:
    """Return everything at the end of a run that goes on with this state; None when that is refused."""
    try:
        session = begin(case, tree)
    except Exception:  # refused, in whatever way: a checkpoint's digests are what guards it
        return None
    log: Log = []
    try:
        play(session, log)
        return everything(session, log)
    except Exception:
        return None
    finally:
        session.close()


FAST = ["double dueling noisy", "qr", "qrdqn"]
SIZES = [pytest.param(case, False, id=f"{case}, one of a kind") for case in FAST]
SIZES += [pytest.param(case, True, id=f"{case}, every one", marks=pytest.mark.night) for case in [*FAST, "sac", "ppo"]]


@pytest.mark.parametrize(("case", "every"), SIZES)
def test_every_item_is_needed(case: str, every: bool, tmp_path: Path) -> None:
    """Changing any one of them changes the end of the run or is refused."""
    session = begin(case)
    play(session, [], [MIDDLE], lambda steps: store(tmp_path, session))
    session.close()
    state = load(tmp_path, 1)
    right = end(case, copy.deepcopy(state))
    assert right is not None and differences(end(case, copy.deepcopy(state)), right) == []
    found = [at for at in leaves(state) if changed(lookup(state, at)) is not None]
    if not every:
        random.Random(case).shuffle(found)
        found = list({kind(at): at for at in found}.values())
    assert len(found) >= 20
    unnoticed = []
    for at in found:
        tree = copy.deepcopy(state)
        put(tree, at, changed(lookup(tree, at), at[-1]))
        other = end(case, tree)
        if other is not None and differences(other, right) == []:
            unnoticed.append("/".join(at))
    assert [at for at in unnoticed if not any(fnmatch(at, pattern) for pattern in SPARE)] == []
