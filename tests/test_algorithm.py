"""Our agent as an SB3 algorithm: SB3's tools work with it, and it stays our agent."""

import random
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from agent.config import Settings
from agent.sb3.algorithm import Icebox

TINY = {"hidden": (16,), "batch_size": 8, "learning_starts": 40, "capacity": 500, "target_interval": 5, "device": "cpu"}


def cartpole(games=2):
    return make_vec_env("CartPole-v1", n_envs=games)


def icebox(env=None, **changes):
    return Icebox("MlpPolicy", cartpole() if env is None else env, **TINY | changes)


def weights(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.policy.parameters()])


class Watch(BaseCallback):
    """Counts SB3's events and keeps what a callback can see."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.events, self.seen, self.stop_at = [], [], stop_at

    def _on_training_start(self):
        self.events.append("training_start")
        assert self.locals["total_timesteps"] > 0

    def _on_rollout_start(self):
        self.events.append("rollout_start")

    def _on_step(self):
        self.events.append("step")
        names = ("actions", "new_obs", "rewards", "dones", "infos")
        self.seen.append((self.num_timesteps, *(self.locals[name] for name in names)))
        return self.stop_at is None or self.num_timesteps < self.stop_at

    def _on_rollout_end(self):
        self.events.append("rollout_end")

    def _on_training_end(self):
        self.events.append("training_end")


class Memory(KVWriter):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        """Nothing is held."""


def test_callbacks_see_every_step():
    """SB3's events come in SB3's order, and a callback finds actions, observations, rewards, dones and infos."""
    model, watch = icebox(), Watch()
    assert model.learn(60, callback=watch) is model
    assert model.num_timesteps == 60
    ticks = 30
    assert watch.events == ["training_start", *["rollout_start", "step", "rollout_end"] * ticks, "training_end"]
    assert [row[0] for row in watch.seen] == list(range(2, 61, 2))
    for _, actions, new_obs, rewards, dones, infos in watch.seen:
        assert actions.shape == rewards.shape == dones.shape == (2,) and new_obs.shape == (2, 4) and len(infos) == 2
        for game in range(2):
            assert ("episode" in infos[game]) == dones[game] == ("terminal_observation" in infos[game])


def test_callback_stops_training():
    """A callback that returns False ends training at that step."""
    model, watch = icebox(), Watch(stop_at=20)
    model.learn(1000, callback=watch)
    assert model.num_timesteps == 20
    assert watch.events[-2:] == ["step", "training_end"]
    model.learn(1000, callback=StopTrainingOnMaxEpisodes(max_episodes=2))
    assert model.num_timesteps < 1000


def test_learns_and_updates_as_settings_say():
    """Updates follow samples per insert whatever the number of games, and change the weights."""
    for games in (1, 5):
        model = icebox(cartpole(games), samples_per_insert=4.0)
        before = weights(model)
        model.learn(200)
        expected = (200 - games - 40) * 4 / 8
        assert abs(model._n_updates - expected) <= 3
        assert not torch.equal(weights(model), before)


def test_two_runs_with_one_seed_are_equal():
    """Runs with one seed are equal bit for bit, whatever the global generators, and with another seed different."""

    def run(seed, env):
        return weights(icebox(env, seed=seed, priority_exponent=0.5, n_step=3, dueling=True).learn(160))

    def global_state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    envs = [cartpole() for _ in range(3)]  # SB3 draws from numpy's global generator to make them
    one = run(3, envs[0])
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = global_state()
    assert torch.equal(one, run(3, envs[1]))
    assert global_state() == before
    assert not torch.equal(one, run(4, envs[2]))


def test_evaluation_callback_with_threshold_and_checkpoints(tmp_path):
    """EvalCallback, StopTrainingOnRewardThreshold and CheckpointCallback work, replay without pickle included."""
    stop = StopTrainingOnRewardThreshold(reward_threshold=5.0)
    judge = EvalCallback(
        cartpole(1), callback_on_new_best=stop, n_eval_episodes=2, eval_freq=40,
        log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    saver = CheckpointCallback(save_freq=20, save_path=str(tmp_path / "saved"), save_replay_buffer=True)
    model = icebox()
    model.learn(2000, callback=[judge, saver])
    assert model.num_timesteps == 80  # every CartPole episode is worth more than 5
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (1, 2)
    best = Icebox.load(tmp_path / "best_model.zip", device="cpu")
    assert torch.equal(weights(best), weights(model))
    assert (tmp_path / "saved" / "rl_model_40_steps.zip").is_file()
    assert (tmp_path / "saved" / "rl_model_replay_buffer_40_steps").is_dir()
    assert not list(tmp_path.rglob("*.pkl"))


def test_save_and_load_give_the_same_actions(tmp_path):
    """A loaded model has the same weights, target, moments, settings and actions, with and without an environment."""
    model = icebox(n_step=2, learning_rate=1e-3)
    model.learn(120)
    model.save(tmp_path / "model")
    observation = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    expected, _ = model.predict(observation, deterministic=True)
    for env in (None, cartpole(3)):
        loaded = Icebox.load(tmp_path / "model", env=env, device="cpu")
        assert np.array_equal(loaded.predict(observation, deterministic=True)[0], expected)
        assert torch.equal(weights(loaded), weights(model))
        assert loaded.settings == model.settings
        assert loaded.num_timesteps == 120 and loaded._n_updates == model._n_updates == loaded.learner.updates
        for one, other in zip(
            model.policy.optimizer.state.values(), loaded.policy.optimizer.state.values(), strict=True
        ):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_learning_goes_on_after_load(tmp_path):
    """After load the agent fills a new replay first and then goes on learning, the exploration where it was."""
    model = icebox(epsilon_steps=200)
    model.learn(120)
    model.save(tmp_path / "model")
    loaded = Icebox.load(tmp_path / "model", env=cartpole(3), device="cpu")
    assert loaded.exploration_rate == model.exploration_rate < 0.5
    before, updates = weights(loaded), loaded._n_updates
    watch = Watch()
    loaded.learn(30, reset_num_timesteps=False, callback=watch)
    assert watch.seen[0][0] == 123 and loaded.num_timesteps == 150
    assert loaded._n_updates == updates  # replay does not hold `learning_starts` yet
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded._n_updates > updates and loaded.num_timesteps == 210
    assert not torch.equal(before, weights(loaded))


def test_replay_can_be_carried_over(tmp_path):
    """With its replay a loaded agent learns on at once, and episodes that were open in it end as truncated."""
    model = icebox(n_step=3)
    model.learn(120)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay.pkl")
    loaded = Icebox.load(tmp_path / "model", env=cartpole(), device="cpu")
    with pytest.raises(ValueError, match="no replay yet"):
        loaded.save_replay_buffer(tmp_path / "none")
    loaded.load_replay_buffer(tmp_path / "replay.pkl")
    updates = loaded._n_updates
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded._n_updates > updates
    loaded.replay_buffer.check()
    assert len(loaded.replay_buffer) > 120


def test_learning_twice_continues_or_restarts():
    """Without a reset of the counter the episodes go on; with one everything starts anew but what is remembered."""
    model = icebox()
    model.learn(60)
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == 100
    model.learn(60)
    assert model.num_timesteps == 60
    model.replay_buffer.check()
    assert len(model.replay_buffer) > 140
    model.set_env(cartpole())
    model.learn(20, reset_num_timesteps=False)
    assert model.num_timesteps == 80
    model.replay_buffer.check()


def test_training_in_pieces_equals_training_at_once():
    """Two calls of learn without a reset of the counter play and learn what one call does."""
    pieces = icebox(seed=1)
    pieces.learn(100)
    pieces.learn(60, reset_num_timesteps=False)
    assert torch.equal(weights(icebox(seed=1).learn(160)), weights(pieces))


def test_predict_is_greedy_or_explores_for_every_game():
    """Deterministic predictions are the network's best actions; others draw a coin for every observation on its own."""
    model = icebox(epsilon_start=0.5, epsilon_end=0.5)
    observation = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)
    with torch.no_grad():
        best = model.policy.q_net(torch.from_numpy(observation)).argmax(1).numpy()
    greedy, state = model.predict(observation, deterministic=True)
    assert state is None and np.array_equal(greedy, best)
    assert np.array_equal(model.policy.predict(observation)[0], best)
    explored, _ = model.predict(observation)
    assert 0.7 < (explored == best).mean() < 0.8  # half are random, of which half are the best all the same
    single, _ = model.predict(observation[0], deterministic=True)
    assert single.shape == () and single == best[0]
    assert model.predict(observation[0])[0].shape == ()


