"""The learner's faster forms against its eager one, on real networks and a real replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from learners import same

from agent import learner as module
from agent.capture import Trial
from agent.cli.session import Session
from agent.cli.settings import load_settings
from agent.config import Settings
from agent.learner import Learner

STEPS = 600  # played before anything is learned


def make(execution: str, device: str = "auto", **changes: dict[str, Any]) -> Session:
    """CartPole with prioritized 3-step replay, every schedule moving, and a small network."""
    plain = load_settings("cartpole").model_dump()
    plain |= {"steps": 4_000, "device": device}
    plain["game"]["num_games"] = 4
    plain["replay"] |= {"n_step": 3, "n_step_end": 1, "priority_exponent": 0.5, "capacity": 2_000}
    plain["network"]["hidden"] = (24,)
    plain["learner"] |= {
        "batch_size": 16, "learning_starts": STEPS, "learning_rate": 1e-3, "learning_rate_end": 1e-4,
        "discount": 0.97, "discount_end": 0.99, "target_interval": 50, "execution": execution,
    }  # fmt: skip
    for section, values in changes.items():
        plain[section] |= values
    return Session("cartpole", Settings.model_validate(plain))


@pytest.fixture
def session() -> Iterator[Callable[..., Session]]:
    """Sessions that have played and not learned; closed behind the test."""
    made: list[Session] = []

    def played(execution: str, **changes: dict[str, Any]) -> Session:
        made.append(make(execution, **changes))
        made[-1].games.reset(1)
        for tick in made[-1].ticks():
            if tick.steps >= STEPS:
                return made[-1]

    yield played
    for each in made:
        each.close()


def told(learner: Learner) -> list[str]:
    """What the learner will say."""
    sentences: list[str] = []
    learner.say = sentences.append
    return sentences


def learn(learner: Learner, updates: int) -> None:
    """Update one by one while the schedules run over the whole of their way."""
    for update in range(updates):
        learner.update(1, STEPS + update * 3)


def distance(ours: Learner, theirs: Learner) -> float:
    """The relative difference of all weights."""
    one, other = (torch.cat([each.detach().flatten() for each in x.network.parameters()]) for x in (ours, theirs))
    return float((one - other).norm() / other.norm())


@pytest.mark.slow
def test_compiled_and_eager_agree_over_a_thousand_updates(
    session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights differ by at most 1e-4 behind 1,000 updates, with every schedule moving and n changing on the way.

    A learner resumed from the compiled one's state in the middle ends with the same bits.
    """
    monkeypatch.setattr(module, "EAGER_UPDATES", 20)
    uniform = {"priority_exponent": 0.0}  # by priority, one rounding may draw another row, and learning is chaotic
    eager, compiled, resumed = (session(mode, replay=uniform) for mode in ("eager", "compiled", "compiled"))
    sentences = told(compiled.learner)
    learn(eager.learner, 1_000)
    learn(compiled.learner, 500)
    state = compiled.state_dict()
    resumed.load_state_dict(state)
    assert resumed.learner.execution == "compiled"
    for each in (compiled.learner, resumed.learner):
        for update in range(500, 1_000):
            each.update(1, STEPS + update * 3)
    assert compiled.learner.execution == "compiled" and "updates are compiled now" in sentences[-1]
    assert 0.0 < distance(compiled.learner, eager.learner) <= 1e-4
    assert same(compiled.learner.state_dict(), resumed.learner.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("traceable", [True, False])
def test_compiled_updates_by_priority(
    traceable: bool, session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten compiled updates by priority leave the eager ones' priorities, the largest of them and the weights.

    So they do where sampling cannot be compiled, as from a compressed film.
    """
    monkeypatch.setattr(module, "EAGER_UPDATES", 100)
    eager, compiled = session("eager"), session("compiled")
    compiled.replay.traceable = traceable
    sentences = told(compiled.learner)
    learn(eager.learner, 110)
    learn(compiled.learner, 110)
    assert compiled.learner.execution == "compiled", sentences
    assert distance(compiled.learner, eager.learner) <= 1e-4
    for ours, theirs in zip(compiled.replay.written, eager.replay.written, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert eager.replay.statistics()["replay/priority_max"] != 1.0, "priorities have moved"


def test_a_resumed_learner_that_has_not_settled_yet_still_knows_how_it_ran(session: Callable[..., Session]) -> None:
    """Stopped before its first update, it gives out the form that it was told, not that there is none."""
    learner = session("compiled").learner
    state = learner.state_dict()
    assert state["execution"] is None
    for before in ("compiled", "eager", None):
        learner.load_state_dict(state | {"execution": before})
        assert learner.state_dict()["execution"] == before


@pytest.mark.slow
def test_the_actor_plays_the_same_compiled(session: Callable[..., Session]) -> None:
    """A compiled actor chooses what the eager one chooses, after the weights have moved in place too."""
    one = session("eager")
    observation = one.games.current.observation
    one.actor.accelerate("compiled")
    one.actor.greedy(observation)
    fast = one.actor._values
    for factor in (1.0, -2.0):
        with torch.no_grad():
            for parameter in one.network.parameters():
                parameter.mul_(factor)
        given = torch.from_numpy(observation), None
        torch.testing.assert_close(fast(*given), one.network(*given), rtol=1e-5, atol=1e-6)


def broken(function: Any, **_: Any) -> Any:
    """A fast form that keeps the first discount it is given."""
    first: list[torch.Tensor] = []

    def run(look: bool, n_step: int, exponent: torch.Tensor, discount: torch.Tensor, *rest: Any) -> Any:
        first.append(discount.clone())
        return function(look, n_step, exponent, first[0], *rest)

    return run


def failing(function: Any, **_: Any) -> Any:
    """A fast form that torch cannot make."""

    def run(*arguments: Any) -> Any:
        raise RuntimeError("no compiler here\nand much more")

    return run


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (broken, "updates stay eager: the compiled one differs by "),
        (failing, "updates stay eager: the compiled one could not be made (RuntimeError: no compiler here)"),
    ],
)
def test_what_does_not_agree_is_refused_without_a_trace(
    form: Any, says: str, session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken or impossible form is named, and learning goes on bit for bit as if it had never been tried."""
    monkeypatch.setattr(module, "make_fast", form)
    monkeypatch.setattr(module, "EAGER_UPDATES", 10)
    eager, other = session("eager"), session("compiled")
    sentences = told(other.learner)
    for each in (eager.learner, other.learner):
        learn(each, 30)
    assert other.learner.execution == "eager" and sentences[-1].startswith(says) and len(sentences) == 2
    ours, theirs = ({**each.state_dict(), "learner": None} for each in (other, eager))
    assert same(ours, theirs), "replay's priorities and all generators"
    assert same(other.learner.state_dict()["network"], eager.learner.state_dict()["network"])


def test_every_n_has_its_own_proof(session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another n is another program: it is tried before it is used, and one that is broken leaves learning eager."""
    tried: list[int] = []

    def form(function: Any, **_: Any) -> Any:
        def run(look: bool, n_step: int, exponent: Any, discount: torch.Tensor, *rest: Any) -> Any:
            tried.append(n_step)
            return function(look, n_step, exponent, discount * (0.5 if n_step == 1 else 1.0), *rest)

        return run

    monkeypatch.setattr(module, "make_fast", form)
    monkeypatch.setattr(module, "EAGER_UPDATES", 10)
    one = session("compiled")
    switched, sentences = [], told(one.learner)
    one.learner.on_switch = switched.append
    n_now = 3
    one.learner.n_step = lambda steps: n_now
    learn(one.learner, 20)
    assert one.learner.execution == "compiled" and set(tried) == {3}
    n_now = 2
    learn(one.learner, 5)
    assert one.learner.execution == "compiled" and set(tried) == {3, 2} and switched == ["compiled"]
    n_now = 1
    learn(one.learner, 5)
    assert one.learner.execution == "eager" and "the compiled one differs by" in sentences[-1]


@pytest.mark.parametrize(
    ("expected_updates", "fast_s", "mode"), [(1e9, 0.001, "compiled"), (1e9, 0.009, "eager"), (100.0, 0.001, "eager")]
)
def test_a_cpu_compiles_by_itself_only_where_it_pays(
    expected_updates: float,
    fast_s: float,
    mode: str,
    session: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left to itself, a CPU compiles when much learning is left and a trial was clearly faster, else it stays eager."""
    monkeypatch.setattr(module, "EAGER_UPDATES", 5)
    one = session("auto")
    one.learner.expected_updates = expected_updates
    one.learner._tried = lambda mode, steps: (one.learner._run, Trial(0.0, 0.01, fast_s))
    switched: list[str] = []
    one.learner.on_switch = switched.append
    learn(one.learner, 10)
    assert one.learner.execution == mode
    assert switched == ["compiled"] * (mode == "compiled")


def test_bf16_learns_weights_of_32_bits(session: Callable[..., Session]) -> None:
    """Updates in bfloat16 move weights that stay f32, near those of updates in f32 and not to them."""
    plain, rounded = session("eager"), session("eager", learner={"autocast": "bf16"})
    for each in (plain.learner, rounded.learner):
        learn(each, 5)
    assert all(parameter.dtype == torch.float32 for parameter in rounded.network.parameters())
    assert 0.0 < distance(rounded.learner, plain.learner) < 0.02


def test_a_cpu_captures_nothing() -> None:
    """What needs a GPU is refused by name before anything is played."""
    with pytest.raises(ValueError, match="captured: needs a CUDA GPU; compiled"):
        make("captured", device="cpu")


@pytest.mark.gpu
def test_captured_and_eager_agree_over_a_thousand_updates(session: Callable[..., Session]) -> None:
    """The same on a GPU with CUDA graphs."""
    eager, captured = session("eager"), session("captured")
    for each in (eager.learner, captured.learner):
        learn(each, 1_000)
    assert captured.learner.execution == "captured"
    assert distance(captured.learner, eager.learner) <= 1e-4
