"""One policy for what is not finite, whatever the method."""

import warnings

import pytest
import torch
from torch import Tensor

from groupwise.balance import MGDA, Balancer, CAGrad, FromJacobian, Uncertainty
from groupwise.errors import BalanceError, GroupwiseWarning
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.reference import assert_same, crooked, gradients

METHODS = {"losses": Uncertainty(), "gramian": CAGrad(), "jacobian": FromJacobian(lambda j: crooked(j @ j.T) @ j)}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def broken(model: MultiTask, how: str) -> dict[str, Tensor]:
    losses = model.losses()
    factor = {"nan": torch.nan, "inf": torch.inf}.get(how)
    if factor is not None:
        return {**losses, "b": losses["b"] * factor}
    root = (model.trunk[0].weight * 0.0).sum().abs().sqrt()  # finite, its gradient is not
    return {**losses, "b": losses["b"] + root}


@methods
@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
def test_a_broken_task_is_as_good_as_absent(method: object, how: str) -> None:
    if how == "gradient" and isinstance(method, Uncertainty):
        pytest.skip("a loss method looks at no gradient")
    ours, theirs = built("Plain"), built("Plain")
    balancer = Balancer(method)
    with pytest.warns(GroupwiseWarning, match=r'nonfinite="skip_task": task \'b\': its (loss|gradient)'):
        result = balancer.backward(broken(ours, how))
    losses = theirs.losses()
    Balancer(method).backward({"a": losses["a"], "c": losses["c"]})
    assert_same(ours, gradients(theirs))
    assert result.tasks == ("a", "c")
    assert [*result.skipped] == ["b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balancer.backward(broken(ours, how))  # said once


@methods
def test_skipping_the_step_writes_nothing_and_counts_for_nothing(method: object) -> None:
    model, balancer = built("Plain"), Balancer(method, nonfinite="skip_step")
    with pytest.warns(GroupwiseWarning, match="skip_step"):
        result = balancer.backward(broken(model, "nan"))
    assert not gradients(model)
    assert not result.tasks
    assert balancer.step == 0


@methods
def test_raising_names_the_task(method: object) -> None:
    model = built("Plain")
    with pytest.raises(BalanceError, match="task 'b': its loss is inf"):
        Balancer(method, nonfinite="raise").backward(broken(model, "inf"))
    assert not gradients(model)


def test_a_broken_head_is_found_too() -> None:
    model = built("Plain")
    losses = model.losses()
    losses["c"] = losses["c"] + (model.heads["c"].weight * 0.0).sum().abs().sqrt()
    with pytest.raises(BalanceError, match="task 'c': its gradient is not finite"):
        Balancer(MGDA(), nonfinite="raise").backward(losses)


def test_nothing_is_left_when_every_task_is_broken() -> None:
    model = built("Plain")
    losses = {task: loss * torch.nan for task, loss in model.losses().items()}
    with pytest.warns(GroupwiseWarning, match="skip_task"):
        result = Balancer(MGDA()).backward(losses)
    assert not result.tasks
    assert not gradients(model)


@pytest.mark.parametrize("way", ["sequential", "gramian", "features"])
def test_a_broken_task_breaks_no_other_on_any_way(way: str) -> None:
    """Its own graph divides zero by zero where the backward of another task sends a zero through it."""
    ours, theirs = built("Plain"), built("Plain")
    losses, whole = ours.losses(), theirs.losses()
    z = ours.features
    losses["b"] = losses["b"] + (z - z.detach()).square().sum().sqrt()
    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        result = Balancer(CAGrad(), route=way).backward(losses)
    Balancer(CAGrad(), route=way).backward({"a": whole["a"], "c": whole["c"]})
    assert result.tasks == ("a", "c")
    assert_same(ours, gradients(theirs))
