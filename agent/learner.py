"""Sample, loss, step, priorities, target network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from agent.adam import Adam
from agent.capture import Function, Mode, Trial, make_fast, try_out
from agent.config import LearnerSettings
from agent.losses import LossFunction, Values
from agent.metrics import Means
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


class Noisy(NamedTuple):
    """A network with one sample of its noise bound, as the losses ask it."""

    network: QNetwork
    noise: Noise

    @property
    def fractions(self) -> torch.Tensor:
        """The network's fixed fractions, f32 [K]."""
        return self.network.fractions

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A]."""
        return self.network(observation, self.noise)

    def quantiles(self, observation: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """[N, *observation_shape], [N, T] -> [N, T, A]."""
        return self.network.quantiles(observation, fractions, self.noise)


class Autocast(NamedTuple):
    """A network whose layers compute in bfloat16 where torch holds that to be safe; its values come out as f32."""

    network: Values

    @property
    def fractions(self) -> torch.Tensor:
        """The network's fixed fractions, f32 [K]."""
        return self.network.fractions

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, *observation_shape] -> [N, A]."""
        with torch.autocast(observation.device.type, torch.bfloat16):
            return self.network(observation).float()

    def quantiles(self, observation: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """[N, *observation_shape], [N, T] -> [N, T, A]."""
        with torch.autocast(observation.device.type, torch.bfloat16):
            return self.network.quantiles(observation, fractions).float()


class Figures(NamedTuple):
    """What telemetry is told of an update."""

    loss: torch.Tensor  # f32 []
    td_error: torch.Tensor  # f32 [N]
    grad_norm: torch.Tensor  # f32 [], before clipping
    q_tm1: torch.Tensor  # f32 [N, A]


class Learner:
    """Improves `network` in place from what `replay` returns.

    The network, its target, the gradients and the optimizer's moments are written in place and never rebound: the actor
    shares the weights. `learning_rate`, `importance_exponent`, `discount` and `n_step` are functions of the environment
    step. `generator` draws the noise of both networks, independently, and the loss's random fractions; where double
    Q-learning asks the online network for an action, it is with the noise of its prediction.

    `rate_scale` multiplies the learning rate; whoever sets it keeps it. `average` is the network that is judged and
    frozen: a running average of the weights when the settings ask for one, else `network` itself.

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
        self.execution: Mode = "eager"
        self.say: Callable[[str], None] = lambda sentence: None
        self.on_switch: Callable[[Mode], None] = lambda mode: None
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.device = self._parameters[0].device
        self.optimizer = Adam(self._parameters, settings.adam_epsilon)
        names = ("train/loss", "train/td_error_abs", "train/grad_norm", "q/mean")
        self.metrics = Means(names, "q/max", self.device)
        self._run: Function = partial(self._whole, self._learn)
        self.resumes_fast = False  # whether the learner whose state was loaded had been made faster
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

    def update(self, count: int, steps: int) -> None:
        """Launch `count` >= 1 updates; `steps` is the environment step that the schedules are asked for."""
        if self._to_try is not None and (self.resumes_fast or self._eager_updates >= EAGER_UPDATES):
            self.settle(steps)
        started = time.perf_counter()
        asked = self._asked(steps)
        for _ in range(count):
            figures = self._update_once(asked)
        self.network.fold()
        if self.settings.average_updates is not None:
            self._update_average(count, self.settings.average_updates)
        # One look per call is enough for a mean, and costs the others nothing.
        means = (figures.loss, figures.td_error.abs().mean(), figures.grad_norm, figures.q_tm1.mean())
        self.metrics.add(means, figures.q_tm1.max())
        if self._to_try is not None:
            self._eager_s += time.perf_counter() - started
            self._eager_updates += count

    def _asked(self, steps: int) -> tuple[Any, ...]:
        """Return n, rate, exponent and discount at this step: numbers, or where a captured update finds them."""
        n_step, rate, exponent, discount = scheduled = self._scheduled(steps)
        if self.execution == "eager":
            return scheduled
        return n_step, self._rate.fill_(rate), self._exponent.fill_(exponent), self._discount.fill_(discount)

    def _scheduled(self, steps: int) -> tuple[int, float, float, float]:
        rate = self.learning_rate(steps) * self.rate_scale
        return self.n_step(steps), rate, self.importance_exponent(steps), self.discount(steps)

    def _update_once(self, asked: tuple[Any, ...]) -> Figures:
        draw = self.replay.draw(self.settings.batch_size)
        noise = [network.draw_noise(self.generator) for network in (self.network, self.target)]
        figures, self.replay.sampled = self._run(*asked, draw, *noise)
        self.updates += 1
        if self.updates % self.settings.target_interval == 0:
            self.copy_to_target()
        return figures

    def _whole(
        self,
        learn: Function,
        n_step: int,
        rate: Scalar,
        exponent: Scalar,
        discount: Scalar,
        draw: torch.Tensor,
        online_noise: Noise | None,
        target_noise: Noise | None,
    ) -> tuple[Figures, torch.Tensor]:
        """Sample, `learn`, write priorities; return the update's figures and the batch's index."""
        sampled = self.replay.sample_at(draw, exponent, n_step, discount)
        # Replay may lie on the host and the network on the GPU; `index` means something to replay alone.
        parts = [part.to(self.device, non_blocking=True) for part in sampled[:-1]]
        figures, priority = learn(rate, *parts, online_noise, target_noise)
        self.replay.update_priorities(sampled.index, priority.to(sampled.index.device))
        return figures, sampled.index

    def _learn(self, rate: Scalar, *given: Any) -> tuple[Figures, torch.Tensor]:
        """Improve the network by the parts of a batch, its index apart, and both noises; return figures, priorities."""
        *parts, online_noise, target_noise = given
        self.network.power_iterate()
        online, target = self.bound(self.network, online_noise), self.bound(self.target, target_noise)
        result = self.loss(online, target, Batch(*parts, None), self.generator)
        gradients = torch.autograd.grad(result.loss, self._parameters)
        grad_norm = clip_norm(gradients, self.settings.max_grad_norm)
        self.optimizer.move(gradients, rate)
        return Figures(result.loss.detach(), result.td_error, grad_norm, result.q_tm1), result.priority

    def bound(self, network: QNetwork, noise: Noise | None) -> Values:
        """Return the network as a loss asks it, with this noise, in the precision that the settings say."""
        values = network if noise is None else Noisy(network, noise)
        return values if self.settings.autocast == "none" else Autocast(values)

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Write the network's weights and buffers into the target network, in place."""
        for target, source in zip(self.target.state_dict().values(), self.network.state_dict().values(), strict=True):
            target.copy_(source)
        self.target.fold()

    @torch.no_grad()
    def _update_average(self, count: int, over: int) -> None:
        """Take in the weights after `count` more updates; until `over` updates were made it is their plain mean."""
        share = max(count / self.updates, 1.0 - (1.0 - 1.0 / over) ** count)
        torch._foreach_lerp_(list(self.average.parameters()), self._parameters, share)
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
            "execution": self.execution if self._to_try is None else None,
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
        self._resume_execution(state.get("execution"))

    # --- how updates run ---------------------------------------------------------------------------------------------

    def _resume_execution(self, before: Mode | None) -> None:
        """Remember how the saved learner ran, for the forms round differently; None: it had not settled."""
        self._run, self.execution = partial(self._whole, self._learn), "eager"
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
        wanted, self._to_try = self._to_try, None
        left_s = (self.expected_updates - self.updates) * self._eager_s / max(1, self._eager_updates)
        chosen = self.settings.execution == "auto" and wanted == "compiled" and not self.resumes_fast
        if chosen and left_s < WORTH_S:
            return
        if wanted == "compiled":
            self.say("compiling the update (up to a minute; the next run finds most of it done)")
        try:
            run, trial = self._tried(wanted, steps)
        except Exception as error:  # whatever torch's compiler or the driver raises, the eager update works
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.say(f"updates stay eager: the {wanted} one could not be made ({reason:.200})")
            return
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
            self._run, self.execution = run, wanted
            self.say(
                f"updates are {wanted} now: {trial.fast_s * 1e3:.2f} ms each instead of {trial.eager_s * 1e3:.2f}, "
                f"checked over {TRIED_UPDATES}"
            )
            self.on_switch(wanted)

    def _tried(self, mode: Mode, steps: int) -> tuple[Function, Trial]:
        """Return the update in a faster form, and what came out when it was tried; nothing has changed behind it."""
        eager = partial(self._whole, self._learn)
        groups = [[*self._parameters, *self.network.buffers()], self.optimizer.written]
        groups += [[tensor] for tensor in self.replay.written]
        written = [tensor for group in groups for tensor in group]
        if self.replay.traceable and self.replay.device.type == self.device.type:
            fast = make_fast(eager, mode, written)
        else:
            fast = partial(self._whole, make_fast(self._learn, mode, written))
        generators = self.generator, self.replay.generator
        states = [generator.get_state() for generator in generators]
        calls = [self._call(1.0 - 0.02 * call, steps) for call in range(TRIED_UPDATES)]
        try:
            return fast, try_out(eager, fast, calls, groups)
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def _call(self, factor: float, steps: int) -> tuple[Any, ...]:
        """Return the arguments of an update whose schedules stand a little lower, so that none can hide as a constant."""
        n_step, *scalars = self._scheduled(steps)
        rate, exponent, discount = (torch.full((), each * factor, dtype=torch.float64) for each in scalars)
        noise = [network.draw_noise(self.generator) for network in (self.network, self.target)]
        scalars = [each.to(self.device) for each in (rate.float(), exponent, discount)]
        return n_step, *scalars, self.replay.draw(self.settings.batch_size), *noise


def clip_norm(gradients: Sequence[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Scale all `gradients` in place so that their common norm is at most `max_norm`; return the norm before, f32 [].

    torch's clip_grad_norm_ to the bit, in half its time: that one first sorts small tensors by device and type.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
    torch._foreach_mul_(list(gradients), (max_norm / (norm + 1e-6)).clamp_max(1.0))
    return norm
