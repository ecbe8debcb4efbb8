"""Ranks that train one model and run different plans: an error on all of them that says in what they differ."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, _ranks, _torch, after, clip_norm, clip_value, scale
from groupwise.errors import OptimizerError
from groupwise.optim.agreement import compared
from groupwise.schedules import cosine, function, linear
from tests.distributed.jobs import mesh, patience
from tests.distributed.ranks import Ranks

BASE = Rule("*", optimizer="SGD", lr=cosine(0.1), momentum=0.9)
Making = Callable[[int], Plan]


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def batch() -> torch.Tensor:
    """This rank's own data."""
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(dist.get_rank()))


def outcome(model: nn.Module, step: Callable[[], Any], updates: int = 3) -> tuple[str, float]:
    """What training comes to, "fine" or the sentence of the error, and how long it took."""
    begun, before = time.monotonic(), [p.detach().clone() for p in model.parameters()]
    try:
        for _ in range(updates):
            model.zero_grad()
            model(batch()).square().mean().backward()
            step()
    except OptimizerError as error:
        same = all(torch.equal(p.detach(), q) for p, q in zip(model.parameters(), before, strict=True))
        return f"{error}{'' if same else ' (though it has moved something)'}", time.monotonic() - begun
    return "fine", time.monotonic() - begun


def wrapped(how: str) -> nn.Module:
    if how == "ddp":
        return DistributedDataParallel(net())
    model = net()
    fully_shard(model[0], mesh=mesh())
    fully_shard(model, mesh=mesh())
    return model


def another_plan(rank: int, what: str) -> Plan:
    rules: dict[str, list[Rule]] = {
        "lr": [Rule("*", lr=cosine(0.1 + 0.1 * rank))],
        "shape": [Rule("*", lr=linear(0.1) if rank else cosine(0.1))],
        "momentum": [Rule("1.*", momentum=0.9 - 0.1 * rank)],
        "default": [Rule("1.*", nesterov=bool(rank))],
        "algorithm": [Rule("1.*", optimizer="AdamW" if rank else "Adam", lr=0.1, weight_decay=0.0)],
        "clip": [Rule("*", clip=clip_norm(0.1 + rank))],
        "clip of one rank": [Rule("1.*", clip=clip_norm(0.1))] if rank else [],
        "freezing": [Rule("1.*", trainable=after(f"{2 + rank} steps"))],
        "a rule more": [Rule("1.*", lr=scale(0.5))] if rank else [],
    }
    if what == "whole clip":
        return Plan([BASE], clip=clip_value(0.1) if rank else clip_norm(0.1))
    return Plan([BASE, *rules[what]])


SAID = {
    "lr": r"group 'base': lr is 0\.1 on rank 0 and 0\.2 on rank 1",
    "shape": r"group 'base': lr, as declared is .*cosine.* on rank 0 and .*linear.* on rank 1",
    "momentum": r"momentum is 0\.9 on rank 0 and 0\.8 on rank 1|group '1' is on rank 1 and not on rank 0",
    "default": r"nesterov is False on rank 0 and True on rank 1|group '1' is on rank 1 and not on rank 0",
    "algorithm": r"group '1': algorithm is Adam on rank 0 and AdamW on rank 1",
    "clip": r"group 'base': clip is .*0\.1.* on rank 0 and .*1\.1.* on rank 1",
    "clip of one rank": r"group '1' is on rank 1 and not on rank 0",
    "freezing": r"trainable is .*2.* on rank 0 and .*3.* on rank 1",
    "a rule more": r"group '1' is on rank 1 and not on rank 0",
    "whole clip": r"plan: clip is .*norm.* on rank 0 and .*value.* on rank 1",
}


def differing(what: str, how: str) -> tuple[str, float]:
    model = wrapped(how)
    optimizer = GroupedOptimizer(model, another_plan(dist.get_rank(), what))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    return outcome(model, lambda: (optimizer.step(), scheduler.step()))


