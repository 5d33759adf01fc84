"""`icebox board`: TensorBoard on this machine's loopback address, opened at the arranged dashboard."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from agent.cli.errors import UsageError
from agent.cli.words import command
from agent.telemetry.run_folder import find

HOST = "127.0.0.1"  # what people have trained is nobody else's business
NAMES = ("localhost", HOST)  # a page elsewhere that makes its name mean this machine must not read it either
DASHBOARD = "custom_scalars"  # the tab that shows the layout written by agent/telemetry
# TensorBoard keeps this in the browser and begins with true, which cuts the highest and lowest points off: of two
# evaluations nothing is left. Smoothing, of which an address can tell, shows numbers that never were.
ENTRANCE = f"""<!doctype html>
<meta charset="utf-8"><title>TensorBoard</title><link rel="icon" href="data:,">
<script>
if (localStorage.getItem("_ignoreYOutliers") === null) localStorage.setItem("_ignoreYOutliers", "false");
location.replace("/?charts" + (location.hash || "#{DASHBOARD}") + "&_smoothingWeight=0");
</script>
"""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # as WSGI has it


@dataclass(frozen=True)
class Arguments:
    """Open TensorBoard on this machine until Ctrl-C; without RUN it shows all runs."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """A run folder, 'latest' or 'GAME/latest'."""
    port: int = 6006
    """Port to listen on; where it is taken, a free one."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""


def run(arguments: Arguments) -> int:
    """Serve until Ctrl-C, which ends it well (0)."""
    if not 0 <= arguments.port <= 65_535:
        raise UsageError(f"--port: must be a whole number from 0 to 65535, got {arguments.port}.")
    if not arguments.run and not arguments.runs_dir.is_dir():
        start = command("train", "lunar-lander")
        raise UsageError(f"there are no runs in {arguments.runs_dir} yet. Start one: {start}")
    logdir = find(arguments.runs_dir, arguments.run) if arguments.run else arguments.runs_dir
    port = free_port(arguments.port)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorboard import program

    def serve(app: Application, flags: Any) -> Any:
        return program.create_port_scanning_werkzeug_server(entered(app), flags)

    board = program.TensorBoard(server_class=serve)
    board.configure(argv=["tensorboard", "--logdir", str(logdir), "--host", HOST, "--port", str(port)])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not one line per request
    board.launch()
    if port != arguments.port and arguments.port:
        print(f"Port {arguments.port} cannot be had; using {port}.")
    print(f"TensorBoard shows {logdir} at http://localhost:{port}/#{DASHBOARD}  (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    return 0


def entered(app: Application) -> Application:
    """Return TensorBoard with ENTRANCE before it, and closed to requests that do not ask for this machine by name."""

    def enter(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("HTTP_HOST", "").partition(":")[0] not in NAMES:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"This address is not this machine's.\n"]
        if environ["PATH_INFO"] == "/" and not environ.get("QUERY_STRING"):
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
            return [ENTRANCE.encode()]
        return app(environ, start_response)

    return enter


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there on the loopback address, else a free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                if os.name == "posix":  # else the port of a board that just ended counts as taken
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise RuntimeError("No port is free on the loopback address.")
