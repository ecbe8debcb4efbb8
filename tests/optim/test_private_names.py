"""The private names of torch: each is there in the torch that is tested with, and none of them is needed."""

import ast
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import Balancer, GroupedOptimizer, Plan, PlanScheduler, Rule, _torch, clip_norm, clip_value
from groupwise.balance import Uncertainty
from groupwise.schedules import linear
from tests.house.tree import source

NAMES = {
    "utils._foreach_utils._get_fused_kernels_supported_devices": "fused kernels, several times as fast",
    "_C._dynamo.guards.TensorGuards": "that a fused kernel is found safe in a tenth of the time of its step",
    "optim.Optimizer.profile_hook_step": "that an engine's step is known apart from the hooks around it by its code",
    "_C._current_graph_task_id": "that a joint clip is refused in a step that is taken inside of backward",
    "_C._storage_Use_Count": "that step counts lie side by side, so that one addition counts them all",
    "_foreach_norm": "the norms of many gradients in one call",
    "_foreach_mul_": "the scaling of many gradients in one call",
    "_foreach_clamp_min_": "the clamping of many gradients in one call",
    "_foreach_clamp_max_": "the clamping of many gradients in one call",
}
names = pytest.mark.parametrize("name", NAMES)


@names
def test_torch_has_the_name(name: str) -> None:
    assert _torch.private(*name.split(".")) is not None, f"torch {torch.__version__} lacks torch.{name}: {NAMES[name]}"


def test_the_scaler_of_torch_has_the_attributes_that_are_read() -> None:
    """Without them `PlanScheduler(scaler=)` waits for the device at each tick, and counts a tick before `update()`."""
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    assert isinstance(scaler._scale, torch.Tensor)
    assert isinstance(scaler._growth_tracker, torch.Tensor)
    assert scaler._per_optimizer_states == {}


