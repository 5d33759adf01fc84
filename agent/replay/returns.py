"""N-step returns: rewards summed until the window or the episode ends, and what the bootstrap is worth."""

from __future__ import annotations

from functools import lru_cache

import torch


def n_step_return(
    reward: torch.Tensor, terminated: torch.Tensor, truncated: torch.Tensor, discount: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the n-step return, the discount of the bootstrap and the number of steps taken, for N windows.

    `reward`, `terminated` and `truncated` are [N, n] and follow the N actions in time; what lies behind the first end
    of a window is ignored. With k the steps until the first end, termination or truncation, or n:

        r_t = sum over j < k of discount^j reward_j     f32 [N]
        discount_t = discount^k, 0 when the k-th step terminated     f32 [N]
        k     i64 [N]

    A truncated window bootstraps with discount^k, not discount^n, from the observation k steps on.
    """
    ended = terminated | truncated  # [N, n]
    inside = ended.cumsum(1) == ended  # [N, n], no end before this step
    power = (_raised if isinstance(discount, torch.Tensor) else _powers)(discount, reward.shape[1], reward.device)
    k = inside.sum(1)
    r_t = (reward * inside * power[:-1]).sum(1)
    discount_t = power.take(k).masked_fill((terminated & inside).any(1), 0.0)
    return r_t, discount_t, k


@lru_cache(maxsize=16)
def _powers(discount: float, n: int, device: torch.device) -> torch.Tensor:
    """`_raised` of a number, kept."""
    return _raised(discount, n, device)


def _raised(discount: float | torch.Tensor, n: int, device: torch.device) -> torch.Tensor:
    """discount^0 .. discount^n, f32 [n + 1], made where they are needed: a scheduled discount makes no GPU wait."""
    return torch.pow(discount, torch.arange(n + 1, dtype=torch.float64, device=device)).float()
