"""An SB3 VecEnv presented as our games."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from agent.sb3.vec_env import VecEnvAsGames


class Counting(gymnasium.Env):
    """Shows (game, episode, time); episodes are 2, 3, 4, 2, ... steps long and every second one is truncated."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, game):
        self.game, self.episode, self.time = game, -1, 0
        self.seeds = []

    def _observation(self):
        return np.array([self.game, self.episode, self.time], np.float32)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.seeds.append(seed)
            self.episode = -1
        self.episode, self.time = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action):
        self.time += 1
        ends = self.time == 2 + self.episode % 3
        truncated = ends and self.episode % 2 == 1
        return self._observation(), float(self.time), ends and not truncated, truncated, {}


def counting(wrap=lambda env: env, games=2):
    return DummyVecEnv([lambda game=game: wrap(Counting(game)) for game in range(games)])


@pytest.mark.parametrize("monitor", ["none", "Monitor", "VecMonitor"])
def test_steps_say_what_happened(monitor):
    """Ends come together with `first` and the terminal observation, and episodes are counted with any monitor."""
    venv = counting(Monitor) if monitor == "Monitor" else counting()
    games = VecEnvAsGames(VecMonitor(venv) if monitor == "VecMonitor" else venv)
    step = games.reset(3)
    assert step is games.current and step.first.all() and not step.terminated.any() and step.final_observation is None
    assert step.observation.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert [env.unwrapped.seeds for env in venv.envs] == [[3], [4]]
    episode, moment = 0, 0  # both games keep step
    for _ in range(30):
        games.send(np.zeros(2, np.int64))
        step = games.recv()
        moment += 1
        length = 2 + episode % 3
        ends, truncates = moment == length, episode % 2 == 1
        assert step is games.current
        assert step.first.tolist() == [ends] * 2
        assert step.terminated.tolist() == [ends and not truncates] * 2
        assert step.truncated.tolist() == [ends and truncates] * 2
        assert step.reward.tolist() == [moment] * 2 and step.reward.dtype == np.float32
        if ends:
            assert step.final_observation.tolist() == [[0, episode, moment], [1, episode, moment]]
            score = length * (length + 1) / 2
            assert [tuple(finished) for finished in step.episodes] == [(0, score, length), (1, score, length)]
            episode, moment = episode + 1, 0
        else:
            assert step.final_observation is None and not step.episodes
        assert step.observation.tolist() == [[0, episode, moment], [1, episode, moment]]


def test_steps_own_their_memory():
    """A later step of a VecEnv that reuses its memory does not change an earlier step."""
    venv = counting()
    memory = np.zeros((2, 3), np.float32)
    tell = venv._obs_from_buf

    def shared():
        memory[:] = tell()
        return memory

    venv._obs_from_buf = shared
    games = VecEnvAsGames(venv)
    first = games.reset(0)
    before = first.observation.copy()
    games.send(np.zeros(2, np.int64))
    games.recv()
    assert np.array_equal(first.observation, before)


def test_adopted_reset_forgets_open_episodes():
    """After somebody else reset the VecEnv, scores are counted from that reset on."""
    venv = counting(games=1)
    games = VecEnvAsGames(venv)
    games.reset(0)
    games.send(np.zeros(1, np.int64))
    games.recv()
    venv.seed(0)
    games.adopt(venv.reset())
    for _ in range(2):
        games.send(np.zeros(1, np.int64))
        games.recv()
    assert [tuple(finished) for finished in games.current.episodes] == [(0, 3.0, 2)]


def test_end_without_terminal_observation_is_an_error():
    """A VecEnv that hides the terminal observation is refused instead of learned from wrongly."""
    venv = counting(games=1)
    tell = venv.step_wait

    def hides():
        observation, reward, done, infos = tell()
        return observation, reward, done, [{} for _ in infos]

    venv.step_wait = hides
    games = VecEnvAsGames(venv)
    games.reset(0)
    with pytest.raises(ValueError, match="terminal_observation"):
        for _ in range(5):
            games.send(np.zeros(1, np.int64))
            games.recv()


def test_refuses_spaces_and_wrappers_it_cannot_serve():
    """Continuous actions, dict observations and VecNormalize are refused with a remedy."""

    class Continuous(Counting):
        action_space = spaces.Box(-1, 1, (1,))

    class Dict(Counting):
        observation_space = spaces.Dict({"a": spaces.Box(0, 1, (1,))})

    class Shifted(Counting):
        action_space = spaces.Discrete(2, start=1)

    def venv(kind):
        return DummyVecEnv([lambda: kind(0)])

    with pytest.raises(ValueError, match="--algo sac"):
        VecEnvAsGames(venv(Continuous))
    with pytest.raises(ValueError, match="FlattenObservation"):
        VecEnvAsGames(venv(Dict))
    with pytest.raises(ValueError, match="counted from 0"):
        VecEnvAsGames(venv(Shifted))
    with pytest.raises(ValueError, match="VecNormalize"):
        VecEnvAsGames(VecNormalize(counting()))
