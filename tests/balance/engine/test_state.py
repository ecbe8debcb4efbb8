"""A run that is stopped and resumed is the run that was never stopped, bit by bit, for every method."""

import copy
import io
import pickle
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from groupwise.balance import (
    FAMO,
    MGDA,
    AutoLambda,
    Balancer,
    CAGrad,
    GradNorm,
    Method,
    Periodic,
    Smoothed,
    Static,
    Uncertainty,
    methods,
)
from groupwise.errors import BalanceError, StateError
from groupwise.schedules import linear
from tests.balance.engine.models import built

NEEDED = {
    "Static": Static({"a": 1.0, "b": linear(1.0, 0.1), "c": 0.5}),
    "GCS": methods.GCS(primary="a"),
    "Smoothed": Smoothed(CAGrad()),
    "Periodic": Periodic(CAGrad(), n=3),
    "Normalized": methods.Normalized(CAGrad()),
    "Times": methods.Times(Uncertainty(), CAGrad()),
    "Fixed": methods.Fixed(CAGrad(), {"b": 0.25}),
    "Bounded": methods.Bounded(CAGrad(), most=0.5, least=0.1),
}


def method_of(name: str) -> Method | None:
    if name in NEEDED:
        return NEEDED[name]
    cls = methods.METHODS[name]
    try:
        return cls()
    except (TypeError, BalanceError):
        return None


PRESENT = [("a", "b", "c"), ("a", "b", "c"), ("c", "a"), ("a", "b", "c"), ("a", "b"), ("a", "b", "c"), ("b", "a", "c")]


class Trainer:
    """A run of a few steps in which all that a method wants to be told is told."""

    def __init__(self, method: Method) -> None:
        self.model = built("Plain")
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.balancer = Balancer(method, total_steps=len(PRESENT), parameters=self.model)

    def losses(self) -> dict[str, Tensor]:
        return {task: loss + 0.01 for task, loss in self.model.losses().items()}

    def step(self, i: int) -> None:
        self.optimizer.zero_grad()
        if isinstance(self.balancer.method, AutoLambda) and i % 2:
            self.balancer.learn({task: loss * 1.1 for task, loss in self.losses().items()})
        losses = self.losses()
        self.balancer.backward({task: losses[task] for task in PRESENT[i]})
        self.optimizer.step()
        if isinstance(self.balancer.method, FAMO):
            self.balancer.after_step({task: self.losses()[task].detach() for task in PRESENT[i]})
        if i % 3 == 2:
            self.balancer.end_epoch()

    def saved(self) -> bytes:
        file = io.BytesIO()
        parts = {"model": self.model, "optimizer": self.optimizer, "balancer": self.balancer}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        return file.getvalue()

    def load(self, data: bytes) -> None:
        state: Mapping[str, dict[str, object]] = torch.load(io.BytesIO(data), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])


@pytest.mark.parametrize("name", [name for name in methods.METHODS if method_of(name) is not None])
def test_resume_is_bit_exact(name: str) -> None:
    method = method_of(name)
    whole, first, second = Trainer(method), Trainer(method), Trainer(method)
    stop = 4
    for i in range(len(PRESENT)):
        whole.step(i)
    for i in range(stop):
        first.step(i)
    second.load(first.saved())
    for i in range(stop, len(PRESENT)):
        second.step(i)
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second.balancer.step == whole.balancer.step == len(PRESENT)


def test_every_method_but_the_wrappers_needs_no_arguments_or_is_built_above() -> None:
    assert [name for name in methods.METHODS if method_of(name) is None] == []


def test_a_state_of_another_method_names_both() -> None:
    state = Balancer(Smoothed(CAGrad())).state_dict()
    with pytest.raises(StateError, match=r"method Smoothed\(CAGrad\), and this balancer has Smoothed\(MGDA\)"):
        Balancer(Smoothed(MGDA())).load_state_dict(state)


@pytest.mark.parametrize("state", [{}, {"method": "MGDA"}, [1], None, {"step": 1, "memory": {}}])
def test_what_is_no_state_is_refused_and_changes_nothing(state: object) -> None:
    balancer, model = Balancer(Uncertainty()), built("Plain")
    balancer.backward(model.losses())
    before = balancer.state_dict()
    with pytest.raises(StateError, match="not the state of a balancer"):
        balancer.load_state_dict(state)  # type: ignore[arg-type]
    assert balancer.state_dict()["step"] == before["step"] == 1


@pytest.mark.parametrize("part", [{"step": "x"}, {"tasks": None}, {"memory": {}}, {"memory": None}])
def test_a_broken_state_is_refused_and_changes_nothing(part: dict[str, object]) -> None:
    balancer = Balancer(Uncertainty())
    balancer.backward(built("Plain").losses())
    with pytest.raises(StateError, match="not the state of a balancer, or a broken one"):
        balancer.load_state_dict({**balancer.state_dict(), **part})
    assert balancer.step == 1


def test_a_state_of_other_tasks_names_them_at_the_first_backward() -> None:
    balancer = Balancer(Uncertainty())
    balancer.backward(built("Plain").losses())
    resumed = Balancer(Uncertainty())
    resumed.load_state_dict(balancer.state_dict())
    losses = {f"new {task}": loss for task, loss in built("Plain").losses().items()}
    with pytest.raises(StateError, match="of the tasks a, b, c; this batch has new a, new b, new c, none of them"):
        resumed.backward(losses)
    resumed.backward({**losses, "a": built("Plain").losses()["a"]})  # tasks may join


def test_nothing_is_saved_in_the_middle_of_an_update() -> None:
    balancer, model = Balancer(CAGrad()), built("Plain")
    balancer.accumulate(model.losses())
    with pytest.raises(StateError, match=r"under way \(accumulate\(\) without its backward\)"):
        balancer.state_dict()
    balancer.backward(model.losses())
    balancer.state_dict()
    learning = Balancer(AutoLambda())
    learning.learn(model.losses())
    with pytest.raises(StateError, match=r"learn\(\) without its backward"):
        learning.state_dict()


@pytest.mark.parametrize(
    "method", [CAGrad(), GradNorm(), MGDA(), Uncertainty(), Static({"a": 1.0, "b": 1.0, "c": 1.0})], ids=repr
)
@pytest.mark.parametrize("taken", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_is_copied_or_pickled_in_the_middle_of_an_update(method: Method, taken: Callable[..., object]) -> None:
    balancer, model = Balancer(method), built("Plain")
    balancer.accumulate(model.losses())
    with pytest.raises(StateError, match=r"under way \(accumulate\(\) without its backward\): .* or discard\(\) it"):
        taken(balancer)
    balancer.backward(model.losses())
    taken(balancer)


def test_a_forgotten_task_starts_afresh() -> None:
    trunk = built("Plain")
    balancer = Balancer(GradNorm(), at=trunk.trunk[2])
    for _ in range(3):
        balancer.backward(trunk.losses())
    balancer.forget("c")
    assert "c" not in balancer.state_dict()["tasks"]
    with pytest.raises(BalanceError, match="unknown task 'c'"):
        balancer.forget("c")
    balancer.backward(trunk.losses())
