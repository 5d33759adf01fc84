"""The policy at play, as pictures for the dashboard: an episode's beginning, and what one of its decisions hung on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from agent.cli.session import Act, family_settings
from agent.config import Settings
from agent.explain.saliency import perturbation
from agent.seeding import seed_for
from agent.telemetry.images import Picture, frame, gif, overlaid, png
from envs.shown import Shown

Values = Callable[[np.ndarray], np.ndarray]  # observations [N, *shape] -> action values [N, A]

SHARE = 0.002  # most of the run's time that pictures may take
EVERY_S = 600.0  # between two of them, at least
LEAST_S = 1.0  # for which it is worth to begin: to load an emulator and draw the fewest takes about as long
LAST_AFTER_S = 20.0  # a run that took at least so long ends with pictures in any case: they delay nothing any more
PER_S = 15.0  # pictures of a second of play, about
FEWEST, MOST = 60, 200  # pictures of an animation


class Pictures:
    """Draws the policy at play as rarely, and as short, as SHARE allows; always the same game, to compare.

    A game that cannot be drawn is tried once, and `say` is told.
    """

    def __init__(
        self,
        game: str,
        settings: Settings,
        say: Callable[[str], object],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._game, self._settings, self._say, self._clock = game, settings, say, clock
        self._begun = clock()
        self._drawn_at: float | None = None
        self._drawn_steps: int | None = None
        self._spent_s = self._cost_s = 0.0  # by all so far, and by the last
        self._impossible = False

    def draw(self, steps: int, act: Act, q: Values | None, *, last: bool = False) -> dict[str, Picture]:
        """Return pictures by their tags in the dashboard, {} when it is not time; `last`: the run ends with this.

        `act` is the policy; `q` are its action values, None where it has none: then there is no saliency.
        """
        now = self._clock()
        allowed_s = SHARE * (now - self._begun) - self._spent_s
        rested = self._drawn_at is None or now - self._drawn_at >= EVERY_S
        due = now - self._begun >= LAST_AFTER_S if last else rested and allowed_s >= max(LEAST_S, self._cost_s)
        if self._impossible or not due or self._drawn_steps == steps:
            return {}
        self._drawn_at, self._drawn_steps = now, steps
        try:
            return self._draw(act, q, now + allowed_s)
        except Exception as error:  # whatever a game's drawing raises costs the pictures, not the run
            self._impossible = True
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self._say(f"no pictures of {self._game} on the dashboard: {reason:.200}")
            return {}
        finally:
            self._cost_s = self._clock() - now
            self._spent_s += self._cost_s

    def _draw(self, act: Act, q: Values | None, until: float) -> dict[str, Picture]:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # Gymnasium draws into memory; without it SDL seeks a screen
        seed = seed_for(self._settings.seed, "pictures") % 2**31
        shown = Shown(self._game, seed, **family_settings(self._settings))
        try:
            each = max(1, round(shown.spec.fps / PER_S))  # steps between two pictures
            frames: list[Image.Image] = [frame(shown.picture)]
            middle = shown.picture, shown.observation
            ended, step = False, 0
            while not ended and len(frames) < MOST and (len(frames) < FEWEST or self._clock() < until):
                _, _, terminated, truncated = shown.step(act(shown.observation)[0])
                ended, step = terminated or truncated, step + 1
                if step % each == 0 or ended:
                    frames.append(frame(shown.picture))
                    if len(frames).bit_count() == 1:  # of 2, 4, 8, ... pictures the newest: about the middle
                        middle = shown.picture, shown.observation
        finally:
            shown.close()
        found = {"play/greedy_episode": gif(frames, shown.spec.fps / each)}
        picture, observation = middle
        if q is not None and observation.ndim == 4:
            action = int(act(observation)[0])
            found["play/saliency"] = png(overlaid(picture, perturbation(q, observation, action)))
        return found
