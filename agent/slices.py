"""Updates in slices: one that takes longer than a game waits is broken off between two layers, and gone on with.

An update runs in a thread of its own that hands over to its caller where the next slice would not fit. Only one
of both ever runs: nothing is locked and nothing races. Drawing a batch is one slice, and so are the optimizer's step
and the new priorities together; what lies between them changes neither weights nor replay. An update that fits is run
whole, in the learner's fastest form.

The slices of a large network are made shorter by taking its batch in parts, one behind the other: the gradient of a
mean is the mean of the parts' gradients.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from agent.learner import Learner
from agent.losses import Loss, LossFunction, Values
from agent.types import Batch

LEAST_PART = 4  # transitions: of fewer a layer takes hardly less time
WHOLE = "whole"  # an update in one piece; the other slices are numbered, a layer's forward or backward pass each

Fits = Callable[[Hashable], bool]  # asked before every slice; False: it must wait


class _Closed(Exception):
    """Unwinds an update that nobody will go on with."""


class Slices:
    """The updates of a learner, so that they can be broken off.

    Of an update that is open nothing lasts: a checkpoint knows the finished ones, and the run that goes on from it
    draws a batch anew.
    """

    def __init__(self, learner: Learner, threads: int | None = None):
        """`threads` are torch's for the learner; None: as many as the caller has. If more, they are its own."""
        self._learner, self._torch_threads = learner, threads or torch.get_num_threads()
        self._apart = self._torch_threads > torch.get_num_threads()  # whether whole updates run in that thread, too
        self._thread: threading.Thread | None = None
        self._go, self._back = threading.Lock(), threading.Lock()  # held while the thread that waits for it must wait
        self._job: Callable[[], Any] = lambda: None  # what the other thread does next
        self._fits: Fits = lambda what: True
        self.parts = 1  # that a batch is taken in, where an update is made in pieces
        self._next = 0  # the slice that an open update stands before; 0: none is open
        self._closing = False
        self._error: BaseException | None = None
        parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
        self._weights = [parameter for parameter in parameters if is_weight(parameter)]
        self._go.acquire()
        self._back.acquire()

    @property
    def updates(self) -> int:
        """Updates finished."""
        return self._learner.updates

    def unsettled(self, steps: int) -> bool:
        """Return whether it is time to decide how whole updates run; until then no further update is begun."""
        return self._next == 0 and self._learner.unsettled(steps)

    def settle(self, steps: int) -> bool:
        """Decide how whole updates run, unless that is decided; return whether it is another way than before."""
        before = self._learner.execution
        self._whole(partial(self._learner.settle, steps))
        return self._learner.execution != before

    def divide(self) -> bool:
        """Take batches in twice as many parts from the next update on; return whether they can be."""
        if self._next or self._learner.settings.batch_size < 2 * self.parts * LEAST_PART:
            return False
        self.parts *= 2
        return True

    def advance(self, steps: int, fits: Fits) -> None:
        """Go on with the open update, and with further ones, until a slice does not fit.

        `steps` is the environment step that the schedules of updates begun now are asked for. Where no update is open,
        a whole one is asked for first.
        """
        while not self.unsettled(steps):
            if self._next == 0 and fits(WHOLE):
                self._whole(partial(self._learner.update, 1, steps))
            elif fits(self._next):
                self._fits = fits
                self._hand_over(None if self._next else partial(self._in_pieces, steps))
                if self._next:
                    return  # its next slice did not fit
            else:
                return

    def close(self) -> None:
        """Drop the open update and end its thread; a second call does nothing."""
        if self._thread is not None:
            self._closing = True
            self._go.release()
            self._thread.join()
            self._thread = None

    def _whole(self, job: Callable[[], Any]) -> None:
        """Do `job` in one piece, where the learner has its threads."""
        if self._apart:
            self._hand_over(job)
        else:
            job()

    def _hand_over(self, job: Callable[[], Any] | None) -> None:
        """Let the other thread begin `job`, or go on with its own, until that ends or its next slice does not fit."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="learner", daemon=True)
            self._thread.start()
        if job is not None:
            self._job = job
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        """The other thread: one job after the other, each when it is asked for."""
        torch.set_num_threads(self._torch_threads)  # OpenMP knows it per thread
        while True:
            self._go.acquire()
            if self._closing:
                return
            try:
                self._job()
            except _Closed:
                return
            except BaseException as error:  # noqa: BLE001 - raised again by the caller, in its thread
                self._error = error
            self._next = 0
            self._back.release()

    def _in_pieces(self, steps: int) -> None:
        """One eager update with boundaries between its layers."""
        hooks = [weight.register_hook(self._boundary) for weight in self._weights]  # its layer's backward pass is done
        try:
            self._learner.update(1, steps, self._interruptible_loss)
        finally:
            for hook in hooks:
                hook.remove()  # whole updates have none

    def _boundary(self, gradient: Any = None) -> None:
        """Hand back if the next slice does not fit; autograd calls it with a gradient."""
        if threading.current_thread() is not self._thread:
            return  # somebody else differentiates the network while an update is open
        self._next += 1
        if not self._fits(self._next):
            self._back.release()
            self._go.acquire()
            if self._closing:
                raise _Closed

    def _interruptible_loss(self, *args: Any) -> Loss:
        with _Boundaries(self._boundary):
            return in_parts(self._learner.loss, self.parts, *args)


def in_parts(
    loss: LossFunction, parts: int, online: Values, target: Values, batch: Batch, generator: torch.Generator
) -> Loss:
    """Return the loss of a batch that is taken in so many parts; fractions that are drawn are drawn for each."""
    size = len(batch.r_t)
    if parts == 1:
        return loss(online, target, batch, generator)
    split = [part.split(-(-size // parts)) for part in batch[:-1]]
    found = [loss(online, target, Batch(*part, None), generator) for part in zip(*split, strict=True)]
    mean = sum(each.loss * (len(each.td_error) / size) for each in found)
    return Loss(mean, *(torch.cat(figures) for figures in list(zip(*found, strict=True))[1:]))


class _Boundaries(TorchFunctionMode):
    """Puts a boundary behind every operation that has a weight among its arguments, and before its backward pass."""

    def __init__(self, boundary: Callable[..., None]):
        super().__init__()
        self._boundary = boundary

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and any(map(is_weight, args)):
            if result.grad_fn is not None:
                result.register_hook(self._boundary)
            self._boundary()
        return result


def is_weight(argument: Any) -> bool:
    """Return whether this is what a layer multiplies with: a parameter, and not a bias."""
    return isinstance(argument, torch.nn.Parameter) and argument.dim() > 1
