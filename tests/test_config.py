"""The settings: frozen, documented, and narrow enough that nonsense is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent import config
from agent.config import Section, Settings

SECTIONS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, Section)]


def every_setting(kind: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted name and field of each setting that is not a group."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from every_setting(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def with_value(name: str, value: Any) -> Settings:
    """Settings in which the setting of that dotted name has been given."""
    tree: Any = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return Settings.model_validate(tree)


def value_of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def test_every_setting_is_documented() -> None:
    """Each setting has a docstring that ends in a full stop, which becomes its help; each group's class has one too."""
    found = dict(every_setting())
    assert len(found) > 40 and "game.atari.sticky_actions" in found
    assert [name for name, field in found.items() if not (field.description or "").endswith(".")] == []
    assert [kind.__name__ for kind in SECTIONS if not vars(kind).get("__doc__")] == []


def test_every_group_can_be_reached() -> None:
    """No group of settings stands in the file without a place in `Settings`."""
    reached, todo = set(), [Settings]
    while todo:
        kind = todo.pop()
        reached.add(kind)
        annotations = [field.annotation for field in kind.model_fields.values()]
        todo += [other for other in annotations if isinstance(other, type) and issubclass(other, Section)]
    assert set(SECTIONS) == reached | {Section}


@pytest.mark.parametrize("name", [name for name, _ in every_setting()])
def test_every_setting_is_frozen(name: str) -> None:
    """What was read stays as it is: no setting can be assigned, at any depth."""
    *groups, last = name.split(".")
    settings = Settings()
    group = value_of(settings, ".".join(groups)) if groups else settings
    with pytest.raises(ValidationError, match="frozen"):
        setattr(group, last, getattr(group, last))


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_unknown_keys_are_errors(kind: type[Section]) -> None:
    """A key that no setting has is refused in every group, and named."""
    with pytest.raises(ValidationError, match="learning_rat\n.*[Ee]xtra"):
        kind.model_validate({"learning_rat": 1})


def test_defaults_are_valid_and_survive_json() -> None:
    """The defaults pass their own checks, and settings read back from what was written are equal."""
    assert Settings.model_validate(Settings().model_dump()) == Settings()
    changed = with_value("network.hidden", (512, 3))
    assert changed != Settings()
    assert Settings.model_validate_json(changed.model_dump_json()) == changed


def test_two_settings_share_nothing_that_can_change() -> None:
    """The one open mapping belongs to each `Settings` alone."""
    first = Settings()
    first.sb3["ppo"] = {"n_steps": 1}
    assert Settings().sb3 == {}


FRACTIONS = (
    "game.atari.sticky_actions game.minatar.sticky_actions actor.epsilon_start actor.epsilon_end "
    "replay.priority_exponent replay.importance_exponent replay.importance_exponent_end learner.discount "
    "learner.munchausen evaluation.epsilon"
).split()
FROM_ONE = (
    "steps game.num_games game.atari.frame_skip game.atari.stack game.atari.max_frames game.minatar.max_steps "
    "actor.epsilon_steps replay.n_step learner.batch_size learner.target_interval evaluation.episodes "
    "evaluation.num_games evaluation.plateau.budget_steps checkpoint.keep network.quantiles network.cosines "
    "learner.fractions learner.target_fractions"
).split()
FROM_ZERO = (
    "seed threads game.threads game.atari.noop_max learner.learning_starts evaluation.interval_steps "
    "checkpoint.interval_steps"
).split()
ABOVE_ZERO = (
    "replay.reward_clip learner.samples_per_insert learner.learning_rate learner.adam_epsilon learner.max_grad_norm "
    "telemetry.interval_s network.noisy_sigma game.deadline_s"
).split()
SWITCHES = (
    "game.atari.fire_reset game.atari.life_loss_ends game.atari.full_action_space game.minatar.ramping "
    "game.minatar.minimal_actions network.dueling learner.double network.layer_norm network.noisy"
).split()
CHOICES = (
    "device algo game.vectorize replay.device network.torso learner.loss actor.epsilon_schedule network.distribution "
    "learner.munchausen_reference evaluation.plateau.action replay.compression learner.execution learner.autocast"
).split()
OTHERS = (
    "replay.capacity network.hidden learner.learning_rate_end evaluation.stop_at_score sb3 actor.epsilon_ladder "
    "actor.epsilon_off_after replay.n_step_end network.max_pool learner.average_updates learner.discount_end learner.munchausen_clip game.seeds "
    "game.realtime "
    "evaluation.plateau.factor learner.munchausen_temperature network.width network.spectral_norm"
).split()
INF, NAN = float("inf"), float("nan")


