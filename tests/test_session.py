"""The session holds the whole state of a run: every item of it is needed to go on exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lives import differences

from agent.cli.session import Session, make_games
from agent.config import Settings

SETTINGS = Settings.model_validate(
    {
        "steps": 1_600,
        "device": "cpu",
        "game": {"num_games": 4},
        "replay": {"capacity": 600, "priority_exponent": 0.6, "n_step": 3},
        "network": {"hidden": [16, 16]},
        "learner": {"learning_starts": 100, "target_interval": 37, "learning_rate": 2e-4},
        "actor": {"epsilon_steps": 1_200},
    }
)
MIDDLE, END = 1_000, 1_600
# What a step answered is only for onlookers once the step is stored.
FOR_ONLOOKERS = {"games/score/current/reward"}


def play(session: Session, until: int) -> list[tuple[int, float, int]]:
    """Train until an environment step; return the episodes that ended on the way."""
    episodes: list[tuple[int, float, int]] = []
    for tick in session.ticks():
        episodes += [(each.game, each.score, each.length) for each in tick.step.episodes]
        if tick.steps >= until:
            break
    return episodes


def snapshot(session: Session) -> dict[str, Any]:
    """Return a copy of everything that lasts."""
    return copy.deepcopy(session.state_dict())


@pytest.fixture(scope="module")
def story() -> dict[str, Any]:
    """One uninterrupted run: its state when new, in the middle and at the end."""
    torch.set_num_threads(1)
    session = Session("cartpole", SETTINGS)
    states = {"new": snapshot(session)}
    play(session, MIDDLE)
    states["middle"] = snapshot(session)
    episodes = play(session, END)
    states["end"] = snapshot(session) | {"episodes": episodes}
    session.close()
    return states


def finish(state: dict[str, Any]) -> dict[str, Any]:
    """Put a state into a new session, play to the end and return the state there."""
    session = Session("cartpole", SETTINGS)
    try:
        session.load_state_dict(copy.deepcopy(state))
        episodes = play(session, END)
        return snapshot(session) | {"episodes": episodes}
    finally:
        session.close()


def test_a_restored_session_goes_on_exactly(story: dict[str, Any]) -> None:
    """The state of the middle, in a new session, leads to the same end bit for bit."""
    assert differences(finish(story["middle"]), story["end"]) == []


def items(state: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the key paths of the items of a state: leaves, with the tensors of one network as one item."""
    found = []
    for key, value in state.items():
        here = (*path, key)
        one = not isinstance(value, dict) or here[:2] in (("learner", "network"), ("learner", "target"), ("learner", "optimizer"))
        found += [here] if one or key.startswith("random") or key == "generator" else items(value, here)
    return found


def lookup(state: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Return what stands at a key path."""
    for key in path:
        state = state[key]
    return state


def test_leaving_out_any_item_changes_the_run(story: dict[str, Any]) -> None:
    """With any one item as in a new run, instead of as saved, the end differs or the state is refused."""
    unnoticed = []
    tried = 0
    for path in items(story["middle"]):
        fresh = story["new"]
        try:
            value = lookup(fresh, path)
        except (KeyError, TypeError):
            value = None
        if differences(value, lookup(story["middle"], path)) == []:
            continue  # the same as in a new run, such as a setting that is saved as a check
        state = copy.deepcopy(story["middle"])
        lookup(state, path[:-1])[path[-1]] = copy.deepcopy(value)
        tried += 1
        try:
            if differences(finish(state), story["end"]) == []:
                unnoticed.append("/".join(path))
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, IndexError):
            pass  # refused
    assert tried >= 15
    assert set(unnoticed) == FOR_ONLOOKERS


def test_evaluating_changes_nothing_that_lasts(story: dict[str, Any]) -> None:
    """A run that is judged in between ends as one that is not."""
    session = Session("cartpole", SETTINGS)
    session.load_state_dict(copy.deepcopy(story["middle"]))
    assert len(session.evaluate(7)) == 7
    episodes = play(session, END)
    assert differences(snapshot(session) | {"episodes": episodes}, story["end"]) == []
    session.close()


def test_learning_waits_until_replay_can_give_a_batch() -> None:
    """With `learning_starts` 0 nothing is sampled from a replay that is too empty; learning begins as soon as it is not."""
    tree = {"replay": {"n_step": 5}, "learner": {"learning_starts": 0, "samples_per_insert": 32}, "network": {"hidden": [8]}}
    session = Session("cartpole", Settings.model_validate(tree | {"device": "cpu", "game": {"num_games": 40}}))
    assert session.clock.learning_starts == 32 + 5 * 40
    for tick in session.ticks():
        if tick.updates:
            break
        assert tick.steps <= 32 + 6 * 40  # the updates for the last 40 are not launched yet
    session.close()


def test_evaluation_games_are_not_training_games() -> None:
    """The same settings give evaluation other games than training."""
    training, judging = (make_games("cartpole", SETTINGS, 2, owner=owner) for owner in ("games", "evaluation"))
    assert not (training.current.observation == judging.current.observation).all()


def test_continuous_actions_are_refused_with_a_remedy() -> None:
    """Our agent chooses discrete actions; the error names the algorithms that choose continuous ones."""
    with pytest.raises(ValueError, match="sac"):
        Session("gym:Pendulum-v1", SETTINGS)


def test_games_without_a_state_start_anew_when_saved() -> None:
    """Saving cuts the open episodes of such games, so that the saved run and the resumed one play the same games."""
    pytest.importorskip("ale_py")
    settings = SETTINGS.model_copy(
        update={"replay": SETTINGS.replay.model_copy(update={"capacity": 200}), "network": type(SETTINGS.network)(hidden=(16,))}
    )
    session = Session("atari/pong", settings)
    for tick, _ in zip(session.ticks(), range(20), strict=False):
        assert tick.updates == 0
    assert not session.games.current.first.any()
    state = snapshot(session)
    assert session.games.current.first.all()
    other = Session("atari/pong", settings)
    other.load_state_dict(state)
    assert (other.games.current.observation == session.games.current.observation).all()
    session.close()
    other.close()
