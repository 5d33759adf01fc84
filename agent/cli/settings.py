"""From YAML files and flags to `Settings`, each over those before it:

code defaults < family file < game file < --preset, its family file, its game file < --config FILE < command line.
Every mistake is answered with its place (file and line, or flag), what may stand there, and the nearest right name.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from agent.cli.config_file import ConfigFile, shown
from agent.cli.errors import UsageError, parse
from agent.cli.extras import EXTRAS, is_installed, remedy
from agent.cli.schema import Loc, hints, none_if_said, strip, validate
from agent.cli.words import command
from agent.config import Section, Settings

FAMILIES = ("atari", "minatar")  # groups of settings that only games of that family know
SHORT = {"realtime": "--realtime"}  # settings within groups that have a flag without the group's name as well


@dataclass(frozen=True)
class TrainArguments:
    """Train an agent on GAME and write the run to RUNS_DIR/GAME/TIME_sSEED/. 'icebox games' lists the games.

    The defaults below are this game's: agent/config.py, then configs/FAMILY.yaml, configs/GAME.yaml, --preset and
    --config.
    """

    game: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GAME")] = ""
    """Name of the game, such as lunar-lander, minatar/breakout, atari/pong or gym:Acrobot-v1."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    name: str | None = None
    """Added to the name of the run folder."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Settings for a purpose, laid over the game's (configs/presets). btr: Atari, 200M frames, as published. short:
    Atari, 2M to 10M frames. cpu: MinAtar and classic games on two cores."""
    config: Path | None = None
    """One more YAML file of settings; it overrides the game's and the preset's."""
    demonstrations: Path | None = None
    """A file or a folder of games that a person played ('icebox play' keeps them): replay holds them before learning
    starts. They are no steps of the run."""
    watch: tyro.conf.FlagCreatePairsOff[bool] = False
    """Open the viewer beside the training ('icebox play', in a process of its own); it ends with it."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """No progress line; only what goes wrong and the result."""


def parse_train(argv: Sequence[str]) -> TrainArguments:
    """Parse the command line of `icebox train`; `game` is the canonical name and `settings` are validated.

    Raises UsageError for everything that is wrong with the words, and SystemExit(0) after `--help`.
    """
    wants_help = bool({"-h", "--help"} & set(argv))
    words = [word for word in argv if word not in ("-h", "--help")]
    prog, options = command("train"), {"registry": _registry()}
    first = parse(TrainArguments, words, prog=prog, **options)
    if not first.game:
        if wants_help:
            parse(TrainArguments, ["--help"], prog=prog, **options)
        raise UsageError(_no_game())
    game = canonical_game(first.game)
    loaded = load_settings(game, first.config, first.preset)
    default = TrainArguments(game=game, settings=loaded)
    flags = parse(TrainArguments, ["--help"] if wants_help else words, prog=prog, default=default, **options)
    for family in FAMILIES:
        for word in words:
            if word.replace("_", "-").startswith(f"--game.{family}.") and not game.startswith(f"{family}/"):
                raise UsageError(f"{word.split('=')[0]}: only for {family}/* games, not {game}.")
    given = _with_none(flags.settings)
    said = any(word.replace("_", "-").startswith("--game.num-games") for word in words)
    if loaded.game.realtime is None and not said:
        del given["game"]["num_games"]
        given = _one_game(given)
    tree = merge(loaded.model_dump(), given)
    settings = validate(tree, lambda loc: f"{_flag(loc)}: " if loc else "")
    return replace(flags, game=game, settings=settings)


def canonical_game(name: str) -> str:
    """Return the game's name as the table has it; raise UsageError with the nearest name when there is none."""
    from envs import make  # gymnasium and ale_py are slow to import, and a bad flag is answered without them

    if name.startswith("gym:"):
        return make.spec(name).name
    if name.startswith("atari/") and not is_installed(EXTRAS["atari"]):
        raise UsageError(f"{name} needs ale-py: {remedy('atari')}")
    try:
        return make.canonical(name)
    except ValueError:
        known = make.games()
    near = [game for game in known if game.endswith(f"/{name.lower()}")]
    near = near or difflib.get_close_matches(name.lower(), known, n=1)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UsageError(f"unknown game '{name}'.{hint} '{command('games')}' lists all.")


def _no_game() -> str:
    return (
        f"which game? Usage: {command('train')} GAME [flags]\n"
        "GAME is cartpole, acrobot, mountain-car, lunar-lander, minatar/NAME, atari/NAME or gym:ID. "
        f"'{command('games')}' lists all."
    )


# --- files -----------------------------------------------------------------------------------------------------------


