"""TD targets and losses as pure functions of tensors. A variant of the agent is one more function here, no subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from agent.types import Batch

Values = Callable[[torch.Tensor], torch.Tensor]  # observations [N, *shape] -> action values [N, A]
Kind = Literal["huber", "mse"]
ELEMENTWISE = {"huber": F.smooth_l1_loss, "mse": F.mse_loss}


class Loss(NamedTuple):
    """What one batch says: the scalar to descend, and per-transition figures without gradient."""

    loss: torch.Tensor  # f32 []
    td_error: torch.Tensor  # f32 [N], signed: target - prediction
    q_tm1: torch.Tensor  # f32 [N, A], the values that were corrected


def td_target(
    r_t: torch.Tensor, discount_t: torch.Tensor, q_t: torch.Tensor, selector_q_t: torch.Tensor
) -> torch.Tensor:
    """Return r_t + discount_t * q_t[argmax selector_q_t], [N].

    With `selector_q_t` = `q_t` this is Q-learning (Mnih et al. 2015); with the online network's values it is double
    Q-learning (van Hasselt et al. 2016, equation 4). `discount_t` carries gamma^k and is 0 behind a termination.
    """
    best_t = selector_q_t.argmax(dim=1, keepdim=True)  # [N, 1]
    return r_t + discount_t * q_t.gather(1, best_t).squeeze(1)


def q_learning(online: Values, target: Values, batch: Batch, *, double: bool, kind: Kind) -> Loss:
    """Return the weighted mean loss of one-network Q-learning on `batch`.

    `kind` is "huber" (corner at 1) or "mse" (the squared error, without a half, as torch and SB3 have it). The gradient
    flows through `online(s_tm1)` alone.
    """
    with torch.no_grad():
        q_t = target(batch.s_t)  # [N, A]
        selector_q_t = online(batch.s_t) if double else q_t
        target_t = td_target(batch.r_t, batch.discount_t, q_t, selector_q_t)
    q_tm1 = online(batch.s_tm1)
    qa_tm1 = q_tm1.gather(1, batch.a_tm1.unsqueeze(1)).squeeze(1)  # [N]
    loss = (batch.weight * ELEMENTWISE[kind](qa_tm1, target_t, reduction="none")).mean()
    return Loss(loss, (target_t - qa_tm1).detach(), q_tm1.detach())
