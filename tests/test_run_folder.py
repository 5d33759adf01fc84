"""Tests of agent/telemetry/run_folder.py."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.config import Settings
from agent.telemetry import run_folder
from agent.telemetry.evaluations import Evaluations
from agent.telemetry.run_folder import RunFolder, find, game_folder, list_runs, to_yaml

COMMAND = ["icebox", "train", "lunar-lander", "--name", "it's mine"]


def _create(root: Path, game: str = "lunar-lander", seed: int = 0, name: str | None = None) -> RunFolder:
    return RunFolder.create(root, game, seed, name, Settings(), COMMAND)


def _claim(parent: Path, start: object, results: object) -> None:
    start.wait()
    for _ in range(10):
        results.put(run_folder._claim(parent, "20261121-050900_s0").name)


def _run_until_killed(root: Path) -> None:
    run = _create(root)
    with run.hold():
        run.note(steps=4000)
        (root / "ready").touch()
        time.sleep(60)


def test_create_writes_what_a_run_needs(tmp_path: Path) -> None:
    """A new folder has settings, command, facts and the pointer, under game, time, seed and name."""
    run = _create(tmp_path, "minatar/breakout", 7, "first-try")
    assert run.path.parent == tmp_path / "minatar" / "breakout"
    assert run.path.name[8] == "-" and run.path.name[15:] == "_s7_first-try"
    assert (run.path.parent / "latest").read_text() == run.path.name + "\n"
    assert (run.path / "command.txt").read_text() == "icebox train lunar-lander --name 'it'\"'\"'s mine'\n"
    meta = run.meta()
    assert meta["game"] == run.game == "minatar/breakout" and meta["seed"] == 7 and meta["name"] == "first-try"
    assert meta["process"]["pid"] == os.getpid() and meta["ended"] is None and meta["device"] in ("cpu", "cuda")
    assert meta["versions"]["torch"] and meta["host"]["cores"] and "git" in meta
    assert run.status == "running" and run.settings() == Settings()
    assert not [path for path in run.path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("game", "folder"),
    [
        ("lunar-lander", "lunar-lander"),
        ("minatar/breakout", "minatar/breakout"),
        ("gym:Acrobot-v1", "gym-Acrobot-v1"),
        ("gym:ALE/Pong-v5", "gym-ALE/Pong-v5"),
        ("gym:my.module:Env-v0", "gym-my.module-Env-v0"),
        ("../../etc", "etc"),
        ("/etc/./x", "etc/x"),
    ],
)
def test_game_folder_is_a_plain_path_below_the_root(game: str, folder: str) -> None:
    """Slashes nest, other separators become dashes, and nothing leads out of the root."""
    assert game_folder(game) == Path(folder)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """The remedy is said and nothing is made."""
    with pytest.raises(ValueError, match="letters, digits"):
        _create(tmp_path, name=name)
    assert not list(tmp_path.iterdir())


def test_a_taken_name_is_counted_on(tmp_path: Path) -> None:
    """Several runs in one second get folders of their own."""
    names = {_create(tmp_path).path.name for _ in range(4)}
    assert len(names) == 4


def test_processes_that_race_for_a_name_all_get_their_own(tmp_path: Path) -> None:
    """Forty claims of one name from four processes at once make forty folders."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_claim, args=(tmp_path / "game", start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    names = [results.get(timeout=60) for _ in range(40)]
    for process in processes:
        process.join()
    assert len(set(names)) == 40
    stem = "20261121-050900_s0"
    assert set(names) == {path.name for path in (tmp_path / "game").iterdir()} == {stem} | {
        f"{stem}-{number}" for number in range(2, 41)
    }


