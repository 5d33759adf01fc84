"""The table of games, and the door through which a vector of them is made."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from envs.spec import GameSpec, game_seeds

if TYPE_CHECKING:
    from envs.atari import AtariVector
    from envs.inline import InlineVector
    from envs.workers import WorkerVector

CLASSIC = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "mountain-car": "MountainCar-v0",
    "lunar-lander": "LunarLander-v3",
}
MINATAR = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


def games() -> tuple[str, ...]:
    """Return the names in the table; `atari/*` stands in it when ale-py is installed, and `gym:ID` works besides."""
    names = (*CLASSIC, *(f"minatar/{rom}" for rom in MINATAR))
    if importlib.util.find_spec("ale_py") is None:
        return names
    from envs.atari import atari_roms

    return (*names, *(f"atari/{rom}" for rom in atari_roms()))


def canonical(name: str) -> str:
    """Return the name as the table spells it: case, dashes and underscores do not matter; ValueError when unknown."""
    if name.startswith("gym:"):
        return name
    wanted = _folded(name)
    for known in (*CLASSIC, *(f"minatar/{rom}" for rom in MINATAR)):  # without importing ale_py
        if _folded(known) == wanted:
            return known
    if wanted.startswith("atari/") and importlib.util.find_spec("ale_py") is None:
        raise ValueError(f'{name} needs ale-py: pip install ale-py')
    known_names = games()
    for known in known_names:
        if _folded(known) == wanted:
            return known
    raise ValueError(_unknown(name, known_names))


def spec(name: str, *, atari: Mapping[str, Any] | None = None, minatar: Mapping[str, Any] | None = None) -> GameSpec:
    """Describe a game without making a vector of it.

    `atari` and `minatar` carry the keys of `agent.config.AtariSettings` and `MinAtarSettings`, and are needed for games
    of that family. ValueError names an unknown game, a missing package, or spaces that are not supported.
    """
    name = canonical(name)
    family, _, rom = name.partition("/")
    if name.startswith("gym:") or name in CLASSIC:
        from envs.classic import classic_spec

        return classic_spec(name, _gymnasium_id(name))
    if family == "minatar":
        from envs.minatar import MinAtarGame, minatar_spec

        return minatar_spec(rom, MinAtarGame(rom, **_needed("minatar", minatar)))
    from envs.atari import atari_spec

    return atari_spec(rom, **_needed("atari", atari))


def make_vector_env(
    name: str,
    num_envs: int,
    seed: int,
    *,
    vectorize: str = "auto",
    threads: int = 0,
    atari: Mapping[str, Any] | None = None,
    minatar: Mapping[str, Any] | None = None,
    render: bool = False,
    seeds: int | None = None,
    deadline_s: float = 8.0,
) -> InlineVector | WorkerVector | AtariVector:
    """Return `num_envs` copies of a game, already reset with `seed`: the first step is `current`.

    `vectorize` is auto, inline or workers; Atari has C++ `threads` of its own instead of inline. `render` makes
    pictures possible for Gymnasium's games; the others can always draw. ValueError as in `spec`.

    A worker that dies, does not answer within `deadline_s`, raises or answers with garbage is replaced, and so is a
    game in this process that raises or answers with garbage; GameFailure when that happens again and again.

    With `seeds` every episode starts from one of so many seeds, which follow from `seed`; a later `reset` with another
    seed changes only which of them is drawn when. Not for Atari.
    """
    name = canonical(name)
    family, _, rom = name.partition("/")
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}.")
    if vectorize not in ("auto", "inline", "workers"):
        raise ValueError(f"vectorize must be auto, inline or workers, not {vectorize!r}.")
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {seeds}.")
    pool = None if seeds is None else game_seeds(seed, seeds)
    if name.startswith("gym:") or name in CLASSIC:
        from envs.classic import make_classic

        if vectorize == "auto" and name in CLASSIC:
            vectorize = "inline"  # measured: a step takes 10 to 50 microseconds, less than a message
        vector = make_classic(
            name,
            _gymnasium_id(name),
            num_envs,
            vectorize=vectorize,
            render=render,
            seeds=pool,
            deadline_s=deadline_s,
        )
    elif family == "minatar":
        from envs.minatar import make_minatar

        settings = _needed("minatar", minatar)
        vector = make_minatar(rom, num_envs, vectorize=vectorize, deadline_s=deadline_s, seeds=pool, **settings)
    else:
        if vectorize == "inline":
            raise ValueError(f"{name} runs in C++ threads or in workers: set threads 1 for one thread beside this one.")
        if seeds is not None:
            raise ValueError(
                f"{name} cannot start its episodes from {seeds} seeds: ALE's C++ vector begins them by itself. Leave"
                " game.seeds at none, or take a game of another family."
            )
        from envs.atari import make_atari

        settings = _needed("atari", atari)
        vector = make_atari(rom, num_envs, vectorize=vectorize, deadline_s=deadline_s, threads=threads, **settings)
    try:
        vector.reset(seed)
    except BaseException:
        vector.close()
        raise
    return vector


def _needed(family: str, settings: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if settings is None:
        raise ValueError(f"{family}/* games need settings: pass {family}=, the defaults stand in agent/config.py.")
    return settings


def _gymnasium_id(name: str) -> str:
    return CLASSIC[name] if name in CLASSIC else name.removeprefix("gym:")


def _folded(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _unknown(name: str, known: tuple[str, ...]) -> str:
    """Return the sentences that answer an unknown name: the nearest right ones, then all."""
    import gymnasium

    folded = _folded(name)
    near = [game for game in known if _folded(game).rpartition("/")[2] == folded.rpartition("/")[2]]
    near += [f"gym:{name}"] if name in gymnasium.registry else []
    near += difflib.get_close_matches(folded, [_folded(game) for game in known], n=3)
    spelled = {_folded(game): game for game in known}
    near = list(dict.fromkeys(spelled.get(game, game) for game in near))
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    names = [game for game in known if not game.startswith("atari/")]
    return f"There is no game {name!r}.{hint} Games: {', '.join(names)}, atari/<rom>, gym:<Gymnasium id>."
