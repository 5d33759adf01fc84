"""Games that were played into demonstration files, and the list of what happened in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from agent.replay.demonstrations import DemonstrationWriter, game_facts
from envs.fakes import CountingGame, frame, reward
from envs.make import make_vector_env
from envs.spec import GameSpec


@dataclass
class Episode:
    """What happened in one episode."""

    seed: int
    seen: list[np.ndarray] = field(default_factory=list)  # [stack, size, size], the terminal one included
    action: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    terminated: bool = False
    complete: bool = False


def counting(stack: int = 4, size: int = 8) -> GameSpec:
    """The fake game; with a stack of 1 an observation is one frame without an axis for the stack."""
    spec = CountingGame(1, pixels=True, stack=stack, size=size).spec
    return spec if stack > 1 else replace(spec, observation_shape=(size, size))


FACTS = game_facts(counting(), {}, {})


def play(
    folder: Path, count: int, *, stack: int = 4, size: int = 8, p_end: float = 0.2, longest: int = 20, seed: int = 0
) -> list[Episode]:
    """Play `count` episodes into `folder`, in the order of the files' names; one longer than `longest` is cut there."""
    spec, rng = counting(stack, size), np.random.default_rng(seed)
    writer, episodes = DemonstrationWriter(folder, game_facts(spec, {}, {})), []
    for number in range(count):
        frames = [np.zeros((size, size), np.uint8)] * (stack - 1) + [frame(0, number, 0, size)]
        episode, path = Episode(seed + number, [np.stack(frames)]), None
        writer.begin(episode.seen[0].reshape(1, *spec.observation_shape), episode.seed)
        while len(episode.action) < longest and path is None:
            frames = [*frames[1:], frame(0, number, len(episode.action) + 1, size)]
            episode.seen.append(np.stack(frames))
            episode.action.append(int(rng.integers(2)))
            episode.reward.append(reward(0, number, len(episode.action)))
            episode.complete = bool(rng.random() < p_end)
            episode.terminated = episode.complete and bool(rng.random() < 0.5)
            observation = episode.seen[-1].reshape(1, *spec.observation_shape)
            ends = episode.terminated, episode.complete and not episode.terminated
            path = writer.step(episode.action[-1], episode.reward[-1], observation, *ends)
        (path or writer.end()).rename(folder / f"{number:04d}.safetensors")
        episodes.append(episode)
    return episodes


def play_cartpole(folder: Path, count: int, seed: int = 0) -> None:
    """Play whole episodes of CartPole at random."""
    games, rng = make_vector_env("cartpole", 1, seed), np.random.default_rng(seed)
    writer = DemonstrationWriter(folder, game_facts(games.spec, {}, {}))
    for number in range(count):
        step = games.reset(seed + number)
        writer.begin(step.observation, seed + number)
        path = None
        while path is None:
            action = rng.integers(2, size=1)
            games.send(action)
            step = games.recv()
            path = writer.step(action[0], step.reward[0], step.observation, step.terminated[0], step.truncated[0])
    games.close()
