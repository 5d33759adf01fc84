"""Hostile and damaged files: each is refused in one sentence or read without touching what is hostile in it."""

from __future__ import annotations

import base64
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agent.freeze.sb3_policy import load_zip
from hostile import Bomb, Members, expanded, members_of, overlapping, pickled, with_bomb_in_tensors, with_data
from hostile import watched, with_inner, with_tensors, zipped
from strangers import Silent, fresh, sample

ROOT = Path(__file__).parent.parent
SEEN = spaces.Box(-1, 1, (4,), np.float32)
FIRST = "q_net.q_net.0.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """A sound policy, taken apart."""
    path = tmp_path_factory.mktemp("good") / "policy.zip"
    kwargs = {"net_arch": [8, 6], "activation_fn": torch.nn.Tanh}  # a class in it, so that they are pickled
    fresh("DQN", SEEN, spaces.Discrete(3), policy_kwargs=kwargs).save(path)
    return members_of(path)


def refusal(content: bytes, tmp_path: Path) -> str:
    """The sentence with which a file is refused, without the path in front."""
    path = tmp_path / "policy.zip"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        load_zip(path)
    said = str(refused.value)
    assert said.startswith(f"{path} cannot be loaded: ") and said.endswith(".") and "\n" not in said
    assert "damaged (" not in said, "an error that nobody thought of"
    return said.removeprefix(f"{path} cannot be loaded: ")


NEEDED = ("policy_class", "policy_kwargs", "observation_space", "action_space")
UNNEEDED = ("_last_obs", "lr_schedule", "ep_info_buffer", "exploration_schedule", "replay_buffer_class", "train_freq")


@pytest.mark.parametrize("field", NEEDED)
def test_code_in_a_field_that_is_needed(field: str, good: Members, tmp_path: Path) -> None:
    """Code where a class, a space or settings belong is refused, not run."""
    marker = tmp_path / "marker"
    said = refusal(zipped(with_data(good, **{field: pickled(Bomb(marker))})), tmp_path)
    assert said.startswith(("its policy_class is no", "its policy_kwargs are", f"{field}: it has"))
    assert not marker.exists()


@pytest.mark.parametrize("field", UNNEEDED)
def test_code_in_a_field_that_is_not_needed(field: str, good: Members, tmp_path: Path) -> None:
    """Code in a field that acting does not need is not even looked at: the policy is read and acts."""
    marker = tmp_path / "marker"
    path = tmp_path / "policy.zip"
    path.write_bytes(zipped(with_data(good, **{field: pickled(Bomb(marker))})))
    stranger = load_zip(path)
    path.write_bytes(zipped(good))
    raw = sample(SEEN, 20)
    np.testing.assert_array_equal(stranger.act(raw), load_zip(path).act(raw))
    assert not marker.exists()


@pytest.mark.parametrize("member", ["policy.optimizer.pth", "pytorch_variables.pth", "system_info.txt"])
def test_code_in_a_member_that_is_not_needed(member: str, good: Members, tmp_path: Path) -> None:
    """Members that acting does not need are not looked at."""
    marker = tmp_path / "marker"
    path = tmp_path / "policy.zip"
    path.write_bytes(zipped({**good, member: pickle.dumps(Bomb(marker))}))
    assert load_zip(path).algo == "DQN" and not marker.exists()


def test_code_among_the_settings(good: Members, tmp_path: Path) -> None:
    """Code in a setting that matters is refused; in one that only learning needs it is not looked at."""
    marker = tmp_path / "marker"
    for name, said in (("activation_fn", "its activation is no class"), ("features_extractor_class", "of its own")):
        kwargs = {"net_arch": [8, 6], name: Bomb(marker)}
        assert said in refusal(zipped(with_data(good, policy_kwargs=pickled(kwargs))), tmp_path)
    kwargs = {"net_arch": [8, 6], "optimizer_class": Bomb(marker)}
    (tmp_path / "policy.zip").write_bytes(zipped(with_data(good, policy_kwargs=pickled(kwargs))))
    assert load_zip(tmp_path / "policy.zip").algo == "DQN" and not marker.exists()


def test_code_among_the_tensors(good: Members, tmp_path: Path) -> None:
    """Code where tensors are described is refused, not run."""
    marker = tmp_path / "marker"
    assert "no dense tensor" in refusal(zipped(with_bomb_in_tensors(good, marker)), tmp_path)
    assert not marker.exists()


def test_code_in_the_statistics(good: Members, tmp_path: Path) -> None:
    """Statistics that lie beside a policy are read as carefully, and refused by their own name."""
    marker = tmp_path / "marker"
    (tmp_path / "policy.zip").write_bytes(zipped(good))
    beside = tmp_path / "policy.vecnormalize.pkl"
    beside.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ValueError, match="policy.vecnormalize.pkl cannot be loaded: it holds no VecNormalize"):
        load_zip(tmp_path / "policy.zip")
    assert not marker.exists()


def with_tensor(name: str, tensor: Any) -> Callable[[Members], bytes]:
    """One tensor replaced; None takes it out."""

    def change(state: dict[str, Any]) -> None:
        state[name] = tensor
        if tensor is None:
            del state[name]

    return lambda good: zipped(with_tensors(good, change))


def changed(**fields: Any) -> Callable[[Members], bytes]:
    """Fields of the data replaced."""
    return lambda good: zipped(with_data(good, **fields))


def without(member: str) -> Callable[[Members], bytes]:
    """A member missing."""
    return lambda good: zipped({name: content for name, content in good.items() if name != member})


def text(content: bytes) -> Callable[[Members], bytes]:
    """The data replaced as a whole."""
    return lambda good: zipped({**good, "data": content})


def rewired(name: str, old: bytes, new: bytes) -> Callable[[Members], bytes]:
    """Bytes within a member of policy.pth replaced."""

    def change(inner: Members) -> None:
        assert old in inner[name]
        inner[name] = inner[name].replace(old, new)

    return lambda good: zipped(with_inner(good, change))


def kwargs(**settings: Any) -> Callable[[Members], bytes]:
    """Settings replaced."""
    return changed(policy_kwargs=pickled({"net_arch": [8, 6], "activation_fn": torch.nn.Tanh, **settings}))


def patched(content: bytes, mark: bytes, behind: int, new: bytes) -> bytes:
    """Some bytes replaced, so far behind the last of a mark."""
    at = content.rindex(mark) + behind
    return content[:at] + new + content[at + len(new) :]


def twice(good: Members, name: str) -> bytes:
    """A zip with two members of one name."""
    stream = io.BytesIO(zipped(good))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(name, b"{}")
    return stream.getvalue()


def linked(good: Members, name: str) -> bytes:
    """A zip in which a member says that it is a symbolic link."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for each, content in good.items():
            info = zipfile.ZipInfo(each)
            if each == name:
                info.create_system, info.external_attr, content = 3, 0o120777 << 16, b"/etc/passwd"
            archive.writestr(info, content)
    return stream.getvalue()


