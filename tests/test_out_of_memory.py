"""Memory that is out and a GPU that fails, at any update: a loadable checkpoint, exit code 75 and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
import torch
from short_runs import settings
from test_drive import When, begun

from agent import checkpoint
from agent.cli.drive import drive, drive_stock
from agent.cli.errors import MACHINE, MachineError
from agent.cli.main import main
from agent.cli.record import load_checkpoint
from agent.cli.session import Session
from agent.learner import Learner

ENDLESS: dict[str, Any] = {
    "steps": 100_000,
    "learner": {
        "execution": "eager", "learning_starts": 60, "batch_size": 16, "samples_per_insert": 16, "target_interval": 2
    },
    "evaluation": {"interval_steps": 0},
    "checkpoint": {"interval_steps": 70, "keep": 2},
}
CUDA_SAYS = "\nCUDA kernel errors might be asynchronously reported at some other API call."


def fail(error: Exception) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


FAILURES: dict[str, tuple[str, Callable[[], object]]] = {
    "python": ("on the host", fail(MemoryError())),
    "numpy": ("on the host", lambda: np.empty(1 << 60, np.uint8)),
    "torch": ("on the host", lambda: torch.empty(1 << 60, dtype=torch.uint8)),
    "fork": ("on the host", fail(OSError(12, "Cannot allocate memory"))),
    "gpu": ("on the GPU", fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB." + CUDA_SAYS))),
    "cublas": ("on the GPU", fail(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"))),
    "assert": ("The GPU has failed", fail(RuntimeError("CUDA error: device-side assert triggered" + CUDA_SAYS))),
}
WHERE = ("_sample_and_differentiate", "move", "act", "copy_to_target")
CASES = [(kind, 1 + 3 * index, where) for index, (kind, where) in enumerate(product(FAILURES, WHERE))]
CASES += [(kind, count, WHERE[count % 2]) for kind in FAILURES for count in (2, 40, 171)]


def broken(owner: Any, name: str, count: int, act: Callable[[], object]) -> None:
    """Let call number `count` of `owner.name`, and every later one, do `act` in its midst."""
    real, left = getattr(owner, name), [count]

    def stand_in(*given: Any, **options: Any) -> Any:
        left[0] -= 1
        found = real(*given, **options)
        if left[0] <= 0:
            act()
        return found

    setattr(owner, name, stand_in)


@pytest.mark.parametrize(("kind", "count", "where"), CASES)
def test_a_run_out_of_memory_is_saved(kind: str, count: int, where: str, tmp_path: Path) -> None:
    """The checkpoint of the very step in which it failed is written, can be loaded, and learns on."""
    words, act = FAILURES[kind]
    with begun(tmp_path, settings(**ENDLESS)) as (session, record, folder):
        learner = session.learner
        owner = {"move": learner.optimizer, "act": session.actor}.get(where, learner)
        if where == "_sample_and_differentiate":
            learner._run = lambda *given: learner._whole(learner._sample_and_differentiate, *given)
        broken(owner, where, count, act)
        with pytest.raises(MachineError, match=words):
            drive(session, record, When())
        assert folder.meta()["steps"] == session.steps
    tree, skipped = load_checkpoint(folder)
    assert (tree["steps"], skipped) == (session.steps, [])
    if count % 5 == 0:
        with begun(tmp_path, settings(**ENDLESS), folder) as (again, record, _):
            assert not drive(again, record, When(lambda: again.clock.steps >= tree["steps"] + 80))
            again.replay.check()
            assert again.sound()


@pytest.mark.parametrize("kind", ["gpu", "assert"])
def test_a_device_that_answers_nothing_leaves_the_last_good_checkpoint(kind: str, tmp_path: Path) -> None:
    """Where the state cannot be read any more that is said, and the checkpoint before is intact and the newest."""
    with begun(tmp_path, settings(**ENDLESS)) as (session, record, folder):
        broken(session.learner, "copy_to_target", 1, FAILURES[kind][1])
        give = session.learner.state_dict
        session.learner.state_dict = lambda: give() if session.steps < 100 else FAILURES[kind][1]()
        session.learner.settings = session.learner.settings.model_copy(update={"target_interval": 200})
        with pytest.raises(MachineError):
            drive(session, record, When())
    assert "No checkpoint of this moment can be written: CUDA " in folder.log.read_text()
    tree, skipped = load_checkpoint(folder)
    assert skipped == [] and 70 <= tree["steps"] < 100 < session.steps


@pytest.mark.parametrize("algo", ["ppo", "dqn-sb3"])
def test_stable_baselines_is_saved_alike(algo: str, tmp_path: Path) -> None:
    """SB3's algorithms are saved with what they have learned, and go on."""
    chosen = settings(**ENDLESS | {"algo": algo})
    with begun(tmp_path, chosen) as (session, record, folder):
        broken(session.algorithm.policy.optimizer, "step", 20, FAILURES["gpu"][1])
        with pytest.raises(MachineError, match=f"in an update .* under sb3.{algo}"):
            drive_stock(session, record, When())
        steps = session.steps
    assert load_checkpoint(folder)[0]["steps"] == steps > 0
    with begun(tmp_path, chosen, folder) as (session, record, _):
        assert not drive_stock(session, record, When(lambda: session.algorithm.num_timesteps >= steps + 200))


