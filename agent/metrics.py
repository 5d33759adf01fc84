"""Sums that stay on the device until somebody looks: logging must not make the learner wait for the GPU."""

from __future__ import annotations

import torch


class Means:
    """Running means (and one running maximum) of named scalars, kept on the device and read in one transfer."""

    def __init__(self, names: tuple[str, ...], maximum: str, device: torch.device):
        self.names = names
        self.maximum = maximum
        self._sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self._maximum = torch.full((), -torch.inf, dtype=torch.float32, device=device)
        self._count = 0

    def add(self, values: torch.Tensor) -> None:
        """Count one observation, f32: a value for every name, in their order, and what the maximum is taken of."""
        self._sums += values[:-1]
        torch.maximum(self._maximum, values[-1], out=self._maximum)
        self._count += 1

    def take(self) -> dict[str, float]:
        """Return the means since the last call and start anew; empty when nothing was added. Waits for the device."""
        if self._count == 0:
            return {}
        means = (self._sums / self._count).tolist()
        result = dict(zip(self.names, means, strict=True)) | {self.maximum: float(self._maximum)}
        self._sums.zero_()
        self._maximum.fill_(-torch.inf)
        self._count = 0
        return result
