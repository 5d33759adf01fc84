"""Sums that stay on the device until somebody looks: logging must not make the learner wait for the GPU."""

from __future__ import annotations

import torch


class Means:
    """Running means (and one running maximum) of named scalars, kept on the device and read in one transfer."""

    def __init__(self, names: tuple[str, ...], maximum: str, device: torch.device):
        self.names = names
        self.maximum = maximum
        self._sums = torch.zeros(1 + len(names), dtype=torch.float64, device=device)  # the first is a count
        self._maximum = torch.full((), -torch.inf, dtype=torch.float32, device=device)
        self._added = False
        # What is added where there is nothing to count: an update that was skipped.
        self.nothing = torch.tensor([0.0] * (1 + len(names)) + [torch.finfo(torch.float32).min], device=device)

    def add(self, values: torch.Tensor) -> None:
        """Count one observation, f32: 1, a value for every name, in their order, and what the maximum is taken of."""
        self._sums += values[:-1]
        torch.maximum(self._maximum, values[-1], out=self._maximum)
        self._added = True

    def take(self) -> dict[str, float]:
        """Return the means since the last call and start anew; empty when nothing was added. Waits for the device."""
        if not self._added:
            return {}
        count, *sums = self._sums.tolist()
        result = {name: total / count for name, total in zip(self.names, sums, strict=True) if count}
        if count:
            result[self.maximum] = float(self._maximum)
        self._sums.zero_()
        self._maximum.fill_(-torch.inf)
        self._added = False
        return result
