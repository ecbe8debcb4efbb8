"""Clip scopes against torch's own utilities, timm's adaptive clipping and the closed form."""

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from groupwise import GroupedOptimizer, Plan, Rule, clip_adaptive, clip_norm, clip_value
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.optim.clipping import Clipper
from groupwise.optim.freezing import freeze
from groupwise.plan import Clip
from tests.optim.models import Net, backward, batches, gradients

BASE = Rule("*", optimizer="SGD", lr=0.0)


def clipped(plan: Plan, sparse: bool = False, scale: float = 1.0) -> tuple[GroupedOptimizer, Net, Net]:
    """An optimizer that has clipped (lr 0: nothing moved), its net, and a twin with the gradients as they were."""
    net = Net(sparse=sparse)
    backward(net, batches(1)[0])
    for p in net.parameters():
        p.grad.mul_(scale)
    twin = copy.deepcopy(net)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        q.grad = p.grad.clone()
    optimizer = GroupedOptimizer(net, plan)
    optimizer.step()
    return optimizer, net, twin


def assert_same_gradients(net: Net, twin: Net) -> None:
    ours, theirs = gradients(net), gradients(twin)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_a_norm_scope_equals_clip_grad_norm_on_the_parameters_that_the_rule_wins() -> None:
    rules = [BASE, Rule("backbone.*", clip=clip_norm(0.1)), Rule(["embed.*", "head.*"], clip=clip_norm(0.05))]
    optimizer, net, twin = clipped(Plan(rules))
    body = nn.utils.clip_grad_norm_(twin.backbone.parameters(), 0.1)
    ends = nn.utils.clip_grad_norm_([*twin.embed.parameters(), *twin.head.parameters()], 0.05)
    assert_same_gradients(net, twin)
    torch.testing.assert_close(optimizer.measured["backbone"].norm, body)
    others = [measured.norm for label, measured in optimizer.measured.items() if label != "backbone"]
    torch.testing.assert_close(others, [ends])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("bound", "scale"), [(1e-6, 1e-6), (1e3, 1.0)], ids=["near eps", "within the bound"])
def test_norms_near_torchs_eps_and_within_the_bound_are_clipped_as_torch_does(
    bound: float, scale: float, own: bool
) -> None:
    clip = clip_norm(bound)
    rule = Rule("*", optimizer="SGD", lr=0.0, clip=clip if own else None)
    _, net, twin = clipped(Plan([rule], clip=None if own else clip), scale=scale)
    nn.utils.clip_grad_norm_(twin.parameters(), bound)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=0.0)


def test_a_scope_spans_groups_and_algorithms() -> None:
    rules = [Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(0.01)), Rule("head.*", optimizer="AdamW", lr=0.0)]
    _, net, twin = clipped(Plan([*rules, Rule("head.*", weight_decay=0.0)]))
    nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
    assert_same_gradients(net, twin)


def test_the_plans_own_clip_comes_after_the_rules_and_sees_what_they_left() -> None:
    plan = Plan([BASE, Rule("backbone.*", clip=clip_norm(0.1))], clip=clip_norm(0.2))
    optimizer, net, twin = clipped(plan)
    nn.utils.clip_grad_norm_(twin.backbone.parameters(), 0.1)
    whole = nn.utils.clip_grad_norm_(twin.parameters(), 0.2)
    assert_same_gradients(net, twin)
    torch.testing.assert_close(optimizer.measured["plan"].norm, whole, rtol=1e-4, atol=0)


@pytest.mark.parametrize("whole", [None, clip_norm(0.03), clip_value(0.002), clip_adaptive(0.01)], ids=str)
@pytest.mark.parametrize("own", [clip_norm(0.1), clip_value(0.004), clip_adaptive(0.02)], ids=str)
def test_sparse_and_dense_gradients_are_clipped_alike(own: Clip, whole: Clip | None) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.0, clip=own)], clip=whole)
    _, dense, _ = clipped(plan, sparse=False, scale=10.0)
    _, sparse, _ = clipped(plan, sparse=True, scale=10.0)
    assert sparse.embed.weight.grad.is_sparse
    assert_same_gradients(sparse, dense)


