"""The plan's clock: what it writes, when, and what it refuses."""

import contextlib
import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, layer_decay, scale
from groupwise.errors import GroupwiseWarning, LengthError, OptimizerError, StateError
from groupwise.schedules import cosine, linear, piecewise, plateau
from tests.optim.models import Net, backward, batches, train

MIX = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="10%"), weight_decay=linear(0.0, 0.1), beta2=0.98),
        Rule("backbone.*", lr=scale(0.1) * layer_decay(0.5)),
        Rule("head.*", betas=(linear(0.85, 0.95), 0.99)),
        Rule("embed.*", optimizer="SGD", lr=cosine(0.1), momentum=linear(0.5, 0.9), weight_decay=0.0),
    ]
)


def prepared(plan: Plan = MIX, **lengths: int) -> tuple[Net, GroupedOptimizer, PlanScheduler]:
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    return net, optimizer, PlanScheduler(optimizer, **(lengths or {"total_steps": 20}))


def test_it_is_a_torch_scheduler_of_its_optimizer() -> None:
    _, optimizer, scheduler = prepared()
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


def test_every_group_holds_at_every_update_what_the_resolution_previews() -> None:
    net, optimizer, scheduler = prepared()
    for step, batch in enumerate(batches(20)):
        for group, planned in zip(optimizer.param_groups, optimizer.resolution.groups, strict=True):
            for name, setting in planned.settings.items():
                assert group[name] == pytest.approx(setting.at(step, 20), rel=1e-15), (step, planned.name, name)
        train(net, [batch], optimizer.step, scheduler.step)


def test_it_equals_the_torch_twin_update_by_update() -> None:
    ours, twin = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, end=0.01))]))
    scheduler = PlanScheduler(optimizer, total_steps=30)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1)
    cosine_twin = CosineAnnealingLR(theirs, T_max=30, eta_min=0.01)
    for _ in range(30):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        optimizer.step(), theirs.step(), scheduler.step(), cosine_twin.step()


def test_past_its_end_the_last_value_holds() -> None:
    net, optimizer, scheduler = prepared(total_steps=4)
    seen = []
    for i, batch in enumerate(batches(8)):
        expected = pytest.warns(GroupwiseWarning, match="past its end") if i == 5 else contextlib.nullcontext()
        with expected:
            train(net, [batch], optimizer.step, scheduler.step)
        seen.append([group["weight_decay"] for group in optimizer.param_groups])
    assert seen[3] == seen[4] == seen[7]
    assert seen[2] != seen[3]


def test_until_one_is_attached_groups_hold_each_schedules_peak() -> None:
    optimizer = GroupedOptimizer(Net(), MIX)
    by_name = {group["name"]: group for group in optimizer.param_groups}
    assert by_name["head"]["betas"] == (0.95, 0.99)
    assert by_name["head"]["lr"] == 1e-2
    assert by_name["embed"]["momentum"] == 0.9


def test_a_foreign_scheduler_attached_instead_multiplies_the_peak() -> None:
    optimizer = GroupedOptimizer(Net(), MIX)
    peaks = [group["lr"] for group in optimizer.param_groups]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [peak * 0.5 for peak in peaks]


def test_its_state_is_one_counter_and_the_length_of_the_run_and_loading_writes_the_values() -> None:
    net, optimizer, scheduler = prepared()
    train(net, batches(7), optimizer.step, scheduler.step)
    state = scheduler.state_dict()
    assert state == {"last_epoch": 7, "total_steps": 20, "plateaus": {}, "overwritten": []}
    _, other, resumed = prepared()
    resumed.load_state_dict(state)
    for ours, theirs in zip(other.param_groups, optimizer.param_groups, strict=True):
        assert {k: ours[k] for k in ("lr", "weight_decay")} == {k: theirs[k] for k in ("lr", "weight_decay")}


def test_a_jump_gives_what_ticking_there_gives() -> None:
    net, optimizer, scheduler = prepared()
    train(net, batches(9), optimizer.step, scheduler.step)
    _, _, jumped = prepared()
    jumped.step(9)
    assert jumped.get_last_lr() == scheduler.get_last_lr()


