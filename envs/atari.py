"""Atari games through ALE's C++ vector, every step of preprocessing spelled out (Machado et al. 2018).

ALE offers two ways to learn from lost lives. `episodic_life` starts the whole game anew, so that later lives are hardly
ever seen and no whole game can be scored. `life_loss_info` lets the game run but reports a lost life exactly like the
end of a game. Neither is used: we watch the number of lives ourselves (`Lives`), and whole games are what is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from envs.host import Row
from envs.scenes import Scene
from envs.score import Score
from envs.spec import GameSpec, checked_actions, game_seeds
from envs.step import Step
from envs.workers import DEADLINE_S, WorkerVector

_SIZE = 84  # side of a frame (Mnih et al. 2015)
_EMULATOR_FPS = 60.0
_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}  # ALE exits the process when they are played alone


def _ale() -> Any:
    """Return the module ale_py, or raise ValueError with the remedy."""
    try:
        import ale_py
        import ale_py.roms
        import ale_py.vector_env
    except ImportError as error:
        raise ValueError('Atari games need ale-py: pip install ale-py') from error
    return ale_py


def atari_roms() -> tuple[str, ...]:
    """Return the ROMs that ale-py bundles and one player can play, such as `space_invaders`, in order."""
    return tuple(sorted(set(_ale().roms.get_all_rom_ids()) - _TWO_PLAYERS))


def atari_spec(rom: str, *, stack: int, frame_skip: int, full_action_space: bool, **_other_settings: Any) -> GameSpec:
    """Describe an Atari game under these settings; loads its ROM to ask for the actions."""
    ale_py = _ale()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.loadROM(ale_py.roms.get_rom_path(rom))
    actions = emulator.getLegalActionSet() if full_action_space else emulator.getMinimalActionSet()
    return _spec(rom, actions, stack=stack, frame_skip=frame_skip)


def _spec(rom: str, actions: Sequence[Any], *, stack: int, frame_skip: int) -> GameSpec:
    return GameSpec(
        name=f"atari/{rom}",
        observation_shape=(stack, _SIZE, _SIZE),
        observation_dtype="uint8",
        stack=stack,
        num_actions=len(actions),
        action_names=tuple(action.name for action in actions),
        frame_skip=frame_skip,
        fps=_EMULATOR_FPS / frame_skip,
        gymnasium_id=f"ALE/{rom.title().replace('_', '')}-v5",
        pixels=True,
        solved_at=None,
    )


class AtariVector:
    """B copies of an Atari game in C++ threads, with the verbs reset, send, recv: u8 [B, stack, 84, 84].

    Keyword arguments are those of `agent.config.AtariSettings`; `threads` 0 means as many as there are cores, at most
    one per game. The emulators' state cannot be reached through the C++ vector, so there is no `state_dict`.
    """

    stateful = False

    def __init__(
        self,
        rom: str,
        num_envs: int,
        *,
        threads: int,
        sticky_actions: float,
        frame_skip: int,
        stack: int,
        noop_max: int,
        fire_reset: bool,
        life_loss_ends: bool,
        full_action_space: bool,
        max_frames: int,
    ) -> None:
        self._vector = _emulators(
            rom,
            num_envs,
            num_threads=threads,
            max_num_frames_per_episode=max_frames,
            repeat_action_probability=sticky_actions,
            full_action_space=full_action_space,
            img_height=_SIZE,
            img_width=_SIZE,
            grayscale=True,
            stack_num=stack,
            frameskip=frame_skip,
            noop_max=noop_max,
            use_fire_reset=fire_reset,
        )
        self.num_envs = num_envs
        self.spec = _spec(rom, self._vector.ale.get_action_set(), stack=stack, frame_skip=frame_skip)
        self.current: Step | None = None
        self.restarts = 0  # a C++ vector that fails ends the process; workers are replaced
        self.lives: np.ndarray | None = None  # i32 [B] with the newest step, 0 in games without lives
        self._score = Score(num_envs)
        self._lives = Lives(num_envs) if life_loss_ends else None
        self._waiting = False

    def news(self) -> list[str]:
        """Return nothing: no game is ever replaced here."""
        return []

    def reset(self, seed: int) -> Step:
        """Start every game anew from `seed`; open episodes are dropped."""
        return self.reset_games(game_seeds(seed, self.num_envs))

    def reset_games(self, seeds: Sequence[int]) -> Step:
        """Start every game anew, each from the seed that is given for it."""
        if self._waiting:
            self._vector.recv()
            self._waiting = False
        observation, info = self._vector.reset(seed=np.array(seeds))
        self.current = self._score.start(observation)
        self.lives = info["lives"]
        if self._lives:
            self._lives.start(self.lives)
        return self.current

    def send(self, action: np.ndarray) -> None:
        """Start the games on their next step without waiting. `action` is i64 [B]."""
        if self.current is None:
            raise RuntimeError("Reset the games before the first action.")
        if self._waiting:
            raise RuntimeError("Receive the step that was sent for before sending again.")
        action = checked_actions(self.spec, self.num_envs, action)
        if self._lives:
            action = np.where(self._lives.lost, 0, action)  # the action after an end is ignored: NOOP
        self._vector.send(action)
        self._waiting = True

    def recv(self) -> Step:
        """Wait for the games and return their step."""
        if not self._waiting:
            raise RuntimeError("Send actions before receiving a step.")
        self._waiting = False
        observation, reward, terminated, truncated, info = self._vector.recv()
        self.current = self._score.step(observation, reward, terminated, truncated)
        self.lives = info["lives"]
        if self._lives:
            self.current = self._end_with_lives(self.current, self.lives)
        return self.current

    def render(self, game: int = 0) -> np.ndarray:
        """Return the newest frame of one game in gray, u8 [84, 84, 3]; the C++ vector has no other picture."""
        if self.current is None:
            raise RuntimeError("Reset the games before asking for a picture.")
        return np.repeat(self.current.observation[game, -1, :, :, None], 3, axis=2)

    def scene(self, game: int = 0) -> Scene:
        """Return the newest frame of one game, ready to be shown."""
        return Scene("picture", {}, {"picture": self.render(game)})

    def close(self) -> None:
        """Free the emulators and their threads; a second call does nothing."""
        self._vector = None

    def _end_with_lives(self, step: Step, lives: np.ndarray) -> Step:
        """Return the step as the learner sees it, in which a lost life is a termination."""
        observation = step.observation
        over = self._lives.lost & self._score.ended  # the game ended under the ignored action
        if over.any():
            # The row must begin an episode, so it begins the next game at once.
            observation, info = self._vector.reset(options={"reset_mask": over})
            self.lives = lives = info["lives"]
            self._score.ended = self._score.ended & ~over
        return self._lives.mark(step._replace(observation=observation), over, lives)


class AtariHost:
    """One Atari game as a worker keeps it: a C++ vector of one; arguments are those of `AtariVector`."""

    last: Row

    def __init__(self, rom: str, **settings: Any) -> None:
        self._vector = AtariVector(rom, 1, **settings | {"threads": 1})

    def reset(self, seed: int) -> Row:
        """Begin an episode from `seed`."""
        return self._row(self._vector.reset_games([seed]))

    def step(self, action: int) -> Row:
        """Play one step; after an end, begin anew."""
        self._vector.send(np.array([action]))
        return self._row(self._vector.recv())

    def render(self) -> np.ndarray:
        """Return the newest frame in gray, u8 [84, 84, 3]."""
        return self._vector.render()

    def scene(self) -> Scene:
        """Return the newest frame, ready to be shown."""
        return self._vector.scene()

    def close(self) -> None:
        """Free the emulator."""
        self._vector.close()

    def state_dict(self) -> dict[str, Any]:
        """Raise RuntimeError: the emulator's state cannot be reached."""
        raise RuntimeError(f"{self._vector.spec.name} cannot give its state: ALE's C++ vector does not.")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError: the emulator's state cannot be reached."""
        raise ValueError(f"{self._vector.spec.name} cannot take a state: ALE's C++ vector does not.")

    def _row(self, step: Step) -> Row:
        episode = (step.episodes[0].score, step.episodes[0].length) if step.episodes else None
        ends = bool(step.terminated[0]), bool(step.truncated[0])
        self.last = Row(step.observation[0], float(step.reward[0]), *ends, bool(step.first[0]), episode)
        return self.last