def trained() -> list[torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    rules = [
        Rule("*", optimizer="AdamW", lr=linear(0.1, 0.0), clip=clip_norm(0.1)),
        Rule("0", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0, clip=clip_value(0.01)),
    ]
    optimizer = GroupedOptimizer(net, Plan(rules))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    for seed in range(4):
        net(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return [p.detach() for p in net.parameters()]


@names
def test_without_the_name_training_comes_to_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained()
    *path, last = name.split(".")
    owner = _torch.private(*path)
    inner: Callable[..., Any] = _torch.private
    monkeypatch.setattr(_torch, "private", lambda *at: None if ".".join(at) == name else inner(*at))
    monkeypatch.setattr(_torch, "_HOOKED_STEP", _torch._hooked_step_code())
    assert getattr(owner, last) is not None
    torch.testing.assert_close(trained(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("module", "lacking"),
    [("torch.autograd.profiler", "_is_profiler_enabled"), ("torch.optim.optimizer", "_global_optimizer_pre_hooks")],
)
def test_without_what_tells_of_hooks_and_profilers_torchs_own_wrapper_runs(
    module: str, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = GroupedOptimizer(nn.Linear(2, 2), Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    wrapped: list[object] = []

    def wrap(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda optimizer: (wrapped.append(optimizer), step(optimizer))

    monkeypatch.setattr(torch.optim.Optimizer, "profile_hook_step", staticmethod(wrap))
    _torch.hooked_step(lambda optimizer: None)(optimizer)
    assert wrapped == [], "there is nothing for it to do"
    monkeypatch.delattr(sys.modules[module], lacking)
    _torch.hooked_step(lambda optimizer: None)(optimizer)
    assert wrapped == [optimizer]


CLASSES = [cls for cls in vars(torch.optim).values() if isinstance(cls, type) and cls is not torch.optim.Optimizer]


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls not in (torch.optim.LBFGS, torch.optim.SparseAdam)])
@pytest.mark.parametrize("lacking", [False, True])
def test_an_optimizer_without_dynamo_takes_the_steps_of_its_class(
    cls: type[torch.optim.Optimizer], lacking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking:
        monkeypatch.delattr(sys.modules["torch.optim.optimizer"], "_use_grad_for_differentiable")

    def stepped(cls: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        p = nn.Parameter(torch.arange(6.0).view(2, 3))
        engine = cls([p], lr=0.1)
        for i in range(3):
            p.grad = torch.cos(p.detach() + i)
            engine.step()
        assert torch.is_grad_enabled()
        return p.detach(), engine.state_dict()

    light = _torch.without_dynamo(cls)
    assert issubclass(light, cls)
    assert (light.__name__, light.__module__) == (cls.__name__, cls.__module__)
    torch.testing.assert_close(stepped(light), stepped(cls), rtol=0, atol=0)


def private_names_of_torch(tree: ast.AST) -> Iterator[ast.AST]:
    """Imports and attributes below `torch` with a part that begins with an underscore."""
    for node in ast.walk(tree):
        targets = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        stem = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        dotted = [stem + target for target in targets]
        dotted += [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
        paths = [name for name in dotted if re.fullmatch(r"torch(\.\w+)+", name)]  # and no call in between
        if any("._" in path.replace(".__", ".") for path in paths):
            yield node


@pytest.mark.parametrize("name", ["_foreach_add_", "_foreach_copy_", "_foreach_zero_", "_foreach_norm"])
def test_without_the_name_many_tensors_are_worked_on_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def worked_on() -> list[torch.Tensor]:
        a, b = [torch.arange(6.0).view(2, 3), torch.ones(4)], [torch.full((2, 3), 2.0), torch.arange(4.0)]
        _torch.add(a, b)
        _torch.copy(b, [t * 3 for t in a])
        found = [*_torch.norms(a, None), *_torch.norms(b, torch.float64, math.inf)]
        _torch.zero(a)
        return [*a, *b, *found]

    expected = worked_on()
    inner: Callable[..., Any] = _torch.private
    monkeypatch.setattr(_torch, "private", lambda *at: None if at == (name,) else inner(*at))
    for found, wanted in zip(worked_on(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_what_is_read_of_graphs_and_sparse_tensors_is_there_and_is_not_needed() -> None:
    x, other = torch.ones(2, 3, requires_grad=True), 2.5
    y = (x.sum() * other).sum()
    product = y.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    assert float(_torch.saved_for_backward(product, "other")) == other
    assert _torch.output_shapes(product) == [torch.Size([])]
    y.backward()
    assert _torch.saved_for_backward(product, "other") is None, "freed by the backward"
    assert _torch.saved_for_backward(object(), "other") is None
    assert _torch.output_shapes(object()) == []
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([1.0, 4.0]), (3,), check_invariants=True)
    assert _torch.as_coalesced(sparse).is_coalesced()
    assert _torch.stored_values(sparse).tolist() == [1.0, 4.0]
    assert _torch.storage_key(x) == _torch.storage_key(x.view(-1)) != _torch.storage_key(other * x)


PUBLIC_IN_FACT = {"torch.utils._python_dispatch", "torch.utils._pytree"}
"""Modules that torch's own documentation sends to, in spite of their names."""


def test_private_names_of_torch_are_taken_from_one_place() -> None:
    found = [
        f"{module.at(node)}: {ast.unparse(node)}"
        for module in source()
        if module.path.name != "_torch.py"
        for node in private_names_of_torch(module.tree)
        if getattr(node, "module", None) not in PUBLIC_IN_FACT
    ]
    assert found == []


@pytest.mark.parametrize("lacking", ["_RUN_BACKWARD", "_ANY_AUTOCAST"])
def test_without_what_a_balancer_asks_of_torch_it_comes_to_the_same(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def balanced() -> list[torch.Tensor]:
        torch.manual_seed(0)
        trunk, heads = nn.Linear(4, 6), nn.ModuleDict({"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)})
        shared = trunk(torch.randn(8, 4)).relu()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = {name: head(shared).float().square().mean() for name, head in heads.items()}
            Balancer(Uncertainty()).backward(losses)
        return [p.grad for p in (*trunk.parameters(), *heads.parameters()) if p.grad is not None]

    assert getattr(_torch, lacking) is not None
    expected = balanced()
    monkeypatch.setattr(_torch, lacking, None)
    found = balanced()
    assert len(found) == 6
    assert all(map(torch.equal, found, expected))
