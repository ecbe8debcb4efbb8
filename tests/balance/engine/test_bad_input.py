"""Each mistake is one error, which names the task and the way out; nothing is written."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import groupwise
from groupwise.balance import MGDA, PCD, Balancer, CAGrad, Equal, FromGramian, FromJacobian, FromLosses, Static
from groupwise.errors import BalanceError
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.reference import gradients

LOSSES: dict[str, tuple[Callable[[MultiTask, dict[str, Tensor]], object], str]] = {
    "none": (lambda m, given: {}, "no task: losses is empty"),
    "a list": (lambda m, given: list(given.values()), r"losses are given by task, \{\"seg\": loss"),
    "a tensor": (lambda m, given: given["a"], r"losses are given by task.*\(Tensor\)"),
    "a number": (lambda m, given: {**given, "b": 1.0}, r"task 'b' is 1.0 \(float\), not a tensor"),
    "no text": (lambda m, given: {0: given["a"]}, "the name of a task is text, not 0"),
    "a vector": (lambda m, given: {**given, "b": given["b"] * torch.ones(3)}, r"task 'b' is not a scalar.*\[3\]"),
    "detached": (lambda m, given: {**given, "b": given["b"].detach()}, "task 'b' does not require grad"),
    "twice": (lambda m, given: {**given, "b": given["a"]}, "tasks 'a' and 'b' were given the same tensor"),
    "whole": (lambda m, given: {"a": torch.ones((), dtype=torch.int64)}, r"task 'a' is of dtype torch.int64"),
}


@pytest.mark.parametrize("method", [Equal(), CAGrad()], ids=lambda method: method.name)
@pytest.mark.parametrize("mistake", LOSSES)
def test_losses(mistake: str, method: object) -> None:
    make, message = LOSSES[mistake]
    model = built("Plain")
    with pytest.raises(BalanceError, match=message):
        Balancer(method).backward(make(model, model.losses()))
    with pytest.raises(BalanceError, match=message):
        Balancer(method).accumulate(make(model, model.losses()))
    assert not gradients(model)


ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "a callable": (lambda: Balancer(torch.softmax), r"wrap it in FromLosses\(f\).*FromGramian\(f\).*FromJacobian\(f\)"),
    "a class": (lambda: Balancer(CAGrad), r"CAGrad is the class of a method: write CAGrad\(\)"),
    "a name": (lambda: Balancer("CAGrad"), r"such as CAGrad\(\), not a name"),
    "a number": (lambda: Balancer(3), r"3 \(int\) is no balancing method"),
    "heads": (lambda: Balancer(CAGrad(), task_only="both"), "task_only is None, 'weighted', 'unweighted', not 'both'"),
    "route": (lambda: Balancer(CAGrad(), route="cheap"), "route is 'auto', 'sequential', 'gramian', 'features', not"),
    "nonfinite": (lambda: Balancer(CAGrad(), nonfinite="ignore"), "nonfinite is 'skip_task'"),
    "ranks": (lambda: Balancer(CAGrad(), distributed=2), "distributed is 'joint', 'local', not 2"),
    "steps": (lambda: Balancer(CAGrad(), total_steps=0), "total_steps is a whole number above 0, not 0"),
    "weighted update": (
        lambda: Balancer(FromJacobian(lambda j: j[0]), task_only="weighted"),
        "makes an update, not weights",
    ),
    "update of a Gramian": (lambda: Balancer(FromJacobian(lambda j: j[0]), route="gramian"), "needs the rows"),
    "layer of losses": (lambda: Balancer(Equal(), at=nn.Linear(2, 2)), "Equal looks at the losses alone"),
    "no names": (lambda: Balancer(CAGrad(), at="trunk"), "pass parameters=model too"),
    "no layer": (lambda: Balancer(CAGrad(), at=nn.ReLU()), "has no parameter that requires grad"),
    "no place": (lambda: Balancer(CAGrad(), at=3), "at is a module, a parameter or a name, not 3"),
    "unknown layer": (
        lambda: Balancer(CAGrad(), at="trunk.3", parameters=built("Plain")),
        r"at=: unknown layer 'trunk.3'; did you mean 'trunk.[02]'",
    ),
    "named parameters": (
        lambda: Balancer(CAGrad(), parameters=built("Plain").named_parameters()),
        r"not a tensor: give model.parameters\(\), or the model",
    ),
    "no parameters": (lambda: Balancer(CAGrad(), parameters=3), "parameters is a module, a mapping or a list"),
}


@pytest.mark.parametrize("mistake", ARGUMENTS)
def test_arguments(mistake: str) -> None:
    make, message = ARGUMENTS[mistake]
    with pytest.raises(BalanceError, match=message):
        make()


def _reentrant(model: MultiTask) -> dict[str, Tensor]:
    model.represent = lambda: checkpoint(model.trunk, model.x.requires_grad_(), use_reentrant=True)
    return model.losses()


def _used(model: MultiTask) -> dict[str, Tensor]:
    losses = model.losses()
    losses["a"].backward()
    model.zero_grad()
    return losses


def beside(model: MultiTask) -> None:
    losses = model.losses()
    losses["b"] = losses["b"] + model.trunk[0].weight.sum()
    Balancer(CAGrad()).backward(losses, features=model.features)


def late(model: MultiTask) -> None:
    balancer = Balancer(CAGrad())
    balancer.accumulate(model.losses())
    losses = model.losses()
    balancer.backward(losses, features=model.features)


UPDATES: dict[str, tuple[Callable[[MultiTask], object], str]] = {
    "unknown weight": (
        lambda m: Balancer(Static({"a": 1.0, "b": 1.0, "d": 1.0})).backward(m.losses()),
        "unknown task 'c'",
    ),
    "unknown primary": (lambda m: Balancer(PCD(primary="z")).backward(m.losses()), "PCD.*'z'"),
    "reentrant checkpoint": (lambda m: Balancer(CAGrad()).backward(_reentrant(m)), "pass use_reentrant=False"),
    "used graph": (lambda m: Balancer(CAGrad()).backward(_used(m)), "graph of these losses is gone"),
    "used graph, losses": (lambda m: Balancer(Equal()).backward(_used(m)), "graph of these losses is gone"),
    "layer off the path": (
        lambda m: Balancer(CAGrad(), at=m.heads["a"]).backward(m.losses()),
        "task 'b' does not reach the layer at at=",
    ),
    "parameters off the path": (
        lambda m: Balancer(CAGrad(), parameters=m.heads["a"]).backward(m.losses()),
        "the loss of task 'b' reaches none of the tensors that parameters= names",
    ),
    "features of nobody": (
        lambda m: Balancer(CAGrad()).backward(m.losses(), features=m.trunk(m.x)),
        r"features \(shape \[4, 6\]\) is not in the graph of any loss",
    ),
    "features without grad": (
        lambda m: Balancer(CAGrad()).backward(m.losses(), features=[m.x]),
        r"features\[0\] does not require grad",
    ),
    "features that are none": (
        lambda m: Balancer(CAGrad()).backward(m.losses(), features={"z": 1}),
        r"features\['z'\] is 1 \(int\), not a tensor",
    ),
    "features of one task": (beside, "the features do not part trunk and heads"),
    "scaler": (lambda m: Balancer(CAGrad()).backward(m.losses(), scaler=2.0), "scaler is a torch.amp.GradScaler"),
    "learning": (lambda m: Balancer(CAGrad()).learn(m.losses()), "CAGrad learns nothing from held-out losses"),
    "features after micro-batches": (late, r"an update that began with accumulate\(\)"),
    "weights of another shape": (
        lambda m: Balancer(FromGramian(lambda g: g)).backward(m.losses()),
        r"returned the shape \[3, 3\]",
    ),
    "weights that are not finite": (
        lambda m: Balancer(FromLosses(lambda x: x * torch.nan)).backward(m.losses()),
        "gave task 'a' the weight nan",
    ),
    "after_step": (lambda m: Balancer(Equal()).after_step({"a": "low"}), "task 'a' is 'low'"),
}


@pytest.mark.parametrize("mistake", UPDATES)
def test_updates(mistake: str) -> None:
    make, message = UPDATES[mistake]
    model = built("Plain")
    with pytest.raises(BalanceError, match=message):
        make(model)
    assert not gradients(model) or mistake == "used graph, losses"  # half of one backward, as torch leaves it


def test_a_jacobian_method_refuses_a_sparse_embedding() -> None:
    model = built("SparseEmbedding")
    with pytest.raises(BalanceError, match="use sparse=False, or a Gramian method"):
        Balancer(FromJacobian(lambda jacobian: jacobian.sum(0))).backward(model.losses())


def test_no_single_tensor_parts_trunks_of_two_depths() -> None:
    model = built("PartlyShared")
    with pytest.raises(BalanceError, match="no single tensor parts the trunk from the heads: give features="):
        Balancer(MGDA(), route="features").backward(model.losses())


def test_a_backward_that_cannot_be_batched_says_so() -> None:
    model = built("Plain")
    losses = {task: loss + _Unbatched.apply(model.trunk[0].weight).sum() for task, loss in model.losses().items()}
    with pytest.raises(BalanceError, match=r'backward cannot be batched.*use route="sequential"'):
        Balancer(MGDA(), route="gramian").backward(losses)


def test_an_intermediate_gradient_that_a_batched_backward_cannot_keep_says_so() -> None:
    trunk, heads = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)
    z = trunk(torch.ones(2, 4))
    z.retain_grad()
    losses = {str(i): heads(z)[:, i].square().mean() for i in range(2)}
    with pytest.raises(BalanceError, match=r'retain_grad\(\).*use route="sequential"'):
        Balancer(MGDA(), route="gramian").backward(losses)
    assert trunk.weight.grad is None


class _Unbatched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * float(grad.sum())


def test_a_plan_file_states_a_balancer(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('[balance]\nmethod = "CAGrad"\nc = 0.4\ntask_only = "weighted"\n')
    balancer = groupwise.Balancer.load(path)
    assert balancer.method == CAGrad(c=0.4)
    path.write_text('[balance]\nmethod = "CAGard"\n')
    with pytest.raises(BalanceError, match="unknown method 'CAGard'; did you mean 'CAGrad'"):
        groupwise.Balancer.load(path)


@pytest.mark.parametrize("method", [Equal(), CAGrad()], ids=lambda method: method.name)
def test_micro_batches_without_a_backward_are_told_once(method: Equal | CAGrad) -> None:
    """A thousand backwards: an optimizer that steps between them makes no update, and nothing else would say so."""
    trunk = nn.Linear(2, 2)
    balancer = Balancer(method)

    def losses() -> dict[str, torch.Tensor]:
        z = trunk(torch.ones(1, 2))
        return {"a": z.square().sum(), "b": (z - 1).square().sum()}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(1100):
            balancer.accumulate(losses())
        balancer.backward(losses())
        for _ in range(100):  # a new update, well below
            balancer.accumulate(losses())
    assert [str(each.message) for each in caught if "no backward() has completed" in str(each.message)] == [
        str(caught[0].message)
    ]
    assert caught[0].filename == __file__
