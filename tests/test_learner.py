"""The learner against a slow one in float64, and what it must leave where it is."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from agent.config import LearnerSettings
from agent.learner import Learner
from agent.losses import Loss, q_learning
from agent.schedules import Linear, constant
from agent.state_tree import encode
from agent.types import Batch

N, FEATURES, ACTIONS = 6, 3, 2


class Network(nn.Module):
    """Two layers and a buffer that shifts the values."""

    def __init__(self, seed: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, ACTIONS))
        self.register_buffer("shift", torch.zeros(()))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.layers(observation) + self.shift


class Replay:
    """Random batches from a generator; notes what it was asked and told."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)
        self.log: list[tuple[str, Any, Any]] = []

    def sample(self, batch_size: int, importance_exponent: float) -> Batch:
        self.log.append(("sample", batch_size, importance_exponent))
        draw = partial(torch.randn, generator=self.generator)
        return Batch(
            s_tm1=draw(batch_size, FEATURES),
            a_tm1=torch.randint(ACTIONS, (batch_size,), generator=self.generator),
            r_t=3 * draw(batch_size),
            discount_t=torch.rand(batch_size, generator=self.generator),
            s_t=draw(batch_size, FEATURES),
            weight=torch.rand(batch_size, generator=self.generator),
            index=torch.randint(1000, (batch_size,), generator=self.generator),
        )

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        self.log.append(("priorities", index, td_error.clone()))


def make(seed: int = 0, *, replay: Replay | None = None, rate: Linear = constant(1e-2), **changes: Any) -> Learner:
    settings = LearnerSettings(batch_size=N, target_interval=3, **changes)
    return Learner(
        Network(seed),
        Replay() if replay is None else replay,
        partial(q_learning, double=True, kind="huber"),
        settings,
        learning_rate=rate,
        importance_exponent=Linear(0.4, 1.0, 100),
    )


def leaves(tree: Any) -> list[Any]:
    """All leaves of a state, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [tree]


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    ours, theirs = leaves(one), leaves(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(ours, theirs, strict=True)
    )


def addresses(learner: Learner) -> list[int]:
    """Where weights, buffers, target, gradients and Adam's moments lie."""
    tensors = [*learner.network.state_dict().values(), *learner.target.state_dict().values()]
    tensors += [parameter.grad for parameter in learner.network.parameters()]
    tensors += [moment for state in learner.optimizer.state.values() for moment in state.values()]
    return [tensor.data_ptr() for tensor in tensors]


class Slow:
    """The same learner written out in float64: clip the whole gradient, Adam (Kingma and Ba 2015), copy on the beat."""

    def __init__(self, learner: Learner):
        self.network, self.target = deepcopy(learner.network).double(), deepcopy(learner.target).double()
        self.settings, self.rate, self.updates = learner.settings, learner.learning_rate, 0
        self.moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in self.network.parameters()]
        self.norms: list[float] = []

    def update(self, batch: Batch, steps: int) -> None:
        batch = Batch(*(part.double() if part.is_floating_point() else part for part in batch))
        loss = q_learning(self.network, self.target, batch, double=True, kind="huber").loss
        gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).square().sum().sqrt()
        self.norms.append(norm.item())
        self.updates += 1
        t, rate = self.updates, self.rate(steps)
        with torch.no_grad():
            for parameter, moment, gradient in zip(self.network.parameters(), self.moments, gradients, strict=True):
                gradient = gradient * min(1.0, self.settings.max_grad_norm / norm.item())
                moment[0] = 0.9 * moment[0] + 0.1 * gradient
                moment[1] = 0.999 * moment[1] + 0.001 * gradient**2
                mean, square = moment[0] / (1 - 0.9**t), moment[1] / (1 - 0.999**t)
                parameter -= rate * mean / (square.sqrt() + self.settings.adam_epsilon)
        if t % self.settings.target_interval == 0:
            self.target.load_state_dict(self.network.state_dict())


@pytest.mark.parametrize("max_grad_norm", [0.3, 1000.0])
def test_equals_a_slow_learner(max_grad_norm: float) -> None:
    """Weights and target weights follow Adam on clipped gradients at the scheduled rate, with copies on the beat."""
    # A large epsilon keeps Adam from dividing the size of the gradient out, so that clipping shows.
    learner = make(rate=Linear(0.1, 0.01, 10), max_grad_norm=max_grad_norm, adam_epsilon=0.5)
    slow, batches = Slow(learner), Replay()
    for steps in range(10):
        learner.update(1, steps)
        slow.update(batches.sample(N, 1.0), steps)
        for ours, theirs in ((learner.network, slow.network), (learner.target, slow.target)):
            for name, tensor in theirs.state_dict().items():
                torch.testing.assert_close(ours.state_dict()[name].double(), tensor, rtol=1e-5, atol=1e-6)
    assert (min(slow.norms) > max_grad_norm) if max_grad_norm < 1 else (max(slow.norms) < max_grad_norm)


