"""A watch borrows nothing of the process: whatever stands beside it, however it is left, the loop runs as without."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad, clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.optim import SGD, Adam, lr_scheduler
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    register_optimizer_step_post_hook,
)

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise._torch import clip_functions
from groupwise.audit import watch, watching
from groupwise.errors import AuditError, GroupwiseWarning

FUNCTIONS = [
    (torch.autograd, "backward"),
    (torch.autograd, "grad"),
    (torch.amp.GradScaler, "update"),
    (torch.optim.Optimizer, "zero_grad"),
    (clip_grad, "clip_grad_norm_"),
    (clip_grad, "clip_grad_value_"),
    (clip_grad, "_clip_grads_with_norm_"),
    (clip_grad, "_get_total_norm"),
    (clip_grad, "_group_tensors_by_device_and_dtype"),
]
OWN = [vars(owner)[name] for owner, name in FUNCTIONS]


def torchs_own() -> bool:
    """Whether every function is torch's own, and no hook of the process is left."""
    own = all(vars(owner)[name] is known for (owner, name), known in zip(FUNCTIONS, OWN, strict=True))
    return own and not _global_optimizer_post_hooks and not _global_optimizer_pre_hooks


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert torchs_own()


def program() -> tuple[nn.Linear, SGD]:
    model = nn.Linear(2, 2)
    return model, SGD(model.parameters(), lr=0.1)


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def kinds(seen: watch) -> list[str]:
    return [event.kind for event in seen._recorder.record.events]


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4), st.integers(0, 5))
def test_watches_may_overlap_and_be_left_in_any_order(order: list[int], steps: list[int], updates: int) -> None:
    programs = [program() for _ in range(4)]
    seen = [watch(*each, steps=count) for each, count in zip(programs, steps, strict=True)]
    for each in seen:
        each.__enter__()
    for each in itertools.chain.from_iterable([programs] * updates):
        update(*each)
    left: set[int] = set()
    for i in order:
        assert kinds(seen[i]) == ["backward", "step"] * min(updates, steps[i])
        seen[i].__exit__(None, None, None)
        left.add(i)
        assert torchs_own() == all(j in left or steps[j] <= updates for j in order)
    for model, optimizer in programs:
        update(model, optimizer)
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_step_pre_hooks
    assert [kinds(each) for each in seen] == [["backward", "step"] * min(updates, count) for count in steps]


def test_several_watches_of_one_optimizer_each_see_all_of_it() -> None:
    model, optimizer = program()
    with watch(model, optimizer, steps=1) as short, watch(model, optimizer, steps=3) as long:
        for _ in range(4):
            update(model, optimizer)
    assert kinds(short) == ["backward", "step"]
    assert kinds(long) == ["backward", "step"] * 3


def test_a_watch_that_has_seen_enough_takes_no_other_hook_with_it() -> None:
    model, optimizer = program()
    calls: list[str] = []
    with watch(model, optimizer, steps=2):
        handles = [
            optimizer.register_step_post_hook(lambda *_: calls.append("own")),
            register_optimizer_step_post_hook(lambda *_: calls.append("global")),
        ]
        for _ in range(5):
            update(model, optimizer)
        for handle in handles:
            handle.remove()
    assert calls == ["own", "global"] * 5


def test_a_watch_that_is_left_inside_a_step_lets_the_step_go_on() -> None:
    model, optimizer = program()
    calls: list[int] = []
    seen = watch(model, optimizer)
    handle = optimizer.register_step_post_hook(lambda *_: seen.__exit__(None, None, None))
    with seen:
        last = optimizer.register_step_post_hook(lambda *_: calls.append(1))
        update(model, optimizer)
        update(model, optimizer)
    handle.remove()
    last.remove()
    assert calls == [1, 1]
    assert kinds(seen) == ["backward"]  # it was left before its own hook came
    with watch(*program()):
        pass
    assert not optimizer._optimizer_step_post_hooks  # what could not go then has gone now


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
def test_an_exception_in_the_loop_leaves_nothing(kind: type[BaseException]) -> None:
    model, optimizer = program()
    outer = watch(model, optimizer)
    with outer, pytest.raises(kind, match="out"), watch(model, optimizer):
        update(model, optimizer)
        raise kind("out")
    update(model, optimizer)
    assert kinds(outer) == ["backward", "step"]


