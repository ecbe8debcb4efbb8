"""`.grad` is written as `backward` writes it: added, in place, in the parameter's own memory format and layout."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groupwise.balance import MGDA, Balancer, Equal, FromGramian, FromJacobian, Method, UPGrad
from tests.balance.engine.models import KINDS, built
from tests.balance.engine.reference import assert_same, crooked, gradients, leaves, reference

kinds = pytest.mark.parametrize("kind", KINDS)
ones = FromGramian(lambda gramian: torch.ones(len(gramian), dtype=torch.float64))


@kinds
@pytest.mark.parametrize("method", [Equal(), ones], ids=["losses", "gramian"])
def test_equal_weights_are_the_plain_sum(kind: str, method: object) -> None:
    plain, ours = built(kind), built(kind)
    sum(plain.losses().values()).backward()
    Balancer(method).backward(ours.losses())
    assert_same(ours, gradients(plain))
    for name, leaf in leaves(plain).items():
        mine = leaves(ours)[name]
        assert (leaf.grad is None) == (mine.grad is None)
        if leaf.grad is not None:
            assert mine.grad.layout == leaf.grad.layout
            assert leaf.grad.is_sparse or mine.grad.stride() == leaf.grad.stride()


@pytest.mark.parametrize(("kind", "route"), [*((kind, "sequential") for kind in KINDS), ("Plain", "gramian")])
def test_what_is_called_after_accumulation_is_called_as_in_backward_once_with_the_whole_gradient(
    kind: str, route: Any
) -> None:
    calls: list[dict[str, list[Tensor]]] = [{}, {}]
    plain, ours = built(kind), built(kind)
    for model, seen in zip((plain, ours), calls, strict=True):
        for name, leaf in leaves(model).items():
            if leaf.requires_grad:
                own = seen[name] = []
                leaf.register_post_accumulate_grad_hook(lambda p, own=own: own.append(p.grad.to_dense().clone()))
    sum(plain.losses().values()).backward()
    Balancer(ones, route=route).backward(ours.losses())
    assert {name: len(own) for name, own in calls[1].items()} == {name: len(own) for name, own in calls[0].items()}
    for name, own in calls[0].items():
        torch.testing.assert_close(calls[1][name], own)


def test_an_optimizer_that_steps_in_such_hooks_trains() -> None:
    model = built("Plain")
    before = {name: leaf.detach().clone() for name, leaf in leaves(model).items()}
    for leaf in leaves(model).values():
        alone = torch.optim.SGD([leaf], lr=0.1)
        leaf.register_post_accumulate_grad_hook(lambda p, alone=alone: (alone.step(), alone.zero_grad(), None)[2])
    Balancer(ones).backward(model.losses())
    moved = {name: (before[name] - leaf.detach()) / 0.1 for name, leaf in leaves(model).items()}
    assert all(leaf.grad is None for leaf in leaves(model).values())
    torch.testing.assert_close(moved, reference("Plain").update(torch.ones(3)))


class _Reused(torch.autograd.Function):
    """A backward that hands out the same memory each time."""

    buffer = torch.zeros(2, dtype=torch.float64)

    @staticmethod
    def forward(ctx: Any, p: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return factor * p.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Reused.buffer.copy_(gradient * ctx.factor), None


@pytest.mark.parametrize("method", [ones, FromJacobian(lambda jacobian: jacobian.sum(0))], ids=["gramian", "jacobian"])
def test_micro_batches_add_up_though_a_backward_uses_its_memory_again(method: Method) -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = Balancer(method, parameters=[p])
    for factor in (1.0, 20.0):
        balancer.accumulate({"a": _Reused.apply(p, factor), "b": _Reused.apply(p, 3 * factor)})
    result = balancer.backward({"a": _Reused.apply(p, 300.0), "b": _Reused.apply(p, 900.0)})
    assert result.route.startswith("accumulated: 6 backwards")
    torch.testing.assert_close(p.grad, torch.full_like(p, 4 * 321.0))


@kinds
def test_gradients_add_up_in_place(kind: str) -> None:
    expected, model = reference(kind), built(kind)
    for leaf in leaves(model).values():
        if leaf.requires_grad:
            leaf.grad = torch.ones_like(leaf)
    before = {name: leaf.grad for name, leaf in leaves(model).items()}
    Balancer(FromGramian(crooked)).backward(model.losses())
    update = expected.update(crooked(expected.gramian()))
    for name, leaf in leaves(model).items():
        assert leaf.grad is before[name]
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, 1 + update.get(name, torch.zeros_like(leaf)), rtol=1e-12, atol=1e-12)


def test_sparse_gradients_add_up_with_sparse_and_with_dense_ones() -> None:
    expected, twice, dense = reference("SparseEmbedding"), built("SparseEmbedding"), built("SparseEmbedding")
    update = expected.update(crooked(expected.gramian()))
    for _ in range(2):
        Balancer(FromGramian(crooked)).backward(twice.losses())
    assert twice.embed.weight.grad.is_sparse
    assert_same(twice, {name: 2 * gradient for name, gradient in update.items()})
    dense.embed.weight.grad = torch.zeros_like(dense.embed.weight)
    Balancer(FromGramian(crooked)).backward(dense.losses())
    assert_same(dense, update)


def test_written_gradients_share_no_memory_with_the_rows() -> None:
    model, balancer = built("Plain"), Balancer(ones)
    balancer.backward(model.losses())
    first = {name: leaf.grad for name, leaf in leaves(model).items() if leaf.grad is not None}
    kept = copy.deepcopy(first)
    model.zero_grad()
    balancer.backward({task: loss * 3 for task, loss in model.losses().items()})
    for name, gradient in first.items():
        assert torch.equal(gradient, kept[name])
        assert gradient.untyped_storage().nbytes() == gradient.numel() * gradient.element_size()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("cost", ["sequential", "gramian"])
def test_lower_precisions_are_multiplied_in_float32(dtype: torch.dtype, cost: str) -> None:
    torch.manual_seed(0)
    trunk, heads = nn.Linear(40, 30), nn.ModuleList(nn.Linear(30, 1) for _ in range(3))
    trunk, heads, x = trunk.to(dtype), heads.to(dtype), torch.randn(16, 40, dtype=dtype)

    def losses() -> dict[str, Tensor]:
        z = trunk(x).tanh()
        return {str(i): (head(z) - i).square().mean().float() for i, head in enumerate(heads)}

    rows = [torch.autograd.grad(loss, [*trunk.parameters()], retain_graph=True) for loss in losses().values()]
    jacobian = torch.stack([torch.cat([g.flatten().double() for g in row]) for row in rows])
    result = Balancer(MGDA(), route=cost).backward(losses())
    assert [*result.norms.values()] == pytest.approx(jacobian.norm(dim=1).tolist(), rel=1e-5)
    expected = torch.tensor([*result.weights.values()], dtype=torch.float64) @ jacobian
    found = torch.cat([p.grad.flatten().double() for p in trunk.parameters()])
    torch.testing.assert_close(found, expected, rtol=0, atol=float(4 * torch.finfo(dtype).eps * jacobian.abs().max()))


def test_parameters_of_several_dtypes_are_balanced_together() -> None:
    expected, model = reference("Plain"), built("Plain")
    model.trunk[0].float()
    model.x = model.x.float()
    z = model.trunk[2](model.trunk[1](model.trunk[0](model.x)).double()).tanh()
    losses = {name: (head(z) - i).square().mean() for i, (name, head) in enumerate(model.heads.items())}
    Balancer(FromJacobian(lambda jacobian: crooked((jacobian @ jacobian.T).double()).to(jacobian) @ jacobian)).backward(
        losses
    )
    assert model.trunk[0].weight.grad.dtype == torch.float32
    model.trunk[0].double()
    assert_same(model, expected.update(crooked(expected.gramian())), tolerance=1e-5)


@pytest.mark.parametrize("power", [-24, -12, 12, 24])
def test_the_scale_of_the_losses_is_no_matter(power: int) -> None:
    """In float32, where squares of such gradients leave the range; METHODS' first rule."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(9, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
    x = torch.randn(6, 9)
    found = []
    for s in (1.0, 2.0**power, 2.0 ** (3 * power)):
        z = trunk(x).tanh()
        losses = {str(i): (head(z) - 2 * i).square().mean() * s for i, head in enumerate(heads)}
        trunk.zero_grad()
        result = Balancer(UPGrad()).backward(losses)
        found.append((torch.tensor([*result.weights.values()]), trunk.weight.grad / s, [*result.cosines.values()]))
    for weights, gradient, cosines in found[1:]:
        torch.testing.assert_close(weights, found[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-5, atol=1e-6)
        assert cosines == pytest.approx(found[0][2], abs=1e-6)


def test_parameters_that_are_left_out_are_treated_as_task_only() -> None:
    expected = reference("Plain")
    balanced = ["trunk.0.weight", "trunk.0.bias"]
    weights = crooked(expected.gramian(balanced))
    for cost in ("sequential", "gramian"):
        model = built("Plain")
        Balancer(FromGramian(crooked), parameters=model.trunk[0], route=cost).backward(model.losses())
        everywhere = expected.update(weights)
        plain = expected.update(torch.ones(3))
        assert_same(model, {name: (everywhere if name in balanced else plain)[name] for name in plain})


@pytest.mark.parametrize("method", [FromGramian(crooked), Equal()], ids=lambda method: method.name)
@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_losses_cut_out_of_one_tensor_need_the_trunk_named(method: object, heads: str) -> None:
    """Every task then seems to reach every head."""
    expected, model = reference("Plain"), built("Plain")
    losses = torch.stack([*model.losses().values()]) * 1.0
    balancer = Balancer(method, task_only=heads, parameters=model.trunk)
    result = balancer.backward(dict(zip("abc", losses.unbind(), strict=True)))
    weights = torch.tensor([*result.weights.values()], dtype=torch.float64)
    if isinstance(method, FromGramian):
        torch.testing.assert_close(weights, crooked(expected.gramian()), rtol=1e-12, atol=1e-12)
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