def make_atari(
    rom: str, num_envs: int, *, vectorize: str = "auto", deadline_s: float = DEADLINE_S, **settings: Any
) -> AtariVector | WorkerVector:
    """Return `num_envs` copies of an Atari game: auto in C++ threads, or in workers; `settings` are `AtariVector`'s.

    Both kinds answer the same seed and actions with the same steps.
    """
    if vectorize == "workers":
        spec = atari_spec(rom, **settings)
        return WorkerVector(spec, num_envs, partial(AtariHost, rom, **settings), deadline_s=deadline_s, stateful=False)
    return AtariVector(rom, num_envs, **settings)


class AtariScreen:
    """One game's screen as a television shows it, u8 [210, 160, 3] in most games, for people to look at.

    The C++ vector gives gray or colour, so the screen is a second emulator: with the settings, the seed and the actions
    of an AtariVector of one game it plays the same game, sticky actions included. Keyword arguments are that vector's.
    """

    def __init__(
        self,
        rom: str,
        *,
        sticky_actions: float,
        frame_skip: int,
        noop_max: int,
        fire_reset: bool,
        full_action_space: bool,
        max_frames: int,
        **_other_settings: Any,
    ) -> None:
        ale_py = _ale()
        emulator = ale_py.ALEInterface()
        emulator.loadROM(ale_py.roms.get_rom_path(rom))
        height, width = emulator.getScreenDims()
        self._vector = _emulators(
            rom,
            1,
            num_threads=1,
            max_num_frames_per_episode=max_frames,
            repeat_action_probability=sticky_actions,
            full_action_space=full_action_space,
            img_height=height,
            img_width=width,
            grayscale=False,
            stack_num=1,
            frameskip=frame_skip,
            noop_max=noop_max,
            use_fire_reset=fire_reset,
        )

    def reset(self, seed: int) -> np.ndarray:
        """Begin the game that a vector begins from `seed`, and return its picture."""
        return self._vector.reset(seed=np.array(game_seeds(seed, 1)))[0][0, 0]

    def step(self, action: np.ndarray) -> np.ndarray:
        """Play one step, i64 [1], and return its picture."""
        return self._vector.step(action)[0][0, 0]

    def close(self) -> None:
        """Free the emulator and its thread; a second call does nothing."""
        self._vector = None


