"""SB3's own algorithms behind the launcher: which fit, how they are set, what they tell while they train."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv

from agent.config import Settings
from agent.sb3.extractors import SmallGrid
from agent.sb3.stock import ALGORITHMS, build, train

DISCRETE = ("dqn-sb3", "qrdqn", "ppo", "a2c")
CONTINUOUS = ("sac", "td3", "tqc", "ppo", "a2c")
TINY = {
    "dqn-sb3": {"learning_starts": 10, "buffer_size": 500, "policy_kwargs": {"net_arch": [8]}},
    "qrdqn": {"learning_starts": 10, "buffer_size": 500, "policy_kwargs": {"net_arch": [8]}},
    "ppo": {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}},
    "a2c": {"policy_kwargs": {"net_arch": [8]}},
    "sac": {"learning_starts": 10, "buffer_size": 500, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
    "td3": {"learning_starts": 10, "buffer_size": 500, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
    "tqc": {"learning_starts": 10, "buffer_size": 500, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
}


def settings(algo, steps=120, **changes):
    return Settings(algo=algo, steps=steps, device="cpu", sb3={algo: TINY[algo] | changes})


def cartpole(games=2):
    return DummyVecEnv([lambda: Monitor(gymnasium.make("CartPole-v1"))] * games)


def pendulum(games=2):
    return DummyVecEnv([lambda: Monitor(gymnasium.make("Pendulum-v1", max_episode_steps=20))] * games)


class Recorder:
    """Keeps what `train` tells, and stops it after some steps."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.beats, self.episodes, self.settled, self.scalars = [], [], [], []

    def run(self, algorithm, steps):
        train(
            algorithm,
            steps,
            on_beat=self.on_beat,
            on_settled=self.settled.append,
            on_scalars=lambda steps, values: self.scalars.append((steps, values)),
            interval_s=0.0,
        )

    def on_beat(self, steps, episodes):
        self.beats.append(steps)
        self.episodes += episodes
        return self.stop_at is None or steps < self.stop_at


@pytest.mark.parametrize("algo", DISCRETE)
def test_discrete_algorithms_train_and_tell(algo):
    """Every algorithm for discrete actions trains through the launcher's calls and reports SB3's tags and episodes."""
    check_training(algo, cartpole())


@pytest.mark.parametrize("algo", CONTINUOUS)
def test_continuous_algorithms_train_and_tell(algo):
    """The same holds for every algorithm for continuous actions."""
    check_training(algo, pendulum())


def check_training(algo, venv):
    algorithm = build(algo, venv, settings(algo))
    recorder = Recorder()
    recorder.run(algorithm, 120)
    assert isinstance(algorithm, ALGORITHMS[algo].make)
    assert algorithm.num_timesteps >= 120
    assert recorder.beats == list(range(2, algorithm.num_timesteps + 1, 2))
    assert recorder.settled == sorted(recorder.settled) and recorder.settled[-1] == algorithm.num_timesteps
    assert recorder.episodes and all(episode.length > 0 for episode in recorder.episodes)
    tags = {tag for _, values in recorder.scalars for tag in values}
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/learning_rate"} <= tags
    assert not tags & {"time/episodes", "time/total_timesteps"}  # SB3 keeps these from TensorBoard
    assert all(isinstance(value, float) for _, values in recorder.scalars for value in values.values())
    actions, _ = algorithm.predict(venv.reset(), deterministic=True)
    assert len(actions) == 2


@pytest.mark.parametrize("algo", ("dqn-sb3", "ppo"))
def test_stops_at_a_settled_moment(algo):
    """A stop leaves the algorithm where everything played is learned from: DQN a little later, PPO a little earlier."""
    algorithm = build(algo, cartpole(), settings(algo))
    recorder = Recorder(stop_at=50)
    recorder.run(algorithm, 1000)
    assert recorder.settled[-1] == algorithm.num_timesteps
    if algo == "ppo":
        assert algorithm.num_timesteps == 32  # two rollouts of 16 would have been 64
    else:
        assert 50 <= algorithm.num_timesteps <= 56  # train_freq is 4 steps of 2 games
        assert algorithm.replay_buffer.pos * 2 == algorithm.num_timesteps  # the last transition is there
    before = algorithm.num_timesteps
    Recorder().run(algorithm, before)
    assert algorithm.num_timesteps == before


def test_scalars_come_at_intervals():
    """With a long interval SB3's tags are written once, at the end."""
    algorithm = build("a2c", cartpole(), settings("a2c"))
    written = []
    silent = {"on_beat": lambda steps, episodes: True, "on_settled": lambda steps: None}
    train(algorithm, 60, **silent, on_scalars=lambda steps, values: written.append(steps), interval_s=1e9)
    assert written == [60]