def test_foreign_state_is_refused() -> None:
    _, _, scheduler = prepared()
    with pytest.raises(StateError, match="needs 'last_epoch', this has base_lrs"):
        scheduler.load_state_dict({"base_lrs": [0.1]})


@pytest.mark.parametrize(
    "build",
    [
        lambda plain: torch.optim.lr_scheduler.StepLR(plain, 3),
        lambda plain: torch.optim.lr_scheduler.CosineAnnealingLR(plain, 20),
        lambda plain: torch.optim.lr_scheduler.LambdaLR(plain, lambda _: 1.0),
        lambda plain: torch.optim.lr_scheduler.OneCycleLR(plain, 0.1, total_steps=20),
    ],
)
def test_of_another_schedulers_state_the_counter_alone_is_taken_and_that_is_said(
    build: Callable[[torch.optim.Optimizer], LRScheduler],
) -> None:
    plain = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    theirs = build(plain)
    for _ in range(4):
        plain.step()
        theirs.step()
    _, optimizer, scheduler = prepared()
    with pytest.warns(
        GroupwiseWarning, match=r"not a PlanScheduler's .* only last_epoch=4 was read, as so many updates"
    ):
        scheduler.load_state_dict(theirs.state_dict())
    _, twin, jumped = prepared()
    jumped.step(4)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in twin.param_groups]


@pytest.mark.parametrize(
    ("lr", "lengths", "message"),
    [
        (cosine(1e-3), {}, r"rule 1 'base': lr: .*total_steps"),
        (cosine(1e-3, over="2 epochs"), {"total_steps": 10}, r"rule 1 'base': lr: .*steps_per_epoch"),
    ],
)
def test_a_length_is_required_where_the_plan_uses_its_unit_and_the_rule_is_named(
    lr: object, lengths: dict[str, int], message: str
) -> None:
    optimizer = GroupedOptimizer(Net(), Plan([Rule("*", optimizer="SGD", lr=lr)]))
    with pytest.raises(LengthError, match=message):
        PlanScheduler(optimizer, **lengths)


def test_no_length_is_required_where_none_is_used() -> None:
    net, optimizer, scheduler = prepared(
        Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, over="5 steps"))]), total_steps=5
    )
    PlanScheduler(GroupedOptimizer(Net(), Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, over="5 steps"))])))
    train(net, batches(6), optimizer.step, scheduler.step)


@pytest.mark.parametrize("length", [0, -1, 2.5, True, "10"])
def test_a_length_that_is_no_positive_whole_number_is_refused(length: object) -> None:
    with pytest.raises(OptimizerError, match="total_steps must be a positive whole number"):
        PlanScheduler(GroupedOptimizer(Net(), MIX), total_steps=length)  # type: ignore[arg-type]


def test_another_optimizer_is_refused() -> None:
    plain = torch.optim.SGD(Net().parameters(), lr=0.1)
    with pytest.raises(OptimizerError, match="schedules a GroupedOptimizer, not SGD"):
        PlanScheduler(plain, total_steps=10)  # type: ignore[arg-type]


def test_named_values_are_read_at_values() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)], values={"teacher": linear(0.9, 1.0)})
    net, optimizer, scheduler = prepared(plan, total_steps=10)
    assert scheduler.values == {"teacher": 0.9}
    train(net, batches(10), optimizer.step, scheduler.step)
    assert scheduler.values == {"teacher": 1.0}


def test_a_plateau_follows_its_torch_twin() -> None:
    policy = plateau(0.1, factor=0.5, patience=2, cooldown=1)
    plan = Plan([Rule("*", optimizer="SGD", lr=policy), Rule("head.*", lr=scale(0.1))])
    _, optimizer, scheduler = prepared(plan, total_steps=100)
    theirs = torch.optim.SGD(Net().parameters(), lr=0.1)
    twin = ReduceLROnPlateau(theirs, factor=0.5, patience=2, cooldown=1)
    for metric in [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]:
        twin.step(metric)
        scheduler.observe(metric)
        lr = theirs.param_groups[0]["lr"]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr * 0.1])