def test_a_backward_that_raises_is_none() -> None:
    model, optimizer = program()
    with watch(model, optimizer) as seen:
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        optimizer.step()
    assert kinds(seen) == ["backward", "step"]


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[int]:
    with watch(model, optimizer):
        for step in itertools.count():
            update(model, optimizer)
            yield step


def test_a_generator_that_is_dropped_leaves_its_watch() -> None:
    model, optimizer = program()
    running = [trained(model, optimizer) for _ in range(3)]
    assert [next(each) for each in running] == [0, 0, 0]
    while running:
        del running[random.randrange(len(running))]
        assert torchs_own() == (not running)
    assert not optimizer._optimizer_step_post_hooks


def test_a_generator_in_a_cycle_leaves_its_watch_whenever_it_is_collected() -> None:
    model, optimizer = program()
    running = trained(model, optimizer)
    next(running)
    cycle: list[Any] = [running]
    cycle.append(cycle)
    del running, cycle
    gc.collect()
    assert torchs_own()


def test_a_watch_that_is_dropped_is_left() -> None:
    model, optimizer = program()
    seen = watch(model, optimizer).__enter__()
    assert not torchs_own()
    del seen
    assert torchs_own()
    assert not optimizer._optimizer_step_post_hooks


def test_a_watch_is_entered_once_at_a_time_and_begins_anew() -> None:
    model, optimizer = program()
    seen = watch(model, optimizer, steps=1)
    with seen, pytest.raises(AuditError, match="has been entered and not been left"):
        seen.__enter__()
    for _ in range(2):
        with seen:
            update(model, optimizer)
        assert kinds(seen) == ["backward", "step"]


def test_what_is_wrapped_takes_every_argument_that_torch_takes() -> None:
    model, optimizer = program()
    gradients = [torch.ones(2), torch.ones(2, 2)]
    with watch(model, optimizer):
        for owner, name in FUNCTIONS:
            assert inspect.signature(getattr(owner, name)) == inspect.signature(inspect.unwrap(getattr(owner, name)))
        assert clip_grad._get_total_norm(tensors=gradients, norm_type=1.0, foreach=False) == 6
        assert len(clip_grad._group_tensors_by_device_and_dtype(tensorlistlist=[gradients], with_indices=True)) == 1
        model(torch.ones(1, 2)).sum().backward()
        norm = clip_grad_norm_(parameters=model.parameters(), max_norm=1.0, norm_type=2.0, error_if_nonfinite=True)
        nn.utils.clip_grads_with_norm_(parameters=model.parameters(), max_norm=0.5, total_norm=norm)
        clip_grad_value_(parameters=model.parameters(), clip_value=0.1, foreach=False)
        torch.autograd.backward(tensors=[model(torch.ones(1, 2)).sum()], retain_graph=True)
        found = torch.autograd.grad(outputs=model(torch.ones(1, 2)).sum(), inputs=[model.weight], allow_unused=True)
        torch.amp.GradScaler("cpu", enabled=False).update(new_scale=2.0)
    assert torch.equal(found[0], torch.ones(2, 2))


def test_a_wrapper_of_somebody_elses_stays_where_it_is_and_ours_goes_when_it_is_outside_again() -> None:
    model, optimizer = program()
    told: list[int] = []
    seen = watch(model, optimizer).__enter__()
    ours = torch.autograd.backward

    def theirs(*args: Any, **kwargs: Any) -> None:
        told.append(1)
        ours(*args, **kwargs)

    torch.autograd.backward = theirs
    seen.__exit__(None, None, None)
    with watch(model, optimizer) as other:
        update(model, optimizer)
    assert torch.autograd.backward is theirs
    assert (told, kinds(other), kinds(seen)) == ([1], ["backward", "step"], [])
    torch.autograd.backward = ours  # as somebody who puts back what was there
    update(model, optimizer)
    assert torchs_own()


