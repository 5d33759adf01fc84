"""The page of a report: one HTML file that needs nothing else, no script and no network; all names in it are text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agent.telemetry.protocol import explained
from agent.telemetry.report import plots
from agent.telemetry.report.findings import ENOUGH_SEEDS, PROFILE_GAMES, Findings, Game, Line
from agent.telemetry.report.gather import Gathered
from agent.telemetry.report.glossary import WORDS
from agent.telemetry.report.settings_apart import shown

STYLE = Path(__file__).with_name("report.css")
NOT_KNOWN = "not known"
ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # whatever got into the page runs nothing
SWATCH = '<svg viewBox="0 0 34 20" aria-hidden="true">'
FINALS = "Marker: IQM. Bar: its 95 % interval over seeds. Ticks: single seeds. Row numbers as in the table."


def page(findings: Findings, command: str, written: str) -> str:
    """Return the whole page. `command` made it, at the time `written`."""
    names = ", ".join(game.name for game in findings.games)
    one = findings.games[0] if len(findings.games) == 1 else None
    sections = [_section(findings, game) for game in findings.games]
    sections += [_across(findings), _comparisons(findings)]
    protocols = "".join(_protocol(game) for game in findings.games)
    body = [
        f"<header><p class=kicker>Training report</p><h1>{_text(names)}</h1>{_lead(findings, one)}</header>",
        _cautions(findings.cautions),
        *sections,
        _details("How the scores were made", f"{protocols}", opened=True),
        _details("Settings", _settings(findings), opened=True),
        _details("Runs, machines, versions", _runs(findings), opened=True),
        _details(
            "Words",
            "<dl>" + "".join(f"<dt>{_text(w)}</dt><dd>{_text(m)}</dd>" for w, m in WORDS.items()) + "</dl>",
            opened=True,
        ),
        f"<footer>Made by <code>{_text(command)}</code> on {_text(written)}. The numbers stand beside this page: "
        "<code>results.json</code>, <code>curves.csv</code>, <code>final.csv</code>; the figures as PNG.</footer>",
    ]
    title = f"Training report: {names}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">\n'
        f'<link rel="icon" href="data:,">\n<title>{_text(title)}</title>\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


def _lead(findings: Findings, game: Game | None) -> str:
    """The result in one sentence, for whoever reads no further."""
    if game is None:
        many = f"{len(findings.settings)} settings" if len(findings.settings) > 1 else "one setting"
        runs = sum(len(line.runs) for each in findings.games for line in each.lines)
        return f"<p class=lead>{len(findings.games)} games, {many}, {runs} training runs.</p>"
    judged = [line for line in game.lines if line.iqm is not None]
    if not judged:
        return "<p class=lead>No run has come to its end yet.</p>"
    best = max(judged, key=lambda line: line.iqm)
    kept = "" if best.ci95 is None else f" (95 % interval {number(best.ci95[0])} to {number(best.ci95[1])})"
    seeds = f"{len(best.counted)} training runs" if len(best.counted) > 1 else "one training run"
    text = f"{best.setting.label} scores {number(best.iqm)}{kept} after {game.budget}, by {seeds}."
    if game.references.random is not None:
        text += f" Random play scores {number(game.references.random)}."
    if game.references.solved_at is not None:
        text += f" The game counts as solved at {number(game.references.solved_at)}."
    return f"<p class=lead>{_text(text)}</p>"


def _cautions(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    rows = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
    return f"<aside class=care><h2>Read with care</h2><ul>{rows}</ul></aside>"


def _section(findings: Findings, game: Game) -> str:
    figures = [
        _figure(
            plots.learning_curves(findings, game, "frames"),
            _alt(game, "frames"),
            "Over frames: how much it had to see.",
        )
    ]
    if plots.has_seconds(game):
        figures.append(
            _figure(
                plots.learning_curves(findings, game, "seconds"), _alt(game, "time"),
                "Over time: how long that took on this machine, evaluations and pauses left out.",
            )
        )  # fmt: skip
    few = [line for line in game.lines if len(line.counted) < ENOUGH_SEEDS]
    seeds = (
        f" <strong>Fewer than {ENOUGH_SEEDS} seeds</strong> {_of(few, game)}: read bands and intervals as rough."
        if few
        else ""
    )
    episodes = " or ".join(map(str, game.episodes))
    title = f"<h2>{_text(game.name)}</h2>" if len(findings.games) > 1 else ""
    return f"""<section>{title}