def test_the_target_is_copied_exactly_and_only_on_the_beat() -> None:
    """After every third update the target is the network, buffers included; in between it stands still."""
    learner = make()
    for update in range(1, 8):
        learner.network.shift.fill_(update)
        before = deepcopy(learner.target.state_dict())
        learner.update(1, 0)
        assert same(learner.target.state_dict(), learner.network.state_dict()) == (update % 3 == 0)
        assert same(learner.target.state_dict(), before) == (update % 3 != 0)


def test_the_beat_counts_updates_not_calls() -> None:
    """Several updates in one call beat as often as the same updates one by one."""
    one, many = make(), make()
    for _ in range(7):
        one.update(1, 5)
    many.update(7, 5)
    assert one.updates == many.updates == 7
    assert same(one.state_dict(), many.state_dict())


def test_the_target_starts_as_the_network_and_never_learns() -> None:
    """The target begins as an equal copy with its own memory and takes no gradient."""
    learner = make()
    assert same(learner.target.state_dict(), learner.network.state_dict())
    ours = {tensor.data_ptr() for tensor in learner.network.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in learner.target.state_dict().values()}
    learner.update(2, 0)
    assert all(not p.requires_grad and p.grad is None for p in learner.target.parameters())
    assert all(p.requires_grad for p in learner.network.parameters())


def test_updates_write_in_place() -> None:
    """Weights change, but weights, target, gradients and moments stay where they are in memory."""
    learner = make()
    network = learner.network
    learner.update(1, 0)
    places, before = addresses(learner), deepcopy(learner.state_dict())
    learner.update(5, 0)
    assert addresses(learner) == places and learner.network is network
    assert not same(learner.state_dict()["network"], before["network"])


def test_loading_writes_weights_in_place() -> None:
    """A load changes the numbers the actor sees without moving them."""
    learner, other = make(0), make(1)
    learner.update(1, 0)
    other.update(1, 0)
    count = 2 * len(learner.network.state_dict()) + len(list(learner.network.parameters()))
    places = addresses(learner)[:count]
    learner.load_state_dict(deepcopy(other.state_dict()))
    assert addresses(learner)[:count] == places


def test_loading_writes_moments_in_place() -> None:
    """A load keeps Adam's moments where they are, as the class promises."""
    learner, other = make(0), make(1)
    learner.update(1, 0)
    other.update(1, 0)
    places = addresses(learner)
    learner.load_state_dict(deepcopy(other.state_dict()))
    assert addresses(learner) == places


def test_loading_shares_nothing_with_the_state() -> None:
    """Two learners of which one took the other's state learn on without disturbing each other."""
    learner, other = make(0), make(1, replay=Replay(5))
    learner.update(4, 0)
    other.load_state_dict(learner.state_dict())
    before = deepcopy(learner.state_dict())
    other.update(3, 0)
    assert same(learner.state_dict(), before)


def test_the_step_size_follows_the_schedule() -> None:
    """The optimizer's step size is the schedule's at the environment step of the update."""
    learner = make(rate=Linear(1e-3, 1e-4, 1000))
    for steps in (0, 500, 1000, 2000):
        learner.update(1, steps)
        assert [group["lr"] for group in learner.optimizer.param_groups] == [Linear(1e-3, 1e-4, 1000)(steps)]


def test_replay_is_asked_and_told() -> None:
    """Each update draws one batch at the scheduled exponent, and gives the errors of that batch back to its index."""
    learner = make()
    with_losses: list[tuple[Batch, Loss]] = []

    def loss(online: Any, target: Any, batch: Batch) -> Loss:
        result = q_learning(online, target, batch, double=True, kind="huber")
        with_losses.append((batch, result))
        return result

    learner.loss = loss
    learner.update(3, 50)
    log = learner.replay.log
    assert [entry[0] for entry in log] == ["sample", "priorities"] * 3
    assert all(entry[1:] == (N, pytest.approx(0.7)) for entry in log[::2])
    for (_, index, td_error), (batch, result) in zip(log[1::2], with_losses, strict=True):
        assert index is batch.index
        assert torch.equal(td_error, result.td_error) and not td_error.requires_grad


class Elsewhere(NamedTuple):
    """A tensor on another device: it can be moved, and nothing else."""

    tensor: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        return self.tensor.to(device)