@pytest.mark.parametrize("workers", [2, 6])
def test_threads_with_a_watch_each_lose_nothing_and_raise_nothing(workers: int) -> None:
    interval, failures, lost = sys.getswitchinterval(), [], []
    calls: list[int] = []
    hook = register_optimizer_step_post_hook(lambda *_: calls.append(1))

    def work(seed: int) -> None:
        order = random.Random(seed)
        model, optimizer = program()
        try:
            for _ in range(15):
                with watch(model, optimizer, steps=order.randint(1, 4)) as seen, watch(model, optimizer, steps=2):
                    for _ in range(4):
                        update(model, optimizer)
                lost.append(kinds(seen) != ["backward", "step"] * seen._steps)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(workers)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        hook.remove()
    assert not failures
    assert not any(lost)
    assert len(calls) == workers * 15 * 4


def test_a_watch_may_be_left_by_another_thread_than_the_one_that_entered() -> None:
    model, optimizer = program()
    seen = watch(model, optimizer, steps=10_000).__enter__()
    going, failures = threading.Event(), []

    def train() -> None:
        try:
            for _ in range(200):
                update(model, optimizer)
                going.set()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    going.wait()
    seen.__exit__(None, None, None)
    thread.join()
    assert not failures
    assert set(kinds(seen)) == {"backward", "step"}


