"""DistributedDataParallel: ranks on parts of a batch do what one process does on the whole of it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm, scale
from tests.distributed.jobs import BASE, PLANS, ROUNDING, STEPS, Net, alone, apart, backward, ddp, joint, part, same
from tests.distributed.ranks import Ranks


def compared(plan: Plan, sparse: bool = False) -> tuple[float, float, bool]:
    ours, theirs = ddp(plan, sparse=sparse).steps(range(STEPS)), alone(plan, sparse=sparse).steps(range(STEPS))
    return apart(ours.weights, theirs.weights), apart(ours.measured, theirs.measured), same(ours.weights)


@pytest.mark.parametrize("name", PLANS)
def test_two_ranks_equal_one_process_on_the_joint_batch_and_one_another_bit_for_bit(two: Ranks, name: str) -> None:
    for weights, measured, equal in two(compared, PLANS[name]):
        assert weights < ROUNDING
        assert measured < 1e-6
        assert equal


def test_sparse_gradients_are_reduced_clipped_and_stepped(two: Ranks) -> None:
    table = Rule("embed.*", optimizer="SparseAdam", lr=0.05, weight_decay=0.0, clip=clip_norm(0.05))
    for weights, measured, equal in two(compared, Plan([BASE, table], clip=clip_norm(0.1)), True):
        assert weights < ROUNDING
        assert measured < 1e-6
        assert equal


def in_bfloat16(plan: Plan) -> tuple[float, bool]:
    ours, theirs = ddp(plan, dtype=torch.float32), alone(plan, dtype=torch.float32)
    for run, batch in ((ours, part(0)), (theirs, joint(0))):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(run.model(batch[0]), batch[1])
        loss.backward()
        run.optimizer.step()
    return apart(ours.weights, theirs.weights), same(ours.weights)


def test_under_autocast_a_step_equals_one_process_within_the_rounding_of_bfloat16(two: Ranks) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1, clip=clip_norm(0.5))])
    for difference, equal in two(in_bfloat16, plan):
        assert difference < 1e-3
        assert equal


def accumulated(plan: Plan) -> tuple[float, bool]:
    ours, theirs = ddp(plan), alone(plan)
    for run, batch in ((ours, part), (theirs, joint)):
        for step in range(0, 6, 2):
            run.optimizer.zero_grad()
            if isinstance(run.model, DistributedDataParallel):
                with run.model.no_sync():
                    backward(run.model, batch(step))
            else:
                backward(run.model, batch(step))
            backward(run.model, batch(step + 1))
            run.optimizer.step()
            run.scheduler.step()
    return apart(ours.weights, theirs.weights), same(ours.weights)


def test_accumulation_without_communication_equals_one_process(two: Ranks) -> None:
    for difference, equal in two(accumulated, PLANS["adamw and sgd, clipped by rule and as a whole"]):
        assert difference < ROUNDING
        assert equal


def resolved(plan: Plan) -> bool:
    net = Net()
    before = GroupedOptimizer(net, plan).resolution
    after = GroupedOptimizer(DistributedDataParallel(net), plan).resolution
    return str(before) == str(after) and before.parameters == after.parameters


def test_a_plan_means_the_same_before_and_after_wrapping(two: Ranks) -> None:
    assert all(two(resolved, Plan([BASE, Rule("blocks.*", lr=scale(0.1))])))


def moved(plan: Plan) -> tuple[float, str]:
    """A run saved under DDP, resumed alone."""
    ours, theirs = ddp(plan).steps(range(3)), alone(plan)
    theirs.net.load_state_dict(ours.net.state_dict())
    report = theirs.optimizer.resume(copy.deepcopy(ours.optimizer.state_dict()))
    theirs.scheduler.load_state_dict(ours.scheduler.state_dict())
    return apart(ours.steps(range(3, 6)).weights, theirs.steps(range(3, 6)).weights), str(report)


def test_a_checkpoint_of_two_ranks_resumes_in_one_process(two: Ranks) -> None:
    for difference, report in two(moved, PLANS["with muon, clipped by module"]):
        assert difference < ROUNDING
        assert report == "every parameter found its state"
