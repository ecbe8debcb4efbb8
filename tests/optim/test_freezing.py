"""Freezing by plan: nothing moves what is frozen, and the timeline moves on ticks alone."""

from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, unfreeze_down, until
from groupwise.errors import GroupwiseWarning, ResolutionError
from groupwise.plan import Timeline
from tests.optim.models import Net, backward, batches, train, weights

ADAMW = Rule("*", optimizer="AdamW", lr=0.01, weight_decay=0.1)


def moved(before: dict[str, torch.Tensor], net: Net) -> set[str]:
    return {name.split(".")[0] for name, p in weights(net).items() if not torch.equal(p, before[name])}


def test_a_plan_that_is_silent_about_freezing_touches_no_requires_grad() -> None:
    net = Net()
    net.embed.weight.requires_grad_(False)
    GroupedOptimizer(net, Plan([ADAMW]))
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["embed.weight"]


def test_a_frozen_part_is_listed_and_never_moves() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([ADAMW, Rule("backbone.*", trainable=False)]))
    before = weights(net)
    train(net, batches(3), optimizer.step)
    assert moved(before, net) == {"embed", "head"}
    assert not any(p.requires_grad for p in net.backbone.parameters())
    assert "backbone" in str(optimizer.resolution)


def test_a_frozen_part_without_an_optimizer_stays_out_of_param_groups() -> None:
    net = Net()
    optimizer = GroupedOptimizer(
        net, Plan([Rule("head.*", optimizer="SGD", lr=0.1), Rule(["embed", "backbone"], trainable=False)])
    )
    held = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert held == ["head.weight", "head.bias"]
    assert len(optimizer.resolution.parameters) == len(list(net.parameters()))
    assert not net.embed.weight.requires_grad


@pytest.mark.parametrize("set_to_none", [True, False])
def test_neither_momentum_nor_decay_nor_a_stale_gradient_moves_what_is_frozen(set_to_none: bool) -> None:
    net = Net()
    rules = [
        Rule("*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.1),
        Rule("backbone.*", trainable=until("2 steps")),
    ]
    optimizer = GroupedOptimizer(net, Plan(rules))
    scheduler = PlanScheduler(optimizer)
    for step, batch in enumerate(batches(5)):
        optimizer.zero_grad(set_to_none)
        before = weights(net)
        loss = torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        scheduler.step()
        assert moved(before, net) == ({"embed", "head", "backbone"} if step < 2 else {"embed", "head"})


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("when", [False, after("9 steps"), until("1 step")])
def test_what_the_plan_froze_and_something_else_unfroze_stays_and_is_named_once(sparse: bool, when: Any) -> None:
    net = nn.ModuleDict({"table": nn.Embedding(7, 4, sparse=sparse), "head": nn.Linear(4, 2)})
    rules = [Rule("*", optimizer="SGD", lr=0.1), Rule("table.*", trainable=when)]
    optimizer = GroupedOptimizer(net, Plan(rules))
    scheduler = PlanScheduler(optimizer, total_steps=20)

    def update() -> None:
        optimizer.zero_grad()
        net["head"](net["table"](torch.tensor([0, 3]))).square().sum().backward()
        optimizer.step()
        scheduler.step()

    update()  # silent
    before = net["table"].weight.detach().clone()
    net["table"].weight.requires_grad_(True)
    with pytest.warns(GroupwiseWarning, match=r"has frozen table\.weight, and requires_grad was set to True since"):
        update()
    update()  # silent
    assert torch.equal(net["table"].weight, before)


def test_after_thaws_at_its_moment_and_starts_state_then() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([ADAMW, Rule("backbone.*", trainable=after("50%"))]))
    scheduler = PlanScheduler(optimizer, total_steps=4)
    seen = []
    for batch in batches(4):
        before = weights(net)
        train(net, [batch], optimizer.step, scheduler.step)
        seen.append("backbone" in moved(before, net))
    assert seen == [False, False, True, True]
    assert optimizer.state[net.backbone[0].norm.weight]["step"].item() == 2


def test_unfreeze_down_thaws_one_level_more_at_each_interval_from_the_top() -> None:
    net = Net()
    plan = Plan([ADAMW, Rule("*", trainable=unfreeze_down("2 steps"))])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer)
    trainable = []
    for batch in batches(9):
        trainable.append(
            [any(p.requires_grad for p in part.parameters()) for part in (net.head, *reversed(net.backbone), net.embed)]
        )
        train(net, [batch], optimizer.step, scheduler.step)
    assert [sum(row) for row in trainable] == [1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert all(row == sorted(row, reverse=True) for row in trainable)


def test_frozen_parameters_cost_no_backward_in_one_process() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([ADAMW, Rule(["embed.*", "backbone.*"], trainable=after("9 steps"))]))
    PlanScheduler(optimizer)
    backward(net, batches(1)[0])
    assert all(p.grad is None for p in [*net.embed.parameters(), *net.backbone.parameters()])


def test_a_resume_thaws_and_freezes_as_the_step_says() -> None:
    plan = Plan([ADAMW, Rule("backbone.*", trainable=after("3 steps"))])
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer)
    train(net, batches(5), optimizer.step, scheduler.step)
    fresh = Net()
    resumed = GroupedOptimizer(fresh, plan)
    again = PlanScheduler(resumed)
    assert not fresh.backbone[0].linear.weight.requires_grad
    resumed.load_state_dict(optimizer.state_dict())
    again.load_state_dict(scheduler.state_dict())
    assert fresh.backbone[0].linear.weight.requires_grad


def test_a_regroup_between_backward_and_step_loses_no_gradient_of_what_has_thawed() -> None:
    net = Net()
    plan = Plan([ADAMW, Rule("backbone.*", trainable=after("2 steps"))])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer)
    train(net, batches(3), optimizer.step, scheduler.step)
    before = weights(net)
    backward(net, batches(1)[0])
    optimizer.regroup(plan + [Rule("head.*", weight_decay=0.0)])
    optimizer.step()
    assert moved(before, net) == {"embed", "backbone", "head"}


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (after("2 epochs"), "after 2 epochs"),
        (until("5%"), "until 5%"),
        (unfreeze_down("1 epoch"), "unfreeze down, 1 epoch a level"),
    ],
)
def test_a_timeline_reads_as_a_sentence(when: Timeline, text: str) -> None:
    assert str(when) == text


class Quantised(nn.Module):
    """A base in integers, and a part that trains beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Module()
        self.base.qweight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
        self.base.bias = nn.Parameter(torch.zeros(4))
        self.lora = nn.Linear(4, 4)


@pytest.mark.parametrize("when", [True, after("2 steps"), until("2 steps"), unfreeze_down("1 step")])
def test_what_has_no_gradient_is_not_trained_by_any_timeline_and_the_resolution_says_so(when: object) -> None:
    rules = [ADAMW, Rule(["base", "lora"], trainable=when)]  # type: ignore[arg-type]
    with pytest.raises(ResolutionError, match=r"'base\.qweight' is int8 and cannot be trained, but rule 2 .* says"):
        GroupedOptimizer(Quantised(), Plan(rules))


@pytest.mark.parametrize("rules", [[], [Rule("base", trainable=False)], [Rule("lora", trainable=after("1 step"))]])
def test_what_has_no_gradient_may_stand_beside_what_trains(rules: list[Rule]) -> None:
    GroupedOptimizer(Quantised(), Plan([ADAMW, *rules]))