def _emulators(rom: str, num_envs: int, *, noop_max: int, **options: Any) -> Any:
    """Return ALE's C++ vector with what is common to all of ours: nothing clipped, whole games, frames pooled."""
    return _ale().vector_env.AtariVectorEnv(
        rom,
        num_envs,
        batch_size=0,
        thread_affinity_offset=-1,
        continuous=False,
        autoreset_mode="NextStep",
        maxpool=True,
        noop_max=noop_max + 1 if noop_max else 0,  # ALE draws from 0 .. noop_max - 1
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        **options,
    )


class Lives:
    """Ends an episode for learning where a life is lost, in games that run on.

    The step after a lost life plays NOOP, whose reward counts for the score only, and begins an episode: its stack
    holds one frame, and frames from before never come back into a stack.
    """

    def __init__(self, num_envs: int) -> None:
        self.lost = np.zeros(num_envs, dtype=bool)  # [B], a life was lost with the newest step
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._age = np.zeros(num_envs, dtype=np.int64)  # steps since the episode began for the learner

    def start(self, lives: np.ndarray) -> None:
        """Begin with all games anew."""
        self.lost[:] = False
        self._lives = lives.copy()
        self._age[:] = 0

    def mark(self, step: Step, over: np.ndarray, lives: np.ndarray) -> Step:
        """Return `step` with lost lives as terminations; in games that are `over`, the row already shows the next."""
        first = step.first | self.lost
        # Some games show 0 lives for a few frames before they end: only the end itself is one then.
        lost = (lives < self._lives) & (lives > 0) & ~first & ~step.terminated & ~step.truncated
        self.lost = lost
        self._lives = lives.copy()
        self._age = np.where(first, 0, self._age + 1)
        observation = step.observation.copy()
        stack = observation.shape[1]
        for game in np.flatnonzero(self._age < stack - 1):
            observation[game, : stack - 1 - self._age[game]] = 0
        return step._replace(
            observation=observation,
            reward=np.where(first, np.float32(0.0), step.reward),
            terminated=(step.terminated & ~over) | lost,
            truncated=step.truncated & ~over,
            first=first,
        )
