"""One function of tensors, run eager, through torch.compile, or as a CUDA graph, and the proof that all do the same.

Such a function reads its arguments and tensors that it closes over, writes some of those in place, and returns tensors.
Everything that changes from call to call must be an argument that is a tensor, or a tensor written in place: a plain
number is built into the fast form, which is made anew for every other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch

Mode = Literal["eager", "compiled", "captured"]
Function = Callable[..., Any]

TOLERANCE = 0.01  # most that the changes by a fast form may differ, as a share of the changes themselves
WARM_UPS = 3  # before a capture, as torch asks: libraries choose their kernels and workspaces in them
UNLIMITED = 1 << 20
ROUNDS = 3  # of timing, eager and fast in turn


class Trial(NamedTuple):
    """What came out when a fast form was tried beside the eager one on the same state and arguments."""

    difference: float  # of what both changed and returned, relative; infinite when one of them is not finite
    eager_s: float  # per call
    fast_s: float

    @property
    def agrees(self) -> bool:
        """Whether both do the same."""
        return self.difference <= TOLERANCE


def make_fast(
    function: Function,
    mode: Mode,
    written: Sequence[torch.Tensor] = (),
    generators: Sequence[torch.Generator] = (),
) -> Function:
    """Return `function` in the form that `mode` names.

    `written` is every tensor that it writes, `generators` are those on the GPU that it draws from itself. The form is
    made in the first call with each set of plain arguments: compiling takes up to a minute on a CPU, and what the
    rehearsals of a capture write is undone.
    """
    if mode == "eager":
        return function
    if mode == "compiled":
        return Programs(function)
    return CudaGraphs(function, written, generators)


class Programs:
    """A function compiled once for every set of plain arguments, and then called without torch.compile.

    In every call torch looks at each tensor that the function closes over, to see whether it still is what was compiled
    for, which takes longer than a small network's update. Ours are never rebound: so the tensors that the first call
    was made with are kept, and only the arguments among them are exchanged.
    """

    def __init__(self, function: Function):
        self._function = function
        self._made: dict[tuple[Any, ...], Function] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the program with these arguments."""
        key = tuple(_shape(each) for each in arguments)
        if key not in self._made:
            self._made[key], result = self._make(arguments)
            return result
        return self._made[key](*arguments)

    def _make(self, arguments: tuple[Any, ...]) -> tuple[Function, Any]:
        """Return the program for arguments like these, and what it gives for these."""
        # Imported here: it costs seconds that an eager run need not wait for.
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor
        from torch._dynamo.backends.registry import lookup_backend

        first: dict[str, Any] = {}

        def backend(graph: Any, examples: Any) -> Function:
            with inductor.patch(cpp_wrapper=True):  # what calls the kernels is C++ as well
                program = lookup_backend("inductor")(graph, examples)

            def noted(*inputs: Any) -> Any:
                first.update(program=program, inputs=inputs, outputs=program(*inputs))
                return first["outputs"]

            return noted

        # Traces torch.autograd.grad, so that forward and backward become one program. torch stops at eight programs of
        # one function, as a guard against what is compiled anew by accident: we decide ourselves when that is.
        with dynamo.patch(trace_autograd_ops=True, recompile_limit=UNLIMITED, accumulated_recompile_limit=UNLIMITED):
            compiled = torch.compile(self._function, backend=backend, fullgraph=True, dynamic=False)
            result = compiled(*arguments)
        program, inputs, outputs = first["program"], list(first["inputs"]), first["outputs"]
        given = _flat(arguments)
        exchanged = [
            (at, number) for at, each in enumerate(inputs) for number, one in enumerate(given) if one is each
        ]
        form = _positions(result, outputs)

        def run(*arguments: Any) -> Any:
            given, called = _flat(arguments), inputs.copy()
            for at, number in exchanged:
                called[at] = given[number]
            return _filled(form, program(*called))

        return run, result


def _positions(value: Any, outputs: Sequence[Any]) -> Any:
    """Return `value` with each tensor's position among `outputs` in its place; ValueError when one is not there."""
    if isinstance(value, tuple):
        return tuple(_positions(each, outputs) for each in value)
    if value is None:
        return None
    for position, output in enumerate(outputs):
        if output is value:
            return position
    raise ValueError("The compiled program does not return what the function returns.")


def _filled(form: Any, outputs: Sequence[Any]) -> Any:
    """Undo `_positions` with other outputs."""
    if isinstance(form, tuple):
        return tuple(_filled(each, outputs) for each in form)
    return None if form is None else outputs[form]


