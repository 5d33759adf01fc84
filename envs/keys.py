"""Which keys play which action, named as a browser's KeyboardEvent.code has them: by their place, not their letter."""

from __future__ import annotations

import re
from itertools import product

from envs.spec import GameSpec

_WAYS = {  # the arrows or, at the same places on every keyboard, WASD
    "up": ("ArrowUp", "KeyW"),
    "left": ("ArrowLeft", "KeyA"),
    "down": ("ArrowDown", "KeyS"),
    "right": ("ArrowRight", "KeyD"),
    "fire": ("Space",),
}
_JOYSTICK = re.compile(r"(up|down)?(left|right)?(fire)?")  # Atari's UPRIGHTFIRE and MinAtar's fire
_OWN = {  # Gymnasium's games: what a held key means -> action; of several keys the first in this order counts
    "CartPole-v1": {"left": 0, "right": 1},
    "Acrobot-v1": {"left": 0, "right": 2},
    "MountainCar-v0": {"left": 0, "right": 2},
    # Firing the engine called left moves the lander to the left, as a left arrow should (a test measures it). The main
    # engine comes last, so that a tap to the side counts while it is held.
    "LunarLander-v3": {"left": 1, "right": 3, "up": 2, "fire": 2},
}
_IDLE = ("noop", "do nothing", "don't accelerate", "apply 0 torque")


def key_map(spec: GameSpec) -> list[tuple[frozenset[str], int]]:
    """Return sets of keys and the action of each, most keys first: the first set that is held wholly is played.

    When none is held, `idle_action` is. Games whose actions have no directions are played with the digits, of which
    there are nine; continuous ones not at all.
    """
    ways = _ways(spec)
    if not ways:
        return [(frozenset({f"Digit{action + 1}"}), action) for action in range(min(spec.num_actions, 9))]
    keys = [(frozenset(held), action) for names, action in ways for held in product(*(_WAYS[name] for name in names))]
    return sorted(keys, key=lambda entry: -len(entry[0]))  # stable: what comes first in `ways` stays first


def idle_action(spec: GameSpec) -> int | None:
    """Return the action that does nothing, None where there is no such action: then the last one goes on."""
    names = [name.lower() for name in spec.action_names]
    return next((names.index(name) for name in _IDLE if name in names), None)


def _ways(spec: GameSpec) -> list[tuple[tuple[str, ...], int]]:
    """Return what must be held together, in words of _WAYS, for each action that has a direction or fires."""
    if spec.gymnasium_id in _OWN:
        return [((way,), action) for way, action in _OWN[spec.gymnasium_id].items()]
    ways = []
    for action, name in enumerate(spec.action_names):
        found = _JOYSTICK.fullmatch(name.lower())
        if found and any(found.groups()):
            ways.append((tuple(word for word in found.groups() if word), action))
    return ways
