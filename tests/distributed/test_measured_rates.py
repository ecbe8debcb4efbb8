"""Rates that follow measurements among ranks: the norms are of whole tensors and of reduced gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from groupwise import Parts, Plan, Rule, gradient_share, scale, trust_ratio, update_ratio
from groupwise.errors import OptimizerError
from tests.distributed.jobs import BASE, EMBED, MUON, STEPS, alone, apart, ddp, fsdp, part, same, whole
from tests.distributed.ranks import Ranks

NEAR = 1e-6  # what is kept of controllers and averages is float32
SGD = Rule("*", optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=0.01)
PLANS = {
    "lamb": Plan([BASE, Rule("*", lr=trust_ratio())]),
    "lars": Plan([SGD, Rule("*", lr=trust_ratio(0.02, of="gradient"))]),
    "per group, with muon": Plan([BASE, EMBED, MUON, Rule("blocks.*", lr=trust_ratio(0.5, per="group"))]),
    "update_ratio": Plan([BASE, EMBED, Rule("*", lr=update_ratio(1e-2, speed=0.5))]),
    "gradient_share": Plan([SGD, Rule("*", lr=gradient_share(smoothing=0.5))]),
}
plans = pytest.mark.parametrize("name", PLANS)
wraps = pytest.mark.parametrize("wrap", [ddp, fsdp])


def compared(plan: Plan, wrap: type) -> tuple[float, bool, bool]:
    ours, theirs = wrap(plan).steps(range(STEPS)), alone(plan).steps(range(STEPS))
    factors = {group["name"]: group["rate_factor"] for group in ours.optimizer.param_groups if "rate_factor" in group}
    plain = all(type(factor) is torch.Tensor and factor.ndim == 0 for factor in factors.values())
    return apart(ours.weights, theirs.weights), same(ours.weights) and same(factors), plain


@plans
@wraps
def test_two_ranks_equal_one_process_on_the_joint_batch_and_one_another_bit_for_bit(
    two: Ranks, wrap: type, name: str
) -> None:
    for difference, equal, plain in two(compared, PLANS[name], wrap):
        assert difference < NEAR
        assert equal
        assert plain


def handed_over(plan: Plan, wrap: type, flatten: bool, before: int) -> float:
    """A run goes on in another, through DCP."""
    run, other = wrap(plan).steps(range(before)), wrap(plan)
    how = StateDictOptions(flatten_optimizer_state_dict=flatten)
    saved = copy.deepcopy(get_optimizer_state_dict(run.net, run.optimizer, options=how))
    other.scheduler.load_state_dict(run.scheduler.state_dict())
    set_optimizer_state_dict(other.net, other.optimizer, saved, options=how)
    other.net.load_state_dict(run.net.state_dict())
    return apart(run.steps(range(6, 9)).weights, other.steps(range(6, 9)).weights)


@plans
@wraps
@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_run_goes_on_bit_for_bit_through_a_distributed_checkpoint(
    two: Ranks, wrap: type, name: str, flatten: bool, before: int
) -> None:
    assert two(handed_over, PLANS[name], wrap, flatten, before) == [0.0] * 2


def differing() -> str:
    import torch.distributed as dist

    factor = trust_ratio(1.0 if dist.get_rank() else 0.5)
    run = ddp(Plan([BASE, Rule("*", lr=factor)]))
    try:
        run.steps(range(1))
    except OptimizerError as error:
        return str(error)
    return ""


def test_ranks_with_other_factors_are_told_apart(two: Ranks) -> None:
    for said in two(differing):
        assert "do not run one plan" in said
        assert "measured" in said


def in_parts() -> str:
    parts = [Parts("head.weight", axis=0, into=["a", "b", "c"])]
    run = fsdp(Plan([BASE, Rule("*@a", lr=scale(1.0)), Rule("head", lr=trust_ratio())], parts=parts))
    before = {name: whole(p).clone() for name, p in run.net.named_parameters()}
    nn.functional.cross_entropy(run.net(part(0)[0]), part(0)[1]).backward()
    try:
        run.optimizer.step()
    except OptimizerError as error:
        return str(error) if apart(run.weights, before) == 0 else "moved"
    return ""


def test_parts_of_a_sharded_parameter_have_no_norms(two: Ranks) -> None:
    for said in two(in_parts):
        assert "is taken apart by the plan and sharded" in said