@hypothesis_settings(max_examples=60, deadline=None)
@example({"sb3": {"\x85": {"\u2028": "na\u0308me: \ufeff#"}}})
@given(
    st.fixed_dictionaries(
        {
            "steps": st.integers(1, 10**12),
            "device": st.sampled_from(["auto", "cpu"]),
            "learner": st.fixed_dictionaries(
                {
                    "learning_rate": st.floats(1e-300, 1e3),
                    "learning_rate_end": st.none() | st.floats(0, 1),
                    "adam_epsilon": st.floats(5e-324, 1.0),
                }
            ),
            "network": st.fixed_dictionaries({"hidden": st.lists(st.integers(1, 4096), min_size=1, max_size=4)}),
            "sb3": st.dictionaries(
                st.text(min_size=1, max_size=8),
                st.dictionaries(
                    st.text(max_size=8),
                    st.recursive(
                        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
                        lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=5), leaf),
                        max_leaves=6,
                    ),
                    max_size=3,
                ),
                max_size=2,
            ),
        }
    )
)
def test_config_loads_back_equal(values: dict) -> None:
    """Whatever the settings are, config.yaml read by yaml.safe_load gives equal settings."""
    settings = Settings.model_validate(values)
    assert Settings.model_validate(yaml.safe_load(to_yaml(settings))) == settings


def test_config_can_be_read_by_a_person() -> None:
    """Every section stands under its comment, lists on one line."""
    text = to_yaml(Settings())
    assert "\n# How the agent explores while it plays.\nactor:\n  epsilon_start: 1.0\n" in text
    assert "  hidden: [256, 256]\n" in text and "!!" not in text


def test_a_damaged_config_names_its_file(tmp_path: Path) -> None:
    """Unknown settings and broken YAML are errors that name config.yaml and the place, in our words."""
    run = _create(tmp_path)
    for text, said in (
        (b"stepz: 3\n", "stepz: "),
        (b"seed: 1\na: [\n", "line 3 is not YAML"),
        (b"steps: many\n", "steps: "),
        (b"\xff\xff", "not YAML|not text"),
    ):
        (run.path / "config.yaml").write_bytes(text)
        with pytest.raises(ValueError, match=rf"config\.yaml does not hold the settings of a run: .*({said})") as raised:
            run.settings()
        assert "pydantic" not in str(raised.value) and "\n" not in str(raised.value)
    for text, said in (("{", "not the JSON"), ('{"status": "done"}', "does not say 'started'")):
        (run.path / "meta.json").write_text(text)
        with pytest.raises(ValueError, match=f"meta.json is damaged: it .*{said}") as raised:
            run.meta()
        assert "Error" not in str(raised.value)


