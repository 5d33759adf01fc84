"""A frozen policy with one bit turned over is refused before anything of it is used, and agrees with its source.

What is damaged here is a real artefact, that of the newest release in tests/golden; other hands' damage is
test_player_files.py's, and tests/test_c.py holds that a run's name changes no token of the C.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import artefact_of, golden_of, vector_graph
from test_c import tokens

from agent.cli.artefacts import emit
from agent.cli.main import main
from agent.config import NetworkSettings
from agent.freeze import artefact, integer, player
from agent.freeze import graph as floats
from agent.freeze.frozen_policy import FrozenPolicy, freeze
from agent.freeze.player import TOLERANCE, Golden, Player
from agent.nets.q_network import make_q_network
from agent.seeding import torch_generator

NEWEST = max((Path(__file__).parent / "golden").glob("v*"))
INPUTS = 10_000
HOSTILE = ['"; system("x"); //', "*/ int x; /*", "??/\n#error\\", "<script>x</script>", "../../x", "\0é\ud800🚀"]


@pytest.mark.parametrize(
    "bits", [pytest.param(200, id="200 bits"), pytest.param(20_000, id="20,000 bits", marks=pytest.mark.night)]
)
def test_a_flipped_bit_anywhere_is_refused_before_use(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reader, player, the player's own command and `icebox verify` each refuse it, naming the file; nothing is compiled
    and no runtime is asked."""
    folder = shutil.copytree(NEWEST / "frozen" / "int8", tmp_path / "a")
    used: list[str] = []

    def note(*arguments: object) -> list:
        used.append("used")
        return []

    monkeypatch.setattr(player, "_working_engines", note)
    monkeypatch.setattr("agent.cli.artefacts.emit", note)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    draw = random.Random(0)
    places = [(path, draw.randrange(len(data))) for path, data in files.items()]  # each file at least once
    every = [(path, offset) for path, data in files.items() for offset in range(len(data))]
    places += draw.sample(every, min(bits, len(every)) - len(places))
    for number, (path, offset) in enumerate(places):
        content = bytearray(files[path])
        content[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        where = f"{path.name}, byte {offset}"
        for use in (artefact.read, Player):
            with pytest.raises(ValueError) as refusal:  # noqa: PT011: the message is looked at below
                use(folder)
            assert path.name in str(refusal.value), f"{where}: {refusal.value}"
        if number % 10 == 0:  # the same reader behind a command
            assert main(["verify", str(folder)]) == 3 and path.name in "".join(capsys.readouterr()), where
            assert player.main([str(folder)]) != 0 and path.name in "".join(capsys.readouterr()), where
        path.write_bytes(files[path])
    assert used == [] and len(places) >= min(bits, len(every))
    assert artefact.read(folder).card.refused is None  # and whole again it is taken


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_an_artefact_reaches_a_program(name: str) -> None:
    """Names of game, actions, versions and source change no byte of the ONNX, of policy.h and of the frozen layers, and
    no token of the C."""
    graph = vector_graph()
    policy, golden = FrozenPolicy(graph, None), golden_of(graph)
    plain = emit(policy, ["onnx", "c"], golden, stack=1, title="plain")
    named = emit(policy, ["onnx", "c"], golden, stack=1, title=name)
    assert named.keys() == plain.keys() == {"policy.onnx", "policy.c", "policy.h"}
    assert all(named[file] == plain[file] for file in ("policy.onnx", "policy.h"))
    assert tokens(named["policy.c"]) == tokens(plain["policy.c"])
    made = artefact_of(graph, named, source={"name": name})
    actions = [name + str(number) for number in range(len(made.card.action_names))]
    hostile = replace(made, card=made.card.model_copy(update={"game": name, "action_names": actions}))
    try:
        written = artefact._contents(hostile)
    except ValueError as refusal:  # a name that no file can hold is refused as a whole
        assert str(refusal)
        return
    ours = artefact._contents(made)
    assert all(written[file] == ours[file] for file in (*named, "golden.npz", "policy.safetensors"))


def observations(shape: tuple[int, ...]) -> np.ndarray:
    """Inputs from very small to very large."""
    draw = np.random.default_rng(7)
    scale = np.exp(draw.uniform(-4, 3, (INPUTS, *([1] * len(shape)))))
    return (draw.normal(size=(INPUTS, *shape)) * scale).astype(np.float32)


@pytest.mark.parametrize("runtime", ["onnx", "c"])
def test_integers_agree_on_10_000_inputs(runtime: str) -> None:
    """Both runtimes give the integers, and the actions, that the reference in numpy gives, every one."""
    folder = NEWEST / "frozen" / "int8"
    made = artefact.read(folder)
    assert made.integer is not None
    seen = observations(made.golden.observation.shape[1:])
    played = Player(folder, runtime=runtime)
    wanted = integer.run(made.integer, seen)
    np.testing.assert_array_equal(played.outputs(seen), wanted)
    np.testing.assert_array_equal(played.act(seen), integer.decide(made.integer, wanted))
    assert len(np.unique(wanted, axis=0)) > 500


def centred(outputs: np.ndarray) -> np.ndarray:
    """Outputs without the mean over the actions."""
    return outputs - outputs.mean(axis=1, keepdims=True)


@torch.no_grad()
@pytest.mark.parametrize("runtime", ["onnx", "c"])
def test_floats_agree_with_the_source_on_10_000_inputs(runtime: str, tmp_path: Path) -> None:
    """What is emitted gives the outputs of the network that was frozen, but for what all actions share (freezing leaves
    the state's value out), within 1e-5 of the largest, and its action wherever its best two values lie further apart
    than that: sums are taken in another order."""
    settings = NetworkSettings(hidden=(24, 16), dueling=True, distribution="quantile", quantiles=5)
    live = make_q_network(settings, (6,), False, 4, torch_generator(0, "network"))
    frozen = freeze(live, (6,), "float32", 4)
    seen = observations((6,))
    few = seen[:20]
    golden = Golden(few, frozen.raw(few), frozen.act(few))
    files = emit(frozen, ["onnx", "c"], golden, stack=1, title="x")
    artefact.write(tmp_path / "a", replace(artefact_of(frozen.graph, files), golden=golden))
    played = Player(tmp_path / "a", runtime=runtime)
    wanted = live(torch.from_numpy(seen)).numpy()
    found = played.outputs(seen)
    slack = 2 * TOLERANCE * np.maximum(1.0, np.abs(wanted).max())
    for outputs in (found, floats.run(frozen.graph, seen)):
        assert np.abs(centred(outputs) - centred(wanted)).max() <= slack
    best = np.sort(wanted, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * slack
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(played.act(seen)[clear], wanted.argmax(axis=1)[clear])
