"""The table of games, and the contract that a vector of every family keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from agent.config import AtariSettings, MinAtarSettings
from agent.types import Stateful, VectorEnv
from envs import make
from envs.fakes import CountingGame
from envs.step import Episode, Step

ATARI = AtariSettings().model_dump()
MINATAR = MinAtarSettings().model_dump()
NUM_GAMES = 3
STEPS = 130


def game(name: str, **options: Any) -> Callable[[], Any]:
    """How to make a vector of the game `name`."""
    return lambda: make.make_vector_env(name, NUM_GAMES, 7, **{"atari": ATARI, "minatar": MINATAR, **options})


def counting(**options: Any) -> Callable[[], CountingGame]:
    """How to make a reset vector of the counting game."""

    def vector() -> CountingGame:
        """A reset vector."""
        games = CountingGame(NUM_GAMES, **options)
        games.reset(7)
        return games

    return vector


FAMILIES = {
    "cartpole": game("cartpole"),
    "cartpole in workers": game("cartpole", vectorize="workers"),
    "mountain-car": game("mountain-car"),
    "lunar-lander": game("lunar-lander"),
    "gym:Pendulum-v1": game("gym:Pendulum-v1"),
    "gym:Pendulum-v1 in workers": game("gym:Pendulum-v1", vectorize="workers"),
    **{f"minatar/{rom}": game(f"minatar/{rom}") for rom in make.MINATAR},
    "cartpole from 2 seeds": game("cartpole", seeds=2),
    "cartpole from 2 seeds in workers": game("cartpole", vectorize="workers", seeds=2),
    "minatar/breakout from 2 seeds": game("minatar/breakout", seeds=2),
    "minatar with a short limit": game("minatar/breakout", minatar={**MINATAR, "max_steps": 9}),
    "minatar/breakout in workers": game("minatar/breakout", vectorize="workers", minatar={**MINATAR, "max_steps": 40}),
    "atari/pong": game("atari/pong", atari={**ATARI, "max_frames": 200}),
    "atari/pong in workers": game("atari/pong", vectorize="workers", atari={**ATARI, "max_frames": 200}),
    "counting": counting(),
    "counting frames": counting(pixels=True),
}
STATEFUL = {name: make_it for name, make_it in FAMILIES.items() if not name.startswith("atari")}


def actions(vector: Any, count: int, seed: int = 1) -> list[np.ndarray]:
    """Random actions that fit the vector; every game gets the same, so that games differ by themselves only."""
    random = np.random.default_rng(seed)
    spec = vector.spec
    if spec.num_actions:
        return [np.full(vector.num_envs, random.integers(spec.num_actions)) for _ in range(count)]
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    return [np.tile(random.uniform(low, high), (vector.num_envs, 1)).astype(np.float32) for _ in range(count)]


def play(vector: Any, chosen: list[np.ndarray]) -> list[Step]:
    """The steps that answer `chosen`, each sent before it is received."""
    steps = []
    for action in chosen:
        vector.send(action)
        steps.append(vector.recv())
        assert vector.current is steps[-1]
    return steps


def assert_same(one: list[Step], other: list[Step]) -> None:
    """Compare two runs bit for bit."""
    assert len(one) == len(other)
    for number, (left, right) in enumerate(zip(one, other, strict=True)):
        assert left.episodes == right.episodes, number
        for name in ("observation", "reward", "terminated", "truncated", "first"):
            a, b = getattr(left, name), getattr(right, name)
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), (number, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_step_contract(family: str) -> None:
    """Shapes, types, next-step autoreset, raw scores and frozen history hold in every family."""
    vector = FAMILIES[family]()
    try:
        assert isinstance(vector, VectorEnv) and (isinstance(vector, Stateful) or not vector.stateful)
        spec = vector.spec
        steps = [vector.current, *play(vector, actions(vector, STEPS))]
        copies = [step.observation.copy() for step in steps]
        assert steps[0].first.all() and not (steps[0].terminated | steps[0].truncated).any()
        sums, lengths = np.zeros(NUM_GAMES), np.zeros(NUM_GAMES, dtype=int)
        ended = np.ones(NUM_GAMES, dtype=bool)
        for step, copy in zip(steps, copies, strict=True):
            assert step.observation.shape == (NUM_GAMES, *spec.observation_shape)
            assert step.observation.dtype == spec.observation_dtype
            assert step.reward.dtype == np.float32 and step.reward.shape == (NUM_GAMES,)
            assert step.terminated.dtype == step.truncated.dtype == step.first.dtype == bool
            assert np.array_equal(step.first, ended) and not step.reward[step.first].any()
            sums += step.reward
            lengths += ~step.first
            ended = step.terminated | step.truncated
            assert not (ended & step.first).any() and step.final_observation is None
            assert step.restarted.shape == (NUM_GAMES,) and not step.restarted.any()
            expected = [Episode(g, pytest.approx(sums[g], rel=1e-5), lengths[g]) for g in np.flatnonzero(ended)]
            assert list(step.episodes) == expected
            sums[ended], lengths[ended] = 0, 0
            if spec.stack > 1:
                assert not step.observation[step.first, :-1].any(), "the stack is zero before an episode"
            assert np.array_equal(step.observation, copy), "a step must not change when the games go on"
        assert vector.restarts == 0 and vector.news() == []
        if spec.num_actions:
            assert len(spec.action_names) == spec.num_actions == len(set(spec.action_names))
    finally:
        vector.close()
        vector.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_repeats_itself(family: str) -> None:
    """The same seed and actions give the same steps, in a new vector and after another reset; games differ."""
    one, other = FAMILIES[family](), FAMILIES[family]()
    try:
        chosen = actions(one, STEPS)
        first_run = [one.current, *play(one, chosen)]
        assert_same(first_run, [other.current, *play(other, chosen)])
        other.send(chosen[0])  # a step that nobody received must not matter
        assert_same(first_run, [other.reset(7), *play(other, chosen)])
        different = [other.reset(8), *play(other, chosen)]
        both = zip(first_run, different, strict=True)
        assert any(left.observation.tobytes() != right.observation.tobytes() for left, right in both)
        for row in (1, 2):
            assert any(step.observation[0].tobytes() != step.observation[row].tobytes() for step in first_run)
    finally:
        one.close()
        other.close()


def leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every leaf of a state tree with its path; dicts must have names as keys."""
    if not isinstance(tree, Mapping):
        return [(path, tree)]
    assert all(type(name) is str for name in tree), path
    return [leaf for name, value in tree.items() for leaf in leaves(value, f"{path}/{name}")]