def test_find_takes_paths_latest_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, `latest` over all games, GAME/latest and GAME/FOLDER all lead to the run, also for gym: games."""
    root = tmp_path / "runs"
    lander = _create(root).path
    breakout = _create(root, "minatar/breakout").path
    acrobot = _create(root, "gym:Acrobot-v1").path
    assert find(root, "latest") == acrobot
    assert find(root, "lunar-lander/latest") == lander
    assert find(root, "minatar/breakout/latest") == breakout
    assert find(root, "gym:Acrobot-v1/latest") == find(root, "gym-Acrobot-v1/latest") == acrobot
    assert find(root, f"minatar/breakout/{breakout.name}") == breakout
    assert find(root, f"gym:Acrobot-v1/{acrobot.name}") == acrobot
    assert find(root, str(lander)) == lander
    monkeypatch.chdir(tmp_path)
    assert find(root, f"runs/lunar-lander/{lander.name}").resolve() == lander.resolve()
    assert find(root, "runs/lunar-lander/latest").resolve() == lander.resolve()
    second = _create(root).path
    assert find(root, "latest") == find(root, "lunar-lander/latest") == second


def test_latest_survives_the_removal_of_its_run(tmp_path: Path) -> None:
    """When the run that `latest` names was deleted, the newest that is left is meant."""
    first, second = _create(tmp_path).path, _create(tmp_path).path
    for file in second.iterdir():
        file.unlink()
    second.rmdir()
    assert find(tmp_path, "lunar-lander/latest") == find(tmp_path, "latest") == first


def test_what_cannot_be_found_is_answered_with_near_matches(tmp_path: Path) -> None:
    """A misspelled game, a lone folder name, an empty root and a folder that is no run get a sentence that helps."""
    with pytest.raises(FileNotFoundError, match="holds none yet. Start one"):
        find(tmp_path / "runs", "latest")
    run = _create(tmp_path)
    with pytest.raises(FileNotFoundError, match="Near: lunar-lander/latest"):
        find(tmp_path, "lunar-landr/latest")
    with pytest.raises(FileNotFoundError, match=f"Near: lunar-lander/{run.path.name}"):
        find(tmp_path, run.path.name)
    with pytest.raises(FileNotFoundError, match="Near: latest, lunar-lander/latest"):
        find(tmp_path, "zzz")
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        find(tmp_path, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        RunFolder.open(tmp_path)
    assert RunFolder.open(run.path) == run


def test_list_shows_steps_best_and_age_newest_first(tmp_path: Path) -> None:
    """Each run is one row that `find` takes; what is damaged or half made is left out."""
    assert list_runs(tmp_path / "nothing") == []
    old, new = _create(tmp_path, "minatar/breakout"), _create(tmp_path)
    Evaluations(old.evaluations).add(100, [1.0, 4.0], [3, 3])
    old.set_status("done", steps=100)
    damaged = _create(tmp_path)
    (damaged.path / "meta.json").write_text("{")
    (tmp_path / "lunar-lander" / "half-made").mkdir()
    rows = list_runs(tmp_path)
    assert [row.run for row in rows] == [f"lunar-lander/{new.path.name}", f"minatar/breakout/{old.path.name}"]
    assert (rows[1].status, rows[1].steps, rows[1].total_steps, rows[1].best) == ("done", 100, 100_000, 2.5)
    assert rows[0].status == "running" and rows[0].best is None and 0 <= rows[0].age_s < 60
    assert all(find(tmp_path, row.run).is_dir() for row in rows)
    with pytest.raises(ValueError, match="damaged"):
        damaged.meta()


def test_a_killed_run_is_shown_as_crashed_and_can_be_held_again(tmp_path: Path) -> None:
    """kill -9 leaves `running` in the file; it is shown as crashed, keeps its facts, and its lock opens by itself."""
    process = multiprocessing.get_context("spawn").Process(target=_run_until_killed, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (row,) = list_runs(tmp_path)
    run = RunFolder.open(find(tmp_path, row.run))
    assert row.status == run.status == "running"
    with pytest.raises(RuntimeError, match=f"process {process.pid}"), run.hold():
        pass
    process.kill()
    process.join()
    assert list_runs(tmp_path)[0].status == run.status == "crashed" and run.meta()["steps"] == 4000
    with run.hold():
        assert run.status == "running" and run.meta()["process"]["pid"] == os.getpid()
        run.set_status("done", steps=9000)
    assert run.status == "done" and run.meta()["steps"] == 9000 and run.meta()["ended"]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "stopped"), (ZeroDivisionError, "crashed")])
def test_an_exception_sets_the_status_and_frees_the_run(tmp_path: Path, error: type, status: str) -> None:
    """Leaving by an exception is written down, unless the caller has already said how the run ended."""
    run = _create(tmp_path)
    with pytest.raises(error), run.hold():
        raise error
    assert run.status == status
    with pytest.raises(error), run.hold():
        run.set_status("done")
        raise error
    assert run.status == "done"


def test_a_run_from_before_a_restart_is_crashed(tmp_path: Path) -> None:
    """The same pid after a reboot of the machine is not the same process."""
    run = _create(tmp_path)
    run.note(process=run.meta()["process"] | {"start": "00000000-other-boot:123"})
    assert run.status == list_runs(tmp_path)[0].status == "crashed"


def test_listing_runs_does_not_import_torch() -> None:
    """`icebox runs` answers at once: neither importing the module nor listing loads torch."""
    code = (
        "import sys; from pathlib import Path; from agent.telemetry.run_folder import list_runs; "
        "list_runs(Path('nowhere')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_meta_is_plain_json(tmp_path: Path) -> None:
    """meta.json can be read by anything that reads JSON."""
    run = _create(tmp_path)
    assert json.loads((run.path / "meta.json").read_text()) == run.meta()
