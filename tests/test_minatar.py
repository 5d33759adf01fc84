"""Our MinAtar vector is MinAtar, plus a time limit, other axes and a sticky action that a reset forgets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from agent.config import MinAtarSettings
from envs import minatar
from envs.make import MINATAR
from envs.minatar import MinAtarGame, make_minatar
from envs.spec import game_seeds

SETTINGS = MinAtarSettings().model_dump()


def environment(rom: str, seed: int, sticky: float = 0.1, ramping: bool = True):
    """MinAtar's own environment, reset from a seed."""
    from minatar import Environment

    env = Environment(rom, sticky_action_prob=sticky, difficulty_ramping=ramping)
    env.seed(seed)
    env.reset()
    return env


@pytest.mark.parametrize("rom", MINATAR)
@pytest.mark.parametrize(("sticky", "ramping", "minimal"), [(0.1, True, False), (0.5, False, True)])
def test_vector_equals_minatar(rom: str, sticky: float, ramping: bool, minimal: bool) -> None:
    """Every observation, reward and end is that of minatar.Environment with the same seed and actions."""
    settings = {**SETTINGS, "sticky_actions": sticky, "ramping": ramping, "minimal_actions": minimal}
    vector = make_minatar(rom, 2, **settings)
    step = vector.reset(11)
    envs = [environment(rom, seed, sticky, ramping) for seed in game_seeds(11, 2)]
    action_set = envs[0].minimal_action_set() if minimal else list(range(6))
    assert vector.spec.num_actions == len(action_set)
    random = np.random.default_rng(0)
    ended = [False, False]
    for _ in range(2600 if rom == "freeway" and not minimal else 700):
        action = random.integers(len(action_set), size=2)
        vector.send(action)
        step = vector.recv()
        for row, env in enumerate(envs):
            reward, terminal = 0, False
            if ended[row]:
                env.reset()
                env.last_action = 0
            else:
                reward, terminal = env.act(action_set[action[row]])
            assert np.array_equal(step.observation[row], env.state().transpose(2, 0, 1))
            assert (step.reward[row], step.terminated[row], step.first[row]) == (reward, terminal, ended[row])
            assert not step.truncated[row]
            ended[row] = terminal


def test_time_limit_truncates() -> None:
    """After max_steps the episode is truncated, not terminated, and its observation is the last of the old game."""
    vector = make_minatar("freeway", 1, **{**SETTINGS, "max_steps": 5})
    vector.reset(0)
    for round_ in range(3):
        for number in range(1, 6):
            vector.send(np.array([2]))
            step = vector.recv()
            assert step.truncated[0] == (number == 5) and not step.terminated[0]
        assert step.episodes[0].length == 5
        vector.send(np.array([2]))
        assert vector.recv().first[0], round_


def test_an_end_at_the_limit_is_a_termination() -> None:
    """A game that really ends at the very step of the limit is terminated and not also truncated."""
    free = make_minatar("breakout", 1, **SETTINGS)
    free.reset(3)
    length = 0
    while not free.current.terminated[0]:
        free.send(np.array([0]))
        free.recv()
        length += 1
    limited = make_minatar("breakout", 1, **{**SETTINGS, "max_steps": length})
    limited.reset(3)
    for _ in range(length):
        limited.send(np.array([0]))
        limited.recv()
    assert limited.current.terminated[0] and not limited.current.truncated[0]


def test_sticky_action_is_forgotten_by_a_reset() -> None:
    """The first sticky step of an episode repeats NOOP, not the last action of the old episode."""
    game = MinAtarGame("breakout", sticky_actions=1.0, ramping=True, minimal_actions=False, max_steps=100)
    for seed in range(3):
        game.reset(seed=seed)
        game._last_action = 1  # as if the episode before had ended with it
        before = game.reset()[0].copy()
        after = game.step(3)[0]
        assert np.array_equal(before[0], after[0]), "the paddle must not move: every step repeats NOOP"


def test_specs_name_actions_and_channels() -> None:
    """Channels are first, boards hold zeros and ones, and actions have MinAtar's names spelled out."""
    names = ("noop", "left", "up", "right", "down", "fire")
    channels = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}
    minimal = {"breakout": ("noop", "left", "right"), "freeway": ("noop", "up", "down"), "seaquest": names}
    for rom in MINATAR:
        vector = make_minatar(rom, 1, **SETTINGS)
        assert vector.spec.observation_shape == (channels[rom], 10, 10) and vector.spec.action_names == names
        observation = vector.reset(0).observation
        assert observation.dtype == np.uint8 and set(np.unique(observation)) == {0, 1}
        picture = vector.render()
        assert picture.shape == (200, 200, 3) and picture.dtype == np.uint8 and len(np.unique(picture)) > 1
    for rom, actions in minimal.items():
        assert make_minatar(rom, 1, **{**SETTINGS, "minimal_actions": True}).spec.action_names == actions


def test_state_of_another_minatar_is_refused() -> None:
    """A saved game whose attributes this MinAtar does not have is answered with the remedy."""
    game = MinAtarGame("breakout", sticky_actions=0.1, ramping=True, minimal_actions=False, max_steps=100)
    game.reset(seed=0)
    state = game.state_dict()
    state["attributes"]["novelty"] = 1
    with pytest.raises(ValueError, match="install the version of MinAtar"):
        game.load_state_dict(state)


@pytest.mark.parametrize("rom", MINATAR)
def test_every_cell_has_the_colour_of_what_lies_on_top(rom: str) -> None:
    """Empty cells are dark, the player is never hidden, trails hide nothing, and every other colour is a channel's."""
    game = MinAtarGame(rom, sticky_actions=0.1, ramping=True, minimal_actions=False, max_steps=1000)
    board = game.reset(seed=1)[0]
    channels = game._env.channels
    random = np.random.default_rng(0)
    for _ in range(150):
        picture = game.scene().arrays["picture"]
        assert (picture[~board.any(axis=0)] == minatar._DARK).all()
        assert (picture[board[0]] == minatar._COLOURS[next(iter(channels))]).all()
        for row, column in np.argwhere(board.any(axis=0)):
            present = {name for name, channel in channels.items() if board[channel, row, column]}
            (shown,) = [name for name in present if tuple(picture[row, column]) == minatar._COLOURS[name]][:1]
            assert present == {shown} or not shown.startswith(("trail", "speed"))
        board = game.step(random.integers(6))[0]


# What each cone's lack makes of linear RGB (Machado, Oliveira and Fernandes 2009), and XYZ of linear RGB (sRGB, D65).
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: tuple[int, int, int], blindness: str) -> np.ndarray:
    """A colour as someone sees it, in CIE L*a*b*, where distances are differences that people notice (from 2 on)."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = XYZ @ np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("rom", MINATAR)
def test_colours_differ_for_everyone(rom: str, blindness: str) -> None:
    """Whatever stands on one board is clearly told apart, by the colour-blind too, and from the dark between."""
    names = set(minatar.load_games(rom).Env().channels) - {"alien"}  # always under alien_left or alien_right
    colours = [lab(colour, blindness) for colour in (minatar._DARK, *(minatar._COLOURS[name] for name in names))]
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) > 12
