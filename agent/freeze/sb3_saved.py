"""What a zip of stable-baselines3 says of its policy, read without unpickling: class, spaces, settings, tensors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from agent.freeze.archive import Archive
from agent.freeze.folding import ACTIVATIONS
from agent.freeze.sb3_layers import Extractor, Kind
from agent.freeze.spaces import Space, as_space
from agent.freeze.symbols import Made, Name, Node, as_integers, as_number, read_whole
from agent.freeze.tensors import read_tensors

MEMBERS = re.compile(
    r"data|policy\.pth|((policy|actor|critic)\.optimizer|ent_coef_optimizer|pytorch_variables|tensors)\.pth"
    r"|_stable_baselines3_version|system_info\.txt"
)
MOST_JSON = 8 << 20  # bytes, and two fifths of the file: as text, as values and as symbols it is held several times
MOST_JSON_PARTS = 100_000  # brackets and commas; base64 has none
MOST_LAYERS, WIDEST = 100, 2**31  # that a setting may name
SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
FLATTEN, NATURE, COMBINED = (
    Name(f"{SB3}.common.torch_layers", name) for name in ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
)
EXTRACTORS: dict[Name, Extractor] = {
    FLATTEN: "flatten",
    NATURE: "nature",
    COMBINED: "combined",
    Name("agent.sb3.extractors", "SmallGrid"): "small grid",  # of our own launcher's runs
}


@dataclass(frozen=True)
class PolicyClass:
    """A policy class of stable-baselines3 or sb3-contrib."""

    algo: str
    kind: Kind
    extractor: Name
    activation: type[nn.Module]


def _three(
    algo: str, kind: Kind, module: str, mlp: str, activation: type[nn.Module] = nn.ReLU, others: str = ""
) -> dict[Name, PolicyClass]:
    return {
        Name(module, mlp): PolicyClass(algo, kind, FLATTEN, activation),
        Name(module, f"{others}CnnPolicy"): PolicyClass(algo, kind, NATURE, activation),
        Name(module, f"MultiInput{others}Policy"): PolicyClass(algo, kind, COMBINED, activation),
    }


# Defaults have been the same since 1.0.
CLASSES = {
    **_three("PPO", "actor critic", f"{SB3}.common.policies", "ActorCriticPolicy", nn.Tanh, "ActorCritic"),
    **_three("DQN", "action values", f"{SB3}.dqn.policies", "DQNPolicy"),
    **_three("QR-DQN", "quantiles", f"{CONTRIB}.qrdqn.policies", "QRDQNPolicy"),
    **_three("SAC", "squashed actor", f"{SB3}.sac.policies", "SACPolicy"),
    **_three("TQC", "squashed actor", f"{CONTRIB}.tqc.policies", "TQCPolicy"),
    **_three("TD3", "deterministic actor", f"{SB3}.td3.policies", "TD3Policy"),
}
# What can act besides what can be frozen; all of them without parameters.
ALSO_PLAYED = (nn.GELU, nn.SELU, nn.CELU, nn.Softplus, nn.Mish, nn.Hardswish, nn.ReLU6, nn.Softsign, nn.Hardtanh)
CLIP_MEAN, QUANTILES = 2.0, 200
FEATURES: dict[Extractor, int] = {"flatten": 0, "nature": 512, "small grid": 128, "combined": 256}
WHY_NOT = {
    r"Recurrent|Lstm": "it is recurrent, and what it remembers is not supported",
    r"Maskable": "it plays with masked actions, which nobody tells it of here",
}
KWARGS = {
    *("net_arch", "activation_fn", "features_extractor_class", "features_extractor_kwargs", "normalize_images"),
    *("share_features_extractor", "ortho_init", "use_sde", "log_std_init", "full_std", "use_expln", "squash_output"),
    *("clip_mean", "sde_net_arch", "n_critics", "n_quantiles", "optimizer_class", "optimizer_kwargs", "device"),
}


@dataclass(frozen=True, eq=False)
class Saved:
    """A policy as its file describes it; only the tensors are to be believed about sizes."""

    algo: str
    kind: Kind
    observations: Space
    actions: Space
    tensors: dict[str, np.ndarray]
    activation: type[nn.Module]
    extractor: Extractor
    normalize_images: bool  # pictures are divided by 255
    squash_output: bool  # of an actor critic
    clip_mean: float  # of state-dependent noise
    widths: list[int] | None  # of the hidden layers, where the file says them
    features: int  # that leave an extractor of convolutions, as the file says
    quantiles: int
    was_normalized: bool | None  # VecNormalize stood before it in training; None when the file cannot tell
    version: str | None  # of stable-baselines3


def read_saved(content: bytes) -> Saved:
    """Return what the zip says; ValueError for a class or setting that is not supported, and for what is not sound."""
    archive = Archive(content, MEMBERS, packed=True)
    data = _data(archive)
    policy = _policy_class(_field(data, "policy_class"))
    kwargs = _kwargs(data)
    with _within("policy.pth"):
        tensors = read_tensors(archive.read("policy.pth"))
    squash = _flag(kwargs, "squash_output", False)
    if squash and policy.kind == "actor critic" and data.get("use_sde") is not True:
        raise ValueError("its actions are squashed without state-dependent noise, which no version does.")
    clip_mean = float(as_number(kwargs.get("clip_mean", CLIP_MEAN)))
    if "actor.mu.0.weight" in tensors and policy.kind == "squashed actor" and not 0 < clip_mean < 1e6:
        raise ValueError(f"its clip_mean of {clip_mean} is no limit, but its tensors are named as with one.")
    extractor = _extractor(kwargs, policy)
    extras = kwargs.get("features_extractor_kwargs") or {}
    width = "cnn_output_dim" if extractor == "combined" else "features_dim"
    if not isinstance(extras, dict):
        raise ValueError("its features_extractor_kwargs are no dictionary.")
    return Saved(
        algo=_algo(data, policy, tensors),
        kind=policy.kind,
        observations=_space(data, "observation_space"),
        actions=_space(data, "action_space"),
        tensors=tensors,
        activation=_activation(kwargs, policy),
        extractor=extractor,
        normalize_images=_flag(kwargs, "normalize_images", True),
        squash_output=squash,
        clip_mean=clip_mean,
        widths=_widths(kwargs.get("net_arch")),
        features=_whole(extras.get(width, FEATURES[extractor])),
        quantiles=_whole(kwargs.get("n_quantiles", QUANTILES)),
        was_normalized=data.get("_last_original_obs") is not None if policy.kind == "actor critic" else None,
        version=_version(archive),
    )


def _data(archive: Archive) -> dict[str, Any]:
    content = bytes(archive.read("data", most=MOST_JSON + len(archive.data) * 2 // 5))
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MOST_JSON_PARTS:
        raise ValueError("its data are too many to be those of a policy.")
    if not content.isascii():  # one wide letter makes the whole text four times as large
        raise ValueError("its data are not JSON as stable-baselines3 writes it.")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("its data are not JSON.") from None
    if not isinstance(data, dict):
        raise ValueError("its data are not those of a policy.")
    return data


def _field(data: dict[str, Any], name: str) -> Node:
    """Return what a field says: plain, or as the symbols of the pickle in it."""
    if name not in data:
        raise ValueError(f"its data say nothing of {name}.")
    value = data[name]
    if not (isinstance(value, dict) and ":serialized:" in value):
        return value
    try:
        content = base64.b64decode(value[":serialized:"], validate=True)
    except (ValueError, TypeError):
        raise ValueError(f"its field {name!r} is not encoded as stable-baselines3 does it.") from None
    with _within(name):
        return read_whole(content)


def _space(data: dict[str, Any], name: str) -> Space:
    node = _field(data, name)
    with _within(name):
        return as_space(node)


@contextmanager
def _within(name: str) -> Iterator[None]:
    """A refusal says in which part of the file the fault lies."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _version(archive: Archive) -> str | None:
    if "_stable_baselines3_version" not in archive:
        return None
    version = bytes(archive.read("_stable_baselines3_version", most=1024)).decode("ascii", "replace").strip()
    return version if re.fullmatch(r"[\w.+-]{1,40}", version, re.ASCII) else None