def test_real_time_is_for_one_game_of_ours() -> None:
    """Decisions a second are above 0, and go with one game, our own algorithm and updates that can be broken off."""
    for value in (None, 0.5, 60):
        assert Settings.model_validate({"game": {"realtime": value, "num_games": 1}}).game.realtime == value
    for value in (0, -1, INF, NAN):
        with pytest.raises(ValidationError):
            Settings.model_validate({"game": {"realtime": value, "num_games": 1}})
    with pytest.raises(ValidationError, match=r"game\.num_games must be 1 or left out, got 8"):
        Settings.model_validate({"game": {"realtime": 60}})
    for other, said in (({"algo": "ppo"}, "not ppo"), ({"learner": {"execution": "captured"}}, "got captured")):
        with pytest.raises(ValidationError, match=said):
            Settings.model_validate({"game": {"realtime": 60, "num_games": 1}} | other)


def test_the_range_of_every_setting_is_tested() -> None:
    """No setting is missing from the tables above."""
    tables = (FRACTIONS, FROM_ONE, FROM_ZERO, ABOVE_ZERO, SWITCHES, CHOICES, OTHERS)
    assert sorted(name for table in tables for name in table) == sorted(name for name, _ in every_setting())


@pytest.mark.parametrize(
    ("names", "good", "bad"),
    [
        (FRACTIONS, [0.0, 0.5, 1.0, "0.25"], [-1e-9, 1.0 + 1e-9, NAN, INF, None]),
        (FROM_ONE, [1, 2, "3"], [0, -1, 1.5, NAN, None]),
        (FROM_ZERO, [0, 1, "2"], [-1, 0.5, INF, None]),
        (ABOVE_ZERO, [1e-12, 7.5, "1e-4"], [0.0, -1.0, NAN, INF]),
        (SWITCHES, [True, False], [2, "perhaps", None]),
        (CHOICES, [], ["", "x", None]),
        (["replay.capacity"], [32, 10**9], [0, -5, 31, 40.5, None]),
        (["network.hidden"], [(1,), (512, 256)], [(0,), (256, -1), (1.5,), 256, None]),
        (["learner.learning_rate_end"], [0.0, 1e-5, None], [-1e-9, NAN, INF]),
        (["evaluation.stop_at_score"], [-110.0, 0.0, None], [NAN, INF, -INF]),
        (["replay.reward_clip"], [None], []),
        (["actor.epsilon_ladder"], [0.0, 7.0, 100.0], [-1e-9, 100.1, INF, None]),
        (["actor.epsilon_off_after"], [None], [-1, 0.5]),
        (["replay.n_step_end", "network.max_pool", "game.seeds", "learner.average_updates"], [1, None], [0, 1.5]),
        (["game.seeds"], [10**6], [10**6 + 1]),
        (["learner.munchausen_temperature"], [1e-6, 0.03], [0.0, 9e-7, INF, None]),
        (["learner.discount_end"], [0.0, 0.9, None], [-1e-9, 1.1]),
        (["learner.munchausen_clip"], [0.0, -1.0], [1e-9, -INF, None]),
        (["evaluation.plateau.factor"], [0.5, 1e-3], [0.0, 1.0, None]),
        (["sb3"], [{"ppo": {"n_steps": 1}}], [{"ppo": 1}, []]),
    ],
)
def test_ranges(names: list[str], good: list[Any], bad: list[Any]) -> None:
    """Values up to the edge of a range are taken, also as words; those beyond it and NaN are refused by name."""
    for name in names:
        assert with_value(name, value_of(Settings(), name)) == Settings()
        for value in good:
            taken = value_of(with_value(name, value), name)
            assert taken == (float(value) if isinstance(value, str) else value)
        for value in bad:
            with pytest.raises(ValidationError) as error:
                with_value(name, value)
            assert name.split(".")[-1] in str(error.value)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_taken(name: str) -> None:
    """Each of the words that a choice allows is taken as it is, and the default is one of them."""
    words = dict(every_setting())[name].annotation.__args__
    assert value_of(Settings(), name) == words[0]
    assert [value_of(with_value(name, word), name) for word in words] == list(words)


