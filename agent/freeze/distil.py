"""Distillation: a smaller policy learns from the live one how to choose in the states that it visits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from agent.freeze.damage import shares, typical_gap
from agent.freeze.graph import Continuous, Discrete, Graph, multiply_accumulates
from agent.freeze.rebuild import LayerModule, Student, from_trained, to_modules
from agent.seeding import numpy_generator

STEPS = 3000  # in which a small policy learns what it can
BATCH, SMALLEST = 256, 32  # states of a step
WORK = 4e11  # multiply-accumulates forwards in all steps: one to two minutes on two cores
LEARNING_RATE = 6e-3  # of Adam at the start, as a share of the size of a layer's weights; along a cosine to 0
SHIFTS = ("bias", "shift")  # of any size; in the unit of the weights beside them
HELD_OUT = 10  # every tenth state is only for judging
JUDGED = 20  # how often on the way

Loss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]  # outputs [N, A] in the states [N] of these indices -> []


def distil(
    student: Graph, states: np.ndarray, targets: np.ndarray, *, steps: int, seed: int = 0, batch_size: int = BATCH
) -> Graph:
    """Return the student after `steps` updates towards the live outputs, [N, outputs], in states [N, *shape].

    It is the one of JUDGED on the way, the start among them, that chooses best in a tenth of the states that it does
    not learn from; the first of equals. The same arguments give the same weights. ValueError when the targets do not
    fit the states.
    """
    if targets.shape != (len(states), student.num_outputs):
        raise ValueError(
            f"Targets must be the live policy's outputs, {(len(states), student.num_outputs)}, not {targets.shape}."
        )
    generator = numpy_generator(seed, "distillation")
    judging, learning = np.split(generator.permutation(len(states)), [math.ceil(len(states) / HELD_OUT)])
    if not (steps and len(learning)):
        return student
    live = torch.tensor(targets, dtype=torch.float32)
    loss_of = _loss(student.head, live)
    module = to_modules(student)
    best, best_score = student, _score(module, loss_of, live, states, judging)
    optimizer = torch.optim.Adam(_rates(module))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = generator.choice(learning, batch_size)
        loss = loss_of(module(torch.tensor(states[chosen])), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) * JUDGED // steps > step * JUDGED // steps:
            score = _score(module, loss_of, live, states, judging)
            if score > best_score:
                best, best_score = from_trained(module), score
    return best


def affordable(student: Graph, steps: int) -> tuple[int, int]:
    """Return how many of the steps, and of how many states each, a student of its size can take within WORK.

    First the batch is halved, down to SMALLEST, and then there are fewer steps. It does not depend on the machine: the
    same run gives the same policy.
    """
    macs, batch_size = multiply_accumulates(student), BATCH
    while batch_size > SMALLEST and steps * batch_size * macs > WORK:
        batch_size //= 2
    return min(steps, max(1, int(WORK / (batch_size * macs)))), batch_size


def _rates(module: Student) -> list[dict[str, Any]]:
    """Return Adam's groups: each layer learns in steps of the size of its weights, whatever the unit of values."""
    groups = []
    for layer in module.modules():
        if isinstance(layer, LayerModule):
            own = {name: each for name, each in layer.named_parameters() if not name.startswith("layers.")}
            weights = [each.detach() for name, each in own.items() if name not in SHIFTS]
            if weights:
                size = float(weights[0].norm()) / weights[0].numel() ** 0.5
                groups.append({"params": list(own.values()), "lr": LEARNING_RATE * (size or 1.0)})
    return groups


def _loss(head: Discrete | Continuous, live: torch.Tensor) -> Loss:
    """Return the loss of outputs against the live ones, [N, A].

    Continuous: the squared error of the action. Discrete: that of the outputs less their mean, which keeps the values
    true, and the cross-entropies of the choice at a temperature and of the live choice itself, which keep the order
    where values lie close.
    """
    if isinstance(head, Continuous):
        return lambda outputs, chosen: F.mse_loss(shares(head, outputs), shares(head, live[chosen]))
    target = _centred(live)
    scale = target.std().clamp(min=1e-6)
    temperature = typical_gap(live)
    action, odds = live.argmax(1), F.log_softmax(live / temperature, 1)

    def loss(outputs: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
        of_values = ((_centred(outputs) - target[chosen]) / scale).square().mean()
        logits = outputs / temperature
        of_order = F.kl_div(F.log_softmax(logits, 1), odds[chosen], reduction="batchmean", log_target=True)
        return of_values + of_order + F.cross_entropy(logits, action[chosen])

    return loss


def _centred(outputs: torch.Tensor) -> torch.Tensor:
    return outputs - outputs.mean(1, keepdim=True)


@torch.inference_mode()
def _score(module: Student, loss_of: Loss, live: torch.Tensor, states: np.ndarray, judging: np.ndarray) -> float:
    """Return in how many of the `judging` states the choice is the live one; minus the loss for continuous actions."""
    score = 0.0
    for chosen in np.array_split(judging, -(-len(judging) // 256)):
        outputs = module(torch.tensor(states[chosen]))
        if isinstance(module.like.head, Discrete):
            score += float((outputs.argmax(1) == live[chosen].argmax(1)).sum())
        else:
            score -= len(chosen) * float(loss_of(outputs, chosen))
    return score
