"""What is not finite changes no weight and enters no replay, and it is counted: against runs that leave it out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from faults.non_finite import VALUES, Rows, Spoilt, spoilt_loss, undo_updates
from learners import same

from agent.actor import Actor
from agent.config import Settings
from agent.guard import IN_A_ROW, STEPS, UPDATES, Faults, NonFinite, finite_or_zero, finite_rows, single, unsound
from agent.learner import Learner
from agent.loop import Clock, interleave
from agent.losses import make_loss
from agent.nets.q_network import make_q_network
from agent.replay.replay import Replay
from agent.schedules import constant, learner_schedules
from agent.seeding import numpy_generator, torch_generator
from envs.fakes import CountingGame

GAMES, N_STEP, BATCH, STARTS = 3, 3, 8, 40
AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {"learner": {"loss": "mse"}},
    "qr": {"network": {"distribution": "quantile", "quantiles": 5, "dueling": True}},
    "iqn+munchausen": {
        "network": {"distribution": "implicit", "quantiles": 4, "cosines": 4, "noisy": True},
        "learner": {"fractions": 3, "target_fractions": 3, "munchausen": 0.9, "average_updates": 20},
    },
}


class Run:
    """A small agent on counting games, whose course no action changes; `left_out` makes it the slow one, of lists."""

    def __init__(self, agent: str, games: Any = None, left_out: set[tuple[int, int]] | None = None, seed: int = 0):
        chosen = {"steps": 1000, "network": {"hidden": (12,)}, "learner": {}, "replay": {"n_step": N_STEP}}
        chosen["learner"] = {"batch_size": BATCH, "target_interval": 5, "samples_per_insert": 2.0, "execution": "eager"}
        for section, values in AGENTS[agent].items():
            chosen[section] = chosen[section] | values
        self.settings = settings = Settings.model_validate(chosen)
        self.games = counting(seed) if games is None else games
        network = make_q_network(settings.network, (3,), False, 2, torch_generator(seed, "network"))
        generator = torch_generator(seed, "replay")
        self.replay: Any = Rows(N_STEP, 0.6, generator, left_out or set()) if left_out is not None else Replay(
            num_games=GAMES, capacity=2_000, observation_shape=(3,), observation_dtype="float32", stack=1,
            n_step=N_STEP, discount=0.9, priority_exponent=0.6, reward_clip=None, generator=generator, device="cpu",
        )  # fmt: skip
        self.learner = Learner(
            network,
            self.replay,
            make_loss(settings.network, settings.learner),
            settings.learner,
            generator=torch_generator(seed, "learner"),
            faults=getattr(self.replay, "faults", None),
            **learner_schedules(settings, 1000),
        )
        noise = torch_generator(seed, "noise") if settings.network.noisy else None
        actor = Actor(network, 2, constant(0.3), numpy_generator(seed, "actor"), torch.device("cpu"), noise=noise)
        self.clock = Clock(settings.learner.samples_per_insert, BATCH, STARTS)
        self.ticks = interleave(self.games, actor, self.replay, self.learner, self.clock)

    def play(self, ticks: int) -> Run:
        for _ in itertools.islice(self.ticks, ticks):
            pass
        self.learner.count_skipped()
        return self

    def learned(self) -> dict[str, Any]:
        """Everything that learning has changed."""
        return self.learner.state_dict() | {"clock": self.clock.state_dict()}

    def finite(self) -> bool:
        tensors = [*self.learner.network.state_dict().values(), *self.learner.optimizer.written]
        tensors += [*self.learner.target.state_dict().values(), *self.learner.average.state_dict().values()]
        return all(bool(tensor.isfinite().all()) for tensor in tensors)


def counting(seed: int) -> CountingGame:
    games = CountingGame(GAMES, end_probability=0.1)
    games.reset(seed)
    return games


def moments(seed: int, ticks: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Three random (tick, game) at which a step is spoilt: any, and those that the game plays (and does not begin)."""
    rng, games, played = np.random.default_rng(seed), counting(seed), []
    for tick in range(ticks):
        games.send(np.zeros(GAMES, np.int64))
        played += [(tick, int(game)) for game in np.flatnonzero(~games.recv().first)]
    every = [(tick, game) for tick in range(ticks) for game in range(GAMES)]
    return tuple([source[at] for at in rng.choice(len(source), 3, replace=False)] for source in (every, played))


