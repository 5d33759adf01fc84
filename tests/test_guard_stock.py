"""What is not finite never reaches stable-baselines3's own algorithms, nor a weight of theirs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from faults.non_finite import VALUES, Spoilt, Told
from learners import same
from stable_baselines3.common.base_class import BaseAlgorithm

from agent.config import Settings
from agent.guard import IN_A_ROW, RESTARTS, STEPS, UPDATES, Faults, NonFinite
from agent.sb3.gym_env import GameAsEnv, make_vec_env
from agent.sb3.stock import build, skip_unsound_updates, train
from envs.make import make_vector_env
from envs.step import Step

SMALL = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = SMALL | {"learning_starts": 20, "buffer_size": 500, "batch_size": 8}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn-sb3": OFF_POLICY, "qrdqn": OFF_POLICY, "sac": OFF_POLICY, "td3": OFF_POLICY, "tqc": OFF_POLICY,
    "ppo": SMALL | {"n_steps": 16, "batch_size": 16, "n_epochs": 2}, "a2c": SMALL,
}  # fmt: skip
FAST = {"dqn-sb3", "sac", "ppo", "nan", "1e30"}  # the other algorithms and values at night
GAME = {"sac": "pendulum", "td3": "pendulum", "tqc": "pendulum"}


def game(algo: str) -> Any:
    return make_vector_env("gym:Pendulum-v1" if algo in GAME else "cartpole", 1, 0)


def algorithm(algo: str, wrap: Any, faults: Faults, steps: int) -> BaseAlgorithm:
    settings = Settings(algo=algo, steps=steps, device="cpu", sb3={algo: ALGORITHMS[algo]})
    made = build(algo, make_vec_env([lambda: wrap(game(algo))], faults=faults), settings)
    skip_unsound_updates(made, faults)
    return made


def trained(algo: str, wrap: Any, faults: Faults, steps: int) -> BaseAlgorithm:
    made = algorithm(algo, wrap, faults, steps)
    nothing = {"on_settled": lambda steps: None, "on_scalars": lambda steps, values: None}
    train(made, steps, on_beat=lambda steps, episodes: True, interval_s=1e9, **nothing)
    return made


def weights(made: BaseAlgorithm) -> dict[str, Any]:
    return {name: value for name, value in made.policy.state_dict().items()}


def finite(made: BaseAlgorithm) -> bool:
    return all(bool(value.isfinite().all()) for value in weights(made).values())


def check_step(algo: str, place: str, value: str, seed: int, steps: int) -> None:
    """One step is spoilt, and another: SB3 learns what it learns from a game that is truncated there by itself."""
    ticks = np.random.default_rng(seed).choice(np.arange(5, steps // 2), 2, replace=False).tolist()
    at = {tick: {0: (place, VALUES[value])} for tick in ticks}
    faults = Faults()
    made = trained(algo, lambda games: Spoilt(games, at), faults, steps)
    assert finite(made)
    if value == "1e30":
        assert faults.counts[STEPS] == 0
        return
    assert faults.counts[STEPS] == 2
    told = trained(algo, lambda games: Told(games, at), Faults(), steps)
    assert same(weights(made), weights(told)) and faults.counts[UPDATES] == 0


STEP_CASES = list(itertools.product(ALGORITHMS, ("observation", "reward"), VALUES))


@pytest.mark.parametrize(
    ("algo", "place", "value"),
    [case if {case[0], case[2]} <= FAST else pytest.param(*case, marks=pytest.mark.night) for case in STEP_CASES],
)
def test_a_step_that_is_not_finite_is_a_truncation(algo: str, place: str, value: str) -> None:
    """It is told with the observation before it and reward 0, the next episode begins where the game stands, and the
    weights are those of a game that says so itself; 1e30 reaches SB3 and leaves its weights finite.
    """
    check_step(algo, place, value, STEP_CASES.index((algo, place, value)), 60)


def spoil(made: BaseAlgorithm, steps: set[int], value: float) -> list[torch.optim.Optimizer]:
    """Multiply all gradients before those steps of the first optimizer by `value`; return all optimizers."""
    names = made._get_torch_save_params()[0]
    optimizers = [each for name in names if isinstance(each := _attribute(made, name), torch.optim.Optimizer)]
    count = 0

    def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal count
        count += 1
        for group in optimizer.param_groups if count in steps else ():
            for parameter in group["params"]:
                parameter.grad.mul_(value)

    hooks = optimizers[0]._optimizer_step_pre_hooks
    optimizers[0].register_step_pre_hook(look)
    hooks.move_to_end(next(iter(hooks)))  # the guard looks last, as it does behind a loss
    return optimizers


def _attribute(made: Any, name: str) -> Any:
    for part in name.split("."):
        made = getattr(made, part)
    return made


GRADIENT_CASES = list(itertools.product(ALGORITHMS, VALUES))


@pytest.mark.parametrize(
    ("algo", "value"),
    [case if {*case} <= FAST else pytest.param(*case, marks=pytest.mark.night) for case in GRADIENT_CASES],
)
def test_a_gradient_that_is_not_finite_moves_nothing(algo: str, value: str) -> None:
    """Around such a step weights and moments of that optimizer stay bit for bit; all are finite at the end."""
    faults = Faults()
    made = algorithm(algo, lambda games: games, faults, 60)
    factor = VALUES[value] if value != "1e30" else 1e38  # clipped gradients are small
    optimizer = spoil(made, {3}, factor)[0]
    seen: list[Any] = []

    def note(optimizer: torch.optim.Optimizer, *given: Any) -> None:
        state = optimizer.state_dict()["state"]
        parts = [part.clone() for one in state.values() for part in one.values() if isinstance(part, torch.Tensor)]
        seen.append([*[each.detach().clone() for group in optimizer.param_groups for each in group["params"]], *parts])

    optimizer.register_step_post_hook(note)
    nothing = {"on_settled": lambda steps: None, "on_scalars": lambda steps, values: None}
    train(made, 60, on_beat=lambda steps, episodes: True, interval_s=1e9, **nothing)
    assert finite(made) and len(seen) >= 3
    if value != "1e30":
        assert faults.counts[UPDATES] == 1 and all(map(torch.equal, seen[1], seen[2]))
        assert len(seen) < 4 or not all(map(torch.equal, seen[2], seen[3]))


def test_updates_that_are_all_unsound_end_the_run() -> None:
    """A hundred in a row of one optimizer raise, though the others' are sound; no weight of it has moved."""
    made = algorithm("sac", lambda games: games, faults := Faults(), 300)
    optimizer = spoil(made, set(range(1000)), np.nan)[0]
    before = [each.detach().clone() for group in optimizer.param_groups for each in group["params"]]
    nothing = {"on_settled": lambda steps: None, "on_scalars": lambda steps, values: None}
    with pytest.raises(NonFinite, match="100 updates in a row"):
        train(made, 300, on_beat=lambda steps, episodes: True, interval_s=1e9, **nothing)
    after = [each for group in optimizer.param_groups for each in group["params"]]
    assert all(map(torch.equal, before, after)) and finite(made) and faults.counts[UPDATES] == IN_A_ROW