def configs_dir() -> Path:
    """Where the games' YAML files lie: inside an installed wheel, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def presets() -> list[str]:
    """The names that --preset takes."""
    return sorted({path.stem for path in (configs_dir() / "presets").glob("*") if path.suffix in ("", ".yaml")})


def config_files(game: str, preset: str | None = None) -> list[Path]:
    """The YAML files that ship for `game` and `preset`, in the order in which they override each other.

    Raises UsageError with the nearest name when there is no such preset, and when it has nothing for this game.
    """
    family = "gym" if game.startswith("gym:") else game.split("/")[0] if "/" in game else None
    names = ([family] if family else []) + ([game] if family != "gym" else [])
    paths = [configs_dir() / f"{name}.yaml" for name in names]
    if preset is not None:
        if preset not in presets():
            near = difflib.get_close_matches(preset.lower(), presets(), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"unknown preset '{preset}'.{hint} Presets: {', '.join(presets())}.")
        folder = configs_dir() / "presets"
        chosen = [folder / f"{preset}.yaml", *(folder / preset / f"{name}.yaml" for name in names)]
        if not any(path.is_file() for path in chosen):
            fitting = sorted(f"{path.stem}/*" if path.stem in FAMILIES else path.stem for path in (folder / preset).glob("*"))
            raise UsageError(f"--preset {preset}: only for {', '.join(fitting)} games, not {game}.")
        paths += chosen
    return [path for path in paths if path.is_file()]


def load_settings(game: str, extra: Path | None = None, preset: str | None = None) -> Settings:
    """Defaults, what ships for `game` and `preset`, then `extra`; raise UsageError with every fault of these files."""
    return read_settings([*config_files(game, preset), *([extra] if extra is not None else [])], game)


def read_settings(paths: Iterable[Path], game: str) -> Settings:
    """Lay YAML files over the defaults, later over earlier ones; raise UsageError with all their faults at once."""
    tree: dict[str, Any] = {}
    where: dict[Loc, str] = {}
    faults: list[str] = []
    for path in paths:
        try:
            layer = ConfigFile(path)
            faults += layer.faults
        except UsageError as error:
            faults.append(str(error))
            continue
        except OSError as error:
            faults.append(f"{shown(path)}: {error.strerror}.")
            continue
        faults += _misplaced(layer, game)
        where |= layer.where
        tree = merge(tree, _one_game(layer.tree))
    try:
        settings = validate(tree, lambda loc: _place(loc, where))
    except UsageError as error:
        raise UsageError("\n".join([*faults, str(error)])) from None
    if faults:
        raise UsageError("\n".join(faults))
    return settings


def _one_game(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whoever asks for a game in real time asks for one game, unless he says how many."""
    if _group(tree, "game").get("realtime") is None or "num_games" in tree["game"]:
        return tree
    return merge(tree, {"game": {"num_games": 1}})


def _misplaced(layer: ConfigFile, game: str) -> Iterator[str]:
    """Faults for settings of another family that were changed; a resolved config.yaml holds them all, unchanged."""
    for family in FAMILIES:
        default = Settings().game.model_dump()[family]
        for key, value in _group(layer.tree, "game", family).items():
            if not game.startswith(f"{family}/") and value != default[key]:
                loc = ("game", family, key)
                yield f"{layer.where[loc]}: {'.'.join(loc)}: only for {family}/* games, not {game}."


def _group(tree: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _place(loc: Loc, where: Mapping[Loc, str]) -> str:
    name = ".".join(str(part) for part in loc)
    for end in range(len(loc), 0, -1):
        if loc[:end] in where:
            return f"{where[loc[:end]]}: {name}: "
    return f"{name}: " if name else ""


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree over another; only groups are merged, every other value is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


# --- flags -----------------------------------------------------------------------------------------------------------


def _registry() -> ConstructorRegistry:
    """Let tyro show and split the flags of Settings but hand on the words: one place validates flags and files.

    A parsed Section is a plain dict of words. Settings that are mappings (`sb3`) have no flag.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def section(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, Section)):
            return None
        kinds = hints(info.type)
        default = info.default if isinstance(info.default, info.type) else info.type()
        fields = []
        for name, field in info.type.model_fields.items():
            if get_origin(kinds[name]) is not dict:
                kind, value = _as_words(kinds[name], getattr(default, name), SHORT.get(name))
                fields.append(StructFieldSpec(name, kind, value, _help(kinds[name], field.description)))
        return StructConstructorSpec(dict, tuple(fields))

    return registry


def _with_none(words: Mapping[str, Any], loc: Loc = ()) -> dict[str, Any]:
    return {
        name: _with_none(word, (*loc, name)) if isinstance(word, dict) else none_if_said((*loc, name), word)
        for name, word in words.items()
    }


def _flag(loc: Loc) -> str:
    return "--" + ".".join(map(str, loc)).replace("_", "-")


def _help(kind: Any, description: str | None) -> str | None:
    """A setting's docstring; for a group of settings without one, that of its class."""
    return description or (kind.__doc__ if isinstance(kind, type) else None)


def _as_words(hint: Any, value: Any, short: str | None) -> tuple[Any, Any]:
    """The type and the default that tyro sees: words with a metavar, except for groups and switches."""
    kind, _ = strip(hint)
    if kind is bool or (isinstance(kind, type) and issubclass(kind, Section)):
        return kind, value
    described = tyro.conf.arg(metavar=_metavar(kind), aliases=[short] if short else None)
    if get_origin(kind) is tuple:
        return Annotated[tuple[str, ...], described], tuple(map(str, value))
    return Annotated[str, described], str(value)


def _metavar(hint: Any) -> str:
    kind, _ = strip(hint)
    if get_origin(kind) in (Union, types.UnionType):
        return "|".join(_metavar(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return _metavar(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    return {int: "INT", float: "FLOAT", type(None): "none"}[kind]
