"""Replay: what the agent remembers. Joins the film, the sum tree and the n-step returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from agent.guard import RESTARTS, Faults, all_finite, finite_or_zero, finite_rows
from agent.replay.film import Film
from agent.replay.returns import n_step_return
from agent.replay.sum_tree import SumTree
from agent.types import Batch, Step

LEAST_PRIORITY = 1e-6  # added to every TD error, so that no transition is lost (Schaul et al. 2016)


class Transitions(NamedTuple):
    """What a batch says about the transitions themselves; see `agent.types.Batch`."""

    s_tm1: torch.Tensor  # [N, *observation_shape]
    a_tm1: torch.Tensor  # i64 [N]
    r_t: torch.Tensor  # f32 [N]
    discount_t: torch.Tensor  # f32 [N]
    s_t: torch.Tensor  # [N, *observation_shape]


class Replay:
    """The newest transitions of `num_games` games, sampled uniformly or by priority.

    `capacity` counts rows of the film, over all games; the row of a terminal observation, one per episode, takes the
    place of a transition. A row can be sampled once the n rows behind it are written, and until the oldest frame of its
    stack is overwritten.

    Nothing here waits for the device. Tensors are written in place and never rebound.
    """

    def __init__(
        self,
        *,
        num_games: int,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: str,
        stack: int,
        n_step: int,
        discount: float,
        priority_exponent: float,
        reward_clip: float | None,
        generator: torch.Generator,
        device: torch.device | str,
        compression: str = "none",
        faults: Faults | None = None,
    ) -> None:
        """With `stack` > 1 the first axis of `observation_shape` is the stack, oldest frame first."""
        if stack > 1 and observation_shape[0] != stack:
            raise ValueError(f"An observation of shape {observation_shape} is not a stack of {stack} frames.")
        self.num_games, self.capacity, self.n_step, self.discount = num_games, capacity, n_step, discount
        self.priority_exponent, self.reward_clip, self.generator = priority_exponent, reward_clip, generator
        self.film = Film(
            num_columns=num_games,
            length=-(-capacity // num_games) + stack - 1 + n_step,
            frame_shape=observation_shape[1:] if stack > 1 else observation_shape,
            dtype=observation_dtype,
            stack=stack,
            device=device,
            compression=compression,
        )
        self.device = self.film.device
        self.traceable = compression == "none"  # sampling is made of torch's operations alone
        self.tree = SumTree(self.film.num_rows, self.device)
        # [1], not []: torch.compile (2.13, on a CPU) loses what is written to a tensor without dimensions.
        self._max_priority = torch.ones(1, dtype=torch.float64, device=self.device)
        self._ahead = torch.arange(n_step, device=self.device)
        self._games = np.arange(num_games)
        # On the host, so that nothing has to be read back from the device: rows whose action was really taken and whose
        # stack is still on film; games whose newest row, if any, is terminal, so that an episode must begin; the count.
        self._valid = np.zeros(self.film.num_rows, bool)
        self._closed = np.ones(num_games, bool)
        self._broken = np.zeros(num_games, bool)  # games whose newest row was left out: anything may follow it
        self._size = 0
        self._strata = torch.empty(0, dtype=torch.float64)  # i / N for the last batch size N
        self.sampled: torch.Tensor | None = None  # the last batch's index, for telemetry
        self.faults = Faults() if faults is None else faults
        self._known: Step | None = None  # the newest step, if all in it is known to be finite

    def __len__(self) -> int:
        """Transitions that can be sampled now."""
        return self._size

    @property
    def bytes(self) -> int:
        """Bytes held, on the device and (one per row) on the host."""
        return self.film.bytes + self.tree.bytes + self._valid.nbytes

    def insert(self, step: Step, action: np.ndarray, next_step: Step, games: np.ndarray | None = None) -> int:
        """Store what `action`, i64 [B], led to; return how many transitions were stored.

        `games`, i64 [B], are the columns that this is about, each named once; None: all, in order.
        An action that answered the last step of an episode was ignored by the game (next-step autoreset): its row only
        keeps the terminal observation. After a same-step autoreset that row is made from `final_observation`.

        A transition with an observation or a reward that is not finite, and one in which the game was replaced, is left
        out: its row cannot be sampled, windows end before it and bootstrap from its observation, and holds zeros where
        a number is not finite. The game's own episode goes on behind it. Raises NonFinite as `Faults.check` does.
        """
        games = self._games if games is None else games
        self._check_continues(step, games)
        ended = next_step.terminated | next_step.truncated
        again = np.flatnonzero(ended & next_step.first)
        if again.size and next_step.final_observation is None:
            game = games[again[0]]
            raise ValueError(f"Game {game} began anew as it ended, but its final_observation is missing.")
        taken = step.first | ~(step.terminated | step.truncated)
        reward, stored = next_step.reward, taken
        if self.reward_clip is not None:
            reward = np.clip(reward, -self.reward_clip, self.reward_clip)
        terminated, truncated = next_step.terminated, next_step.truncated
        sound = not again.size and self._is_sound(step, next_step)
        if not sound or self.faults.watching:
            finite = finite_rows(next_step.observation) & finite_rows(next_step.reward)
            if again.size:
                finite[again] &= finite_rows(next_step.final_observation[again])
            lost = taken & ~(finite & finite_rows(step.observation) & ~next_step.restarted)
            self.film.truncate(games[lost & ~step.first])  # the row before: no window reaches over this one
            reward, stored = np.where(lost | ~finite, 0.0, reward), taken & ~lost
            terminated, truncated = terminated & ~lost, truncated | lost
            told = taken | ~finite  # that an episode begins well says nothing about its game's steps
            self.faults.steps(games[told], ~finite[told])
            self.faults.add(RESTARTS, int(np.count_nonzero(next_step.restarted)))
        ends = terminated, truncated
        self._append(games, step.observation, action, reward, *ends, stored, step.first, sound=sound)
        self._closed[games], self._broken[games] = ~taken, taken & ~stored
        if again.size:
            self._close(games[again], next_step.final_observation[again])
        self.faults.check()
        return int(np.count_nonzero(stored))

    def _is_sound(self, step: Step, next_step: Step) -> bool:
        """Return whether there is nothing to leave out: asked first, for it nearly always is so."""
        sound = step is self._known or all_finite(step.observation)
        sound = sound and all_finite(next_step.observation) and all_finite(next_step.reward)
        sound = sound and not next_step.restarted.any()
        self._known = next_step if sound else None
        return sound

    def cut(self, step: Step) -> None:
        """Truncate every open episode at its newest observation, `step`: the games are about to be started anew.

        No window reaches from before the cut to behind it, and no transition is lost. A second cut does nothing.
        """
        late = np.flatnonzero(step.first & ~(self._closed | self._broken))
        if late.size:
            raise ValueError(f"Game {late[0]} has already been started anew; call cut with the step before that.")
        still_open = np.flatnonzero(~self._closed & ~step.first)
        if still_open.size:
            self.film.truncate(still_open)  # where the newest row terminated it still does
            self._close(still_open, step.observation[still_open])

    def _close(self, games: np.ndarray, observation: np.ndarray) -> None:
        """Append the row that holds the terminal observation, [M, *observation_shape]."""
        no = np.zeros(len(games), bool)
        self._append(games, observation, np.zeros(len(games)), np.zeros(len(games)), no, no, no, no)
        self._closed[games], self._broken[games] = True, False

    def _append(
        self,
        games: np.ndarray,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        valid: np.ndarray,
        first: np.ndarray,
        *,
        sound: bool = False,
    ) -> None:
        """Write one row for each of `games`; open the row that is now n steps old, shut the one that lost its stack.

        Unless observations are known to be `sound`, zeros stand for those that are not finite.
        """
        film = self.film
        frame = observation[:, -1] if film.stack > 1 else observation
        frame = frame if sound else finite_or_zero(frame)
        slots = film.append(games, frame, action, reward, terminated, truncated, first)
        lost = film.after(slots, film.stack - 1)  # rows around a full ring: `length - stack + 1` before the newest one
        due = film.after(slots, -self.n_step)
        shut = self._valid[lost]
        if shut.any():
            self._size -= int(np.count_nonzero(shut))
            self._valid[lost] = False
            self.tree.fill(lost, np.zeros(len(lost), bool), self._max_priority)
        self._valid[slots] = valid
        opened = self._valid[due]
        self._size += int(np.count_nonzero(opened))
        self.tree.fill(due, opened, self._max_priority)

    def _check_continues(self, step: Step, games: np.ndarray) -> None:
        closed = self._closed[games]
        differ = step.first != closed
        if not differ.any() or not (differ := differ & ~self._broken[games]).any():
            return
        wrong = np.flatnonzero(differ)[0]
        game = games[wrong]
        if closed[wrong]:
            raise ValueError(f"Game {game} goes on where an episode must begin: this step must have `first` set.")
        raise ValueError(f"Game {game} was started anew in the middle of an episode; call cut before a reset.")

    def sample(
        self,
        batch_size: int,
        importance_exponent: float | torch.Tensor,
        n_step: int | None = None,
        discount: float | None = None,
    ) -> Batch:
        """Draw `batch_size` transitions, one from each of as many equal shares of the priorities.

        `n_step`, at most this replay's own, and `discount` are those of this batch; None: replay's own. Which rows can
        be sampled goes by replay's own n.

        Importance weights are (N P)^-importance_exponent, divided by the largest of the batch; 1 when sampling is
        uniform. Raises ValueError while no transition can be sampled.
        """
        batch = self.sample_at(self.draw(batch_size), importance_exponent, n_step, discount)
        self.sampled = batch.index
        return batch

    def draw(self, batch_size: int) -> torch.Tensor:
        """Return the places in the priorities' running sum at which a batch is drawn, f64 [N] in [0, 1).

        Raises ValueError while no transition can be sampled.
        """
        if not self._size:
            raise ValueError(f"Nothing to sample: a transition can be used {self.n_step} steps after it was stored.")
        if len(self._strata) != batch_size:
            self._strata = torch.arange(batch_size, dtype=torch.float64, device=self.device) / batch_size
        share = torch.rand(batch_size, dtype=torch.float64, generator=self.generator, device=self.generator.device)
        return torch.add(self._strata, share.to(self.device, non_blocking=True), alpha=1.0 / batch_size)

    def sample_at(
        self,
        draw: torch.Tensor,
        importance_exponent: float | torch.Tensor,
        n_step: int | None = None,
        discount: float | torch.Tensor | None = None,
    ) -> Batch:
        """Return the batch at the places that `draw` gave; see `sample`. Nothing is drawn or noted: it can be captured."""
        index = self.tree.sample(draw)
        if self.priority_exponent:
            priority = self.tree.get(index)  # N and the sum of all priorities cancel out
            weight = ((priority.amin() / priority) ** importance_exponent).float()
        else:
            weight = torch.ones(len(draw), device=self.device)
        return Batch(*self.gather(index, n_step, discount), weight, index)

    @property
    def written(self) -> list[torch.Tensor]:
        """Every tensor that priorities are written to."""
        return [*self.tree.state_dict().values(), self._max_priority]

    def gather(
        self, index: torch.Tensor, n_step: int | None = None, discount: float | torch.Tensor | None = None
    ) -> Transitions:
        """Return the transitions at `index`, i64 [N], which must be ones that can be sampled; see `sample`."""
        film = self.film
        n_step = self.n_step if n_step is None else n_step
        discount = self.discount if discount is None else discount
        if not 1 <= n_step <= self.n_step:
            raise ValueError(f"A window of {n_step} steps was asked for; replay was made for 1 to {self.n_step}.")
        window = film.walk(index[:, None], self._ahead[:n_step])  # [N, n]
        r_t, discount_t, k = n_step_return(
            film.reward.take(window), film.terminated.take(window), film.truncated.take(window), discount
        )
        # Read together: a compressed frame that is in both stacks is decompressed once.
        s_tm1, s_t = film.stacks(torch.cat((index, film.walk(index, k)))).chunk(2)
        return Transitions(s_tm1, film.action.take(index).long(), r_t, discount_t, s_t)

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Set the priorities of a sampled batch, i64 [N], from its TD errors, f32 [N].

        Rows that can no longer be sampled stay so; an error that is not finite changes nothing.
        """
        if not self.priority_exponent:
            return
        old = self.tree.get(index)
        new = (td_error.detach().abs().double() + LEAST_PRIORITY) ** self.priority_exponent
        new = torch.where((old > 0.0) & (new < math.inf), new, old)
        self._max_priority.copy_(torch.maximum(self._max_priority, new.amax()))  # an out= would be lost as well
        self.tree.set(index, new)

    def statistics(self) -> dict[str, torch.Tensor]:
        """Return scalars for telemetry by tag, on the device: age (environment steps) of the last batch, priorities.

        Reads the whole tree: for every few seconds, not for every update.
        """
        statistics = {}
        if self.sampled is not None:
            game = self.sampled % self.num_games
            position = self.sampled // self.num_games
            newest = self.film.send((self.film.cursor - 1) % self.film.length)
            age = (newest.take(game) - position).remainder_(self.film.length).double() * self.num_games
            statistics["replay/age_mean"] = age.mean()
            statistics["replay/age_p95"] = torch.quantile(age, 0.95)
        if self._size and self.priority_exponent:
            statistics["replay/priority_mean"] = self.tree.total / self._size
            statistics["replay/priority_max"] = self.tree.leaves.amax()
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Return replay itself, not a copy: the filled part of the film, the tree and the generator's state."""
        return {
            "layout": self._layout(),
            "film": self.film.state_dict(),
            "valid": torch.from_numpy(self._valid),
            "tree": self.tree.state_dict(),
            "max_priority": self._max_priority[0],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, in place; ValueError naming what differs when it does not fit.

        Rows of whose windows a frame was lost on the way can no longer be sampled.
        """
        layout = self._layout()
        for name, ours in layout.items():
            if state["layout"][name] != ours:
                raise ValueError(f"The saved replay has {name} {state['layout'][name]}, this run has {ours}.")
        lost = self.film.load_state_dict(state["film"])
        self.tree.load_state_dict(state["tree"])
        self._max_priority.copy_(state["max_priority"])
        self.generator.set_state(state["generator"].cpu())
        self.sampled = None
        self._valid[:] = state["valid"].cpu().numpy()
        newest = self.film.newest()
        self._leave_out(lost, newest)
        cut_off = self.film.truncated[self.film.send(newest)].cpu().numpy()  # so is no terminal row
        self._closed = ~self._valid[newest] & ~cut_off
        self._broken = ~self._valid[newest] & cut_off
        self._size = int(torch.count_nonzero(self.tree.leaves))

    def _leave_out(self, lost: np.ndarray, newest: np.ndarray) -> None:
        """Let no row be sampled that has one of the frames of the slots `lost` in its window."""
        could = self._valid[newest]
        for rows in range(-self.n_step, self.film.stack) if lost.size else ():
            slots = self.film.after(lost, rows)
            self._valid[slots] = False
            self.tree.fill(slots, np.zeros(len(slots), bool), self._max_priority)
        self.film.truncate(np.flatnonzero(could & ~self._valid[newest]))  # no terminal row: anything may follow it

    def _layout(self) -> dict[str, Any]:
        """What decides which slot means what."""
        return {
            "num_games": self.num_games,
            "capacity": self.capacity,
            "stack": self.film.stack,
            "n_step": self.n_step,
            "frame_shape": list(self.film.frame_shape),
            "dtype": str(self.film.frames.dtype).removeprefix("torch."),
        }

    def check(self) -> None:
        """Raise AssertionError unless film, tree and counts agree, row by row. Slow, for tests."""
        self.tree.check()
        film, leaves = self.film, self.tree.leaves.tolist()
        size = 0
        for slot in range(film.num_rows):
            position, game = divmod(slot, film.num_columns)
            newest = int(film.cursor[game]) - 1
            time = newest - (newest - position) % film.length  # of the row that lies at this slot
            has_stack = time >= max(0, newest - film.length + film.stack)
            assert has_stack or not self._valid[slot], f"row {time} of game {game} has lost its stack and is valid"
            can_be_sampled = bool(self._valid[slot]) and time <= newest - self.n_step
            assert (leaves[slot] > 0.0) == can_be_sampled, f"row {time} of game {game} has priority {leaves[slot]}"
            size += can_be_sampled
        assert len(self) == size, f"{size} transitions can be sampled, not {len(self)}"
        assert bool(self._max_priority >= self.tree.leaves.amax()), "a priority is above the largest one"
