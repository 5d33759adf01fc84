"""Tests of agent/telemetry/progress.py."""

import io
import re
from pathlib import Path

import pytest

from agent.telemetry.progress import Progress, _cells, _duration

VALUES = {
    "time/steps_per_s": 6120.4,
    "rollout/ep_rew_mean": 183.21,
    "rollout/exploration_rate": 0.05,
    "train/loss": 0.8312,
    "time/share_acting": 0.21,
    "time/share_simulating": 0.30,
    "time/share_learning": 0.45,
}
FULL = (
    "lunar-lander  45,312/150,000  30%  6,120 steps/s  ETA 0:17  return 183.2  eps 0.05  loss 0.831  "
    "act 21% sim 30% learn 45%"
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Return the lines as a terminal shows them: a carriage return overwrites."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


def _logged(path: Path) -> list[str]:
    """Return the log without its times, after checking them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    return [line[21:] for line in lines]


def test_missed_deadlines_are_shown_where_there_are_deadlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time the line says how many of the deadlines were missed, if only none; else it says nothing of them."""
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    progress = Progress("cartpole", 100, tmp_path / "train.log", stream=terminal, clock=Clock())
    progress.update(50, {"realtime/missed": 0.0, "realtime/deadlines": 1050.0, "rollout/ep_rew_mean": 9.0})
    assert terminal.screen() == ["cartpole  50/100  50%  missed 0 of 1,050  return 9.0"]


def test_live_line_shows_everything_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a wide terminal the line holds every field, and a new one takes the old one's place."""
    monkeypatch.setenv("COLUMNS", "200")
    terminal, clock = Terminal(), Clock()
    progress = Progress("lunar-lander", 150_000, tmp_path / "train.log", stream=terminal, clock=clock)
    progress.update(8)
    assert terminal.screen() == ["lunar-lander  8/150,000  0%"]
    clock.now = 1.0
    progress.update(45_312, VALUES)
    assert terminal.screen() == [FULL]
    clock.now = 2.0
    progress.update(45_320, {"time/steps_per_s": 2.5, "train/loss": float("nan")})
    assert "loss" not in terminal.screen()[0] and "nan" not in terminal.screen()[0]
    assert "2.5 steps/s  ETA 11:37:52" in terminal.screen()[0]
    progress.close()
    progress.close()
    assert terminal.getvalue().count("\n") == 1


@pytest.mark.parametrize("width", [1, 10, 40, 60, 80, 123, 124])
def test_live_line_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """No line is as wide as the terminal, fields are left out from the end and never cut, the name is shortened."""
    monkeypatch.setenv("COLUMNS", str(width))
    for game in ("lunar-lander", "atari/montezuma_revenge", "gym:名前の長いゲーム-v0"):
        terminal = Terminal()
        progress = Progress(game, 150_000, tmp_path / "train.log", stream=terminal, clock=Clock())
        progress.update(45_312, VALUES)
        (line,) = terminal.screen()
        assert _cells(line) <= max(0, width - 1)
        if width >= 40:
            assert "45,312/150,000" in line
            assert line.split("  ")[1:] == FULL.split("  ")[1 : len(line.split("  "))]


def test_live_line_is_redrawn_at_most_ten_times_a_second(tmp_path: Path) -> None:
    """A thousand updates within a second write some ten lines."""
    terminal, clock = Terminal(), Clock()
    progress = Progress("g", 1000, tmp_path / "train.log", stream=terminal, clock=clock)
    for steps in range(1000):
        clock.now = steps / 1000
        progress.update(steps)
    assert 9 <= terminal.getvalue().count("\r") <= 11


def test_say_prints_above_the_live_line(tmp_path: Path) -> None:
    """A said line stays, whole, and the live line goes on below it; both kinds reach the log."""
    terminal = Terminal()
    progress = Progress("lunar-lander", 100, tmp_path / "train.log", stream=terminal, clock=Clock())
    progress.say("run: runs/x")
    progress.update(50)
    progress.say("ok")
    assert terminal.screen() == ["run: runs/x", "ok", "lunar-lander  50/100  50%"]
    progress.close()
    progress.say("end")
    assert terminal.screen() == ["run: runs/x", "ok", "lunar-lander  50/100  50%", "end", ""]
    assert _logged(tmp_path / "train.log") == ["run: runs/x", "lunar-lander  50/100  50%", "ok", "end"]


def test_elsewhere_there_is_a_plain_line_per_half_minute(tmp_path: Path) -> None:
    """Without a terminal: the first state, one line per 30 s, the last state, all plain and in the log too."""
    stream, clock = io.StringIO(), Clock()
    progress = Progress("g", 1000, tmp_path / "train.log", stream=stream, clock=clock)
    for second in range(1, 71):
        clock.now = float(second)
        progress.update(second * 10, {"train/loss": 1.0})
    progress.say("evaluation: 12.0")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "g  10/1,000  1%  loss 1",
        "g  310/1,000  31%  loss 1",
        "g  610/1,000  61%  loss 1",
        "evaluation: 12.0",
        "g  700/1,000  70%  loss 1",
    ]
    assert "\r" not in stream.getvalue() and _logged(tmp_path / "train.log") == lines


def test_a_run_of_one_update_is_shown_once(tmp_path: Path) -> None:
    """First and last are the same line then; a run without any shows none."""
    stream = io.StringIO()
    progress = Progress("g", 1, tmp_path / "train.log", stream=stream, clock=Clock())
    progress.update(1)
    progress.close()
    assert stream.getvalue() == "g  1/1  100%\n"
    Progress("g", 1, tmp_path / "train.log", stream=stream, clock=Clock()).close()
    assert stream.getvalue() == "g  1/1  100%\n"


def test_a_terminal_without_unicode_gets_question_marks(tmp_path: Path) -> None:
    """What the stream cannot encode is replaced; the log has it."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Progress("g", 1, tmp_path / "train.log", stream=stream, clock=Clock()).say("café → 1")
    assert raw.getvalue() == b"caf? ? 1\n" and _logged(tmp_path / "train.log") == ["café → 1"]


def test_a_broken_stream_does_not_end_the_run(tmp_path: Path) -> None:
    """A closed terminal or pipe is given up, and the log goes on; a log that cannot be written says so once."""

    class Broken(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = Progress("g", 10, tmp_path / "train.log", stream=Broken(), clock=Clock())
    progress.update(1)
    progress.say("still here")
    progress.close()
    assert _logged(tmp_path / "train.log") == ["g  1/10  10%", "still here"]
    stream = io.StringIO()
    progress = Progress("g", 10, tmp_path / "missing" / "train.log", stream=stream, clock=Clock())
    progress.say("one")
    progress.say("two")
    first, *others = stream.getvalue().splitlines()
    assert first.startswith("train.log cannot be written, training goes on") and others == ["one", "two"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (17.4, "0:17"), (59.6, "1:00"), (3600, "1:00:00"), (183_840, "2d 03:04")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    """Minutes and seconds, hours when there are some, days when there are some."""
    assert _duration(seconds) == text


def test_the_newest_sentences_are_kept_with_their_time(tmp_path: Path) -> None:
    """Who looks at the run is told the last twenty."""
    progress = Progress("g", 10, tmp_path / "train.log", stream=io.StringIO(), clock=Clock())
    for number in range(30):
        progress.say(f"sentence {number}")
    assert [text for _, text in progress.said] == [f"sentence {number}" for number in range(10, 30)]
    assert all(at > 1.7e9 for at, _ in progress.said)