class Scripted:
    """One game that answers with the steps it is given."""

    num_envs = 1

    def __init__(self, *steps: Step):
        self.spec, self.steps, self.current, self.actions = game("ppo").spec, list(steps), steps[0], []

    def reset(self, seed: int) -> Step:
        self.current = self.steps.pop(0)
        return self.current

    def send(self, action: np.ndarray) -> None:
        self.actions.append(int(action[0]))

    def recv(self) -> Step:
        self.current = self.steps.pop(0)
        return self.current


def step(value: float, reward: float = 0.0, *, first: bool = False, over: bool = False, new: bool = False) -> Step:
    over_, truncated, first_, restarted = (np.array([each]) for each in (over, False, first, new))
    numbers = np.full((1, 4), value, np.float32), np.array([reward], np.float32)
    return Step(*numbers, over_, truncated, first_, restarted=restarted)


def test_a_replaced_game_is_a_truncation_and_then_a_beginning() -> None:
    """SB3 sees the end of the old episode where it was last seen, and the fresh game's first observation behind it."""
    games = Scripted(step(0, first=True), step(1, 1.0), step(7, first=True, new=True), step(8, 2.0))
    env = GameAsEnv(games, faults := Faults())
    assert env.reset(seed=0)[0].tolist() == [0] * 4 and env.step(1)[0].tolist() == [1] * 4
    observation, *told, _ = env.step(1)
    assert observation.tolist() == [1] * 4 and told == [0.0, False, True]
    assert env.reset()[0].tolist() == [7] * 4 and env.step(0)[:2][1] == 2.0
    assert games.actions == [1, 1, 0] and faults.counts[RESTARTS] == 1 and faults.counts[STEPS] == 0


def test_an_episode_begins_where_the_game_is_finite_again() -> None:
    """Behind a NaN that lasts, actions that nobody chose are played; an end that hides in it is heeded."""
    games = Scripted(
        step(0, first=True), step(np.nan), step(np.nan), step(3),
        step(4, np.inf, over=True), step(5, first=True), step(6),
    )  # fmt: skip
    env = GameAsEnv(games, faults := Faults())
    env.reset(seed=0)
    assert env.step(1)[3] and env.reset()[0].tolist() == [3] * 4
    assert env.step(1)[1:4] == (0.0, False, True) and env.reset()[0].tolist() == [5] * 4
    assert not env.step(1)[3] and games.actions == [1, 0, 0, 1, 0, 1] and faults.counts[STEPS] == 3


def test_a_game_that_gives_nothing_else_ends_the_run() -> None:
    """A hundred steps in a row raise, also where a reset waits for the first that is finite."""
    faults = Faults()
    env = GameAsEnv(Scripted(step(0, first=True), *[step(np.nan)] * 200), faults)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(NonFinite, match="100 steps in a row"):
        env.reset()