def test_a_plateaus_memory_survives_a_resume() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=plateau(0.1, patience=0))])
    _, _, scheduler = prepared(plan, total_steps=10)
    for metric in (1.0, 2.0, 3.0):
        scheduler.observe(metric)
    _, optimizer, resumed = prepared(plan, total_steps=10)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    with pytest.raises(OptimizerError, match="has no plateau"):
        prepared()[2].observe(1.0)


def test_a_step_that_the_scaler_skipped_does_not_count() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, MIX)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scheduler = PlanScheduler(optimizer, total_steps=20, scaler=scaler)
    for poisoned in (False, True, False):
        net.zero_grad()
        data = batches(1)[0]
        loss = nn.functional.cross_entropy(net(data[0]), data[1])
        scaler.scale(loss).backward()
        if poisoned:
            net.head.weight.grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 2


def test_nothing_ticks_inside_optimizer_step() -> None:
    net, optimizer, scheduler = prepared()
    before = scheduler.get_last_lr()
    backward(net, batches(1)[0])
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == before


def test_a_tensor_is_filled_and_not_replaced() -> None:
    net, optimizer, scheduler = prepared(Plan([Rule("*", optimizer="SGD", lr=linear(0.1, 0.0))]), total_steps=4)
    lr = torch.tensor(0.1)
    optimizer.param_groups[0]["lr"] = lr
    train(net, batches(1), optimizer.step, scheduler.step)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.075)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_what_a_step_does_not_change_stays_the_object_that_it_is(groups: int) -> None:
    up = piecewise([("0 steps", 0.8), ("2 steps", 0.8), ("5 steps", 0.9)])
    net = nn.ModuleDict({f"layer{i}": nn.Linear(1, 1) for i in range(groups)})
    rule = Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.1, betas=(up, 0.99), eps=linear(1e-8, 1e-8))
    optimizer = GroupedOptimizer(net, Plan([rule, Rule("*", lr=layer_decay(0.5))]))
    scheduler = PlanScheduler(optimizer, total_steps=9)
    for _ in range(9):
        before = [dict(group) for group in optimizer.param_groups]
        optimizer.step(), scheduler.step()
        for old, group, planned in zip(before, optimizer.param_groups, optimizer.resolution.groups, strict=True):
            assert {name: group[name] for name in planned.settings} == {
                name: setting.at(scheduler.last_epoch, 9) for name, setting in planned.settings.items()
            }
            assert all(group[name] is old[name] for name in planned.settings if group[name] == old[name])


def test_a_scheduled_plan_stepped_twice_without_a_scheduler_warns_once() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, MIX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(net, batches(1), optimizer.step)
    with pytest.warns(GroupwiseWarning, match="no PlanScheduler is attached") as caught:
        train(net, batches(4), optimizer.step)
    assert len(caught) == 1


def test_ticking_once_per_epoch_warns_once() -> None:
    net, optimizer, scheduler = prepared()
    with pytest.warns(GroupwiseWarning, match="once per epoch") as caught:
        for _ in range(3):
            train(net, batches(5), optimizer.step)
            scheduler.step()
    assert len(caught) == 1


def test_ticking_per_epoch_is_right_where_an_epoch_is_one_tick() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, over="4 epochs"))])
    net, optimizer, scheduler = prepared(plan, total_steps=4, steps_per_epoch=1)
    for _ in range(4):
        train(net, batches(5), optimizer.step)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_alternating_networks_are_one_update_per_tick() -> None:
    nets = {"generator": Net(0), "critic": Net(1)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    for batch in batches(4):
        for _ in range(3):
            train(nets["critic"], [batch], optimizer.only("critic").step)
        train(nets["generator"], [batch], optimizer.only("generator").step, scheduler.step)
    assert scheduler.last_epoch == 4