@pytest.mark.parametrize("what", SAID)
def test_replicas_with_different_plans_are_told_in_what_on_every_rank_before_anything_moves(
    two: Ranks, what: str
) -> None:
    for sentence, _ in two(differing, what, "ddp"):
        assert sentence.startswith("the ranks that train this model do not run one plan: ")
        assert "moved" not in sentence
    sentences = [sentence for sentence, _ in two(differing, what, "ddp")]
    assert sentences[0] == sentences[1]
    with pytest.raises(OptimizerError, match=SAID[what]):
        raise OptimizerError(sentences[0])


@pytest.mark.parametrize("what", ["lr", "clip of one rank"])
def test_so_are_ranks_that_hold_shards(two: Ranks, what: str) -> None:
    for sentence, _ in two(differing, what, "fsdp"):
        assert "do not run one plan" in sentence


def schedules(what: str) -> tuple[str, float]:
    rank, model = dist.get_rank(), wrapped("ddp")
    optimizer = GroupedOptimizer(model, Plan([BASE]))
    lengths = {"total_steps": 10 + rank} if what == "lengths" else {"total_steps": 10}
    scheduler = PlanScheduler(optimizer, **lengths)
    if what == "loaded":
        scheduler.load_state_dict({"last_epoch": 3 * rank})
    if what == "stepped" and rank:
        scheduler.step()
    if what == "value" and rank:
        optimizer.load_state_dict(
            {
                **optimizer.state_dict(),
                "param_groups": [{**optimizer.state_dict()["param_groups"][0], "dampening": 0.5}],
            }
        )
    return outcome(model, optimizer.step)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("lengths", "PlanScheduler: total_steps is 10 on rank 0 and 11 on rank 1"),
        ("loaded", "PlanScheduler: update is 0 on rank 0 and 3 on rank 1"),
        ("stepped", "PlanScheduler: update is 0 on rank 0 and 1 on rank 1"),
        ("value", "group 'base': dampening is 0 on rank 0 and 0.5 on rank 1"),
    ],
)
def test_another_place_in_the_schedule_or_another_value_is_told_as_well(two: Ranks, what: str, words: str) -> None:
    for sentence, _ in two(schedules, what):
        assert words in sentence


def changed_later(how: str) -> list[str]:
    rank, model = dist.get_rank(), wrapped("ddp")
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    found = [outcome(model, optimizer.step, 1)[0]]
    other = Plan([Rule("*", optimizer="SGD", lr=0.1 + 0.1 * rank)])
    if how == "regroup":
        optimizer.regroup(other)
    else:
        saved = GroupedOptimizer(net(), other).state_dict()
        optimizer.resume(saved, prefer="checkpoint")
    return [*found, outcome(model, optimizer.step, 1)[0], outcome(model, optimizer.step, 1)[0]]


@pytest.mark.parametrize("how", ["regroup", "load"])
def test_after_a_regroup_or_a_load_it_is_compared_again_and_a_step_tried_again_raises_again(
    two: Ranks, how: str
) -> None:
    for found in two(changed_later, how):
        assert found[0] == "fine"
        assert all("lr is 0.1 on rank 0 and 0.2 on rank 1" in sentence for sentence in found[1:])


def healthy(how: str) -> tuple[str, float]:
    model = wrapped(how)
    rate = function(lambda step: 0.1 / (step + 1))
    plan = Plan([BASE, Rule("1.*", lr=rate), Rule("0.*", trainable=after("1 steps"))], clip=clip_norm(1.0))
    if how == "ddp":
        plan = Plan([BASE, Rule("1.*", lr=rate)], clip=clip_norm(1.0))
    optimizer = GroupedOptimizer(model, plan)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    get_optimizer_state_dict(model, optimizer)  # makes a step of its own, at a rate of 0
    return outcome(model, lambda: (optimizer.step(), scheduler.step()))


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_ranks_that_run_one_plan_hear_nothing_and_wait_for_nothing(two: Ranks, how: str) -> None:
    for sentence, seconds in two(healthy, how):
        assert sentence == "fine"
        assert seconds < _ranks.PATIENCE / 2


def read_first(what: str) -> tuple[str, float]:
    model = wrapped("ddp")
    optimizer = GroupedOptimizer(model, another_plan(dist.get_rank(), what))
    get_optimizer_state_dict(model, optimizer)
    return outcome(model, optimizer.step)


