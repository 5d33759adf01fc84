"""Held keys -> action: every action of a game with directions can be reached, and the arrow moves things its way."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import pytest

from agent.config import AtariSettings, MinAtarSettings
from envs.fakes import CountingGame
from envs.keys import idle_action, key_map
from envs.make import CLASSIC, MINATAR, spec
from envs.spec import GameSpec

FAMILY = {"atari": AtariSettings().model_dump(), "minatar": MinAtarSettings().model_dump()}


def chosen(game: GameSpec, *held: str) -> int | None:
    """What the page and the server do with the keys that are held."""
    return next((action for keys, action in key_map(game) if keys <= set(held)), idle_action(game))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("rom", ["pong", "breakout", "seaquest", "montezuma_revenge"])
def test_every_joystick_action_has_its_keys(rom: str, full: bool) -> None:
    """On the arrows, on WASD and mixed, with Space to fire, each of Atari's actions is its name; none is NOOP."""
    game = spec(f"atari/{rom}", atari={**FAMILY["atari"], "full_action_space": full})
    arrows = {"UP": "ArrowUp", "DOWN": "ArrowDown", "LEFT": "ArrowLeft", "RIGHT": "ArrowRight", "FIRE": "Space"}
    letters = {"UP": "KeyW", "DOWN": "KeyS", "LEFT": "KeyA", "RIGHT": "KeyD", "FIRE": "Space"}
    for action, name in enumerate(game.action_names):
        words = [word for word in arrows if word in name]
        assert chosen(game, *(arrows[word] for word in words)) == action
        assert chosen(game, *(letters[word] for word in words)) == action
        assert chosen(game, *((arrows, letters)[place % 2][word] for place, word in enumerate(words))) == action
    assert chosen(game) == chosen(game, "KeyQ") == game.action_names.index("NOOP") == idle_action(game)


def test_keys_that_no_action_joins_still_do_something() -> None:
    """Where a game lacks the joint action, one of the held keys counts; keys beside the game's change nothing."""
    game = spec("atari/breakout", **FAMILY)  # NOOP FIRE RIGHT LEFT
    assert game.action_names[chosen(game, "ArrowRight", "Space")] in ("FIRE", "RIGHT")
    assert chosen(game, "ArrowRight", "ArrowUp", "KeyQ") == chosen(game, "ArrowRight") == 2


@pytest.mark.parametrize("rom", MINATAR)
def test_minatar_is_played_as_atari_is(rom: str) -> None:
    """MinAtar's six actions, or the minimal ones, have the same keys."""
    keys = {"left": "ArrowLeft", "up": "KeyW", "right": "KeyD", "down": "ArrowDown", "fire": "Space"}
    for minimal in (False, True):
        game = spec(f"minatar/{rom}", minatar={**FAMILY["minatar"], "minimal_actions": minimal})
        assert [chosen(game, *([keys[name]] if name in keys else [])) for name in game.action_names] == [
            *range(game.num_actions)
        ]
        assert idle_action(game) == 0


def test_gymnasiums_games_have_keys_of_their_own() -> None:
    """Arrows mean the direction, the main engine is up or Space and gives way to the sides; cart pole has no idling."""
    games = {name: spec(name) for name in CLASSIC}
    assert [chosen(games["cartpole"], *held) for held in (["ArrowLeft"], ["KeyD"], [])] == [0, 1, None]
    for name in ("acrobot", "mountain-car"):
        assert [chosen(games[name], *held) for held in (["ArrowLeft"], ["ArrowRight"], [])] == [0, 2, 1]
    lander = games["lunar-lander"]
    assert [chosen(lander, *held) for held in (["KeyW"], ["Space"], ["ArrowUp", "ArrowLeft"], [])] == [2, 2, 1, 0]


def test_the_arrow_moves_the_lander_its_way() -> None:
    """With the left arrow held, the lander drifts to the left of an idle one, and to the right with the right."""
    game = spec("lunar-lander")
    places = {}
    for held in ("ArrowLeft", "none", "ArrowRight"):
        env = gymnasium.make("LunarLander-v3")
        env.reset(seed=1)
        for _ in range(20):
            places[held] = env.step(chosen(game, held))[0][0]
        env.close()
    assert places["ArrowLeft"] < places["none"] < places["ArrowRight"]


def test_other_games_have_digits_and_continuous_ones_nothing() -> None:
    """Unknown discrete actions are the digits from 1, nine at most, and none of them idles; a torque has no key."""
    game = CountingGame(1).spec
    assert key_map(game) == [(frozenset({"Digit1"}), 0), (frozenset({"Digit2"}), 1)] and idle_action(game) is None
    many = replace(game, num_actions=12, action_names=tuple(map(str, range(12))))
    assert [action for _, action in key_map(many)] == list(range(9))
    assert key_map(spec("gym:Pendulum-v1")) == [] and idle_action(spec("gym:Pendulum-v1")) is None


def test_most_keys_come_first() -> None:
    """No set of keys stands before a larger one, so the first that is held says most."""
    sizes = [len(keys) for keys, _ in key_map(spec("atari/seaquest", **FAMILY))]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 3 and sizes[-1] == 1
