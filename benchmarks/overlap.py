"""How much is left of games and learner when both run: the games on cores of their own, the learner on another.

    .venv/bin/python benchmarks/overlap.py                          # prints a table, writes results/overlap/CASE.json
    .venv/bin/python benchmarks/overlap.py --cases atari/pong --device cuda --game-cores 15 --games 128

Retained is the rate of both together over that of the slower of the two alone, in steps of all games ("beats") per
second. The games alone are played by the actor, which in the loop shares the learner's core; how fast they are with
random actions stands beside. It is measured as trained (one update per 4 environment steps) and balanced, with as many
updates per beat as take the games' time: there a loop that takes turns would retain a half.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli.session import make_games  # noqa: E402
from benchmarks.cases import CASES, GAMES, UPDATES_PER_BEAT, Case  # noqa: E402
from benchmarks.contenders import make_session, settled_ticks  # noqa: E402
from benchmarks.results import write  # noqa: E402

OVERLAPPING = ("cartpole", "lunar-lander", "atari/pong")  # MinAtar's games play in the learner's own process
ROUNDS = 3
UPDATES_ALONE = 4  # per call, as a loop with that many games would ask


def measure(case: Case, updates_per_beat: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return beats per second of the games, the learner and both, medians over rounds in turn."""
    learner_core, *game_cores = sorted(os.sched_getaffinity(0))[: 1 + options.game_cores]
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, game_cores)  # what the games start inherits this: C++ threads, worker processes
    game = {"num_games": options.games, "threads": len(game_cores)}
    session = make_session(
        case,
        options.execution,
        device=options.device,
        threads=1,
        game=game | ({} if case.kind == "nature" else {"vectorize": "workers"}),
        learner={"samples_per_insert": case.batch * updates_per_beat / options.games},
    )
    alone = make_games(case.game, session.settings, options.games, owner="games alone")
    os.sched_setaffinity(0, [learner_core])
    actions = torch.randint(session.spec.num_actions, (1_000, options.games)).numpy()
    try:
        ticks = settled_ticks(session)
        made: list[int] = []  # updates of each beat of both

        def random_games(beat: int) -> None:
            alone.send(actions[beat % len(actions)])
            alone.recv()

        def acted_games(beat: int) -> None:
            alone.send(session.actor.act(alone.current.observation, session.clock.steps))
            alone.recv()

        def learner(beat: int) -> None:
            session.learner.update(UPDATES_ALONE, session.clock.steps)

        def both(beat: int) -> None:
            before = session.learner.updates
            made.append(next(ticks).updates - before)

        calls: dict[str, Callable[[int], Any]] = {
            "random games": random_games, "games": acted_games, "learner": learner, "both": both
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(ROUNDS):
            for name in calls if number % 2 == 0 else reversed(calls):
                rates[name].append(_per_second(calls[name], options.seconds / ROUNDS))
        execution = session.learner.execution
    finally:
        alone.close()
        session.close()
        os.sched_setaffinity(0, everywhere)
    # Games that begin an episode ignore their actions, and those steps owe no updates: fewer than asked for.
    updates_per_beat = statistics.mean(made)
    rates["learner"] = [rate * UPDATES_ALONE / updates_per_beat for rate in rates["learner"]]
    beats = {name: statistics.median(found) for name, found in rates.items()}
    slower = [min(games, learns) for games, learns in zip(rates["games"], rates["learner"], strict=True)]
    retained = [together / least for together, least in zip(rates["both"], slower, strict=True)]
    in_turns = 1.0 / (1.0 / beats["games"] + 1.0 / beats["learner"])
    return {
        "execution": execution,
        "updates_per_beat": round(updates_per_beat, 3),
        "beats_per_s": {name: round(rate, 2) for name, rate in beats.items()},
        "steps_per_s": {name: round(rate * options.games, 1) for name, rate in beats.items()},
        "learner_updates_per_s": round(beats["learner"] * updates_per_beat, 1),
        "slower_alone": "games" if beats["games"] < beats["learner"] else "learner",
        "retained": {"median": statistics.median(retained), "min": min(retained), "max": max(retained)},
        "taking_turns": round(in_turns / min(beats["games"], beats["learner"]), 4),
        "rounds": {name: [round(rate, 2) for rate in found] for name, found in rates.items()},
    }


def _per_second(call: Callable[[int], Any], seconds: float) -> float:
    """Return calls per second over a window, after a few; a GPU has then done all of it."""
    for beat in range(3):
        call(beat)
    _wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call(count)
        count += 1
    _wait()
    return count / (time.perf_counter() - started)


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def main() -> None:
    """Measure each case as trained and balanced, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=OVERLAPPING, default=list(OVERLAPPING))
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the four rates")
    parser.add_argument("--execution", default="eager", help="how updates run: eager, compiled, captured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--games", type=int, default=GAMES, help="copies of the game")
    parser.add_argument("--game-cores", type=int, default=1, help="cores for the games, beside the learner's one")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 1 + options.game_cores:
        parser.error(f"needs {1 + options.game_cores} cores")
    for name in options.cases:
        case = CASES[name]
        trained = measure(case, UPDATES_PER_BEAT * options.games / GAMES, options)
        beats = trained["beats_per_s"]
        even = max(1, round(beats["learner"] * trained["updates_per_beat"] / beats["games"]))
        found = {"as trained": trained, "balanced": measure(case, even, options)}
        heads = f"{'games':>10}{'learner':>10}{'both':>10}{'retained':>24}{'in turns':>10}"
        print(f"\n{name:14}{'updates/beat':>13}{heads}")
        for how, result in found.items():
            beats, kept = result["beats_per_s"], result["retained"]
            rates = "".join(f"{beats[which]:10.1f}" for which in ("games", "learner", "both"))
            ratio = f"{kept['median']:10.2f} ({kept['min']:.2f} - {kept['max']:.2f})"
            print(f"{how:14}{result['updates_per_beat']:13.2f}{rates}{ratio}{result['taking_turns']:10.2f}")
        about = {"unit": "steps of all games per second", "games": options.games, "game_cores": options.game_cores}
        print(write(f"overlap/{name.replace('/', '-')}", about | {"device": options.device, **found}), flush=True)


if __name__ == "__main__":
    main()
