"""Tests of agent/cli/viewing.py: the rooms of a run, an artefact, a zip and a game."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
import stable_baselines3
from room_fakes import Seen, eventually
from test_verify import made  # noqa: F401

from agent.cli import viewing
from agent.cli.kept import kept_weights
from agent.cli.viewing import newest_artefact, open_viewer
from agent.freeze import artefact
from agent.telemetry.run_folder import RunFolder
from agent.viewer.desk import Desk
from agent.viewer.publish import flat_weights
from agent.viewer.slot import SlotWriter, pack

Open = Callable[..., tuple[Desk, Seen]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens viewers and closes them."""
    desks: list[Desk] = []

    def opened(name: Path | str, runs: Path | None = None, **options: Any) -> tuple[Desk, Seen]:
        hub = Seen()
        desk = open_viewer(str(name), hub, runs_dir=runs or tmp_path, seed=3, **options)
        desks.append(desk)
        desk.start()
        return desk, hub

    yield opened
    for desk in desks:
        asyncio.run(desk.close())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of a second."""
    return short_runs.train(tmp_path_factory.mktemp("viewing") / "runs", "cartpole", "--quiet")[1]


def rooms(desk: Desk) -> list[dict[str, Any]]:
    """The rooms as pages are told of them."""
    return json.loads(desk.hub.texts["control"]["hello"].whole)["rooms"]


def shown(hub: Seen, room: str) -> dict[str, Any]:
    """A later picture of a room."""
    return eventually(lambda: next((meta for meta in hub.metas if meta["room"] == room and meta["step"] > 2), None))


def test_a_game_has_a_room_for_a_person(opened: Open, tmp_path: Path) -> None:
    """By any spelling of its name; what is played is kept under the runs' folder."""
    desk, hub = opened("minatar/Space-Invaders")
    assert [room["id"] for room in rooms(desk)] == ["you"]
    eventually(lambda: hub.metas)
    desk.keys("me", "you", ["ArrowLeft"])
    assert shown(hub, "you")["held"] == ["ArrowLeft"]
    assert desk.episodes.folder == tmp_path / "played" / "minatar" / "space_invaders" / "episodes"


def test_a_finished_run_shows_its_last_policy(opened: Open, trained: RunFolder) -> None:
    """With the weights of its newest checkpoint, and no live room: nobody trains."""
    desk, hub = opened(trained.path)
    assert [room["id"] for room in rooms(desk)] == ["latest", "you"]
    assert rooms(desk)[0]["scores"] == "values" and " steps, the last" in rooms(desk)[0]["policy"]
    assert shown(hub, "latest")["td_error"] is not None
    network = desk.room("latest").policy.network
    kept = kept_weights(trained, "last")[0]["network"]
    assert all((value == kept[name]).all() for name, value in network.state_dict().items())
    run = eventually(lambda: hub.texts["watch"].get("run"))
    assert len(json.loads(run.whole)["curve"]) == 3 and json.loads(run.whole)["alive"] is False


def test_a_persons_game_is_advised_by_the_policy(opened: Open, trained: RunFolder, made: Path) -> None:  # noqa: F811
    """Of a run and of an artefact, with a policy of its own beside the one that plays; a bare game has nobody to ask."""
    for name in (trained.path, made):
        desk, hub = opened(name)
        asyncio.run(desk.do("advise", "you", 1))
        thought = eventually(lambda: next((m for m in hub.metas if m["room"] == "you" and m["q"]), None), 60)
        assert len(thought["q"]) == 2 and thought["waiting"]
        assert desk.room("you").policy is not next(iter(desk._rooms.values())).policy
    desk, hub = opened("cartpole")
    with pytest.raises(ValueError, match="no policy here"):
        asyncio.run(desk.do("advise", "you", 1))


def test_a_run_that_trains_is_shown_live(opened: Open, trained: RunFolder, tmp_path: Path) -> None:
    """Its own game from its actions, its newest weights in the latest room, and their age."""
    shutil.copytree(trained.path, tmp_path / "copy")
    folder = RunFolder.open(tmp_path / "copy")
    with folder.hold():
        (folder.path / "live").mkdir(exist_ok=True)
        slots = [SlotWriter(folder.path / "live" / name) for name in ("now.slot", "weights.slot")]
        desk, hub = opened(folder.path)
        assert [room["id"] for room in rooms(desk)] == ["live", "latest", "you"]
        network = desk.room("latest").policy.network
        wanted = flat_weights(network) + 1
        slots[1].write(*pack({"updates": 40, "steps": 4}, {"weights": wanted}))
        from envs.make import make_vector_env

        games = make_vector_env("cartpole", 1, 0)
        for picture in range(4):
            games.send(np.ones(1, np.int64))
            games.recv()
            scene = games.scene()
            about = {"picture": picture, "episode": 1, "step": picture, "updates": 50, "q": [1.0, 2.0], "time": time.time()}
            slots[0].write(*pack(about | {"scene": {"kind": scene.kind, "facts": scene.facts}}, scene.arrays))
        live = shown(hub, "live")
        assert live["value"] == 2.0 and live["width"] == 600
        later = eventually(lambda: next((meta for meta in hub.metas if meta["policy_age_updates"] == 10), None))
        assert later["room"] == "latest" and later["policy_updates"] == 40
        np.testing.assert_allclose(flat_weights(network), wanted)
        for slot in slots:
            slot.close()
        games.close()
        folder.set_status("done")
        # Its last weights lie in its last checkpoint: nobody published them.
        last = eventually(lambda: (policy := desk.room("latest").policy).network is not network and policy)
        kept = kept_weights(folder, "last")[0]["network"]
        assert all((value == kept[name]).all() for name, value in last.network.state_dict().items())


