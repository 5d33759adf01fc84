"""When pictures of play are drawn, what they show, and that they change nothing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.cli import pictures
from agent.cli.pictures import EVERY_S, FEWEST, LAST_AFTER_S, LEAST_S, MOST, SHARE, Pictures
from agent.cli.settings import load_settings
from agent.telemetry.images import Picture


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def still(observation: np.ndarray) -> np.ndarray:
    """A policy that always takes action 0."""
    return np.zeros(len(observation), np.int64)


def drawn(game: str, clock: Clock, say: Any = print) -> Pictures:
    return Pictures(game, load_settings(game), say, clock=clock)


def test_pictures_come_rarely_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before they are worth their share, then not for ten minutes and while they are not paid; once at the end."""
    clock = Clock()
    made = drawn("minatar/breakout", clock)
    calls = []

    def costly(*given: Any) -> dict[str, Picture]:
        calls.append(clock.now)
        clock.now += 5.0
        return {"play/greedy_episode": Picture(b"", 1, 1)}

    monkeypatch.setattr(made, "_draw", costly)
    spent = []
    for second in range(20_000):
        clock.now = max(clock.now, float(second))
        made.draw(second, still, None)
        spent.append(5.0 * len(calls) / clock.now if clock.now else 0.0)
    assert calls[0] == pytest.approx(LEAST_S / SHARE, abs=1)
    assert min(np.diff(calls)) >= EVERY_S and max(spent[2_600:]) <= 1.001 * SHARE
    many = len(calls)
    assert made.draw(20_001, still, None, last=True) and len(calls) == many + 1
    assert made.draw(20_001, still, None, last=True) == {}  # these were drawn already
    early = drawn("minatar/breakout", clock)
    clock.now += LAST_AFTER_S - 1
    assert early.draw(1, still, None, last=True) == {}
    clock.now += 1
    assert set(early.draw(1, still, None, last=True)) == {"play/greedy_episode"}


@pytest.mark.parametrize("game", ["minatar/breakout", "cartpole", "gym:Pendulum-v1"])
def test_a_picture_of_each_kind_of_game(game: str) -> None:
    """An animation of the same game every time; a saliency where observations are pictures and there are values."""
    made = drawn(game, Clock())

    def act(observation: np.ndarray) -> np.ndarray:
        return np.zeros((len(observation), 1), np.float32) if game == "gym:Pendulum-v1" else still(observation)

    def q(observation: np.ndarray) -> np.ndarray:
        return np.repeat(observation.reshape(len(observation), -1).sum(1, keepdims=True), 6, axis=1).astype(float)

    one, other = (made._draw(act, None if game == "gym:Pendulum-v1" else q, -1.0) for _ in range(2))
    assert one["play/greedy_episode"] == other["play/greedy_episode"]
    image = Image.open(io.BytesIO(one["play/greedy_episode"].data))
    assert 1 < image.n_frames <= FEWEST  # frames that are equal are kept once
    assert ("play/saliency" in one) == (game == "minatar/breakout")


def test_the_saliency_is_of_a_picture_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """With time left an animation is longer, and the still is neither its beginning nor its end."""
    asked: list[int] = []
    steps = 0

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal steps
        steps += 1
        return still(observation)

    def q(observation: np.ndarray) -> np.ndarray:
        asked.append(len(observation))
        return np.zeros((len(observation), 6))

    monkeypatch.setattr(pictures, "PER_S", 1_000.0)
    found = drawn("atari/pong", Clock())._draw(act, q, 1.0)
    assert asked == [1, 100] and steps == MOST and found["play/saliency"].data.startswith(b"\x89PNG")


def test_a_game_that_cannot_be_drawn_costs_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever drawing raises, the run goes on without pictures, is told once and does not try again."""
    clock, said = Clock(), []
    made = drawn("minatar/breakout", clock, said.append)

    def refuse(*given: Any, **options: Any) -> None:
        raise ImportError("no pygame here\nand a second line")

    monkeypatch.setattr(pictures, "Shown", refuse)
    for step in range(3):
        clock.now += 10_000.0
        assert made.draw(step, still, None) == {}
    assert said == ["no pictures of minatar/breakout on the dashboard: ImportError: no pygame here"]
