"""PyTorch's generic optimizer cases on mixed optimizers: the steps. Each test names the case of `TestOptimRenewed`."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.testing._internal.common_optimizers import OptimizerInfo

from groupwise.errors import ResolutionError
from tests.contract.mixed import DB, MIXED, SPARSE, ByPlace, ByRank, configurations, plain

infos = pytest.mark.parametrize("info", MIXED, ids=lambda info: info.name)
Maker = Callable[..., torch.optim.Optimizer]


def pair(strided: bool = False) -> tuple[nn.Parameter, nn.Parameter]:
    """A matrix and a vector; `strided` ones are slices of larger tensors."""
    if strided:
        return nn.Parameter(torch.randn(10, 5, 2)[..., 0]), nn.Parameter(torch.randn(10, 2)[..., 0])
    return nn.Parameter(torch.randn(10, 5)), nn.Parameter(torch.randn(10))


def backward(optimizer: torch.optim.Optimizer, weight: nn.Parameter, bias: nn.Parameter, x: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = (weight.mv(x) + bias).pow(2).sum()
    loss.backward()
    return loss.item()


def tick(schedulers: list[Any], loss: float) -> None:
    for scheduler in schedulers:
        scheduler.step(loss) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()


@infos
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("with_schedulers", [False, True])
def test_the_for_loop_goes_in_the_right_direction(info: OptimizerInfo, strided: bool, with_schedulers: bool) -> None:
    """PyTorch's `test_forloop_goes_right_direction`."""
    for makers in info.scheduler_inputs if with_schedulers else [[]]:
        for given in plain(info):
            torch.manual_seed(0)
            weight, bias = pair(strided)
            x = torch.randn(5)
            optimizer = info.optim_cls([weight, bias], **given, foreach=False)
            schedulers = [make(optimizer) for make in makers]
            first = backward(optimizer, weight, bias, x)
            for _ in range(20):
                loss = backward(optimizer, weight, bias, x)
                optimizer.step()
                tick(schedulers, loss)
            last = backward(optimizer, weight, bias, x)
            assert last > first if given.get("maximize") else last < first


@infos
def test_groups_under_schedulers_go_in_the_right_direction(info: OptimizerInfo) -> None:
    """PyTorch's `test_param_group_with_lrscheduler_goes_right_direction`."""
    for makers in info.scheduler_inputs:
        torch.manual_seed(0)
        weight, bias = pair()
        x = torch.randn(5)
        optimizer = info.optim_cls([{"params": [weight]}, {"params": [bias], "lr": 0.01}])
        schedulers = [make(optimizer) for make in makers]
        first = backward(optimizer, weight, bias, x)
        for _ in range(20):
            loss = optimizer.step(lambda o=optimizer, w=weight, b=bias, x=x: backward(o, w, b, x))
            tick(schedulers, loss)
        assert backward(optimizer, weight, bias, x) < first


@infos
@pytest.mark.parametrize("dimensions", [0, 1, 2])
def test_a_tensor_as_learning_rate_steps_as_the_number(info: OptimizerInfo, dimensions: int) -> None:
    """PyTorch's `test_tensor_lr`."""
    for given in configurations(info):
        torch.manual_seed(0)
        numbers, tensors = pair(), pair()
        for p, q in zip(numbers, tensors, strict=True):
            q.data.copy_(p.data)
        x = torch.randn(5)
        with_number = info.optim_cls(list(numbers), **given | {"lr": 1e-3})
        with_tensor = info.optim_cls(list(tensors), **given | {"lr": torch.tensor(1e-3).reshape([1] * dimensions)})
        for _ in range(5):
            backward(with_number, *numbers, x)
            backward(with_tensor, *tensors, x)
            with_number.step()
            with_tensor.step()
            torch.testing.assert_close(numbers, tensors)


