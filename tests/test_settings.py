"""Tests of agent/cli/settings.py: what wins over what, and the exact words for every mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("envs.make")

from agent.cli import settings as cli
from agent.cli.errors import UsageError
from agent.config import Settings
from envs import make


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of configs in place of those that ship; the working directory is its parent."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(cli, "configs_dir", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def usage_error(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        cli.parse_train(argv)
    return str(caught.value)


def test_precedence(configs: Path) -> None:
    """Defaults < family file < game file < --config < command line, setting by setting."""
    write(configs / "minatar.yaml", "steps: 1\nseed: 1\nlearner: {batch_size: 1, target_interval: 1, discount: 0.1}\n")
    write(configs / "minatar/breakout.yaml", "seed: 2\nlearner: {target_interval: 2, discount: 0.2}\n")
    extra = write(configs.parent / "more.yaml", "learner: {discount: 0.3}\nthreads: 3\n")
    argv = ["minatar/breakout", "--config", str(extra), "--threads", "4"]
    parsed = cli.parse_train(argv).settings
    learner = parsed.learner
    assert (parsed.steps, learner.batch_size) == (1, 1)
    assert (parsed.seed, learner.target_interval) == (2, 2)
    assert learner.discount == 0.3
    assert parsed.threads == 4
    assert parsed.replay == Settings().replay


def test_precedence_of_presets(configs: Path) -> None:
    """Game file < preset < its family file < its game file < --config < command line; another preset does nothing."""
    keys = ("steps", "seed", "threads")
    learner = ("batch_size", "target_interval", "discount")
    layers = ["minatar/breakout", "presets/fast", "presets/fast/minatar", "presets/fast/minatar/breakout", "more"]
    for value, name in enumerate(layers, start=1):
        names = [*keys, *learner][value - 1 :]
        top = "".join(f"{key}: {value}\n" for key in keys if key in names)
        group = ", ".join(f"{key}: {value / 10 if key == 'discount' else value}" for key in learner if key in names)
        write(configs / f"{name}.yaml", f"{top}learner: {{{group}}}\n")
    write(configs / "presets/slow.yaml", "steps: 99\nreplay: {capacity: 99}\n")
    argv = ["minatar/breakout", "--preset", "fast", "--config", "configs/more.yaml", "--learner.discount", "0.6"]
    arguments = cli.parse_train(argv)
    parsed = arguments.settings
    assert arguments.preset == "fast"
    assert [getattr(parsed, key) for key in keys] == [1, 2, 3]
    assert [getattr(parsed.learner, key) for key in learner] == [4, 5, 0.6]
    assert parsed.replay == Settings().replay
    others = [cli.load_settings(game, preset="fast") for game in ("minatar/freeway", "cartpole")]
    assert [(other.seed, other.threads) for other in others] == [(2, 3), (2, 2)]


def test_an_unknown_preset_is_answered_with_the_nearest(configs: Path) -> None:
    """A misspelled preset names the right one and all; nothing outside the folder of presets is ever one."""
    write(configs / "cartpole.yaml", "")
    for name in ("fast", "slow"):
        write(configs / f"presets/{name}.yaml", "")
    assert usage_error("cartpole", "--preset", "Fsat") == (
        "unknown preset 'Fsat'. Did you mean 'fast'? Presets: fast, slow."
    )
    for name in ("../cartpole", "q", ""):
        assert usage_error("cartpole", "--preset", name) == f"unknown preset '{name}'. Presets: fast, slow."


@pytest.mark.parametrize("game", ["cartpole", "minatar/breakout", "gym:Acrobot-v1"])
def test_a_preset_without_a_file_for_the_game_is_refused(configs: Path, game: str) -> None:
    """A preset that has files for other families alone names them, instead of doing nothing."""
    write(configs / "presets/big/atari.yaml", "steps: 99\n")
    write(configs / "presets/fast.yaml", "")
    assert usage_error(game, "--preset", "big") == f"--preset big: only for atari/* games, not {game}."
    assert cli.load_settings("atari/pong", preset="big").steps == 99


def test_a_preset_for_another_family_says_where(configs: Path) -> None:
    """A preset that sets what this game does not know is refused with its file and line."""
    write(configs / "presets/fast.yaml", "game:\n  atari:\n    noop_max: 30\n")
    said = "configs/presets/fast.yaml:3: game.atari.noop_max: only for atari/* games, not cartpole."
    assert usage_error("cartpole", "--preset", "fast") == said


def test_nothing_said_is_the_default(configs: Path) -> None:
    """Without files and flags the settings are exactly those of agent/config.py, the type included."""
    arguments = cli.parse_train(["cartpole"])
    assert arguments == cli.TrainArguments(game="cartpole", settings=Settings())
    assert type(arguments.settings.network.hidden) is tuple


def test_flags_of_the_run(configs: Path) -> None:
    """The flags that are not settings come out beside them, wherever the game stands among the flags."""
    argv = ["--seed", "3", "cartpole", "--name", "a", "--runs-dir", "there", "--quiet"]
    arguments = cli.parse_train(argv)
    assert (arguments.game, arguments.name) == ("cartpole", "a")
    assert (arguments.runs_dir, arguments.quiet) == (Path("there"), True)
    assert arguments.settings.seed == 3


@pytest.mark.parametrize(
    ("argv", "read"),
    [
        (["--learner.batch-size", "64"], lambda s: s.learner.batch_size == 64),
        (["--learner.batch_size=64"], lambda s: s.learner.batch_size == 64),
        (["--learner.no-double"], lambda s: s.learner.double is False),
        (["--network.dueling"], lambda s: s.network.dueling is True),
        (["--network.hidden", "64", "32"], lambda s: s.network.hidden == (64, 32)),
        (["--learner.learning-rate", "1e-3"], lambda s: s.learner.learning_rate == 0.001),
        (["--replay.reward-clip", "1"], lambda s: s.replay.reward_clip == 1.0),
        (["--replay.reward-clip", "none"], lambda s: s.replay.reward_clip is None),
        (["--evaluation.stop-at-score", "-110"], lambda s: s.evaluation.stop_at_score == -110),
        (["--game.num-games", "4"], lambda s: s.game.num_games == 4),
        (["--algo", "ppo", "--device", "cpu"], lambda s: (s.algo, s.device) == ("ppo", "cpu")),
    ],
)
def test_flags(configs: Path, argv: list[str], read) -> None:
    """Every kind of setting is set by its dashed flag, and nothing else changes."""
    parsed = cli.parse_train(["cartpole", *argv]).settings
    assert read(parsed)
    changed = [name for name in Settings.model_fields if getattr(parsed, name) != getattr(Settings(), name)]
    assert len(changed) <= len([word for word in argv if word.startswith("--")])


@pytest.mark.parametrize("flag", ["--realtime", "--game.realtime"])
def test_a_game_in_real_time_is_one_game(configs: Path, flag: str) -> None:
    """Whoever asks for real time, by flag or file, gets one game, whatever files below say, and may not ask for two."""
    write(configs / "cartpole.yaml", "game: {num_games: 8}\n")
    game = cli.parse_train(["cartpole", flag, "60"]).settings.game
    assert (game.realtime, game.num_games) == (60.0, 1)
    assert cli.parse_train(["cartpole", flag, "none"]).settings.game.num_games == 8
    clocked = write(configs.parent / "clocked.yaml", "game: {realtime: 30}\n")
    game = cli.parse_train(["cartpole", "--config", str(clocked)]).settings.game
    assert (game.realtime, game.num_games) == (30.0, 1)
    write(clocked, "game: {realtime: 30, num_games: 2}\n")
    assert "must be 1 or left out, got 2" in usage_error("cartpole", "--config", str(clocked))


def test_nested_flags_of_a_family() -> None:
    """A family's own settings are flags of that family's games."""
    name = "minatar/breakout"
    assert cli.parse_train([name, "--game.minatar.sticky-actions", "0"]).settings.game.minatar.sticky_actions == 0


LISTS_ALL = " 'icebox train --help' lists all flags."


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lunar-landr"], "unknown game 'lunar-landr'. Did you mean 'lunar-lander'? 'icebox games' lists all."),
        (["qqq"], "unknown game 'qqq'. 'icebox games' lists all."),
        (
            ["minatar/brekout"],
            "unknown game 'minatar/brekout'. Did you mean 'minatar/breakout'? 'icebox games' lists all.",
        ),
        (
            ["cartpole", "--learner.learning-rat", "3"],
            "unknown flag --learner.learning-rat. Did you mean --learner.learning-rate?" + LISTS_ALL,
        ),
        (["cartpole", "--zzz"], "unknown flag --zzz." + LISTS_ALL),
        (["cartpole", "--sb3", "3"], "unknown flag --sb3." + LISTS_ALL),
        (["cartpole", "pong"], "nothing is known to do with 'pong'." + LISTS_ALL),
        (["cartpole", "--steps"], "--steps needs a value." + LISTS_ALL),
        (["cartpole", "--learner.batch-size", "0"], "--learner.batch-size: must be a whole number, at least 1, got 0."),
        (["cartpole", "--learner.batch-size", "x"], "--learner.batch-size: must be a whole number, at least 1, got x."),
        (["cartpole", "--learner.discount", "1.5"], "--learner.discount: must be a number from 0 to 1, got 1.5."),
        (
            ["cartpole", "--learner.learning-rate", "nan"],
            "--learner.learning-rate: must be a number greater than 0, got nan.",
        ),
        (
            ["cartpole", "--replay.reward-clip", "-1"],
            "--replay.reward-clip: must be a number greater than 0 or none, got -1.",
        ),
        (
            ["cartpole", "--network.hidden", "8", "a"],
            "--network.hidden: must be a list, not empty, each entry a whole number, at least 1, got a.",
        ),
        (
            ["cartpole", "--network.hidden", "0"],
            "--network.hidden: must be a list, not empty, each entry a whole number, at least 1, got 0.",
        ),
        (
            ["cartpole", "--network.hidden"],
            "--network.hidden: must be a list, not empty, each entry a whole number, at least 1, got ().",
        ),
        (["cartpole", "--device", "tpu"], "--device: must be one of auto, cpu, cuda, got tpu."),
        (
            ["cartpole", "--seed", "-1", "--steps", "0"],
            "--steps: must be a whole number, at least 1, got 0.\n--seed: must be a whole number, at least 0, got -1.",
        ),
        (["cartpole", "--replay.capacity", "1"], "replay.capacity (1) must be at least learner.batch_size (32)."),
        (
            ["cartpole", "--realtime", "60", "--game.num-games", "4"],
            "game.realtime plays one game by the clock: game.num_games must be 1 or left out, got 4.",
        ),
        (
            ["cartpole", "--realtime", "60", "--algo", "ppo"],
            "game.realtime is for algo icebox, not ppo: it learns when it likes.",
        ),
        (["cartpole", "--game.atari.stack", "4"], "--game.atari.stack: only for atari/* games, not cartpole."),
        (
            ["cartpole", "--game.minatar.no-ramping"],
            "--game.minatar.no-ramping: only for minatar/* games, not cartpole.",
        ),
        (["cartpole", "--config", "mor.yaml"], "config file mor.yaml does not exist. Did you mean more.yaml?"),
        (
            [],
            "which game? Usage: icebox train GAME [flags]\nGAME is cartpole, acrobot, mountain-car, lunar-lander, "
            "minatar/NAME, atari/NAME or gym:ID. 'icebox games' lists all.",
        ),
    ],
)
def test_mistakes_on_the_command_line(configs: Path, argv: list[str], message: str) -> None:
    """Each mistake gets exactly one plain sentence that names it and the remedy."""
    write(configs.parent / "more.yaml", "")
    assert usage_error(*argv) == message


def test_faults_of_files_are_found_together(configs: Path) -> None:
    """Unknown keys and bad values of all files are reported at once, each with its file and line."""
    write(configs / "minatar.yaml", "learner:\n  learning_rat: 3\n  batch_size: 0\n")
    write(configs / "minatar/breakout.yaml", "stepss: 3\nseed: x\n")
    assert usage_error("minatar/breakout") == (
        "configs/minatar.yaml:2: learner.learning_rat: unknown setting. Did you mean learner.learning_rate?\n"
        "configs/minatar/breakout.yaml:1: stepss: unknown setting. Did you mean steps?\n"
        "configs/minatar/breakout.yaml:2: seed: must be a whole number, at least 0, got x.\n"
        "configs/minatar.yaml:3: learner.batch_size: must be a whole number, at least 1, got 0."
    )


def test_a_later_file_may_set_a_whole_again(configs: Path) -> None:
    """Rules between settings are checked when all files are laid over each other, not file by file."""
    write(configs / "minatar.yaml", "replay: {capacity: 16}\n")
    write(configs / "minatar/breakout.yaml", "learner: {batch_size: 8}\n")
    assert cli.load_settings("minatar/breakout").replay.capacity == 16
    assert usage_error("minatar/freeway") == "replay.capacity (16) must be at least learner.batch_size (32)."


def test_settings_of_another_family(configs: Path) -> None:
    """A file that changes another family's settings is refused; one that merely holds their defaults is not."""
    write(configs / "cartpole.yaml", "game:\n  atari:\n    stack: 2\n")
    assert usage_error("cartpole") == "configs/cartpole.yaml:3: game.atari.stack: only for atari/* games, not cartpole."
    write(configs / "cartpole.yaml", "game:\n  atari:\n    stack: 4\n")
    assert cli.load_settings("cartpole") == Settings()


