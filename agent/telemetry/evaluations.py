"""The log of evaluations, `evaluations.npz`, with the arrays that stable-baselines3's EvalCallback writes."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.durable import write_atomic
from agent.telemetry.statistics import bootstrap_ci, iqm


def summary(scores: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
    """Return what one evaluation says under its tags: means, interquartile mean, 95 % interval of the mean."""
    low, high = bootstrap_ci(scores)
    return {
        "eval/mean_reward": float(np.mean(scores)),
        "eval/mean_ep_length": float(np.mean(lengths)),
        "eval/iqm": iqm(scores),
        "eval/ci_low": low,
        "eval/ci_high": high,
    }


def best_in(path: Path) -> float | None:
    """Return the best mean score in an `evaluations.npz`; None when there is none or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return float(arrays["results"].mean(axis=1).max())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


MOST_BYTES = 256 << 20  # of one file when it is read; a million evaluations of ten episodes have less


@dataclass(frozen=True)
class History:
    """What an `evaluations.npz` holds, oldest first."""

    steps: np.ndarray  # i64 [K]
    scores: np.ndarray  # f64 [K, E], raw
    lengths: np.ndarray  # i64 [K, E]
    seconds: np.ndarray  # f64 [K] of training until then; not a number where the file does not say


def read(path: Path) -> History:
    """Return what an `evaluations.npz` holds, ours or EvalCallback's; ValueError in a sentence when it is damaged."""
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(member.file_size for member in packed.infolist()) > MOST_BYTES:
                raise ValueError(f"it would unpack to more than {MOST_BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as arrays:
            steps = arrays["timesteps"].astype(np.int64)
            scores, lengths = arrays["results"].astype(np.float64), arrays["ep_lengths"].astype(np.int64)
            seconds = arrays["seconds"].astype(np.float64) if "seconds" in arrays else np.full(len(steps), math.nan)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {str(error)[:200] or type(error).__name__}.") from None
    shapes = steps.ndim == 1 and scores.ndim == 2 and scores.shape[1] > 0 and lengths.shape == scores.shape
    if not shapes or not len(steps) == len(scores) == len(seconds) or seconds.ndim != 1:
        raise ValueError(f"{path} is damaged: its arrays do not fit together.")
    if not np.isfinite(scores).all() or (np.diff(steps) <= 0).any() or (steps < 0).any():
        raise ValueError(f"{path} is damaged: it holds scores that are no numbers, or steps out of order.")
    return History(steps, scores, lengths, seconds)


class Evaluations:
    """Every evaluation of a run: timesteps i64 [K], results f64 [K, E] (raw scores), ep_lengths i64 [K, E].

    Beside them, and not in EvalCallback's files: seconds f64 [K] of training until then.

    Stateful: the state holds all rows, and loading it rewrites the file, so that evaluations after the checkpoint,
    which a resumed run makes again, are gone from it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._timesteps: list[int] = []
        self._results: list[list[float]] = []
        self._lengths: list[list[int]] = []
        self._seconds: list[float | None] = []

    def add(
        self, steps: int, scores: Sequence[float], lengths: Sequence[int], seconds: float | None = None
    ) -> dict[str, float]:
        """Append the evaluation made after `steps` environment steps, write the file, and return its `summary`.

        `seconds` are those that training had taken by then, without evaluations.
        """
        if len(scores) != len(lengths) or len(scores) == 0:
            raise ValueError(f"An evaluation needs a length for every score; got {len(scores)} and {len(lengths)}.")
        if self._results and len(scores) != len(self._results[0]):
            raise ValueError(
                f"{self._path} holds evaluations of {len(self._results[0])} episodes; one of {len(scores)} does not "
                "fit. Keep evaluation.episodes the same within a run."
            )
        self._timesteps.append(int(steps))
        self._results.append([float(score) for score in scores])
        self._lengths.append([int(length) for length in lengths])
        self._seconds.append(seconds)
        self._write()
        return summary(scores, lengths)

    @property
    def best(self) -> float | None:
        """The best mean score so far; None before the first evaluation."""
        return max((float(np.mean(row)) for row in self._results), default=None)

    @property
    def history(self) -> list[tuple[int, list[float]]]:
        """Steps and raw scores of every evaluation so far."""
        return list(zip(self._timesteps, self._results, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {
            "timesteps": list(self._timesteps),
            "results": [list(row) for row in self._results],
            "ep_lengths": [list(row) for row in self._lengths],
            "seconds": list(self._seconds),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        unknown = [None] * len(state["timesteps"])  # of checkpoints from before they were kept
        rows = state["timesteps"], state["results"], state["ep_lengths"], state.get("seconds", unknown)
        if len({len(column) for column in rows}) != 1:
            raise ValueError(f"The state of {self._path.name} has columns of different lengths.")
        self._timesteps = list(rows[0])
        self._results = [list(row) for row in rows[1]]
        self._lengths = [list(row) for row in rows[2]]
        self._seconds = list(rows[3])
        if self._timesteps:
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            timesteps=np.array(self._timesteps, dtype=np.int64),
            results=np.array(self._results, dtype=np.float64),
            ep_lengths=np.array(self._lengths, dtype=np.int64),
            seconds=np.array(self._seconds, dtype=np.float64),  # None: not a number
        )
        write_atomic(self._path, buffer.getvalue())
