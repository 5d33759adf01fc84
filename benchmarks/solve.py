"""How many seconds until an agent solves a small game: ours beside stable-baselines3's DQN with the zoo's settings.

    .venv/bin/python benchmarks/solve.py learn lunar-lander      # writes results/learn_lunar-lander.json
    .venv/bin/python benchmarks/solve.py race lunar-lander       # writes results/race_lunar-lander.json

`learn` trains ours for its full number of steps with every seed and plays 100 unseen episodes with the weights of its
best evaluation. `race` runs both, one after the other and in alternating order, until the mean of 20 evaluation
episodes reaches the threshold; the clock stands still during evaluations. Both play on the same kind of games, are
judged on the same episodes; ours gets one thread, the other as many as make it fastest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli.session import Judge, Session, evaluation_seed  # noqa: E402
from agent.cli.settings import load_settings  # noqa: E402
from agent.config import Settings  # noqa: E402
from agent.telemetry.statistics import bootstrap_ci, iqm  # noqa: E402
from benchmarks.results import write  # noqa: E402
from benchmarks.suites import ZOO, ZOO_STEPS  # noqa: E402
from envs.make import spec  # noqa: E402

Keep = Callable[[Mapping[str, Any]], None]  # saves the results known so far

EVERY, EPISODES, UNSEEN = 5_000, 20, 100


def judged(judge: Judge, act: Any, settings: Settings, steps: int) -> float:
    """Return the mean score of the periodic evaluation after `steps`."""
    episodes = judge.play(act, EPISODES, evaluation_seed(settings, steps))
    return float(np.mean([episode.score for episode in episodes]))


def train(session: Session, on_evaluation: Callable[[int, float], bool]) -> tuple[list[list[float]], float]:
    """Train until all steps are played or `on_evaluation(steps, mean)` says enough; return the curve and its seconds."""
    torch.set_num_threads(1)
    curve: list[list[float]] = []
    trained_s, due, before = 0.0, EVERY, time.perf_counter()
    for tick in session.ticks():
        ended = tick.steps >= session.settings.steps
        if tick.steps < due and not ended:
            continue
        trained_s += time.perf_counter() - before
        due += EVERY
        mean = float(np.mean([episode.score for episode in session.evaluate(EPISODES)]))
        curve.append([tick.steps, round(trained_s, 2), round(mean, 2)])
        if on_evaluation(tick.steps, mean) or ended:
            break
        before = time.perf_counter()
    return curve, trained_s


def full_run(game: str, settings: Settings) -> dict[str, Any]:
    """Train ours for all its steps; judge the weights of its best evaluation, and the last, on unseen episodes."""
    session = Session(game, settings)
    best: dict[str, Any] = {"mean": -np.inf}

    def keep(steps: int, mean: float) -> bool:
        if mean > best["mean"]:
            weights = {name: value.clone() for name, value in session.learner.average.state_dict().items()}
            best.update(steps=steps, mean=mean, weights=weights)
        return False

    try:
        curve, trained_s = train(session, keep)
        seed = 777_000_000 + settings.seed
        last = [episode.score for episode in _greedy(session, seed)]
        session.learner.average.load_state_dict(best["weights"])
        scores = np.array([episode.score for episode in _greedy(session, seed)])
    finally:
        session.close()
    low, high = bootstrap_ci(scores, np.mean)
    return {
        "seed": settings.seed, "steps": settings.steps, "train_s": round(trained_s, 1), "best_at_steps": best["steps"],
        "best_evaluation": round(best["mean"], 2), "mean": round(float(scores.mean()), 2),
        "std": round(float(scores.std()), 2), "iqm": round(iqm(scores), 2), "ci95": [round(low, 2), round(high, 2)],
        "last_weights_mean": round(float(np.mean(last)), 2), "curve": curve,
    }  # fmt: skip


def _greedy(session: Session, seed: int) -> list[Any]:
    return session.judge.play(session.act(seed), UNSEEN, seed)


def race_ours(game: str, settings: Settings, threshold: float) -> dict[str, Any]:
    """Train ours until the threshold; return seconds of training, and the curve."""
    session = Session(game, settings)
    try:
        curve, trained_s = train(session, lambda steps, mean: mean >= threshold)
    finally:
        session.close()
    reached = trained_s if curve[-1][2] >= threshold else None
    return {"reached_s": reached, "train_s": trained_s, "best": max(row[2] for row in curve), "curve": curve}


def faster_threads_for_sb3(game: str, gymnasium_id: str) -> tuple[int, dict[int, float]]:
    """Return how many torch threads make stable-baselines3's DQN fastest here, and its steps per second with each."""
    rates: dict[int, list[float]] = {threads: [] for threads in sorted({1, os.cpu_count() or 1})}
    for _ in range(3):
        for threads, measured in rates.items():
            torch.set_num_threads(threads)
            model = DQN("MlpPolicy", gymnasium.make(gymnasium_id), seed=0, device="cpu", **ZOO[game])
            before = time.perf_counter()
            model.learn(2_500)
            measured.append(2_500 / (time.perf_counter() - before))
    medians = {threads: statistics.median(measured) for threads, measured in rates.items()}
    return max(medians, key=lambda threads: medians[threads]), medians


