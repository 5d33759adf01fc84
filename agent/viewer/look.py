"""What a policy looks at, on demand and not too often: saliency costs as much as many decisions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.explain.saliency import gradient, perturbation
from agent.viewer.packet import encode_saliency
from agent.viewer.policies import Policy

PER_S: Mapping[str, float] = {"gradient": 5.0, "perturbation": 1.0}  # renewed at most so often


class Looker:
    """The saliency of one room: `how` is set from any thread, `look` belongs to the room's."""

    def __init__(self) -> None:
        self.how = "none"
        self._image, self._of, self._at = b"", "none", 0.0

    def look(self, policy: Policy | None, observation: np.ndarray, values: np.ndarray | None, action: Any) -> bytes:
        """Return the saliency as a PNG, that of a moment ago while it is too early for another; empty when not wanted.

        Of a policy through which no gradient goes, the perturbation is taken instead.
        """
        how = self.how
        if how == "none" or policy is None or values is None or observation.ndim != 4 or action is None:
            self._image, self._of = b"", "none"
            return b""
        if how == "gradient" and policy.network is None:
            how = "perturbation"
        now = time.monotonic()
        if self._of != how or now - self._at >= 1 / PER_S[how]:
            made = (
                gradient(policy.network, observation, int(action))
                if how == "gradient"
                else perturbation(policy.scores, observation, int(action))
            )
            self._image, self._of, self._at = encode_saliency(made), how, time.monotonic()
        return self._image