def test_the_step_by_which_a_checkpoint_has_the_state_made_is_not_the_one_that_compares(two: Ranks) -> None:
    assert all("do not run one plan" in sentence for sentence, _ in two(read_first, "momentum"))


def of_their_own(what: str) -> tuple[str, float]:
    rank = dist.get_rank()
    rate = 0.1 + 0.1 * rank
    with patience(0.5):
        if what == "stages of other shapes":
            model = nn.Sequential(nn.Linear(4, 2 + rank))
        elif what in ("stages of one shape", "seeds of their own"):
            model = net(rank)
        else:
            model = net()
        if what == "names of their own":
            optimizer = GroupedOptimizer({f"run{rank}": model}, Plan([Rule("*", optimizer="SGD", lr=rate)]))
        else:
            optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=rate)]))
        found = outcome(model, optimizer.step)
        dist.barrier()
    return found


@pytest.mark.parametrize(
    "what",
    ["stages of other shapes", "stages of one shape", "seeds of their own", "data of their own", "names of their own"],
)
def test_models_that_are_no_replicas_may_be_trained_differently(two: Ranks, what: str) -> None:
    for sentence, seconds in two(of_their_own, what):
        assert sentence == "fine"
        assert seconds < 5


def on_one_rank(what: str) -> tuple[str, float]:
    rank, plan = dist.get_rank(), Plan([Rule("*", optimizer="SGD", lr=0.1)])
    found = ("fine", 0.0)
    with patience(0.5):
        if what == "alone" and rank == 0:
            alone = nn.Linear(4, 3)
            found = outcome(alone, GroupedOptimizer(alone, plan).step)
        if what == "one more, thrown away":
            model = wrapped("ddp")
            if rank == 0:
                GroupedOptimizer(model, Plan([Rule("*", optimizer="AdamW", lr=0.1)]))
            found = outcome(model, GroupedOptimizer(model, plan).step)
        dist.barrier()
        if what == "one more, thrown away" and rank == 1:  # keep the count of the two the same for what comes after
            GroupedOptimizer(model, plan)
    return found


@pytest.mark.parametrize("what", ["alone", "one more, thrown away"])
def test_an_optimizer_on_one_rank_alone_neither_hangs_nor_is_told_anything(two: Ranks, what: str) -> None:
    for sentence, seconds in two(on_one_rank, what):
        assert sentence == "fine"
        assert seconds < 5


def compiled() -> tuple[str, float]:
    model = wrapped("ddp")
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own imports
        found = outcome(model, torch.compile(optimizer.step, backend="eager"), 2)
    torch._dynamo.reset()
    return found


def test_a_compiled_step_runs(two: Ranks) -> None:
    assert [sentence for sentence, _ in two(compiled)] == ["fine", "fine"]


def without_a_store() -> tuple[str, float]:
    find, _torch.default_store = _torch.default_store, lambda: None
    try:
        model = wrapped("ddp")
        return outcome(model, GroupedOptimizer(model, another_plan(dist.get_rank(), "lr")).step, 1)
    finally:
        _torch.default_store = find


def test_where_there_is_no_store_nothing_is_compared(two: Ranks) -> None:
    assert [sentence for sentence, _ in two(without_a_store)] == ["fine", "fine"]


def test_what_differs_is_named_by_part_property_value_and_ranks() -> None:
    plans = {
        3: {"group 'a'": {"lr": "0.1", "eps": "1e-8"}, "group 'b'": {"lr": "1"}},
        0: {"group 'a'": {"lr": "0.1", "eps": "1e-8"}},
        1: {"group 'a'": {"lr": "0.2", "eps": "1e-8", "extra": "1"}},
    }
    assert compared(plans) == (
        "group 'a': lr is 0.1 on ranks 0, 3 and 0.2 on rank 1; "
        "group 'a': extra is absent on ranks 0, 3 and 1 on rank 1; "
        "group 'b' is on rank 3 and not on ranks 0, 1"
    )
    assert compared({0: plans[0], 3: plans[0]}) == ""
    many = {rank: {"plan": {str(i): f"{i} {rank}" for i in range(5)}} for rank in (0, 1)}
    assert compared(many).endswith("(and 2 more differences)")