def test_mismatched_actions_name_what_fits():
    """An algorithm that cannot choose the game's actions is refused with those that can."""
    with pytest.raises(ValueError, match="sac chooses continuous.*discrete.*icebox, dqn-sb3, qrdqn, ppo, a2c"):
        build("sac", cartpole(), settings("sac"))
    with pytest.raises(ValueError, match="dqn-sb3 chooses discrete.*continuous.*one of ppo, a2c, sac, td3, tqc"):
        build("dqn-sb3", pendulum(), settings("dqn-sb3"))


def test_unknown_settings_name_the_nearest():
    """A misspelled setting, a misspelled algorithm and a setting that is the launcher's own are refused by name."""
    with pytest.raises(ValueError, match="sb3.ppo: 'n_step'. Did you mean 'n_steps'"):
        build("ppo", cartpole(), settings("ppo", n_step=8))
    with pytest.raises(ValueError, match="'pppo'. Did you mean 'ppo'"):
        build("ppo", cartpole(), Settings(sb3={"pppo": {}}))
    with pytest.raises(ValueError, match="'verbose'"):
        build("ppo", cartpole(), settings("ppo", verbose=1))
    with pytest.raises(ValueError, match="ppo does not take .* sb3.ppo.*net_arc"):
        build("ppo", cartpole(), settings("ppo", policy_kwargs={"net_arc": [8]}))


def test_settings_reach_the_algorithm():
    """SB3's defaults stand unless sb3.<algo> says otherwise; YAML's lists and numbers become what SB3 wants."""
    algorithm = build("dqn-sb3", cartpole(1), settings("dqn-sb3", gamma=0.9, train_freq=[1, "episode"], steps=100))
    assert algorithm.gamma == 0.9 and algorithm.tau == 1.0 and algorithm.seed == 0
    assert algorithm.train_freq == (1, "episode") or algorithm.train_freq.unit.value == "episode"
    noisy = build("td3", pendulum(), settings("td3", action_noise=0.1))
    assert np.allclose(noisy.action_noise._sigma, 0.1)


def test_replay_is_no_longer_than_the_run():
    """The buffer holds at most the run's steps, rounded up to whole steps of all games."""
    one = settings("dqn-sb3", steps=101)
    assert build("dqn-sb3", cartpole(), one).replay_buffer.buffer_size == 51  # rows of 2 games
    other = Settings(algo="dqn-sb3", steps=100_000, sb3={"dqn-sb3": {"buffer_size": 600}})
    assert build("dqn-sb3", cartpole(), other).replay_buffer.buffer_size == 300


class Pixels(gymnasium.Env):
    """Random bytes of a given shape."""

    action_space = spaces.Discrete(3)

    def __init__(self, shape):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        return self._observation(), 1.0, bool(self.np_random.random() < 0.2), False, {}

    def _observation(self):
        return self.np_random.integers(2, size=self.observation_space.shape, dtype=np.uint8)


@pytest.mark.parametrize("algo", DISCRETE)
@pytest.mark.parametrize("shape", [(4, 10, 10), (10, 10, 10)])
def test_small_grids_train(algo, shape):
    """MinAtar's grids get a network that fits them and are not divided by 255."""
    changes = {name: value for name, value in TINY[algo].items() if name != "policy_kwargs"}
    venv = DummyVecEnv([lambda: Monitor(Pixels(shape))] * 2)
    algorithm = build(algo, venv, Settings(algo=algo, steps=60, device="cpu", sb3={algo: changes}))
    Recorder().run(algorithm, 60)
    extractors = [module for module in algorithm.policy.modules() if isinstance(module, SmallGrid)]
    assert extractors and not algorithm.policy.normalize_images
    assert algorithm.predict(venv.reset(), deterministic=True)[0].shape == (2,)


@pytest.mark.parametrize("shape", [(4, 84, 84), (96, 96, 3)])
def test_frames_get_nature_cnn(shape):
    """Stacked frames go to SB3's NatureCNN as they are; frames with channels last are transposed by SB3."""
    venv = DummyVecEnv([lambda: Monitor(Pixels(shape))])
    algorithm = build("dqn-sb3", venv, Settings(steps=20, device="cpu", sb3={"dqn-sb3": {"learning_starts": 1}}))
    assert any(isinstance(module, NatureCNN) for module in algorithm.policy.modules())
    assert algorithm.policy.normalize_images
    assert algorithm.predict(venv.reset(), deterministic=True)[0].shape == (1,)


def test_replay_that_does_not_fit_is_refused():
    """A replay buffer larger than memory is an error with the remedy, where SB3 would only warn."""
    huge = Settings(steps=10**9, sb3={"dqn-sb3": {"buffer_size": 10**9}})
    with pytest.raises(ValueError, match="does not fit into memory.*smaller buffer_size under sb3.dqn-sb3"):
        build("dqn-sb3", DummyVecEnv([lambda: Pixels((4, 84, 84))]), huge)