def test_an_uncoalesced_gradient_counts_each_row_once() -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(4, 2, sparse=True)})
    net["embed"](torch.tensor([1, 1, 1])).sum().backward()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0))]))
    optimizer.step()
    assert optimizer.measured["base"].norm.item() == pytest.approx(math.sqrt(2 * 3**2))


def test_value_clipping_equals_clip_grad_value_() -> None:
    optimizer, net, twin = clipped(Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_value(0.003))]))
    largest = max(p.grad.abs().max().item() for p in twin.parameters())
    nn.utils.clip_grad_value_(twin.parameters(), 0.003)
    assert_same_gradients(net, twin)
    assert optimizer.measured["base"].norm.item() == pytest.approx(largest)


def test_adaptive_clipping_equals_timms(timm: object) -> None:
    from timm.utils.agc import adaptive_clip_grad

    _, net, twin = clipped(Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_adaptive(0.01))]), scale=10.0)
    adaptive_clip_grad(twin.parameters(), 0.01)
    assert_same_gradients(net, twin)


@pytest.mark.parametrize(("per", "subsets"), [("parameter", 15), ("module", 8)])
def test_per_gives_each_subset_a_norm_of_its_own(per: str, subsets: int) -> None:
    optimizer, net, twin = clipped(Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(0.01, per=per))]))
    parts = [[p] for p in twin.parameters()]
    if per == "module":
        parts = [list(m.parameters(recurse=False)) for m in twin.modules() if list(m.parameters(recurse=False))]
    for part in parts:
        nn.utils.clip_grad_norm_(part, 0.01)
    assert_same_gradients(net, twin)
    assert len(optimizer.measured) == len(parts) == subsets


def test_scopes_never_span_networks() -> None:
    nets = {"a": Net(0), "b": Net(1)}
    for net in nets.values():
        backward(net, batches(1)[0])
    twins = copy.deepcopy(nets)
    for key, net in nets.items():
        for p, q in zip(net.parameters(), twins[key].parameters(), strict=True):
            q.grad = p.grad.clone()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(0.1))], clip=clip_norm(0.05))
    optimizer = GroupedOptimizer(nets, plan)
    optimizer.step()
    for key, twin in twins.items():
        nn.utils.clip_grad_norm_(twin.parameters(), 0.05)
        assert_same_gradients(nets[key], twin)
    assert set(optimizer.measured) == {"base/a", "base/b", "plan/a", "plan/b"}


def test_a_rule_that_is_called_as_the_plan_is_told_apart_from_it() -> None:
    rule = Rule("*", label="plan", optimizer="SGD", lr=0.0, clip=clip_norm(0.1))
    optimizer, _, twin = clipped(Plan([rule], clip=clip_norm(0.05)))
    norm = nn.utils.get_total_norm([p.grad for p in twin.parameters()])
    assert {label: found.norm.item() for label, found in optimizer.measured.items()} == {
        "plan#1": pytest.approx(norm.item()),
        "plan": pytest.approx(0.1, rel=1e-4),
    }


def test_clip_false_takes_parameters_out_of_every_rules_scope() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(0.01)), Rule("head.*", clip=False)])
    _, net, twin = clipped(plan)
    nn.utils.clip_grad_norm_([p for name, p in twin.named_parameters() if not name.startswith("head")], 0.01)
    assert_same_gradients(net, twin)


def test_gradients_of_mixed_types_share_one_norm() -> None:
    net = nn.Sequential(nn.Linear(3, 3).bfloat16(), nn.Linear(3, 3), nn.Linear(3, 3).double())
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0))]))
    optimizer.step()
    assert optimizer.measured["base"].norm.item() == pytest.approx(math.sqrt(36), rel=1e-6)
    assert all(p.grad.float().mean().item() == pytest.approx(1 / 6, rel=1e-2) for p in net.parameters())


def test_half_precision_norms_do_not_overflow() -> None:
    layer = nn.Linear(4, 4, bias=False).half()
    layer.weight.grad = torch.full_like(layer.weight, 30_000.0)
    optimizer = GroupedOptimizer(layer, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0))]))
    optimizer.step()
    assert optimizer.measured["base"].norm.item() == pytest.approx(120_000.0)
    assert torch.isfinite(layer.weight.grad).all()


