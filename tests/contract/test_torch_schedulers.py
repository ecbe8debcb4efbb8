"""Section a: torch's own learning rate schedulers drive every group, whatever its algorithm."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine
from tests.contract.mixes import MIX, MIXES, Mix, Net, assert_same, steps, train

SCHEDULERS: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "StepLR": lambda o: StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 5], gamma=0.1),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 12),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 4),
    "LambdaLR": lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.05, total_steps=12, cycle_momentum=False),
    "CyclicLR": lambda o: CyclicLR(o, 1e-3, 1e-2, step_size_up=3, cycle_momentum=False),
    "SWALR": lambda o: SWALR(o, 1e-3, anneal_epochs=5),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 3), CosineAnnealingLR(o, 9)], [3]),
    "ChainedScheduler": lambda o: ChainedScheduler([ConstantLR(o, 0.5, 4), ExponentialLR(o, 0.95)], optimizer=o),
}
schedulers = pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)


@schedulers
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_scheduler_drives_every_group_as_it_drives_separate_optimizers(
    make: Callable[[Optimizer], LRScheduler], mix: Mix
) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    scheduler, others = make(optimizer), [make(other) for other in separate]
    for seed in range(10):
        train(ours, [seed], optimizer.step, scheduler.step)
        train(theirs, [seed], steps(separate), *(other.step for other in others))
        assert_same(ours, theirs)
    rates = {rate for other in others for rate in other.get_last_lr()}
    assert set(scheduler.get_last_lr()) == rates


def test_reduce_on_plateau_lowers_every_group() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = ReduceLROnPlateau(optimizer, patience=1, factor=0.1)
    for loss in (1.0, 1.0, 1.0):
        train(net, [0], optimizer.step)
        scheduler.step(loss)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * lr for lr in before])


def test_a_rate_below_another_stays_below_it_under_one_lambda() -> None:
    optimizer = MIX.optimizer(MIX.net())
    before = [group["lr"] for group in optimizer.param_groups]
    LambdaLR(optimizer, lambda step: 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25 * lr for lr in before]


@schedulers
def test_a_scheduler_resumes_from_its_state(make: Callable[[Optimizer], LRScheduler]) -> None:
    def run(*seeds: int) -> tuple[Net, GroupedOptimizer, LRScheduler]:
        net = MIX.net()
        optimizer = MIX.optimizer(net)
        scheduler = make(optimizer)
        train(net, seeds, optimizer.step, scheduler.step)
        return net, optimizer, scheduler

    whole, _, _ = run(*range(8))
    half, optimizer, scheduler = run(*range(4))
    again, resumed, follower = run()
    again.load_state_dict(half.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    follower.load_state_dict(scheduler.state_dict())
    train(again, range(4, 8), resumed.step, follower.step)
    assert_same(again, whole)


def test_a_scheduler_may_be_made_anew_in_the_middle_of_a_run() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    scheduler = StepLR(optimizer, 2, gamma=0.1)
    train(net, range(3), optimizer.step, scheduler.step)
    again = StepLR(optimizer, 2, gamma=0.1, last_epoch=scheduler.last_epoch - 1)
    assert again.get_last_lr() == pytest.approx(scheduler.get_last_lr())
    assert again.base_lrs == scheduler.base_lrs


def test_the_momentum_of_one_algorithm_is_cycled() -> None:
    net = MIX.net()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9), Rule("hidden.*", weight_decay=0.1)])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=10)
    train(net, range(4), optimizer.step, scheduler.step)
    assert {group["momentum"] for group in optimizer.param_groups} != {0.9}
    assert len({group["momentum"] for group in optimizer.param_groups}) == 1


def test_the_first_beta_of_one_algorithm_is_cycled() -> None:
    net = MIX.net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3, beta2=0.98), Rule("norm.*", weight_decay=0.0)])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = OneCycleLR(optimizer, 1e-2, total_steps=10, max_momentum=0.95, base_momentum=0.85)
    train(net, range(3), optimizer.step, scheduler.step)
    assert all(0.85 <= group["betas"][0] < 0.95 for group in optimizer.param_groups)
    assert {group["betas"][1] for group in optimizer.param_groups} == {0.98}


@pytest.mark.parametrize("cls", [OneCycleLR, CyclicLR])
def test_cycling_momentum_is_refused_by_torch_where_algorithms_share_none(cls: type[LRScheduler]) -> None:
    optimizer = MIX.optimizer(MIX.net())
    arguments = {"total_steps": 10} if cls is OneCycleLR else {"max_lr": 0.1}
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        cls(optimizer, 0.1, **arguments)


def test_defaults_hold_what_all_algorithms_share_and_no_more() -> None:
    for mix in MIXES.values():
        optimizer = mix.optimizer(mix.net())
        shared = set.intersection(*(set(group) for group in optimizer.param_groups))
        assert set(optimizer.defaults) <= shared
        assert "lr" in optimizer.defaults
    assert not {"betas", "momentum"} & set(MIX.optimizer(MIX.net()).defaults)


def test_schedulers_see_a_bound_step_that_they_may_replace() -> None:
    optimizer = MIX.optimizer(MIX.net())
    assert optimizer.step.__func__ is type(optimizer).step
    StepLR(optimizer, 1)
    assert optimizer.step._wrapped_by_lr_sched


def test_containers_of_schedulers_know_the_plans_optimizer_by_identity() -> None:
    optimizer = MIX.optimizer(MIX.net())
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match="different from GroupedOptimizer"):
        SequentialLR(optimizer, [StepLR(optimizer, 1), StepLR(other, 1)], [1])


def test_a_scheduled_plan_holds_its_peak_until_its_own_scheduler_comes_so_that_a_foreign_one_multiplies_it() -> None:
    net = MIX.net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="50%"))])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = LambdaLR(optimizer, lambda step: 0.5)
    assert scheduler.get_last_lr() == [5e-3]


def test_a_schedule_may_end_at_zero_under_a_class_whose_constructor_refuses_zero() -> None:
    mix = MIXES["sparse adam"]
    net = mix.net()
    plan = Plan([*mix.plan.rules, Rule("embed.*", lr=cosine(0.05))])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=3)
    train(net, range(3), optimizer.step, scheduler.step)
    before = net.embed.weight.detach().clone()
    with pytest.warns(GroupwiseWarning, match="the lr of embed is 0"):
        train(net, range(3, 5), optimizer.step, scheduler.step)
    assert 0.0 in scheduler.get_last_lr()
    assert torch.equal(net.embed.weight, before)


def test_the_plans_own_scheduler_combines_with_torchs_containers() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    ours = PlanScheduler(optimizer, total_steps=10)
    chained = ChainedScheduler([ours], optimizer=optimizer)
    train(net, range(5), optimizer.step, chained.step)
    assert chained.get_last_lr() == pytest.approx([0.1 * (1 + math.cos(math.pi / 2)) / 2])