def in_threads(*loops: Callable[[], object]) -> None:
    """Each loop in a thread of its own, one call at a time, taking turns."""
    threads = [threading.Thread(target=loop) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_order_of_calls_is_that_of_each_thread() -> None:
    one, other = program(), program()
    turn = threading.Barrier(2)

    def clips() -> None:
        for _ in range(3):
            one[1].zero_grad()
            one[0](torch.ones(1, 2)).sum().backward()
            clip_grad_norm_(one[0].parameters(), 1.0)
            turn.wait()
            turn.wait()  # the other one's backward, of both models
            one[1].step()

    def goes_back() -> None:
        for _ in range(3):
            turn.wait()
            (other[0](torch.ones(1, 2)).sum() + one[0](torch.ones(1, 2)).sum()).backward()
            turn.wait()

    with watch(one[0], one[1]) as seen:
        in_threads(clips, goes_back)
    assert not [finding for finding in seen.findings if finding.check == "early-clip"]


def test_the_backward_and_the_clipping_of_another_model_say_nothing_of_this_one() -> None:
    (model, optimizer), (other, _) = program(), program()
    with watch(model, optimizer) as seen:
        for _ in range(3):
            clip_grad_norm_(other.parameters(), 1.0)
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            clip_grad_norm_(model.parameters(), 1.0)
            other(torch.ones(1, 2)).sum().backward()
            clip_grad_value_(other.parameters(), 1.0)
            optimizer.step()
    assert kinds(seen) == ["backward", "clip", "step"] * 3
    assert not seen.findings


def test_two_networks_that_go_back_one_after_the_other_are_not_clipped_too_early() -> None:
    (one, first), (two, second) = program(), program()
    with watch({"one": one, "two": two}, [first, second]) as seen:
        for _ in range(3):
            for model, optimizer in ((one, first), (two, second)):
                optimizer.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                clip_grad_norm_(model.parameters(), 1.0)
            first.step()
            second.step()
    assert not seen.findings


def test_two_networks_that_are_clipped_one_after_the_other_are_clipped_both() -> None:
    (one, first), (two, second) = program(), program()
    with watch({"one": one, "two": two}, [first, second]) as seen:
        (one(torch.ones(1, 2)) + two(torch.ones(1, 2))).sum().backward()
        for model in (one, two):
            clip_grad_norm_(model.parameters(), 1.0)
        first.step()
        second.step()
    clipped = [event.touched for event in seen._recorder.record.events if event.kind == "clip"]
    assert clipped == [frozenset(map(id, model.parameters())) for model in (one, two)]


def test_to_measure_the_norm_is_not_to_clip() -> None:
    model, optimizer = program()
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            model(torch.ones(1, 2)).sum().backward()
            get_total_norm([p.grad for p in model.parameters()])
            optimizer.step()
            get_total_norm([p.grad for p in model.parameters()])
    assert kinds(seen) == ["backward", "step"] * 3
    assert not seen.findings


class Delegating(SGD):
    """A step that calls its parent's, which torch has wrapped as well."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_that_calls_its_parents_is_one_step() -> None:
    model, _ = program()
    optimizer = Delegating(model.parameters(), lr=0.1)
    with watch(model, optimizer, steps=3) as seen:
        for _ in range(3):
            update(model, optimizer)
    assert kinds(seen) == ["backward", "step"] * 3
    assert not seen.findings


def test_a_step_that_raises_is_none_and_the_next_one_is_seen() -> None:
    model, optimizer = program()
    with watch(model, optimizer) as seen:
        with pytest.raises(ZeroDivisionError, match="division"):
            optimizer.step(lambda: 1 / 0)
        update(model, optimizer)
    assert kinds(seen) == ["backward", "step"]


class Rateless(SGD):
    """As algorithms that find their own rate: the group has none."""

    def __init__(self, params: Any, rate: Any) -> None:
        super().__init__(params, lr=0.1)
        for group in self.param_groups:
            group["lr"] = rate

    def step(self, closure: Any = None) -> None:
        """Nothing."""


@pytest.mark.parametrize("rate", [None, "auto", torch.tensor(0.1), 1 + 0j])
def test_a_rate_that_is_no_number_does_not_end_the_loop(rate: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = Rateless(model.parameters(), rate)
    scheduler = lr_scheduler.ConstantLR(SGD(model.parameters(), lr=0.1))
    scheduler.optimizer = optimizer
    with watch(model, optimizer, scheduler) as seen:
        update(model, optimizer)
    assert kinds(seen) == ["backward", "step"]
    assert "overwritten-lr" not in {finding.check for finding in seen.findings}


class Broken:
    """A scheduler that cannot be looked at for long."""

    def __init__(self, optimizer: SGD) -> None:
        self.optimizer, self.looks = optimizer, 0

    @property
    def last_epoch(self) -> int:
        self.looks += 1
        return 1 // (self.looks < 3)


def test_what_goes_wrong_in_a_watch_ends_it_with_a_warning_and_not_the_loop() -> None:
    model, optimizer = program()
    with warnings.catch_warnings(record=True) as said, watch(model, optimizer, Broken(optimizer)) as seen:
        warnings.simplefilter("always")
        for _ in range(4):
            update(model, optimizer)
        assert torchs_own()
    assert [str(each.message) for each in said if each.category is GroupwiseWarning] == [
        "watching stops (ZeroDivisionError: integer division or modulo by zero); the loop goes on"
    ]
    assert kinds(seen) == ["backward", "step", "backward"]


class Stepping:
    """Whatever has groups and a step, and no hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.param_groups = [{"params": list(model.parameters()), "lr": 0.1}]

    def step(self) -> None:
        """Nothing."""


def test_an_optimizer_whose_steps_cannot_be_followed_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(AuditError, match="optimizer: the step of this Stepping runs no hooks of torch"):
        watch(model, Stepping(model))


class Wrapper(torch.optim.Optimizer):
    """As trainers wrap an optimizer: of the class, without its constructor."""

    def __init__(self, optimizer: Any) -> None:
        self.inner = optimizer

    @property
    def param_groups(self) -> Any:
        return self.inner.param_groups

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        self.inner.step()


def test_a_wrapped_optimizer_is_followed_inside() -> None:
    model, optimizer = program()
    wrapped = Wrapper(Wrapper(optimizer))
    with watch(model, wrapped) as seen:
        for _ in range(3):
            update(model, wrapped)
    assert kinds(seen) == ["backward", "step"] * 3


def test_views_of_one_optimizer_are_told_apart() -> None:
    models = {"actor": nn.Linear(2, 2), "critic": nn.Linear(2, 2)}
    optimizer = GroupedOptimizer(models, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    views = {name: optimizer.only(name) for name in models}
    with watch(models, views) as seen:
        for name in ("actor", "critic", "critic"):
            update(models[name], views[name])
    assert [event.who for event in seen._recorder.record.events if event.kind == "step"] == [
        "actor",
        "critic",
        "critic",
    ]


def test_a_gradient_that_is_let_go_is_not_kept_by_the_watch() -> None:
    model, optimizer = program()
    with watch(model, optimizer, steps=3):
        update(model, optimizer)
        references = [watching.weakly(p.grad) for p in model.parameters()]
        for p in model.parameters():
            p.grad = None
        gc.collect()
        assert [reference() for reference in references] == [None, None]


def test_a_watch_lasts_until_the_slowest_optimizer_has_stepped_as_often() -> None:
    (one, fast), (two, slow) = program(), program()
    with watch({"one": one, "two": two}, {"fast": fast, "slow": slow}, steps=2) as seen:
        for i in range(9):
            update(one, fast)
            if i % 3 == 2:
                update(two, slow)
    steps = [event.who for event in seen._recorder.record.events if event.kind == "step"]
    assert (steps.count("slow"), steps.count("fast")) == (2, 6)


def test_gradients_that_are_assigned_anew_are_not_the_ones_of_the_step_before() -> None:
    """Without a backward in between, and with the old ones still alive."""
    model, optimizer = program()
    with watch(model, optimizer) as seen:
        made = []
        for _ in range(3):
            for p in model.parameters():
                p.grad = torch.ones_like(p)
                made.append(p.grad)
            optimizer.step()
    assert not [finding for finding in seen.findings if finding.check == "kept-gradients"]


def test_the_findings_of_accumulated_gradients_stand_with_a_step_of_another_optimizer_between() -> None:
    model, optimizer = program()
    other = Adam(nn.Linear(2, 2).parameters())
    with watch(model, optimizer) as seen:
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            other.zero_grad()
            optimizer.step()
    assert [finding.check for finding in seen.findings] == ["kept-gradients"]
    with contextlib.suppress(AttributeError):
        del other


@pytest.mark.parametrize(
    ("gone", "seen_by_name"),
    [
        (["_clip_grads_with_norm_"], True),
        (["_group_tensors_by_device_and_dtype"], True),
        (["_clip_grads_with_norm_", "_group_tensors_by_device_and_dtype"], False),
    ],
)
def test_without_a_private_name_of_torch_clipping_is_seen_where_it_can_be(
    gone: list[str], seen_by_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [(module, name) for module, name in clip_functions() if name not in gone]
    public = [(nn.utils, "clip_grad_norm_"), (nn.utils, "clip_grad_value_")]
    calls = {name: watching.Calls(module, name) for module, name in kept or public}
    monkeypatch.setattr(watching, "_CLIPS", calls)
    model, optimizer = program()
    with watch(model, optimizer) as seen:
        for clip in (clip_grad_norm_, nn.utils.clip_grad_norm_):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            clip(list(model.parameters()), 1.0)
            optimizer.step()
    assert kinds(seen)[-3:] == ["backward", "clip", "step"]
    assert (kinds(seen)[:3] == ["backward", "clip", "step"]) is seen_by_name


def test_the_names_that_clipping_looks_up_are_left_out_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(clip_functions()) == 2
    for name in ("_clip_grads_with_norm_", "_group_tensors_by_device_and_dtype"):
        monkeypatch.delattr(clip_grad, name)
        assert name not in [known for _, known in clip_functions()]
    assert clip_functions() == [(nn.utils, "clip_grad_norm_"), (nn.utils, "clip_grad_value_")]
