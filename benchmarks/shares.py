"""Where the time of our loop goes: shares of the wall by part, beside the floor that the arithmetic sets.

The parts are timed where they are called, on the live session, each less the parts inside it; two readings of a clock
per call, and what they cost is measured by running with and without them in turn. A compiled update is one part: what
is inside it cannot be told apart from outside.

The floor is the same layers at the same batch as plain calls of matrix products and convolutions with their gradients,
no autograd and no modules; Adam's kernel alone; the rows of a batch copied out of the film; and the games alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F

import agent.learner
from benchmarks.cases import GAMES, Case
from benchmarks.contenders import make_session, settled_ticks

ROUNDS = 3  # with and without the clocks in turn
NAMED = ("game", "forward", "backward", "optimizer", "replay gather", "update program")


class Clocks:
    """Wall seconds by part, each less what the parts inside it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []  # of the calls that are open, the seconds of their inner parts

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed as `part`."""
        inside, clock = self._inside, time.perf_counter

        def run(*arguments: Any, **named: Any) -> Any:
            inside.append(0.0)
            started = clock()
            try:
                return function(*arguments, **named)
            finally:
                took = clock() - started
                self.seconds[part] = self.seconds.get(part, 0.0) + took - inside.pop()
                if inside:
                    inside[-1] += took

        return run


def seams(session: Any) -> list[tuple[str, Any, str]]:
    """Return where the parts begin and end: (part, its owner, the name there)."""
    learner, replay = session.learner, session.replay
    eager = learner.execution == "eager"
    wanted = [
        ("game", session.games, "send"), ("game", session.games, "recv"),
        ("forward", session.actor, "_best"), ("choosing actions", session.actor, "act"),
        ("replay gather", replay, "draw"), ("replay insert", replay, "insert"),
        ("around an update" if eager else "update program", learner, "_run"), ("around updates", learner, "update"),
        ("optimizer", learner.optimizer, "move"), ("target network", learner, "copy_to_target"),
        ("figures for telemetry", learner.metrics, "add"),
    ]  # fmt: skip
    if eager:  # a compiled update has no inside, and would be compiled anew around a clock
        wanted += [
            ("replay gather", replay, "sample_at"), ("forward", learner, "loss"), ("backward", torch.autograd, "grad"),
            ("optimizer", agent.learner, "clipping"),
            ("priorities", replay, "update_priorities"),
        ]  # fmt: skip
    return [seam for seam in wanted if hasattr(seam[1], seam[2])]


@contextmanager
def timing(session: Any, clocks: Clocks) -> Iterator[None]:
    """Time the parts of `session` while inside."""
    before = []
    for part, owner, name in seams(session):
        before.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, clocks.timed(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, own in before:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def profile(case: Case, mode: str, seconds: float) -> dict[str, Any]:
    """Print and return where the time of a beat (one step of all games) goes, in microseconds and shares."""
    session = make_session(case, mode)
    try:
        ticks = settled_ticks(session)
        clocks, plain, clocked = Clocks(), [], []
        before = session.learner.updates
        for _ in range(ROUNDS):
            plain.append(_beat_s(ticks, seconds / ROUNDS))
            with timing(session, clocks):
                clocked.append(_beat_s(ticks, seconds / ROUNDS))
        execution, threads = session.learner.execution, torch.get_num_threads()
        # Below 2: a game that begins an episode ignores its action, and that step owes no updates.
        updates = (session.learner.updates - before) / sum(count for _, count in plain + clocked)
        floor = floors(session, case)
    finally:
        session.close()
    beats = sum(count for _, count in clocked)
    beat_us = 1e6 * sum(each * count for each, count in clocked) / beats
    parts = {part: 1e6 * took / beats for part, took in clocks.seconds.items()}
    parts["the loop itself"] = beat_us - sum(parts.values())
    overlapped = case.kind == "nature"  # the C++ threads of Atari play while the learner learns
    learning = updates * sum(floor[name] for name in ("forward", "backward", "optimizer", "replay gather"))
    least = floor["acting"] + (max(learning, floor["games"]) if overlapped else learning + floor["games"])
    plain_us = 1e6 * statistics.median(each for each, _ in plain)
    found = {
        "execution": execution,
        "learner_threads": threads,
        "beat_us": round(plain_us, 1),
        "beat_us_while_timed": round(beat_us, 1),
        "beats_per_s": round(1e6 / plain_us, 1),
        "updates_per_beat": round(updates, 3),
        "parts_us_per_beat": {part: round(took, 1) for part, took in sorted(parts.items(), key=lambda item: -item[1])},
        "shares": {part: round(took / beat_us, 4) for part, took in sorted(parts.items(), key=lambda item: -item[1])},
        "share_outside": round(sum(took for part, took in parts.items() if part not in NAMED) / beat_us, 4),
        "floor_us": {name: round(took, 1) for name, took in floor.items()},
        "floor_us_per_beat": round(least, 1),
        "floor_share": round(least / plain_us, 4),
        "games_overlap_learning": overlapped,
    }
    _print(case, found, floor, updates)
    return found


def _print(case: Case, found: dict[str, Any], floor: dict[str, float], updates: float) -> None:
    of_beat = {name: updates * floor[name] for name in ("forward", "backward", "optimizer", "replay gather")}
    if found["execution"] != "eager":
        of_beat = {"forward": 0.0, "update program": sum(of_beat.values())}
    of_beat["forward"] += floor["acting"]
    of_beat["game"] = floor["games"]
    print(f"{case.game}, {found['execution']}: {found['beats_per_s']:,.0f} beats/s, {found['beat_us']:,.0f} us each")
    print(f"{'part':24}{'us a beat':>12}{'share':>9}{'floor us':>11}")
    for part, took in found["parts_us_per_beat"].items():
        least = f"{of_beat[part]:11,.0f}" if part in of_beat else ""
        print(f"{part:24}{took:12,.1f}{found['shares'][part]:9.1%}{least}")
    print(
        f"outside game, forward, backward, optimizer, replay gather: {found['share_outside']:.1%}; "
        f"the floor is {found['floor_share']:.0%} of a beat; timing costs "
        f"{found['beat_us_while_timed'] / found['beat_us'] - 1:.1%}"
    )


def _beat_s(ticks: Iterator[Any], seconds: float) -> tuple[float, int]:
    """Return seconds per tick and ticks over a window."""
    count, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        next(ticks)
        count += 1
    return took / count, count


# --- the floor -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def floors(session: Any, case: Case) -> dict[str, float]:
    """Return the least microseconds of acting and the games per beat, and of the rest per update."""
    replay, network = session.replay, session.network
    index = torch.randint(len(replay) // 2, (case.batch,))
    batch = replay.gather(index)
    forward, backward = layer_calls(network, batch.s_tm1)
    acting, _ = layer_calls(network, torch.from_numpy(session.games.current.observation))
    rows = index.repeat_interleave(replay.film.stack)
    given = [torch.zeros_like(parameter) for parameter in network.parameters()]
    moments = [[torch.zeros_like(each) for each in given] for _ in range(3)]
    steps = [torch.ones(()) for _ in given]

    def adam() -> None:
        torch._fused_adam_(
            moments[0], given, moments[1], moments[2], [], steps, lr=0.0, beta1=0.9, beta2=0.999, weight_decay=0.0,
            eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    return {
        "acting": microseconds(lambda: [call() for call in acting]),
        "forward": 2 * microseconds(lambda: [call() for call in forward]),  # the network and its target
        "backward": microseconds(lambda: [call() for call in backward]),
        "optimizer": microseconds(adam),
        "replay gather": 2 * microseconds(lambda: replay.film.frames.read(rows)),
        "games": games_us(session),
    }


def layer_calls(network: torch.nn.Module, observation: torch.Tensor) -> tuple[list[Callable], list[Callable]]:
    """Return calls that compute all linear and convolution layers for `observation`, and calls for their gradients."""
    seen: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    hooks = [
        layer.register_forward_hook(lambda layer, given, out: seen.append((layer, given[0].clone(), out.clone())))
        for layer in layers
    ]
    network(observation)
    for hook in hooks:
        hook.remove()
    forward: list[Callable] = []
    backward: list[Callable] = []
    for number, (layer, x, y) in enumerate(seen):
        weight, bias, first = layer.weight, layer.bias, number == 0
        if isinstance(layer, torch.nn.Linear):
            forward.append(lambda x=x, w=weight, b=bias: F.linear(x, w, b))
            backward.append(lambda x=x, y=y: (torch.mm(y.t(), x), y.sum(0)))
            if not first:
                backward.append(lambda y=y, w=weight: torch.mm(y, w))
        else:
            shape = layer.stride, layer.padding, layer.dilation
            forward.append(lambda x=x, w=weight, b=bias, s=shape: F.conv2d(x, w, b, *s))
            backward.append(
                lambda x=x, y=y, w=weight, s=shape, first=first: torch.ops.aten.convolution_backward(
                    y, x, w, [len(w)], *s, False, [0, 0], 1, [not first, True, True]
                )
            )
    return forward, backward


def games_us(session: Any) -> float:
    """Return microseconds of one step of all games with random actions, after which the session must not go on."""
    games, actions = session.games, torch.randint(session.spec.num_actions, (1_000, GAMES)).numpy()
    beat = iter(range(10**9))

    def step() -> None:
        games.send(actions[next(beat) % len(actions)])
        games.recv()

    return microseconds(step)


def microseconds(call: Callable[[], Any], seconds: float = 0.2, rounds: int = 5) -> float:
    """Return the median over rounds of the microseconds that `call` takes, after a warm-up."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or not count:
        call()
        count += 1
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(count):
            call()
        took.append((time.perf_counter() - started) / count)
    return 1e6 * statistics.median(took)
