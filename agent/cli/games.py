"""`icebox games`: the table of games, what each needs, and whether its settings are tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from agent.cli.errors import UsageError
from agent.cli.extras import EXTRAS, is_installed, remedy
from agent.cli.settings import config_files, load_settings
from agent.cli.tables import print_json, table
from agent.cli.words import command
from envs import make

FEW = 10  # Atari games that are asked for their actions at once


@dataclass(frozen=True)
class Arguments:
    """List the games that can be trained on; any other Gymnasium game is gym:ID."""

    filter: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILTER")] = ""
    """Show only games with this in their name."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of the table."""


def run(arguments: Arguments) -> int:
    """Print the games whose name contains the filter."""
    known = make.games()
    names = [name for name in known if arguments.filter.lower() in name]
    missing = {extra: remedy(extra) for extra in EXTRAS if not is_installed(EXTRAS[extra])}
    if not names and arguments.filter.split("/")[0] in missing:
        raise UsageError(f"{arguments.filter} games are not installed: {missing[arguments.filter.split('/')[0]]}.")
    if not names:
        raise UsageError(f"no game has '{arguments.filter}' in its name. '{command('games')}' lists all.")
    games = _describe_all(names)
    if arguments.json:
        print_json({"games": games, "missing": missing})
        return 0
    header = ("GAME", "OBSERVATION", "ACTIONS", "NEEDS", "SOLVED AT", "CONFIG")
    print(table(header, [_row(game) for game in games]))
    if len(games) == 1 and games[0]["action_names"]:
        print(f"\nActions: {', '.join(games[0]['action_names'])}.")
    elif any(game["installed"] and game["num_actions"] is None for game in games):
        print(f"\n'{command('games', 'atari/NAME')}' shows the actions of one Atari game.")
    for extra, install in missing.items():
        print(f"\n{extra}/* games need: {install}")
    print("\nAny other Gymnasium game is gym:ID, for example gym:Acrobot-v1.")
    return 0


def _describe_all(names: list[str]) -> list[dict[str, Any]]:
    """Describe the games; in a long list, Atari games with the family's settings are described by the first of them.

    Asking an Atari game for its actions loads its ROM (0.2 s), and there are a hundred.
    """
    described: list[dict[str, Any]] = []
    of_family: dict[str, Any] | None = None
    for name in names:
        if name.startswith("atari/") and len(names) > FEW and of_family and _config(name) != "game":
            described.append(of_family | {"name": name, "num_actions": None, "action_names": []})
            continue
        game = _describe(name)
        if name.startswith("atari/") and game["config"] != "game":
            of_family = game
        described.append(game)
    return described


def _describe(name: str) -> dict[str, Any]:
    family = name.split("/")[0] if "/" in name else None
    extra = family if family in EXTRAS else None
    game: dict[str, Any] = {
        "name": name,
        "observation_shape": None,
        "observation_dtype": None,
        "num_actions": None,  # 0: continuous
        "action_names": [],
        "solved_at": None,
        "extra": extra,
        "installed": extra is None or is_installed(EXTRAS[extra]),
        "config": _config(name),
    }
    if game["installed"]:
        options = load_settings(name).game
        spec = make.spec(name, atari=options.atari.model_dump(), minatar=options.minatar.model_dump())
        game |= {key: getattr(spec, key) for key in ("observation_shape", "observation_dtype", "solved_at")}
        game |= {"num_actions": spec.num_actions, "action_names": list(spec.action_names)}
    return game


def _config(name: str) -> str | None:
    """'game' when a file of its own ships, 'family' when only its family's does, None when the defaults stand alone."""
    files = config_files(name)
    if any(file.stem == name.split("/")[-1] for file in files):
        return "game"
    return "family" if files else None


def _row(game: dict[str, Any]) -> tuple[str, ...]:
    shape = "?" if game["observation_shape"] is None else "x".join(map(str, game["observation_shape"]))
    unknown = "3-18" if game["installed"] else "?"  # what Atari games have
    actions = {None: unknown, 0: "continuous"}.get(game["num_actions"], str(game["num_actions"]))
    needs = "-" if game["extra"] is None else game["extra"] + ("" if game["installed"] else " (missing)")
    solved = "-" if game["solved_at"] is None else f"{game['solved_at']:g}"
    observation = f"{shape} {game['observation_dtype'] or ''}".rstrip()
    return game["name"], observation, actions, needs, solved, game["config"] or "-"
