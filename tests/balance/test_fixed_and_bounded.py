"""Stated weights beside found ones, and weights within bounds, around every method that comes with the library."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor

from groupwise.balance import (
    Balancer,
    Bounded,
    CAGrad,
    Equal,
    Fixed,
    LogSum,
    MoCo,
    PCGrad,
    Periodic,
    Static,
    Uncertainty,
    UPGrad,
)
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods import METHODS
from groupwise.balance.plan_table import Stated, decode, encode
from groupwise.errors import BalanceError, GroupwiseWarning
from groupwise.schedules import linear
from groupwise.testing import laws_of
from tests.balance.engine.models import built
from tests.balance.engine.test_state import method_of

INNER = [name for name in METHODS if name not in ("Fixed", "Bounded", "Periodic")]
TASKS, KEPT = ("a", "k", "b", "c"), [0, 2, 3]


def made(name: str) -> Method:
    method = method_of(name)
    assert method is not None
    return method


def answer(method: Method, jacobian: Tensor, told: MethodContext, memory: Memory) -> Tensor:
    """[n] the update."""
    if isinstance(method, JacobianMethod):
        return method.update(jacobian, told, memory)
    if isinstance(method, GramianMethod):
        return method.weights(jacobian @ jacobian.T, told, memory) @ jacobian
    assert isinstance(method, LossMethod)
    return method.weights(told.losses, told, memory) @ jacobian


@pytest.mark.parametrize("name", INNER)
def test_the_others_are_balanced_as_if_the_fixed_task_were_not_there(name: str) -> None:
    """Fixed(m, w)(J) = m(J without the task) + w g, at every step, whatever m remembers or draws."""
    fixed, alone, memory, own = Fixed(made(name), {"k": 0.25}), made(name), Memory(), Memory().part("inner")
    for step in range(4):
        jacobian = torch.randn(4, 7, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        losses = torch.tensor([0.5, 2.0, 9.0, 1.5]).double() + step
        told = MethodContext(TASKS, losses, step, (7,), 20, 5, ("p|7|1",))
        found = answer(fixed, jacobian, told, memory)
        part = MethodContext(("a", "b", "c"), losses[KEPT], step, (7,), 20, 5, ("p|7|1",))
        expected = answer(alone, jacobian[KEPT], part, own) + 0.25 * jacobian[1]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inner", [Uncertainty(), CAGrad(), MoCo()], ids=str)
def test_what_a_fixed_task_alone_reaches_sees_its_weight(inner: Method) -> None:
    model = built("Plain")
    losses = model.losses()
    alone = torch.autograd.grad(losses["b"], [*model.parameters()], retain_graph=True, allow_unused=True)
    others = [
        torch.autograd.grad(losses[task], [*model.parameters()], retain_graph=True, allow_unused=True)
        for task in losses.keys() - {"b"}
    ]
    Balancer(Fixed(inner, {"b": 0.01})).backward(losses)
    checked = 0
    for place, parameter in enumerate(model.parameters()):
        if alone[place] is not None and all(grads[place] is None for grads in others):
            torch.testing.assert_close(parameter.grad, 0.01 * alone[place])
            checked += 1
    assert checked


def test_a_stated_weight_may_follow_a_schedule() -> None:
    balancer, model = Balancer(Fixed(Equal(), {"b": linear(0.0, end=1.0)}), total_steps=5), built("Plain")
    found = [balancer.backward(model.losses()).weights["b"] for _ in range(5)]
    assert found == pytest.approx([linear(0.0, end=1.0).at(step, 5) for step in range(5)])
    assert balancer.backward(model.losses()).weights["a"] == 1.0


def test_a_batch_may_have_the_fixed_tasks_alone_or_none_of_them() -> None:
    for inner in (LogSum(), UPGrad(), MoCo()):
        model = built("Plain")
        balancer = Balancer(Fixed(inner, {"b": 0.5}), parameters=model)
        balancer.backward(model.losses())
        losses = model.losses()
        alone = torch.autograd.grad(losses["b"], [*model.parameters()], retain_graph=True, allow_unused=True)
        model.zero_grad()
        balancer.backward({"b": losses["b"]})
        for parameter, gradient in zip(model.parameters(), alone, strict=True):
            if gradient is not None:
                torch.testing.assert_close(parameter.grad, 0.5 * gradient)
        rest = model.losses()
        del rest["b"]
        assert "b" not in balancer.backward(rest).weights


def test_a_name_that_nobody_sees_is_said_once_and_a_rare_task_is_not() -> None:
    model = built("Plain")
    balancer = Balancer(Fixed(Equal(), {"bb": 0.1}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(25):
            balancer.backward(model.losses())
    assert [w.category for w in said] == [GroupwiseWarning]
    assert "none of 10 updates" in str(said[0].message)
    assert "'bb'; did you mean 'b'" in str(said[0].message)
    balancer = Balancer(Fixed(Equal(), {"b": 0.1}))
    for step in range(25):
        losses = model.losses()
        if step % 7:
            del losses["b"]
        balancer.backward(losses)


@pytest.mark.parametrize("name", INNER)
def test_bounds_cut_each_weight_and_nothing_else(name: str) -> None:
    method = made(name)
    if isinstance(method, JacobianMethod):
        with pytest.raises(BalanceError, match="makes an update, and there are no weights to bound"):
            Bounded(method, most=1.0)
        return
    bounded, memory, own = Bounded(method, most=0.6, least=0.2), Memory(), Memory().part("inner")
    for step in range(4):
        jacobian = torch.randn(3, 7, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        told = MethodContext(("a", "b", "c"), torch.tensor([0.05, 2.0, 9.0]).double() + step, step, (7,), 20, 5)
        given = told.losses if isinstance(method, LossMethod) else jacobian @ jacobian.T
        found = bounded.weights(given, told, memory)  # type: ignore[attr-defined]
        expected = method.weights(given, told, own)  # type: ignore[attr-defined]
        torch.testing.assert_close(found, expected.clamp(0.2, 0.6))


def test_a_solved_task_does_not_set_the_step() -> None:
    assert Bounded(LogSum(), most=20.0)(torch.tensor([2.0, 1e-6])).tolist() == [0.5, 20.0]  # type: ignore[operator]


WRAPPED = [
    Fixed(Uncertainty(), {"b": 0.25}), Fixed(PCGrad(), {"b": linear(1.0, end=0.0)}), Fixed(MoCo(), {"b": 1.0}),
    Bounded(LogSum(), most=20.0), Bounded(CAGrad(), most=3.0, least=0.01), Bounded(Fixed(LogSum(), {"b": 1.0}), 5.0),
]  # fmt: skip


@pytest.mark.parametrize("method", WRAPPED, ids=repr)
def test_it_is_a_value_that_files_and_pickles_hold(method: Method) -> None:
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert other == method
        assert type(other) is type(method)
        assert repr(other) == repr(method)
    assert decode(encode(method)) == Stated(method)


@pytest.mark.parametrize("method", [WRAPPED[0], WRAPPED[2], WRAPPED[3], WRAPPED[4]], ids=repr)
def test_it_keeps_the_laws_of_every_method(method: Method) -> None:
    for law in laws_of(method):
        law()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bounded(CAGrad(), most=1.0, least=2.0), r"Bounded: least=2 is above most=1"),
        (lambda: Bounded(CAGrad(), most=0.0), r"Bounded: most: 0.0 is not above 0"),
        (lambda: Fixed(CAGrad(), 0.5), r"Fixed: weights: a table by task is written"),
        (lambda: Fixed("CAGrad", {"a": 1.0}), r"Fixed: method: 'CAGrad' is not a method"),
        (lambda: Fixed(Periodic(CAGrad()), {"a": 1.0}), r"Fixed: Periodic goes outside: write Periodic\(Fixed"),
        (lambda: decode({"method": "Fixed", "of": "CAGrad"}), r"Fixed: weights is not given"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        make()  # type: ignore[operator]


def test_micro_batches_of_stated_weights_are_the_joint_batch() -> None:
    for inner in (Static({"a": 2.0, "c": 0.5}), UPGrad()):
        joint, parts = built("Plain"), built("Plain")
        Balancer(Fixed(inner, {"b": 0.1})).backward(joint.losses())
        balancer = Balancer(Fixed(inner, {"b": 0.1}))
        balancer.accumulate({task: loss / 2 for task, loss in parts.losses().items()})
        balancer.backward({task: loss / 2 for task, loss in parts.losses().items()})
        for one, other in zip(joint.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