<h3>Learning curves</h3>
{_legend(findings, game)}
<div class=pair>{"".join(figures)}</div>
<p class=note>{_text(plots.BAND)} Each point is the mean of {episodes} evaluation episodes.{seeds}</p>
<h3>Final scores after {game.budget}{_frames(game)}</h3>
<div class=pair>{_figure(plots.final_scores(findings, game), _alt(game, "final"), FINALS)}
{_finals(findings, game)}</div></section>"""


def _of(few: Sequence[Line], game: Game) -> str:
    return (
        "of every setting"
        if len(few) == len(game.lines)
        else f"of {_text(', '.join(line.setting.label for line in few))}"
    )


def _frames(game: Game) -> str:
    frames = game.references.frames_per_step
    return "" if frames == 1 else f" ({game.budget_steps * frames:,} frames)"


def _legend(findings: Findings, game: Game) -> str:
    items = []
    for line in game.lines:
        own = f"var(--s{plots.COLOURS.index(plots.colour(findings, line))})"
        dashes = ' stroke-dasharray="7 4"' if line.setting.baseline else ""
        band = f'<rect y="3" width="34" height="14" fill="{own}" opacity=".2"/>' if len(line.counted) > 1 else ""
        count = len(line.counted) or len(line.runs)
        words = f"{count} seeds" if count > 1 else "1 seed, no band"
        words = f"baseline, {words}" if line.setting.baseline else words
        shape = _shape(plots.marker(findings, line), own)
        items.append(
            f'<li>{SWATCH}{band}<path d="M0 10H34" stroke="{own}" stroke-width="2.5"{dashes}/>{shape}'
            f"</svg><span>{_text(line.setting.label)} <small>({words})</small></span></li>"
        )
    for known, dashes, words in (
        (game.references.random, "2 3", "random play"),
        (game.references.solved_at, "8 3 2 3", "counts as solved"),
    ):
        if known is not None:
            items.append(
                f'<li>{SWATCH}<path d="M0 10H34" stroke="var(--ink)" stroke-width="1.5" '
                f'stroke-dasharray="{dashes}"/></svg><span>{words} <small>({number(known)})</small></span></li>'
            )
    return f"<ul class=legend>{''.join(items)}</ul>"


def _shape(marker: str, own: str) -> str:
    """A marker as matplotlib draws it, in the middle of a legend's swatch."""
    path = {
        "s": "M13 6h8v8h-8z", "^": "M17 5l5 9h-10z", "D": "M17 4.5l5.5 5.5-5.5 5.5-5.5-5.5z", "v": "M17 15l5-9h-10z",
        "P": "M15.4 5h3.2v3.4H22v3.2h-3.4V15h-3.2v-3.4H12V8.4h3.4z",
    }.get(marker)  # fmt: skip
    return f'<path d="{path}" fill="{own}"/>' if path else f'<circle cx="17" cy="10" r="4.5" fill="{own}"/>'


def _finals(findings: Findings, game: Game) -> str:
    rows = []
    for position, line in enumerate(game.lines, 1):
        swatch = _swatch(findings.settings.index(line.setting))
        interval = "needs two seeds" if line.ci95 is None else f"{number(line.ci95[0])} to {number(line.ci95[1])}"
        scores = ", ".join(number(score) for score in line.final) or "none yet"
        iqm = "–" if line.iqm is None else number(line.iqm)
        rows.append((str(position), f"{swatch}{_text(line.setting.label)}", iqm, interval, scores))
    return _table(("", "Setting", "IQM", "95 % interval", "Single seeds"), rows)


def _swatch(number: int) -> str:
    return f'<i class=swatch style="background:var(--s{number % len(plots.COLOURS)})"></i>'