def test_a_resolved_config_reads_back(tmp_path: Path) -> None:
    """The config.yaml that a run writes is itself a config file that gives the same settings."""
    run_folder = pytest.importorskip("agent.telemetry.run_folder")
    settings = cli.parse_train(["lunar-lander", "--learner.learning-rate", "1e-8", "--network.hidden", "3"]).settings
    file = write(tmp_path / "config.yaml", run_folder.to_yaml(settings))
    assert cli.read_settings([file], "lunar-lander") == settings


def test_arguments_of_sb3_are_yaml_only(configs: Path) -> None:
    """`sb3` passes through YAML and the command line untouched; a misspelled algorithm in it is found."""
    write(configs / "cartpole.yaml", "sb3:\n  ppo: {n_steps: 64, policy_kwargs: {net_arch: [8, 8]}}\n")
    expected = {"ppo": {"n_steps": 64, "policy_kwargs": {"net_arch": [8, 8]}}}
    assert cli.parse_train(["cartpole", "--seed", "1"]).settings.sb3 == expected
    write(configs / "cartpole.yaml", "sb3:\n  pppo: {}\n")
    assert usage_error("cartpole") == "configs/cartpole.yaml:2: sb3.pppo: unknown setting. Did you mean sb3.ppo?"


def test_help_shows_the_games_values(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train GAME --help` names every flag, with its docstring and this game's value as the default."""
    write(configs / "cartpole.yaml", "learner: {batch_size: 77}\nnetwork: {hidden: [7, 6]}\n")
    for argv in (["cartpole", "--help"], ["--help", "cartpole"]):
        with pytest.raises(SystemExit) as stop:
            cli.parse_train(argv)
        assert not stop.value.code
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "--learner.batch-size INT Transitions per update. (default: 77)" in text
        assert "(default: 7 6)" in text
        assert "--learner.double, --learner.no-double" in text
        assert "--replay.reward-clip FLOAT|none" in text
        for flag in ("--steps", "--game.num-games", "--game.atari.sticky-actions", "--telemetry.interval-s", "--name"):
            assert flag in text
        assert "--sb3" not in text


def test_help_shows_the_presets_values(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train GAME --preset NAME --help` shows that preset's values as the defaults."""
    write(configs / "presets/fast.yaml", "learner: {batch_size: 78}\n")
    with pytest.raises(SystemExit) as stop:
        cli.parse_train(["cartpole", "--help", "--preset", "fast"])
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--learner.batch-size INT Transitions per update. (default: 78)" in text


PLAYED_WITH = {"gym": "gym:CartPole-v1", "atari": "atari/pong", "minatar": "minatar/breakout", "cpu": "cartpole"}
FOLDER = cli.configs_dir()


@pytest.mark.parametrize(
    "name", sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
)
def test_shipped_configs(name: str) -> None:
    """Every file in configs/ belongs to a game, a family or a preset (and there to a game or family), and loads."""
    rooms = name.split("/")
    preset = rooms[1] if rooms[0] == "presets" else None
    last = "/".join(rooms[2:] or [preset]) if preset else name
    game = PLAYED_WITH.get(last, last)
    assert FOLDER / f"{name}.yaml" in cli.config_files(game, preset)
    cli.load_settings(game, preset=preset)
    if game in make.games():
        assert cli.canonical_game(game) == game


def test_help_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """Each preset that ships is explained by --help, and no other."""
    with pytest.raises(SystemExit):
        cli.parse_train(["--help"])
    told = capsys.readouterr().out.replace("│", " ").partition("--preset NAME")[2].partition("--config")[0]
    assert re.findall(r"(\w+):(?=\s+[AM])", told) == sorted(cli.presets(), key=told.index)


def test_the_published_preset_is_over_what_atari_has() -> None:
    """btr holds the paper's values for every Atari game, whatever the files of the family say, and short differs."""
    btr, short = (cli.load_settings("atari/pong", preset=name) for name in ("btr", "short"))
    assert (btr.steps, short.steps) == (200_000_000 // 4, 10_000_000 // 4)
    assert btr.replay.capacity == 2**20 and btr.learner.adam_epsilon == 0.005 / 256
    updates_per_step = btr.learner.samples_per_insert / btr.learner.batch_size
    assert updates_per_step * btr.game.num_games == 1
    assert btr.network == short.network
    assert short.learner == btr.learner.model_copy(
        update={"samples_per_insert": 16.0, "learning_starts": 20_000, "discount": 0.99}
    )


def test_names_are_canonical() -> None:
    """A game's name is found whatever its case; a Gymnasium id is kept as it is."""
    assert cli.canonical_game("Lunar_Lander") == "lunar-lander"
    assert cli.canonical_game("gym:CartPole-v1") == "gym:CartPole-v1"


def test_a_game_without_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare name of a family's game is answered with every full name."""
    monkeypatch.setattr(make, "games", lambda: ("cartpole", "minatar/breakout", "atari/breakout"))
    expected = "unknown game 'breakout'. Did you mean 'minatar/breakout' or 'atari/breakout'? 'icebox games' lists all."
    assert usage_error("breakout") == expected


def test_a_gymnasium_id_is_looked_up_at_once() -> None:
    """An id that Gymnasium does not know is refused before anything is started."""
    with pytest.raises(ValueError, match="Nope-v1"):
        cli.canonical_game("gym:Nope-v1")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A game of an extra that is not installed is answered with the command that installs it."""
    monkeypatch.setattr(cli, "is_installed", lambda module: False)
    assert usage_error("atari/pong") == 'atari/pong needs ale-py: pip install ale-py'


def test_config_files_stay_in_their_folder() -> None:
    """A Gymnasium id never becomes a path."""
    assert [path.name for path in cli.config_files("gym:../../etc/passwd")] == ["gym.yaml"]
