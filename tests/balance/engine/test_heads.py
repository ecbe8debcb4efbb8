"""The heads' gradients from one backward equal those from one backward for each task."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from groupwise.balance import Balancer, FromGramian
from groupwise.balance.engine.routes import heads
from groupwise.balance.engine.task_graph import task_graph_of

Losses = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
WEIGHTS = [nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(i))) for i in range(4)]
a, b, c, d = WEIGHTS


def from_one_tensor(z: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    first, second = (z * torch.stack([a[0], b[0]])[:, None, None]).square().mean((1, 2)).unbind()
    return {"first": first, "second": second}


HEADS: dict[str, tuple[Losses, bool]] = {
    "each its own": (lambda z, y: {"first": (z @ a).square().mean(), "second": (z @ b).exp().mean()}, True),
    "one reads twice": (lambda z, y: {"first": (z @ a).mean() * (z * c).sum(), "second": (z @ b).square().sum()}, True),
    "two features": (lambda z, y: {"first": (z @ a).mean() + (y @ c).sum(), "second": (z * y).sum() * b.sum()}, True),
    "one reads one, one the other": (lambda z, y: {"first": (z @ a).square().sum(), "second": (y @ b).sum()}, True),
    "no weights of their own": (lambda z, y: {"first": z.square().mean(), "second": z.sin().sum()}, True),
    "cut out of one tensor": (from_one_tensor, False),
}


@pytest.mark.parametrize(("losses", "at_once"), HEADS.values(), ids=HEADS)
def test_the_gradients_are_those_of_each_loss_alone(losses: Losses, at_once: bool) -> None:
    z, y = features()
    made = dict(losses(z, y))
    used = [f for f in (z, y) if any(reaches(loss, f) for loss in made.values())]
    edges = [get_gradient_edge(f) for f in used]
    stated = task_graph_of(made, None, None)
    stated = type(stated)(stated.losses, stated.graph, stated.shared, own(made), None)
    assert heads._are_separate(stated, edges, heads._boundaries(stated, edges)) is at_once
    for task, at_features, leaves in heads.probe(stated, edges):
        loss = [*made.values()][task]
        expected = torch.autograd.grad(loss, used, retain_graph=True, allow_unused=True)
        for found, gradient in zip(at_features, expected, strict=True):
            assert (found is None) is (gradient is None)
            assert found is None or torch.allclose(found, gradient, rtol=1e-6, atol=1e-7)
        for leaf, found in leaves:
            (gradient,) = torch.autograd.grad(loss, [leaf], retain_graph=True, allow_unused=True)
            assert torch.allclose(found, gradient, rtol=1e-6, atol=1e-7)


def test_a_task_that_is_not_finite_stays_by_itself() -> None:
    z = features()[0]
    made = {"broken": (z @ a).sum() * torch.nan, "whole": (z @ b).square().sum()}
    rows = {task: at[0] for task, at, _ in heads.probe(task_graph_of(made, None, None), [get_gradient_edge(z)])}
    assert bool(torch.isnan(rows[0]).all())
    (expected,) = torch.autograd.grad(made["whole"], [z], retain_graph=True)
    assert torch.equal(rows[1], expected)


def test_no_hook_stays_behind() -> None:
    z = features()[0]
    made = {"first": (z @ a).sum(), "second": (z @ b).sum()}
    found = list(heads.probe(task_graph_of(made, None, None), [get_gradient_edge(z)]))
    before = [at[0].clone() for _, at, _ in found]
    torch.autograd.grad(list(made.values()), [z], retain_graph=True)
    assert all(torch.equal(at[0], kept) for (_, at, _), kept in zip(found, before, strict=True))


def features() -> tuple[Tensor, Tensor]:
    """Two tensors of a trunk."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    return torch.tanh(x * d), torch.sin(x * d)


def reaches(loss: Tensor, feature: Tensor) -> bool:
    """Whether a loss depends on a feature."""
    return torch.autograd.grad(loss, [feature], retain_graph=True, allow_unused=True)[0] is not None


def own(losses: Mapping[str, Tensor]) -> dict[Tensor, int]:
    """The weights of the heads, with the tasks that reach them."""
    masks = {w: sum(reaches(loss, w) << i for i, loss in enumerate(losses.values())) for w in (a, b, c)}
    return {w: mask for w, mask in masks.items() if mask}


@pytest.mark.parametrize("separate", [True, False])
def test_a_feature_below_another_feature_is_counted_once(separate: bool) -> None:
    """Heads read both; what the upper one hands down to the lower one is the trunk's part."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    twins = []
    for weights in ([nn.Parameter(w.detach().clone()) for w in (c, d)] for _ in range(2)):
        lower = torch.tanh(x * weights[0])
        upper = torch.sin(lower * weights[1])
        both = lower + 2 * upper
        losses = (
            {"first": (lower @ a).sum() + (upper @ a).exp().sum(), "second": (lower * upper * b).sum()}
            if separate
            else dict(zip(("first", "second"), (both * a).square().mean(0)[:2].unbind(), strict=True))
        )
        twins.append((weights, lower, upper, losses))
    (ours, lower, upper, losses), (theirs, *_, plain) = twins
    ones = FromGramian(lambda gramian: torch.ones(len(gramian), dtype=torch.float64))
    Balancer(ones, parameters=ours).backward(losses, features=[lower, upper])
    torch.stack([*plain.values()]).sum().backward()
    for mine, one in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, one.grad, rtol=1e-5)
