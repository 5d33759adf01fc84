"""Sample, loss, step, priorities, target network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import torch

from agent.adam import Adam, clipping
from agent.capture import Function, Mode, Trial, make_fast, try_out
from agent.config import LearnerSettings
from agent.guard import IN_A_ROW, Faults, unsound
from agent.losses import LossFunction
from agent.metrics import Means
from agent.nets.bound import bind
from agent.nets.noisy import Noise
from agent.nets.q_network import QNetwork
from agent.types import Batch


Scalar = float | torch.Tensor  # a number, or a tensor [] that a captured update reads

EAGER_UPDATES = 200  # before a faster form is tried: by then an update's time is known and replay has something in it
TRIED_UPDATES = 10  # on which both forms are compared
WORTH_S = 240.0  # of learning that is still to come, before a CPU compiles on its own: that takes up to a minute
PAYS = 0.8  # most of the eager update's time that a compiled one may take, or it is not kept


class Samples(Protocol):
    """What the learner needs of replay."""

    device: torch.device
    generator: torch.Generator
    traceable: bool  # whether sampling is made of torch's operations alone
    written: list[torch.Tensor]  # every tensor that priorities are written to
    sampled: torch.Tensor | None  # the last batch's index

    def draw(self, batch_size: int) -> torch.Tensor:
        """Return the random numbers that a batch is drawn with."""

    def sample_at(self, draw: torch.Tensor, importance_exponent: Scalar, n_step: int, discount: Scalar) -> Batch:
        """Return the batch that these numbers draw."""

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Take the priorities back."""


