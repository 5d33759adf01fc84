"""Adam over a fixed list of parameters: torch's fused kernel, on moments that are written in place, never rebound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

BETA_1, BETA_2 = 0.9, 0.999  # Kingma and Ba 2015
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # torch's names


class Adam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)` whose step is `move`: the same bits without what torch does around its kernel.

    For a small network that is most of a step's time. The step size is an argument, a number or a tensor on the
    parameters' device, so that a captured update can follow its schedule; clipping is a divisor, which costs no pass
    over the gradients. All parameters step together. `skipped`, f32 [], counts the steps that were not made.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], epsilon: float):
        super().__init__(parameters, betas=(BETA_1, BETA_2), eps=epsilon, fused=True)
        self._parameters = list(parameters)
        self._epsilon = epsilon
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=self._parameters[0].device)] * len(self._parameters)  # one and the same
        self.skipped = torch.zeros_like(self._steps[0])
        for parameter, *moments in zip(self._parameters, self._steps, self._means, self._squares, strict=True):
            self.state[parameter] = dict(zip(MOMENTS, moments, strict=True))

    @property
    def written(self) -> list[torch.Tensor]:
        """Every tensor that `move` writes, the parameters apart."""
        return [*self._means, *self._squares, self._steps[0], self.skipped]

    @torch.no_grad()
    def move(
        self,
        gradients: Sequence[torch.Tensor],
        learning_rate: float | torch.Tensor,
        divisor: torch.Tensor,
        skip: torch.Tensor,
    ) -> None:
        """Move every parameter against its gradient, which is first divided by `divisor`, f32 [], in place.

        Where `skip`, f32 [], is 1 and not 0 nothing changes but the count of such steps.
        """
        self._steps[0].add_(1)
        torch._fused_adam_(
            self._parameters,
            list(gradients),
            self._means,
            self._squares,
            [],
            self._steps,
            lr=learning_rate,
            beta1=BETA_1,
            beta2=BETA_2,
            weight_decay=0.0,
            eps=self._epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=skip,
        )
        self._steps[0].sub_(skip)
        self.skipped.add_(skip)

    def moments(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the moments by the parameter's position: the tensors, not copies."""
        return {str(position): dict(self.state[parameter]) for position, parameter in enumerate(self._parameters)}

    @torch.no_grad()
    def load_moments(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Put back what `moments` gave, in place; KeyError or RuntimeError when it is of other parameters.

        An empty state is that of an optimizer that has made no step.
        """
        if not state:
            torch._foreach_zero_(self.written)
            return
        for position, moments in self.moments().items():
            for name, moment in moments.items():
                moment.copy_(state[position][name])

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put back torch's form of the state, in place; the settings in it are not taken."""
        self.load_moments({str(position): moments for position, moments in state_dict["state"].items()})


def clipping(gradients: Sequence[torch.Tensor], max_norm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the common norm of all gradients and what to divide them by so that it is at most `max_norm`, f32 [] each.

    As torch's clip_grad_norm_ scales them, in half its time: that one first sorts small tensors by device and type.
    """
    if torch.compiler.is_compiling():  # it has no program for the norms of a list
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    else:
        norms = torch._foreach_norm(list(gradients))
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return norm, ((norm + 1e-6) / max_norm).clamp_min(1.0)
