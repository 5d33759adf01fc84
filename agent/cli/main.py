"""The console script `icebox`: picks the verb, imports only that verb's module, and turns errors into exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from agent.cli.words import command


# How often torch's threads look for each other before they sleep: microseconds, and not 3 ms or more. While one of them
# does not run, because another program has its core, all others would burn theirs: updates took 4 times as long.
SPIN_COUNT = "2000"


class Verb(NamedTuple):
    """A verb of the command line: `agent.cli.<module>` has `run`, and `Arguments` unless the verb is train."""

    module: str
    usage: str
    summary: str


VERBS = {
    "train": Verb("train", "GAME", "train an agent while it plays"),
    "resume": Verb("resume", "RUN", "go on with a stopped run, exactly where it was saved"),
    "eval": Verb("evaluate", "RUN", "play unseen games with a trained agent and report its score"),
    "freeze": Verb("freeze", "RUN|ZIP", "make a small, fast policy that only acts, and prove that it still plays"),
    "verify": Verb("verify", "ARTEFACT", "repeat that proof for a frozen policy"),
    "play": Verb("play", "RUN|ARTEFACT|ZIP|GAME", "watch and play in the browser, live while it trains"),
    "record": Verb("record_games", "RUN|ARTEFACT|ZIP", "play games with a policy into animations and episode files"),
    "played": Verb("played", "PATH", "list what you have played, for 'train --demonstrations PATH'"),
    "report": Verb("report", "RUN...", "put runs side by side on one page, with figures and tables"),
    "demo": Verb("demo", "", "train, judge and freeze an agent on Lunar Lander, from nothing"),
    "runs": Verb("runs", "", "list the runs"),
    "games": Verb("games", "[FILTER]", "list the games"),
    "board": Verb("board", "[RUN]", "open TensorBoard on this machine"),
    "doctor": Verb("doctor", "", "check the machine, the packages and the speed"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: sys.argv) and return its exit code; never raises for a user's mistake."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # OpenMP reads it when torch is imported
    _open_streams()
    try:
        try:
            code = _dispatch(argv)
        except SystemExit as stop:  # --help
            code = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
        return code
    except BaseException as error:
        from agent.cli.errors import report

        return report(error)
    finally:
        _leave_stderr()


def _open_streams() -> None:
    """Give a program that was started without stdin, stdout or stderr the null device for it.

    Else the next file that is opened would take its number, and get what is said.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _leave_stderr() -> None:
    """Drop what nobody reads any more: Python's exit would count it as a failure."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"icebox {_version()}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in VERBS:
        from agent.cli.errors import UsageError

        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else f" The verbs are {', '.join(VERBS)}."
        kind = "flag" if name.startswith("-") else "verb"
        raise UsageError(f"unknown {kind} '{name}'.{hint}")
    _refuse_nothing(name, rest)
    if name == "train":
        from agent.cli.settings import parse_train

        arguments = parse_train(rest)  # before the import of torch, so that a misspelled flag is answered at once
        return importlib.import_module("agent.cli.train").run(arguments)
    from agent.cli.errors import parse

    module = importlib.import_module(f"agent.cli.{VERBS[name].module}")
    return module.run(parse(module.Arguments, rest, prog=command(name)))


def _refuse_nothing(name: str, words: list[str]) -> None:
    """Raise UsageError where a word is empty: as a path it would be the folder one is in."""
    for before, word in zip([name, *words], words):
        flag = before if word == "" and before.startswith("--") else None
        flag = word[:-1] if word.startswith("--") and word.endswith("=") else flag
        if word == "" or flag:
            from agent.cli.errors import UsageError

            raise UsageError(f"{flag or VERBS[name].usage}: got nothing. Is it a variable of the shell that is empty?")


def _overview() -> str:
    left = {name: f"{name} {verb.usage}".rstrip() for name, verb in VERBS.items()}
    width = max(map(len, left.values()))
    icebox = command()
    verbs = "\n".join(f"  {icebox} {left[name]:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return f"""\
Icebox trains, plays and freezes game-playing agents on one machine.

{verbs}

RUN is a run folder, 'latest' or 'GAME/latest'; ZIP a policy that stable-baselines3 saved; ARTEFACT a folder that freeze
wrote. '{icebox} VERB --help' shows every flag.

Examples:
  {icebox} train lunar-lander
  {icebox} train atari/pong --steps 20000 --learner.batch-size 64
  {icebox} play latest
  {icebox} eval latest --episodes 100"""


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("icebox-rl")
    except metadata.PackageNotFoundError:
        return "(not installed; run from a checkout)"


if __name__ == "__main__":
    sys.exit(main())
