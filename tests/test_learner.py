"""The learner against a slow one in float64, and what it must leave where it is."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from learners import ACTIONS, N, Network, Replay, addresses, make, same
from torch import nn

from agent.adam import clipping
from agent.learner import Learner
from agent.losses import Loss, q_learning
from agent.schedules import Linear
from agent.types import Batch


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


def noted_rates(learner: Learner) -> list[float]:
    """The step sizes that the optimizer will be given."""
    move, rates = learner.optimizer.move, []
    learner.optimizer.move = lambda gradients, rate, *how: rates.append(rate) or move(gradients, rate, *how)
    return rates


def test_the_step_size_follows_the_schedule() -> None:
    """The optimizer's step size is the schedule's at the environment step of the update."""
    learner = make(rate=Linear(1e-3, 1e-4, 1000))
    rates = noted_rates(learner)
    for steps in (0, 500, 1000, 2000):
        learner.update(1, steps)
    assert rates == [Linear(1e-3, 1e-4, 1000)(steps) for steps in (0, 500, 1000, 2000)]


def test_the_step_size_can_be_scaled() -> None:
    """The scale multiplies the scheduled step size, is 1 at first, and is nobody's state."""
    learner, other = make(rate=Linear(1e-3, 1e-4, 1000)), make()
    learner.rate_scale = 0.3
    rates = noted_rates(learner)
    learner.update(1, 500)
    assert rates == [Linear(1e-3, 1e-4, 1000)(500) * 0.3]
    other.load_state_dict(learner.state_dict())
    assert other.rate_scale == 1.0


def test_replay_is_asked_and_told() -> None:
    """Each update draws one batch as scheduled for the step, and gives the loss's priorities back to its index."""
    with_losses: list[Loss] = []

    def loss(online: Any, target: Any, batch: Batch, generator: torch.Generator) -> Loss:
        result = q_learning(online, target, batch, double=True, kind="huber")
        with_losses.append(result._replace(priority=result.td_error.square()))
        return with_losses[-1]

    learner = make(loss=loss)
    learner.update(2, 49)
    learner.update(1, 50)
    log = learner.replay.log
    assert [entry[0] for entry in log] == ["sample", "priorities"] * 3
    first, later = (N, pytest.approx(0.694), 3, pytest.approx(0.9441)), (N, pytest.approx(0.7), 2, pytest.approx(0.945))
    assert [entry[1:] for entry in log[::2]] == [first, first, later]
    for (_, index, priority), batch, result in zip(log[1::2], learner.replay.batches, with_losses, strict=True):
        assert index is batch.index
        assert torch.equal(priority, result.priority) and not priority.requires_grad


def test_an_update_has_its_order() -> None:
    """Spectral norms move before the loss; the target folds when it was copied, the network at the end of the call."""
    learner = make()
    log = learner.network.log = learner.target.log = learner.replay.log = []
    learner.target.name, loss = "target", learner.loss
    learner.loss = lambda *given: log.append("loss") or loss(*given)
    learner.update(4, 0)
    each = ["sample", "network iterates", "loss", "priorities"]
    assert [entry if isinstance(entry, str) else entry[0] for entry in log] == [
        *each, *each, *each, "target folds", *each, "network folds"
    ]  # fmt: skip


def test_noise_is_fresh_and_independent() -> None:
    """In every update both networks see their own draw of the noise, all through the update; the loss draws behind."""
    seen = []

    def loss(online: Any, target: Any, batch: Batch, generator: torch.Generator) -> Loss:
        for values, network in ((online, learner.network), (target, learner.target)):
            noise = values(batch.s_t) - network(batch.s_t)
            torch.testing.assert_close(noise, noise[:1].expand_as(noise))
            fractions = torch.rand(N, 2)
            expected = values(batch.s_t)[:, None] + fractions[:, :, None]
            torch.testing.assert_close(values.quantiles(batch.s_t, fractions), expected)
            assert values.fractions is network.fractions
            seen.append(noise[0].detach())
        seen.append(torch.rand(2, generator=generator))
        return q_learning(online, target, batch, double=True, kind="huber")

    learner = make(network=Network(0, noisy=True), loss=loss, noise_seed=8)
    learner.update(2, 0)
    generator = torch.Generator().manual_seed(8)
    for draw in (torch.randn, torch.randn, torch.rand) * 2:
        torch.testing.assert_close(seen.pop(0), draw(2, generator=generator), rtol=1e-4, atol=1e-5)
    assert not seen


def test_without_noisy_layers_nothing_is_drawn() -> None:
    """A plain network reaches the loss as it is, and the generator stays where it was."""
    learner = make()
    loss, before = learner.loss, learner.generator.get_state()
    given = []
    learner.loss = lambda *arguments: given.append(arguments) or loss(*arguments)
    learner.update(1, 0)
    assert given[0][0] is learner.network and given[0][1] is learner.target and given[0][3] is learner.generator
    assert torch.equal(learner.generator.get_state(), before)


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e3])
def test_clipping_equals_torch(max_norm: float) -> None:
    """The norm, and the gradients divided by the divisor, are those of torch's clip_grad_norm_."""
    parameters = list(Network(0).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    gradients = [parameter.grad for parameter in parameters]
    ours = [gradient.clone() for gradient in gradients]
    norm, divisor = clipping(ours, max_norm)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(parameters, max_norm))
    torch.testing.assert_close([mine / divisor for mine in ours], gradients, rtol=1e-6, atol=0.0)


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
        def sample_at(self, *asked: Any) -> Batch:
            self.batch = Batch(*map(Elsewhere, super().sample_at(*asked)))
            return self.batch

    learner, near = make(replay=Remote()), make()
    learner.update(3, 0)
    near.update(3, 0)
    assert same(learner.state_dict(), near.state_dict())
    _, index, priority = learner.replay.log[-1]
    assert index is learner.replay.batch.index and priority.device == index.device


@pytest.mark.gpu
def test_the_network_on_the_gpu_and_replay_on_the_host() -> None:
    """With the network on the GPU the weights follow those on the host, and replay on the host hears from the host."""
    host, learner = make(), make(network=Network(0).cuda())
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
    make(network=network, loss=partial(q_learning, double=False, kind="mse"), target_interval=1).update(3, 0)
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
        "train/grad_clip_fraction": 1.0,
        "q/mean": pytest.approx(result.q_tm1.mean().item(), rel=1e-5),
        "q/max": pytest.approx(result.q_tm1.max().item()),
    }
