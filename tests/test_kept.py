"""Tests of agent/cli/kept.py: a run's agent comes back as it was kept; which weights they are is in test_evaluate.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import short_runs
import torch

from agent.cli.kept import kept_network, kept_session, kept_weights, settings_here
from agent.cli.session import family_settings
from agent.telemetry.run_folder import RunFolder
from envs.make import spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A short run of our agent."""
    return short_runs.train(tmp_path_factory.mktemp("kept") / "runs", "cartpole", "--quiet")[1]


def test_the_network_has_the_kept_weights(folder: RunFolder) -> None:
    """The network gives what the kept weights give, and a damaged config is said in one sentence."""
    settings = settings_here(folder)
    seen = spec(folder.game, **family_settings(settings))
    kept, described = kept_weights(folder, "last")
    network = kept_network(folder, settings, seen, kept, torch.device("cpu"))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, kept["network"][name], rtol=0, atol=0)
    assert described.endswith("the last") and f"{kept['steps']:,}" in described
    other = settings.model_copy(update={"network": settings.network.model_copy(update={"hidden": (3,)})})
    with pytest.raises(ValueError, match="do not fit its config.yaml"):
        kept_network(folder, other, seen, kept, torch.device("cpu"))


def test_a_run_from_a_gpu_plays_here(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that ask for a GPU ask for the CPU where there is none, and are left alone where there is one."""
    cuda = folder.settings().model_copy(update={"device": "cuda"})
    monkeypatch.setattr(RunFolder, "settings", lambda self: cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert settings_here(folder).device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settings_here(folder).device == "cuda"


def test_an_algorithm_of_sb3_has_the_kept_weights(tmp_path: Path) -> None:
    """The policy of the session that is made for acting is the one that was saved."""
    folder = short_runs.train(tmp_path / "runs", "cartpole", "--quiet", "--algo", "ppo")[1]
    kept, _ = kept_weights(folder, "last")
    session = kept_session(folder, settings_here(folder), kept)
    try:
        found = session.algorithm.policy.state_dict()
    finally:
        session.close()
    assert found.keys() == kept["policy"].keys()
    assert all(torch.equal(found[name], kept["policy"][name]) for name in found)
