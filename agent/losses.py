"""TD targets and losses as pure functions of tensors. A variant of the agent is one more function here, no subclass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from agent.config import LearnerSettings, NetworkSettings
from agent.types import Batch

Kind = Literal["huber", "mse"]
ELEMENTWISE = {"huber": F.smooth_l1_loss, "mse": F.mse_loss}


class Values(Protocol):
    """What a loss asks of a network; the noise of its weights, if any, is already bound."""

    fractions: torch.Tensor  # f32 [K], the fixed fractions

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> action values [N, A]."""

    def quantiles(self, observation: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """Return the return's quantiles [N, T, A] at `fractions`, f32 [N, T]; None: at the fixed ones."""


class Loss(NamedTuple):
    """What one batch says: the scalar to descend, and per-transition figures without gradient."""

    loss: torch.Tensor  # f32 []
    td_error: torch.Tensor  # f32 [N], signed: target - prediction, of the means
    priority: torch.Tensor  # f32 [N], >= 0, what prioritized replay is given
    q_tm1: torch.Tensor  # f32 [N, A], the values that were corrected


LossFunction = Callable[[Values, Values, Batch, torch.Generator], Loss]


class Munchausen(NamedTuple):
    """Soft Q-learning that adds the policy's own log-probability to the reward (Vieillard et al. 2020)."""

    alpha: float  # share of it
    temperature: float  # of the policy softmax(q / temperature), in units of reward
    clip: float  # least value of temperature * log-probability
    reference: Literal["target", "online"]  # whose log-probability

    def bonus(self, q_tm1: torch.Tensor, a_tm1: torch.Tensor) -> torch.Tensor:
        """Return alpha * max(clip, temperature * log pi(a_tm1)), [N]; the upper bound of the paper's clip holds."""
        log_policy = torch.log_softmax(q_tm1 / self.temperature, dim=1)  # [N, A]
        taken = log_policy.gather(1, a_tm1.unsqueeze(1)).squeeze(1)
        return self.alpha * (self.temperature * taken).clamp_min(self.clip)

    def soft_values(self, z_t: torch.Tensor, q_t: torch.Tensor) -> torch.Tensor:
        """Return the mean of z_t - temperature * log pi over the actions of pi = softmax(q_t / temperature).

        z_t [N, T, A], q_t [N, A] -> [N, T].
        """
        log_policy = torch.log_softmax(q_t / self.temperature, dim=1).unsqueeze(1)  # [N, 1, A]
        return (log_policy.exp() * (z_t - self.temperature * log_policy)).sum(2)


def td_target(
    r_t: torch.Tensor, discount_t: torch.Tensor, q_t: torch.Tensor, selector_q_t: torch.Tensor
) -> torch.Tensor:
    """Return r_t + discount_t * q_t[argmax selector_q_t], [N].

    With `selector_q_t` = `q_t` this is Q-learning (Mnih et al. 2015); with the online network's values it is double
    Q-learning (van Hasselt et al. 2016, equation 4). `discount_t` carries gamma^k and is 0 behind a termination.
    """
    best_t = selector_q_t.argmax(dim=1, keepdim=True)  # [N, 1]
    return r_t + discount_t * q_t.gather(1, best_t).squeeze(1)


def q_learning(
    online: Values,
    target: Values,
    batch: Batch,
    generator: torch.Generator | None = None,
    *,
    double: bool,
    kind: Kind,
    munchausen: Munchausen | None = None,
) -> Loss:
    """Return the weighted mean loss of one-network Q-learning on `batch`; `generator` is not asked.

    `kind` is "huber" (corner at 1) or "mse" (the squared error, without a half, as torch and SB3 have it). The gradient
    flows through `online(s_tm1)` alone. With `munchausen` the target is that of M-DQN (Vieillard et al. 2020, equation
    2) and `double` means nothing.
    """
    q_tm1 = online(batch.s_tm1)
    values_tm1 = q_tm1.detach()
    with torch.no_grad():
        q_t = target(batch.s_t)  # [N, A]
        if munchausen is None:
            target_t = td_target(batch.r_t, batch.discount_t, q_t, online(batch.s_t) if double else q_t)
        else:
            reference = values_tm1 if munchausen.reference == "online" else target(batch.s_tm1)
            # Under its own softmax the mean of q - temperature * log pi is a log-sum-exp.
            soft_t = munchausen.temperature * torch.logsumexp(q_t / munchausen.temperature, dim=1)
            target_t = batch.r_t + munchausen.bonus(reference, batch.a_tm1) + batch.discount_t * soft_t
    qa_tm1 = q_tm1.gather(1, batch.a_tm1.unsqueeze(1)).squeeze(1)  # [N]
    loss = (batch.weight * ELEMENTWISE[kind](qa_tm1, target_t, reduction="none")).mean()
    td_error = target_t - qa_tm1.detach()
    return Loss(loss, td_error, td_error.abs(), values_tm1)


def quantile_q_learning(
    online: Values,
    target: Values,
    batch: Batch,
    generator: torch.Generator | None = None,
    *,
    double: bool,
    fractions: tuple[int, int] | None,
    munchausen: Munchausen | None = None,
) -> Loss:
    """Return the weighted mean quantile regression loss on `batch`: QR-DQN's or IQN's (Dabney et al. 2018a, b).

    `fractions` None takes the networks' fixed ones; (T, T') draws as many from `generator` for every transition, for
    the prediction and the target. The Huber loss has its corner at 1; it is summed over the prediction's fractions and
    averaged over the target's. `double` chooses by the online network's mean at its fixed fractions, otherwise the
    target's mean at the target's fractions chooses. With `munchausen`, whose policies are softmaxes of those means, the
    target is that of M-IQN (Vieillard et al. 2020, section 4) and `double` means nothing.

    The priority is the mean of |delta| over the target's fractions, summed over the prediction's (Clark et al. 2024).
    """
    if fractions is None:
        fractions_tm1, drawn_tm1, drawn_t = online.fractions, None, None  # [T]
    else:
        count = len(batch.r_t)
        drawn = torch.rand(count, sum(fractions), generator=generator, device=generator.device)
        drawn_tm1, drawn_t = drawn.to(batch.r_t.device, non_blocking=True).split(fractions, dim=1)
        fractions_tm1 = drawn_tm1  # [N, T]
    z_tm1 = online.quantiles(batch.s_tm1, drawn_tm1)  # [N, T, A]
    q_tm1 = z_tm1.detach().mean(1)
    with torch.no_grad():
        z_t = target.quantiles(batch.s_t, drawn_t)  # [N, T', A]
        if munchausen is None:
            best_t = (online(batch.s_t) if double else z_t.mean(1)).argmax(dim=1)  # [N]
            r_t, bootstrap_t = batch.r_t, _of_action(z_t, best_t)
        else:
            is_online = munchausen.reference == "online"
            reference = q_tm1 if is_online else target.quantiles(batch.s_tm1, drawn_t).mean(1)
            r_t = batch.r_t + munchausen.bonus(reference, batch.a_tm1)
            bootstrap_t = munchausen.soft_values(z_t, z_t.mean(1))
        target_t = torch.addcmul(r_t.unsqueeze(1), batch.discount_t.unsqueeze(1), bootstrap_t)  # [N, T']
    za_tm1 = _of_action(z_tm1, batch.a_tm1)  # [N, T]
    prediction, wanted = torch.broadcast_tensors(za_tm1.unsqueeze(2), target_t.unsqueeze(1))  # [N, T, T']
    with torch.no_grad():
        delta = wanted - prediction
        fraction = fractions_tm1.unsqueeze(-1)  # [T, 1] or [N, T, 1]: it belongs to the prediction
        asymmetry = torch.where(delta < 0.0, 1.0 - fraction, fraction)
        priority = delta.abs().sum((1, 2)) / delta.shape[2]
        td_error = target_t.mean(1) - za_tm1.mean(1)
    each = (asymmetry * F.smooth_l1_loss(prediction, wanted, reduction="none")).sum((1, 2))  # [N]
    return Loss((batch.weight * each).mean() / delta.shape[2], td_error, priority, q_tm1)


def _of_action(z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """The quantiles of one action: [N, T, A], i64 [N] -> [N, T]."""
    return z.gather(2, action.view(-1, 1, 1).expand(-1, z.shape[1], 1)).squeeze(2)


def make_loss(network: NetworkSettings, learner: LearnerSettings) -> LossFunction:
    """Return the loss that the settings ask for."""
    munchausen = None
    if learner.munchausen:
        munchausen = Munchausen(
            learner.munchausen,
            learner.munchausen_temperature,
            learner.munchausen_clip,
            learner.munchausen_reference,
        )
    if network.distribution == "none":
        return partial(q_learning, double=learner.double, kind=learner.loss, munchausen=munchausen)
    fractions = (learner.fractions, learner.target_fractions) if network.distribution == "implicit" else None
    return partial(quantile_q_learning, double=learner.double, fractions=fractions, munchausen=munchausen)
