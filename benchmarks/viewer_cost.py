"""What onlookers cost a run: environment steps per CPU-second of the trainer, without, published, and watched.

    .venv/bin/python benchmarks/viewer_cost.py             # Pong and Lunar Lander, 20 minutes; writes results/viewer.json
    .venv/bin/python benchmarks/viewer_cost.py --cases lunar-lander --execution eager --seconds 3 --repeats 1 --dry

One training goes on through windows that alternate between the three, in one order and then in the other; a cost is
what is lost beside the window without, within a repeat. CPU-seconds are those of the trainer's process, its torch and
emulator threads included; who watches is a process of its own that reads all that is published. `inside` is the share
of the CPU time that was spent in publishing itself (on a busy machine a CPU-second is many of the wall's, by which it
spaces what it does: `inside_of_wall`), which noise does not hide, but nor does it show what is slowed down around it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent.cli.control import Control  # noqa: E402
from agent.cli.record import Record  # noqa: E402
from agent.cli.stop import Stop  # noqa: E402
from agent.telemetry.run_folder import RunFolder  # noqa: E402
from agent.viewer.publish import WATCHED_S  # noqa: E402
from benchmarks.cases import CASES, PROTOCOL, Case  # noqa: E402
from benchmarks.contenders import make_session, settled_ticks  # noqa: E402
from benchmarks.results import write  # noqa: E402

HOWS = ("without", "published", "watched")

READER = """
import sys, time
from pathlib import Path
from agent.viewer.live_reader import LiveReader
live, pictures, bytes_, weights, signed = LiveReader(Path(sys.argv[1])), 0, 0, 0, 0.0
print("ready", flush=True)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    if time.monotonic() - signed > 1.0:
        live.watch()
        signed = time.monotonic()
    if (found := live.read()) is not None and found[0]["scene"] is not None:
        pictures += 1
        bytes_ += sum(array.nbytes for array in found[1].values())
    weights += live.weights() is not None
    time.sleep(0.01)
print(pictures, weights, bytes_, flush=True)
"""


@contextmanager
def reading(folder: Path, seconds: float) -> Iterator[subprocess.Popen]:
    """A process that watches for so long."""
    command = [sys.executable, "-c", READER, str(folder), str(seconds)]
    reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout.readline() == "ready\n"
        yield reader
    finally:
        reader.kill()
        reader.wait()


def window(ticks: Iterator[Any], control: Control | None, seconds: float) -> dict[str, float]:
    """Train for so long; return the rate and what was spent inside publishing."""
    tick = next(ticks)
    steps, cpu_s, wall_s, inside_s = tick.steps, time.process_time(), time.perf_counter(), 0.0
    while time.perf_counter() - wall_s < seconds:
        tick = next(ticks)
        if control is not None:
            begun = time.thread_time()
            control.after(tick)
            inside_s += time.thread_time() - begun
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    played = tick.steps - steps
    rates = {"steps_per_cpu_s": played / cpu_s, "steps_per_s": played / wall_s}
    return rates | {"inside": inside_s / cpu_s, "inside_of_wall": inside_s / wall_s}


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Return what every window of one training showed, and the costs."""
    session = make_session(case, options.execution)
    windows: dict[str, list[dict[str, float]]] = {how: [] for how in HOWS}
    settle_s = WATCHED_S + 0.5  # until the last one who watched is forgotten
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        folder = RunFolder.create(Path(root), case.game, 0, None, session.settings, ["viewer_cost"])
        record = Record(folder, case.game, session.settings, ["viewer_cost"], quiet=True)
        try:
            with Control(session, record, Stop()) as control:
                ticks = settled_ticks(session)
                for repeat in range(options.repeats):
                    for how in HOWS if repeat % 2 == 0 else reversed(HOWS):
                        who = None if how == "without" else control
                        if how == "watched":
                            with reading(folder.path, 600.0 + options.seconds):
                                window(ticks, who, settle_s)
                                published = control._publisher._pictures
                                found = window(ticks, who, options.seconds)
                                found["pictures_per_s"] = (control._publisher._pictures - published) / options.seconds
                        else:
                            window(ticks, control, settle_s)  # it has to hear ticks to forget
                            found = window(ticks, who, options.seconds)
                        windows[how].append(found)
                        rate = found["steps_per_cpu_s"]
                        print(f"{case.game} {how}: {rate:,.1f} steps per CPU-second", file=sys.stderr, flush=True)
        finally:
            record.close()
            execution = session.learner.execution
            session.close()
    costs = {how: spread([lost(windows, how, n) for n in range(options.repeats)]) for how in HOWS[1:]}
    inside, of_wall = (
        {how: spread([found[which] for found in windows[how]]) for how in HOWS[1:]} for which in ("inside", "inside_of_wall")
    )
    rates = {how: spread([found["steps_per_cpu_s"] for found in windows[how]]) for how in HOWS}
    pictures = statistics.median(found["pictures_per_s"] for found in windows["watched"])
    return {
        "execution": execution,
        "steps_per_cpu_s": rates,
        "cost": costs,
        "inside": inside,
        "inside_of_wall": of_wall,
        "pictures_per_s": pictures,
        "windows": windows,
    }


def lost(windows: dict[str, list[dict[str, float]]], how: str, repeat: int) -> float:
    """Return which share of the steps per CPU-second one window lost beside the one without of its repeat."""
    return 1.0 - windows[how][repeat]["steps_per_cpu_s"] / windows["without"][repeat]["steps_per_cpu_s"]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least, largest and the standard error of the mean."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "standard_error": error}


def main() -> None:
    """Measure the cases, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["atari/pong", "lunar-lander"])
    parser.add_argument("--seconds", type=float, default=15.0, help="of a window")
    parser.add_argument("--repeats", type=int, default=11, help="windows of each kind")
    parser.add_argument("--execution", default="compiled", help="how updates run: eager, compiled")
    parser.add_argument("--folder", type=Path, help="where the run folder lies for the time; default: that of the system")
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    found = {name: measure(CASES[name], options) for name in options.cases}
    print(f"{'':16}{'':12}{'steps/CPU-s':>12}{'cost':>9}{'min - max':>18}{'inside':>9}{'pictures/s':>12}")
    for name, result in found.items():
        for how in HOWS:
            line = f"{name:16}{how:12}{result['steps_per_cpu_s'][how]['median']:12.1f}"
            if how != "without":
                cost = result["cost"][how]
                line += f"{cost['median']:9.2%}{cost['min']:9.2%} - {cost['max']:.2%}{result['inside'][how]['median']:9.2%}"
            print(line + (f"{result['pictures_per_s']:12.1f}" if how == "watched" else ""))
    about = {"protocol": PROTOCOL, "unit": "environment steps per CPU-second of the trainer's process"}
    about |= {"seconds": options.seconds, "repeats": options.repeats}
    if not options.dry:
        print(write("viewer", about | {"cases": found}))


if __name__ == "__main__":
    main()