def test_a_batch_is_moved_to_the_network_but_not_its_index() -> None:
    """Replay may lie elsewhere: the learner moves what it computes with and gives the index back as it got it."""

    class Remote(Replay):
        def sample(self, batch_size: int, importance_exponent: float) -> Batch:
            self.batch = Batch(*map(Elsewhere, super().sample(batch_size, importance_exponent)))
            return self.batch

    learner, near = make(replay=Remote()), make()
    learner.update(3, 0)
    near.update(3, 0)
    assert same(learner.state_dict(), near.state_dict())
    _, index, td_error = learner.replay.log[-1]
    assert index is learner.replay.batch.index and td_error.device == index.device


@pytest.mark.gpu
def test_the_network_on_the_gpu_and_replay_on_the_host() -> None:
    """With the network on the GPU the weights follow those on the host, and replay on the host hears from the host."""
    host = make()
    learner = Learner(
        Network(0).cuda(),
        Replay(),
        host.loss,
        host.settings,
        learning_rate=host.learning_rate,
        importance_exponent=host.importance_exponent,
    )
    for steps in range(7):
        host.update(1, steps)
        learner.update(1, steps)
    for ours, theirs in zip(learner.network.parameters(), host.network.parameters(), strict=True):
        assert ours.is_cuda
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
    told = [entry for entry in learner.replay.log if entry[0] == "priorities"]
    assert all(index.device.type == td_error.device.type == "cpu" for _, index, td_error in told)


def test_weights_that_need_no_gradient_stand_still() -> None:
    """A layer that does not require gradients is left out of the updates and the others learn."""
    network = Network(0)
    network.layers[0].requires_grad_(False)
    before = deepcopy(network.state_dict())
    learner = Learner(
        network,
        Replay(),
        partial(q_learning, double=False, kind="mse"),
        LearnerSettings(batch_size=N, target_interval=1),
        learning_rate=constant(1e-2),
        importance_exponent=constant(1.0),
    )
    learner.update(3, 0)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"layers.2.weight", "layers.2.bias"}


def test_metrics_are_of_the_last_update_of_a_call() -> None:
    """Loss, error, values and the norm before clipping are those that a second look at the same batch gives."""
    learner = make(max_grad_norm=1e-3)
    learner.update(2, 0)
    learner.metrics.take()
    twin, batches = deepcopy(learner.network), deepcopy(learner.replay)
    target = deepcopy(learner.target)
    learner.update(1, 0)
    result = q_learning(twin, target, batches.sample(N, 1.0), double=True, kind="huber")
    gradients = torch.autograd.grad(result.loss, list(twin.parameters()))
    taken = learner.metrics.take()
    assert taken == {
        "train/loss": pytest.approx(result.loss.item()),
        "train/td_error_abs": pytest.approx(result.td_error.abs().mean().item()),
        "train/grad_norm": pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-5),
        "q/mean": pytest.approx(result.q_tm1.mean().item(), rel=1e-5),
        "q/max": pytest.approx(result.q_tm1.max().item()),
    }


def continued(learner: Learner, batches: Replay) -> Any:
    """The state after five more updates with `batches`."""
    learner.replay = deepcopy(batches)
    learner.update(2, 60)
    learner.update(3, 80)
    return learner.state_dict()


@pytest.mark.parametrize("left_out", [None, "network", "target", "optimizer", "updates"])
@pytest.mark.parametrize("used", [False, True])
def test_state_goes_on_where_it_was(left_out: str | None, used: bool) -> None:
    """A learner that takes the state goes on bit for bit as if never stopped; without any one item it does not."""
    rate = Linear(1e-2, 1e-3, 100)
    learner = make(rate=rate)
    learner.update(4, 40)  # not on the beat, so the target is not the network
    state = deepcopy(learner.state_dict())
    assert sorted(state) == ["network", "optimizer", "target", "updates"]
    assert encode(state), "every leaf can be kept in a checkpoint"
    batches = deepcopy(learner.replay)
    expected = continued(learner, batches)
    other = make(1, rate=rate)
    if used:
        other.update(5, 0)
    if left_out is not None:
        state[left_out] = deepcopy(other.state_dict()[left_out])
    other.load_state_dict(state)
    assert same(continued(other, batches), expected) == (left_out is None)


def test_the_state_of_a_learner_that_never_learned() -> None:
    """Going back to before the first update takes the moments away again."""
    learner = make()
    state = deepcopy(learner.state_dict())
    first = deepcopy(continued(learner, Replay(3)))
    learner.load_state_dict(state)
    assert same(continued(learner, Replay(3)), first)


@pytest.mark.parametrize("wrong", ["network", "target", "optimizer"])
def test_a_state_that_does_not_fit_is_refused(wrong: str) -> None:
    """What belongs to another network raises ValueError, as agent.types.Stateful says."""
    learner = make()
    learner.update(1, 0)
    state = deepcopy(learner.state_dict())
    state[wrong].popitem()
    with pytest.raises(ValueError):
        learner.load_state_dict(state)