def test_evaluate_policy_takes_model_and_policy():
    """evaluate_policy judges the model and its bare policy alike."""
    model = icebox()
    env = cartpole(1)
    env.seed(0)
    one = evaluate_policy(model, env, n_eval_episodes=3)
    env.seed(0)
    assert one == evaluate_policy(model.policy, env, n_eval_episodes=3)


def test_logs_sb3_tags():
    """The logger receives SB3's tags and the learner's, every `log_interval` episodes."""
    model, memory = icebox(), Memory()
    model.set_logger(Logger(None, [memory]))
    model.learn(300, log_interval=2)
    tags = set().union(*memory.rows)
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/exploration_rate", "time/fps"} <= tags
    assert {"train/loss", "train/learning_rate", "train/n_updates"} <= tags
    assert len(memory.rows) == model._episode_num // 2


def test_settings_come_from_keywords_or_whole():
    """Keywords override the settings by name; settings, seed and SB3's attributes say what was asked for."""
    model = icebox(n_step=3, discount=0.9, epsilon_end=0.2, dueling=True, seed=7)
    assert model.settings.replay.n_step == 3 and model.gamma == 0.9 and model.seed == 7
    whole = Icebox("MlpPolicy", cartpole(1), Settings(seed=5), hidden=(8,), device="cpu")
    assert whole.seed == 5 and whole.settings.network.hidden == (8,)
    for name, hint in {"gamma": "discount", "bath_size": "batch_size", "train_freq": "samples_per_insert"}.items():
        with pytest.raises(ValueError, match=f"no argument '{name}'; here it is {hint}"):
            icebox(**{name: 1})
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        icebox(n_step=0)


