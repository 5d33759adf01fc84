"""Tests of agent/viewer/rooms.py: a policy plays at the game's pace, and says what it thinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from room_fakes import CountingGame, Keeper, KnowingPolicy, Seen, eventually

from agent.viewer import rooms
from agent.viewer.rooms import PlayRoom

Make = Callable[..., tuple[PlayRoom, CountingGame, Seen]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes rooms with a game and a hub of their own, and closes them."""
    made: list[PlayRoom] = []

    def make(game: dict[str, Any] | None = None, *, looked: bool = True, policy: Any = None, **options: Any) -> Any:
        hub, games = Seen(looked), CountingGame(0, **(game or {}))
        policy = policy or KnowingPolicy()
        room = PlayRoom("latest", "latest", "Latest", hub, lambda seed: games, policy, **options)
        made.append(room)
        room.start()
        return room, games, hub

    yield make
    for room in made:
        room.close()


def test_a_policy_plays_and_says_what_it_thinks(make: Make) -> None:
    """Each picture carries step, score, values, action, TD error and age as they follow from the game and the policy."""
    # So slow that every step is shown: of a quick game pictures are left out.
    room, game, hub = make({"steps_per_s": 15.0}, seed=5, newest_updates=lambda: 25)
    eventually(lambda: len(hub.metas) > 6)
    first, second, third = hub.metas[:3]
    assert (first["step"], first["action"], first["q"], first["seed"], first["red"]) == (0, None, [0, 0, 1], 5, 0)
    # At step 0 the values are (0, 0, 1): action 2, reward 2; then (0, 1, 1), whose best counts half.
    assert (second["step"], second["action"], second["reward"], second["score"], second["red"]) == (1, 2, 2, 2, 1)
    assert second["value"] == 1 and second["td_error"] == pytest.approx(2 + 0.5 * 1 - 1)
    # At step 1 the first of two equals: reward 1; then (0, 2, 1).
    assert (third["step"], third["action"], third["score"]) == (2, 1, 3)
    assert third["td_error"] == pytest.approx(1 + 0.5 * 2 - 1)
    assert (first["policy_updates"], first["policy_age_updates"]) == (10, 15)
    assert second["act_ms"] > 0 and second["held"] is None and not second["ended"]


def test_the_policy_is_asked_once_for_each_observation(make: Make) -> None:
    """The value of the next moment, which the TD error needs, is the next decision as well."""
    room, game, hub = make({"steps_per_s": 400.0})
    eventually(lambda: game.t > 50)
    room.close()
    assert room.policy.asked - 2 <= game.t <= room.policy.asked


def test_clipped_rewards_and_unknown_discounts(make: Make) -> None:
    """The TD error counts rewards as the values do, and is left out where nobody knows the discount."""
    hub = make(policy=KnowingPolicy(reward_clip=1.0))[2]
    eventually(lambda: len(hub.metas) > 2)
    assert hub.metas[1]["td_error"] == pytest.approx(1 + 0.5 - 1)
    hub = make(policy=KnowingPolicy(discount=None))[2]
    eventually(lambda: len(hub.metas) > 2)
    assert hub.metas[1]["td_error"] is None and hub.metas[1]["value"] == 1


