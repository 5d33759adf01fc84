"""One seed for the whole run, one named random generator for each owner of randomness.

Nobody shares a generator: a new owner, or one that draws more often, leaves every other sequence as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_for(seed: int, owner: str) -> int:
    """Return the seed in [0, 2**63) of `owner` (for example "actor" or "replay") in the run seeded with `seed`.

    The first 63 bits of SHA-256, so that neighbouring seeds and similar names give unrelated sequences, on every
    machine and in every Python process the same (`hash` would not).
    """
    digest = hashlib.sha256(f"{seed}/{owner}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, owner: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new torch generator on `device` that belongs to `owner`; its state is `get_state()`."""
    return torch.Generator(device=device).manual_seed(seed_for(seed, owner))


def numpy_generator(seed: int, owner: str) -> np.random.Generator:
    """Return a new numpy generator (PCG64) that belongs to `owner`; its state is `numpy_state(...)`."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, owner)))


def numpy_state(generator: np.random.Generator) -> dict[str, Any]:
    """Return the whole state of a PCG64 generator as a dict of strings and ints; two of the ints have 128 bits."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"Only PCG64 generators are kept, not {state['bit_generator']}: make it with numpy_generator.")
    return {
        "bit_generator": "PCG64",
        "state": {name: int(value) for name, value in state["state"].items()},
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def set_numpy_state(generator: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put back what `numpy_state` gave: the generator draws on from there. Raises ValueError if it does not fit."""
    try:
        generator.bit_generator.state = {**state, "state": dict(state["state"])}
    except (KeyError, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"This is not the state of a PCG64 generator: {error!r}.") from error