class CudaGraphs:
    """A function recorded once for every set of plain arguments and then replayed by the GPU alone.

    What is returned is overwritten by the next call.
    """

    def __init__(
        self, function: Function, written: Sequence[torch.Tensor], generators: Sequence[torch.Generator] = ()
    ):
        self._function = function
        self._written, self._generators = list(written), list(generators)
        self._recorded: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the recording with these arguments."""
        key = tuple(_shape(each) for each in arguments)
        if key not in self._recorded:
            self._recorded[key] = self._record(arguments)
        graph, inputs, outputs = self._recorded[key]
        for ours, given in zip(inputs, _flat(arguments), strict=True):
            ours.copy_(given, non_blocking=True)
        graph.replay()
        return outputs

    def _record(self, arguments: tuple[Any, ...]) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]:
        static = [_copied(each) for each in arguments]
        kept, states = Kept(self._written), [generator.get_state() for generator in self._generators]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._function(*static)
        torch.cuda.current_stream().wait_stream(side)
        kept.restore()
        graph = torch.cuda.CUDAGraph()
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
            graph.register_generator_state(generator)  # so that a replay draws on, and does not draw the same again
        with torch.cuda.graph(graph):
            outputs = self._function(*static)
        return graph, _flat(static), outputs


def _flat(arguments: Sequence[Any]) -> list[torch.Tensor]:
    """Return the tensors among arguments, those in tuples too."""
    flat: list[torch.Tensor] = []
    for each in arguments:
        flat += [each] if isinstance(each, torch.Tensor) else list(each) if isinstance(each, tuple) else []
    return flat


def _copied(argument: Any) -> Any:
    """Return a tensor, or a tuple of them, in memory of its own; anything else as it is."""
    if isinstance(argument, tuple):
        return tuple(each.clone() for each in argument)
    return argument.clone() if isinstance(argument, torch.Tensor) else argument


def _shape(argument: Any) -> Any:
    """Return what a recording cannot change of an argument: a plain value, or the shapes of tensors."""
    if isinstance(argument, tuple):
        return tuple(each.shape for each in argument)
    return argument.shape if isinstance(argument, torch.Tensor) else argument


class Kept:
    """The values of some tensors at one time, to be put back."""

    def __init__(self, tensors: Sequence[torch.Tensor]):
        self.tensors = list(tensors)
        self.values = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Write the values back, in place."""
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.copy_(value)

    def changes(self) -> list[torch.Tensor]:
        """Return what has been added to each tensor since, in f64."""
        pairs = zip(self.tensors, self.values, strict=True)
        return [tensor.detach().double() - value.double() for tensor, value in pairs]


def try_out(
    eager: Function, fast: Function, calls: Sequence[tuple[Any, ...]], groups: Sequence[Sequence[torch.Tensor]]
) -> Trial:
    """Run both forms through `calls` from the same state, compare, and put the state back as it was.

    `groups` are the tensors that are written, sorted by kind: changes are compared group by group, so that large
    numbers do not hide small ones. What is returned counts as one more group. Arguments that differ from call to call
    show numbers that were built into the fast form by mistake.
    """
    kept = Kept([tensor for group in groups for tensor in group])
    sizes = [len(group) for group in groups]
    try:
        fast(*calls[0])  # is made here
        kept.restore()
        expected = _through(eager, calls, kept)
        found = _through(fast, calls, kept)
        difference = max(
            _relative(ours, theirs)
            for ours, theirs in zip(_grouped(found, sizes), _grouped(expected, sizes), strict=True)
        )
        seconds: dict[Function, list[float]] = {eager: [], fast: []}
        for round_ in range(ROUNDS):
            for form in (eager, fast) if round_ % 2 else (fast, eager):
                seconds[form].append(_seconds(form, calls, kept))
    except BaseException:  # it cannot be made, or the run is to end
        kept.restore()
        raise
    return Trial(difference, min(seconds[eager]), min(seconds[fast]))


def _through(function: Function, calls: Sequence[tuple[Any, ...]], kept: Kept) -> list[torch.Tensor]:
    """Return the changes that the calls make and what they return, and undo them."""
    returned = [value for call in calls for value in _tensors(function(*call))]
    result = [*kept.changes(), *returned]
    kept.restore()
    return result


def _tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors of a returned value as copies, for the next call may write over them."""
    if isinstance(value, torch.Tensor):
        return [value.detach().double().clone()]
    return [tensor for each in value for tensor in _tensors(each)]


def _grouped(tensors: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[Sequence[torch.Tensor]]:
    groups, start = [], 0
    for size in sizes:
        groups.append(tensors[start : start + size])
        start += size
    return [*groups, tensors[start:]]


def _relative(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Return the norm of the difference of two lists over that of the second; infinite where it is not finite."""
    if not ours:
        return 0.0
    apart = float(sum((one - other).square().sum() for one, other in zip(ours, theirs, strict=True))) ** 0.5
    size = float(sum(other.square().sum() for other in theirs)) ** 0.5
    relative = 0.0 if apart == 0.0 else apart / size if size else float("inf")
    return relative if relative < float("inf") else float("inf")  # not a number is no agreement


def _seconds(function: Function, calls: Sequence[tuple[Any, ...]], kept: Kept) -> float:
    """Return how long one call takes, and undo the calls."""
    _settle()
    started = time.perf_counter()
    for call in calls:
        function(*call)
    _settle()
    spent = time.perf_counter() - started
    kept.restore()
    return spent / len(calls)


def _settle() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