def test_replay_holds_at_least_a_batch() -> None:
    """A replay smaller than one batch is refused with both numbers; one of exactly a batch is enough."""
    def both(capacity: int) -> Settings:
        return Settings.model_validate({"replay": {"capacity": capacity}, "learner": {"batch_size": 64}})

    assert both(64).replay.capacity == 64
    with pytest.raises(ValidationError, match=r"replay\.capacity \(63\) must be at least learner\.batch_size \(64\)"):
        both(63)


def test_only_replay_on_the_host_is_compressed() -> None:
    """A compressed replay on the GPU is refused with the remedy; where the place is free it goes to the host."""
    for device in ("auto", "cpu"):
        assert Settings.model_validate({"replay": {"compression": "lz4", "device": device}}).replay.compression == "lz4"
    with pytest.raises(ValidationError, match="replay.compression is for replay on the host: set replay.device auto"):
        Settings.model_validate({"replay": {"compression": "lz4", "device": "cuda"}})


def test_replay_holds_two_rows_of_every_game() -> None:
    """With one row a game whose episode has just ended would have nothing in replay; two for each are enough."""
    def both(capacity: int) -> Settings:
        return Settings.model_validate({"replay": {"capacity": capacity}, "game": {"num_games": 64}})

    assert both(128).replay.capacity == 128
    with pytest.raises(ValidationError, match=r"replay\.capacity \(127\) must be at least 2 \* game\.num_games \(128\)"):
        both(127)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"actor": {"epsilon_off_after": 0}}, "needs network.noisy"),
        ({"network": {"spectral_norm": True}}, "for network.torso impala"),
        ({"network": {"width": 2}}, "for network.torso impala"),
        ({"network": {"distribution": "quantile"}, "learner": {"loss": "mse"}}, "learner.loss must be huber"),
        ({"evaluation": {"interval_steps": 0, "plateau": {"action": "stop"}}}, "interval_steps above 0"),
        ({"evaluation": {"interval_steps": 9, "plateau": {"action": "lower", "budget_steps": 8}}}, r"\(8\) must be at least"),
    ],
)
def test_settings_that_could_not_act_are_refused(tree: dict[str, Any], said: str) -> None:
    """A part that another setting leaves without effect is an error, not a silence."""
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate(tree)


def test_only_impala_has_a_width_and_spectral_norm() -> None:
    """There they take what their kinds say, and no other torso has them."""
    for width, spectral_norm in ((1, True), (4, False)):
        chosen = {"torso": "impala", "width": width, "spectral_norm": spectral_norm}
        assert Settings.model_validate({"network": chosen}).network.width == width
    for wrong in ({"width": 0}, {"width": 1.5}, {"spectral_norm": "perhaps"}):
        with pytest.raises(ValidationError):
            Settings.model_validate({"network": {"torso": "impala"} | wrong})


def test_the_last_n_is_not_above_the_first() -> None:
    """Replay is built for its largest n, which therefore stands first."""
    assert Settings.model_validate({"replay": {"n_step": 3, "n_step_end": 3}}).replay.n_step_end == 3
    with pytest.raises(ValidationError, match=r"replay\.n_step_end \(4\) must be at most replay\.n_step \(3\)"):
        Settings.model_validate({"replay": {"n_step": 3, "n_step_end": 4}})


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.9), (0.9, 1.0)])
def test_a_moving_gamma_stays_below_one(start: float, end: float) -> None:
    """1 - gamma moves by equal factors, which has no meaning from or to 0; a constant gamma may be 1."""
    with pytest.raises(ValidationError, match="must be below 1 when both are given"):
        Settings.model_validate({"learner": {"discount": start, "discount_end": end}})
    assert Settings.model_validate({"learner": {"discount": 1.0}}).learner.discount == 1.0


def test_samples_per_insert_is_dqns() -> None:
    """The default replay ratio is that of Mnih et al. 2015: a batch of 32 every 4 steps."""
    assert Settings().learner.samples_per_insert == Settings().learner.batch_size / 4


def test_hidden_needs_a_layer() -> None:
    """A network without a hidden layer is refused where every other range is."""
    with pytest.raises(ValidationError, match="hidden"):
        with_value("network.hidden", ())
