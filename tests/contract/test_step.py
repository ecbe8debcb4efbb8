"""Section b, the step itself: closures, absent gradients, learning rates that are tensors."""

import pytest
import torch

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine
from tests.contract.mixes import (
    HIDDEN,
    MIX,
    MIXES,
    Mix,
    Net,
    assert_same,
    assert_unmoved,
    backward,
    batch,
    steps,
    train,
    weights,
)

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@mixes
def test_a_closure_is_evaluated_once_with_gradients_on_before_anything_is_read(mix: Mix) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer = mix.optimizer(ours)
    graded: list[bool] = []

    def closure() -> float:
        graded.append(torch.is_grad_enabled())
        return float(backward(ours, len(graded)).detach())

    with torch.no_grad():
        losses = [optimizer.step(closure), optimizer.step(closure=closure)]
    expected = [float(backward(mix.net(), 1).detach())]
    train(theirs, [1, 2], steps(mix.separate(theirs)))
    assert graded == [True, True]
    assert losses[:1] == pytest.approx(expected)
    assert_same(ours, theirs)


def test_a_closure_may_return_anything_and_none_is_returned_without_one() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    loss = torch.tensor(3.0)
    assert optimizer.step(lambda: loss) is loss  # type: ignore[arg-type, return-value]
    assert optimizer.step() is None


@mixes
def test_without_gradients_nothing_moves_and_no_state_is_made(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    before = weights(net)
    optimizer.step()
    assert_unmoved(net, before)
    assert all(p.grad is None for p in net.parameters())
    assert len(optimizer.state) == 0


@mixes
def test_a_parameter_without_gradient_keeps_none_and_gets_no_state(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    before = net.head.bias.detach().clone()
    for seed in range(3):
        backward(net, seed)
        net.head.bias.grad = None
        optimizer.step()
    assert net.head.bias.grad is None
    assert net.head.bias not in optimizer.state
    assert torch.equal(net.head.bias, before)


def test_a_parameter_that_does_not_require_gradients_is_left_alone() -> None:
    net = MIX.net()
    net.hidden.weight.requires_grad_(False)
    optimizer = MIX.optimizer(net)
    before = net.hidden.weight.detach().clone()
    train(net, range(3), optimizer.step)
    assert torch.equal(net.hidden.weight, before)
    assert not net.hidden.weight.requires_grad
    assert net.hidden.weight not in optimizer.state


def test_zero_gradients_move_what_decay_and_momentum_move_and_no_more() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    for net, step, zero in (
        (ours, optimizer.step, lambda: optimizer.zero_grad(set_to_none=False)),
        (theirs, steps(separate), lambda: [other.zero_grad(set_to_none=False) for other in separate]),
    ):
        train(net, [0], step)
        zero()
        step()
    assert_same(ours, theirs)


def test_zero_grad_clears_every_groups_gradients() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    backward(net, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_unused_parameters_of_a_plan_that_is_scheduled_warn_once_without_a_scheduler() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-3))]))
    train(net, [0], optimizer.step)
    with pytest.warns(GroupwiseWarning, match="no PlanScheduler is attached"):
        train(net, [1], optimizer.step)
    train(net, [2], optimizer.step)


def test_a_learning_rate_that_is_a_tensor_is_obeyed_and_edited_in_place() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    for seed in range(4):
        train(ours, [seed], optimizer.step)
        train(theirs, [seed], steps(separate))
        for group in optimizer.param_groups:
            group["lr"].mul_(0.5)
        for group in (g for one in separate for g in one.param_groups):
            group["lr"] *= 0.5
    assert_same(ours, theirs)


def test_printing_names_every_group_and_its_algorithm() -> None:
    text = repr(MIX.optimizer(MIX.net()))
    assert text.startswith("GroupedOptimizer (")
    assert "algorithm: AdamW" in text
    assert "algorithm: SGD" in text
    assert HIDDEN[0] in text


def test_a_net_is_kept_apart_from_its_optimizer() -> None:
    net = Net()
    MIX.optimizer(net)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert batch(0)[0].shape == (12, 3)
