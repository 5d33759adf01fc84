"""Which runs are runs of one setting, and what each setting is called: by what tells it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.config import Settings
from agent.telemetry.board import flat
from agent.telemetry.report.gather import Gathered

TITLES = {
    "icebox": "Icebox",
    "dqn-sb3": "DQN (SB3)",
    "qrdqn": "QR-DQN (SB3)",
    "ppo": "PPO (SB3)",
    "a2c": "A2C (SB3)",
    "sac": "SAC (SB3)",
    "td3": "TD3 (SB3)",
    "tqc": "TQC (SB3)",
}
LONGEST = 60  # letters of a label


# What decides how a run is watched and how long it goes, and not how it learns.
ASIDE = ("steps", "device", "threads", "evaluation.", "checkpoint.", "telemetry.", "game.vectorize", "game.threads", "game.deadline_s")


@dataclass
class Setting:
    """Settings that runs share but for the seed; on another game, the same differences from that game's defaults.

    How long a run goes and how it is watched may differ between games, but never between runs on one game.
    """

    label: str
    baseline: bool
    differences: dict[str, Any] | None  # by dotted name, with a sentence where it depends on the game; None: not known
    runs: list[Gathered] = field(default_factory=list)


def differences(settings: Settings, defaults: Settings) -> dict[str, Any]:
    """Return what differs from a game's defaults by dotted name, without the seed."""
    usual = flat(defaults)
    return {name: value for name, value in flat(settings).items() if name != "seed" and value != usual[name]}


def apart(runs: Iterable[Gathered], defaults: Callable[[str], Settings]) -> list[Setting]:
    """Return the settings of runs, those that are not baselines first, each with a label of its own."""
    groups: dict[Any, list[tuple[Gathered, dict[str, Any] | None]]] = {}
    for run in runs:
        changed = None if run.settings is None else differences(run.settings, defaults(run.game))
        key = str(run.path) if changed is None else _key(_learning(changed))
        groups.setdefault((run.baseline, key), []).append((run, changed))
    settings, split = [], set()
    for (baseline, _), members in groups.items():
        ways: dict[str, set[Any]] = {}
        for run, changed in members:
            ways.setdefault(run.game, set()).add(_key(changed))
        if max(map(len, ways.values())) == 1:
            parts = [members]
        else:  # on one game, runs that differ in anything but the seed are not put together
            parts = [
                [each for each in members if _key(each[1]) == key] for key in dict.fromkeys(_key(c) for _, c in members)
            ]
        made = [_setting(baseline, part) for part in parts]
        settings += made
        split |= {id(setting) for setting in made if len(made) > 1}
    settings.sort(key=lambda setting: setting.baseline)
    _label(settings, split)
    return settings


def _learning(changed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changed.items() if not name.startswith(ASIDE)}


def _key(changed: Mapping[str, Any] | None) -> Any:
    return None if changed is None else tuple(sorted((name, repr(value)) for name, value in changed.items()))


def _setting(baseline: bool, members: Sequence[tuple[Gathered, dict[str, Any] | None]]) -> Setting:
    runs, by_game = [run for run, _ in members], {run.game: changed for run, changed in members}
    if None in by_game.values():
        return Setting(f"unknown settings of {runs[0].path.name}"[:LONGEST], baseline, None, runs)
    names = dict.fromkeys(name for changed in by_game.values() for name in changed)
    together = {}
    for name in names:
        values = {game: shown(changed[name]) if name in changed else "default" for game, changed in by_game.items()}
        same = len(set(values.values())) == 1
        together[name] = by_game[runs[0].game][name] if same else "; ".join(f"{g}: {v}" for g, v in values.items())
    return Setting("", baseline, together, runs)


def _label(settings: Sequence[Setting], split: Collection[int]) -> None:
    """Call each setting by its algorithm and what not all settings share; number those that sound alike."""
    known = [setting.differences for setting in settings if setting.differences is not None]
    shared = {name for name in (known[0] if known else {}) if all(_same(each, known[0], name) for each in known)}
    for setting in settings:
        if setting.differences is not None:
            own = {name: value for name, value in setting.differences.items() if name not in shared}
            told = own if id(setting) in split else _learning(own)
            setting.label = _named(setting) or _described(setting.runs[0].settings.algo, told)
    counts, seen = Counter(setting.label for setting in settings), Counter[str]()
    for setting in settings:
        if counts[setting.label] > 1:
            seen[setting.label] += 1
            setting.label = f"{setting.label} #{seen[setting.label]}"


def _same(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return name in one and name in other and one[name] == other[name]


def _named(setting: Setting) -> str | None:
    """The name that every run of the setting was given, if it is one."""
    name, *others = (run.meta.get("name") for run in setting.runs)
    return name[:LONGEST] if isinstance(name, str) and name and all(other == name for other in others) else None


def _described(algorithm: str, changed: Mapping[str, Any]) -> str:
    own = {name: value for name, value in changed.items() if name != "algo"}
    words = [f"{name.rpartition('.')[2].replace('_', ' ')} {shown(value)}" for name, value in own.items()]
    label = ", ".join([TITLES[algorithm], *words])
    return label if len(label) <= LONGEST else f"{TITLES[algorithm]}, {len(words)} settings changed"


def shown(value: Any) -> str:
    """Return a setting's value as a person reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return " x ".join(map(shown, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