def _across(findings: Findings) -> str:
    across = findings.across
    if across is None:
        return ""
    rows = [
        (
            _swatch([setting.label for setting in findings.settings].index(label)) + _text(label),
            f"{value:.2f}",
            "needs two seeds" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        )
        for label, (value, interval) in across.iqm.items()
    ]
    intro = (
        f"Scores of {', '.join(across.games)} on one scale: 0 is random play, 1 the best mean that a setting of this "
        "report reached on the game. So 1 is no upper end, and reports with other settings have other units."
    )
    figure = (
        _figure(
            plots.profile(findings, across), "Performance profile: the share of runs above each score.",
            "Performance profile: which share of all runs scores above each level. Higher is better; bands are 95 % "
            "bootstrap intervals. Colours as above.",
        )
        if across.profiles
        else f"<p class=note>A performance profile needs at least {PROFILE_GAMES} games.</p>"
    )  # fmt: skip
    return (
        f"<section><h2>All games together</h2><p>{_text(intro)}</p><div class=pair>{figure}"
        f"{_table(('Setting', 'IQM', '95 % interval'), rows)}</div></section>"
    )


def _comparisons(findings: Findings) -> str:
    if len(findings.settings) < 2:
        return ""
    if not findings.comparisons:
        return (
            "<section><h2>Which is better?</h2><p>Two settings can be compared from two finished seeds of each on a "
            "game that both have played. None of these settings has so many.</p></section>"
        )
    rows = [
        (
            str(position), f"{_text(each.ours.label)} over {_text(each.theirs.label)}",
            f"{100 * each.probability:.0f} %", f"{100 * each.ci95[0]:.0f} to {100 * each.ci95[1]:.0f} %", each.verdict,
        )
        for position, each in enumerate(findings.comparisons, 1)
    ]  # fmt: skip
    common = " on a random one of their common games" if len(findings.games) > 1 else ""
    caption = "Probability of improvement with its 95 % interval. Right of the dotted line (50 %) the first is better."
    return (
        "<section><h2>Which is better?</h2><p>The chance that a run of the first setting ends with a higher score than "
        f"a run of the second{common}; ties count half.</p>"
        f"<div class=pair>{_figure(plots.improvements(findings.comparisons), caption, caption)}"
        f"{_table(('', 'Comparison', 'Chance', '95 % interval', 'Better'), rows)}</div></section>"
    )


def _protocol(game: Game) -> str:
    """What is the same for all runs of a game once, and what differs by setting."""
    told = {
        line.setting.label: explained(game.name, run.settings)
        for line in game.lines
        for run in line.runs[:1]
        if run.settings is not None
    }
    if not told:
        return f"<h3>{_text(game.name)}</h3><p>{NOT_KNOWN.capitalize()}: no run's settings can be read.</p>"
    names = list(dict.fromkeys(name for rows in told.values() for name, _ in rows))
    rows = []
    for name in names:
        ways: dict[str, list[str]] = {}
        for label, pairs in told.items():
            ways.setdefault(dict(pairs).get(name, "Not said."), []).append(label)
        cell = "<br>".join(f"{_text(way)} <small>({_text(', '.join(who))})</small>" for way, who in ways.items())
        rows.append((_text(name), _text(next(iter(ways))) if len(ways) == 1 else cell))
    return f"<h3>{_text(game.name)}</h3>{_table(('', ''), rows, plain=True)}"


def _settings(findings: Findings) -> str:
    """What each setting changes of its game's defaults, side by side."""
    known = [setting for setting in findings.settings if setting.differences is not None]
    names = list(dict.fromkeys(name for setting in known for name in setting.differences))
    unknown = [setting.label for setting in findings.settings if setting.differences is None]
    lost = f"<p>Not known, because config.yaml cannot be read: {_text(', '.join(unknown))}.</p>" if unknown else ""
    if not names:
        return (
            f"<p>{_text(', '.join(setting.label for setting in known))}: all defaults of the game.</p>" if known else ""
        ) + lost
    head = ["", *(_text(each.label) + (" <small>(baseline)</small>" if each.baseline else "") for each in known)]
    rows = [
        (
            f"<code>{_text(name)}</code>",
            *(
                _text(shown(each.differences[name])) if name in each.differences else "<small>default</small>"
                for each in known
            ),
        )
        for name in names
    ]
    intro = "<p>What was changed; everything else has the game's defaults (<code>configs/</code> in the project).</p>"
    return f"{intro}{_table(head, rows)}{lost}"


