"""A record is of an update that was made, whole; and an update is made, whole, whatever becomes of its record."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.observe import Observer
from groupwise.observe.measurement import Measurement
from groupwise.observe.sinks import Call, Memory
from groupwise.records import read
from tests.observe.nets import ALL, grouped, groups, losses, net, train

Program = tuple[nn.Module, torch.optim.Optimizer]


class OutOfMemory(RuntimeError):
    """What a step dies of."""


class Flaky(torch.optim.SGD):
    """Raises when it is told to, and then has changed nothing."""

    fails = False

    def step(self, closure: Any = None) -> Any:
        if Flaky.fails and closure is None:
            raise OutOfMemory("out of memory")
        return super().step(closure)


@pytest.fixture(autouse=True)
def sound() -> None:
    Flaky.fails = False


def flaky() -> Program:
    model = net()
    return model, Flaky(groups(model), lr=0.05, momentum=0.9)


def batch(model: nn.Module, seed: int) -> torch.Tensor:
    return sum(losses(model, seed).values(), torch.zeros(()))


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer, seed: int) -> None:
    optimizer.zero_grad()
    loss = batch(model, seed)
    loss.backward()
    observer.log(loss=loss, scalars={f"of batch {seed}": seed})
    optimizer.step()


def clipping(model: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer, seed: int) -> None:
    optimizer.zero_grad()
    batch(model, seed).backward()
    observer.log(scalars={f"of batch {seed}": seed})
    observer.before_clip()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def closing(model: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer, seed: int) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = batch(model, seed)
        loss.backward()
        observer.log(loss=loss, scalars={f"of batch {seed}": seed})
        if Flaky.fails:
            raise OutOfMemory("out of memory")
        return loss

    optimizer.step(closure)


def accumulating(model: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer, seed: int) -> None:
    optimizer.zero_grad()
    for part in range(2):
        (batch(model, 10 * seed + part) / 2).backward()
        observer.micro_batch(16)
    observer.log(losses={f"of batch {seed}": seed})
    optimizer.step()


LOOPS = (plain, clipping, closing, accumulating)


def records(loop: Any, seeds: list[int], failing: list[int], along_path: bool) -> list[object]:
    """What a run says that makes a step of each seed, and raises in those of `failing`, which come in between."""
    model, optimizer = flaky()
    told: list[object] = []
    keep = Call(lambda values, step: told.append((step, dict(values))))
    with Observer(optimizer, None, every=ALL, along_path=along_path, sinks=[keep]) as observer:
        for place, seed in enumerate(seeds):
            for other in (failing[place],) if failing[place] else ():
                Flaky.fails = True
                with pytest.raises(OutOfMemory, match="out of memory"):
                    loop(model, optimizer, observer, other)
                Flaky.fails = False
            loop(model, optimizer, observer, seed)
    assert observer.step == len(seeds)
    return told


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(LOOPS), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans(), st.data())
def test_a_step_that_raises_leaves_no_trace_in_any_record(
    loop: Any, seeds: list[int], along_path: bool, data: st.DataObject
) -> None:
    failing = data.draw(st.lists(st.sampled_from([0, 50, 60]), min_size=len(seeds), max_size=len(seeds)))
    assert records(loop, seeds, failing, along_path) == records(loop, seeds, [0] * len(seeds), along_path)


def test_what_is_told_after_a_step_that_raised_is_of_the_next() -> None:
    model, optimizer = flaky()
    with Observer(optimizer, None) as observer:
        batch(model, 0).backward()
        observer.log(scalars={"before": 1})
        Flaky.fails = True
        with pytest.raises(OutOfMemory, match="out"):
            optimizer.step()
        Flaky.fails = False
        observer.log(scalars={"after": 2})
        optimizer.step()
    assert observer.last is not None
    assert observer.last.scalars == {"after": 2}


def test_what_is_discarded_is_forgotten() -> None:
    model, optimizer = flaky()
    with Observer(optimizer, None, every=ALL) as observer:
        for _ in range(2):
            batch(model, 0).backward()
            observer.micro_batch(16)
        observer.log(loss=1.0, losses={"a": 1.0})
        observer.before_clip()
        observer.discard()
        optimizer.zero_grad()
        plain(model, optimizer, observer, 3)
    assert observer.last is not None
    assert observer.last.tasks == {}
    assert set(observer.last.scalars) == {"loss", "of batch 3"}
    assert "clip_factor" not in observer.last.groups["trunk"]


def test_a_delegating_step_is_one_record_of_the_whole_of_it() -> None:
    model, _ = flaky()
    before = [p.detach().clone() for p in model.left.parameters()]

    class Twice(torch.optim.SGD):
        """Two updates, the second by half: both hooked by torch, neither of them the step."""

        def step(self, closure: Any = None) -> Any:
            super().step()
            super().step()

    torch.optim.SGD(model.parameters(), lr=0.1)  # now torch has wrapped the parent's step
    optimizer = Twice([{"params": list(model.left.parameters()), "name": "left"}], lr=0.1)
    with Observer(optimizer, None, every=ALL) as observer:
        batch(model, 0).backward()
        optimizer.step()
    moved = torch.cat([(a - b).detach().flatten() for a, b in zip(model.left.parameters(), before, strict=True)])
    assert observer.step == 1
    assert observer.last is not None
    assert observer.last.groups["left"]["update_norm"] == pytest.approx(moved.norm().item(), rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda observer: observer.log(loss=1.0, losses={"a": 1.0, "b": torch.ones(2)}),
        lambda observer: observer.log(scalars={"a": 1.0, "b": "many"}),
        lambda observer: observer.log(loss=2.0, balance={"a": 1.0}),
        lambda observer: observer.tasks({"a": torch.ones((), requires_grad=True), "b": torch.ones(())}),
    ],
)
def test_a_call_that_is_refused_tells_nothing(call: Callable[[Observer], object]) -> None:
    model, optimizer = flaky()
    with Observer(optimizer, None, every={**ALL, "gradients": 0}) as observer:
        with pytest.raises(RecordError, match="Observer"):
            call(observer)
        observer.log(scalars={"told": 1.0})
        batch(model, 0).backward()
        optimizer.step()
    assert observer.last is not None
    assert (observer.last.scalars, observer.last.tasks, observer.last.shares) == ({"told": 1.0}, {}, {})


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What observing could leave otherwise."""
    return {
        "weights": [p.detach().clone().tolist() for p in model.parameters()],
        "groups": [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups],
        "requires": [p.requires_grad for p in model.parameters()],
        "hooks": (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)),
        "enabled": torch.is_grad_enabled(),
    }