def test_a_zero_gradient_stays_zero_and_finite() -> None:
    for clip in (clip_norm(1.0), clip_value(1.0), clip_adaptive(0.01)):
        layer = nn.Linear(2, 2)
        for p in layer.parameters():
            p.grad = torch.zeros_like(p)
        GroupedOptimizer(layer, Plan([Rule("*", optimizer="SGD", lr=0.1, clip=clip)])).step()
        assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


class Uses(TorchDispatchMode):
    """By address, how often a tensor is read by an operation that writes nothing into it, and how often written."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[int] = Counter()
        self.written: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t.data_ptr() for t in tree_leaves(args[:1]) if isinstance(t, torch.Tensor)]
        (self.written if func._schema.is_mutable else self.read).update(given)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bound", [1e-3, 1e3], ids=["clipped", "within the bounds"])
def test_each_gradient_is_read_for_its_norm_once_and_written_once_or_not_at_all(bound: float) -> None:
    rules = [Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(bound)), Rule("head.*", clip=clip_norm(bound))]
    clipper = Clipper(GroupedOptimizer(net := Net(), Plan(rules, clip=clip_norm(0.9 * bound))).resolution)
    groups = GroupedOptimizer(net, Plan(rules)).param_groups
    backward(net, batches(1)[0])
    places = [p.grad.data_ptr() for p in net.parameters()]
    with torch.no_grad(), Uses() as uses:
        clipper.clip(groups)
    assert {uses.read[place] for place in places} == {1}
    assert {uses.written[place] for place in places} == {1 if bound < 1 else 0}


def test_a_scope_cut_by_assigned_groups_warns_once() -> None:
    net = Net()
    rules = [Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0)), Rule("head.*", lr=0.1)]
    optimizer = GroupedOptimizer(net, Plan(rules))
    backward(net, batches(1)[0])
    everything = optimizer.param_groups
    optimizer.param_groups = everything[:1]
    with pytest.warns(GroupwiseWarning, match="updates only base of the clip scope") as caught:
        optimizer.step()
        optimizer.step()
    assert len(caught) == 1


def test_a_scope_none_of_which_is_stepped_is_not_cut() -> None:
    nets = {"a": Net(0), "b": Net(1)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0))]))
    backward(nets["a"], batches(1)[0])
    optimizer.only("a").step()  # a warning would be an error here
    assert set(optimizer.measured) == {"base/a"}


@pytest.mark.parametrize("own", [True, False])
def test_the_gradients_of_a_frozen_group_are_no_part_of_a_norm(own: bool) -> None:
    """They may be there: among several processes a group at rest still gets them."""
    clip = clip_norm(0.01)
    rules = [Rule("*", optimizer="SGD", lr=0.0, clip=clip if own else None), Rule("head.*", lr=0.1)]
    net, twin = Net(), Net()
    optimizer = GroupedOptimizer(net, Plan(rules, clip=None if own else clip))
    freeze(next(group for group in optimizer.param_groups if group["name"] == "head"), True)
    for name, p in net.named_parameters():
        p.grad = torch.full_like(p, 1e3 if name.startswith("head") else 1.0)
    optimizer.step()
    awake = [
        (p, q) for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True) if "head" not in name
    ]
    for _, q in awake:
        q.grad = torch.ones_like(q)
    nn.utils.clip_grad_norm_([q for _, q in awake], 0.01)
    for p, q in awake:
        torch.testing.assert_close(p.grad, q.grad)


def test_the_closure_runs_before_clipping() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1e-3))]))

    def closure() -> float:
        return backward(net, batches(1)[0]).item()

    optimizer.step(closure)
    total = nn.utils.get_total_norm([p.grad for p in net.parameters()])
    assert total.item() == pytest.approx(1e-3, rel=1e-2)


def _broken_step(nonfinite: str, value: float = float("nan"), per: str = "rule") -> Any:
    """A plan whose second rule has its own clip, stepped once well and once with a gradient that is not finite."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    clip = clip_norm(1.0, per=per, nonfinite=nonfinite)  # type: ignore[arg-type]
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.1, weight_decay=0.0), Rule("b", clip=clip)], clip=clip_norm(5.0))
    optimizer = GroupedOptimizer(model, plan)
    for broken in (False, True):
        optimizer.zero_grad()
        model["b"](model["a"](torch.ones(1, 2))).square().sum().backward()
        if broken:
            model["b"].bias.grad[0] = value  # type: ignore[index,union-attr]
        before = [p.detach().clone() for p in model.parameters()]
        if broken and nonfinite != "raise":
            with pytest.warns(GroupwiseWarning, match=r"gradient of 'b.bias' is not finite, .*clip '(b|plan)"):
                optimizer.step()
        else:
            optimizer.step()
    return before, [p.detach() for p in model.parameters()], optimizer