@pytest.mark.parametrize("family", STATEFUL)
def test_a_state_continues_in_a_new_vector(family: str) -> None:
    """A state taken anywhere (after reset, at an end, at a first row) makes a new vector go on with equal steps."""
    straight, resumed = STATEFUL[family](), STATEFUL[family]()
    try:
        chosen = actions(straight, STEPS)
        steps, states, cuts = [straight.current], [straight.state_dict()], [0]
        at_end = at_first = 0
        for number, action in enumerate(chosen, start=1):
            steps += play(straight, [action])
            ended, first = (steps[-1].terminated | steps[-1].truncated).any(), steps[-1].first.any()
            if number % 41 == 0 or (ended and at_end < 2) or (first and at_first < 2):
                at_end, at_first = at_end + ended, at_first + first
                states.append(straight.state_dict())
                cuts.append(number)
        for cut, state in zip(cuts, states, strict=True):
            for path, leaf in leaves(state):
                assert isinstance(leaf, np.ndarray) or json.loads(json.dumps(leaf)) == leaf, path
            resumed.load_state_dict(state)
            assert_same(steps[cut:], [resumed.current, *play(resumed, chosen[cut:])])
            resumed.load_state_dict(state)  # a state is not used up, and what is put back can be taken again
            again = resumed.state_dict()
            for (path, left), (_, right) in zip(leaves(state), leaves(again), strict=True):
                assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right, path
    finally:
        straight.close()
        resumed.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_unfitting_actions_are_refused(family: str) -> None:
    """A wrong shape, type or value is answered with a sentence and never reaches a game; the vector plays on."""
    vector = FAMILIES[family]()
    try:
        with pytest.raises(RuntimeError, match="Send"):
            vector.recv()
        good = actions(vector, 1)[0]
        wrong = [good[:-1], np.zeros((NUM_GAMES, 7))]
        if vector.spec.num_actions:
            wrong += [good.astype(float), good * 0 - 1, good * 0 + vector.spec.num_actions]
        for action in wrong:
            with pytest.raises(ValueError, match="actions"):
                vector.send(action)
        play(vector, [good])
    finally:
        vector.close()


def test_a_state_of_another_game_is_refused() -> None:
    """The state of one game, or of another number of games, does not fit a vector, and the message names both."""
    vector, other = FAMILIES["minatar/breakout"](), FAMILIES["minatar/asterix"]()
    with pytest.raises(ValueError, match=r"minatar/breakout.*minatar/asterix"):
        other.load_state_dict(vector.state_dict())
    with pytest.raises(ValueError, match="3 games, but this vector has 2"):
        make.make_vector_env("minatar/breakout", 2, 0, minatar=MINATAR).load_state_dict(vector.state_dict())


def test_the_table_lists_every_family() -> None:
    """Every name in the table is canonical, and spelled with other dashes or case it is the same game."""
    names = make.games()
    assert names[:4] == ("cartpole", "acrobot", "mountain-car", "lunar-lander")
    assert len(names) == len(set(names)) and {"atari/pong", "atari/ms_pacman", "minatar/space_invaders"} <= set(names)
    assert sum(name.startswith("atari/") for name in names) > 100
    for name in names:
        assert make.canonical(name.upper().replace("_", "-")) == name
        assert make.canonical(name.replace("-", "_")) == name
    assert make.canonical("gym:Any-Name_v0") == "gym:Any-Name_v0"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("lunarlander", "lunar-lander"),
        ("breakout", "minatar/breakout or atari/breakout"),
        ("atari/pogn", "atari/pong"),
        ("CartPole-v1", "gym:CartPole-v1"),
    ],
)
def test_an_unknown_game_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    """A misspelled game names the right one and lists the table."""
    with pytest.raises(ValueError, match=f"no game '{wrong}'. Did you mean .*{right}.* Games: cartpole, "):
        make.spec(wrong)


