"""A Pong agent to freeze where no GPU is at hand: the Nature network taught by a rule, in minutes on one core.

    .venv/bin/python benchmarks/pong.py            # leaves a run in runs/atari/pong/ as if it had been trained

The rule sees what the network sees: it finds ball and paddle in the newest two frames and goes where the ball will
cross. The network learns its choice on the states that the network itself visits (DAgger, Ross et al. 2011), so it
plays nearly as well as the rule: far above random play (-20.7), far below a trained agent (+18).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent import checkpoint  # noqa: E402
from agent.cli.session import Judge, evaluating, evaluation_seed, make_games, make_network  # noqa: E402
from agent.cli.session import family_settings  # noqa: E402
from agent.cli.settings import load_settings  # noqa: E402
from agent.seeding import numpy_generator  # noqa: E402
from agent.telemetry.run_folder import RunFolder  # noqa: E402
from envs.make import spec  # noqa: E402

GAME, GAMES = "atari/pong", 8
TOP, BOTTOM, LEFT, PADDLE = 15, 76, 12, 73  # rows of the field and columns between which the ball flies, of 84
BRIGHT = 110  # the field is 87
STAY, UP, DOWN = 0, 2, 3
RATE = 2e-4  # of learning, falling to nothing in the last iteration


def place(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return whether the ball is seen, its column and row, and the row of our paddle, u8 [N, 84, 84] -> [N] each."""
    rows = np.arange(TOP, BOTTOM + 1)
    ball = frame[:, TOP : BOTTOM + 1, LEFT : PADDLE - 1] > BRIGHT
    size = np.maximum(ball.sum(axis=(1, 2)), 1)
    x = (ball.sum(axis=1) * np.arange(LEFT, PADDLE - 1)).sum(axis=1) / size
    y = (ball.sum(axis=2) * rows).sum(axis=1) / size
    paddle = (frame[:, TOP : BOTTOM + 1, PADDLE : PADDLE + 3] > BRIGHT).any(axis=2)
    return ball.any(axis=(1, 2)), x, y, (paddle * rows).sum(axis=1) / np.maximum(paddle.sum(axis=1), 1)


class Answer(NamedTuple):
    """What the rule makes of N observations."""

    action: np.ndarray  # i64 [N]
    weight: np.ndarray  # f64 [N], 0 .. 1: how much the choice matters
    seen: np.ndarray  # f64 [N, 4]: column and row of the ball, row of the paddle and where it should be, about -1 .. 1


def rule(observation: np.ndarray) -> Answer:
    """Return the rule's answer, u8 [N, 4, 84, 84]."""
    seen, x, y, paddle = place(observation[:, -1])
    seen_before, x_before, y_before, paddle_before = place(observation[:, -2])
    speed = x - x_before
    coming = seen & seen_before & (speed > 0.3)
    ahead = y + (y - y_before) * np.where(coming, (PADDLE - x) / np.maximum(speed, 0.3), 0)
    height = BOTTOM - TOP
    folded = (ahead - TOP) % (2 * height)  # it bounces between top and bottom
    ahead = TOP + np.where(folded > height, 2 * height - folded, folded)
    target = np.where(coming, ahead, np.where(seen, (y + 45) / 2, 45))
    way = target - (2 * paddle - paddle_before)  # the paddle slides on
    action = np.where(seen & (way < -2), UP, np.where(seen & (way > 2), DOWN, STAY))
    weight = np.clip(np.abs(np.abs(way) - 2) / 4, 0.1, 1.0)  # near its limits the choice hardly matters
    return Answer(action, weight, (np.stack([x, y, paddle, target], axis=1) - 42) / 42)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--turns", type=int, default=600, help="of every game in an iteration")
    parser.add_argument("--epochs", type=int, default=8, help="over all states at the end")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_settings(GAME)
    network = make_network(spec(GAME, **family_settings(settings)), settings, torch.device("cpu"))
    first, _, last = network.head.action_values
    places = torch.nn.Linear(first.out_features, 4)
    optimizer = torch.optim.Adam([*network.parameters(), *places.parameters()], lr=RATE)
    generator = numpy_generator(settings.seed, "pong")
    games = make_games(GAME, settings, GAMES, owner="games")
    states, answers = [], []
    for iteration in range(options.iterations):
        for _ in range(options.turns):
            observation = games.current.observation
            states.append(observation.copy())
            answers.append(rule(observation))
            action = answers[-1].action
            if iteration:
                with torch.inference_mode():
                    action = network(torch.from_numpy(observation)).argmax(dim=1).numpy()
            games.send(np.where(generator.random(GAMES) < 0.05, generator.integers(6, size=GAMES), action))
            games.recv()
        x, wanted = np.concatenate(states), Answer(*map(np.concatenate, zip(*answers, strict=True)))
        final = iteration + 1 == options.iterations
        for epoch in range(options.epochs if final else 3):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - epoch / options.epochs if final else 1)
            right = 0.0
            for rows in np.array_split(generator.permutation(len(x)), max(1, len(x) // 32)):
                action, weight, seen = (torch.from_numpy(each[rows]) for each in wanted)
                hidden = torch.relu(first(network.torso(torch.from_numpy(x[rows]))))
                logits = last(hidden)
                choice = (F.cross_entropy(logits, action, reduction="none") * weight.float()).mean()
                # To say where things are is a richer lesson than the choice, and the choice follows from it.
                loss = choice + 5 * F.mse_loss(places(hidden), seen.float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right += float((logits.argmax(dim=1) == action).double() @ weight)
            share = right / wanted.weight.sum()
            print(f"iteration {iteration}: {len(x)} states, chooses as the rule in {share:.1%}", flush=True)
    games.close()
    judge = Judge(GAME, settings)
    act = evaluating(network, settings, 6, evaluation_seed(settings, 0), torch.device("cpu"))
    scores = [episode.score for episode in judge.play(act, 8, evaluation_seed(settings, 0))]
    judge.close()
    folder = RunFolder.create(options.runs_dir, GAME, settings.seed, "taught", settings, sys.argv)
    steps = options.iterations * options.turns * GAMES
    weights = {"network": network.state_dict(), "steps": steps}
    tree = {"weights": weights, "steps": steps, "mean": float(np.mean(scores)), "episodes": len(scores)}
    checkpoint.save(folder.path / "best", 1, tree, keep=1)
    folder.set_status("done", steps=steps)
    print(f"{folder.path}: mean score {np.mean(scores):.1f} of {len(scores)} episodes")


if __name__ == "__main__":
    main()
