"""Sections h, i and j without the trainers: what Accelerate, HF's Trainer and Lightning do to an optimizer."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.schedules import cosine
from tests.contract.mixes import BASE, MIX, MIXES, Mix, Net, assert_same, backward, steps, train

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def moved(x: Any) -> Any:
    """Accelerate's `move_to_device`: every container is rebuilt as its own type, tensors are copied."""
    if isinstance(x, list | tuple):
        return type(x)(moved(item) for item in x)
    if isinstance(x, Mapping):
        return type(x)({key: moved(value) for key, value in x.items()})  # type: ignore[call-arg]
    return x.to("cpu", copy=True) if isinstance(x, torch.Tensor) else x


@mixes
@pytest.mark.parametrize("before", [0, 2])
def test_accelerate_may_prepare_it_at_any_time(mix: Mix, before: int) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer = mix.optimizer(ours)
    train(ours, range(before), optimizer.step)
    optimizer.load_state_dict(moved(optimizer.state_dict()))
    train(ours, range(before, 5), optimizer.step)
    train(theirs, range(5), steps(mix.separate(theirs)))
    assert_same(ours, theirs)


def test_a_step_patched_on_the_instance_is_called_and_goes_when_it_is_copied() -> None:
    """Accelerate's fp16 path wraps `optimizer.step` to see whether the scaler called it."""
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    called: list[bool] = []
    method = optimizer.step

    def patched(*args: Any, **kwargs: Any) -> Any:
        called.append(True)
        return method(*args, **kwargs)

    optimizer.step = patched  # type: ignore[method-assign]
    train(net, [0], optimizer.step)
    twin, other = pickle.loads(pickle.dumps((net, optimizer)))
    train(twin, [1], other.step)
    assert called == [True]


class Wrapper(torch.optim.Optimizer):
    """Accelerate's wrapper: an Optimizer that hands everything on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)  # type: ignore[assignment]
    state = property(lambda self: self.optimizer.state)  # type: ignore[assignment]
    defaults = property(lambda self: self.optimizer.defaults)  # type: ignore[assignment]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)


def test_a_wrapper_that_hands_everything_on_is_driven_by_a_torch_scheduler() -> None:
    ours, theirs = MIX.net(), MIX.net()
    wrapper, separate = Wrapper(MIX.optimizer(ours)), MIX.separate(theirs)
    scheduler = LambdaLR(wrapper.optimizer, lambda step: 0.5**step)
    others = [LambdaLR(one, lambda step: 0.5**step) for one in separate]
    train(ours, range(4), wrapper.step, scheduler.step)
    train(theirs, range(4), steps(separate), *(other.step for other in others))
    assert_same(ours, theirs)


def test_the_plans_scheduler_has_what_accelerates_wrapper_reads() -> None:
    optimizer = GroupedOptimizer(Net(), Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert scheduler._step_count == 1
    assert "total_steps" not in vars(scheduler)  # it would stop ticking by its own count of micro-batches
    scheduler._step_count += 1  # what it does for a step that gradient accumulation passes over


def test_ticks_of_several_processes_at_once_are_counted() -> None:
    """AcceleratedScheduler steps the scheduler once per process."""
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(net, [0], optimizer.step, scheduler.step, scheduler.step)
    assert scheduler.last_epoch == 2


def test_defaults_have_a_learning_rate_for_those_who_look_there() -> None:
    assert all(mix.optimizer(mix.net()).defaults["lr"] == 1e-2 for mix in MIXES.values())


def test_hf_schedulers_keep_relative_rates_and_log_the_headline_groups() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    scheduler = LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 10))  # what get_scheduler("linear") makes
    train(net, range(5), optimizer.step, scheduler.step)
    assert scheduler.get_last_lr() == pytest.approx([0.5e-2, 0.05])
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0]


def test_a_global_clip_before_the_step_is_seen_by_the_plans_own() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([*MIX.plan.rules], clip=clip_norm(100.0)))
    backward(net, 0)
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    optimizer.step()
    assert optimizer.measured["plan"].norm.item() == pytest.approx(1e-3, rel=1e-2)
    assert optimizer.measured["plan"].factor.item() == 1.0


@runtime_checkable
class Optimizable(Protocol):
    """Lightning's runtime protocol, `lightning.fabric.utilities.types.Optimizable`."""

    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]
    state: dict[Any, Any]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None: ...


