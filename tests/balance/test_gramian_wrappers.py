"""Methods around methods, products of two halves, and callables that people bring along."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods import (
    DBMTL,
    IMTL,
    IMTL_G,
    IMTL_L,
    MGDA,
    RLW,
    CAGrad,
    DualProj,
    Equal,
    FromGramian,
    FromJacobian,
    FromLosses,
    GradNorm,
    LogSum,
    MoCo,
    NashMTL,
    Normalized,
    PCGrad,
    Periodic,
    Smoothed,
    Static,
    Times,
    UPGrad,
)
from groupwise.errors import BalanceError
from groupwise.schedules import linear
from tests.balance.driving import reloaded


def drawn(k: int, n: int, seed: int) -> Tensor:
    return torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context(tasks: str, step: int = 0, losses: Tensor | None = None) -> MethodContext:
    return MethodContext(tuple(tasks), torch.ones(len(tasks)).double() if losses is None else losses.double(), step)


def test_smoothed_weights_are_the_moving_average_from_the_first_on() -> None:
    memory, expected = Memory(), None
    for step in range(8):
        jacobian = drawn(3, 6, step)
        now = CAGrad()(jacobian @ jacobian.T)
        expected = now if expected is None else 0.8 * expected + 0.2 * now
        found = Smoothed(CAGrad(), 0.8).weights(jacobian @ jacobian.T, context("abc", step), memory)
        torch.testing.assert_close(found, expected)
        memory = reloaded(memory) if step == 3 else memory


def test_a_wrapper_has_the_shape_of_what_it_wraps() -> None:
    assert isinstance(Smoothed(RLW()), LossMethod)
    assert isinstance(Smoothed(MGDA()), GramianMethod)
    assert isinstance(Normalized(MGDA()), GramianMethod)
    assert isinstance(Normalized(MoCo()), JacobianMethod)


@pytest.mark.parametrize(
    "method", [Smoothed(RLW(), 0.5), Smoothed(MGDA()), Normalized(MoCo()), Periodic(MGDA(), 3)], ids=str
)
def test_a_wrapper_is_a_value(method: Method) -> None:
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method)), eval(repr(method))):
        assert other == method
        assert type(other) is type(method)


@pytest.mark.parametrize("method", [PCGrad(), NashMTL(), UPGrad(), MoCo(), DBMTL()], ids=str)
@pytest.mark.parametrize("scale", [2.0**-20, 1.0, 2.0**20])
def test_normalized_keeps_the_direction_and_takes_the_length_of_the_mean(method: Method, scale: float) -> None:
    jacobian = scale * drawn(4, 9, 1)
    if isinstance(method, GramianMethod):
        plain = jacobian.T @ method(jacobian @ jacobian.T)
        found = jacobian.T @ Normalized(method)(jacobian @ jacobian.T)  # type: ignore[operator]
    else:
        plain, found = method(jacobian), Normalized(method)(jacobian)  # type: ignore[operator]
    torch.testing.assert_close(found, plain * (jacobian.mean(0).norm() / plain.norm()))


def test_periodic_weights_stand_between_two_computations() -> None:
    memory, method = Memory(), Periodic(MGDA(), 3)
    for step in range(9):
        jacobian = drawn(3, 6, step)
        assert method.due(context("abc", step), memory) is (step % 3 == 0)
        found = method.weights(jacobian @ jacobian.T, context("abc", step), memory)
        last = drawn(3, 6, step - step % 3)
        torch.testing.assert_close(found, MGDA()(last @ last.T))
        memory = reloaded(memory) if step == 4 else memory


def test_a_task_without_a_standing_weight_gets_the_mean_and_tasks_without_any_are_computed() -> None:
    memory, method = Memory(), Periodic(MGDA(), 100)
    jacobian = drawn(4, 8, 0)
    gramian = jacobian @ jacobian.T
    standing = method.weights(gramian[:2, :2], context("ab"), memory)
    joined = method.weights(gramian[:3, :3], context("abc", 1), memory)
    torch.testing.assert_close(joined, torch.cat([standing, standing.mean()[None]]))
    assert method.due(context("cd", 2), memory)
    torch.testing.assert_close(method.weights(gramian[2:, 2:], context("cd", 2), memory), MGDA()(gramian[2:, 2:]))


def test_a_product_balances_the_gradients_of_scaled_losses_and_shows_heads_the_scale_alone() -> None:
    jacobian, losses = drawn(3, 7, 4), torch.tensor([0.2, 3.0, 40.0]).double()
    memory, method = Memory(), Times(LogSum(), DualProj())
    told = context("abc", losses=losses)
    scaled = jacobian / losses[:, None]
    found = jacobian.T @ method.weights(jacobian @ jacobian.T, told, memory)
    torch.testing.assert_close(found, scaled.T @ DualProj()(scaled @ scaled.T))
    torch.testing.assert_close(method.task_specific_weights(told, memory), 1 / losses)


@pytest.mark.parametrize(
    "method", [MGDA(), UPGrad(), CAGrad(), PCGrad(), NashMTL(), GradNorm(), DualProj(), IMTL_G()], ids=str
)
@pytest.mark.parametrize("out", ["a", "c", "ac"])
def test_a_task_that_is_scaled_by_0_is_not_there_for_the_other_half(method: GramianMethod, out: str) -> None:
    product, memory, alone = (
        Times(Static({task: 0.0 if task in out else 2.0 for task in "abcd"}), method),
        Memory(),
        Memory(),
    )
    kept = [i for i, task in enumerate("abcd") if task not in out]
    for step in range(3):
        jacobian = drawn(4, 9, step)
        gramian, losses = jacobian @ jacobian.T, torch.arange(1.0, 5.0).double()
        found = product.weights(gramian, context("abcd", step, losses), memory)
        few = context("".join("abcd"[i] for i in kept), step, 2 * losses[kept])
        torch.testing.assert_close(found[kept], 2 * method.weights(4 * gramian[kept][:, kept], few, alone))
        assert not found[["abcd".index(task) for task in out]].any()


def test_a_weight_that_begins_at_0_lets_the_task_in_when_it_has_grown() -> None:
    method = Times(Static({"a": 1.0, "b": linear(0.0, 1.0)}), MGDA())
    jacobian = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double()
    lengths = {"total_steps": 2}
    found = [
        method.weights(
            jacobian @ jacobian.T, MethodContext(("a", "b"), torch.ones(2).double(), step, **lengths), Memory()
        )
        for step in (0, 2)
    ]
    assert found[0].tolist() == [1.0, 0.0]
    assert found[1].tolist() == pytest.approx([0.64, 0.36])


def test_nothing_is_left_of_a_product_whose_scales_are_all_0() -> None:
    found = Times(Static({"a": 0.0, "b": 0.0}), MGDA()).weights(torch.eye(2).double(), context("ab"), Memory())
    assert found.tolist() == [0.0, 0.0]


def test_impartial_learning_is_the_product_of_its_halves() -> None:
    memory, halves, losses = Memory(), Memory(), torch.tensor([0.5, 2.0]).double()
    for step in range(4):
        jacobian = drawn(2, 5, step)
        told = context("ab", step, losses)
        s = IMTL_L().weights(losses, told, halves)
        a = IMTL_G()(jacobian @ jacobian.T * s.outer(s))
        torch.testing.assert_close(IMTL().weights(jacobian @ jacobian.T, told, memory), s * a)
        torch.testing.assert_close(IMTL().task_specific_weights(told, memory), s)


def test_dual_balancing_gives_every_averaged_gradient_of_a_logarithm_one_length() -> None:
    memory, average = Memory(), torch.zeros(3, 6).double()
    for step in range(4):
        jacobian, losses = drawn(3, 6, step), torch.tensor([0.1, 5.0, 300.0]).double() * (1 + step)
        average = 0.9 * average + 0.1 * jacobian / losses[:, None]
        n = average.norm(dim=1)
        told = MethodContext(("a", "b", "c"), losses, step, (6,))
        torch.testing.assert_close(DBMTL().update(jacobian, told, memory), (n.max() / n) @ average)
        torch.testing.assert_close(DBMTL().task_specific_weights(told, memory), 1 / losses)


def test_a_callable_of_each_shape_is_a_method() -> None:
    jacobian = drawn(3, 5, 0)
    assert FromLosses(torch.sqrt)(torch.tensor([4.0, 9.0])).tolist() == [2.0, 3.0]
    torch.testing.assert_close(
        FromGramian(lambda g: g.diagonal().rsqrt())(jacobian @ jacobian.T), 1 / jacobian.norm(dim=1)
    )
    torch.testing.assert_close(FromJacobian(lambda j: j.sum(0))(jacobian), jacobian.sum(0))
    learnt = torch.nn.Linear(3, 3).double()
    assert not FromLosses(learnt)(torch.ones(3)).requires_grad


def nothing(given: Tensor) -> None:
    """Not a weight in sight."""


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: FromGramian(torch.diag)(torch.eye(2) * float("nan")),
            r"FromGramian\(diag\) gave task '0' the weight nan",
        ),
        (
            lambda: FromGramian(torch.triu)(torch.eye(2)),
            r"FromGramian\(triu\) returned the shape \[2, 2\] for \[2, 2\]",
        ),
        (
            lambda: FromLosses(nothing)(torch.ones(2)),
            r"FromLosses\(nothing\) returned None, not a tensor of \[t\] weights",
        ),
        (lambda: FromJacobian(lambda j: j[0] / 0)(torch.eye(2)), r"gave an update that is not finite"),
        (lambda: FromGramian(torch.nn.Softmax), r"FromGramian: Softmax is a class: write Softmax\(…\)"),
        (lambda: FromGramian(MGDA()), r"FromGramian: MGDA is a method already"),
        (lambda: FromGramian(3), r"FromGramian: 3 cannot be called"),
        (lambda: Smoothed(MoCo()), r"Smoothed: MoCo makes an update, and there are no weights to smooth"),
        (lambda: Smoothed(MGDA), r"Smoothed: method: MGDA is the class of a method: write MGDA\(\)"),
        (lambda: Smoothed(max), r"is not a method: wrap it in FromLosses, FromGramian or FromJacobian"),
        (lambda: Smoothed(Periodic(MGDA())), r"Smoothed: Periodic goes outside: write Periodic\(Smoothed"),
        (lambda: Normalized(Equal()), r"Normalized: Equal looks at losses alone"),
        (lambda: Periodic(Equal()), r"Periodic: Equal looks at losses alone"),
        (lambda: Periodic(MGDA(), 0), r"Periodic: n: 0 is less than 1"),
        (lambda: Times(MGDA(), MGDA()), r"Times: losses: MGDA is not a method that looks at losses alone"),
        (lambda: Times(Static({"a": 1.0}), RLW()), r"Times: gradients: RLW is not a method that weights gradients"),
    ],
)
def test_what_does_not_fit_is_named(build: object, message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        build()  # type: ignore[operator]