def _policy_class(node: Node) -> PolicyClass:
    if isinstance(node, Name) and node in CLASSES:
        return CLASSES[node]
    if isinstance(node, Made) and len(node.args) > 1 and isinstance(node.args[1], str):
        node = Name("__main__", node.args[1])  # a class that was pickled with its code
    if not isinstance(node, Name):
        raise ValueError("its policy_class is no class.")
    name = str(node)
    for pattern, why in WHY_NOT.items():
        if re.search(pattern, name):
            raise ValueError(f"its policy is {name}: {why}.")
    raise ValueError(
        f"its policy is {name}, a class of its own: only MlpPolicy, CnnPolicy and MultiInputPolicy of DQN, QR-DQN, "
        "PPO, A2C, SAC, TD3, TQC and DDPG are supported."
    )


def _algo(data: dict[str, Any], policy: PolicyClass, tensors: dict[str, np.ndarray]) -> str:
    """Policy classes are shared: the rest is told by what only one algorithm has."""
    if policy.algo == "PPO":
        return "TRPO" if "cg_max_steps" in data else "PPO" if "clip_range" in data else "A2C"
    if policy.algo == "TD3" and not any(name.startswith("critic.qf1.") for name in tensors):
        return "DDPG"
    return policy.algo


def _kwargs(data: dict[str, Any]) -> dict[str, Node]:
    kwargs = _field(data, "policy_kwargs") if data.get("policy_kwargs") is not None else {}
    if not isinstance(kwargs, dict):
        raise ValueError("its policy_kwargs are no dictionary.")
    for key in kwargs:
        if key not in KWARGS:
            raise ValueError(f"its policy_kwargs have {ascii(key)[:80]}, which no supported policy class takes.")
    return kwargs