class Failure(ValueError):
    """What an observer meets."""


def failing_sink(values: Mapping[str, float], step: int) -> None:
    if step in (1, 3):
        raise Failure(f"no room for step {step}")


def after(steps: int) -> dict[str, Any]:
    """The state of the program after so many steps that nobody observes."""
    model, optimizer = flaky()
    for step in range(steps):
        optimizer.zero_grad()
        batch(model, step).backward()
        optimizer.step()
    return state(model, optimizer)


def test_the_error_of_a_sink_is_raised_when_update_and_record_are_complete(tmp_path: Path) -> None:
    model, optimizer = flaky()
    first, last = Memory(), Memory()
    observer = Observer(optimizer, tmp_path, sinks=[first, Call(failing_sink), last])
    for step in range(5):
        optimizer.zero_grad()
        loss = batch(model, step)
        loss.backward()
        observer.log(loss=loss)
        if step in (1, 3):
            with pytest.raises(Failure, match=f"no room for step {step}"):
                optimizer.step()
        else:
            optimizer.step()
    observer.close()
    assert state(model, optimizer) == after(5)
    assert list(read(tmp_path).steps) == [0, 1, 2, 3, 4]
    assert [step for step, _ in first.records] == [step for step, _ in last.records] == [0, 1, 2, 3, 4]
    assert [event.event for event in read(tmp_path).events] == ["finished"]


def test_the_error_of_a_sink_may_be_a_warning_that_comes_once(tmp_path: Path) -> None:
    model, optimizer = flaky()
    last = Memory()
    with (
        pytest.warns(GroupwiseWarning) as said,
        Observer(optimizer, tmp_path, sinks=[Call(failing_sink), last], on_error="warn") as observer,
    ):
        train(model, optimizer, observer, 5)
    assert state(model, optimizer) == after(5)
    assert list(read(tmp_path).steps) == [step for step, _ in last.records] == [0, 1, 2, 3, 4]
    assert [str(each.message) for each in said] == [
        "the sink Call failed at step 1 (Failure: no room for step 1); training goes on, and so does whatever else is "
        "recorded. This is said once",
        "in the whole run failed: the sink Call 2 times",
    ]


