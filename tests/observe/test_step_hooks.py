"""Following an optimizer's steps: each once, whatever else hooks into them, and gone without disturbing anybody."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import _torch
from groupwise._step_hooks import StepHooks
from groupwise._torch import runs_step_hooks, steps_under_way
from groupwise._weakly import weakly


class Follower:
    """Counts what it is called for."""

    def __init__(self, optimizer: torch.optim.Optimizer, act: Callable[[Follower], object] | None = None) -> None:
        self.before, self.after, self.act = 0, 0, act
        self.hooks = StepHooks(optimizer, before=self._before, after=self._after)

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.before += 1

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.after += 1
        if self.act is not None:
            self.act(self)


def sgd() -> torch.optim.SGD:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    return torch.optim.SGD([p], lr=0.1)


class Deep(torch.optim.SGD):
    """A step that calls its parent's `depth` times, one inside the other."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Deeper(Deep):
    """One more."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        return super().step(closure)


def deep(kind: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    for each in (torch.optim.SGD, Deep, Deeper):
        each([nn.Parameter(torch.ones(1))], lr=0.1)  # now torch has wrapped the step of each of them
    return kind([nn.Parameter(torch.ones(2))], lr=0.1)


@pytest.mark.parametrize("kind", [torch.optim.SGD, Deep, Deeper])
def test_a_step_is_one_step_however_deep_its_class_delegates(kind: type[torch.optim.Optimizer]) -> None:
    optimizer = deep(kind)
    follower = Follower(optimizer)
    for _ in range(3):
        optimizer.step()
    assert (follower.before, follower.after) == (3, 3)


def test_only_the_stack_of_this_thread_says_how_many_steps_are_under_way() -> None:
    optimizer, other = deep(Deeper), sgd()
    snapshot: list[tuple[int | None, int | None]] = []

    def note(*_: object) -> None:
        snapshot.append((steps_under_way(optimizer), steps_under_way(other)))

    optimizer.register_step_pre_hook(note)
    assert steps_under_way(optimizer) == 0
    optimizer.step()
    assert snapshot == [(1, 0), (2, 0), (3, 0), (2, 0), (3, 0)]
    assert steps_under_way(optimizer) == 0
    elsewhere: list[int | None] = []

    def look(*_: object) -> None:
        thread = threading.Thread(target=lambda: elsewhere.append(steps_under_way(other)))
        thread.start()
        thread.join()

    other.register_step_post_hook(look)
    other.step()
    assert elsewhere == [0]


def test_a_step_that_raised_is_not_under_way() -> None:
    optimizer = sgd()
    with pytest.raises(ZeroDivisionError, match="division"):
        optimizer.step(lambda: 1 / 0)
    assert steps_under_way(optimizer) == 0
    follower = Follower(optimizer)
    with pytest.raises(ZeroDivisionError, match="division"):
        optimizer.step(lambda: 1 / 0)
    optimizer.step()
    assert (follower.before, follower.after) == (2, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whoever_leaves_in_a_step_takes_no_other_hook_with_it(data: st.DataObject) -> None:
    optimizer = sgd()
    count = data.draw(st.integers(1, 5))
    leaving = {i: data.draw(st.integers(0, count - 1)) for i in data.draw(st.sets(st.integers(0, count - 1)))}
    others: list[int] = []
    followers: list[Follower] = []
    gone: set[int] = set()

    def leave(which: int, _: Follower) -> None:
        gone.add(which)
        followers[which].hooks.remove()

    for i in range(count):
        followers.append(Follower(optimizer, functools.partial(leave, leaving[i]) if i in leaving else None))
        optimizer.register_step_post_hook(lambda *_: others.append(1))
    for _ in range(3):
        optimizer.step()
    assert len(others) == 3 * count
    assert all(follower.after == 3 for i, follower in enumerate(followers) if i not in gone)
    Follower(sgd()).hooks.remove()  # what could not leave in a step leaves now
    assert len(optimizer._optimizer_step_pre_hooks) == len(set(range(count)) - gone)
    assert len(optimizer._optimizer_step_post_hooks) == 2 * count - len(gone)


def test_hooks_that_are_removed_are_silent_at_once() -> None:
    optimizer = sgd()
    last = Follower(optimizer)  # its hook after a step comes behind those that are registered before
    optimizer._optimizer_step_post_hooks.clear()
    first = Follower(optimizer, lambda _: last.hooks.remove())
    last.hooks = StepHooks(optimizer, before=last._before, after=last._after)
    optimizer.step()
    assert (first.after, last.after) == (1, 0)


def test_hooks_are_held_weakly() -> None:
    optimizer = sgd()
    follower = Follower(optimizer)
    del follower
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_follower_that_is_collected_in_a_step_lets_it_go_on() -> None:
    optimizer = sgd()
    calls: list[int] = []
    held = [Follower(optimizer)]

    def drop(*_: object) -> None:
        held.clear()
        gc.collect()

    optimizer.register_step_post_hook(drop)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.step()
    optimizer.step()
    assert len(calls) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_of_the_optimizer_is_not_followed(copied: Callable[[Any], Any]) -> None:
    optimizer = sgd()
    follower = Follower(optimizer)
    copied(optimizer).step()
    assert (follower.before, follower.after) == (0, 0)
    optimizer.step()
    assert (follower.before, follower.after) == (1, 1)


def test_another_thread_that_steps_is_never_walked_over() -> None:
    optimizer = sgd()
    failures: list[BaseException] = []
    going, stop = threading.Event(), threading.Event()
    for _ in range(20):  # a long walk through hooks
        optimizer.register_step_post_hook(lambda *_: None)
    followers = [Follower(optimizer) for _ in range(50)]

    def train() -> None:
        try:
            while not stop.is_set():
                optimizer.step()
                going.set()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        going.wait()
        while followers:
            followers.pop().hooks.remove()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not failures
    assert len(optimizer._optimizer_step_post_hooks) > 20  # they wait for the thread
    Follower(optimizer).hooks.remove()
    assert len(optimizer._optimizer_step_post_hooks) == 20
    assert not optimizer._optimizer_step_pre_hooks


# what is relied upon of torch, and how it goes without


@pytest.fixture
def another_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch whose wrapper around steps is not known."""
    monkeypatch.setattr(_torch, "_HOOKED_STEP", None)


@pytest.mark.usefixtures("another_wrapper")
def test_without_the_wrapper_that_is_known_steps_are_followed_all_the_same() -> None:
    optimizer = sgd()
    assert steps_under_way(optimizer) is None
    follower = Follower(optimizer)
    optimizer.step()
    assert (follower.before, follower.after) == (1, 1)
    follower.hooks.remove()
    assert not optimizer._optimizer_step_post_hooks


def test_a_step_that_torch_has_wrapped_runs_hooks_and_a_trainers_does_not() -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self) -> None:
            """Without the base's."""

        def step(self, closure: Any = None) -> None:
            """Nothing."""

    assert runs_step_hooks(sgd())
    assert not runs_step_hooks(Wrapper())
    assert not runs_step_hooks(object())


def test_where_torch_leaves_no_mark_on_steps_every_optimizer_runs_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch, "_marks_hooked_steps", lambda: False)
    assert runs_step_hooks(sgd())
    assert not runs_step_hooks(object())


def test_a_gradient_that_torch_alone_holds_is_referred_to_as_long_as_it_is_there() -> None:
    p = nn.Parameter(torch.ones(2))
    p.sum().backward()
    reference = weakly(p.grad)  # type: ignore[arg-type]
    gc.collect()
    assert reference() is p.grad
    p.grad = None
    assert reference() is None
