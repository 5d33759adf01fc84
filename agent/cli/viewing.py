"""What the viewer shows of a run, an artefact, a zip or a game: its rooms, put together from everything below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

from agent.cli.artefacts import settings_of, trusted_player
from agent.cli.freeze_report import folder_name
from agent.cli.kept import kept_network, kept_weights, settings_here
from agent.cli.session import family_settings, make_network
from agent.cli.settings import canonical_game, load_settings
from agent.cli.source import load_source
from agent.cli.words import command, complain
from agent.config import Settings
from agent.freeze import artefact
from agent.freeze.frozen_policy import FrozenPolicy
from agent.freeze.graph import Continuous
from agent.freeze.player import MANIFEST
from agent.nets.q_network import QNetwork
from agent.replay.demonstrations import DemonstrationWriter, game_facts
from agent.telemetry.provenance import versions
from agent.telemetry.run_folder import RunFolder, find, game_folder
from agent.viewer.desk import Desk
from agent.viewer.episodes import EpisodeLog
from agent.viewer.feed import Feed
from agent.viewer.freezing import Freezing
from agent.viewer.hub import Hub
from agent.viewer.live import LiveRoom
from agent.viewer.live_reader import LiveReader
from agent.viewer.policies import ArtefactPolicy, Facts, LatestPolicy, LivePolicy, Policy, Scores, scores_of
from agent.viewer.publish import put_weights
from agent.viewer.rooms import PlayRoom, Room
from agent.viewer.you import YouRoom
from envs.keys import idle_action, key_map
from envs.make import GameSpec, spec
from envs.scenes import Painter
from envs.shown import Shown

OURS = "icebox"  # the algorithm whose weights are published and rebuilt


class Stage:
    """One game on which rooms are opened: how it is made, and what all its rooms share."""

    def __init__(self, game: str, settings: Settings, hub: Hub, seed: int, kept: Path) -> None:
        """`kept` is the folder in which episodes and demonstrations are kept."""
        self.game, self.settings, self.hub, self.seed = game, settings, hub, seed
        self.family = family_settings(settings)
        self.spec: GameSpec = spec(game, **self.family)
        self.episodes = EpisodeLog(kept / "episodes", complain)
        self._demonstrations = kept / "demonstrations"

    def make_game(self, seed: int) -> Shown:
        """Return a copy of the game for one room."""
        return Shown(self.game, seed, **self.family)

    def policy_room(self, kind: str, title: str, policy: Policy, newest: Callable[[], int | None]) -> PlayRoom:
        """Return a room in which a policy plays; `newest` counts the trainer's updates."""
        return PlayRoom(
            kind, kind, title, self.hub, self.make_game, policy, seed=self.seed, newest_updates=newest,
            recorder=self.episodes,
        )  # fmt: skip

    def you(self, make_advisor: Callable[[], Policy | None] | None) -> list[YouRoom]:
        """Return the room in which a person plays; none where actions are continuous.

        `make_advisor` gives the policy that a person can ask what it thinks, None where there is none at the moment.
        """
        if not self.spec.num_actions:
            return []
        # A life that is lost changes nothing for a person, and demonstrations are whole games.
        family = {**self.family, "atari": {**self.family["atari"], "life_loss_ends": False}}
        writer = DemonstrationWriter(
            self._demonstrations,
            game_facts(spec(self.game, **family), family.get(self.game.partition("/")[0], {}), versions()),
        )

        def advisor() -> Policy:
            policy = make_advisor()
            torch.set_num_threads(1)  # as in `desk`
            if policy is None:
                raise ValueError("there is no policy yet")
            return policy

        return [
            YouRoom(
                self.hub, lambda seed: Shown(self.game, seed, **family), key_map(self.spec), idle_action(self.spec),
                make_advisor=make_advisor and advisor, seed=self.seed, recorder=self.episodes, writer=writer,
            )
        ]  # fmt: skip

    def desk(
        self,
        title: str,
        rooms: Sequence[Room],
        make_advisor: Callable[[], Policy | None] | None,
        feed: Feed | None = None,
        freezing: Freezing | None = None,
    ) -> Desk:
        """Return the desk at which these rooms and the one for a person are looked after."""
        torch.set_num_threads(1)  # several rooms play at once, beside a trainer; loading a policy may have chosen more
        return Desk(title, self.spec, self.hub, [*rooms, *self.you(make_advisor)], feed, freezing, self.episodes)

    def live_facts(self, described: str, algorithm: str, updates: int | None = None) -> Facts:
        """Return what is told of a policy that was trained with these settings."""
        learner, replay = self.settings.learner, self.settings.replay
        return Facts(
            described, scores_of(algorithm, not self.spec.num_actions), learner.discount, replay.reward_clip, updates
        )


