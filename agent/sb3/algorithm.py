"""The front door: our agent as an `OffPolicyAlgorithm`, for everything that knows how to work with one."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ValidationError
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from agent import checkpoint
from agent.actor import Actor
from agent.config import Settings
from agent.learner import Learner
from agent.loop import Clock, interleave, least_learning_starts
from agent.losses import make_loss
from agent.memory import estimate
from agent.replay.replay import Replay
from agent.schedules import epsilon_schedule, learner_schedules
from agent.seeding import numpy_generator, seed_for, torch_generator
from agent.sb3.policy import QPolicy, network_dtype
from agent.sb3.vec_env import SameStep, VecEnvAsGames, require_playable

# The sections of the settings whose keys are hyper-parameters; all names differ but `device`, which is the agent's.
_SECTIONS = ("actor", "replay", "network", "learner")

# What SB3's DQN calls the things that have another name (and sometimes another unit) here.
_DQN_NAMES = {
    "buffer_size": "capacity",
    "gamma": "discount",
    "n_steps": "n_step",
    "target_update_interval": "target_interval (in updates)",
    "train_freq": "samples_per_insert (batch_size / train_freq)",
    "gradient_steps": "samples_per_insert",
    "exploration_initial_eps": "epsilon_start",
    "exploration_final_eps": "epsilon_end",
    "exploration_fraction": "epsilon_steps (in environment steps)",
    "policy_kwargs": "hidden, torso, dueling and the others of the section network",
}


class _Observed(NamedTuple):
    """What replay is told of the observations. Nothing is known about frames inside one: each is stored whole."""

    observation_shape: tuple[int, ...]
    observation_dtype: str
    stack: int = 1


class Icebox(OffPolicyAlgorithm):
    """Icebox's agent with the face of stable-baselines3: `Icebox("MlpPolicy", env, n_step=3).learn(50_000)`.

    `settings` are those of the launcher; keyword arguments override them by the names they have in the sections actor,
    replay, network and learner of agent/config.py. "MlpPolicy" and "CnnPolicy" mean the same: the torso that
    `network.torso` says, by default the one that fits the observations.

    Other than SB3's DQN it never touches the global random generators, draws epsilon for every game on its own, and
    counts updates per environment step, whatever the number of environments. Learning begins when replay holds
    `learning_starts` transitions, also after `load`, which like SB3's brings no replay (see `save_replay_buffer`).
    Raises ValueError for unknown keywords and for environments with continuous actions or observations without shape.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": QPolicy, "CnnPolicy": QPolicy}
    policy: QPolicy
    replay_buffer: Replay | None  # type: ignore[assignment]
    observation_space: spaces.Box
    action_space: spaces.Discrete

    def __init__(
        self,
        policy: str | type[QPolicy],
        env: GymEnv | str | None,
        settings: Settings | None = None,
        *,
        seed: int | None = None,
        device: torch.device | str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        _init_setup_model: bool = True,
        **hyper_parameters: Any,
    ):
        changes = hyper_parameters if seed is None else hyper_parameters | {"seed": seed}
        settings = _with(settings or Settings(), changes)
        super().__init__(
            policy,
            env,
            learning_rate=settings.learner.learning_rate,
            buffer_size=settings.replay.capacity,
            learning_starts=settings.learner.learning_starts,
            batch_size=settings.learner.batch_size,
            tau=1.0,
            gamma=settings.learner.discount,
            n_steps=settings.replay.n_step,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=settings.device if device == "auto" else device,
            support_multi_env=True,
            seed=settings.seed,
            sde_support=False,
        )
        self._settings = settings.model_dump(mode="json")  # plain, so that a saved model holds it as JSON
        if self.env is not None:
            require_playable(self.env)
        if _init_setup_model:
            self._setup_model()

    @property
    def settings(self) -> Settings:
        """The settings this agent was made with."""
        return Settings.model_validate(self._settings)

    @property
    def exploration_rate(self) -> float:
        """The probability of a random action at the present step."""
        return self.actor.epsilon(self.num_timesteps)

    def _setup_model(self) -> None:
        """Build network, learner and actor; every owner of randomness has a generator of its own."""
        settings = self.settings
        seed = settings.seed
        self._setup_lr_schedule()
        self._seed_env()
        average = settings.learner.average_updates is not None
        self.policy = self.policy_class(self.observation_space, self.action_space, settings.network, seed, average)
        self.policy = self.policy.to(self.device)
        self.replay_buffer = None  # allocated when it is needed: a model loaded to play needs none
        self.learner = Learner(
            self.policy.q_net,
            None,  # type: ignore[arg-type]  # see _allocate_replay
            make_loss(settings.network, settings.learner),
            settings.learner,
            generator=torch_generator(seed, self._owner("learner"), self.device),
            **learner_schedules(settings, 1),  # known when `learn` is called
        )
        self.learner.updates = self._n_updates
        self.learner.faults.say = lambda sentence: warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        self.policy.q_net_target = self.learner.target
        if average:
            self.policy.q_net_average = self.learner.average
        self.policy.optimizer = self.learner.optimizer
        self.actor = Actor(
            self.policy.q_net,
            int(self.action_space.n),
            epsilon_schedule(settings.actor),
            numpy_generator(seed, self._owner("actor")),
            self.device,
            ladder=settings.actor.epsilon_ladder,
            noise=torch_generator(seed, self._owner("noise"), self.device) if settings.network.noisy else None,
        )
        self._predict_generator = numpy_generator(seed, self._owner("predict"))
        self.games: VecEnvAsGames | None = None
        self.clock: Clock | None = None
        self._convert_train_freq()

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Play in `env` from the next `learn` on; arguments and demands as in SB3, and it is seeded."""
        super().set_env(env, force_reset)
        require_playable(self.env)
        self._seed_env()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str = "Icebox",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Icebox:
        """Train for `total_timesteps` environment steps; arguments as in SB3, `log_interval` counts episodes.

        To SB3's callbacks every tick of the loop, one step of each game, is a rollout.
        """
        self._allocate_replay()
        restarts = reset_num_timesteps or self._last_obs is None or self.games is None
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if restarts:
            self._take_over_games()
        self._schedule(total_timesteps)
        callback.on_training_start(locals(), globals())
        ticks = interleave(self.games, self.actor, self.replay_buffer, self.learner, self.clock)
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            tick = next(ticks)
            self.num_timesteps, self._n_updates = tick.steps, tick.updates
            self._last_obs, self._last_episode_starts = tick.step.observation, tick.step.first
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            # The names that SB3's callbacks look for.
            actions, new_obs, rewards = tick.action, tick.step.observation, tick.step.reward
            dones, infos = tick.step.first, self.games.infos
            callback.update_locals(locals())
            if not callback.on_step():
                break
            self._update_info_buffer(infos, dones)
            for _ in range(np.count_nonzero(dones)):
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
            callback.on_rollout_end()
        callback.on_training_end()
        return self

    def dump_logs(self) -> None:
        """Write SB3's figures and the learner's, as means since the last call."""
        self.logger.record("rollout/exploration_rate", self.exploration_rate)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/learning_rate", self.learner.learning_rate(self.num_timesteps))
        self.learner.count_skipped()
        for tag, value in (self.learner.metrics.take() | self.learner.faults.figures()).items():
            self.logger.record(tag, value)
        super().dump_logs()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return the greedy action, or where not `deterministic` an epsilon-greedy one, drawn for every observation.

        Its generator is not the one that training explores with: looking at the agent does not change the run.
        """
        action, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if deterministic:
            return action, state
        explore = self._predict_generator.random(action.shape) < self.exploration_rate
        random_action = self._predict_generator.integers(int(self.action_space.n), size=action.shape)
        return np.where(explore, random_action, action), state

    def save_replay_buffer(self, path: str | Path) -> None:  # type: ignore[override]
        """Write replay as a checkpoint directory (agent/checkpoint.py), without pickle; a suffix .pkl is dropped."""
        if self.replay_buffer is None:
            raise ValueError("There is no replay yet: it begins with the first call of learn().")
        newest = None if self.games is None else self.games.current.observation
        tree = {"replay": self.replay_buffer.state_dict(), "newest": newest}
        checkpoint.save(_directory(path), self.num_timesteps, tree, keep=1)

    def load_replay_buffer(self, path: str | Path, truncate_last_traj: bool = True) -> None:  # type: ignore[override]
        """Read what `save_replay_buffer` wrote; episodes that were open end as truncated, since the games are new."""
        tree = checkpoint.load_newest(_directory(path)).tree
        self._allocate_replay()
        self.replay_buffer.load_state_dict(tree["replay"])
        if tree["newest"] is not None:
            self._cut(tree["newest"])
        self.games = None  # what they were doing is not in this replay
        self._last_obs = None

    def _allocate_replay(self) -> None:
        if self.replay_buffer is not None:
            return
        settings = self.settings
        replay = settings.replay
        observed = _Observed(self.observation_space.shape, network_dtype(self.observation_space))
        game = settings.game.model_copy(update={"num_games": self.n_envs})
        needed = Settings.model_validate(settings.model_dump() | {"game": game.model_dump()})
        place = estimate(observed, needed, parameters=self.policy.q_net.parameters(), device=self.device).replay_device
        self.replay_buffer = self.learner.replay = Replay(
            num_games=self.n_envs,
            capacity=replay.capacity,
            **observed._asdict(),
            n_step=replay.n_step,
            discount=settings.learner.discount,
            priority_exponent=replay.priority_exponent,
            reward_clip=replay.reward_clip,
            generator=torch_generator(settings.seed, self._owner("replay"), place),
            device=place,
            compression=replay.compression,
            faults=self.learner.faults,
        )

    def _owner(self, name: str) -> str:
        """Return the name of a generator: a loaded model plays on with other numbers than those it began with."""
        return f"{name} from step {self.num_timesteps}"

    def _seed_env(self) -> None:
        if self.env is not None:
            self.env.seed(seed_for(self.seed, self._owner("games")) % 2**31)

    def _take_over_games(self) -> None:
        """Go on from the reset that SB3 has just done; open episodes in replay end as truncated."""
        if self.games is not None:
            self._cut(self.games.current.observation)
        self.games = VecEnvAsGames(self.env)
        self.games.adopt(self._last_obs)

    def _cut(self, newest: np.ndarray) -> None:
        no = np.zeros(self.n_envs, bool)
        self.replay_buffer.cut(SameStep(newest, np.zeros(self.n_envs, np.float32), no, no, no, (), None, no))

    def _schedule(self, total_timesteps: int) -> None:
        """Set what depends on the length of this call of `learn`, and owe no updates before replay has enough."""
        replay, learner = self.settings.replay, self.settings.learner
        for name, schedule in learner_schedules(self.settings, total_timesteps).items():
            setattr(self.learner, name, schedule)
        if self.clock is None or self.clock.steps != self.num_timesteps:
            least = least_learning_starts(replay.n_step, self.n_envs, learner.batch_size)
            missing = max(0, max(learner.learning_starts, least) - len(self.replay_buffer))
            starts = self.num_timesteps + missing
            self.clock = Clock(learner.samples_per_insert, learner.batch_size, starts, steps=self.num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        ours = ["learner", "actor", "games", "clock", "_predict_generator"]
        return [*super()._excluded_save_params(), *ours]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


def _with(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return `settings` with hyper-parameters changed by name; ValueError names what is wrong and what is near."""
    tree = settings.model_dump()
    where = {key: section for section in _SECTIONS for key in tree[section] if key != "device"} | {"seed": None}
    for name, value in changes.items():
        if name not in where:
            near = _DQN_NAMES.get(name) or ", ".join(difflib.get_close_matches(name, where, n=1))
            hint = f"here it is {near}" if near else f"there are: {', '.join(sorted(where))}"
            raise ValueError(f"Icebox has no argument {name!r}; {hint}.")
        section = where[name]
        (tree if section is None else tree[section])[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        faults = [": ".join([*map(str, each["loc"][1:2]), each["msg"]]) for each in error.errors()]
        raise ValueError("; ".join(faults)) from None


def _directory(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".pkl" else path
