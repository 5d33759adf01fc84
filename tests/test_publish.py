"""Tests of agent/viewer/publish.py: what is published is what happened, and what goes wrong costs the viewer alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.nets.q_network import make_q_network
from agent.config import NetworkSettings
from agent.telemetry.rates import Rates
from agent.types import Tick
from agent.viewer import publish
from agent.viewer.live_reader import LiveReader
from agent.viewer.publish import Publisher, flat_weights, put_weights
from agent.viewer.slot import unpack
from envs.fakes import CountingGame
from envs.scenes import Scene

DISCOUNT = 0.9
ACTIONS = 3


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def values_of(observation: np.ndarray) -> np.ndarray:
    """Some values, f32 [B, A], that differ for every observation."""
    return np.sin(observation.astype(np.float32) @ np.array([[1, 2, 3], [5, 1, 2], [1, 4, 1]], np.float32))


class Run:
    """Three counting games, what is published of them, and all that happened, for a slow and obvious answer."""

    def __init__(self, folder: Path, *, early: bool = False, reward_clip: float | None = None, **more: Any):
        self.clock, self.early = Clock(), early
        self.games = CountingGame(3, action_names=("a", "b", "c"), end_probability=0.25)
        self.games.reset(3)
        self.generator = np.random.default_rng(0)
        self.warned: list[str] = []
        self.network = torch.nn.Linear(2, 2)
        given = {"scene": self.games.scene, "network": self.network, "figures": lambda: {"epsilon": 0.5}} | more
        self.publisher = Publisher(
            folder / "live",
            Rates(clock=self.clock),
            (0, 0),
            10_000,
            discount=lambda steps: DISCOUNT,
            reward_clip=reward_clip,
            warn=self.warned.append,
            clock=self.clock,
            **given,
        )
        self.folder = folder / "live"
        self.steps: list[Any] = [self.games.current]
        self.actions: list[np.ndarray] = []
        self.asked: list[bool] = []  # of each step, whether the network was
        self.published: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = []
        if self.publisher._now is not None:
            write = self.publisher._now.write
            self.publisher._now.write = lambda *parts: (self.published.append(unpack(b"".join(parts))), write(*parts))

    def sign(self) -> None:
        """What a viewer leaves once a second."""
        (self.folder / "watched").write_text("")
        os.utime(self.folder / "watched", (self.clock.now, self.clock.now))

    def tick(self, seconds: float = 1.0, ask: float = 0.8) -> None:
        """Play one step and publish it."""
        step = self.games.current
        action = self.generator.integers(ACTIONS, size=3)
        if not self.asked:
            self.asked.append(True)
        self.games.send(action)
        after = self.games.recv()
        self.actions.append(action)
        self.steps.append(after)
        self.asked.append(bool(self.generator.random() < ask))
        which = -1 if self.early else -2
        shown = (after if self.early else step).observation
        thought = (shown, torch.from_numpy(values_of(shown))) if self.asked[which] else None
        self.clock.now += seconds
        count = len(self.actions)
        self.publisher.tick(Tick(3 * count, count, after, action, 0.2, 0.3, 0.1, 0.2), thought)

    def expected(self, at: int) -> dict[str, Any]:
        """What must be told of game 0 at its step `at`, from all that happened."""
        step, value = self.steps[at], {key: None for key in ("action", "q", "td_error", "reward")}
        ended = bool(step.terminated[0] or step.truncated[0])
        firsts = [number for number in range(at + 1) if self.steps[number].first[0]]
        began = firsts[-1] if firsts else 0
        score = float(sum(self.steps[number].reward[0] for number in range(began + 1, at + 1)))
        about = {"episode": len([n for n in firsts if n]), "step": at - began, "score": score, "ended": ended}
        if not ended:
            following = self.steps[at + 1]
            value["action"], value["reward"] = int(self.actions[at][0]), float(following.reward[0])
            if self.asked[at]:
                q = values_of(step.observation)[0]
                value["q"] = q.tolist()
                if following.terminated[0]:
                    value["td_error"] = value["reward"] - float(q[value["action"]])
                elif self.asked[at + 1]:
                    best = float(values_of(following.observation)[0].max())
                    value["td_error"] = value["reward"] + DISCOUNT * best - float(q[value["action"]])
        return about | value


@pytest.mark.parametrize("early", [False, True])
def test_pictures_tell_what_happened(early: bool, tmp_path: Path) -> None:
    """Picture, values, action, reward and TD error of every moment are those of that moment, over ends and gaps.

    `early`: the actor answers before the tick, as by the wall clock.
    """
    run = Run(tmp_path, early=early)
    for _ in range(400):
        run.sign()
        run.tick()
    pictures = {meta["picture"]: (meta, arrays) for meta, arrays in run.published if meta["scene"] is not None}
    assert len(pictures) >= 390
    moments = {(int(step.observation[0, 1]), int(step.observation[0, 2])): at for at, step in enumerate(run.steps)}
    seen = {"td": 0, "terminated": 0, "truncated": 0, "first": 0, "blind": 0}
    for meta, arrays in pictures.values():
        _, _, episode_high, episode_low, time_high, time_low = arrays["picture"][:, :, 0].flat[:6].tolist()
        at = moments[episode_high * 256 + episode_low, time_high * 256 + time_low]
        wanted = run.expected(at)
        for key, value in wanted.items():
            assert meta[key] == (value if not isinstance(value, float | list) else pytest.approx(value, abs=1e-5)), key
        seen["td"] += wanted["td_error"] is not None
        seen["blind"] += wanted["q"] is None and not wanted["ended"]
        seen["first"] += bool(run.steps[at].first[0])
        if wanted["td_error"] is not None:
            seen["terminated"] += bool(run.steps[at + 1].terminated[0])
            seen["truncated"] += bool(run.steps[at + 1].truncated[0])
    assert min(seen.values()) > 10 and run.warned == []


def test_a_td_error_is_of_the_clipped_reward(tmp_path: Path) -> None:
    """The reward told is the raw one; the error is of what is learned from."""
    run = Run(tmp_path, reward_clip=0.01)
    for _ in range(100):
        run.sign()
        run.tick(ask=1.0)
    told = [meta for meta, _ in run.published if meta["td_error"] is not None and meta["reward"] > 0.02]
    assert len(told) > 10
    at = {(m["episode"], m["step"]): m for m in told}
    for number, step in enumerate(run.steps[:-1]):
        meta = at.get((int(step.observation[0, 1]), int(step.observation[0, 2])))
        if meta is not None:
            wanted = run.expected(number)
            assert meta["reward"] == pytest.approx(wanted["reward"])
            assert meta["td_error"] == pytest.approx(wanted["td_error"] - wanted["reward"] + 0.01, abs=1e-5)


def test_figures_go_out_once_a_second(tmp_path: Path) -> None:
    """While watched about once a second, with the rates since then; unwatched rarely, without picture and weights."""
    run = Run(tmp_path)
    live = LiveReader(tmp_path)
    for _ in range(1500):
        run.tick(seconds=0.01)
    assert len(run.published) == 2
    meta, arrays = live.read()
    assert live.read() is None and live.weights() is None
    assert meta["scene"] is None and arrays == {} and meta["q"] is None and meta["mode"] == "training"
    assert meta["total_steps"] == 10_000 and meta["epsilon"] == 0.5
    count, begun = len(run.published), run.clock.now
    run.sign()
    while live.read() is None:
        run.tick(seconds=0.01)
    assert run.clock.now - begun <= publish.LOOK_S + 0.02, "who looks waits for the figures of nobody"
    figures = set()
    for _ in range(1000):
        run.sign()
        run.tick(seconds=0.01)
        meta = run.published[-1][0]
        figures.add((meta["steps_per_s"], meta["updates_per_s"]))
    assert len(run.published) > count + 100  # pictures as well
    figures.discard((0.0, 0.0))  # the first had no tick to count
    assert figures and all(pair == pytest.approx((300.0, 100.0), rel=1e-3) for pair in figures)
    assert meta["eta_s"] == pytest.approx(max(0, 10_000 - meta["steps"]) / 300, abs=1.1)
    assert sum(meta["shares"].values()) == pytest.approx(1.0) and meta["memory_gib"] > 0.01


def test_nobody_is_shown_pictures_three_seconds_after_the_last_sign(tmp_path: Path) -> None:
    """A sign is good for 3 s; one that an earlier viewer left is none."""
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "watched").write_text("")
    run = Run(tmp_path)
    for _ in range(30):
        run.tick(seconds=0.1)
    assert all(meta["scene"] is None for meta, _ in run.published)
    run.sign()
    begun = run.clock.now
    shown = []
    for _ in range(80):
        before = len(run.published)
        run.tick(seconds=0.1)
        shown += [run.clock.now - begun for meta, _ in run.published[before:] if meta["scene"] is not None]
    assert 0.1 < min(shown) < 0.7 and 2.5 < max(shown) <= 4.5
    assert run.published[-1][0]["scene"] is None and run.published[-1][1] == {}


def test_pictures_are_at_most_30_per_second_and_cheap(tmp_path: Path) -> None:
    """Cheap pictures come 30 times a second; dear ones so rarely that they take less than 0.7% of the time."""
    spent = [0.0]

    def scene() -> Scene:
        run.clock.now += spent[0]
        return Scene("picture", {}, {"picture": np.zeros((2, 2, 3), np.uint8)})

    run = Run(tmp_path, scene=scene)
    for cost_s, tick_s, window_s, least, most in (
        *((0.0, 0.01, 5.0, 24, 31), (0.001, 0.02, 10.0, 5.0, 6.5), (0.01, 0.2, 60.0, 0.4, 0.7)),
    ):
        spent[0] = cost_s
        run.publisher._costs_s.clear()
        for settling in (True, False):
            first, begun = run.publisher._pictures, run.clock.now
            while run.clock.now - begun < window_s:
                run.sign()
                run.tick(seconds=tick_s)
            rate = (run.publisher._pictures - first) / (run.clock.now - begun)
        assert least <= rate <= most and rate * cost_s < 0.007


def test_games_that_are_started_anew_begin_an_episode(tmp_path: Path) -> None:
    """Nothing is told about a moment that no step followed, and the score begins at zero."""
    run = Run(tmp_path)
    for number in range(60):
        run.sign()
        run.tick(ask=1.0)
        if number % 10 == 9:
            run.games.reset(number)
            run.publisher.restarted()
            before = run.publisher._episode
            assert run.publisher._pending == []
            run.sign()
            run.tick(ask=1.0)
            run.tick(ask=1.0)
            assert run.publisher._episode in (before, before + 1)
    scores = [(meta["step"], meta["score"]) for meta, _ in run.published if meta["scene"] is not None]
    assert any(step == 1 for step, _ in scores)
    for meta, arrays in run.published:
        if meta["scene"] is not None and meta["step"]:
            assert arrays["picture"][:, :, 0].flat[5] == meta["step"]


def test_a_paused_run_can_be_seen(tmp_path: Path) -> None:
    """Without a tick figures go on, in the mode that holds, and who comes then sees where it stands."""
    run = Run(tmp_path)
    for _ in range(5):
        run.tick()
    run.publisher.switch("paused")
    run.publisher.acknowledge(7, True, "paused")
    assert run.published[-1][0]["acknowledged"] == {"id": 7, "ok": True, "said": "paused"}
    count = len(run.published)
    for number in range(100):
        run.clock.now += 0.05
        if number == 50:
            run.sign()
        run.publisher.breathe()
    meta, arrays = run.published[-1]
    assert 3 <= len(run.published) - count <= 5
    assert meta["mode"] == "paused" and meta["steps_per_s"] == 0.0 and meta["eta_s"] is None
    assert arrays["picture"].shape == (8, 8, 3) and meta["q"] is None and meta["score"] == run.publisher._score


def test_weights_follow_the_updates(tmp_path: Path) -> None:
    """While watched they go out at most once a second, when there are newer ones, and are the network's."""
    run, taken = Run(tmp_path), []
    live = LiveReader(tmp_path)
    for _ in range(500):
        run.sign()
        with torch.no_grad():
            run.network.weight += 1.0
        run.tick(seconds=0.01)
        if (found := live.weights()) is not None:
            taken.append(found[0]["updates"])
            assert np.array_equal(found[1], flat_weights(run.network))
            assert found[0]["steps"] == 3 * found[0]["updates"] == 3 * len(run.actions)
    assert 4 <= len(taken) <= 6 and taken == sorted(set(taken))