def test_replay_that_does_not_fit_is_refused():
    """Replay larger than memory is an error with a remedy when learning begins; playing needs no replay."""
    model = icebox(capacity=10**13)
    model.predict(np.zeros((1, 4), np.float32), deterministic=True)
    with pytest.raises(ValueError, match="replay.capacity 10000000000000 needs .* at most"):
        model.learn(10)


def test_continuous_actions_are_refused():
    """A game with continuous actions is refused with the algorithms that take it."""
    with pytest.raises(ValueError, match="--algo sac"):
        Icebox("MlpPolicy", "Pendulum-v1", device="cpu")
    model = icebox()
    with pytest.raises((ValueError, AssertionError)):
        model.set_env(make_vec_env("Pendulum-v1", n_envs=2))


class Frames(gymnasium.Env):
    """Random pictures, channels last as Gymnasium has them."""

    observation_space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._picture(), {}

    def step(self, action):
        return self._picture(), 1.0, bool(self.np_random.random() < 0.1), False, {}

    def _picture(self):
        return self.np_random.integers(256, size=(36, 40, 3), dtype=np.uint8)


def test_pictures_are_transposed_and_stay_bytes(tmp_path):
    """Pictures with channels last are learned from as bytes with channels first, stacked by SB3 or not."""
    for stack in (1, 2):
        venv = DummyVecEnv([lambda: Monitor(Frames())] * 2)
        env = VecFrameStack(venv, stack) if stack > 1 else venv
        model = Icebox("CnnPolicy", env, **TINY | {"learning_starts": 10, "samples_per_insert": 1.0})
        model.learn(40)
        assert model.observation_space.shape == (3 * stack, 36, 40)
        assert model.replay_buffer.film.frames.dtype == torch.uint8 and model._n_updates > 0
        observation = env.reset()  # channels last
        assert model.predict(observation, deterministic=True)[0].shape == (2,)
        model.save(tmp_path / "model")
        loaded = Icebox.load(tmp_path / "model", env=env, device="cpu")
        expected, _ = model.predict(observation, deterministic=True)
        assert np.array_equal(loaded.predict(observation, deterministic=True)[0], expected)


def test_worker_processes_and_bare_environments():
    """Environments in worker processes and a single bare environment are taken as SB3 takes them."""
    workers = make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=SubprocVecEnv)
    one = weights(icebox(workers, seed=2).learn(60))
    workers.close()
    assert torch.equal(one, weights(icebox(seed=2).learn(60)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert icebox(gymnasium.make("CartPole-v1")).learn(60).num_timesteps == 60
        assert Icebox("MlpPolicy", "CartPole-v1", **TINY).learn(60).num_timesteps == 60


class Unsound(gymnasium.Wrapper):
    """CartPole in which a tenth of the rewards, or of the observations behind the first, are no numbers."""

    def __init__(self, env, place):
        super().__init__(env)
        self.place, self.rng = place, np.random.default_rng(0)

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        wrong = self.rng.choice([np.nan, np.inf, -np.inf, 1e39]) if self.rng.random() < 0.1 else 1.0
        if self.place == "reward":
            return observation, wrong, *rest
        return observation if wrong == 1.0 else np.full(4, wrong), reward, *rest


@pytest.mark.parametrize("place", ["observation", "reward"])
def test_what_is_not_finite_enters_neither_replay_nor_weights(place):
    """It is left out, counted in the log and told in a warning; Icebox learns from the rest."""
    env = DummyVecEnv([lambda: Unsound(gymnasium.make("CartPole-v1"), place)] * 2)
    model = icebox(env)
    with pytest.warns(RuntimeWarning, match="is not a finite number and was left out"):
        model.learn(300)
    replay, count = model.replay_buffer, model.learner.faults.counts["faults/non_finite_steps"]
    assert 15 <= count <= 120 and model.learner.updates > 20
    assert bool(replay.film.reward.isfinite().all()) and bool(weights(model).isfinite().all())
    held = replay.gather(replay.tree.leaves.nonzero()[:, 0])
    assert bool(held.s_tm1.isfinite().all()) and bool(held.s_t.isfinite().all()) and len(replay) > 100
    model.dump_logs()
    assert model.learner.faults.figures() == {"faults/non_finite_steps": float(count)}