def open_viewer(
    name: str, hub: Hub, *, runs_dir: Path, seed: int, game: str | None = None, allow_refused: bool = False
) -> Desk:
    """Return the desk for what `name` stands for.

    A run folder, `latest` and `GAME/latest`, an artefact's folder, a stable-baselines3 zip, or a game. ValueError or
    FileNotFoundError that says what it could have been.
    """
    path = Path(name)
    if game is None and (path / MANIFEST).is_file():
        return _of_artefact(path, hub, runs_dir, seed, allow_refused)
    if game is not None and path.suffix != ".zip":
        raise ValueError("--game: only for a zip whose name does not say its game; runs and artefacts know theirs.")
    if path.suffix == ".zip":
        return _of_zip(name, hub, runs_dir, seed, game)
    try:
        folder = RunFolder.open(find(runs_dir, name))
    except FileNotFoundError as missing:
        if path.is_dir():
            known = f"a run has a meta.json, an artefact a {MANIFEST}. '{command('runs')}' lists the runs"
            raise FileNotFoundError(f"{name} is not a run folder and no artefact: {known}.") from None
        if path.exists() or name.rpartition("/")[2] == "latest":
            raise
        return _of_game(_game(name, missing), hub, runs_dir, seed)
    return _of_run(folder, hub, seed)


def _game(name: str, missing: FileNotFoundError) -> str:
    try:
        return canonical_game(name)
    except ValueError as unknown:
        raise ValueError(f"{name!r} is no run, artefact, zip or game. {missing} {unknown}") from None


def _played(runs_dir: Path, game: str) -> Path:
    """Where the episodes of games without a run are kept."""
    return runs_dir / "played" / game_folder(game)


def _of_game(game: str, hub: Hub, runs_dir: Path, seed: int) -> Desk:
    stage = Stage(game, load_settings(game), hub, seed, _played(runs_dir, game))
    if not stage.spec.num_actions:
        raise ValueError(f"{game} has continuous actions, which no keys are for: watch a policy that plays it instead.")
    return stage.desk(game, [], None)


def _of_artefact(folder: Path, hub: Hub, runs_dir: Path, seed: int, allow_refused: bool) -> Desk:
    policy, card = artefact_policy(folder, allow_refused=allow_refused)
    stage = Stage(card.game, settings_of(card), hub, seed, _played(runs_dir, card.game))
    room = stage.policy_room("frozen", _frozen_title(card), policy, lambda: None)

    def advisor() -> Policy:  # a player is one room's
        return artefact_policy(folder, allow_refused=True)[0]

    return stage.desk(f"{card.game} · {folder.resolve().name}", [room], advisor)


def _of_zip(name: str, hub: Hub, runs_dir: Path, seed: int, game: str | None) -> Desk:
    source = load_source(name, runs_dir, game, "last")
    for note in source.notes:
        complain(note)
    stage = Stage(source.game, source.settings, hub, seed, _played(runs_dir, source.game))
    facts = Facts(f"{source.algorithm} {source.described}", scores_of(source.algorithm, not stage.spec.num_actions))

    def policy() -> Policy:
        return LivePolicy(source.outputs, source.graph.head, facts, source.network, source.choose)

    room = stage.policy_room("latest", source.name, policy(), lambda: None)
    return stage.desk(f"{source.game} · {source.name}", [room], policy)


