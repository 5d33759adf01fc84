"""What loading a stranger's policy may take of memory, however its file is made."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from hostile import members_of, pickled, watched, with_data, with_tensors, zipped
from strangers import fresh

SEEN = spaces.Box(-1, 1, (4,), np.float32)

LOAD_ALL = """
import json, sys, fuzzing
from pathlib import Path
paths = [Path(word) for word in sys.argv[1:]]
fuzzing.actions_of(fuzzing.load_zip(paths[0]))
sys.addaudithook(fuzzing.watch)
outcomes = {path.stem: fuzzing.outcome(path) for path in paths}
print(json.dumps({**outcomes, "findings": fuzzing.events}))
"""


def large(folder: Path) -> dict[str, str]:
    """Policies of tens of megabytes, or that would become so, and what must come of each."""
    layers = {"net_arch": {"pi": [2400, 2400], "vf": []}, "ortho_init": False}
    wide = fresh("PPO", SEEN, spaces.Discrete(3), policy_kwargs=layers)
    wide.save(folder / "wide.zip", exclude=["policy.optimizer"])
    good = members_of(folder / "wide.zip")
    (folder / "packed.zip").write_bytes(zipped(good, zipfile.ZIP_DEFLATED))
    old = with_tensors(good, lambda state: None, old=True)
    (folder / "old.zip").write_bytes(zipped(old))

    def repeated(state: dict[str, Any]) -> None:
        for tensor in state.values():
            tensor.copy_((torch.rand(tensor.shape) < 0.01).float())  # packs some 100 times

    def chained(state: dict[str, Any]) -> None:
        square = torch.randn(2400, 2400)
        state.update({f"mlp_extractor.policy_net.{2 * n}.weight": square for n in range(1, 9)})

    wider = {"net_arch": {"pi": [3300, 3300], "vf": []}, "ortho_init": False}
    fresh("PPO", SEEN, spaces.Discrete(3), policy_kwargs=wider).save(folder / "unpacks.zip")
    small = with_tensors(members_of(folder / "unpacks.zip"), repeated)
    (folder / "unpacks.zip").write_bytes(zipped(small, zipfile.ZIP_DEFLATED))
    (folder / "chained.zip").write_bytes(zipped(with_tensors(good, chained)))
    data = {**json.loads(good["data"]), "_last_obs": "a" * (60 << 20)}
    (folder / "json.zip").write_bytes(zipped({**good, "data": json.dumps(data).encode()}))
    letters = "\U0001f9ca" + "a" * (30 << 20)
    (folder / "text.zip").write_bytes(zipped(with_data(good, observation_space=pickled(letters))))
    limits = np.zeros(2**20)
    part = spaces.Box(0, 1, (2**20,), np.float64)
    part.low = part.high = limits
    several = spaces.Dict({str(n): part for n in range(60)})
    (folder / "parts.zip").write_bytes(zipped(with_data(good, observation_space=pickled(several))))
    inner = {"archive/data.pkl": b"\x80\x02X" + (40 << 20).to_bytes(4, "little") + letters.encode()[: 40 << 20] + b"."}
    (folder / "described.zip").write_bytes(zipped({**good, "policy.pth": zipped(inner)}))
    refused = dict.fromkeys(("unpacks", "chained", "json", "text", "parts", "described"), "refused")
    return dict.fromkeys(("wide", "packed", "old"), "loaded") | refused


def test_memory(tmp_path: Path) -> None:
    """Loading takes at most 4 times the file and 64 MiB, of sound policies and of those that are made to take more."""
    (tmp_path / "policies").mkdir()
    expected = large(tmp_path / "policies")
    paths = [str(tmp_path / "policies" / f"{name}.zip") for name in expected]
    # Large blocks go back to the system at once, so that none hides in what an earlier file has left.
    report = watched(tmp_path, "-c", LOAD_ALL, *paths, MALLOC_MMAP_THRESHOLD_="131072")
    assert report == {**expected, "findings": []}
