"""Demonstrations into a replay that is still empty, as if the games of the run had played them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agent.replay.demonstrations import Demonstration, Game, frame_shape
from agent.replay.replay import Replay


class Taken(NamedTuple):
    """What came into replay; `str` says it."""

    episodes: int
    steps: int
    left_out_steps: int  # for which there was no room
    notes: list[str]  # how the demonstrations' game differs from that of the run, where that does no harm

    def __str__(self) -> str:
        """In words: '1,234 steps of 3 demonstrations (200 steps left out: replay has no room for more)'."""
        said = f"{self.steps:,} steps of {self.episodes} demonstration{'s' * (self.episodes != 1)}"
        if self.left_out_steps:
            said += f" ({self.left_out_steps:,} steps left out: replay.capacity has no room for them)"
        return "; ".join([said, *self.notes])


class _Answer(NamedTuple):
    """A step of some games, as replay takes it."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    restarted: np.ndarray
    final_observation: None = None


class _Row(NamedTuple):
    """One row of the film: a frame with the action that answered it, or the terminal frame, which no action did."""

    frame: np.ndarray
    first: bool
    over: bool
    action: int
    reward: float
    terminated: bool
    truncated: bool


def check_game(demonstrations: Sequence[Demonstration], game: Game, settings: Mapping[str, Any]) -> list[str]:
    """Return in sentences how the demonstrations' game differs from the run's without harm; ValueError where it harms.

    `settings` are those of the game's family. A stack may differ: demonstrations hold single frames.
    """
    notes: dict[str, None] = {}
    for path, facts in demonstrations:
        pairs = {
            "game": (facts["game"], game.name),
            "frame skip": (facts["frame_skip"], game.frame_skip),
            "frame shape": (facts["frame_shape"], frame_shape(game)),
            "frame type": (facts["dtype"], game.observation_dtype),
            "actions": (facts["actions"], list(game.action_names)),
        }
        for what, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise ValueError(f"{path}: its {what} is {_short(theirs)}, this run's is {_short(ours)}.")
        for name, ours in settings.items():
            theirs = facts["settings"].get(name)
            if name != "stack" and theirs != ours:
                note = f"the demonstrations were played with {name} {_short(theirs)}, this run has {_short(ours)}"
                notes[note] = None
    return list(notes)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def fill(replay: Replay, demonstrations: Sequence[Demonstration], game: Game, settings: Mapping[str, Any]) -> Taken:
    """Put demonstrations into an empty replay as if its games had played them; return what came in.

    Each column gets whole episodes, one after the other, the newest file first into the emptiest column; one that is
    longer than the room there is cut: its last step in replay is truncated. Priorities are those of any new transition.
    """
    notes = check_game(demonstrations, game, settings)
    room = np.full(replay.num_games, -(-replay.capacity // replay.num_games))
    queues: list[list[tuple[Demonstration, int]]] = [[] for _ in room]
    episodes = steps = 0
    for demonstration in reversed(demonstrations):
        column = int(room.argmax())
        length = min(demonstration.facts["length"], int(room[column]) - 1)  # the terminal frame takes a row
        if length >= 1:
            queues[column].append((demonstration, length))
            room[column] -= length + 1
            episodes, steps = episodes + 1, steps + length
    playing = {column: _rows(queue) for column, queue in enumerate(queues)}
    while playing:
        rows = {column: row for column, each in playing.items() if (row := next(each, None)) is not None}
        playing = {column: playing[column] for column in rows}
        if rows:
            _insert(replay, np.fromiter(rows, np.int64, len(rows)), list(rows.values()))
    left_out = sum(each.facts["length"] for each in demonstrations) - steps
    return Taken(episodes, steps, left_out, notes)


def _rows(queue: Sequence[tuple[Demonstration, int]]) -> Iterator[_Row]:
    """The rows of a column, the terminal ones included."""
    for demonstration, length in queue:
        played = demonstration.load()
        actions, rewards = played.action[:length].tolist(), played.reward[:length].tolist()
        for t in range(length):
            terminated, truncated = bool(played.terminated[t]), bool(played.truncated[t])
            cut = t == length - 1 and not terminated
            yield _Row(played.observation[t], t == 0, False, actions[t], rewards[t], terminated, truncated or cut)
        yield _Row(played.observation[length], False, True, 0, 0.0, False, False)


def _insert(replay: Replay, columns: np.ndarray, rows: Sequence[_Row]) -> None:
    frame = np.stack([row.frame for row in rows])  # [M, *frame_shape]
    observation = frame[:, None] if replay.film.stack > 1 else frame  # of a stack only the newest frame is stored
    flags = np.array([(row.first, row.over, row.terminated, row.truncated) for row in rows])  # [M, 4]
    none = np.zeros(len(rows), bool)
    zero = np.zeros(len(rows), np.float32)
    step = _Answer(observation, zero, flags[:, 1], none, flags[:, 0], none)
    reward = np.array([row.reward for row in rows], np.float32)
    # What the next frames are is not asked: no number of a demonstration that could be loaded is not finite.
    next_step = _Answer(observation, reward, flags[:, 2], flags[:, 3], none, none)
    replay.insert(step, np.array([row.action for row in rows]), next_step, columns)
