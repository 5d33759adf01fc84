"""One of our games as a gymnasium environment and as an SB3 VecEnv."""

from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from agent.sb3.gym_env import GameAsEnv, make_vec_env
from agent.sb3.vec_env import FinishedEpisode, SameStep


class CountingGame:
    """A vector of one game with next-step autoreset that shows (start, episode, time) and reuses its memory.

    Each learning episode is `lives` long in steps 3, 4, 5, 3, ...; every second learning end is a truncation. A whole
    game is `lives` learning episodes. The reward is the time, so it exceeds 1.
    """

    num_envs = 1

    def __init__(self, lives=1):
        self.spec = SimpleNamespace(
            name="counting", observation_shape=(3,), observation_dtype="float32", num_actions=2, pixels=False
        )
        self.lives = lives
        self.actions = []  # those that counted
        self.observation = np.zeros((1, 3), np.float32)
        self.closed = False

    def _answer(self, reward=0.0, terminated=False, truncated=False, first=False, episodes=()):
        self.observation[0] = (self.start, self.episode, self.time)
        flags = (np.array([flag]) for flag in (terminated, truncated, first))
        self.current = SameStep(self.observation, np.array([reward], np.float32), *flags, tuple(episodes), None, np.zeros(1, bool))
        return self.current

    def reset(self, seed):
        self.start, self.episode, self.time, self.score, self.length = seed % 1000, 0, 0, 0.0, 0
        return self._answer(first=True)

    def send(self, action):
        assert action.shape == (1,) and action.dtype == np.int64
        self.action = int(action[0])

    def recv(self):
        if self.current.terminated[0] or self.current.truncated[0]:
            self.episode, self.time = self.episode + 1, 0
            return self._answer(first=True)
        self.actions.append(self.action)
        self.time += 1
        self.score, self.length = self.score + self.time, self.length + 1
        ends = self.time == 3 + self.episode % 3
        episodes = []
        if ends and self.episode % self.lives == self.lives - 1:
            episodes.append(FinishedEpisode(0, self.score, self.length))
            self.score, self.length = 0.0, 0
        truncated = ends and self.episode % 2 == 1
        return self._answer(float(self.time), ends and not truncated, truncated, False, episodes)

    def close(self):
        self.closed = True


@pytest.mark.filterwarnings("ignore:.*A Box observation space")
def test_gymnasium_checker_accepts_it():
    """gymnasium's own checker finds nothing wrong: spaces, seeding and determinism are as it demands."""
    check_env(GameAsEnv(CountingGame()), skip_render_check=True)


def test_vec_env_tells_every_transition_as_it_was():
    """Through DummyVecEnv every transition is told once, with its terminal observation, and no action is lost."""
    games = [CountingGame(), CountingGame()]
    venv = make_vec_env([lambda: games[0], lambda: games[1]])
    venv.seed(5)
    observation = venv.reset()
    assert observation.tolist() == [[5, 0, 0], [6, 0, 0]]
    episode, moment = [0, 0], [0, 0]
    sent = ([], [])
    generator = np.random.default_rng(0)
    for _ in range(40):
        action = generator.integers(2, size=2)
        observation, reward, done, infos = venv.step(action)
        for i in range(2):
            sent[i].append(int(action[i]))
            moment[i] += 1
            assert reward[i] == moment[i]
            assert done[i] == (moment[i] == 3 + episode[i] % 3)
            if done[i]:
                assert infos[i]["terminal_observation"].tolist() == [5 + i, episode[i], moment[i]]
                assert infos[i]["TimeLimit.truncated"] == (episode[i] % 2 == 1)
                assert infos[i]["episode"]["l"] == moment[i]
                assert infos[i]["episode"]["r"] == moment[i] * (moment[i] + 1) / 2
                episode[i], moment[i] = episode[i] + 1, 0
            else:
                assert "episode" not in infos[i]
            assert observation[i].tolist() == [5 + i, episode[i], moment[i]]
    assert (games[0].actions, games[1].actions) == sent
    venv.close()
    assert games[0].closed and games[1].closed


def test_lost_life_is_no_episode():
    """When learning ends at each lost life the monitor reports whole games, with the game's own score and length."""
    venv = make_vec_env([lambda: CountingGame(lives=3)])
    venv.seed(0)
    venv.reset()
    finished = []
    for _ in range(24):
        _, _, _, infos = venv.step(np.array([1]))
        finished += [(info["episode"]["r"], info["episode"]["l"]) for info in infos if "episode" in info]
    assert finished == [(6 + 10 + 15, 12)] * 2
    assert venv.env_method("get_episode_lengths") == [[12, 12]]


def test_clipped_rewards_leave_scores_alone():
    """The algorithm sees clipped rewards, evaluate_policy the raw score, and SB3 finds its Monitor."""
    venv = make_vec_env([CountingGame], reward_clip=1.0)
    venv.seed(0)
    venv.reset()
    rewards = [float(venv.step(np.array([0]))[1][0]) for _ in range(3)]
    assert rewards == [1.0, 1.0, 1.0]
    assert venv.env_is_wrapped(Monitor) == [True]
    model = SimpleNamespace(predict=lambda observation, **_: (np.zeros(len(observation), np.int64), None))
    mean, _ = evaluate_policy(model, venv, n_eval_episodes=2)
    assert mean == (6 + 10) / 2  # it resets, so its episodes are the first two, of 3 and 4 steps


def test_reset_in_the_middle_starts_anew():
    """A reset without seed in the middle of an episode starts the game from a seed of the environment's generator."""
    env = GameAsEnv(CountingGame())
    env.reset(seed=7)
    env.step(0)
    first, _ = env.reset()
    env.reset(seed=7)
    env.step(0)
    again, _ = env.reset()
    assert first.tolist() == again.tolist()
    assert first[1:].tolist() == [0, 0]
    assert env.reset(seed=9)[0].tolist() == [9, 0, 0]


def test_refuses_a_vector_of_two():
    """Two games in one vector cannot be reset apart and are refused."""
    two = CountingGame()
    two.num_envs = 2
    with pytest.raises(ValueError, match="one game, not of 2"):
        GameAsEnv(two)


def test_continuous_actions_reach_the_game():
    """A game with continuous actions has a Box of its bounds, and gets its actions as f32 [1, n]."""
    game = CountingGame()
    vars(game.spec).update(num_actions=0, action_low=(-2.0, -1.0), action_high=(2.0, 1.0))
    sent = []
    game.send = sent.append
    game.recv = lambda: game._answer()
    env = GameAsEnv(game)
    assert env.action_space == spaces.Box(np.float32([-2, -1]), np.float32([2, 1]))
    env.reset(seed=0)
    env.step(np.array([0.5, -0.5]))
    assert sent[0].dtype == np.float32 and sent[0].tolist() == [[0.5, -0.5]]


def test_gymnasium_environments_are_monitored_too():
    """A factory may make a gymnasium environment: it is wrapped in SB3's own Monitor."""
    venv = make_vec_env([partial(gymnasium.make, "CartPole-v1")] * 2)
    assert venv.env_is_wrapped(Monitor) == [True, True] and venv.num_envs == 2
