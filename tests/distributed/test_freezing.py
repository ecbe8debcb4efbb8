"""Freezing among several processes: under DistributedDataParallel `requires_grad` stays, under FSDP2 it moves.

Either way the weights are those of one process, and the ranks' own are equal.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, unfreeze_down, until
from groupwise.errors import OptimizerError
from tests.distributed.jobs import BASE, ROUNDING, Net, Run, alone, apart, backward, ddp, fsdp, part, same
from tests.distributed.ranks import Ranks

PLANS = {
    "after": Plan([BASE, Rule("blocks.*", trainable=after("3 steps"))]),
    "until": Plan(
        [BASE, Rule("embed.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0, trainable=until("3 steps"))]
    ),
    "from the top down": Plan([BASE, Rule("*", trainable=unfreeze_down("2 steps"))]),
    "for good": Plan([BASE, Rule("blocks.0", trainable=False)]),
}
plans = pytest.mark.parametrize("name", PLANS)


def watched(run: Run) -> list[list[bool]]:
    """Eleven steps; what requires gradients after each."""
    return [[p.requires_grad for p in run.steps([step]).net.parameters()] for step in range(11)]


def compared(plan: Plan, wrap: Callable[[Plan], Run]) -> tuple[float, bool, list[list[bool]]]:
    ours, theirs = wrap(plan), alone(plan)
    flags = watched(ours)
    return apart(ours.weights, theirs.steps(range(11)).weights), same(ours.weights), flags


@plans
def test_under_ddp_weights_equal_one_process_and_requires_grad_never_changes(two: Ranks, name: str) -> None:
    for difference, equal, flags in two(compared, PLANS[name], ddp):
        assert difference < ROUNDING
        assert equal
        assert all(now == flags[0] for now in flags)
        assert all(flags[0]) == (name != "for good")


@plans
def test_under_fsdp_weights_equal_one_process_and_requires_grad_is_what_it_is_there(two: Ranks, name: str) -> None:
    in_one_process = watched(alone(PLANS[name]))
    for difference, equal, flags in two(compared, PLANS[name], fsdp):
        assert difference < ROUNDING
        assert equal
        assert flags == in_one_process


def costs(plan: Plan) -> tuple[bool, bool]:
    """Whether the frozen first block has gradients after a backward pass, under DDP and under FSDP2."""
    found = []
    for run in (ddp(plan), fsdp(plan)):
        backward(run.model, part(0))
        found.append(run.net.blocks[0].linear.weight.grad is not None)
    return found[0], found[1]


def test_what_is_frozen_for_a_time_costs_its_backward_under_ddp_and_nothing_under_fsdp(two: Ranks) -> None:
    assert two(costs, PLANS["after"]) == [(True, False)] * 2


def test_what_is_frozen_for_good_before_wrapping_costs_nothing(two: Ranks) -> None:
    assert two(costs, PLANS["for good"]) == [(False, False)] * 2


def wrapped_first(plan: Plan, owned: bool) -> tuple[float, bool]:
    """The optimizer is built from the wrapped model; the rule may leave what is frozen without an optimizer."""
    plan = plan if owned else Plan([Rule("blocks.0", trainable=False), *[Rule(part, **ADAMW) for part in PARTS]])
    net = Net()
    model = DistributedDataParallel(net)
    ours = Run(model, plan)
    theirs = alone(plan).steps(range(5))
    ours.steps(range(5))
    unwrapped = {name.removeprefix("module."): w for name, w in ours.weights.items()}
    return apart(unwrapped, theirs.weights), all(p.requires_grad for p in net.parameters())


ADAMW: dict[str, Any] = {"optimizer": "AdamW", "lr": 1e-2}
PARTS = ["embed", "blocks.1", "blocks.2", "temperature", "head"]


@pytest.mark.parametrize("owned", [True, False])
def test_built_from_the_wrapped_model_it_leaves_requires_grad_alone(two: Ranks, owned: bool) -> None:
    for difference, untouched in two(wrapped_first, PLANS["for good"], owned):
        assert difference < ROUNDING
        assert untouched


def frozen_too_early() -> str:
    net = Net()
    for p in net.blocks.parameters():
        p.requires_grad_(False)  # as an optimizer does that is built before the process group exists
    model = DistributedDataParallel(net)
    optimizer = GroupedOptimizer(net, PLANS["after"])
    with pytest.raises(OptimizerError, match=r"'blocks\.0\.linear\.weight' is to be trained.*init_process_group first"):
        PlanScheduler(optimizer, total_steps=20)
    return type(model).__name__


def test_what_could_never_thaw_is_an_error_before_the_first_step(two: Ranks) -> None:
    assert two(frozen_too_early) == ["DistributedDataParallel"] * 2


def adversaries(wrapped: bool) -> tuple[dict[str, torch.Tensor], list[bool]]:
    """Two networks in turns; the view switches the other's gradients off, or puts them aside."""
    torch.manual_seed(0)
    nets = nn.ModuleDict({"generator": nn.Linear(3, 4), "critic": nn.Linear(4, 1)}).double()
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.05, weight_decay=0.0), Rule("critic", lr=0.1)])
    optimizer = GroupedOptimizer(dict(nets.items()), plan)
    generator, critic = (DistributedDataParallel(net) if wrapped else net for net in nets.values())
    for step in range(4):
        noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        if wrapped:
            noise = noise.chunk(dist.get_world_size())[dist.get_rank()]
        with optimizer.only("critic") as view:
            critic(generator(noise)).square().mean().backward()
            view.step()
            view.zero_grad()
        with optimizer.only("generator") as view:
            (-critic(generator(noise))).mean().backward()
            view.step()
            view.zero_grad()
    left = [p.grad is None for p in nets.parameters()]
    return {name: p.detach().clone() for name, p in nets.named_parameters()}, left


def in_turns() -> tuple[float, bool, bool]:
    (ours, left), (theirs, _) = adversaries(wrapped=True), adversaries(wrapped=False)
    return apart(ours, theirs), same(ours), all(left)


def test_networks_trained_in_turns_under_ddp_equal_one_process_and_leave_no_gradient_behind(two: Ranks) -> None:
    for difference, equal, clean in two(in_turns):
        assert difference < ROUNDING
        assert equal
        assert clean