def rosenbrock(t: torch.Tensor) -> torch.Tensor:
    x, y = t
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # by torch's own Adagrad
@pytest.mark.parametrize("with_schedulers", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
def test_sparse_gradients_step_as_dense_ones(foreach: bool, with_schedulers: bool) -> None:
    """PyTorch's `test_rosenbrock_sparse`: gradients by one coordinate at a time, uncoalesced where they are sparse."""
    _, makers = DB["SGD"].metadata_for_sparse
    runs = {}
    for sparse in (True, False):
        params = [nn.Parameter(torch.tensor([1.5, 1.5], dtype=torch.float64)) for _ in range(2)]
        optimizer = SPARSE.optim_cls(params, lr=4.8e-3, foreach=foreach)
        schedulers = [make(optimizer) for make in makers] if with_schedulers else []
        for i in range(300):
            for p in params:
                (slope,) = torch.autograd.grad(rosenbrock(p), p)
                place, value = torch.tensor([[i % 2, i % 2]]), slope[i % 2]
                halves = torch.stack([value / 4, value - value / 4])
                gradient = torch.sparse_coo_tensor(place, halves, (2,), check_invariants=False)
                p.grad = gradient if sparse else gradient.to_dense()
            optimizer.step()
            tick(schedulers, 0.0)
        runs[sparse] = [p.detach() for p in params]
    torch.testing.assert_close(runs[True], runs[False], atol=5e-6, rtol=5e-6)
    assert all(rosenbrock(p) < rosenbrock(torch.tensor([1.5, 1.5])) for p in runs[True])


def test_complex_parameters_step_as_their_real_views() -> None:
    """PyTorch's `test_complex`, on the shim that routes by place."""
    (info,) = [info for info in MIXED if info.optim_cls is ByPlace]
    for given in configurations(info, "fused"):
        torch.manual_seed(0)
        shapes = [((10, 5), torch.complex64), ((10,), torch.complex64), ((10, 5), torch.float32)]
        ours = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape, dtype in shapes]
        real = [torch.view_as_real(p) if p.is_complex() else p for p in ours]
        theirs = [p.detach().clone().requires_grad_() for p in real]
        optimizers = info.optim_cls(ours, **given), info.optim_cls(theirs, **given)
        for _ in range(3):
            for p, q in zip(ours, theirs, strict=True):
                q.grad = torch.randn_like(q)
                p.grad = torch.view_as_complex(q.grad.clone()) if p.is_complex() else q.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
            views = [torch.view_as_real(p.detach()) if p.is_complex() else p.detach() for p in ours]
            torch.testing.assert_close(views, [q.detach() for q in theirs])


def test_a_complex_vector_steps_as_its_two_parts() -> None:
    """PyTorch's `test_complex_2d`, on the shim that routes by rank."""
    (info,) = [info for info in MIXED if info.optim_cls is ByRank]
    for given in configurations(info, "fused"):
        torch.manual_seed(0)
        whole = torch.randn(2, dtype=torch.complex64, requires_grad=True)
        parts = [part.detach().clone().requires_grad_() for part in (whole.real, whole.imag)]
        optimizers = info.optim_cls([whole], **given), info.optim_cls(parts, **given)
        for _ in range(3):
            for values in (whole, torch.complex(*parts)):
                rosenbrock(values).abs().backward()
            torch.testing.assert_close(torch.view_as_real(whole.grad), torch.stack([p.grad for p in parts], -1))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            torch.testing.assert_close(whole.detach(), torch.complex(*parts).detach())


def kernel_run(info: OptimizerInfo, given: dict[str, Any], dtype: torch.dtype) -> list[torch.Tensor]:
    """Seven steps of a small net with a scalar beside it; one without gradients, two with a frozen layer."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid()).to(dtype)
    lone = torch.ones((), dtype=dtype, requires_grad=True)
    lone.grad = torch.full_like(lone, 0.5)
    x = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], dtype=dtype)
    optimizer = info.optim_cls([*net.parameters(), lone], **given)
    for i in range(7):
        optimizer.zero_grad()
        net[2].requires_grad_(i not in (3, 4))
        if i != 2:
            net(x).sum().backward()
        optimizer.step()
    return [p.detach() for p in (*net.parameters(), lone)]


@infos
@pytest.mark.parametrize("flag", ["foreach", "fused"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_kernel_agrees_with_the_for_loop(info: OptimizerInfo, flag: str, dtype: torch.dtype) -> None:
    """PyTorch's `test_foreach_matches_forloop` and `test_fused_matches_forloop`."""
    for given in plain(info):
        if flag == "foreach" and isinstance(given.get("lr"), torch.Tensor):
            continue  # torch refuses the two together
        runs = [kernel_run(info, given | {flag: on}, dtype) for on in (False, True)]
        torch.testing.assert_close(*runs)


