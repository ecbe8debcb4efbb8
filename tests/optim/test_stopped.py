"""A scheduler that is not stepped any more, is stepped too often, or waits for its turn; parts that start late."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, SequentialLR
from torch.optim.swa_utils import SWALR

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import Schedule, constant, cosine, linear

FREEZING = Rule("body", trainable=after("80%"))
DECAYING = Rule("*", weight_decay=linear(0.0, 0.4))


def built(*more: Rule, lr: Schedule | float | None = None) -> tuple[nn.ModuleDict, GroupedOptimizer]:
    torch.manual_seed(0)
    net = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 1)})
    rule = Rule("*", optimizer="SGD", lr=lr if lr is not None else cosine(0.1), momentum=0.9)
    return net, GroupedOptimizer(net, Plan([rule, *more]))


@contextmanager
def recorded() -> Iterator[list[str]]:
    said: list[str] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", GroupwiseWarning)
        yield said
    said += [str(each.message) for each in found]


def update(net: nn.ModuleDict, optimizer: Any, *then: Callable[[], object]) -> None:
    net["head"](net["body"](torch.ones(3, 4))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    for each in then:
        each()


SWA: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "SWALR": lambda o: SWALR(o, swa_lr=0.03, anneal_epochs=3),
    "ConstantLR": lambda o: ConstantLR(o, 0.5, 3),
    "LambdaLR": lambda o: LambdaLR(o, lambda step: 0.3),
}


@pytest.mark.parametrize("make", SWA.values(), ids=SWA)
@pytest.mark.parametrize(
    ("more", "due"),
    [
        ((FREEZING,), r"body is unfrozen \(after 80%\)"),
        ((DECAYING,), "weight_decay of base"),
        ((FREEZING, DECAYING), "body is unfrozen .*, weight_decay of base, body"),
    ],
)
def test_what_is_due_is_told_once_when_another_scheduler_takes_over(
    make: Callable[[torch.optim.Optimizer], Any], more: tuple[Rule, ...], due: str
) -> None:
    net, optimizer = built(*more)
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for _ in range(20):
            update(net, optimizer, scheduler.step)
        other = make(optimizer)
        for _ in range(20):
            update(net, optimizer, other.step)
    (sentence,) = said
    assert sentence.startswith("another scheduler has taken over the lr of base")
    with pytest.warns(UserWarning, match=due):
        warnings.warn(sentence, stacklevel=1)


def test_a_rate_is_the_other_schedulers_business() -> None:
    net, optimizer = built()
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for _ in range(20):
            update(net, optimizer, scheduler.step)
        other = SWALR(optimizer, swa_lr=0.03, anneal_epochs=3)
        for _ in range(20):
            update(net, optimizer, other.step)
    assert said == []


def test_a_scheduler_that_is_let_go_in_mid_run_is_told_with_what_is_due() -> None:
    net, optimizer = built(FREEZING)
    scheduler: Any = PlanScheduler(optimizer, total_steps=40)
    for _ in range(20):
        update(net, optimizer, scheduler.step)
    scheduler = SWALR(optimizer, swa_lr=0.03, anneal_epochs=3)
    with recorded() as said:
        for _ in range(20):
            update(net, optimizer, scheduler.step)
    (sentence,) = said
    assert "never comes: body is unfrozen (after 80%)" in sentence


def test_a_scheduler_that_is_not_stepped_any_more_is_told_with_what_is_due() -> None:
    net, optimizer = built(FREEZING)
    scheduler = PlanScheduler(optimizer, total_steps=100)
    with recorded() as said:
        for step in range(60):
            update(net, optimizer, *([scheduler.step] if step < 20 else []))
    (sentence,) = said
    assert "the last 10 updates were made without a step of PlanScheduler, which stands at update 20" in sentence
    assert "body is unfrozen (after 80%), lr of base" in sentence


@pytest.mark.parametrize("total", [20, None])
def test_nothing_is_told_when_nothing_is_due(total: int | None) -> None:
    lr = linear(0.1, 0.01, over="15 steps")
    net, optimizer = built(lr=lr)
    scheduler = PlanScheduler(optimizer, total_steps=total)
    with recorded() as said:
        for step in range(28):
            update(net, optimizer, *([scheduler.step] if step < 20 else []))
    assert said == []


def test_a_network_that_trains_alone_for_a_while_is_no_scheduler_that_stopped() -> None:
    nets = {"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    with recorded() as said:
        for _ in range(6):
            for name, count in (("d", 15), ("g", 1)):
                for _ in range(count):
                    with optimizer.only(name) as view:
                        nets["d"](nets["g"](torch.ones(3, 2))).mean().backward()
                        view.step()
                        view.zero_grad()
            scheduler.step()
    assert said == []


@pytest.mark.parametrize("each", [2, 4])
def test_several_steps_of_the_scheduler_per_update_are_told_once(each: int) -> None:
    net, optimizer = built()
    scheduler = PlanScheduler(optimizer, total_steps=100)
    with recorded() as said:
        for _ in range(20):
            update(net, optimizer, *[scheduler.step] * each)
    (sentence,) = said
    assert f"stepped {each} times before each of the last 3 updates" in sentence
    assert f"total_steps=100 is over after {100 // each} updates" in sentence


def test_updates_that_a_scaler_skips_now_and_then_are_no_several_steps() -> None:
    net, optimizer = built()
    scheduler = PlanScheduler(optimizer, total_steps=100)
    with recorded() as said:
        for step in range(40):
            if step % 3 == 2:
                scheduler.step()  # the scaler skipped the update, and nobody gave it to the scheduler
            else:
                update(net, optimizer, scheduler.step)
    assert said == []


def sequence(optimizer: torch.optim.Optimizer, second: Any) -> SequentialLR:
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1.0, total_iters=3), second], [3])


def wanted(updates: int) -> list[float]:
    plain = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler, found = sequence(plain, CosineAnnealingLR(plain, 40)), []
    for _ in range(updates):
        found.append(plain.param_groups[0]["lr"])
        plain.step()
        scheduler.step()
    return found


def test_a_plan_takes_its_turn_in_a_sequence_as_torchs_own_schedulers_do() -> None:
    net, optimizer = built()
    scheduler, found = sequence(optimizer, PlanScheduler(optimizer, total_steps=40)), []
    with recorded() as said:
        for _ in range(30):
            found.append(optimizer.param_groups[0]["lr"])
            update(net, optimizer, scheduler.step)
    assert (found, said) == ([pytest.approx(rate) for rate in wanted(30)], [])


def test_a_long_turn_of_another_scheduler_before_the_plans_is_no_scheduler_that_nobody_steps() -> None:
    net, optimizer = built()
    parts = [ConstantLR(optimizer, 0.1, 200), PlanScheduler(optimizer, total_steps=40)]
    scheduler = SequentialLR(optimizer, parts, [80])
    with recorded() as said:
        for _ in range(120):
            update(net, optimizer, scheduler.step)
    assert said == []


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 10])
def test_a_sequence_resumes_where_it_was(stop: int) -> None:
    net, optimizer = built()
    scheduler = sequence(optimizer, PlanScheduler(optimizer, total_steps=40))
    with recorded() as said:
        for _ in range(stop):
            update(net, optimizer, scheduler.step)
        _, again = built()
        own = sequence(again, PlanScheduler(again, total_steps=40))
        again.load_state_dict(optimizer.state_dict())
        own.load_state_dict(scheduler.state_dict())
        for rate in wanted(20)[stop:]:
            assert again.param_groups[0]["lr"] == pytest.approx(rate)
            again.step()
            own.step()
    assert said == []


def joined(at: int, lr: Schedule, *more: Rule, updates: int = 20) -> list[str]:
    """What is said where one network is stepped from update `at` on."""
    nets = {"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="Adam", lr=lr), *more]))
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for step in range(updates):
            for name in ("g", "d") if step >= at else ("g",):
                with optimizer.only(name) as view:
                    nets["d"](nets["g"](torch.ones(3, 2))).mean().backward()
                    view.step()
                    view.zero_grad()
            scheduler.step()
    return said


@pytest.mark.parametrize("at", [5, 10])
def test_a_part_that_joins_when_its_warmup_is_over_is_told_once(at: int) -> None:
    (sentence,) = joined(at, cosine(0.1, warmup="5 steps"))
    rate = cosine(0.1, warmup="5 steps").at(at, 40)
    assert f"the first update of base/d is made at update {at}, at {rate:.3g}" in sentence
    assert f"lr=constant(0.0).then(cosine(0.1, warmup=5 steps), at='{at} steps')" in sentence


def test_the_way_out_says_nothing_and_warms_up() -> None:
    later = constant(0.0).then(cosine(0.1, warmup="5 steps"), at="10 steps")
    assert joined(10, cosine(0.1, warmup="5 steps"), Rule("d.*", lr=later)) == []
    assert [later.at(step, 40) for step in (9, 10, 14)] == pytest.approx([0.0, 0.02, 0.1])


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_part_that_joins_during_its_warmup_says_nothing(at: int) -> None:
    assert joined(at, cosine(0.1, warmup="5 steps")) == []


def test_a_part_that_joins_without_a_warmup_says_nothing() -> None:
    assert joined(10, cosine(0.1)) == []


def test_a_part_that_the_plan_itself_freezes_for_a_while_says_nothing() -> None:
    net, optimizer = built(Rule("body", trainable=after("10 steps")), lr=cosine(0.1, warmup="5 steps"))
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for _ in range(20):
            update(net, optimizer, scheduler.step)
    assert said == []


def test_a_part_without_gradients_at_first_is_told_when_they_come() -> None:
    net, optimizer = built(Rule("body", weight_decay=0.1), lr=cosine(0.1, warmup="5 steps"))
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for step in range(20):
            x = torch.ones(3, 4)
            net["head"](net["body"](x) if step >= 8 else x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    (sentence,) = said
    assert "the first update of body is made at update 8" in sentence


def test_a_new_head_in_mid_run_is_told_that_its_warmup_is_over() -> None:
    net, optimizer = built(Rule("head", weight_decay=0.1), lr=cosine(0.1, warmup="5 steps"))
    scheduler = PlanScheduler(optimizer, total_steps=40)
    with recorded() as said:
        for step in range(20):
            if step == 9:
                net["head"] = nn.Linear(4, 3)
                optimizer.regroup(model=net)
            update(net, optimizer, scheduler.step)
    assert [each for each in said if "the first update of head is made at update 9" in each] == said[-1:]


@pytest.mark.parametrize("algorithm", ["SGD", "Adam"])
@pytest.mark.parametrize("stop", [3, 7, 12])
def test_a_resume_is_no_late_start(algorithm: str, stop: int) -> None:
    nets = {"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)}

    def run() -> tuple[GroupedOptimizer, PlanScheduler]:
        plan = Plan([Rule("*", optimizer=algorithm, lr=cosine(0.1, warmup="5 steps"))])
        optimizer = GroupedOptimizer(nets, plan)
        return optimizer, PlanScheduler(optimizer, total_steps=40)

    def train(optimizer: GroupedOptimizer, scheduler: PlanScheduler, steps: range) -> None:
        for step in steps:
            for name in ("g", "d") if step % 4 == 0 else ("g",):
                with optimizer.only(name) as view:
                    nets["d"](nets["g"](torch.ones(3, 2))).mean().backward()
                    view.step()
                    view.zero_grad()
            scheduler.step()

    with recorded() as said:
        optimizer, scheduler = run()
        train(optimizer, scheduler, range(stop))
        again, own = run()
        again.load_state_dict(optimizer.state_dict())
        own.load_state_dict(scheduler.state_dict())
        train(again, own, range(stop, 30))
    assert said == []


def test_a_resume_without_the_schedulers_state_is_told_where_the_algorithm_keeps_no_state() -> None:
    net = nn.Linear(4, 1)
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, warmup="5 steps"))])
    first = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(first, total_steps=40)
    for _ in range(20):
        first.step()
        scheduler.step()
    again = GroupedOptimizer(net, plan)
    own = PlanScheduler(again, total_steps=40)
    again.load_state_dict(first.state_dict())
    with pytest.warns(GroupwiseWarning, match=r"the lr of 'base' stood at 0\.0611, and PlanScheduler .* it is 0\.02"):
        again.step()
    assert own.last_epoch == 0


def test_an_exponential_decay_beside_a_plan_that_schedules_other_things_says_nothing() -> None:
    net, optimizer = built(DECAYING, FREEZING, lr=0.1)
    ours, other = PlanScheduler(optimizer, total_steps=40), ExponentialLR(optimizer, 0.9)
    with recorded() as said:
        for _ in range(40):
            update(net, optimizer, ours.step, other.step)
    assert said == []


def test_a_tensor_that_two_groups_share_holds_the_rate_of_one() -> None:
    _, optimizer = built(Rule("head", lr=cosine(0.5)))
    shared = torch.tensor(0.7)
    for group in optimizer.param_groups:
        group["lr"] = shared
    PlanScheduler(optimizer, total_steps=10)
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.1, 0.5])
    assert all(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups)