def test_a_run_that_is_resumed_gets_its_live_room(opened: Open, trained: RunFolder, tmp_path: Path) -> None:
    """Opened after the end of the run, the viewer has no live room until somebody trains again, and then it has."""
    shutil.copytree(trained.path, tmp_path / "copy")
    folder = RunFolder.open(tmp_path / "copy")
    desk, hub = opened(folder.path)
    eventually(lambda: "run" in hub.texts["watch"])
    assert [room["id"] for room in rooms(desk)] == ["latest", "you"]
    with folder.hold():
        (folder.path / "live").mkdir(exist_ok=True)
        slot = SlotWriter(folder.path / "live" / "now.slot")
        eventually(lambda: [room["id"] for room in rooms(desk)] == ["live", "latest", "you"])
        slot.close()


def test_a_run_that_has_just_begun_shows_its_first_weights(opened: Open, trained: RunFolder, tmp_path: Path) -> None:
    """Nothing is saved yet, so the latest policy is the one that training starts from."""
    shutil.copytree(trained.path, tmp_path / "copy")
    for name in ("checkpoints", "best"):
        shutil.rmtree(tmp_path / "copy" / name)
    desk, hub = opened(tmp_path / "copy")
    assert rooms(desk)[0]["policy"] == "before the first update"
    assert shown(hub, "latest")["q"]


def test_a_stock_run_shows_its_policy(opened: Open, tmp_path: Path) -> None:
    """PPO's preferences are no values, so they have no TD error."""
    folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet", "--algo", "ppo")[1]
    desk, hub = opened(folder.path)
    assert [room["id"] for room in rooms(desk)] == ["latest", "you"] and rooms(desk)[0]["scores"] == "logits"
    packet = shown(hub, "latest")
    assert len(packet["q"]) == 2 and packet["value"] is None and packet["td_error"] is None


def test_a_zip_of_a_stranger_plays(opened: Open, tmp_path: Path) -> None:
    """stable-baselines3's own file, read without running anything of it, as the game that it is told to be of."""
    path = tmp_path / "mine.zip"
    stable_baselines3.DQN("MlpPolicy", "CartPole-v1", buffer_size=10).save(path)
    desk, hub = opened(path, game="cartpole")
    assert [room["id"] for room in rooms(desk)] == ["latest", "you"]
    assert "DQN" in rooms(desk)[0]["policy"] and rooms(desk)[0]["scores"] == "values"
    assert shown(hub, "latest")["value"] is not None


def test_an_artefact_plays_and_says_what_it_is(opened: Open, made: Path) -> None:  # noqa: F811
    """Its agreement, precision and size stand in the room, and it plays the games that it was judged on."""
    desk, hub = opened(made)
    assert [room["id"] for room in rooms(desk)] == ["frozen", "you"]
    frozen = rooms(desk)[0]["frozen"]
    assert frozen["precision"] == "int8" and 0 <= frozen["agreement"] <= 1 and frozen["bytes"] > 0
    assert len(shown(hub, "frozen")["q"]) == 2


def test_the_newest_artefact_of_a_run_is_its_frozen_room(
    opened: Open, made: Path, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """Whether the viewer froze it or the verb did; other runs' artefacts are not taken for it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.path, tmp_path / "copy")
    folder = RunFolder.open(tmp_path / "copy")
    assert newest_artefact(folder) == []
    names = (f"frozen/{viewing.folder_name('cartpole', 'copy', 'int8')}", "frozen/cartpole-other-int8", "copy/frozen/001")
    for name in names:
        shutil.copytree(made, tmp_path / name)
        time.sleep(0.01)
    found = [path.resolve().relative_to(tmp_path).as_posix() for path in newest_artefact(folder)]
    assert sorted(found) == sorted([names[2], names[0]])
    desk, hub = opened(folder.path)
    assert [room["id"] for room in rooms(desk)] == ["latest", "frozen", "you"]


def test_a_refused_policy_is_called_so(made: Path) -> None:  # noqa: F811
    """Whoever watches reads above the picture that the gate refused it."""
    card = artefact.read(made).card
    refused = card.model_copy(update={"refused": "it lost"})
    assert [viewing._frozen_title(each) for each in (card, refused)] == [
        "Frozen policy", "Frozen policy, REFUSED by its gate"
    ]  # fmt: skip


def test_freezing_opens_the_frozen_room(opened: Open, made: Path, trained: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    """The first artefact opens the room, the next one takes its place, and each time its agreement is told."""
    shutil.copytree(trained.path, tmp_path / "copy")
    desk, hub = opened(tmp_path / "copy")
    words = desk.freezing._command()
    assert words[:2] == ["freeze", str(tmp_path / "copy")] and words[words.index("--weights") + 1] == "last"
    assert words[words.index("--out") + 1] == str(tmp_path / "copy" / "frozen" / "001") and words[-1] == "--json"
    for _ in range(2):
        assert "agreement with the live policy" in desk.freezing._opened(made)
        assert [room["id"] for room in rooms(desk)] == ["latest", "frozen", "you"]
    eventually(lambda: rooms(desk)[1]["frozen"]["precision"] == "int8")
    assert shown(hub, "frozen")["q"]