@pytest.mark.parametrize("changes", [{}, {"torso": "impala", "spectral_norm": True, "width": 1}])
def test_weights_put_into_another_network_make_it_the_same(changes: dict[str, Any]) -> None:
    """Flat weights give another network of that kind the same values for any observation; other sizes are refused."""
    shape = (4, 84, 84) if changes else (4,)
    chosen = NetworkSettings(hidden=(8,), **changes)
    one, two = (make_q_network(chosen, shape, bool(changes), 3, torch.Generator().manual_seed(n)) for n in (0, 1))
    observation = torch.randint(0, 255, (2, *shape), dtype=torch.uint8) if changes else torch.randn(2, *shape)
    with torch.inference_mode():
        assert not torch.equal(one(observation), two(observation))
    put_weights(two, flat_weights(one))
    one.fold()
    with torch.inference_mode():
        assert torch.equal(one(observation), two(observation))
    with pytest.raises(ValueError, match="of another network: 3 numbers, this one has"):
        put_weights(two, np.zeros(3, np.float32))


def test_a_full_disk_costs_the_viewer_and_says_so_once(tmp_path: Path) -> None:
    """When nothing can be published any more, that is said once, the files are gone, and ticks go on without effect."""
    run = Run(tmp_path)

    def full(*parts: bytes) -> None:
        raise OSError(28, "No space left on device")

    run.tick()
    run.publisher._now.write = full
    for _ in range(20):
        run.sign()
        run.tick()
        run.publisher.breathe()
        run.publisher.acknowledge(1, True, "done")
    assert len(run.warned) == 1
    assert "Nobody can look at this run any more, training goes on: [Errno 28] No space" in run.warned[0]
    assert not (run.folder / "now.slot").exists()