def shared(state: dict[str, Any]) -> None:
    """Tensors that act, of one storage."""
    state["q_net.q_net.0.bias"] = torch.ones(8)
    state["q_net.q_net.2.bias"] = state["q_net.q_net.0.bias"][:6]


TENSORS, AT, SIDES = "archive/data.pkl", b"QK\x00", b"K\x08K\x04"
PARTS = spaces.Dict({f"part {n}": SEEN for n in range(20)})
DEEP = {":serialized:": base64.b64encode(b"\x80\x04N" + b"\x85" * 40_000 + b".").decode()}
WEIGHT = torch.ones(8, 4)
NAN, INFINITE = WEIGHT.clone(), WEIGHT.clone()
NAN[3, 2], INFINITE[0, 0] = float("nan"), float("inf")

ATTACKS: dict[str, tuple[Callable[[Members], bytes], str]] = {
    "empty": (lambda good: b"", "it is no zip"),
    "text": (lambda good: b"hello " * 99, "it is no zip"),
    "cut short": (lambda good: zipped(good)[:-30], "cut short"),
    "the way out": (lambda good: zipped({**good, "../../evil.pth": b""}), "'../../evil.pth', which does not belong"),
    "from the root": (lambda good: zipped({**good, "/etc/evil.pth": b""}), "'/etc/evil.pth', which does not belong"),
    "a program": (lambda good: zipped({**good, "setup.py": b""}), "'setup.py', which does not belong"),
    "overlap": (overlapping, "overlaps another"),
    "bomb": (lambda good: zipped({**good, "data": b"0" * 10**7}, zipfile.ZIP_DEFLATED), "it is a bomb"),
    "packed inside": (
        lambda good: zipped(with_inner(good, lambda inner: None, zipfile.ZIP_DEFLATED)),
        "compressed in a way",
    ),
    "no data": (without("data"), "no member 'data'"),
    "no policy": (without("policy.pth"), "no member 'policy.pth'"),
    "no JSON": (text(b"{"), "not JSON"),
    "no text": (text(b"\xff\xfe{}"), "not JSON"),
    "JSON of another": (text(b"[1, 2]"), "not those of a policy"),
    "deep JSON": (text(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "not JSON"),
    "much JSON": (text(b"[" + b"1," * 300_000 + b"1]"), "too many"),
    "no class": (changed(policy_class=None), "say nothing of policy_class"),
    "a class as text": (changed(policy_class="os.system"), "its policy_class is no class"),
    "another's class": (changed(policy_class=pickled(zipfile.ZipFile)), "zipfile.ZipFile, a class of its own"),
    "no pickle": (changed(observation_space={":serialized:": "AAAA"}), "damaged or cut short"),
    "no base64": (changed(observation_space={":serialized:": "%%%"}), "not encoded"),
    "no text in it": (changed(observation_space={":serialized:": 7}), "not encoded"),
    "a deep pickle": (changed(observation_space=DEEP), "something else where a space"),
    "huge layers": (kwargs(net_arch=[10**9]), "hidden layers of .1000000000., its tensors have .8, 6."),
    "huge layers by actor": (kwargs(net_arch={"pi": [2**62]}), "its net_arch says more or wider layers"),
    "layers of text": (kwargs(net_arch="big"), "should be a number"),
    "other layers": (kwargs(net_arch=[6, 8]), "its net_arch says"),
    "unknown settings": (kwargs(layer_norm=True), "'layer_norm', which no supported policy class takes"),
    "a flag of text": (kwargs(normalize_images="no"), "neither true nor false"),
    "many features": (kwargs(features_extractor_kwargs=[1]), "no dictionary"),
    "settings of text": (changed(policy_kwargs="none"), "no dictionary"),
    "NaN": (with_tensor(FIRST, NAN), "'q_net.q_net.0.weight' has numbers that are not finite"),
    "infinite": (with_tensor(FIRST, INFINITE), "not finite"),
    "NaN in a target": (with_tensor("q_net_target.q_net.0.weight", NAN), "not finite"),
    "a wrong shape": (with_tensor(FIRST, torch.ones(4, 8)), "4 numbers arrive|8 biases"),
    "a missing tensor": (with_tensor("q_net.q_net.2.bias", None), "no tensor 'q_net.q_net.2.bias'"),
    "one tensor more": (with_tensor("q_net.q_net.6.weight", torch.ones(3, 3)), "no tensor 'q_net.q_net.6.bias'"),
    "a layer norm": (with_tensor("q_net.q_net.1.weight", torch.ones(8)), "not dense ones"),
    "a memory": (with_tensor("lstm_actor.weight_hh_l0", torch.ones(8)), "of a layer that no policy"),
    "doubles": (with_tensor(FIRST, WEIGHT.double()), "float64"),
    "stride 0": (lambda good: zipped(with_tensors(good, lambda state: expanded(state, FIRST))), "expanded"),
    "no tensors": (lambda good: zipped(with_tensors(good, lambda state: [1, 2])), "other than tensors"),
    "outside its storage": (rewired("archive/data.pkl", b"K\x08K\x04", b"K\x08K\x05"), "not dense|within its"),
    "the other byte order": (rewired("archive/byteorder", b"little", b"big"), "byte order"),
    "more actions": (changed(action_space=pickled(spaces.Discrete(4))), "gives 3 numbers, but its actions need 4"),
    "actions from 1": (changed(action_space=pickled(spaces.Discrete(3, start=1))), "start at 1"),
    "encrypted": (lambda good: patched(zipped(good), b"PK\x01\x02", 8, b"\x01"), "is encrypted"),
    "duplicates": (lambda good: twice(good, "data"), "two members named 'data'"),
    "a link": (lambda good: linked(good, "data"), "its data are not JSON"),
    "a folder": (lambda good: zipped({**good, "data/": b""}), "'data/', which does not belong"),
    "wide JSON": (text('{"a": "\U0001f9ca"}'.encode()), "not JSON as stable-baselines3 writes it"),
    "a long number": (text(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "many layers": (kwargs(net_arch=[{"pi": list(range(1, 90))}] * 50), "more or wider layers"),
    "wide layers": (kwargs(net_arch=[2**200]), "more or wider layers"),
    "an offset": (rewired(TENSORS, AT + SIDES, b"QK\x01" + SIDES), "does not lie within its 32"),
    "far away": (rewired(TENSORS, AT + SIDES, b"QJ\xff\xff\xff\x7f" + SIDES), "does not lie within"),
    "long strides": (rewired(TENSORS, b"K\x04K\x01\x86", b"J\xff\xff\xff\x7fK\x01\x86"), "not dense"),
    "strides backwards": (rewired(TENSORS, b"K\x04K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86"), "not dense"),
    "another kind of number": (rewired(TENSORS, b"FloatStorage", b"DoubleStorage"), "not float32|does not lie"),
    "whole numbers": (rewired(TENSORS, b"FloatStorage", b"IntStorage"), "int32"),
    "quantized": (rewired(TENSORS, b"FloatStorage", b"QInt32Storage"), "QInt32Storage, which are not read"),
    "shared numbers": (lambda good: zipped(with_tensors(good, shared)), "shares numbers with another"),
    "many parts": (changed(observation_space=pickled(PARTS)), "its features extractor takes one array"),
    "pushing": (changed(action_space=pickled(spaces.Box(-1, 1, (3,)))), "a Box space, which is not supported for DQN"),
    "other observations": (changed(observation_space=pickled(spaces.Box(-1, 1, (5,)))), "5 numbers arrive"),
    "endless observations": (changed(observation_space=pickled(spaces.MultiBinary(10**9))), "no game has"),
    "no axis": (changed(observation_space=pickled(spaces.Box(-1, 1, ()))), "without an axis"),
    "observations as text": (changed(observation_space="Box"), "something else where a space"),
    "the old torch": (
        lambda good: zipped(with_tensors(good, lambda state: {**state, FIRST: NAN}, old=True)),
        "not finite",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refused_in_one_sentence(attack: str, good: Members, tmp_path: Path) -> None:
    """A file that is not sound is refused in one sentence that names it and says what is wrong."""
    make, said = ATTACKS[attack]
    sentence = refusal(make(good), tmp_path)
    assert re.search(said, sentence), sentence


def test_the_good_one_loads(good: Members, tmp_path: Path) -> None:
    """What the attacks are made from is sound, packed or not, whatever version it says it is from."""
    path = tmp_path / "policy.zip"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path.write_bytes(zipped(good, method))
        assert load_zip(path).sb3_version == good["_stable_baselines3_version"].decode()
    for version in (b"\x1b[31m" * 3, b"9" * 500, b"\xff"):
        path.write_bytes(zipped({**good, "_stable_baselines3_version": version}))
        assert load_zip(path).sb3_version is None


def test_what_is_no_file(tmp_path: Path) -> None:
    """A file that is not there, a folder and a device are refused by name."""
    with pytest.raises(ValueError, match="no such.zip cannot be loaded: there is no such file"):
        load_zip(tmp_path / "no such.zip")
    with pytest.raises(ValueError, match="it is not a file"):
        load_zip(tmp_path)
    with pytest.raises(ValueError, match="it is not a file"):
        load_zip(Path("/dev/zero"))
    with pytest.raises(ValueError, match="other.pkl cannot be loaded: there is no such file"):
        load_zip(tmp_path, tmp_path / "other.pkl")


def with_statistics(folder: Path) -> Path:
    """A folder with a policy and the statistics beside it."""
    folder.mkdir()
    push = spaces.Box(-1, 1, (2,), np.float32)
    fresh("PPO", SEEN, push, policy_kwargs={"net_arch": [5], "activation_fn": torch.nn.Tanh}).save(folder / "ppo.zip")
    normalize = VecNormalize(DummyVecEnv([lambda: Silent(SEEN, push)]))
    normalize.obs_rms.mean += 0.1
    normalize.save(str(folder / "ppo.vecnormalize.pkl"))
    return folder


def test_every_field(tmp_path: Path) -> None:
    """Whatever of 51 payloads stands in whichever field: no code runs, nothing is opened, memory stays within its
    limit, and what is read is refused in a sentence or acts as the sound policy."""
    folder = with_statistics(tmp_path / "policies")
    report = watched(tmp_path, str(ROOT / "tests" / "payloads.py"), str(folder), "11")
    assert report["findings"] == []
    assert report["refused"] > 300 and report["loaded"] > 100


@pytest.mark.night
def test_every_field_of_several_policies(tmp_path: Path) -> None:
    """The same with every payload within every field, of every kind of policy."""
    folder = with_statistics(tmp_path / "policies")
    fresh("DQN", SEEN, spaces.Discrete(3), policy_kwargs={"net_arch": [8]}).save(folder / "dqn.zip")
    push = spaces.Box(-1, 1, (2,), np.float32)
    fresh("TQC", SEEN, push, policy_kwargs={"net_arch": [8]}, use_sde=True).save(folder / "tqc.zip")
    seen = spaces.Dict(a=SEEN, b=spaces.Discrete(3))
    fresh("A2C", seen, spaces.MultiDiscrete([2, 3]), "MultiInputPolicy").save(folder / "dict.zip")
    report = watched(tmp_path, str(ROOT / "tests" / "payloads.py"), str(folder), "1")
    assert report["findings"] == [] and report["refused"] > 5000
