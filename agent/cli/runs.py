"""`icebox runs`: what has been trained here, newest first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from agent.cli.tables import print_json, table
from agent.cli.words import command
from agent.telemetry.run_folder import RunRow, list_runs


@dataclass(frozen=True)
class Arguments:
    """List the runs, newest first. The first column is what 'icebox resume', 'eval' and 'board' take."""

    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of the table."""


def run(arguments: Arguments) -> int:
    """Print the runs under `runs_dir`."""
    rows = list_runs(arguments.runs_dir)
    if arguments.json:
        print_json({"runs": [asdict(row) for row in rows]})
    elif rows:
        print(table(("RUN", "STATUS", "STEPS", "BEST", "STARTED"), [_row(row) for row in rows]))
    else:
        print(f"No runs in {arguments.runs_dir} yet. Start one: {command('train', 'lunar-lander')}")
    return 0


def _row(row: RunRow) -> tuple[str, ...]:
    best = "-" if row.best is None else f"{row.best:.1f}"
    return row.run, row.status, f"{row.steps:,} of {row.total_steps:,}", best, f"{_age(row.age_s)} ago"


def _age(seconds: float) -> str:
    """A duration in its largest unit: 45 s, 12 min, 3 h, 5 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