def test_a_folder_that_cannot_be_made_costs_the_viewer(tmp_path: Path) -> None:
    """A file where the folder should be is said once, and the run ticks on."""
    (tmp_path / "live").write_text("in the way")
    run = Run(tmp_path)
    for _ in range(5):
        run.tick()
    run.publisher.close()
    assert len(run.warned) == 1 and "training goes on" in run.warned[0]


def test_a_game_that_cannot_be_drawn_costs_the_picture(tmp_path: Path) -> None:
    """Values and figures go on without a picture; why is said once."""

    def scene() -> Scene:
        raise RuntimeError("no display")

    run = Run(tmp_path, scene=scene)
    for _ in range(50):
        run.sign()
        run.tick(ask=1.0)
    assert run.warned == ["Game 0 of this run cannot be shown, its figures can: no display"]
    assert all(meta["scene"] is None for meta, _ in run.published)
    assert sum(meta["q"] is not None for meta, _ in run.published) > 20


def test_numbers_that_are_not_finite_are_told_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has diverged is shown with nothing in place of its values, as JSON has no infinity."""
    import test_publish

    monkeypatch.setattr(test_publish, "values_of", lambda seen: np.full((3, ACTIONS), np.nan, np.float32))
    run = test_publish.Run(tmp_path)
    for _ in range(20):
        run.sign()
        run.tick(ask=1.0)
    told = [meta for meta, _ in run.published if meta["q"] is not None]
    assert told and all(meta["q"] == [None] * 3 and meta["td_error"] is None for meta in told) and run.warned == []
    assert publish.PICTURES_SHARE + publish.WEIGHTS_SHARE <= 0.007, "a watching client may cost 2%"
