"""Run folders as training leaves them, made in an instant: what the tests of the report share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.config import Settings
from agent.telemetry.evaluations import Evaluations
from agent.telemetry.report.findings import Findings, find_out
from agent.telemetry.report.gather import gather
from agent.telemetry.report.references import References
from agent.telemetry.run_folder import to_yaml

HOST = {"system": "Testix", "processor": "Abacus 1", "cores": 2, "memory_gib": 4.0, "gpus": []}
KNOWN = References(1, 475.0, 22.0, "")


def run(
    root: Path,
    scores: Sequence[float],
    *,
    game: str = "cartpole",
    seed: int = 0,
    name: str | None = None,
    every: int = 1000,
    seconds: bool = True,
    settings: dict[str, Any] | None = None,
    **meta: Any,
) -> Path:
    """Make a run whose evaluations, `every` so many steps, have these means, over two episodes each."""
    path = root / game.replace(":", "-") / f"run{len(list(root.rglob('meta.json')))}_s{seed}"
    path.mkdir(parents=True)
    facts = {
        "game": game, "seed": seed, "name": name, "status": "done", "process": {},
        "started": "2026-11-21T12:00:00+00:00", "device": "cpu", "git": "a" * 40, "versions": {"python": "3.11"},
        "host": HOST,
    }  # fmt: skip
    (path / "meta.json").write_text(json.dumps(facts | meta))
    (path / "config.yaml").write_text(to_yaml(Settings.model_validate({"seed": seed, **(settings or {})})))
    log = Evaluations(path / "evaluations.npz")
    for number, score in enumerate(scores, 1):
        taken = number * 2.0 + seed if seconds else None
        log.add(number * every, [score - 1.0, score + 1.0], [10, 10], taken)
    return path


def found(*paths: Path, baselines: Sequence[Path] = (), known: References = KNOWN) -> Findings:
    """What these runs say, with the defaults of the code and references that nobody has to play for."""
    runs = [*(gather(path) for path in paths), *(gather(path, baseline=True) for path in baselines)]
    return find_out(runs, lambda game: Settings(), lambda game, settings: known)
