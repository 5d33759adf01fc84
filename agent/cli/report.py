"""icebox report: what runs have learned, on one page to show around, with its numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated

import tyro

from agent.cli.out import checked_out
from agent.cli.settings import load_settings
from agent.cli.train import shown_path
from agent.cli.words import command
from agent.config import Settings
from agent.durable import make_directory, write_atomic
from agent.telemetry.protocol import protocol
from agent.telemetry.report import plots
from agent.telemetry.report.findings import Findings, Game, find_out
from agent.telemetry.report.gather import Gathered, gather
from agent.telemetry.report.page import page
from agent.telemetry.report.references import References, references
from agent.telemetry.report.results import curves_csv, final_csv, results_json
from agent.telemetry.run_folder import find, game_folder


@dataclass(frozen=True)
class Arguments:
    """Put runs side by side: report.html to open in a browser, pictures, results.json and CSV.

    Runs that are equal but for their seed are one line with a band. Nothing is trained; random play is measured.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN...")] = ()
    """Run folders, 'latest' or 'GAME/latest', of any games and algorithms."""
    baseline: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN...")] = ()
    """Runs to compare the others with."""
    out: Path | None = None
    """Folder for the files; default: report/ in the first RUN."""
    runs_dir: Path = Path("runs")
    """Where runs are kept."""


def run(arguments: Arguments) -> int:
    """Write the report and say where it lies; return 0."""
    if not arguments.runs:
        raise ValueError(
            f"which runs? Usage: {command('report')} RUN... [--baseline RUN...]. '{command('runs')}' lists them."
        )
    gathered = read(arguments)
    out = checked_out(arguments.out or gathered[0].path / "report")
    findings = find_out(gathered, _defaults, _references)
    files = write(out, findings, command("report", *_words(arguments)))
    for sentence in findings.cautions:
        print(f"note: {sentence}")
    for game in findings.games:
        for line in game.lines:
            seeds = f"{len(line.counted)} seed{'s' * (len(line.counted) > 1)}"
            interval = "" if line.ci95 is None else f", 95% interval [{line.ci95[0]:.1f}, {line.ci95[1]:.1f}]"
            score = "no finished run" if line.iqm is None else f"IQM {line.iqm:.1f} of {seeds}{interval}"
            print(f"{game.name}: {line.setting.label}: {score}")
    print(f"{shown_path(out / 'report.html')} (open it in a browser), and beside it {', '.join(files[1:])}")
    return 0


def read(arguments: Arguments) -> list[Gathered]:
    """Return the runs that are meant, each once, baselines last; FileNotFoundError when one is no run."""
    found: dict[Path, Gathered] = {}
    for words, baseline in ((arguments.baseline, True), (arguments.runs, False)):
        for word in words:
            path = find(arguments.runs_dir, word).resolve()
            if path not in found:
                found[path] = gather(path, baseline=baseline)
    shown = sorted(found.values(), key=lambda each: each.baseline)
    if shown[0].baseline:
        raise ValueError("every RUN is also a --baseline, so that nothing is left to compare with them.")
    return shown


def write(out: Path, findings: Findings, made_by: str) -> list[str]:
    """Write all files into `out` and return their names, the page first."""
    written = f"{datetime.now():%d %B %Y, %H:%M}"
    files: dict[str, str | bytes] = {"report.html": page(findings, made_by, written)}
    for game in findings.games:
        name = "report.png" if len(findings.games) == 1 else f"report_{'-'.join(game_folder(game.name).parts)}.png"
        files[name] = plots.game_png(findings, game, caption(game))
    if findings.across is not None and findings.across.profiles:
        games = ", ".join(findings.across.games)
        files["profile.png"] = plots.across_png(
            findings, findings.across, f"Games: {games}. Bands: 95 % bootstrap intervals."
        )
    files |= {
        "results.json": results_json(findings),
        "curves.csv": curves_csv(findings),
        "final.csv": final_csv(findings),
    }
    make_directory(out)
    for name, content in files.items():
        write_atomic(out / name, content)
    return list(files)


def caption(game: Game) -> str:
    """Return the protocol under a picture that may travel alone."""
    runs = [run for line in game.lines for run in line.runs]
    said = next((protocol(game.name, run.settings) for run in runs if run.settings is not None), "protocol not known")
    host = next((run.meta["host"] for run in runs if isinstance(run.meta.get("host"), dict)), {})
    episodes = " or ".join(map(str, game.episodes))
    return (
        f"{plots.BAND} Below: IQM (marker), its interval (bar), single seeds (ticks). Each point: mean of {episodes} "
        f"episodes; {said}. Machine: {host.get('processor', 'not known')}. Commit {str(runs[0].meta.get('git'))[:8]}."
    )


@cache
def _defaults(game: str) -> Settings:
    try:
        return load_settings(game)
    except ValueError:  # a game that this version does not know
        return Settings()


def _references(game: str, settings: Settings) -> References:
    print(f"{game}: playing at random, to compare with", flush=True)
    return references(game, settings)


def _words(arguments: Arguments) -> Sequence[str]:
    return [*arguments.runs, *(["--baseline", *arguments.baseline] if arguments.baseline else [])]