def race_sb3(game: str, settings: Settings, threshold: float, gymnasium_id: str, threads: int) -> dict[str, Any]:
    """Train stable-baselines3's DQN with the zoo's settings until the threshold; return the same."""
    judge = Judge(game, settings)
    torch.set_num_threads(threads)
    model = DQN("MlpPolicy", gymnasium.make(gymnasium_id), seed=settings.seed, device="cpu", **ZOO[game])
    curve: list[list[float]] = []
    state = {"trained_s": 0.0, "before": time.perf_counter(), "due": EVERY, "reached": None}

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps < state["due"]:
                return True
            state["trained_s"] += time.perf_counter() - state["before"]
            state["due"] += EVERY
            mean = judged(judge, lambda seen: model.predict(seen, deterministic=True)[0], settings, self.num_timesteps)
            curve.append([self.num_timesteps, round(state["trained_s"], 2), round(mean, 2)])
            if mean >= threshold:
                state["reached"] = state["trained_s"]
            state["before"] = time.perf_counter()
            return state["reached"] is None

    try:
        model.learn(ZOO_STEPS[game], Watch())
    finally:
        judge.close()
    return {
        "reached_s": state["reached"], "train_s": state["trained_s"], "best": max(row[2] for row in curve), "curve": curve
    }  # fmt: skip


def learn(game: str, base: Settings, seeds: int, threshold: float, keep: Keep) -> None:
    """Train ours with every seed; `keep` what each scored on unseen episodes."""
    runs = []
    for seed in range(seeds):
        runs.append(full_run(game, base.model_copy(update={"seed": seed})))
        print({key: value for key, value in runs[-1].items() if key != "curve"}, flush=True)
        keep({"runs": runs, "solved_seeds": sum(run["mean"] >= threshold for run in runs)})


def race(
    game: str, base: Settings, races: int, threshold: float, gymnasium_id: str, threads: int | None, first: int, keep: Keep
) -> None:
    """Let ours and stable-baselines3's DQN run for the threshold, in alternating order; `keep` seconds and ratios."""
    rates: dict[int, float] = {}
    if threads is None:
        threads, rates = faster_threads_for_sb3(game, gymnasium_id)
        print(f"sb3 plays and learns {rates} steps/s by threads: it gets {threads}", flush=True)
    rows: list[dict[str, Any]] = []
    for number in range(races):
        settings = base.model_copy(update={"seed": first + number})
        entrants = {
            "ours": lambda settings=settings: race_ours(game, settings, threshold),
            "sb3": lambda settings=settings: race_sb3(game, settings, threshold, gymnasium_id, threads),
        }
        order = list(entrants) if number % 2 == 0 else list(reversed(entrants))
        results = {name: entrants[name]() for name in order}
        rows.append({"seed": settings.seed, "order": order, **results})
        for name, result in results.items():
            reached = "never" if result["reached_s"] is None else f"{result['reached_s']:.1f} s"
            print(f"race {number} {name}: {reached} (trained {result['train_s']:.1f} s, best {result['best']:.1f})", flush=True)
        # Where one never got there, its whole training time is a lower bound of what it would have needed.
        ratios = [
            (row["ours"]["reached_s"] or row["ours"]["train_s"]) / (row["sb3"]["reached_s"] or row["sb3"]["train_s"])
            for row in rows
        ]
        sb3 = {"zoo": ZOO[game], "threads": threads, "steps_per_s_by_threads": rates}
        keep({"sb3": sb3, "races": rows, "seconds_ratios": ratios, "median_ratio": statistics.median(ratios)})
    print(f"seconds of ours / seconds of sb3: {[round(ratio, 3) for ratio in ratios]}, median {statistics.median(ratios):.3f}")


def main() -> None:
    """Run what the command line asks for, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["learn", "race"])
    parser.add_argument("game", choices=sorted(ZOO))
    parser.add_argument("--repeats", type=int, default=None, help="seeds to learn with (5), or races (3)")
    parser.add_argument("--sb3-threads", type=int, default=None, help="torch threads of sb3 (measured, on a quiet machine)")
    parser.add_argument("--first", type=int, default=100, help="seed of the first race")
    parser.add_argument("--preset", default=None, help="of ours")
    options = parser.parse_args()
    base, about = load_settings(options.game, preset=options.preset), spec(options.game)
    threshold = float(about.solved_at)
    protocol = (
        f"greedy, raw scores; periodic evaluation: {EPISODES} episodes every {EVERY} steps on separate games; at the end "
        f"{UNSEEN} unseen episodes with the weights of the best evaluation; ours gets one torch thread, sb3 as many as make "
        "it fastest; the clock stands still during evaluations"
    )
    facts = {"protocol": protocol, "threshold": threshold, "settings": base.model_dump(mode="json")}

    def keep(result: Mapping[str, Any]) -> None:
        name = f"{options.part}_{options.game}" + (f"_{options.preset}" if options.preset else "")
        name += f"_from{options.first}" if options.first != 100 else ""
        print(write(name, facts | dict(result)), flush=True)

    if options.part == "learn":
        learn(options.game, base, options.repeats or 5, threshold, keep)
    else:
        race(options.game, base, options.repeats or 3, threshold, about.gymnasium_id, options.sb3_threads, options.first, keep)


if __name__ == "__main__":
    main()
