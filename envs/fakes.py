"""A game whose observation says which game, which episode and what time it is: for exact and short tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.scenes import Scene
from envs.score import Score
from envs.spec import GameSpec, check_same_game, checked_actions
from envs.step import Step


def frame(game: int, episode: int, time: int, size: int = 8) -> np.ndarray:
    """Return the picture u8 [size, size] of one moment: never blank, and no two moments below 2^16 look the same."""
    picture = np.full((size, size), 1 + (7 * episode + time) % 255, dtype=np.uint8)
    picture.flat[:6] = (255, game % 256, episode // 256 % 256, episode % 256, time // 256 % 256, time % 256)
    return picture


def reward(game: int, episode: int, time: int) -> float:
    """Return the reward for arriving at `time`: exact in float32, and another for every moment of up to 16 games,
    256 episodes and 4096 steps."""
    return ((game % 16 * 256 + episode % 256) * 4096 + time % 4096) / 65536


class CountingGame:
    """B games that count, with random ends and the verbs reset, send, recv; it obeys the contract of every vector.

    An observation is f32 [3], (game, episode, time), or with `pixels` the last `stack` frames u8 [stack, size, size],
    zero before the start of the episode. An episode ends with `end_probability` at every step, and such an end is a
    truncation with probability `truncation_share`. With `same_step` a new episode begins together with the end of the
    old one, as in a foreign vector. Actions change nothing.
    """

    stateful = True

    def __init__(
        self,
        num_envs: int,
        *,
        pixels: bool = False,
        stack: int = 4,
        size: int = 8,
        action_names: Sequence[str] = ("wait", "count"),
        end_probability: float = 0.1,
        truncation_share: float = 0.5,
        same_step: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.spec = GameSpec(
            name="fake/counting",
            observation_shape=(stack, size, size) if pixels else (3,),
            observation_dtype="uint8" if pixels else "float32",
            stack=stack if pixels else 1,
            num_actions=len(action_names),
            action_names=tuple(action_names),
            frame_skip=1,
            fps=30.0,
            gymnasium_id=None,
            pixels=pixels,
            solved_at=None,
        )
        self._end_probability = end_probability
        self._truncation_share = truncation_share
        self._same_step = same_step
        self._score = Score(num_envs)
        self._action: np.ndarray | None = None
        self._random = np.random.default_rng(0)
        self._episode = np.zeros(num_envs, dtype=np.int64)
        self._time = np.zeros(num_envs, dtype=np.int64)
        self._observation = np.zeros((num_envs, *self.spec.observation_shape), dtype=self.spec.observation_dtype)
        self.closed = False
        self.restarts = 0  # it never fails

    def news(self) -> list[str]:
        """Return nothing: nothing ever happens to these games."""
        return []

    @property
    def current(self) -> Step | None:
        """The newest step, None before the first reset."""
        return self._score.current

    def reset(self, seed: int) -> Step:
        """Start every game anew at episode 0, time 0, with the ends that follow from `seed`."""
        self._action = None
        self._random = np.random.default_rng(seed)
        self._episode[:] = 0
        self._time[:] = 0
        return self._score.start(self._observe(np.ones(self.num_envs, dtype=bool)))

    def send(self, action: np.ndarray) -> None:
        """Take the actions of the next step, i64 [B]."""
        if self.current is None:
            raise RuntimeError("Reset the games before the first action.")
        self._action = checked_actions(self.spec, self.num_envs, action)

    def recv(self) -> Step:
        """Count one step further in every game."""
        if self._action is None:
            raise RuntimeError("Send actions before receiving a step.")
        self._action = None
        begins = self._score.ended
        self._begin(begins, self._time + 1)
        observation = self._observe(begins)
        moments = zip(range(self.num_envs), self._episode.tolist(), self._time.tolist(), strict=True)
        rewards = np.where(begins, 0.0, [reward(*moment) for moment in moments])
        draws = self._random.random((2, self.num_envs))
        ends = (draws[0] < self._end_probability) & ~begins
        truncated = ends & (draws[1] < self._truncation_share)
        if not self._same_step:
            return self._score.step(observation, rewards, ends & ~truncated, truncated)
        self._begin(ends, self._time)
        step = self._score.step(self._observe(ends, ends), rewards, ends & ~truncated, truncated)
        self._score.ended = np.zeros(self.num_envs, dtype=bool)
        self._score.current = step._replace(first=ends, final_observation=observation)
        return self._score.current

    def render(self, game: int = 0) -> np.ndarray:
        """Return the newest frame of one game in gray, u8 [8, 8, 3]."""
        picture = frame(game, int(self._episode[game]), int(self._time[game]))
        return np.repeat(picture[:, :, None], 3, axis=2)

    def scene(self, game: int = 0) -> Scene:
        """Return the picture of one game, ready to be shown."""
        return Scene("picture", {}, {"picture": self.render(game)})

    def close(self) -> None:
        """Remember that it was closed; a second call does nothing."""
        self.closed = True

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state."""
        return {
            "game": self.spec.name,
            "score": self._score.state_dict(),
            "random": self._random.bit_generator.state,
            "episode": self._episode.copy(),
            "time": self._time.copy(),
            "observation": self._observation.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError when it is of other games."""
        check_same_game(self.spec, state)
        self._score.load_state_dict(state["score"])
        self._random.bit_generator.state = state["random"]
        self._episode = np.array(state["episode"])
        self._time = np.array(state["time"])
        self._observation = np.array(state["observation"])
        self._action = None

    def _begin(self, begins: np.ndarray, time: np.ndarray) -> None:
        self._episode = self._episode + begins
        self._time = np.where(begins, 0, time)

    def _observe(self, begins: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Look at `rows` (all by default), of which `begins` start an episode, and return what all games show."""
        for game in range(self.num_envs) if rows is None else np.flatnonzero(rows):
            moment = (int(game), int(self._episode[game]), int(self._time[game]))
            if not self.spec.pixels:
                self._observation[game] = moment
                continue
            stack = self._observation[game]  # [stack, size, size]
            stack[:-1] = 0 if begins[game] else stack[1:].copy()
            stack[-1] = frame(*moment, size=stack.shape[-1])
        return self._observation.copy()
