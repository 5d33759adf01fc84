"""Our agent and its games, put together from the settings: what is trained, saved, resumed and judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from agent.actor import Actor
from agent.config import Settings
from agent.evaluation import play_episodes
from agent.guard import Faults
from agent.learner import Learner
from agent.loop import Clock, interleave, least_learning_starts
from agent.losses import make_loss
from agent.memory import estimate, keep_freed_memory
from agent.nets.q_network import QNetwork, make_q_network, torso_kind
from agent.realtime import Pace, realtime
from agent.replay.replay import Replay
from agent.schedules import constant, epsilon_schedule, learner_schedules
from agent.seeding import numpy_generator, seed_for, torch_generator
from agent.slices import Slices
from agent.types import Episode, Step, Tick, VectorEnv
from envs.make import GameSpec, make_vector_env, spec
from envs.scenes import Scene

FEW_CORES = 4
Act = Callable[[np.ndarray], np.ndarray]  # observations [B, *shape] -> actions [B] or [B, n]


def family_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of the game families in the form envs/make.py takes them."""
    return {"atari": settings.game.atari.model_dump(), "minatar": settings.game.minatar.model_dump()}


def news(games: VectorEnv) -> list[str]:
    """Return what has happened to games since the last call, a sentence each; most kinds never have any."""
    return games.news() if hasattr(games, "news") else []


def make_games(game: str, settings: Settings, num_games: int, *, owner: str, **options: Any) -> VectorEnv:
    """Return `num_games` copies of a game whose randomness belongs to `owner`."""
    return make_vector_env(
        game,
        num_games,
        seed_for(settings.seed, owner),
        vectorize=settings.game.vectorize,
        deadline_s=settings.game.deadline_s,
        threads=settings.game.threads,
        **family_settings(settings),
        **options,
    )


def pick_device(name: str) -> torch.device:
    """Return the device that a setting means; ValueError when a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA GPU here. 'icebox doctor' says why; --device cpu works.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def set_threads(settings: Settings, spec: GameSpec) -> None:
    """Choose torch's threads for one operation on the CPU: small networks lose more by sharing work than they win."""
    large = torso_kind(settings.network, spec.observation_shape, spec.pixels) in ("nature", "impala")
    cores = os.cpu_count() or 1
    # Few cores are all the learner's: beside it the games take a hundredth of the time, and on two cores both of them
    # make Nature's updates twice as fast. Of many, one is left: threads that share a core spin while they wait.
    torch.set_num_threads(settings.threads or ((cores if cores <= FEW_CORES else cores - 1) if large else 1))


def make_network(spec: GameSpec, settings: Settings, device: torch.device) -> QNetwork:
    """Return the Q-network of a game with the weights a run with this seed starts from."""
    generator = torch_generator(settings.seed, "network")
    network = make_q_network(settings.network, spec.observation_shape, spec.pixels, spec.num_actions, generator)
    network.to(device)
    network.fold()  # where it will act
    return network


class Judge:
    """Plays whole episodes on games of its own, with seeds that training never sees or, when asked, its very seeds."""

    def __init__(self, game: str, settings: Settings):
        self._game = game
        self._settings = settings
        self._games: dict[tuple[int, bool], VectorEnv] = {}  # by number and by whether training has seen their seeds

    def play(
        self,
        act: Act,
        episodes: int,
        seed: int,
        on_episode: Callable[[Episode], None] | None = None,
        on_step: Callable[[Step, np.ndarray, Step], object] | None = None,
        *,
        seen: bool = False,
    ) -> list[Episode]:
        """Return that many finished episodes, played from `seed` with actions from `act`; see `play_episodes`.

        `seen`: they start from the few seeds of training (`game.seeds`), in an order that follows from `seed`.
        """
        key = min(self._settings.evaluation.num_games, episodes), seen
        if key not in self._games:
            owner, seeds = ("games", self._settings.game.seeds) if seen else ("evaluation", None)
            self._games[key] = make_games(self._game, self._settings, key[0], owner=owner, seeds=seeds)
        return play_episodes(self._games[key], act, episodes, seed, on_episode, on_step)

    def news(self) -> list[str]:
        """Return what has happened to the games since the last call, a sentence each."""
        return [f"in the evaluation {sentence}" for games in self._games.values() for sentence in news(games)]

    def close(self) -> None:
        """Close the games, if any were made."""
        for games in self._games.values():
            games.close()
        self._games.clear()