def test_the_command_says_what_helps_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`icebox train` ends with code 75, names checkpoint, remedies and the command; that goes on to the end."""
    with monkeypatch.context() as patch:
        update, left = Learner._update_once, [30]

        def full(learner: Learner, *given: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                torch.empty(1 << 60, dtype=torch.uint8)
            return update(learner, *given, **options)

        patch.setattr(Learner, "_update_once", full)
        code, folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet")
    number, steps = checkpoint.numbers(folder.checkpoints)[-1], folder.meta()["steps"]
    broken_off, why = capsys.readouterr().err.splitlines()
    assert (code, folder.status) == (MACHINE, "crashed") == (75, "crashed")
    resume = f"icebox resume {folder.path}"
    safe = f"Checkpoint {number} at {steps} steps is safe"
    assert broken_off == f"icebox: Broken off. {safe}. Go on from it with: {resume}"
    assert why.startswith("icebox: Out of memory on the host in an update (") and "--learner.batch-size below" in why
    assert "--replay.capacity below 400" in why and "resume, or start a run with" in why
    assert main(["resume", str(folder.path), "--quiet"]) == 0 and folder.status == "done"


@pytest.mark.parametrize("kind", FAILURES)
def test_other_commands_end_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a run, or without one, it is code 75 and a sentence as well, and never a bug with a traceback."""
    words, act = FAILURES[kind]
    monkeypatch.setattr(Session, "__init__", lambda *given: act())
    assert main(["train", "cartpole", "--device", "cpu", "--runs-dir", str(tmp_path / "runs")]) == 75
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.gpu
def test_a_full_gpu_ends_a_run_that_can_go_on(tmp_path: Path) -> None:
    """A real CUDA allocation that fails in an update: the weights come off the GPU, and the run goes on from them."""
    chosen = settings(**ENDLESS | {"device": "cuda"})
    with begun(tmp_path, chosen) as (session, record, folder):
        broken(session.learner, "_sample_and_differentiate", 50, lambda: torch.empty(1 << 50, device="cuda"))
        session.learner._run = lambda *given: session.learner._whole(session.learner._sample_and_differentiate, *given)
        with pytest.raises(MachineError, match="Out of memory on the GPU in an update"):
            drive(session, record, When())
        assert load_checkpoint(folder)[0]["steps"] == session.steps
    with begun(tmp_path, chosen, folder) as (session, record, _):
        steps = session.steps
        assert not drive(session, record, When(lambda: session.clock.steps >= steps + 80))