class Learner:
    """Improves `network` in place from what `replay` returns.

    The network, its target, the gradients and the optimizer's moments are written in place and never rebound: the actor
    shares the weights. `learning_rate`, `importance_exponent`, `discount` and `n_step` are functions of the environment
    step. `generator` draws the noise of both networks, independently, and the loss's random fractions; where double
    Q-learning asks the online network for an action, it is with the noise of its prediction.

    `rate_scale` multiplies the learning rate; whoever sets it keeps it. `average` is the network that is judged and
    frozen: a running average of the weights when the settings ask for one, else `network` itself.

    An update whose loss or gradient is not finite changes nothing but the random generators: no weight, no moment, no
    priority, no running statistic. It counts as one of `updates`, and in `faults`.

    `execution` says how updates run: eager, compiled or captured. A faster form is switched on after EAGER_UPDATES, and
    only when it did the same as the eager one from the same state; `say` is told what came of it, `on_switch` the mode.
    `expected_updates` is how many there will be in all: a few are not worth the making.
    """

    def __init__(
        self,
        network: QNetwork,
        replay: Samples,
        loss: LossFunction,
        settings: LearnerSettings,
        *,
        learning_rate: Callable[[int], float],
        importance_exponent: Callable[[int], float],
        generator: torch.Generator,
        discount: Callable[[int], float],
        n_step: Callable[[int], int],
        expected_updates: float = 0.0,
        faults: Faults | None = None,
    ):
        self.network = network
        self.target = deepcopy(network).requires_grad_(False)
        self.average = network if settings.average_updates is None else deepcopy(network).requires_grad_(False)
        self.replay = replay
        self.loss = loss
        self.settings = settings
        self.learning_rate = learning_rate
        self.importance_exponent = importance_exponent
        self.generator = generator
        self.discount = discount
        self.n_step = n_step
        self.expected_updates = expected_updates
        self.rate_scale = 1.0
        self.updates = 0
        self.faults = Faults() if faults is None else faults
        self._looked = 0, 0  # updates made, and those of this process skipped, when they were last counted
        self.execution: Mode = "eager"
        self.say: Callable[[str], None] = lambda sentence: None
        self.on_switch: Callable[[Mode], None] = lambda mode: None
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.device = self._parameters[0].device
        self.optimizer = Adam(self._parameters, settings.adam_epsilon)
        names = ("train/loss", "train/td_error_abs", "train/grad_norm", "train/grad_clip_fraction", "q/mean")
        self.metrics = Means(names, "q/max", self.device)
        self._run: Function = partial(self._whole, self._sample_and_differentiate)
        self.resumes_fast = False  # whether it was faster before: in the run that is resumed, or for another n
        self._proven_n: int | None = None  # of the fast form
        self._to_try = self._wanted()  # None once it is settled how updates run
        self._eager_s, self._eager_updates = 0.0, 0  # spent and made before that
        # Where a captured update reads them; torch's fused Adam takes its rate in f32.
        self._rate = torch.zeros((), device=self.device)
        self._exponent, self._discount = (torch.zeros((), dtype=torch.float64, device=self.device) for _ in range(2))

    def _wanted(self) -> Mode | None:
        """Return the faster form that the settings ask for, None for none."""
        wanted = self.settings.execution
        if wanted == "auto":
            wanted = "captured" if self.device.type == "cuda" else "compiled"
        return None if wanted == "eager" else wanted

    def unsettled(self, steps: int) -> bool:
        """Return whether the next update decides first how updates run from now on, which may take a minute."""
        if self.execution != "eager" and self.n_step(steps) != self._proven_n:
            self.resumes_fast, self._to_try = True, self.execution  # another n is another program, with its own proof
        return self._to_try is not None and (self.resumes_fast or self._eager_updates >= EAGER_UPDATES)

    def update(self, count: int, steps: int, loss: LossFunction | None = None) -> None:
        """Launch `count` >= 1 updates; `steps` is the environment step that the schedules are asked for.

        With a `loss` to take its own's place they are eager, however updates run otherwise: it may break them off.
        """
        if self.updates - self._looked[0] >= IN_A_ROW:
            self.count_skipped()  # the actor has just waited for the device: nothing is left to wait for
        if loss is None and self.unsettled(steps):
            self.settle(steps)
        skipped = None if self.settings.average_updates is None else self.optimizer.skipped.clone()
        started = time.perf_counter()
        asked, run = self._asked(steps), self._run
        if loss is not None:
            differentiate = partial(self._sample_and_differentiate, loss=loss)
            asked, run = self._scheduled(steps), partial(self._whole, differentiate)
        for left in range(count, 0, -1):
            figures = self._update_once(run, asked, look=left == 1 or self.execution != "eager")
        self.network.fold()
        if self.settings.average_updates is not None:
            self._update_average(count, self.optimizer.skipped - skipped, self.settings.average_updates)
        # One look per call is enough for a mean, and costs the others nothing.
        self.metrics.add(figures)
        if self._to_try is not None and loss is None:
            self._eager_s += time.perf_counter() - started
            self._eager_updates += count

    def _asked(self, steps: int) -> tuple[Any, ...]:
        """Return rate, n, exponent and discount at this step: numbers, or where a captured update finds them."""
        rate, n_step, exponent, discount = scheduled = self._scheduled(steps)
        if self.execution == "eager":
            return scheduled
        return self._rate.fill_(rate), n_step, self._exponent.fill_(exponent), self._discount.fill_(discount)

    def _scheduled(self, steps: int) -> tuple[float, int, float, float]:
        rate = self.learning_rate(steps) * self.rate_scale
        return rate, self.n_step(steps), self.importance_exponent(steps), self.discount(steps)

    def _update_once(self, run: Function, asked: tuple[Any, ...], look: bool) -> torch.Tensor | None:
        draw = self.replay.draw(self.settings.batch_size)
        noise = [network.draw_noise(self.generator) for network in (self.network, self.target)]
        rate, *others = asked
        figures, self.replay.sampled = run(rate, look, *others, draw, *noise)
        self.updates += 1
        if self.updates % self.settings.target_interval == 0:
            self.copy_to_target()
        return figures

    def _whole(self, differentiate: Function, rate: Scalar, *given: Any) -> tuple[torch.Tensor | None, torch.Tensor]:
        """One update: `differentiate` what is given, step; return the figures and the batch's index."""
        figures, index, skip, divisor, *gradients = differentiate(*given)
        self.optimizer.move(gradients, rate, divisor, skip)
        return figures, index

    def _sample_and_differentiate(
        self,
        look: bool,
        n_step: int,
        exponent: Scalar,
        discount: Scalar,
        draw: torch.Tensor,
        online_noise: Noise | None,
        target_noise: Noise | None,
        loss: LossFunction | None = None,
    ) -> tuple[Any, ...]:
        """Draw a batch, write its new priorities, return figures (when asked to look), index, and what `move` takes."""
        sampled = self.replay.sample_at(draw, exponent, n_step, discount)
        # Replay may lie on the host and the network on the GPU; `index` means something to replay alone.
        parts = [part.to(self.device, non_blocking=True) for part in sampled[:-1]]
        figures, priority, *found = self._differentiate(look, *parts, online_noise, target_noise, loss=loss)
        self.replay.update_priorities(sampled.index, priority.to(sampled.index.device))
        return figures, sampled.index, *found

    def _differentiate(self, look: bool, *given: Any, loss: LossFunction | None = None) -> tuple[Any, ...]:
        """Return figures, priorities, skip, divisor and gradients for a batch without its index, and both noises.

        Figures, f32 [7]: 1, loss, mean |TD error|, norm of the gradient before clipping, whether it was clipped, mean
        and largest value. Where the update is to be skipped they are those of nothing, and priorities are NaN.
        """
        *parts, online_noise, target_noise = given
        statistics = [each.clone() for each in self.network.statistics]
        self.network.power_iterate()
        autocast = self.settings.autocast
        online, target = bind(self.network, online_noise, autocast), bind(self.target, target_noise, autocast)
        result = (loss or self.loss)(online, target, Batch(*parts, None), self.generator)
        gradients = torch.autograd.grad(result.loss, self._parameters)
        norm, divisor = clipping(gradients, self.settings.max_grad_norm)
        loss_value = result.loss.detach()
        skip = unsound(norm + loss_value)
        is_unsound = skip > 0.0
        for ours, before in zip(self.network.statistics, statistics, strict=True):
            ours.copy_(torch.where(is_unsound, before, ours))
        priority = result.priority.masked_fill(is_unsound, torch.nan)  # replay keeps those that it has
        figures, q_tm1 = None, result.q_tm1
        if look:
            clipped = (norm > self.settings.max_grad_norm).float()
            seen = 1.0 - skip, loss_value, result.td_error.abs().mean(), norm, clipped, q_tm1.mean(), q_tm1.max()
            figures = torch.where(is_unsound, self.metrics.nothing, torch.stack(seen))
        return figures, priority, skip, divisor, *gradients

    def count_skipped(self) -> None:
        """Count the updates that were skipped since the last call; waits for the device."""
        (updates, skipped), skipped_now = self._looked, int(self.optimizer.skipped)
        self.faults.updates(self.updates - updates, skipped_now - skipped)
        self._looked = self.updates, skipped_now

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Write the network's weights and buffers into the target network, in place."""
        for target, source in zip(self.target.state_dict().values(), self.network.state_dict().values(), strict=True):
            target.copy_(source)
        self.target.fold()

    @torch.no_grad()
    def _update_average(self, count: int, skipped: torch.Tensor, over: int) -> None:
        """Take in the weights after `count` more updates; until `over` updates were made it is their plain mean.

        Of the step towards them those updates that were `skipped`, f32 [], have no share.
        """
        share = max(count / self.updates, 1.0 - (1.0 - 1.0 / over) ** count)
        averages = list(self.average.parameters())
        steps = torch._foreach_sub(self._parameters, averages)
        torch._foreach_mul_(steps, share * (1.0 - skipped / count))
        torch._foreach_add_(averages, steps)
        for ours, newest in zip(self.average.buffers(), self.network.buffers(), strict=True):
            ours.copy_(newest)
        self.average.fold()

    def state_dict(self) -> dict[str, Any]:
        """Return weights, target weights, moments, generator and the number of updates: the tensors, not copies."""
        averaged = {} if self.average is self.network else {"average": self.average.state_dict()}
        return averaged | {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.moments() if self.updates else {},
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "execution": self.execution if self._to_try is None else self._to_try if self.resumes_fast else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, in place; ValueError when it belongs to another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.target.load_state_dict(state["target"])
            if self.average is not self.network:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_moments(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"This is not the state of a learner with this network: {error}") from error
        self.updates = int(state["updates"])
        self._looked = self.updates, int(self.optimizer.skipped)
        self._resume_execution(state.get("execution"))

    # --- how updates run ---------------------------------------------------------------------------------------------

    def _resume_execution(self, before: Mode | None) -> None:
        """Remember how the saved learner ran, for the forms round differently; None: it had not settled."""
        self._run, self.execution = partial(self._whole, self._sample_and_differentiate), "eager"
        self._eager_s, self._eager_updates = 0.0, 0
        self._to_try = self._wanted()
        self.resumes_fast = before not in (None, "eager") and self._to_try is not None
        if self.resumes_fast or before == "eager":
            self._to_try = before if self.resumes_fast else None

    def settle(self, steps: int) -> None:
        """Decide how updates run from now on, unless that is decided; a resumed learner goes on as it ran before.

        Needs a replay that can be sampled.
        """
        if self._to_try is None:
            return
        before, wanted, self._to_try = self.execution, self._to_try, None
        self._run, self.execution = partial(self._whole, self._sample_and_differentiate), "eager"
        left_s = (self.expected_updates - self.updates) * self._eager_s / max(1, self._eager_updates)
        chosen = self.settings.execution == "auto" and wanted == "compiled" and not self.resumes_fast
        if chosen and left_s < WORTH_S:
            return
        n_step = self.n_step(steps)
        if wanted == "compiled":
            self.say(f"compiling the update of {n_step}-step returns (up to a minute; the next run finds most of it done)")
        try:
            run, trial = self._tried(wanted, steps)
        except Exception as error:  # whatever torch's compiler or the driver raises, the eager update works
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.say(f"updates stay eager: the {wanted} one could not be made ({reason:.200})")
            return
        except BaseException:  # the run is to end: it is tried when that goes on
            self._to_try = wanted
            raise
        if not trial.agrees:
            self.say(
                f"updates stay eager: the {wanted} one differs by {trial.difference:.1%} of what an update changes, "
                f"over {TRIED_UPDATES} updates"
            )
        elif chosen and trial.fast_s > PAYS * trial.eager_s:
            self.say(
                f"updates stay eager: compiled, one takes {trial.fast_s * 1e3:.2f} ms instead of "
                f"{trial.eager_s * 1e3:.2f}"
            )
        else:
            self._run, self.execution, self._proven_n = run, wanted, n_step
            self.say(
                f"updates are {wanted} now: {trial.fast_s * 1e3:.2f} ms each instead of {trial.eager_s * 1e3:.2f}, "
                f"checked over {TRIED_UPDATES}"
            )
            if wanted != before:
                self.on_switch(wanted)

    def _tried(self, mode: Mode, steps: int) -> tuple[Function, Trial]:
        """Return the update in a faster form, and what came out when it was tried; nothing has changed behind it."""
        eager = partial(self._whole, self._sample_and_differentiate)
        groups = [[*self._parameters, *self.network.buffers()], self.optimizer.written]
        groups += [[tensor] for tensor in self.replay.written]
        written = [tensor for group in groups for tensor in group]
        make = partial(make_fast, mode=mode, written=written, generators=(self.generator,))
        if not (self.replay.traceable and self.replay.device.type == self.device.type):
            learn = partial(self._learn, self._differentiate)
            fast = partial(
                self._from_elsewhere,
                make(learn) if mode == "captured" else partial(self._learn, make(self._differentiate)),
            )
        elif mode == "captured":
            fast = make(eager)
        else:  # torch's fused Adam is faster than what the compiler makes of it
            fast = partial(self._whole, make(self._sample_and_differentiate))
        generators = self.generator, self.replay.generator
        states = [generator.get_state() for generator in generators]
        calls = [self._call(1.0 - 0.02 * call, steps) for call in range(TRIED_UPDATES)]
        try:
            return fast, try_out(eager, fast, calls, groups)
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def _learn(self, differentiate: Function, rate: Scalar, *given: Any) -> tuple[Any, ...]:
        """Improve the network by what `_differentiate` is given; return figures and priorities."""
        figures, priority, skip, divisor, *gradients = differentiate(*given)
        self.optimizer.move(gradients, rate, divisor, skip)
        return figures, priority

    def _from_elsewhere(
        self,
        learn: Function,
        rate: torch.Tensor,
        look: bool,
        n_step: int,
        exponent: torch.Tensor,
        discount: torch.Tensor,
        draw: torch.Tensor,
        *noise: Noise | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """`_whole` where sampling cannot be captured: replay is compressed, or lies on the host."""
        home = draw.device
        sampled = self.replay.sample_at(draw, exponent.to(home), n_step, discount.to(home))
        parts = [part.to(self.device, non_blocking=True) for part in sampled[:-1]]
        figures, priority = learn(rate, look, *parts, *noise)
        self.replay.update_priorities(sampled.index, priority.to(home))
        return figures, sampled.index

    def _call(self, factor: float, steps: int) -> tuple[Any, ...]:
        """Return the arguments of an update whose schedules stand a little lower: none can hide as a constant."""
        rate, n_step, *scalars = self._scheduled(steps)
        f64 = partial(torch.full, (), dtype=torch.float64)
        rate, *scalars = (f64(each * factor).to(self.device) for each in (rate, *scalars))
        noise = [network.draw_noise(self.generator) for network in (self.network, self.target)]
        return rate.float(), True, n_step, *scalars, self.replay.draw(self.settings.batch_size), *noise