def _flag(kwargs: dict[str, Node], name: str, default: bool) -> bool:
    flag = kwargs.get(name, default)
    if not isinstance(flag, bool):
        raise ValueError(f"its {name} is neither true nor false.")
    return flag


def _whole(node: Node) -> int:
    return as_integers([node])[0]


def _widths(arch: Node) -> list[int] | None:
    """Return the hidden layers of the acting network; before 1.8 the last of some shared ones could be a dictionary."""
    if arch is None:
        return None
    widths: list[int] = []
    for part in arch if isinstance(arch, list | tuple) else [arch]:
        widths += as_integers(part.get("pi", []) if isinstance(part, dict) else [part])
        if len(widths) > MOST_LAYERS or max(widths, default=0) >= WIDEST:
            raise ValueError("its net_arch says more or wider layers than any policy has.")
    return widths


def _extractor(kwargs: dict[str, Node], policy: PolicyClass) -> Extractor:
    extractor = kwargs.get("features_extractor_class", policy.extractor)
    if not isinstance(extractor, Name) or extractor not in EXTRACTORS:
        name = extractor if isinstance(extractor, Name) else "a class of its own"
        raise ValueError(
            f"its features extractor is {name}: only FlattenExtractor, NatureCNN and CombinedExtractor are supported."
        )
    return EXTRACTORS[extractor]


def _activation(kwargs: dict[str, Node], policy: PolicyClass) -> type[nn.Module]:
    name = kwargs.get("activation_fn", Name("torch.nn.modules.activation", policy.activation.__name__))
    supported = (*ACTIVATIONS, *ALSO_PLAYED)
    for kind in supported:
        if isinstance(name, Name) and name == Name("torch.nn.modules.activation", kind.__name__):
            return kind
    known = ", ".join(kind.__name__ for kind in supported)
    what = name if isinstance(name, Name) else "no class"
    raise ValueError(f"its activation is {what}: only {known} of torch.nn are supported.")