def check_case(agent: str, place: str, value: str, seed: int, ticks: int) -> None:
    """One case of the promise."""
    number, spoils = VALUES[value], value != "1e30"
    anywhere, played = moments(seed, ticks)
    if place in ("loss", "gradient"):
        run, slow = (Run(agent, seed=seed) for _ in range(2))
        updates = {int(each) for each in np.random.default_rng(seed).choice(np.arange(1, ticks // 3), 3, replace=False)}
        run.learner.loss = spoilt_loss(run.learner.loss, updates, place, number)
        skips = spoils or place == "gradient"  # a loss of 1e30 is one like any other
        undo_updates(slow.learner, updates if skips else set())
        expected = {UPDATES: 3} if skips else {}
    else:
        chosen = anywhere if place == "observation" else played
        at: dict[int, dict[int, tuple[str, float]]] = {}
        for tick, game in chosen:
            at.setdefault(tick, {})[game] = (place, number)
        run = Run(agent, Spoilt(counting(seed), at), seed=seed)
        left_out = {*chosen, *((tick + 1, game) for tick, game in chosen if place == "observation")}
        slow = Run(agent, left_out=left_out if spoils else set(), seed=seed)
        expected = {STEPS: 3} if spoils else {}
    run.play(ticks)
    assert run.finite() and run.learner.updates > ticks // 3
    film = run.replay.film
    assert bool(film.reward.isfinite().all())
    assert bool(film.frames.read(torch.arange(film.num_rows)).isfinite().all())
    if spoils or place in ("loss", "gradient"):
        assert {tag: count for tag, count in run.learner.faults.counts.items() if count} == expected
        assert same(run.learned(), slow.play(ticks).learned())
    else:
        assert run.learner.faults.counts[STEPS] == 0
        assert 1e30 in run.replay.film.reward or bool((run.replay.film.frames.read(torch.arange(99)) == 1e30).any())


CASES = list(itertools.product(AGENTS, ("observation", "reward", "loss", "gradient"), VALUES))


@pytest.mark.parametrize(("agent", "place", "value"), CASES)
def test_what_is_not_finite_is_as_if_it_had_not_been(agent: str, place: str, value: str) -> None:
    """Weights, moments, target and average are bit for bit those of lists from which it was crossed out; 1e30 does no
    harm."""
    check_case(agent, place, value, seed=CASES.index((agent, place, value)), ticks=60)


@pytest.mark.night
@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize(("agent", "place", "value"), CASES)
def test_what_is_not_finite_is_as_if_it_had_not_been_at_length(agent: str, place: str, value: str, seed: int) -> None:
    """The same in runs of 600 ticks, at other moments."""
    check_case(agent, place, value, seed=1000 * seed + CASES.index((agent, place, value)), ticks=600)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.int64])
def test_rows_are_finite_as_a_slow_look_says(dtype: type) -> None:
    """A row counts as finite when each of its numbers is in 32 bits; what is asked instead is it, or zeros."""
    rng = np.random.default_rng(0)
    for shape in ((5,), (4, 3), (3, 2, 2)):
        numbers = (rng.normal(size=shape) * 100).astype(dtype)
        if numbers.dtype.kind == "f":
            with np.errstate(over="ignore"):
                strange = np.array([np.nan, np.inf, -np.inf, 1e39, -1e39, 3e38, 0.0]).astype(dtype)
            numbers.flat[rng.integers(numbers.size, size=2)] = rng.choice(strange, 2)
        with np.errstate(over="ignore"):
            slow = [bool(np.isfinite(np.float32(row)).all()) for row in numbers]
        assert finite_rows(numbers).tolist() == slow
        asked = finite_or_zero(numbers)
        assert asked.dtype == numbers.dtype and (asked is numbers) == all(slow)
        for row, before, is_finite in zip(asked, numbers, slow, strict=True):
            assert np.array_equal(row, before) if is_finite else not np.any(row)


def test_numbers_that_are_too_large_become_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """1e39 is infinite in 32 bits, and nobody is warned of it."""
    assert single(np.array([1.5, 1e39, -1e39])).tolist() == [1.5, np.inf, -np.inf] and not len(recwarn)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 0.0, -1.0])