def _of_run(folder: RunFolder, hub: Hub, seed: int) -> Desk:
    settings = settings_here(folder).model_copy(update={"device": "cpu"})
    stage = Stage(folder.game, settings, hub, seed, folder.path)
    feed = Feed(hub, folder)

    def live() -> LiveRoom:
        return LiveRoom(hub, LiveReader(folder.path), partial(Painter, folder.game, **stage.family), stage.episodes)

    def on_alive() -> None:  # a run that had ended is resumed
        if desk.room("live") is None:
            desk.add(live())

    def on_ended() -> None:  # nobody was told of its last weights unless somebody watched at that moment
        room = desk.room("latest")
        with suppress(ValueError, OSError):  # a folder that is being removed: what plays goes on
            if isinstance(room, PlayRoom) and (last := _latest(folder, stage)) is not None:
                torch.set_num_threads(1)  # as in Stage.desk
                room.replace(last)
            if isinstance(you := desk.room("you"), YouRoom) and you.is_advising:
                you.advise(True)

    rooms: list[Room] = []
    if folder.status == "running":
        rooms.append(live())
    policy = _latest(folder, stage)
    if policy is not None:
        rooms.append(stage.policy_room("latest", "Latest policy", policy, lambda: feed.updates))
    for frozen in newest_artefact(folder)[:1]:
        made, card = artefact_policy(frozen, allow_refused=True)  # a refused one is marked, for people to see
        rooms.append(stage.policy_room("frozen", _frozen_title(card), made, lambda: None))

    def opened(frozen: Path) -> str:
        made, card = artefact_policy(frozen, allow_refused=True)
        room = desk.room("frozen")
        if isinstance(room, PlayRoom):
            room.title = _frozen_title(card)
            room.replace(made)
        else:
            desk.add(stage.policy_room("frozen", _frozen_title(card), made, lambda: None))
        agrees = card.gate["choices"]["agree"]
        verdict = f"{agrees:.2%} agreement with the live policy"
        if card.refused:
            verdict += f", refused by its gate: {card.refused}"
        return f"Frozen to {card.precision.name}: {verdict}. It plays in the frozen room."

    freezing = Freezing(hub, lambda: _freeze_words(folder), opened)
    desk = stage.desk(f"{folder.game} · {folder.path.name}", rooms, lambda: _latest(folder, stage), feed, freezing)
    feed.on_alive, feed.on_ended = on_alive, on_ended
    return desk


def _frozen_title(card: artefact.Card) -> str:
    return "Frozen policy" if card.refused is None else "Frozen policy, REFUSED by its gate"


def _freeze_words(folder: RunFolder) -> list[str]:
    count = sum(1 for _ in (folder.path / "frozen").glob("*")) + 1
    out = folder.path / "frozen" / f"{count:03d}"
    out.parent.mkdir(exist_ok=True)
    return ["freeze", str(folder.path), "--weights", "last", "--out", str(out), "--json"]


def _latest(folder: RunFolder, stage: Stage) -> Policy | None:
    """The run's newest policy; None when it has none yet that could be shown."""
    settings, alive = stage.settings, folder.status == "running"
    if settings.algo != OURS:
        try:
            source = load_source(str(folder.path), folder.path.parent, None, "last")
        except FileNotFoundError:  # it has just begun
            return None
        return LivePolicy(
            source.outputs, source.graph.head, stage.live_facts(source.described, source.algorithm), source.network,
            source.choose,
        )  # fmt: skip
    cpu, reader = torch.device("cpu"), LiveReader(folder.path)
    try:
        # While it trains its own weights come in a moment; until then the small file of the best will do.
        kept, described = kept_weights(folder, "best" if alive else "last")
        network = kept_network(folder, settings, stage.spec, kept, cpu)
    except FileNotFoundError:
        network, described = make_network(stage.spec, settings, cpu), "before the first update"
    network.requires_grad_(False)
    facts = stage.live_facts(described, "DQN")
    return LatestPolicy(network, stage.spec.num_actions, facts, reader.weights, _put)


def _put(network: QNetwork, flat: np.ndarray) -> None:
    put_weights(network, flat)
    network.fold()


def artefact_policy(folder: Path, *, allow_refused: bool) -> tuple[ArtefactPolicy, artefact.Card]:
    """Return an artefact as a policy for a room, with its card; Refused as in `trusted_player`."""
    made = artefact.read(folder)
    card = made.card
    player = trusted_player(folder, "auto", allow_refused=allow_refused)
    choices = card.gate.get("choices")
    frozen = {
        "agreement": choices.get("agree") if isinstance(choices, dict) else None,
        "precision": card.precision.name,
        "bytes": card.sizes.get("weights"),
        "refused": card.refused,
        "runtime": player.runtime,
    }
    # What the choice does not need is gone from them, the value stream above all: they rank, and promise no return.
    scores: Scores | None = None if isinstance(made.graph.head, Continuous) else "logits"
    facts = Facts(f"{card.algorithm}, {card.precision.name}, played by {player.runtime}", scores, frozen=frozen)
    return ArtefactPolicy(player, FrozenPolicy(made.graph, made.integer), facts), card


def newest_artefact(folder: RunFolder) -> list[Path]:
    """Return the run's artefacts, newest first: frozen from the viewer, or where the verb puts them by default."""
    found = [*(folder.path / "frozen").glob(f"*/{MANIFEST}")]
    found += Path("frozen").glob(f"{folder_name(folder.game, folder.path.name, '')}*/{MANIFEST}")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]