def evaluating(network: torch.nn.Module, settings: Settings, num_actions: int, seed: int, device: torch.device) -> Act:
    """Return how `network` plays when it is judged: greedy but for the evaluation's epsilon."""
    actor = judged_actor(network, settings, num_actions, seed, device)
    return lambda observation: actor.act(observation, 0)


def judged_actor(
    network: torch.nn.Module, settings: Settings, num_actions: int, seed: int, device: torch.device
) -> Actor:
    """Return who plays with `network` when it is judged; which step it is asked for means nothing to it."""
    epsilon = constant(settings.evaluation.epsilon)
    return Actor(network, num_actions, epsilon, numpy_generator(seed, "evaluation"), device)


def evaluation_seed(settings: Settings, steps: int) -> int:
    """Return the seed of the evaluation after `steps`; it follows from run and step, so a resumed run judges alike."""
    return seed_for(settings.seed, f"evaluation at {steps}")


class Session:
    """An agent that learns while it plays, with everything that lasts: `state_dict` is the whole of it."""

    def __init__(self, game: str, settings: Settings):
        self.game = game
        self.settings = settings
        self.spec = spec(game, **family_settings(settings))
        self.device = pick_device(settings.device)
        if settings.learner.execution == "captured" and self.device.type == "cpu":
            raise ValueError("--learner.execution captured: needs a CUDA GPU; compiled or auto works on the CPU.")
        set_threads(settings, self.spec)
        self.threads = torch.get_num_threads()  # for one operation of the learner
        if settings.game.realtime is not None:
            # They are the learner's thread's. Had this one OpenMP threads as well, if only once, there would be more of
            # them than cores, and OpenMP would put them to sleep between two operations: half as many updates.
            torch.set_num_threads(1)
        keep_freed_memory()
        self.network = make_network(self.spec, settings, self.device)
        self.memory = estimate(self.spec, settings, parameters=self.network.parameters(), device=self.device)
        self.faults = Faults()
        replay, learner = settings.replay, settings.learner
        self.replay = Replay(
            num_games=settings.game.num_games,
            capacity=replay.capacity,
            observation_shape=self.spec.observation_shape,
            observation_dtype=self.spec.observation_dtype,
            stack=self.spec.stack,
            n_step=replay.n_step,
            discount=learner.discount,
            priority_exponent=replay.priority_exponent,
            reward_clip=replay.reward_clip,
            generator=torch_generator(settings.seed, "replay", self.memory.replay_device),
            device=self.memory.replay_device,
            compression=replay.compression,
            faults=self.faults,
        )
        if settings.game.realtime is not None and self.device.type == "cuda":  # slices are not worth capturing
            learner = learner.model_copy(update={"execution": "eager"})
        self.learner = Learner(
            self.network,
            self.replay,
            make_loss(settings.network, learner),
            learner,
            generator=torch_generator(settings.seed, "learner", self.device),
            expected_updates=settings.steps * learner.samples_per_insert / learner.batch_size,
            faults=self.faults,
            **learner_schedules(settings, settings.steps),
        )
        self.epsilon = epsilon_schedule(settings.actor)
        self.actor = Actor(
            self.network,
            self.spec.num_actions,
            self.epsilon,
            numpy_generator(settings.seed, "actor"),
            self.device,
            ladder=settings.actor.epsilon_ladder,
            noise=torch_generator(settings.seed, "noise", self.device) if settings.network.noisy else None,
        )
        self.learner.on_switch = self.actor.accelerate
        least = least_learning_starts(replay.n_step, settings.game.num_games, learner.batch_size)
        self.clock = Clock(learner.samples_per_insert, learner.batch_size, max(learner.learning_starts, least))
        self.games = make_games(game, settings, settings.game.num_games, owner="games", seeds=settings.game.seeds)
        self.judge = Judge(game, settings)
        self._lost = False  # whether the games are not to be asked for anything any more
        self.slices: Slices | None = None
        self.pace: Pace | None = None
        if settings.game.realtime is not None:
            self.slices = Slices(self.learner, self.threads)
            self.pace = Pace(settings.game.realtime)

    def ticks(self) -> Iterator[Tick]:
        """Play and learn for ever, by the wall clock if the settings ask for it."""
        if self.slices is not None and self.pace is not None:
            return realtime(self.games, self.actor, self.replay, self.slices, self.clock, self.pace)
        return interleave(self.games, self.actor, self.replay, self.learner, self.clock)

    def act(self, seed: int) -> Act:
        """Return how the agent plays when it is judged; `seed` draws the evaluation's random actions."""
        return evaluating(self.learner.average, self.settings, self.spec.num_actions, seed, self.device)

    def judged(self, seed: int) -> Actor:
        """Return who plays when the agent is judged; see `act`."""
        return judged_actor(self.learner.average, self.settings, self.spec.num_actions, seed, self.device)

    @torch.inference_mode()
    def q(self, observation: np.ndarray) -> np.ndarray:
        """Return the action values of the network that is judged, [N, *shape] -> f32 [N, A]."""
        return self.learner.average(torch.from_numpy(observation).to(self.device)).cpu().numpy()

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.clock.steps

    def scene(self) -> Scene:
        """Return what an onlooker needs to draw game 0."""
        return self.games.scene(0)

    def figures(self) -> dict[str, Any]:
        """Return what an onlooker is told once a second; `metrics` is what is known at all."""
        sizes = {"replay_size": len(self.replay), "replay_capacity": self.replay.capacity}
        return sizes | {"epsilon": float(self.epsilon(self.clock.steps))}

    def evaluate(self, episodes: int) -> list[Episode]:
        """Judge the agent as it is now."""
        seed = evaluation_seed(self.settings, self.clock.steps)
        return self.judge.play(self.act(seed), episodes, seed)

    def metrics(self) -> dict[str, float]:
        """Return what is known about learning since the last call, under its TensorBoard tags."""
        steps, learner = self.clock.steps, self.settings.learner
        self.learner.count_skipped()
        values = self.learner.metrics.take() | self.faults.figures() | {
            "rollout/exploration_rate": self.epsilon(steps),
            "replay/size": float(len(self.replay)),
        }
        if self.learner.updates:
            values |= {tag: float(value) for tag, value in self.replay.statistics().items()}
            values["train/learning_rate"] = self.learner.learning_rate(steps) * self.learner.rate_scale
            values["replay/samples_per_insert"] = self.learner.updates * learner.batch_size / steps
        return values if self.pace is None else values | self.pace.take()

    def weights(self) -> dict[str, Any]:
        """Return what acting needs and nothing else."""
        return {"network": self.learner.average.state_dict(), "steps": self.clock.steps}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that lasts, ready for a checkpoint.

        Games that cannot give their state are started anew here, from a seed that belongs to this step: a resumed run
        does the same and so goes on exactly as this one. Their open episodes end as truncated, as do those of lost
        games.
        """
        self.learner.count_skipped()
        with_games = self.games.stateful and not self._lost
        if not with_games:
            self.replay.cut(self.games.current)
        if not self.games.stateful and not self._lost:
            self.restart_games()
        return {
            "clock": self.clock.state_dict(),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "actor": self.actor.state_dict(),
            "games": self.games.state_dict() if with_games else None,
            "faults": self.faults.state_dict(),
        } | ({} if self.pace is None else {"pace": self.pace.state_dict()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; the settings must be those of the run it came from."""
        self.clock.load_state_dict(state["clock"])
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.actor.load_state_dict(state["actor"])
        self.faults.load_state_dict(state.get("faults", {}))  # older checkpoints have none
        if self.learner.resumes_fast:  # before the first action, which then comes from what acted before
            (self.slices or self.learner).settle(self.clock.steps)
        if self.pace is not None:
            self.pace.load_state_dict(state["pace"])
        if state["games"] is None:
            self.restart_games()
        else:
            self.games.load_state_dict(state["games"])

    def restart_games(self) -> None:
        """Start all games anew, from a seed that belongs to this step; replay must have been cut before."""
        self.games.reset(seed_for(self.settings.seed, f"games at {self.clock.steps}"))

    def lose_games(self) -> None:
        """Take it that the games were left or have failed in the middle of a step: a resumed run starts them anew."""
        self._lost = True

    def sound(self) -> bool:
        """Return whether all weights are numbers."""
        return all(bool(part.isfinite().all()) for part in self.network.state_dict().values())

    def news(self) -> list[str]:
        """Return what has happened to the games since the last call, a sentence each."""
        return news(self.games) + self.judge.news()

    def close(self) -> None:
        """Close all games."""
        if self.slices is not None:
            self.slices.close()
        self.games.close()
        self.judge.close()
