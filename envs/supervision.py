"""B games of which each may fail: a fresh one takes its place, and what fails again and again ends the run.

The same whether the games play in this process or in workers, so that both answer alike; `Supervised` has no game.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from envs.host import Fallen, Row
from envs.scenes import Scene
from envs.spec import GameSpec, check_same_game, checked_actions, game_seeds
from envs.step import Episode, Step, step_from_state, step_state

MOST_FAILURES = 5  # of one game ...
WITHIN_STEPS = 1_000  # ... within so many of its steps: then it is not replaced any more
MOST_STARTS = 3  # fresh games in a row that do not come to their first observation


class GameFailure(RuntimeError):
    """A game failed again and again; the message names it, what it did and its own error."""


class Supervised:
    """B games with the verbs reset, send, recv; a game that fails is replaced and its open episode discarded.

    A fresh game starts from a seed that follows from its own and from how often it was replaced. After a game was given
    up, `send` raises GameFailure, as does the reset that finds it; its row then says nothing. `state_dict` still works,
    `reset` starts the other games, and a state that is put back begins the game anew.

    The two kinds of vector differ in how a game is made and asked, which are the five methods at the end.
    """

    stateful = True

    def __init__(self, spec: GameSpec, num_envs: int) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.current: Step | None = None  # the newest step, None before the first reset
        self._seeds = [0] * num_envs
        self._replaced = [0] * num_envs  # how often each game was
        self._failed_at: list[list[int]] = [[] for _ in range(num_envs)]  # steps at which each one did of late
        self._steps = 0
        self._fresh = [False] * num_envs  # games whose next answer is the first of a fresh game, whatever the action
        self._given_up = [False] * num_envs
        self._failure: GameFailure | None = None
        self._waiting = False
        self._news: list[str] = []

    @property
    def restarts(self) -> int:
        """How often a fresh game took the place of one that failed, over all games."""
        return sum(self._replaced)

    def news(self) -> list[str]:
        """Return what happened to games since the last call, a sentence each."""
        told, self._news = self._news, []
        return told

    def reset(self, seed: int) -> Step:
        """Start every game anew from `seed`; open episodes are dropped. GameFailure when one cannot be started."""
        if self._waiting:
            self._receive()
        known = self._failure
        self._seeds = game_seeds(seed, self.num_envs)
        self._fresh = [False] * self.num_envs
        playing = [row for row in range(self.num_envs) if not self._given_up[row]]
        rows, fallen = self._ask_all("reset", {row: self._seeds[row] for row in playing})
        rows |= self._replace(fallen)
        self._line_up(rows, np.zeros(self.num_envs, dtype=bool))
        if self._failure is not known:
            raise self._failure
        return self.current

    def send(self, action: np.ndarray) -> None:
        """Start the games on their next step: i64 [B], or f32 [B, n] when actions are continuous. GameFailure."""
        if self.current is None:
            raise RuntimeError("Reset the games before the first action.")
        if self._waiting:
            raise RuntimeError("Receive the step that was sent for before sending again.")
        actions = checked_actions(self.spec, self.num_envs, action)
        if self._failure is not None:
            raise self._failure
        for row, chosen in enumerate(actions if self.spec.num_actions == 0 else actions.tolist()):
            if self._fresh[row]:
                self._begin(row, "again", None)
            else:
                self._begin(row, "step", chosen)
        self._waiting = True

    def recv(self) -> Step:
        """Return the games' step; where a game failed, the first observation of a fresh one, marked `restarted`."""
        if not self._waiting:
            raise RuntimeError("Send actions before receiving a step.")
        self._steps += 1
        rows, fallen = self._receive()
        restarted = np.array(self._fresh)
        if fallen:
            restarted[list(fallen)] = True
            rows |= self._replace(fallen)
        self._fresh = [False] * self.num_envs
        return self._line_up(rows, restarted)

    def render(self, game: int = 0) -> np.ndarray:
        """Return a picture of one game, u8 [H, W, 3]."""
        return self._look(game, "render")

    def scene(self, game: int = 0) -> Scene:
        """Return what another process needs to draw one game."""
        return self._look(game, "scene")

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state of every game, of the score and the newest step.

        The state of a game that has just been replaced, or was given up, is None: it begins anew when put back.
        """
        if self._waiting:
            raise RuntimeError("Receive the step that was sent for before taking the state of the games.")
        if self.current is None:
            raise RuntimeError("A vector of games has no state before its first reset.")
        sound = [row for row in range(self.num_envs) if not (self._fresh[row] or self._given_up[row])]
        states, fallen = self._ask_all("state", dict.fromkeys(sound))
        self._replace_idle(fallen)
        none = {"score": 0.0, "length": 0, "ended": False, "game": None}
        games = [states.get(row, none) for row in range(self.num_envs)]
        return {
            "game": self.spec.name,
            "score": {
                "score": np.array([game["score"] for game in games]),
                "length": np.array([game["length"] for game in games], dtype=np.int64),
                "ended": np.array([game["ended"] for game in games], dtype=bool),
                "current": step_state(self.current),
            },
            "games": {str(row): game["game"] for row, game in enumerate(games)},
            "supervision": {"seeds": list(self._seeds), "replaced": list(self._replaced)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, from either kind of vector; ValueError when it is of other games."""
        check_same_game(self.spec, state)
        score = state["score"]
        if len(score["score"]) != self.num_envs:
            raise ValueError(f"The saved state holds {len(score['score'])} games, but this vector has {self.num_envs}.")
        if self._failure is not None:
            raise self._failure
        if self._waiting:
            self._receive()
        supervision = state.get("supervision")  # saved before games were replaced: None
        if supervision is not None:
            self._seeds, self._replaced = list(supervision["seeds"]), list(supervision["replaced"])
        self.current = step_from_state(score["current"])
        games = [state["games"][str(row)] for row in range(self.num_envs)]
        anew = {row: self._seed(row) for row, game in enumerate(games) if game is None}
        known = {
            row: {name: np.asarray(score[name])[row].item() for name in ("score", "length", "ended")} | {"game": game}
            for row, game in enumerate(games)
            if game is not None
        }
        self._fresh = [game is None for game in games]
        _, fallen = self._ask_all("load", known)
        self._replace_idle(fallen)
        _, fallen = self._ask_all("reset", anew)
        self._replace_idle(fallen)

    def _ask_all(self, verb: str, asked: Mapping[int, Any]) -> tuple[dict[int, Any], dict[int, str]]:
        """Return the answers of the games that could answer, and what the others did."""
        for row, argument in asked.items():
            self._begin(row, verb, argument)
        return self._collect(asked)

    def _receive(self) -> tuple[dict[int, Row], dict[int, str]]:
        self._waiting = False
        return self._collect(range(self.num_envs))

    def _collect(self, rows: Iterable[int]) -> tuple[dict[int, Any], dict[int, str]]:
        answers, fallen = {}, {}
        refused: Exception | None = None
        patience = self._patience()
        for row in rows:
            try:
                answers[row] = self._end(row, patience)
            except Fallen as reason:
                fallen[row] = str(reason)
            except (ValueError, RuntimeError) as error:  # after the others have answered, or they would answer later
                refused = refused or error
        if refused is not None:
            raise refused
        return answers, fallen

    def _look(self, game: int, verb: str) -> Any:
        if self.current is None or self._waiting:
            raise RuntimeError(f"Reset the games, and receive what was sent for, before asking one for its {verb}.")
        for _ in range(2):
            if self._given_up[game]:
                raise self._failure
            answers, fallen = self._ask_all(verb, {game: None})
            if not fallen:
                return answers[game]
            self._replace_idle(fallen)
        raise RuntimeError(f"{self.spec.name}, game {game}, cannot be asked for its {verb}: {fallen[game]}.")

    def _line_up(self, rows: Mapping[int, Row], restarted: np.ndarray) -> Step:
        """Make the newest step of one row per game; of a game that was given up, what it last showed."""
        answers = [rows[row] if row in rows else self._last_of(row) for row in range(self.num_envs)]
        observations, rewards, terminated, truncated, first, scores = zip(*answers, strict=True)
        observation = np.empty((self.num_envs, *self.spec.observation_shape), self.spec.observation_dtype)
        with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite, and heeded as such
            for row, seen in enumerate(observations):
                observation[row] = seen
            reward = np.array(rewards).astype(np.float32)
        self.current = Step(
            observation,
            reward,
            np.array(terminated),
            np.array(truncated),
            np.array(first),
            tuple(Episode(row, *score) for row, score in enumerate(scores) if score is not None),
            restarted=restarted,
        )
        return self.current

    def _last_of(self, row: int) -> Row:
        seen = np.zeros(self.spec.observation_shape) if self.current is None else self.current.observation[row]
        return Row(seen, 0.0, False, False, True, None)

    def _replace_idle(self, fallen: Mapping[int, str]) -> None:
        """Replace games that failed between two steps: the next step tells of it."""
        for row in self._replace(fallen):
            self._fresh[row] = True

    def _replace(self, fallen: Mapping[int, str]) -> dict[int, Row]:
        """Put fresh games in the place of those that failed, and return their first rows; give up what is hopeless."""
        for row, reason in fallen.items():
            recent = [step for step in self._failed_at[row] if step > self._steps - WITHIN_STEPS]
            self._failed_at[row] = [*recent, self._steps]
            if len(recent) + 1 >= MOST_FAILURES:
                self._give_up(row, f"failed {MOST_FAILURES} times within {WITHIN_STEPS:,} steps, at last so: {reason}")
            else:
                self._news.append(f"game {row} was replaced: {reason}; its open episode is discarded")
        rows: dict[int, Row] = {}
        failing = {row: reason for row, reason in fallen.items() if not self._given_up[row]}
        for attempt in range(MOST_STARTS):
            for row in failing:
                self._replaced[row] += 1
                self._make(row)  # all of them at the same time, where they have processes of their own
            began, failing = self._ask_all("reset", {row: self._seed(row) for row in failing})
            rows |= began
            if not failing:
                return rows
            if attempt + 1 < MOST_STARTS:
                self._news += [f"game {row} was replaced again: {reason}" for row, reason in failing.items()]
        for row, reason in failing.items():
            self._give_up(row, f"could not be started {MOST_STARTS} times in a row, at last so: {reason}")
        return rows

    def _give_up(self, row: int, what: str) -> None:
        self._given_up[row] = True
        self._end_game(row)
        self._news.append(f"game {row} {what}")
        self._failure = self._failure or GameFailure(f"{self.spec.name}: game {row} {what}.")

    def _seed(self, row: int) -> int:
        """Return the seed of the game that plays in this row after as many replacements as there were."""
        entropy = [self._seeds[row], self._replaced[row]]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0]) % 2**31

    def _make(self, row: int) -> None:
        """Begin to make a game in the place of another, which is ended; what goes wrong is said when it is asked."""
        raise NotImplementedError

    def _begin(self, row: int, verb: str, argument: Any) -> None:
        """Ask a game for something: reset, step, again (its last row), state, load, render or scene."""
        raise NotImplementedError

    def _end(self, row: int, patience: Any) -> Any:
        """Return what it answers; Fallen when it does not, ValueError or RuntimeError when it refuses."""
        raise NotImplementedError

    def _patience(self) -> Any:
        """Return what the answers to one question may take together."""
        return None

    def _end_game(self, row: int) -> None:
        """Free what a game holds, by force if need be."""
        raise NotImplementedError
