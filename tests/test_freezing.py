"""Tests of agent/viewer/freezing.py: the verb as a job, its lines as progress, its artefact at the end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.viewer import freezing as jobs
from agent.viewer.freezing import Freezing
from agent.viewer.hub import Hub


class Heard(Hub):
    """A hub that keeps all it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[dict[str, Any]] = []

    def say(self, kind: str, facts: Any, rare: Any = None, *, to: Any = None) -> None:
        self.said.append({"type": kind} | facts)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Lets the job run a text of Python instead of the launcher."""

    def become(text: str) -> None:
        script = tmp_path / "verb.py"
        script.write_text(text)
        launcher = tmp_path / "launcher"
        launcher.write_text(f'#!/bin/sh\nexec "{os.environ.get("PYTHON", sys.executable)}" "{script}"\n')
        launcher.chmod(0o755)
        monkeypatch.setattr(jobs.sys, "executable", str(launcher))

    return become


def frozen(hub: Heard, opened: Callable[[Path], str], before: Callable[[], Awaitable[str]] | None = None) -> None:
    """Run one freeze to its end."""

    async def main() -> None:
        freezing = Freezing(hub, lambda: ["freeze", "latest"], opened)
        assert freezing.start(before) == "Freezing has begun."
        await freezing._task

    asyncio.run(asyncio.wait_for(main(), 30))


def test_lines_are_progress_and_the_artefact_is_opened(verb: Callable[[str], None]) -> None:
    """Checkpoint first, then what the verb prints on either stream, then what opening it says; the JSON is not shown."""
    verb("import sys\nprint('folding', file=sys.stderr)\nprint('judging', flush=True)\nprint('{\"artefact\": \"/a/b\"}')")
    hub, opened = Heard(), []

    async def checkpoint() -> str:
        opened.append("saved")
        return "saved"

    def shown(folder: Path) -> str:
        opened.append(str(folder))
        return "99 % alike"

    frozen(hub, shown, checkpoint)
    assert [each["progress"] for each in hub.said] == ["saving a checkpoint", "starting", "folding", "judging", "99 % alike"]
    assert [each["done"] for each in hub.said] == [False] * 4 + [True]
    assert opened == ["saved", "/a/b"] and hub.said[-1]["ok"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit('icebox: the run has no checkpoint')", "Not frozen: the run has no checkpoint"),
        ("raise SystemExit(7)", "Not frozen: freeze ended with code 7"),
        ("print('[1, 2]')", "Not frozen: [1, 2]"),
    ],
)
def test_what_went_wrong_is_its_last_line(verb: Callable[[str], None], text: str, said: str) -> None:
    """A failure is a sentence in the page, and the room stays as it was."""
    verb(text)
    hub = Heard()
    frozen(hub, lambda folder: pytest.fail("nothing to open"))
    assert hub.said[-1] == {"type": "freeze", "progress": said, "done": True, "ok": False}


def test_without_a_checkpoint_nothing_is_frozen(verb: Callable[[str], None]) -> None:
    """What the trainer says against it ends the job."""
    verb("raise SystemExit('not reached')")
    hub = Heard()

    async def checkpoint() -> str:
        raise ValueError("The disk is full.")

    frozen(hub, lambda folder: "", checkpoint)
    assert hub.said[-1]["progress"] == "Not frozen: The disk is full."


def test_an_artefact_that_cannot_be_opened_is_told(verb: Callable[[str], None]) -> None:
    """It is there, but its room does not open."""
    verb("print('{\"artefact\": \"/a/b\"}')")
    hub = Heard()

    def opened(folder: Path) -> str:
        raise ValueError("policy.onnx is damaged")

    frozen(hub, opened)
    assert hub.said[-1]["progress"] == "Not frozen: policy.onnx is damaged"


def test_one_at_a_time_and_broken_off_with_the_viewer(verb: Callable[[str], None], tmp_path: Path) -> None:
    """A second one is refused while the first runs; closing ends its process."""
    verb(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")

    async def main() -> int:
        freezing = Freezing(Heard(), lambda: [], lambda folder: "")
        freezing.start(None)
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            await asyncio.sleep(0.02)
        with pytest.raises(ValueError, match="already under way"):
            freezing.start(None)
        await freezing.close()
        return await freezing._process.wait()

    begun = time.monotonic()
    assert asyncio.run(asyncio.wait_for(main(), 30)) < 0
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_last_line_may_be_a_whole_card(verb: Callable[[str], None]) -> None:
    """Several hundred thousand characters of JSON are read as one line."""
    verb("import json\nprint(json.dumps({'artefact': '/a', 'card': 'x' * 500_000}))")
    hub = Heard()
    frozen(hub, lambda folder: str(folder))
    assert hub.said[-1]["progress"] == "/a"
    assert json.dumps(hub.said)  # all of it can be sent
