"""An observer keeps nobody alive, and lives for as long as somebody holds it."""

import copy
import gc
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.observe import Observer
from groupwise.observe.sinks import Memory
from groupwise.records import read
from tests.observe.nets import ALL, groups, net, train


def parts(count: int) -> tuple[list[nn.Linear], torch.optim.Optimizer]:
    layers = [nn.Linear(3, 3) for _ in range(count)]
    listed = [{"params": list(layer.parameters()), "name": str(i)} for i, layer in enumerate(layers)]
    return layers, torch.optim.SGD(listed, lr=0.1, momentum=0.9)


def update(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.parametrize("along_path", [False, True])
@pytest.mark.parametrize("before_clip", [False, True])
def test_groups_that_are_dropped_are_let_go(along_path: bool, before_clip: bool) -> None:
    layers, optimizer = parts(3)
    with Observer(optimizer, None, every=ALL, along_path=along_path) as observer:
        for left in (3, 2, 1):
            for _ in range(3):
                if before_clip:
                    observer.before_clip()
                update(optimizer)
            gone = [weakref.ref(p) for group in optimizer.param_groups[left - 1 :] for p in group["params"]]
            state = [weakref.ref(optimizer.state[p()]["momentum_buffer"]) for p in gone]
            for reference in gone:
                optimizer.state.pop(reference())
            optimizer.param_groups.pop()
            layers.pop()
            if optimizer.param_groups:
                for _ in range(2 if along_path else 1):
                    update(optimizer)
                gc.collect()
                assert [each() for each in (*gone, *state)] == [None] * len((*gone, *state))
                assert observer.last is not None
                assert set(observer.last.groups) == {group["name"] for group in optimizer.param_groups}


def test_gradients_are_let_go_after_each_step() -> None:
    layers, optimizer = parts(1)
    with Observer(optimizer, None, every=ALL, along_path=True):
        update(optimizer)
        gradients = [weakref.ref(p.grad) for p in layers[0].parameters()]
        optimizer.zero_grad()
        gc.collect()
        assert [gradient() for gradient in gradients] == [None, None]


def forgotten(optimizer: torch.optim.Optimizer, folder: Path, steps: int) -> None:
    observer = Observer(optimizer, folder)
    for step in range(steps):
        observer.log(loss=step)
        update(optimizer)
    observer.log(scalars={"last": 1.0})
    raise KeyError("the caller's own mistake")


def test_an_observer_that_is_forgotten_closes_itself(tmp_path: Path) -> None:
    _, optimizer = parts(2)
    for first in (0, 3):
        with pytest.raises(KeyError, match="own mistake"):
            forgotten(optimizer, tmp_path, 2)
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        run = read(tmp_path)
        assert list(run.steps) == list(range(first + 3))  # what was told last is written, too
        assert "finished" not in {event.event for event in run.events}
    update(optimizer)
    assert list(read(tmp_path).steps) == list(range(6))


def test_an_observer_that_nobody_ever_held_says_so(tmp_path: Path) -> None:
    _, optimizer = parts(1)
    with pytest.warns(GroupwiseWarning, match="nobody holds this one: observer = Observer"):
        Observer(optimizer, tmp_path)
    with pytest.warns(GroupwiseWarning, match="nobody holds this one"):
        Observer(optimizer, None, sinks=[Memory()])
    Observer(optimizer, None)  # which records nothing anyway
    assert not optimizer._optimizer_step_pre_hooks


def test_an_optimizer_that_is_dropped_is_let_go_though_copies_of_it_were_made() -> None:
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1)
    with Observer(optimizer, None) as observer:
        other = copy.deepcopy(optimizer)
        train(model, optimizer, observer, 2)
        reference, held = weakref.ref(optimizer), weakref.ref(observer)
    del optimizer, observer
    gc.collect()
    assert (reference(), held()) == (None, None)
    assert not other._optimizer_step_pre_hooks


def test_whoever_writes_into_a_folder_can_be_found_and_closed(tmp_path: Path) -> None:
    _, optimizer = parts(1)
    assert Observer.writing(tmp_path) is None
    kept = Observer(optimizer, tmp_path)
    (tmp_path.parent / "other name").unlink(missing_ok=True)
    (tmp_path.parent / "other name").symlink_to(tmp_path)
    for name in (tmp_path, str(tmp_path), tmp_path / ".." / tmp_path.name, tmp_path.parent / "other name"):
        assert Observer.writing(name) is kept
    with pytest.raises(RecordError, match=r"Observer\.writing\(.*\)\.close\(\) ends that, and the run goes on"):
        Observer(optimizer, tmp_path)
    update(optimizer)
    Observer.writing(tmp_path).close()
    assert Observer.writing(tmp_path) is None
    with Observer(optimizer, tmp_path) as other:
        assert other.step == 1
        update(optimizer)
    assert list(read(tmp_path).steps) == [0, 1]


def test_an_observer_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    _, optimizer = parts(1)
    with pytest.raises(RecordError, match="cannot write a run"):
        Observer(optimizer, tmp_path / "file")
    assert Observer.writing(tmp_path / "file") is None
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_observer_is_refused_where_it_would_be_copied() -> None:
    with Observer(parts(1)[1], None) as observer:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(RecordError, match=r"an Observer is not copied and not pickled: .* Make one where"):
                attempt(observer)
