"""What every test shares: one thread per process, no window, hypothesis without a clock, --fast and --night."""

from __future__ import annotations

import os
import signal

# Before torch and pygame are imported here or in a child: the suite is sized for two cores and needs no screen.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `icebox` has it: on a busy machine waiting threads else spin
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

# A shell that starts the suite in the background lets it ignore Ctrl-C, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

# Speed is never asserted: a busy machine must not turn a property red.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two ways to choose by length, so that no test asks for itself how long it may take."""
    group = parser.getgroup("length")
    group.addoption("--fast", action="store_true", help="leave out the tests marked slow or night")
    group.addoption("--night", action="store_true", help="run the tests marked night, minutes to hours, and no others")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts: one for each core, however few of them xdist takes for real."""
    return min(os.cpu_count() or 1, 8)


def pytest_configure(config: pytest.Config) -> None:
    """Turn --fast and --night into what -m says, together with an -m of the caller's own."""
    given = [f"({config.option.markexpr})"] if config.option.markexpr else []
    if config.option.fast and config.option.night:
        raise pytest.UsageError("--fast and --night exclude each other")
    if config.option.fast:
        config.option.markexpr = " and ".join([*given, "not slow and not night"])
    elif config.option.night:
        config.option.markexpr = " and ".join([*given, "night"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where there is no CUDA device, and `night` tests unless --night or -m names them."""
    wanted = config.getoption("-m")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "needs a CUDA device")
    if "night" not in wanted:
        _skip(items, "night", "a night test: ./icebox test --night")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))