class Imitation:
    """Lightning's way to wrap: a class made on the fly, of both classes, which shares the optimizer's attributes."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        hidden = ("step", "__del__", "_views")
        self.__dict__ = {key: value for key, value in optimizer.__dict__.items() if key not in hidden}
        self.__class__ = type("Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {})
        self._inner = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        return self._inner.step(closure=closure)  # type: ignore[return-value]


def test_it_is_what_lightning_calls_an_optimizer() -> None:
    assert isinstance(MIX.optimizer(MIX.net()), Optimizable)


def test_an_imitation_of_its_class_steps_the_real_one() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer = MIX.optimizer(ours)
    imitation: Any = Imitation(optimizer)
    assert isinstance(imitation, GroupedOptimizer)
    seeds = iter(range(4))
    for _ in range(4):
        imitation.step(closure=lambda: float(backward(ours, next(seeds)).detach()))
    train(theirs, range(4), steps(MIX.separate(theirs)))
    assert_same(ours, theirs)
    assert imitation.plan is optimizer.plan
    assert str(imitation.resolution) == str(optimizer.resolution)


def test_its_closure_may_do_the_forward_the_backward_the_zeroing_and_the_clipping() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer = MIX.optimizer(ours)
    runs: list[int] = []

    def closure() -> float:
        runs.append(1)
        optimizer.zero_grad()
        loss = backward(ours, len(runs))
        torch.nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
        return float(loss.detach())

    for _ in range(3):
        optimizer.step(closure=closure)
    separate = MIX.separate(theirs)
    for seed in (1, 2, 3):
        backward(theirs, seed)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        steps(separate)()
    assert len(runs) == 3
    assert_same(ours, theirs)


@mixes
def test_state_may_be_moved_entry_by_entry(mix: Mix) -> None:
    """Lightning's `_optimizer_to_device` assigns `optimizer.state[p]`."""
    ours, theirs = mix.net(), mix.net()
    optimizer = mix.optimizer(ours)
    train(ours, range(2), optimizer.step)
    for p, state in optimizer.state.items():
        optimizer.state[p] = {key: moved(value) for key, value in state.items()}
    train(ours, range(2, 5), optimizer.step)
    train(theirs, range(5), steps(mix.separate(theirs)))
    assert_same(ours, theirs)


def test_a_learning_rate_monitor_finds_a_name_of_its_own_in_every_group_and_no_optimizer_inside() -> None:
    optimizer = MIX.optimizer(MIX.net())
    names = [group["name"] for group in optimizer.param_groups]
    assert len(set(names)) == len(names)
    assert getattr(optimizer, "optimizer", None) is None
    assert all("weight_decay" in group for group in optimizer.param_groups)
    for mix in MIXES.values():
        both = mix.optimizer(mix.net())
        if "betas" in both.defaults:
            assert all("betas" in group for group in both.param_groups)


def test_requires_grad_may_be_toggled_between_the_steps_of_two_networks() -> None:
    """Lightning's `toggle_optimizer`, by hand: gradients of one network at a time."""
    ours, theirs = ({"left": Net(), "right": Net()} for _ in range(2))
    plan = Plan([BASE, Rule("*.hidden.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0)])
    optimizer = GroupedOptimizer(ours, plan)
    plain = {name: MIX.separate(net) for name, net in theirs.items()}
    for seed in range(6):
        name = ("left", "right")[seed % 2]
        other = ("right", "left")[seed % 2]
        with optimizer.only(name) as view:
            assert not any(p.requires_grad for p in ours[other].parameters())
            train(ours[name], [seed], view.step)
        train(theirs[name], [seed], steps(plain[name]))
    for name, net in ours.items():
        assert_same(net, theirs[name])
        assert all(p.requires_grad for p in net.parameters())


def test_a_checkpoint_holds_it_by_its_place_in_the_list_of_optimizers() -> None:
    nets = [MIX.net(), MIXES["muon"].net()]
    optimizers = [MIX.optimizer(nets[0]), MIXES["muon"].optimizer(nets[1])]
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, range(2), optimizer.step)
    saved = copy.deepcopy([optimizer.state_dict() for optimizer in optimizers])
    again = [MIX.optimizer(nets[0]), MIXES["muon"].optimizer(nets[1])]
    for optimizer, state in zip(again, saved, strict=True):
        optimizer.load_state_dict(state)
        assert optimizer.load_report is not None
        assert str(optimizer.load_report) == "every parameter found its state"
