"""Gymnasium's games: the vectors equal a plain loop, in line and in workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from envs.classic import make_classic
from envs.inline import InlineVector
from envs.make import make_vector_env
from envs.spec import game_seeds
from envs.workers import WorkerVector


class Oddity(gymnasium.Env):
    """A game of any spaces that tells the last action; `delay_s` makes it slow and `hidden` not repeatable."""

    metadata = {"render_modes": [], "render_fps": 12}

    def __init__(self, observations=None, actions=None, delay_s=0.0, hidden=False, render_mode=None):
        self.observation_space = observations or Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = actions or Discrete(3, start=5)
        self.render_mode = render_mode
        self.delay_s, self.hidden = delay_s, hidden
        self.time = 0

    def _look(self, value):
        space = self.observation_space
        noise = np.random.default_rng().random() if self.hidden else self.np_random.random()
        return int(value) % int(space.n) if isinstance(space, Discrete) else np.full(
            space.shape, value if space.dtype == np.uint8 else value + noise, space.dtype
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._look(0), {"unused": 1}

    def step(self, action):
        assert self.action_space.contains(action), action
        time.sleep(self.delay_s)
        self.time += 1
        return self._look(np.sum(action)), float(np.sum(action)), self.time >= 9, False, {"unused": 2}


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Register an Oddity for one test and return its id."""
    names = []

    def register_one(**options) -> str:
        name = f"IceboxOddity{len(names)}-v0"
        gymnasium.register(name, entry_point=lambda **more: Oddity(**options, **more), max_episode_steps=50)
        names.append(name)
        return name

    yield register_one
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture
def close() -> Iterator[Callable[[object], object]]:
    """Close at the end of the test whatever was handed over."""
    vectors = []
    yield lambda vector: vectors.append(vector) or vector
    for vector in vectors:
        vector.close()


@pytest.mark.parametrize("name", ["cartpole", "acrobot", "mountain-car", "lunar-lander", "gym:Pendulum-v1"])
@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_vector_equals_a_plain_loop(name: str, vectorize: str, close) -> None:
    """Every observation, reward and end is that of gymnasium.make with the same seeds and actions."""
    vector = close(make_vector_env(name, 2, 5, vectorize=vectorize))
    envs = [gymnasium.make(vector.spec.gymnasium_id) for _ in range(2)]
    for env, seed, observation in zip(envs, game_seeds(5, 2), vector.current.observation, strict=True):
        assert env.reset(seed=seed)[0].tobytes() == observation.tobytes()
    random = np.random.default_rng(0)
    ended = [False, False]
    truncations = 0
    for _ in range(520 if name == "acrobot" else 210):
        if vector.spec.num_actions:
            action = random.integers(vector.spec.num_actions, size=2)
        else:
            action = random.uniform(-2, 2, size=(2, 1)).astype(np.float32)
        vector.send(action)
        step = vector.recv()
        for row, env in enumerate(envs):
            if ended[row]:
                observation, reward, terminated, truncated = env.reset()[0], 0.0, False, False
            else:
                observation, reward, terminated, truncated, _ = env.step(action[row])
            assert step.observation[row].tobytes() == observation.tobytes()
            assert step.reward[row] == np.float32(reward) and step.first[row] == ended[row]
            assert (step.terminated[row], step.truncated[row]) == (terminated, truncated)
            ended[row] = terminated or truncated
            truncations += truncated
    assert truncations or name in ("cartpole", "lunar-lander"), "a time limit must be a truncation"
    for env in envs:
        env.close()


def test_a_state_moves_between_the_kinds_of_vector(close) -> None:
    """What workers save, a vector in line continues with equal steps, and the other way round."""
    kinds = [close(make_vector_env("lunar-lander", 2, 9, vectorize=kind)) for kind in ("workers", "inline")]
    chosen = np.random.default_rng(2).integers(4, size=(160, 2))
    for source, target in (kinds, kinds[::-1]):
        for action in chosen[:77]:
            source.send(action)
            source.recv()
        target.load_state_dict(source.state_dict())
        for action in chosen[77:]:
            source.send(action)
            target.send(action)
            assert source.recv().observation.tobytes() == target.recv().observation.tobytes()


@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_a_game_that_does_not_repeat_itself_is_refused(vectorize: str, register, close) -> None:
    """A hidden random generator is noticed when a state is put back, and the message says what is wrong."""
    vector = close(make_vector_env(f"gym:{register(hidden=True)}", 2, 0, vectorize=vectorize))
    with pytest.raises(ValueError, match="is not deterministic"):
        vector.load_state_dict(vector.state_dict())
    vector.reset(1)
    vector.send(np.array([0, 1]))
    assert vector.recv().reward.tolist() == [5, 6], "after a new reset it can be played"


def test_every_item_of_a_state_matters(close) -> None:
    """A changed action, observation, generator or end of a saved game is noticed."""
    vector = close(make_vector_env("lunar-lander", 1, 0))
    for _ in range(30):
        vector.send(np.array([2]))
        vector.recv()
    for name, wrong in [
        ("actions", np.zeros(30, dtype=np.int64)),
        ("observation", np.zeros(8, dtype=np.float32)),
        ("ended", True),
        ("seed", 1),
        ("random", np.random.default_rng(0).bit_generator.state),
    ]:
        state = vector.state_dict()
        vector.load_state_dict(state)
        state["games"]["0"][name] = wrong
        with pytest.raises(ValueError, match="is not deterministic"):
            vector.load_state_dict(state)


