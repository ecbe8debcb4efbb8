"""What is probed is what is trained: shapes, dtypes, empty tensors, and settings beside those of other groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, after, scale
from groupwise.errors import GroupwiseWarning, OptimizerError, ResolutionError
from groupwise.optim import resolve


def a(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape, dtype=dtype), requires_grad=dtype.is_floating_point or dtype.is_complex)


class Plain(torch.optim.Optimizer):
    """Gradient descent, to which subclasses add habits."""

    def __init__(self, params: Any, lr: float = 0.1, strength: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "strength": strength})

    def strength(self, group: dict[str, Any]) -> float:
        return float(group["strength"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"] * self.strength(group))


class FromTheFirst(Plain):
    def strength(self, group: dict[str, Any]) -> float:
        return float(self.param_groups[0]["strength"])


class FromTheLast(Plain):
    def strength(self, group: dict[str, Any]) -> float:
        return float(self.param_groups[-1]["strength"])


class TheLargest(Plain):
    def strength(self, group: dict[str, Any]) -> float:
        return float(max(each["strength"] for each in self.param_groups))


class OneForAll(Plain):
    def strength(self, group: dict[str, Any]) -> float:
        if len({each["strength"] for each in self.param_groups}) > 1:
            raise RuntimeError("one strength only")
        return float(group["strength"])


class InEights(Plain):
    """Takes tensors whose last size is a multiple of 8."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        params = list(params)
        for p in params:
            if p.shape[-1] % 8:
                raise ValueError(f"last size {p.shape[-1]}")
        super().__init__(params, lr)


def plan(optimizer: Any, *more: Rule, **declared: Any) -> Plan:
    return Plan([Rule("*", optimizer=optimizer, **{"lr": 0.1, **declared}), *more])


@pytest.mark.parametrize(
    ("optimizer", "parameter", "words"),
    [
        ("Muon", a(4, 4, dtype=torch.complex64), r"Muon does not support complex.*its shape is \(4, 4\), of complex64"),
        ("Adafactor", a(4, dtype=torch.complex128), r"does not support complex.*of complex128"),
        ("Adafactor", a(0, 4), r"its shape is \(0, 4\)"),
        ("Muon", a(8, 3, 3, 3), r"torch.Size\(\[8, 3, 3, 3\]\) \(its shape is \(8, 3, 3, 3\)"),
        ("SGD", a(3, dtype=torch.float8_e4m3fn), "Float8_e4m3fn"),
        (InEights, a(2, 12), r"last size 12 \(its shape is \(2, 12\)\)"),
    ],
)
def test_what_a_class_refuses_of_a_parameter_is_refused_when_the_plan_is_resolved(
    optimizer: Any, parameter: nn.Parameter, words: str
) -> None:
    with pytest.raises(ResolutionError, match=rf"parameter 'it': \S+ refuses: .*{words}"):
        resolve({"it": parameter}, plan(optimizer))


def test_a_class_that_wants_more_than_two_of_something_gets_the_parameter_itself() -> None:
    assert resolve({"it": a(2, 16), "other": a(3, 8)}, plan(InEights)).groups


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_integers_that_never_train_may_stand_in_a_group(dtype: torch.dtype) -> None:
    assert resolve({"it": a(4, 4, dtype=dtype), "w": a(4, 4)}, plan("AdamW", weight_decay=0.0)).groups


def test_less_precision_elsewhere_is_not_judged_by_the_kernels_of_the_cpu() -> None:
    it = nn.Parameter(torch.empty(4, 4, dtype=torch.float8_e4m3fn, device="meta"))
    assert resolve({"it": it}, plan("SGD")).groups


def test_every_refusal_is_told_and_parameters_refused_alike_are_one_mistake() -> None:
    model = {"a": a(4, 4, dtype=torch.complex64), "b": a(3, 5, dtype=torch.complex64), "c": a(2, 2, 2), "d": a(4, 4)}
    with pytest.raises(ResolutionError, match=r"2 mistakes:\n.*'a': Muon refuses.*'b'(.|\n)*'c': Muon refuses"):
        resolve(nn.ParameterDict(model), plan("Muon"))


def test_a_tensor_of_any_size_is_looked_at_without_its_memory() -> None:
    resolve({"it": nn.Parameter(torch.empty(2**20, 2**16, device="meta"))}, plan("Adagrad"))


def weights(optimizer: Any, *strengths: float) -> list[torch.Tensor]:
    """Three layers in a row, trained by the plan with a strength each."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abc"})
    rules = [Rule(name, strength=s) for name, s in zip("abc", strengths, strict=True)]
    return trained(model, GroupedOptimizer(model, plan(optimizer, *rules)))


def alone(optimizer: Any, *strengths: float) -> list[torch.Tensor]:
    """The same with an optimizer for each strength."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abc"})
    parts: dict[float, list[Any]] = {}
    for layer, s in zip(model.values(), strengths, strict=True):
        parts.setdefault(s, []).extend(layer.parameters())
    return trained(model, *[optimizer(part, strength=s) for s, part in parts.items()])


