"""Environment steps and updates per second of ours beside its peers, at equal network, batch, updates per step, games.

    .venv/bin/python benchmarks/throughput.py       # all, about an hour; writes results/throughput/CASE.json
    .venv/bin/python benchmarks/throughput.py --cases cartpole --contenders ours-eager sb3 --repeats 1 --seconds 10
    .venv/bin/python benchmarks/throughput.py profile cartpole   # where our time goes: results/profile/CASE.json

Every contender runs in a process of its own, one after the other, in an order that alternates over the repeats; a
ratio is the median of those of the pairs. All may use the same cores. Torch has one thread for small networks and one per core
for Nature's in the peers; ours chooses by itself, jax starts its own. CPU seconds are those of the process tree.

Peers live in environments of their own, made once (git ignores them):

    python3.11 -m venv .venv-sbx && .venv-sbx/bin/pip install sbx-rl ale-py opencv-python-headless minatar \\
        'gymnasium[box2d]' psutil
    python3.11 -m venv .venv-peers
    echo $PWD/.venv/lib/python3.11/site-packages > .venv-peers/lib/python3.11/site-packages/ours.pth
    .venv-peers/bin/pip install tianshou opencv-python-headless
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cases import CASES, PROTOCOL, Case, our_settings, sb3_settings  # noqa: E402
from benchmarks.contenders import CONTENDERS  # noqa: E402
from benchmarks.watch import Watch  # noqa: E402

WARM_UP_S = 3.0
LIBRARIES = ("torch", "numpy", "gymnasium", "ale-py", "stable-baselines3", "sbx-rl", "jax", "tianshou")
Runs = dict[str, list[dict[str, Any]]]


def measure(case: Case, contender: str, seconds: float) -> dict[str, Any]:
    """Return what one contender does in this process."""
    watch = Watch(seconds, WARM_UP_S)
    CONTENDERS[contender].run(case, watch)
    if not watch.result:
        raise SystemExit(f"{contender} ended before its {seconds:g} seconds were over.")
    return watch.result | {"versions": _versions()}


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def in_process(case: Case, contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one contender does in a process of its own; SystemExit with its last words when it fails."""
    python = CONTENDERS[contender].python
    if options.here:
        python = Path(sys.executable)
    if not python.exists():
        entry = CONTENDERS[contender]
        raise SystemExit(f"{contender} needs {entry.environment} with {entry.install}: the head of this file says how.")
    command = [str(python), __file__, "one", case.game, contender, "--seconds", str(options.seconds)]
    command += ["--cores", str(options.cores), "--peer-threads", str(case.threads), "--device", case.device]
    load = os.getloadavg()[0]
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds + 300)
    if done.returncode:
        raise SystemExit(f"{contender} on {case.game} failed:\n{done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"load_before": round(load, 2)}


def compete(case: Case, options: argparse.Namespace) -> Runs:
    """Return what everybody did, repeat by repeat; who goes first alternates."""
    runs: Runs = {name: [] for name in options.contenders}
    for repeat in range(options.repeats):
        for name in options.contenders if repeat % 2 == 0 else reversed(options.contenders):
            runs[name].append(in_process(case, name, options))
            print(f"{case.game} {name}: {runs[name][-1]['steps_per_s']:,.0f} steps/s", file=sys.stderr, flush=True)
    return runs


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(runs: Runs, figure: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return ours / peer of `figure` for each of our modes and each peer, paired by repeat."""
    return {
        ours: {
            peer: spread([mine[figure] / other[figure] for mine, other in zip(runs[ours], found, strict=True)])
            for peer, found in runs.items()
            if not peer.startswith("ours")
        }
        for ours in runs
        if ours.startswith("ours")
    }


def report(case: Case, runs: Runs) -> dict[str, Any]:
    """Print the table of one case; return its payload."""
    figures = ("steps_per_s", "updates_per_s", "steps_per_cpu_s")
    summary = {
        name: {figure: spread([run[figure] for run in found]) for figure in figures} for name, found in runs.items()
    }
    wall, cpu = ratios(runs, "steps_per_s"), ratios(runs, "steps_per_cpu_s")
    heads = "".join(f"{ours + ' /':>24}" for ours in wall)
    print(f"\n{case.game:20}{'steps/s':>10}{'min - max':>18}{'updates/s':>11}{'steps/CPU-s':>13}{heads}")
    for name, found in summary.items():
        steps = found["steps_per_s"]
        against = ""
        for ours in wall:
            if name in wall[ours]:
                ratio = wall[ours][name]
                against += f"{ratio['median']:10.2f} ({ratio['min']:.2f} - {ratio['max']:.2f})"
        between = f"{steps['min']:,.0f} - {steps['max']:,.0f}"
        print(
            f"{name:20}{steps['median']:10,.0f}{between:>18}{found['updates_per_s']['median']:11,.0f}"
            f"{found['steps_per_cpu_s']['median']:13,.0f}{against}"
        )
    return {"summary": summary, "ratio_steps_per_s": wall, "ratio_steps_per_cpu_s": cpu, "runs": runs}


def _asked(case: Case, options: argparse.Namespace) -> Case:
    """Return the case on the device, and with the peers' threads, that the command line says."""
    threads = case.threads if options.peer_threads is None else options.peer_threads
    return case._replace(device=options.device, threads=threads)


def main() -> None:
    """Run what the command line asks for, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["race", "one", "profile"], default="race")
    parser.add_argument("case", nargs="?", choices=list(CASES), help="for one and profile")
    parser.add_argument("contender", nargs="?", choices=list(CONTENDERS), help="for one and profile (ours-eager)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=[name for name in CONTENDERS if name != "ours-captured"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="the window")
    parser.add_argument("--cores", type=int, default=2, help="that everybody may use")
    parser.add_argument("--peer-threads", type=int, default=None, help="torch's in the peers (1, or 2 for Nature's)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where everybody learns")
    parser.add_argument("--here", action="store_true", help="peers run in this environment, which has them")
    options = parser.parse_args()
    if options.part != "race":
        if options.case is None or (options.part == "one" and options.contender is None):
            parser.error(f"{options.part} needs a case{' and a contender' if options.part == 'one' else ''}")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.part == "one":
        print(json.dumps(measure(_asked(CASES[options.case], options), options.contender, options.seconds)))
        return
    from benchmarks.results import write  # what it imports not every environment has

    if options.part == "profile":
        from benchmarks.shares import profile

        contender = options.contender or "ours-eager"
        found = profile(CASES[options.case], contender.removeprefix("ours-"), options.seconds)
        about = {"contender": contender, "cores": options.cores}
        print(write(f"profile/{options.case.replace('/', '-')}", about | found))
        return
    for name in options.cases:
        case = _asked(CASES[name], options)
        runs = compete(case, options)
        facts = {
            "case": case._asdict(), "protocol": PROTOCOL, "cores": options.cores, "seconds": options.seconds,
            "ours": our_settings(case), "sb3_and_sbx": sb3_settings(case),
        }  # fmt: skip
        where = "" if options.device == "cpu" else f"-{options.device}"
        print(write(f"throughput/{name.replace('/', '-')}{where}", facts | report(case, runs)), flush=True)


if __name__ == "__main__":
    main()
