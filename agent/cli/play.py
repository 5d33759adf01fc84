"""icebox play: open the viewer on a run, an artefact, a zip or a game; with --episodes, play an artefact without it."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import socket
import sys
import time
import webbrowser
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from agent.cli.artefacts import games_of, trusted_player
from agent.cli.tables import print_json
from agent.cli.watch import PARENT
from agent.cli.words import command, complain
from agent.evaluation import play_episodes
from agent.freeze import artefact
from agent.types import Episode

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Arguments:
    """Watch and play in the browser: the training as it goes on, its newest policy, a frozen one, and yourself.

    With --episodes an artefact plays that many episodes in the terminal instead, without torch's help.
    """

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|ARTEFACT|ZIP|GAME")]
    """A run folder, 'latest' or 'GAME/latest'; a folder that 'icebox freeze' wrote; a stable-baselines3 zip; a game."""
    port: int = 8080
    """Port of the page; when it is taken, the next free one."""
    host: str = "127.0.0.1"
    """Address to listen at. Any other than this machine's own lets others connect, without encryption."""
    read_only: tyro.conf.FlagCreatePairsOff[bool] = False
    """No controls: the link lets people watch and do nothing else."""
    no_open: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not open the page in a browser."""
    game: str | None = None
    """The game of a zip, where its file name does not say it."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""
    seed: int = 0
    """Seed of the games."""
    episodes: int | None = None
    """Whole episodes to play in the terminal."""
    runtime: Literal["auto", "onnx", "c"] = "auto"
    """With --episodes: onnxruntime, the C compiled here, or whichever is faster on this machine."""
    allow_refused: tyro.conf.FlagCreatePairsOff[bool] = False
    """Play even a policy that did not pass its gate."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --episodes: print one JSON object last."""


def run(arguments: Arguments) -> int:
    """Show or play what the arguments say; return 0."""
    if arguments.seed < 0:
        raise ValueError(f"--seed: must be a whole number, at least 0, got {arguments.seed}.")
    if arguments.episodes is not None:
        return _play(arguments, arguments.episodes)
    if not 0 < arguments.port < 65536:
        raise ValueError(f"--port: must be a whole number from 1 to 65535, got {arguments.port}.")
    if not arguments.host.strip():
        raise ValueError("--host: must be an address or a name of this machine, got nothing; leave it out for 127.0.0.1.")
    if arguments.json:
        raise ValueError("--json: only with --episodes.")
    return _view(arguments)


def _view(arguments: Arguments) -> int:
    from agent.cli.viewing import open_viewer  # not needed to play in the terminal, and slow to import
    from agent.viewer.access import Access
    from agent.viewer.hub import Hub
    from agent.viewer.server import listen, make_app, serve

    hub = Hub()
    desk = open_viewer(
        arguments.what, hub, runs_dir=arguments.runs_dir, seed=arguments.seed, game=arguments.game,
        allow_refused=arguments.allow_refused,
    )  # fmt: skip
    try:
        listening = listen(arguments.host, arguments.port)
    except OSError as error:
        raise ValueError(_cannot_listen(arguments, error)) from None
    access = Access(arguments.host, read_only=arguments.read_only, kept=arguments.runs_dir)
    port = listening.getsockname()[1]
    if port != arguments.port:
        complain(f"port {arguments.port} is taken, so it is {port}.")
    address = f"http://{_shown_host(arguments.host)}:{port}/"
    parent = os.environ.get(PARENT)
    print(said(address, port, arguments.host, access.control, access.watch), flush=True)
    ended = "stops the training, which is saved, and this viewer" if parent else "ends the viewer, and nothing else"
    print(f"Ctrl-C {ended}.", flush=True)
    if not arguments.no_open and sys.stdout.isatty() and _has_display():
        webbrowser.open(f"{address}#token={access.control or access.watch}")

    async def beside() -> None:
        desk.start()
        try:
            while parent is None or str(os.getppid()) == parent:
                await asyncio.sleep(1.0)
            stopping.should_exit = True
        finally:
            await desk.close()

    async def farewell() -> None:
        if desk.feed is not None:
            await desk.feed.last_word()
        hub.say("bye", goodbye(arguments, bool(parent)))
        await hub.told("bye", 1.0)

    stopping = serve(make_app(hub, access, desk, desk.episodes, beside=beside), farewell)
    stopping.run(sockets=[listening])
    return 0