def trained(model: Any, *optimizers: torch.optim.Optimizer) -> list[torch.Tensor]:
    for _ in range(5):
        model["c"](model["b"](model["a"](torch.ones(2, 3)))).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from([Plain, FromTheFirst, FromTheLast, TheLargest, OneForAll]),
    st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 3),
)
def test_groups_of_different_settings_are_stepped_as_by_an_optimizer_each(
    optimizer: Any, strengths: tuple[float, ...]
) -> None:
    if optimizer is OneForAll and len(set(strengths)) > 1:
        with pytest.raises(ResolutionError, match="refuses groups that differ in strength"):
            weights(optimizer, *strengths)
    else:
        assert all(map(torch.equal, weights(optimizer, *strengths), alone(optimizer, *strengths)))


@pytest.mark.parametrize("optimizer", [FromTheFirst, FromTheLast, TheLargest])
def test_the_table_says_which_groups_are_stepped_apart(optimizer: Any) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    apart = resolve(model, plan(optimizer, Rule("b", strength=0.5)))
    assert "does not read strength group by group" in str(apart)
    assert resolve(model, plan(optimizer, Rule("b", lr=scale(0.5)))).notes == ()
    assert resolve(model, plan(Plain, Rule("b", strength=0.5))).notes == ()


def test_probing_draws_no_number_of_the_program() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    resolve(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}).to("meta"), plan(Plain, Rule("b", lr=0.2)))
    torch.manual_seed(3)
    resolve({"a": a(2), "b": a(2, 2)}, plan(FromTheFirst, Rule("b", strength=0.2)))
    assert torch.equal(torch.rand(4), expected)


def test_parts_stay_apart_over_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    optimizer = GroupedOptimizer(model, plan(FromTheFirst, Rule("b", strength=0.5)))
    again = GroupedOptimizer(model, optimizer.plan)
    again.load_state_dict(optimizer.state_dict())
    for each in (optimizer, again):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        each.step()
        moved = {name: (before[name] - p.detach()).mean().item() for name, p in model.named_parameters()}
        assert moved["a.bias"] == pytest.approx(0.1)
        assert moved["b.bias"] == pytest.approx(0.05)


@pytest.mark.parametrize("algorithm", ["AdamW", "SGD", "SparseAdam", "NAdam", "Adagrad", "Adafactor"])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_table_with_sparse_gradients_that_never_trains_may_stand_under_any_class(
    algorithm: str, by_hand: bool
) -> None:
    net = nn.ModuleDict({"table": nn.EmbeddingBag(6, 4, sparse=True), "head": nn.Linear(4, 2)})
    net["table"].weight.requires_grad_(not by_hand)
    table = Rule("table.*", optimizer=algorithm, lr=0.1, **({} if by_hand else {"trainable": False}))
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=0.01), table]))
    before = net["table"].weight.detach().clone()
    for _ in range(2):
        net["head"](net["table"](torch.tensor([[0, 3]]))).square().sum().backward()
        optimizer.step()
    assert torch.equal(net["table"].weight, before)


def test_a_table_with_sparse_gradients_that_trains_later_is_refused_at_once() -> None:
    net = nn.ModuleDict({"table": nn.EmbeddingBag(6, 4, sparse=True), "head": nn.Linear(4, 2)})
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.01), Rule("table.*", trainable=after("5 steps"))])
    with pytest.raises(ResolutionError, match="does not support sparse gradients"):
        GroupedOptimizer(net, plan)
    optimizer = GroupedOptimizer(net, Plan([plan.rules[0], Rule("table.*", trainable=False)]))
    with pytest.raises(ResolutionError, match="does not support sparse gradients"):
        optimizer.regroup(plan)


def test_a_frozen_table_that_something_else_unfreezes_names_itself_where_its_class_takes_no_sparse_gradient() -> None:
    net = nn.ModuleDict({"table": nn.EmbeddingBag(6, 4, sparse=True), "head": nn.Linear(4, 2)})
    net["table"].weight.requires_grad_(False)
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=0.01)]))
    net["table"].weight.requires_grad_(True)
    net["head"](net["table"](torch.tensor([[0, 3]]))).sum().backward()
    with pytest.raises(OptimizerError, match=r"'table\.weight' has a sparse gradient, which AdamW does not take"):
        optimizer.step()
    moved = Plan([Rule("*", optimizer="AdamW", lr=0.01), Rule("table.*", optimizer="SparseAdam", lr=0.01)])
    with pytest.warns(GroupwiseWarning, match="the algorithm changed"):
        optimizer.regroup(moved)  # the way out that the message names
    optimizer.step()
