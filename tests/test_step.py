"""A step survives being written as a state."""

from __future__ import annotations

import numpy as np
import pytest

from envs.step import Episode, Step, step_from_state, step_state


@pytest.mark.parametrize("final", [None, np.ones((2, 3), dtype=np.float32)])
def test_a_step_comes_back_from_its_state(final: np.ndarray | None) -> None:
    """Every field returns with its type, and later changes of the state do not reach the step."""
    no = np.zeros(2, dtype=bool)
    step = Step(
        np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones(2, np.float32), ~no, no, no, (Episode(1, -0.1, 7),), final
    )
    state = step_state(step)
    back = step_from_state(state)
    state["observation"][:] = 9
    assert back.observation.tolist() == [[0, 1, 2], [3, 4, 5]] and back.observation.dtype == np.uint8
    assert back.episodes == (Episode(1, -0.1, 7),) and isinstance(back.episodes[0], Episode)
    for name in ("reward", "terminated", "truncated", "first"):
        assert np.array_equal(getattr(back, name), getattr(step, name))
        assert getattr(back, name).dtype == getattr(step, name).dtype
    assert back.restarted.tolist() == [False, False]
    assert back.final_observation is None if final is None else np.array_equal(back.final_observation, final)


def test_nobody_is_restarted_unless_it_is_said() -> None:
    """`restarted` is all False by default, as long as the games are many; it is kept by `_replace` and by the state."""
    no = np.zeros(3, dtype=bool)
    step = Step(np.zeros((3, 1)), np.zeros(3, np.float32), no, no, ~no)
    assert step.restarted.dtype == bool and step.restarted.tolist() == [False] * 3
    changed = step._replace(restarted=np.array([False, True, False]))
    assert isinstance(changed, Step) and step_from_state(step_state(changed)).restarted.tolist() == [False, True, False]
    old = step_state(changed)
    del old["restarted"]  # as it was saved before games were replaced
    assert step_from_state(old).restarted.tolist() == [False] * 3