def test_unsound_is_one_where_a_number_is_not_finite(value: float) -> None:
    """It is 1 or 0 in the number's own type."""
    found = unsound(torch.tensor(value))
    assert found.dtype == torch.float32 and float(found) == float(not np.isfinite(value))


def test_an_event_is_told_the_first_time_the_tenth_and_the_hundredth() -> None:
    """Of 150 events a person hears three times, with the count; a restart is told by the games themselves."""
    faults, said = Faults(), []
    faults.say = said.append
    for _ in range(150):
        faults.add(STEPS)
    assert len(said) == 3
    assert "so far" not in said[0] and said[1].endswith("(10 so far)") and said[2].endswith("(100 so far)")
    faults.add("faults/game_restarts")
    assert len(said) == 3 and faults.figures() == {STEPS: 150.0, "faults/game_restarts": 1.0}


def test_the_counts_last_and_what_came_in_a_row_does_not() -> None:
    """A resumed run knows how often, has another hundred before it ends, and takes a state that knows of none."""
    faults, other = Faults(), Faults()
    wrong = np.ones(1, bool)
    for _ in range(IN_A_ROW - 1):
        faults.steps(np.zeros(1, np.int64), wrong)
    other.load_state_dict(faults.state_dict())
    assert other.counts == faults.counts and faults.counts[STEPS] == IN_A_ROW - 1
    other.steps(np.zeros(1, np.int64), wrong)
    other.check()
    faults.check()
    faults.steps(np.zeros(1, np.int64), wrong)
    with pytest.raises(NonFinite, match="Game 0 gave 100 steps in a row .* mend the game"):
        faults.check()
    faults.steps(np.zeros(1, np.int64), ~wrong)
    faults.check()
    other.load_state_dict({})
    assert other.figures() == {}


def test_a_game_that_gives_nothing_else_ends_the_run_where_it_can_be_saved() -> None:
    """A hundred steps in a row of one game, begun episodes apart, raise; until then the others are learned from."""
    wrong = {tick: {1: ("reward", np.nan)} for tick in range(10, 1000)}
    run = Run("dqn", Spoilt(counting(0), wrong))
    with pytest.raises(NonFinite, match="Game 1 gave 100 steps in a row"):
        run.play(1000)
    assert run.learner.faults.counts[STEPS] >= IN_A_ROW and run.finite() and run.learner.updates > 30
    run.replay.check()
    run.replay.cut(run.games.current)  # as the run's last checkpoint does
    run.replay.check()


def test_updates_that_are_all_unsound_end_the_run() -> None:
    """A hundred in a row raise between two ticks, and no weight has changed; a sound one on the way starts anew."""
    run = Run("dqn")
    before = {name: value.clone() for name, value in run.learner.network.state_dict().items()}
    run.learner.loss = spoilt_loss(run.learner.loss, set(range(1000)), "loss", np.nan)
    with pytest.raises(NonFinite, match="updates in a row had a loss or a gradient that is not finite"):
        run.play(1000)
    assert IN_A_ROW <= run.learner.updates <= 3 * IN_A_ROW
    assert run.learner.faults.counts[UPDATES] >= IN_A_ROW
    assert same(before, dict(run.learner.network.state_dict()))
    assert same(before, dict(run.learner.target.state_dict()))
    run = Run("dqn")
    run.learner.loss = spoilt_loss(run.learner.loss, set(range(1000)) - set(range(50, 1000, 90)), "loss", np.nan)
    assert run.play(500).learner.updates > 3 * IN_A_ROW


def test_a_network_is_never_asked_about_what_is_no_number() -> None:
    """The actor's network sees zeros in place of such an observation, and the others as they are."""
    run, asked = Run("dqn"), []
    actor = Actor(run.learner.network, 2, constant(0.0), numpy_generator(0, "actor"), torch.device("cpu"))
    run.learner.network.register_forward_pre_hook(lambda module, given: asked.append(given[0].clone()))
    seen = np.arange(9, dtype=np.float32).reshape(3, 3)
    seen[1, 2] = np.nan
    actor.act(seen, 0)
    assert asked[0].tolist() == [[0, 1, 2], [0, 0, 0], [6, 7, 8]] and np.isnan(seen[1, 2])
