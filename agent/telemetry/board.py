"""The TensorBoard dashboard of a run: scalars, an arranged layout, the settings as text, and the row in HParams."""

from __future__ import annotations

import difflib
import shlex
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.config import Section, Settings
from agent.telemetry.images import Picture
from agent.telemetry.tags import IMAGES, TAGS, in_table, layout, table

KEY_SETTINGS = (
    "algo",
    "seed",
    "steps",
    "game.num_games",  # so far for all algorithms, see COMMON
    "replay.n_step",
    "replay.priority_exponent",
    "learner.batch_size",
    "learner.samples_per_insert",
    "learner.learning_rate",
    "learner.discount",
)
COMMON = 4  # of these an algorithm of stable-baselines3 heeds; it has its own of the others
FINAL_SCORE = "hparam/score"  # the column in HParams; not a curve, therefore not in TAGS


class Board:
    """Writes TensorBoard events into `folder`. A disk that fails costs the dashboard, with one warning, not the run.

    `resumed_at` is the environment step of the checkpoint a run goes on from: later points are withdrawn.
    """

    def __init__(
        self, folder: Path, *, resumed_at: int | None = None, warn: Callable[[str], Any] = warnings.warn
    ) -> None:
        self._warn = warn
        self._writer: Any = None
        self._first_step = resumed_at or 0
        self._written: set[str] = set()
        # TensorBoard takes the first START it sees for the beginning, so a fresh run marks its own, at 0.
        purge_step = 0 if resumed_at is None else resumed_at + 1
        self._excepthook = threading.excepthook
        threading.excepthook = self._hear
        self._guarded(lambda: self._open(folder, purge_step))

    def _open(self, folder: Path, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed by a run that trains

        self._writer = SummaryWriter(str(folder), purge_step=purge_step, max_queue=1000, flush_secs=5)

    def write(self, steps: int, values: Mapping[str, float]) -> None:
        """Write numbers at an environment step; ValueError for a tag that is not in `TAGS`."""
        for tag in values:
            if in_table(tag) is None:
                near = difflib.get_close_matches(tag, TAGS, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else " Add it to the table in agent/telemetry/tags.py."
                raise ValueError(f"{tag!r} is not a tag of the dashboard.{hint}")
        if self._writer is not None:
            self._guarded(lambda: self._write(steps, values))

    def _write(self, steps: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, steps)
        written = {in_table(tag) for tag in values}
        if not self._written.issuperset(written):  # TensorBoard shows the newest layout
            self._written |= written
            self._writer.add_custom_scalars(layout(self._written))

    def show(self, steps: int, pictures: Mapping[str, Picture]) -> None:
        """Show pictures in the Images tab, as of an environment step; ValueError for a tag that is not in `IMAGES`."""
        if unknown := set(pictures) - IMAGES.keys():
            raise ValueError(f"{min(unknown)!r} is not a picture of the dashboard. Add it to agent/telemetry/tags.py.")
        if self._writer is not None:
            self._guarded(lambda: self._show(steps, pictures))

    def _show(self, steps: int, pictures: Mapping[str, Picture]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # torch's add_video writes nothing with moviepy 2

        for tag, picture in pictures.items():
            image = Summary.Image(
                height=picture.height, width=picture.width, colorspace=3, encoded_image_string=picture.data
            )
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), steps)

    def describe(self, settings: Settings, command: Sequence[str], versions: Mapping[str, str | None]) -> None:
        """Fill the Text tab: the command, the settings, the versions, and what every chart shows."""
        texts = {
            "1 command": f"    {shlex.join(command)}",
            "2 settings": _markdown(("setting", "value"), flat(settings)),
            "3 versions": _markdown(("package", "version"), versions),
            "4 what the charts show": table(),
        }
        if self._writer is not None:
            self._guarded(lambda: [self._writer.add_text(*text, self._first_step) for text in texts.items()])

    def finish(self, settings: Settings, steps: int, score: float) -> None:
        """Write the run's row in the HParams tab: its key settings and its final score."""
        hparams = key_settings(settings)
        if self._writer is not None:
            self._guarded(self._writer.flush)  # the row lies in a second file, and TensorBoard leaves the first for it
        if self._writer is not None:
            self._guarded(
                lambda: self._writer.add_hparams(hparams, {FINAL_SCORE: score}, run_name=".", global_step=steps)
            )

    def flush(self) -> None:
        """Wait until what was written is in the file; for use before a checkpoint is announced."""
        if self._writer is not None:
            self._guarded(self._writer.flush)

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing."""
        if self._writer is not None:
            self._guarded(self._writer.close)
            self._writer = None
        if threading.excepthook == self._hear:
            threading.excepthook = self._excepthook

    def _hear(self, failed: threading.ExceptHookArgs) -> None:
        """Drop the traceback of the thread that writes the file: `_guarded` is told of it, and says so in a sentence."""
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            self._excepthook(failed)

    def state_dict(self) -> dict[str, Any]:
        """Return which tags were written, so that a resumed run's layout has all its charts at once."""
        return {"written": sorted(self._written)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._written = {tag for tag in state["written"] if tag in TAGS}
        if self._writer is not None and self._written:
            self._guarded(lambda: self._writer.add_custom_scalars(layout(self._written)))

    def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except OSError as error:
            self._writer = None
            self._warn(f"The TensorBoard dashboard stops here, training goes on: {error}")


def key_settings(settings: Settings) -> dict[str, str | float]:
    """Return the settings that a run's row in HParams shows: of our agent KEY_SETTINGS, of others those they heed."""
    values = flat(settings)
    if settings.algo == "icebox":
        return {key: values[key] for key in KEY_SETTINGS}
    own = settings.sb3.get(settings.algo, {})
    return {key: values[key] for key in KEY_SETTINGS[:COMMON]} | {
        f"{settings.algo}.{key}": value for key, value in own.items() if isinstance(value, (str, int, float))
    }


def flat(section: Section, prefix: str = "") -> dict[str, Any]:
    """Return the settings by dotted name: {"learner.batch_size": 32, ...}."""
    values: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return values


def _markdown(head: tuple[str, str], values: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {value} |" for key, value in values.items()]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])
