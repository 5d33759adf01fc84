"""Scenes: from what a trainer copies, another process draws the trainer's own picture, and works no more than that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from agent.config import AtariSettings, MinAtarSettings
from envs.classic import Replayable
from envs.fakes import CountingGame
from envs.make import make_vector_env
from envs.scenes import Painter, Scene

FAMILY = {"atari": AtariSettings().model_dump(), "minatar": MinAtarSettings().model_dump()}
IDS = count()


class Tape(gymnasium.Env):
    """Draws a line as long as the sum of its actions; `hidden` is what no seed repeats, `seen` shows gray pictures."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}
    salt = count(1)

    def __init__(self, hidden: bool = False, seen: bool = False, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = Discrete(3)
        self.observation_space = Box(0, 255, (6, 9, 1), np.uint8) if seen else Box(-1e9, 1e9, (1,), np.float64)
        self._hidden, self._seen = hidden, seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._sum = float(self.np_random.integers(5)) + (next(self.salt) if self._hidden else 0)
        return self._look(), {}

    def step(self, action):
        self._sum += float(action)
        return self._look(), 1.0, self._sum > 900, False, {}

    def render(self):
        return np.full((4, 5, 3), self._sum % 256, dtype=np.uint8)

    def _look(self):
        return np.full((6, 9, 1), self._sum % 256, dtype=np.uint8) if self._seen else np.array([self._sum])


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Puts a Tape with the given options into Gymnasium's table and returns its name in ours."""
    names = []

    def put(entry: type = Tape, **options) -> str:
        names.append(f"Tape{next(IDS)}-v0")
        gymnasium.register(names[-1], entry_point=entry, kwargs=options)
        return f"gym:{names[-1]}"

    yield put
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture
def close() -> Iterator[Callable]:
    """Closes what it is given at the end."""
    kept = []
    yield lambda thing: kept.append(thing) or thing
    for thing in kept:
        thing.close()


def step(vector, random: np.random.Generator) -> None:
    """Play a random step."""
    spec = vector.spec
    if spec.num_actions:
        action = random.integers(spec.num_actions, size=vector.num_envs)
    else:
        action = random.uniform(spec.action_low, spec.action_high, (vector.num_envs, len(spec.action_low)))
    vector.send(action)
    vector.recv()


@pytest.mark.parametrize("name", ["cartpole", "acrobot", "mountain-car", "gym:FrozenLake-v1", "gym:Pendulum-v1"])
@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_the_painter_draws_the_trainers_own_picture(name: str, vectorize: str, close) -> None:
    """Against games that draw themselves: the same pictures, over ends and new beginnings, of each game."""
    drawing = close(make_vector_env(name, 2, 3, vectorize="inline", render=True))
    training = close(make_vector_env(name, 2, 3, vectorize=vectorize))
    painter = close(Painter(name, **FAMILY))
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    for number in range(60):
        if number % 4 == 0:
            picture = painter.paint(training.scene(1))
            assert picture.dtype == np.uint8 and np.array_equal(picture, drawing.render(1))
        step(drawing, one)
        step(training, other)


@pytest.mark.parametrize(("name", "seeds"), [("lunar-lander", None), ("lunar-lander", 2), ("cartpole", 2)])
def test_random_games_can_be_followed_for_long(name: str, seeds: int | None, close) -> None:
    """At any rhythm, and from few seeds too, the copy comes to what the trainer saw: sparks move no lander."""
    training = close(make_vector_env(name, 1, 5, seeds=seeds))
    painter = close(Painter(name))
    random = np.random.default_rng(1)
    episodes = 0
    for number in range(900):
        step(training, random)
        episodes += bool(training.current.first[0])
        if number % 7 == 0 or 300 < number < 320:
            assert painter.paint(training.scene()).shape == (400, 600, 3)
    assert episodes >= 5


def test_only_what_is_new_is_played(close, monkeypatch) -> None:
    """A painter that comes late plays the whole episode once, then each step once; the same scene costs nothing."""
    training = close(make_vector_env("mountain-car", 1, 0))
    painter = close(Painter("mountain-car"))
    random = np.random.default_rng(0)
    for _ in range(40):
        step(training, random)
    played = []
    plain = Replayable.step
    monkeypatch.setattr(Replayable, "step", lambda self, action: played.append(self) or plain(self, action))
    for expected in (40, 0, 0):
        picture = painter.paint(training.scene())
        assert len(played) == expected
        played.clear()
    for _ in range(200):  # past the end at 200 steps, where it begins anew and counts from there
        before = training.scene()
        step(training, random)
        played.clear()
        picture = painter.paint(training.scene())
        begins = len(before.arrays["actions"]) == 200
        assert played.count(painter._game) == (0 if begins else 1)
    assert picture.any()


def test_an_older_scene_is_played_from_its_beginning(close) -> None:
    """Scenes may come in any order: each picture is that of its own moment."""
    training = close(make_vector_env("cartpole", 1, 0, render=True))
    painter = close(Painter("cartpole"))
    random = np.random.default_rng(0)
    moments = []
    for _ in range(30):
        step(training, random)
        moments.append((training.scene(), training.render()))
    for scene, picture in (moments[29], moments[3], moments[4], moments[25], moments[0], moments[29]):
        assert np.array_equal(painter.paint(scene), picture)


@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_scenes_travel_as_json_and_plain_arrays(vectorize: str, close) -> None:
    """Facts survive JSON, in the first episode with its seed and later with the generator's state, and arrays stay."""
    training = close(make_vector_env("cartpole", 1, 2, vectorize=vectorize))
    random = np.random.default_rng(0)
    kinds = set()
    for _ in range(12):
        scene = training.scene()
        kept = {name: array.copy() for name, array in scene.arrays.items()}
        for _ in range(5):
            step(training, random)
        assert all(np.array_equal(scene.arrays[name], array) for name, array in kept.items())
        assert all(array.dtype.kind in "uif" for array in kept.values())
        arrived = Scene(scene.kind, json.loads(json.dumps(scene.facts)), kept)
        assert close(Painter("cartpole")).paint(arrived).shape == (400, 600, 3)
        kinds.add(scene.facts["seed"] is None)
    assert kinds == {True, False}


def test_long_episodes_keep_all_their_actions(register, close) -> None:
    """An episode longer than the array that its actions began with is drawn like any other, its state too."""
    name = register()
    training = close(make_vector_env(name, 1, 0, vectorize="inline", render=True))
    for _ in range(1500):  # a third of an action of 1 each
        training.send(np.array([1 if training.scene().arrays["actions"].size % 3 == 0 else 0]))
        training.recv()
    assert training.scene().arrays["actions"].shape == (1500,)
    assert np.array_equal(close(Painter(name)).paint(training.scene()), training.render())
    resumed = close(make_vector_env(name, 1, 9, vectorize="inline"))
    resumed.load_state_dict(training.state_dict())
    assert np.array_equal(close(Painter(name)).paint(resumed.scene()), training.render())


def test_games_that_do_not_repeat_themselves_are_named(register, close, monkeypatch) -> None:
    """A game with randomness of its own is refused with its name and a remedy, and is not played again and again."""
    name = register(hidden=True)
    training = close(make_vector_env(name, 1, 0, vectorize="inline"))
    painter = close(Painter(name))
    with pytest.raises(ValueError, match=f"{name} is not deterministic.*in a game of its own instead"):
        painter.paint(training.scene())
    monkeypatch.setattr(Replayable, "begin", None)
    with pytest.raises(ValueError, match="not deterministic"):
        painter.paint(training.scene())


def test_games_without_pictures_are_named(close, register) -> None:
    """A game that cannot draw itself is refused where somebody would watch it; training it is no matter."""
    mute = register(type("Mute", (Tape,), {"metadata": {"render_modes": [], "render_fps": 12}}))
    training = close(make_vector_env(mute, 1, 0, vectorize="inline"))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="cannot be watched: it draws no pictures"):
        close(Painter(mute)).paint(training.scene())


