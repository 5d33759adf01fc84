"""Freeze now: the verb `freeze` in a process of its own, its lines as progress, and its artefact at the end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from agent.viewer.hub import Hub

LINE = 300  # characters of a line that are shown
NICE = 10  # it gives way to the training and to the pictures


class Freezing:
    """At most one freeze at a time."""

    def __init__(self, hub: Hub, command: Callable[[], list[str]], opened: Callable[[Path], str]) -> None:
        """`command` is the verb's words; with `--json` last it prints {"artefact": folder} in its last line.

        `opened` puts the artefact into its room and returns what to say of it; it is called in a thread.
        """
        self._hub, self._command, self._opened = hub, command, opened
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, before: Callable[[], Awaitable[str]] | None) -> str:
        """Begin, first with `before`, which saves a checkpoint; ValueError when a freeze is already under way."""
        if self._task is not None and not self._task.done():
            raise ValueError("A freeze is already under way; its progress is shown.")
        self._task = asyncio.create_task(self._run(before))
        return "Freezing has begun."

    async def close(self) -> None:
        """Break it off."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _say(self, progress: str, *, done: bool = False, ok: bool = True) -> None:
        self._hub.say("freeze", {"progress": progress[:LINE], "done": done, "ok": ok})

    async def _run(self, before: Callable[[], Awaitable[str]] | None) -> None:
        try:
            if before is not None:
                self._say("saving a checkpoint")
                await before()
            self._say("starting")
            self._say(await self._freeze(), done=True)
        except (ValueError, OSError) as error:
            self._say(f"Not frozen: {error}", done=True, ok=False)

    async def _freeze(self) -> str:
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent.cli.main",
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 24,  # the last line is the whole card
            start_new_session=True,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        last = ""
        async for raw in process.stdout:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                last = line
            if line and not line.startswith("{"):
                self._say(line)
        code = await process.wait()
        try:
            folder = Path(json.loads(last)["artefact"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(last.removeprefix("icebox: ") or f"freeze ended with code {code}") from None
        return await asyncio.to_thread(self._opened, folder)