@infos
def test_groups_differ_in_weight_decay(info: OptimizerInfo) -> None:
    """PyTorch's `test_param_groups_weight_decay`."""
    for given in configurations(info):
        torch.manual_seed(0)
        weight, bias = pair()
        x = torch.randn(5)
        decay = given.get("weight_decay", 0.01)
        optimizer = info.optim_cls(
            [{"params": [weight], **given, "weight_decay": decay}, {"params": [bias], **given, "weight_decay": 0.0}]
        )
        first = backward(optimizer, weight, bias, x)
        for _ in range(20):
            last = backward(optimizer, weight, bias, x)
            optimizer.step()
        assert last > first if given.get("maximize") else last < first
        assert {group["weight_decay"] for group in optimizer.param_groups} == {decay, 0.0}


@infos
def test_groups_differ_in_learning_rate(info: OptimizerInfo) -> None:
    """PyTorch's `test_param_groups_lr`."""
    for given in configurations(info):
        torch.manual_seed(0)
        weight, bias = pair()
        still = nn.Parameter(torch.randn(2))
        before = still.detach().clone()
        x = torch.randn(5)
        groups = [{"params": [weight, bias], "lr": 1e-3, **given}, {"params": [still]}]
        optimizer = info.optim_cls(groups, lr=1e-28)
        first = backward(optimizer, weight, bias, x)
        for _ in range(20):
            last = backward(optimizer, weight, bias, x)
            still.grad = torch.rand_like(still)
            optimizer.step()
        assert last > first if given.get("maximize") else last < first
        assert torch.equal(still, before)


@infos
def test_nothing_moves_without_gradients(info: OptimizerInfo) -> None:
    """PyTorch's `test_step_is_noop_when_params_have_no_grad`."""
    params = [torch.randn(2, 3), torch.randn(2)]
    before = copy.deepcopy(params)
    for given in configurations(info):
        assert info.optim_cls(params, **given).step(lambda: torch.tensor([1.0])) == 1
        torch.testing.assert_close(params, before, rtol=0, atol=0)


@infos
def test_nothing_moves_for_zero_gradients_without_decay(info: OptimizerInfo) -> None:
    """PyTorch's `test_step_is_noop_for_zero_grads`."""
    for given in configurations(info):
        params = [torch.randn(5, 1, requires_grad=True), torch.randn(5, requires_grad=True)]
        before = copy.deepcopy(params)
        optimizer = info.optim_cls(params, **given | {"weight_decay": 0.0})
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        torch.testing.assert_close(params, before, rtol=0, atol=0)


@infos
def test_a_step_leaves_gradients_as_they_were(info: OptimizerInfo) -> None:
    """PyTorch's `test_grads_are_never_inplaced_into`."""
    for given in configurations(info):
        params = list(pair())
        for p in params:
            p.grad = torch.rand_like(p)
        before = [(p.grad.clone(), p.grad._version) for p in params]
        info.optim_cls(params, **given).step()
        for p, (gradient, version) in zip(params, before, strict=True):
            assert torch.equal(p.grad, gradient)
            assert p.grad._version == version


def refusals() -> Iterator[Any]:
    """The database's wrong hyperparameters of both algorithms. A plan declares no tensors, and reads no list."""
    for name in ("SGD", "AdamW"):
        for error in DB[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
            given = error.optimizer_error_input.kwargs
            flat = [x for value in given.values() for x in (value if isinstance(value, tuple) else [value])]
            if given and not any(isinstance(x, torch.Tensor) for x in flat):
                yield pytest.param(given, error.error_regex, id=f"{name} {error.optimizer_error_input.desc}")


@pytest.mark.parametrize(("given", "words"), list(refusals()))
def test_what_the_classes_refuse_is_refused_in_their_words(given: dict[str, Any], words: str) -> None:
    """PyTorch's `test_errors`, for hyperparameters."""
    with pytest.raises(ResolutionError, match=f"(SGD|AdamW) refuses: {words}"):
        ByRank(list(pair()), **given)