def test_games_that_see_pictures_show_them(register, close) -> None:
    """Where the observation is a picture, it is the scene, gray ones in three equal colours; no copy plays."""
    name = register(seen=True)
    for vectorize in ("inline", "workers"):
        training = close(make_vector_env(name, 2, 0, vectorize=vectorize))
        step(training, np.random.default_rng(0))
        picture = close(Painter(name)).paint(training.scene(1))
        assert picture.shape == (6, 9, 3) and (picture == training.current.observation[1]).all()


def test_atari_and_minatar_hand_over_pictures(close) -> None:
    """Atari's scene is its newest frame, MinAtar's the board with a pixel per cell, and they need no painter's copy."""
    for name, size in (("atari/pong", 84), ("minatar/breakout", 10)):
        training = close(make_vector_env(name, 2, 0, **FAMILY))
        step(training, np.random.default_rng(0))
        scene = training.scene(1)
        picture = close(Painter(name, **FAMILY)).paint(scene)
        assert scene.kind == "picture" and scene.facts == {} and picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        scale = 1 if size == 84 else 20
        assert np.array_equal(picture.repeat(scale, 0).repeat(scale, 1), training.render(1))
    fake = CountingGame(2)
    fake.reset(0)
    assert np.array_equal(fake.scene(1).arrays["picture"], fake.render(1))


def test_scenes_out_of_order_are_refused(close) -> None:
    """Before a reset, while workers play, or of another game's kind, the answer is a sentence."""
    workers = close(make_vector_env("cartpole", 2, 0, vectorize="workers"))
    workers.send(np.array([0, 1]))
    with pytest.raises(RuntimeError, match="receive what was sent for"):
        workers.scene()
    workers.recv()
    scene = workers.scene()
    with pytest.raises(ValueError, match="of another game"):
        close(Painter("atari/pong")).paint(scene)
    with pytest.raises(ValueError, match="not 'film'"):
        close(Painter("cartpole")).paint(scene._replace(kind="film"))
    with pytest.raises(RuntimeError, match="Reset"):
        Replayable(gymnasium.make("CartPole-v1")).scene()


def test_a_closed_painter_can_begin_again(close) -> None:
    """close frees the copy, twice if asked; a scene after it is drawn by a new one."""
    training = close(make_vector_env("cartpole", 1, 0))
    painter = close(Painter("cartpole"))
    picture = painter.paint(training.scene()).copy()
    painter.close()
    painter.close()
    assert np.array_equal(painter.paint(training.scene()), picture)