def test_episodes_follow_each_other_with_the_next_seed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last picture says that it is the last, its TD error knows no future, and the next game has the next seed."""
    monkeypatch.setattr(rooms, "END_S", 0.05)
    keeper = Keeper()
    room, game, hub = make({"length": 3}, seed=7, recorder=keeper)
    eventually(lambda: len(keeper.ended) >= 2)
    assert [row[:4] for row in keeper.ended[:2]] == [("latest", 4.0, 3, 7), ("latest", 4.0, 3, 8)]
    assert keeper.dropped == 1  # before the first, when nothing had begun
    ends = [meta for meta in hub.metas if meta["ended"]]
    assert ends[0]["step"] == 3 and ends[0]["td_error"] == pytest.approx(1 + 0 - 2)
    assert [meta["seed"] for meta in ends[:2]] == [7, 8]
    assert ends[1]["episode"] == ends[0]["episode"] + 1
    assert len(keeper.packets) >= 8  # three steps and the beginning of each


def test_the_pace_is_the_games(make: Make) -> None:
    """Fifty steps a second are fifty, twice as fast a hundred, as far as the machine lets a thread run."""
    room, game, hub = make({"steps_per_s": 50.0})
    eventually(lambda: game.t > 2)
    begun, at = time.monotonic(), game.t
    time.sleep(1.0)
    rate = (game.t - at) / (time.monotonic() - begun)
    assert 20 < rate < 56
    room.set_speed(4.0)
    begun, at = time.monotonic(), game.t
    time.sleep(0.5)
    assert (game.t - at) / (time.monotonic() - begun) > 1.3 * rate


def test_several_pictures_of_a_step_are_spread_over_it(make: Make) -> None:
    """Of two pictures the second comes half a step after the first, not with it."""
    room, game, hub = make({"steps_per_s": 10.0, "pictures": 2})
    eventually(lambda: len(hub.metas) > 9, 20)
    gaps = np.diff(hub.offered_at[1:])
    assert np.median(gaps) == pytest.approx(0.05, abs=0.02)
    assert [meta["step"] for meta in hub.metas[1:7]] == [1, 1, 2, 2, 3, 3]


def test_a_fast_room_leaves_pictures_out(make: Make) -> None:
    """A thousand steps a second are played, and no more than SHOWN_PER_S are shown."""
    room, game, hub = make({"steps_per_s": 1000.0})
    eventually(lambda: game.t > 300)
    room.close()
    shown = len(hub.metas) / (hub.offered_at[-1] - hub.offered_at[0])
    assert shown < 1.15 * rooms.SHOWN_PER_S
    assert len(hub.metas) < game.t / 2


def test_a_room_idles_when_nobody_looks_or_it_is_paused(make: Make) -> None:
    """Not one step is played then; it goes on where it was."""
    room, game, hub = make(looked=False)
    eventually(lambda: hub.metas)
    time.sleep(0.1)
    assert game.t == 0
    hub.open = True
    room.wake.set()
    eventually(lambda: game.t > 3)
    room.set_paused(True)
    time.sleep(0.05)
    at = game.t
    time.sleep(0.1)
    assert game.t == at
    room.set_paused(False)
    eventually(lambda: game.t > at)


def test_a_restart_begins_the_game_that_was_asked_for(make: Make) -> None:
    """At once, also while it is paused; without a seed it is the next one. A new policy plays from the next step on."""
    room, game, hub = make(seed=3)
    eventually(lambda: game.t > 3)
    room.restart(99)
    eventually(lambda: game.seed == 99)
    room.set_paused(True)
    room.restart()
    eventually(lambda: hub.metas[-1]["seed"] == 100 and hub.metas[-1]["step"] == 0)
    assert game.seeds[-2:] == [99, 100]
    room.replace(KnowingPolicy(updates=77))
    room.set_paused(False)
    eventually(lambda: hub.metas[-1]["policy_updates"] == 77)


def test_two_policies_on_one_seed_see_the_same_game(make: Make) -> None:
    """What a room shows follows from the seed and the policy, not from when it was told to begin."""
    runs = [make(seed=seed) for seed in (1, 2)]
    for room, _, _ in runs:
        room.restart(42)
    found = []
    for _, _, hub in runs:
        eventually(lambda hub=hub: sum(meta["seed"] == 42 for meta in hub.metas) > 10)
        same = [meta for meta in hub.metas if meta["seed"] == 42]
        found.append({meta["step"]: (meta["action"], meta["score"], meta["td_error"]) for meta in same})
    both = found[0].keys() & found[1].keys()
    assert len(both) > 3
    assert all(found[0][step] == found[1][step] for step in both)


def test_a_game_that_breaks_ends_its_room_and_no_other(make: Make) -> None:
    """The fault is a sentence that the page can show, the game is closed, and whoever wants to know is told."""
    room, game, hub = make()
    other = make()[1]
    faults: list[str | None] = []
    room.on_change = lambda: faults.append(room.fault)
    game.step = lambda action: (_ for _ in ()).throw(RuntimeError("the emulator has gone"))
    eventually(lambda: faults)
    assert room.fault == "the emulator has gone" and eventually(lambda: game.closed)
    at = other.t
    eventually(lambda: other.t > at + 3)