def _cannot_listen(arguments: Arguments, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {arguments.port} and the 49 after it are taken; name another."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port: {arguments.port} is not for every user; take one above 1023."
    return (
        f"--host: {arguments.host} is no address of this machine. Leave it out for this machine alone; 0.0.0.0 stands "
        "for all its addresses."
    )


def goodbye(arguments: Arguments, beside_training: bool) -> dict[str, str]:
    """Return what the pages are told last: why nothing comes any more, and how to look again."""
    from agent.cli.train import shown_path  # with torch behind it, which playing in the terminal does without

    what = Path(arguments.what)
    words: list[object] = ["play", shown_path(what) if what.exists() else arguments.what]
    if arguments.runs_dir != Path("runs") and not what.exists():
        words += ["--runs-dir", arguments.runs_dir]
    if arguments.game is not None:
        words += ["--game", arguments.game]
    ended = "The training has ended, and its viewer with it." if beside_training else "The viewer was closed."
    return {"said": ended, "again": command(*words)}


def said(address: str, port: int, host: str, control: str | None, watch: str) -> str:
    """Return what a person needs to open the page, from here and from elsewhere."""
    lines = [f"Open  {address}#token={control or watch}"]
    if control is not None:
        lines.append(f"  to let others only watch:   {address}#token={watch}")
    if host in LOOPBACK:
        lines.append(f"  from another computer:      ssh -L {port}:127.0.0.1:{port} {_login()}   and this link there")
    else:
        lines.append(
            f"  listening at {host}: whoever reaches this machine and has the link gets in, and nothing is encrypted.\n"
            f"  safer: leave --host out, and   ssh -L {port}:127.0.0.1:{port} {_login()}"
        )
    return "\n".join(lines)


def _login() -> str:
    """What ssh takes to reach this machine, as whoever is logged in over ssh has reached it."""
    reached = os.environ.get("SSH_CONNECTION", "").split()
    return shlex.quote(f"{getuser()}@{reached[2] if len(reached) == 4 else socket.gethostname()}")


def _shown_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def _play(arguments: Arguments, episodes: int) -> int:
    """Play episodes with an artefact and print the scores."""
    if episodes < 1:
        raise ValueError(f"--episodes: must be a whole number, at least 1, got {episodes}.")
    folder = Path(arguments.what)
    if not folder.is_dir():
        raise ValueError(
            f"--episodes: plays an artefact, a folder that '{command('freeze')}' wrote; {arguments.what} is none. "
            f"A run is judged by '{command('eval')}'."
        )
    player = trusted_player(folder, arguments.runtime, allow_refused=arguments.allow_refused)
    games = games_of(artefact.read(folder).card, 1)
    spent_s, decisions = 0.0, 0

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal spent_s, decisions
        before = time.perf_counter()
        action = player.act(observation)
        spent_s += time.perf_counter() - before
        decisions += 1
        return action

    def on_episode(episode: Episode) -> None:
        print(f"episode {len(scores) + 1}: score {episode.score:.1f} in {episode.length:,} steps", flush=True)
        scores.append(episode.score)

    scores: list[float] = []
    try:
        play_episodes(games, act, episodes, arguments.seed, on_episode)
    finally:
        games.close()
    mean, microseconds = float(np.mean(scores)), spent_s / decisions * 1e6
    if episodes > 1:
        print(f"mean score {mean:.1f} of {len(scores)} episodes, lowest {min(scores):.1f}, highest {max(scores):.1f}")
    print(f"{decisions:,} decisions by {player.runtime}, {microseconds:.1f} us each on average")
    if arguments.json:
        print_json({"scores": scores, "mean": mean, "runtime": player.runtime, "us_per_decision": microseconds})
    return 0