@pytest.mark.parametrize("per", ["rule", "module", "parameter"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_whose_norm_is_not_finite_can_be_left_out(value: float, per: str) -> None:
    before, after, optimizer = _broken_step("skip_step", value, per)
    assert all(map(torch.equal, before, after))
    assert all(state["step"] == 1 for state in optimizer.state.values())
    assert not all(measured.norm.isfinite() for measured in optimizer.measured.values())


def test_a_step_whose_norm_is_not_finite_can_be_refused() -> None:
    with pytest.raises(OptimizerError, match=r"gradient of 'b.bias' is not finite.*clip 'b'; nonfinite=\"raise\""):
        _broken_step("raise")


def test_a_norm_too_large_for_a_number_is_told_from_a_gradient_that_is_not_finite() -> None:
    ours, theirs = (torch.nn.Linear(2, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer="SGD", lr=1.0, clip=clip_norm(1.0))]))
    for p in [*ours.parameters(), *theirs.parameters()]:
        p.grad = torch.full_like(p, 1e30)
    with pytest.warns(GroupwiseWarning, match=r"norm of clip 'base' is too large for a number.*finite: .* makes 0"):
        optimizer.step()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    torch.optim.SGD(theirs.parameters(), lr=1.0).step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_norm_that_is_not_finite_is_passed_on_as_torch_does_and_said() -> None:
    _, after, _ = _broken_step("pass")
    assert all(p.isnan().any() for p in after)


def test_what_the_root_holds_shares_a_norm_per_module() -> None:
    class Rooted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
            self.inner = torch.nn.Linear(2, 1)

    model = Rooted()
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=0.1, clip=clip_norm(1.0, per="module"))]))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert {key: found.norm.item() for key, found in optimizer.measured.items()} == {
        "base": pytest.approx(2.0),
        "base/inner": pytest.approx(3**0.5),
    }


def test_infinity_beside_a_nan_makes_a_nan_of_the_norm_as_torch_does() -> None:
    model = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])
    for p, value in zip(model.parameters(), (1.0, math.inf, math.nan, 1.0), strict=True):
        p.grad = torch.full_like(p, value)
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0))]))
    with pytest.warns(GroupwiseWarning, match="not finite"):
        optimizer.step()
    assert optimizer.measured["base"].norm.isnan()
    assert all(p.grad.isnan().all() for p in model.parameters())


def test_what_was_measured_is_shown_at_one_place_and_copied_with_the_optimizer() -> None:
    optimizer, net, _ = clipped(Plan([Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(0.1))]))
    measured, before = optimizer.measured, optimizer.measured["base"].norm
    copied = copy.deepcopy(optimizer)
    for p in net.parameters():
        p.grad.zero_()
    optimizer.step()
    assert measured is optimizer.measured
    assert list(measured) == ["base"]
    assert len(measured) == 1
    assert copied.measured["base"].norm == before != measured["base"].norm
    assert measured["base"].norm.dtype == torch.float32
    with pytest.raises(KeyError, match="head"):
        measured["head"]


def test_a_scope_without_numbers_has_norm_zero() -> None:
    layer = nn.Linear(2, 2)
    layer.empty = nn.Parameter(torch.zeros(0, 3))
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    rules = [Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0)), Rule("empty", clip=clip_norm(1.0))]
    optimizer = GroupedOptimizer(layer, Plan(rules))
    optimizer.step()
    assert {key: found.norm.item() for key, found in optimizer.measured.items()} == {
        "base": pytest.approx(math.sqrt(6)),
        "empty": 0.0,
    }
