"""A step that a hook takes inside of backward: a norm over several tensors is not known there yet."""

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.plan import Clip

BOUND = 0.1


def backward(model: nn.ParameterList) -> None:
    torch.stack([(i + 2) * p.sum() for i, p in enumerate(model)]).sum().backward()


def stepped(model: nn.ParameterList, clip: Clip, own: bool) -> None:
    """Each tensor steps when its gradient is there."""
    rule = Rule("*", optimizer="SGD", lr=1.0, clip=clip if own else None)
    optimizer = GroupedOptimizer(nn.ModuleDict({"part": model}), Plan([rule], clip=None if own else clip))

    def step(p: torch.Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    for p in model:
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(step)
    backward(model)


def tensors(*sizes: int) -> nn.ParameterList:
    return nn.ParameterList(torch.ones(size) for size in sizes)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("per", ["rule", "network", "module"])
def test_a_joint_norm_is_refused_and_nothing_has_moved(per: str, own: bool) -> None:
    model = tensors(3, 2)
    with pytest.raises(OptimizerError, match=r"1 of the 2 gradients of the clip scope .* are not there yet"):
        stepped(model, clip_norm(BOUND, per=per), own)
    assert all(torch.equal(p, torch.ones_like(p)) for p in model)


@pytest.mark.parametrize("own", [True, False])
def test_a_norm_of_each_tensor_is_what_it_is_outside(own: bool) -> None:
    model, twin = tensors(3, 2), tensors(3, 2)
    stepped(model, clip_norm(BOUND, per="parameter"), own)
    backward(twin)
    for p, q in zip(model, twin, strict=True):
        nn.utils.clip_grad_norm_([q], BOUND)
        torch.testing.assert_close(p, q - q.grad)


@pytest.mark.parametrize("own", [True, False])
def test_a_tensor_that_gets_no_gradient_is_not_waited_for(own: bool) -> None:
    model = tensors(3, 2)
    model[1].requires_grad_(False)
    stepped(model, clip_norm(BOUND), own)
    assert (1 - model[0]).norm().item() == pytest.approx(BOUND, rel=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_an_optimizer_of_one_tensor_is_asked_whether_it_means_that(own: bool) -> None:
    model = tensors(3)
    with pytest.warns(GroupwiseWarning, match="this optimizer has one tensor and steps it inside of backward"):
        stepped(model, clip_norm(BOUND), own)
    assert (1 - model[0]).norm().item() == pytest.approx(BOUND, rel=1e-5)
