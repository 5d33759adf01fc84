"""Files of `torch.save`, read without torch: as `torch.load` reads them, and nothing that is not sound."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from agent.freeze.tensors import read_tensors
from hostile import Bomb, Members, members_of, zipped
from strangers import SIX, ZOO

FLOATS = [torch.float32, torch.float64, torch.float16]
DTYPES = [*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def saved(state: Any, old: bool = False) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def assert_alike(found: dict[str, np.ndarray], state: dict[str, torch.Tensor]) -> None:
    """The same names, dtypes, shapes and numbers."""
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.numpy().dtype and found[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(found[name], tensor.numpy())


NAMES = st.from_regex(r"\A[a-z][a-z.0-9_]{0,20}\Z")


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(DTYPES), SHAPES)), st.booleans())
def test_as_torch_reads(kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]], old: bool) -> None:
    """Tensors of every dtype and shape, in both formats, are what was saved."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (torch.randn(shape, generator=generator) * 9).to(dtype) for name, (dtype, shape) in kinds.items()
    }
    assert_alike(read_tensors(saved(state, old)), state)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_that_share(old: bool) -> None:
    """Tensors may share numbers, whole or as parts of one storage, and be ordered as a module's state is."""
    whole = torch.arange(12.0)
    state = OrderedDict(a=whole[2:8].view(2, 3), b=whole[8:], c=whole, d=whole.view(3, 4)[1:2])
    assert_alike(read_tensors(saved(state, old)), state)
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert_alike(read_tensors(saved(module.state_dict(), old)), module.state_dict())


@pytest.mark.parametrize("known", SIX, ids=lambda known: known.file)
def test_tensors_of_the_zoo(known: Any) -> None:
    """The tensors of six files from 2020 and 2021, one of them in the old format, are as torch reads them."""
    content = members_of(ZOO / f"{known.file}.zip")["policy.pth"]
    assert_alike(read_tensors(content), torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"))
    assert (content[:2] == b"PK") == (known.algorithm != "SAC")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": torch.tensor([1.0, float("nan")])}, "'a' has numbers that are not finite"),
        ({"a": torch.tensor([1.0, float("-inf")])}, "'a' has numbers that are not finite"),
        ({"a": torch.zeros(1).expand(1000)}, "expanded or not dense"),
        ({"a": torch.zeros(3, 4).T}, "expanded or not dense"),
        ({"a": torch.zeros(10).as_strided((3, 3), (1, 1))}, "expanded or not dense"),
        ({"a": torch.zeros(0, 3)}, "expanded or not dense"),
        ({"a": torch.zeros(3, dtype=torch.bfloat16)}, "torch.BFloat16Storage, which are not read"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "torch.ComplexFloatStorage, which are not read"),
        ({"a": torch.eye(3).to_sparse()}, "no dense tensor"),
        ({"a": nn.Parameter(torch.zeros(3))}, "no dense tensor"),
        ({"a": 3}, "no dense tensor"),
        ({"a": {"b": torch.zeros(3)}}, "no dense tensor"),
        ({"a/b": torch.zeros(3)}, "a tensor named 'a/b'"),
        ({"a\n": torch.zeros(3)}, r"a tensor named 'a\\n'"),
        ({1: torch.zeros(3)}, "a tensor named 1"),
        ([torch.zeros(3)], "other than tensors with names"),
        (torch.zeros(3), "other than tensors with names"),
        ({f"a{n}": tensor for tensor in [torch.zeros(2000)] for n in range(60)}, "far more numbers than the file"),
    ],
)
def test_what_is_not_sound(state: Any, said: str, old: bool) -> None:
    """Numbers that are not finite, tensors that are not dense, and what is no tensor are refused."""
    with pytest.raises(ValueError, match=said):
        read_tensors(saved(state, old))


def rewritten(change: Any) -> bytes:
    """A file with one tensor of 2 x 3, whose members were changed."""
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(2, 3)}))) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    change(inner)
    return zipped(inner)


def replaced(name: str, old: bytes, new: bytes) -> Any:
    """Replace bytes of a member."""

    def change(inner: Members) -> None:
        assert old in inner[f"archive/{name}"]
        inner[f"archive/{name}"] = inner[f"archive/{name}"].replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replaced("data/0", bytes(2) + b"\x80?", b""), "within its 0 numbers"),
        (lambda inner: inner.__setitem__("archive/data/0", bytes(23)), "ends within a number"),
        (lambda inner: inner.__setitem__("archive/data/0", bytes(20)), "within its 5 numbers"),
        (lambda inner: inner.pop("archive/data/0"), "no member 'archive/data/0'"),
        (lambda inner: inner.pop("archive/data.pkl"), "no member 'archive/data.pkl'"),
        (lambda inner: inner.__setitem__("archive/code.py", b""), "does not belong there"),
        (lambda inner: inner.__setitem__("../data/1", b""), "does not belong there"),
        (lambda inner: inner.__setitem__("other/version", b"3"), "more than one folder"),
        (lambda inner: inner.__setitem__("archive/byteorder", b"big"), "other byte order"),
        (replaced("data.pkl", b"K\x00K\x02K\x03", b"K\x01K\x02K\x03"), "within its 6 numbers"),
        (replaced("data.pkl", b"K\x00K\x02K\x03", b"J\xff\xff\xff\xffK\x02K\x03"), "within its 6 numbers"),
        (replaced("data.pkl", b"K\x00K\x02K\x03", b"K\x00J\xfe\xff\xff\xffJ\xfd\xff\xff\xff"), "not dense"),
        (replaced("data.pkl", b"FloatStorage", b"FloatStorane"), "FloatStorane, which are not read"),
        (replaced("data.pkl", b"torch\nFloat", b"os\nFloat"), "without a storage"),
        (replaced("data.pkl", b"_rebuild_tensor_v2", b"_rebuild_qtensor"), "no dense tensor"),
    ],
)
def test_what_was_changed(change: Any, said: str) -> None:
    """A file whose parts do not fit each other is refused, and the reason is said."""
    with pytest.raises(ValueError, match=said):
        read_tensors(rewritten(change))
    assert read_tensors(rewritten(lambda inner: None))["a"].tolist() == [[1, 1, 1]] * 2


def test_the_old_format_damaged() -> None:
    """A file of the old format that is cut short, at any place, or is another's is refused."""
    content = saved({"a": torch.ones(2, 3), "b": torch.ones(40)}, old=True)
    for end in range(0, len(content), 7):
        with pytest.raises(ValueError, match="it is|it does|it holds|in it"):
            read_tensors(content[:end])
    with pytest.raises(ValueError, match="not a file of torch"):
        read_tensors(pickle.dumps(7) * 5)


@pytest.mark.parametrize("old", [False, True])
def test_nothing_runs(old: bool, tmp_path: Path) -> None:
    """What a file would call is not called."""
    marker = tmp_path / "marker"
    bomb = pickle.dumps({"a": Bomb(marker)}, protocol=2)
    if old:
        content = saved({"a": torch.ones(2)}, old)
        start = content.index(b"\x80\x02}q\x00X\x01\x00\x00\x00a")
        content = content[:start] + bomb + content[content.index(b".", start) + 1 :]
    else:
        content = rewritten(lambda inner: inner.__setitem__("archive/data.pkl", bomb))
    with pytest.raises(ValueError, match="it is|it does|it holds|in it|dense"):
        read_tensors(content)
    assert not marker.exists()
