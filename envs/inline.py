"""A vector of games that are played one after the other in this process: for games quicker than a message.

A game that raises or answers with garbage is made anew, as in workers. One that hangs or ends the process takes the
trainer with it: only `vectorize: workers` helps against that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from envs.host import Fallen, Host
from envs.nursery import raised
from envs.spec import GameSpec
from envs.supervision import Supervised


class InlineVector(Supervised):
    """B games in this process with the verbs reset, send, recv; `recv` is where they play."""

    def __init__(self, spec: GameSpec, num_envs: int, make: Callable[[], Host]) -> None:
        super().__init__(spec, num_envs)
        self._make_host = make
        self._asked: list[tuple[str, Any]] = [("", None)] * num_envs
        self._games: list[Host | None] = []
        for _ in range(num_envs):
            self._games.append(make())

    def close(self) -> None:
        """Free the games; a second call does nothing."""
        games, self._games = self._games, []
        for game in games:
            if game is not None:
                game.close()

    def _make(self, row: int) -> None:
        self._end_game(row)  # a game that cannot be made is made again when it is asked

    def _begin(self, row: int, verb: str, argument: Any) -> None:
        self._asked[row] = verb, argument

    def _end(self, row: int, patience: Any) -> Any:
        verb, argument = self._asked[row]
        game = self._games[row]
        try:
            if verb == "step":
                return game.step(argument)
            if verb == "reset":
                if game is None:
                    game = self._games[row] = self._make_host()
                return game.reset(argument)
        except Fallen:
            raise
        except (Exception, SystemExit) as error:  # a game's sys.exit() is not the run's
            raise Fallen(raised(error)) from error
        if verb == "again":
            return game.last
        if verb == "state":
            return game.state_dict()
        if verb == "load":
            return game.load_state_dict(argument)
        return game.render() if verb == "render" else game.scene()

    def _end_game(self, row: int) -> None:
        game, self._games[row] = self._games[row], None
        if game is not None:
            with suppress(Exception):  # it is broken already
                game.close()