@pytest.mark.parametrize("family", ["atari", "minatar"])
def test_a_missing_extra_names_the_remedy(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package a family is answered with the pip line that brings it; the others go on working."""
    package = {"atari": "ale_py", "minatar": "minatar"}[family]
    find = make.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    for verb in (make.spec, lambda name, **settings: make.make_vector_env(name, 1, 0, **settings)):
        with pytest.raises(ValueError, match=f"pip install {package.replace('_', '-')}$"):
            verb(f"{family}/breakout", atari=ATARI, minatar=MINATAR)
    assert "cartpole" in make.games()
    assert any(name.startswith("atari/") for name in make.games()) == (family != "atari")


def test_spec_equals_that_of_a_vector() -> None:
    """Asking for a spec alone gives what a vector carries."""
    for name in ("cartpole", "minatar/seaquest", "atari/breakout", "gym:Pendulum-v1"):
        vector = game(name)()
        assert make.spec(name, atari=ATARI, minatar=MINATAR) == vector.spec
        vector.close()


def test_wrong_options_are_refused() -> None:
    """Settings that are missing, or that the game cannot obey, are answered with a sentence."""
    with pytest.raises(ValueError, match="atari=, the defaults stand in agent/config.py"):
        make.spec("atari/pong")
    with pytest.raises(ValueError, match="in C.. threads or in workers"):
        game("atari/pong", vectorize="inline")()
    with pytest.raises(ValueError, match="auto, inline or workers"):
        game("cartpole", vectorize="magic")()
    with pytest.raises(ValueError, match="at least 1"):
        make.make_vector_env("cartpole", 0, 0)
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        game("cartpole", seeds=0)()
    with pytest.raises(ValueError, match="atari/pong cannot start its episodes from 4 seeds.*Leave game.seeds at none"):
        game("atari/pong", seeds=4)()


# The first observation of an episode tells its seed, except in MinAtar: there the first few do, with these actions.
@pytest.mark.parametrize(
    ("name", "options", "steps", "look"),
    [
        ("cartpole", {}, 400, 1),
        ("cartpole", {"vectorize": "workers"}, 400, 1),
        ("lunar-lander", {}, 400, 1),
        ("gym:Pendulum-v1", {}, 1300, 1),
        ("minatar/asterix", {}, 900, 12),
    ],
)
def test_few_seeds_are_all_that_is_ever_played(name: str, options: dict, steps: int, look: int) -> None:
    """Every episode of every copy begins as an unseeded game reset with one of the S seeds does; all S come up, also
    after a reset with another seed, and in another order."""
    vector = game(name, seeds=3, **options)()
    plain = make.make_vector_env(name, 3, 7, minatar=MINATAR)  # its first episodes are those of the same three seeds
    action = actions(vector, 1)[0]

    def begun() -> list[bytes]:
        """How each episode begins, in the order in which they do."""
        told, open_ones = [], [[vector.current.observation[row]] for row in range(NUM_GAMES)]
        for step in play(vector, [action] * steps):
            for row in range(NUM_GAMES):
                open_ones[row] = [] if step.first[row] else open_ones[row]
                open_ones[row].append(step.observation[row])
                if len(open_ones[row]) == look:
                    told.append(np.array(open_ones[row]).tobytes())
        return told + [one[0].tobytes() for one in open_ones if look == 1]

    try:
        shown = [plain.current, *play(plain, [action] * (look - 1))]
        known = {np.array([step.observation[row] for step in shown]).tobytes() for row in range(3)}
        first = begun()
        vector.reset(99)
        second = begun()
        assert len(known) == 3 and set(first) == set(second) == known
        assert first != second and len(first) > 6
    finally:
        vector.close()
        plain.close()


def test_a_pool_of_as_many_seeds_as_games_is_not_dealt_out() -> None:
    """Copies draw for themselves: with as many seeds as copies, a new vector may start two of them alike."""
    made = [make.make_vector_env("cartpole", 4, seed, seeds=4).current.observation[:, 0] for seed in range(9)]
    starts = [len(np.unique(observation)) for observation in made]
    assert min(starts) < 4 and max(starts) > 1


@pytest.mark.parametrize("name", ["cartpole", "minatar/breakout"])
def test_a_state_without_draws_is_refused_by_a_pool(name: str) -> None:
    """Games saved without `seeds` cannot go on with them: the sentence names the setting."""
    plain, pooled = game(name)(), game(name, seeds=2)()
    with pytest.raises(ValueError, match="game.seeds"):
        pooled.load_state_dict(plain.state_dict())


def test_importing_the_table_imports_no_simulator() -> None:
    """`import envs.make` costs no emulator, no MinAtar and no Gymnasium."""
    code = "import sys, envs.make; print(sorted({'ale_py', 'minatar', 'gymnasium', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
