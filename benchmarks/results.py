"""Where benchmarks leave their numbers: results/<name>.json, with the machine, the versions and the commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent.telemetry.provenance import git_commit, host_facts, versions

RESULTS = Path(__file__).with_suffix("")  # the folder benchmarks/results


def write(name: str, payload: Mapping[str, Any]) -> Path:
    """Write `payload` and where it comes from to results/<name>.json, over what was there; return the path.

    A name with slashes lies in folders.
    """
    document = {
        "name": name,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "machine": host_facts(),
        "versions": versions(),
        **payload,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
