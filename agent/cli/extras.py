"""The optional parts of the installation: which module each brings and how to get it."""

from importlib.util import find_spec

EXTRAS = {"atari": "ale_py", "minatar": "minatar"}  # extra of icebox-rl -> the module it brings


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported; it is not imported."""
    return find_spec(module) is not None


def remedy(extra: str) -> str:
    """The command that installs what an extra brings; this project itself is on no index, so its name is not in it."""
    return f"pip install {EXTRAS[extra].replace('_', '-')}"