def test_several_errors_are_raised_as_the_first_with_notes_of_the_others() -> None:
    model, optimizer = flaky()

    def other(values: Mapping[str, float], step: int) -> None:
        raise KeyError("unknown")

    with (
        pytest.raises(Failure, match="no room for step 1") as caught,
        Observer(optimizer, None, sinks=[Call(lambda v, s: None), Call(failing_sink), Call(other)], step=1) as observer,
    ):
        train(model, optimizer, observer, 1)
    assert caught.value.__notes__ == ["the sink Call failed as well at step 1: KeyError: 'unknown'"]


def test_an_error_of_the_loop_is_not_hidden_by_one_of_a_sink() -> None:
    _, optimizer = flaky()
    with (
        pytest.warns(GroupwiseWarning, match="the sink Call failed at step 1"),
        pytest.raises(ZeroDivisionError, match="division"),
        Observer(optimizer, None, sinks=[Call(failing_sink)], step=1) as observer,
    ):
        observer.log(loss=1.0)  # written when it is closed
        1 / 0  # noqa: B018


MOMENTS = ["measure_weights", "measure_gradients", "measure_update", "facts", "release"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("make", [flaky, grouped])
def test_an_error_of_our_own_changes_nothing_but_the_record(
    moment: str, make: Callable[[], Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends = []
    for observed in (False, True):
        model, optimizer = make()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if not observed:
                for step in range(4):
                    optimizer.zero_grad()
                    batch(model, step).backward()
                    optimizer.step()
            else:
                calls, original = [], getattr(Measurement, moment)

                def fails(
                    self: Measurement, *args: Any, calls: Any = calls, original: Any = original, **more: Any
                ) -> Any:
                    calls.append(1)
                    if len(calls) == 2:
                        raise Failure(moment)
                    return original(self, *args, **more)

                monkeypatch.setattr(Measurement, moment, fails)
                with Observer(optimizer, tmp_path, every=ALL, along_path=True, on_error="warn") as observer:
                    train(model, optimizer, observer, 4)
                monkeypatch.setattr(Measurement, moment, original)
        ends.append(state(model, optimizer))
    assert ends[0] == ends[1]
    assert [str(each.message).partition(";")[0] for each in said] == [
        f"observing a step failed at step 1 (Failure: {moment})"
    ]
    run = read(tmp_path)
    assert list(run.series("scalars", "loss").steps) == [0, 1, 2, 3] if moment.startswith("take") else [0, 2, 3]
    assert list(run.series("groups", "heads", "update_norm").steps) == [0, 2, 3]
    assert all(value > 0 for value in run.series("groups", "heads", "update_norm").values)


def test_an_error_before_a_step_comes_before_the_update_and_the_next_step_is_recorded() -> None:
    model, optimizer = flaky()
    with Observer(optimizer, None, every=ALL) as observer:
        bad = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
        optimizer.add_param_group({"params": [bad], "name": "counts"})
        before = state(model, optimizer)
        batch(model, 0).backward()
        with pytest.raises(RuntimeError, match=r"[Nn]orm|floating"):
            optimizer.step()
        assert state(model, optimizer) == before
        optimizer.param_groups.pop()
        optimizer.step()
        assert observer.step == 1
    assert observer.last is not None
    assert observer.last.groups["heads"]["update_norm"] > 0


def test_a_choice_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(RecordError, match="Observer: on_error='ignore': it has to be one of 'raise', 'warn'"):
        Observer(flaky()[1], None, on_error="ignore")  # type: ignore[arg-type]


def test_an_observer_that_is_closed_inside_a_step_lets_the_step_go_on(tmp_path: Path) -> None:
    model, _ = flaky()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    observer = Observer(optimizer, tmp_path, sinks=[Call(lambda values, step: observer.close() if step == 1 else None)])
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    for step in range(4):
        optimizer.zero_grad()
        batch(model, step).backward()
        optimizer.step()
    assert len(calls) == 4
    assert list(read(tmp_path).steps) == [0, 1]
    assert [event.event for event in read(tmp_path).events] == ["finished"]


def test_micro_batches_of_a_skipped_update_are_not_counted() -> None:
    model, _ = flaky()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with Observer(optimizer, None, scaler=scaler) as observer:
        for step in range(2):
            optimizer.zero_grad()
            for part in range(2):
                scaler.scale(batch(model, part) / 2 * (float("inf") if step == 0 else 1.0)).backward()
                observer.micro_batch(16)
            scaler.step(optimizer)
            scaler.update()
    assert observer.last is not None
    assert "noise_scale" not in observer.last.scalars