def _runs(findings: Findings) -> str:
    rows = []
    for game in findings.games:
        for line in game.lines:
            for run in line.runs:
                rows.append(
                    (
                        f"<code>{_text(run.name)}</code>", _text(line.setting.label),
                        _text(NOT_KNOWN if run.seed is None else run.seed), _text(run.status), f"{run.steps:,}",
                        number(run.means[-1]),
                    )
                )  # fmt: skip
    head = ("Run", "Setting", "Seed", "State", "Judged up to, steps", "Last score, points")
    runs = [run for game in findings.games for line in game.lines for run in line.runs]
    parts = [_table(head, rows)]
    watched = [(f"<code>{_text(run.name)}</code>", _text(_episodes(run))) for run in runs if run.episodes]
    if watched:
        note = "<p class=note>Watch them picture by picture with <code>icebox play RUN</code>.</p>"
        parts.append(
            f"<h3>Episodes that were kept</h3>{_table(('Run', 'Score, points (where it was played)'), watched)}{note}"
        )
    for names, facts in _grouped(runs):
        parts.append(f"<h3>{_text(names)}</h3>{_table(('', ''), [(_text(k), _text(v)) for k, v in facts], plain=True)}")
    return "".join(parts)


def _episodes(run: Gathered) -> str:
    more = f" and {len(run.episodes) - 6} more" if len(run.episodes) > 6 else ""
    return ", ".join(f"{number(episode.score)} ({episode.room})" for episode in run.episodes[:6]) + more


def _grouped(runs: Iterable[Gathered]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Runs that were made alike, by what they were made with."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        groups.setdefault(tuple(_made_with(run)), []).append(run.name)
    if len(groups) == 1:
        return [("All runs", list(next(iter(groups))))]
    return [(", ".join(names), list(facts)) for facts, names in groups.items()]


def _made_with(run: Gathered) -> list[tuple[str, str]]:
    host = run.meta.get("host") if isinstance(run.meta.get("host"), dict) else {}
    versions = run.meta.get("versions") if isinstance(run.meta.get("versions"), dict) else {}
    gpus = host.get("gpus")
    cores = f"{host['cores']} cores" if host.get("cores") else ""
    memory = f"{host['memory_gib']} GiB of memory" if host.get("memory_gib") else ""
    machine = ", ".join(filter(None, (str(host.get("processor") or ""), cores, memory)))
    git = str(run.meta.get("git") or NOT_KNOWN)
    return [
        ("Machine", machine or NOT_KNOWN),
        ("GPU", ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none" if host else NOT_KNOWN),
        ("Trained on", {"cpu": "the CPU", "cuda": "the GPU"}.get(str(run.meta.get("device")), NOT_KNOWN)),
        ("System", str(host.get("system") or NOT_KNOWN)),
        ("Commit", git.replace("-dirty", ", with changes that are not in it")),
        ("Versions", ", ".join(f"{name} {known}" for name, known in versions.items() if known) or NOT_KNOWN),
    ]


def number(value: Any) -> str:
    """Return a score as a person reads it: three digits or so."""
    size = abs(float(value))
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
    )


def _alt(game: Game, what: str) -> str:
    finals = "; ".join(f"{line.setting.label} {number(line.iqm)}" for line in game.lines if line.iqm is not None)
    name = {"frames": "Score over frames", "time": "Score over time", "final": "Final scores"}[what]
    return f"{name} on {game.name}. In the end: {finals or 'no finished run'}."


def _figure(svg: str, alt: str, caption: str) -> str:
    image = f'<div role="img" aria-label="{_text(alt)}">{svg}</div>'
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, plain: bool = False) -> str:
    """A table of cells that are HTML already."""
    top = "" if plain else f"<thead><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr></thead>"
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll{" facts" if plain else ""}"><table>{top}<tbody>{lines}</tbody></table></div>'


def _details(title: str, inner: str, *, opened: bool) -> str:
    return f"<details{' open' if opened else ''}><summary><h2>{_text(title)}</h2></summary>{inner}</details>"


def _text(value: Any) -> str:
    return escape(str(value), quote=True)