@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_discrete_actions_are_counted_from_zero(vectorize: str, register, close) -> None:
    """Actions of Discrete(3, start=5) are 0, 1, 2 outside and 5, 6, 7 inside; float64 becomes float32."""
    vector = close(make_vector_env(f"gym:{register()}", 3, 0, vectorize=vectorize))
    vector.send(np.array([0, 1, 2]))
    step = vector.recv()
    assert step.reward.tolist() == [5, 6, 7] and step.observation.dtype == np.float32
    assert vector.spec.num_actions == 3 and vector.spec.action_names == ("0", "1", "2") and vector.spec.fps == 12


@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_continuous_actions_pass_as_they_are(vectorize: str, register, close) -> None:
    """Box actions are f32 [B, n] with their bounds in the spec, and a state replays them."""
    actions = Box(np.array([-1.0, -np.inf]), np.array([2.0, np.inf]), dtype=np.float64)
    vector = close(make_vector_env(f"gym:{register(actions=actions)}", 2, 0, vectorize=vectorize))
    spec = vector.spec
    assert (spec.num_actions, spec.action_names) == (0, ())
    assert (spec.action_low, spec.action_high) == ((-1.0, -np.inf), (2.0, np.inf))
    vector.send(np.array([[0.5, 1.0], [-1.0, 9.0]], dtype=np.float32))
    assert vector.recv().reward.tolist() == [1.5, 8.0]
    vector.load_state_dict(vector.state_dict())


def test_pictures_and_one_hot_observations(register, close) -> None:
    """uint8 pictures are left as they are, Discrete observations become one-hot vectors."""
    vector = close(make_vector_env(f"gym:{register(observations=Box(0, 255, (4, 5, 3), np.uint8))}", 2, 0))
    assert vector.spec.pixels and vector.spec.observation_shape == (4, 5, 3)
    vector.send(np.array([1, 2]))
    assert vector.recv().observation[:, 0, 0, 0].tolist() == [6, 7] and vector.current.observation.dtype == np.uint8
    vector = close(make_vector_env(f"gym:{register(observations=Discrete(8))}", 2, 0))
    vector.send(np.array([1, 2]))
    assert vector.recv().observation.argmax(axis=1).tolist() == [6, 7] and not vector.spec.pixels
    vector.load_state_dict(vector.state_dict())


@pytest.mark.parametrize(
    ("spaces", "named"),
    [
        ({"observations": Dict(a=Discrete(2))}, r"observations of Dict\('a'"),
        ({"actions": MultiDiscrete([2, 3])}, r"actions of MultiDiscrete"),
        ({"actions": Box(-1, 1, (2, 2))}, r"actions of Box.*\(2, 2\)"),
    ],
)
def test_unsupported_spaces_are_named(spaces, named: str, register) -> None:
    """A space that no agent here can use is refused by name."""
    name = register(**spaces)
    with pytest.raises(ValueError, match=f"{name} has {named}"):
        make_vector_env(f"gym:{name}", 2, 0)


@pytest.mark.parametrize("name", ["CartPol-v1", "CartPole-v99", "nomodule:Thing-v0", "Nowhere/Thing-v0"])
def test_unknown_gymnasium_ids_are_answered(name: str) -> None:
    """A Gymnasium id that does not exist is a ValueError with Gymnasium's own reason."""
    with pytest.raises(ValueError, match=f"Gymnasium cannot make '{name}'"):
        make_vector_env(f"gym:{name}", 1, 0)


def test_auto_takes_workers_for_slow_games_only(register, close, monkeypatch) -> None:
    """auto means workers when a step takes longer than a millisecond, and in line for one game or one core."""
    slow, fast = register(delay_s=0.003), register()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    kinds = [type(close(make_classic("x", name, 2, vectorize="auto"))) for name in (slow, fast)]
    assert kinds == [WorkerVector, InlineVector]
    assert isinstance(close(make_classic("x", slow, 1, vectorize="auto")), InlineVector)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert isinstance(close(make_classic("x", slow, 2, vectorize="auto")), InlineVector)


def test_table_games_have_thresholds_and_names() -> None:
    """The table's games carry Gymnasium's thresholds, rates and a name for every action."""
    expected = {"cartpole": (475, 50), "acrobot": (-100, 15), "mountain-car": (-110, 30), "lunar-lander": (200, 50)}
    for name, (solved_at, fps) in expected.items():
        vector = make_vector_env(name, 1, 0)
        assert (vector.spec.name, vector.spec.solved_at, vector.spec.fps) == (name, solved_at, fps)
        assert all(len(action) > 3 for action in vector.spec.action_names)
        vector.close()


@pytest.mark.parametrize("vectorize", ["inline", "workers"])
def test_pictures_come_only_when_asked_for(vectorize: str, close) -> None:
    """render=True gives each game's own picture; without it the remedy is named."""
    vector = close(make_vector_env("cartpole", 2, 0, vectorize=vectorize, render=True))
    pictures = [vector.render(row) for row in (0, 1)]
    assert pictures[0].dtype == np.uint8 and pictures[0].ndim == 3 and pictures[0].shape[2] == 3
    assert not np.array_equal(*pictures)
    with pytest.raises(RuntimeError, match="render=True"):
        close(vector := make_vector_env("cartpole", 1, 0, vectorize=vectorize)).render()
    vector.send(np.array([0]))
    vector.recv()
