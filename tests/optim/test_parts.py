"""Stepping parts of a parameter: as separate parameters are stepped, bit for bit, with the state on the whole."""

from __future__ import annotations

import copy
import gc
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Parts, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.errors import GroupwiseError
from groupwise.observe import Observer
from groupwise.records import read
from groupwise.schedules import cosine
from groupwise.select import role
from tests.vision import import_torchvision

STEPS = 20
ENGINES: dict[str, dict[str, Any]] = {
    "Muon": {},
    "AdamW": {},
    "Adam": {"amsgrad": True},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adagrad": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "Adadelta": {},
    "pytorch_optimizer:Lion": {},
    "torch.optim:Rprop": {},
}
NO_DECAY = frozenset({"torch.optim:Rprop"})


@dataclass(frozen=True)
class Layout:
    """A parameter's shape, how it is read, and the same cut by torch's own operations."""

    shape: tuple[int, ...]
    parts: Parts
    sizes: tuple[int, ...]

    def cut(self, t: torch.Tensor) -> list[list[torch.Tensor]]:
        """For each part its matrices."""
        pieces = t.split(self.sizes, self.parts.axis) if self.parts.into else [t]
        if self.parts.stack:
            return [list(piece.reshape(-1, *piece.shape[-2:]).unbind(0)) for piece in pieces]
        return [[self.flat(piece)] for piece in pieces]

    def flat(self, t: torch.Tensor) -> torch.Tensor:
        first = self.parts.flatten
        return t.reshape(math.prod(t.shape[:first]), -1) if first else t


@st.composite
def layouts(draw: st.DrawFn, matrices: bool) -> Layout:
    """A random parameter, of matrices alone if an engine takes no other."""
    kind = draw(st.sampled_from(["split", "stack", "both", "kernel"] + ([] if matrices else ["vector"])))
    rank = {"split": 2, "stack": draw(st.sampled_from([3, 4])), "both": 3, "kernel": 4, "vector": 1}[kind]
    shape = draw(st.lists(st.integers(2, 6), min_size=rank, max_size=rank))
    split, sizes, axis = {}, (), 0
    if kind in ("split", "both", "vector") or (kind == "kernel" and draw(st.booleans())):
        axis = draw(st.integers(1, 2)) if kind == "both" else draw(st.integers(0, min(rank, 2) - 1))
        sizes = tuple(draw(st.lists(st.integers(2, 5), min_size=2, max_size=3)))
        shape[axis] = sum(sizes)
        split = {"axis": axis, "into": ["a", "b", "c"][: len(sizes)], "sizes": sizes}
    stack, flatten = kind in ("stack", "both"), draw(st.integers(1, 3)) if kind == "kernel" else 0
    return Layout(tuple(shape), Parts("w", stack=stack, flatten=flatten, **split), sizes)


def rules_of(engine: str, **extra: Any) -> list[Rule]:
    decay = {} if engine in NO_DECAY else {"weight_decay": 0.1}
    return [Rule("*", optimizer=engine, lr=0.02, **decay, **ENGINES.get(engine, {}), **extra)]


def factors_of(engine: str, layout: Layout, lrs: list[float], decays: list[float], alone: bool) -> Iterator[Rule]:
    """The same factors for each part, as a part or as separate parameters."""
    for i, name in enumerate(layout.parts.into):
        match = f"{name}_*" if alone else f"*@{name}"
        yield Rule(match, label=f"lr {name}", lr=scale(lrs[i]))
        if engine not in NO_DECAY:
            yield Rule(match, label=f"decay {name}", weight_decay=scale(decays[i]))


def as_apart(layout: Layout, t: torch.Tensor) -> dict[str, torch.Tensor]:
    names = layout.parts.into or ("m",)
    return {
        f"{name}_{i}": matrix.clone(memory_format=torch.contiguous_format)
        for name, own in zip(names, layout.cut(t), strict=True)
        for i, matrix in enumerate(own)
    }


def run(
    layout: Layout, whole: GroupedOptimizer, w: nn.Parameter, apart: GroupedOptimizer, steps: int = STEPS
) -> dict[str, nn.Parameter]:
    """Both for some steps, on the same gradients; the separate parameters."""
    separate = {name: p for g in apart.param_groups for name, p in zip(g["param_names"], g["params"], strict=True)}
    for _ in range(steps):
        w.grad = torch.randn_like(w)
        for name, gradient in as_apart(layout, w.grad).items():
            separate[name].grad = gradient
        whole.step()
        apart.step()
    return separate


def differing(layout: Layout, w: torch.Tensor, separate: dict[str, Any]) -> list[str]:
    return [name for name, own in as_apart(layout, w.detach()).items() if not torch.equal(own, separate[name].detach())]


def module(tensors: dict[str, torch.Tensor]) -> nn.ParameterDict:
    return nn.ParameterDict({name: nn.Parameter(t) for name, t in tensors.items()})


factors = st.lists(st.sampled_from([1.0, 0.5, 0.3, 0.0]), min_size=3, max_size=3).filter(any)


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=10)
@given(data=st.data(), lrs=factors, decays=factors, seed=st.integers(0, 99))
def test_parts_are_stepped_as_separate_parameters_bit_for_bit(
    engine: str, data: st.DataObject, lrs: list[float], decays: list[float], seed: int
) -> None:
    layout = data.draw(layouts(engine == "Muon"))
    count = len(layout.parts.into)
    if count and not any(a and b for a, b in zip(lrs[:count], decays[:count], strict=True)):
        lrs = [1.0] * 3
    if count and not any(decays[:count]):
        decays = [1.0] * 3
    torch.manual_seed(seed)
    channels_last = len(layout.shape) == 4 and data.draw(st.booleans())
    w = torch.randn(layout.shape)
    net = module({"w": w.contiguous(memory_format=torch.channels_last) if channels_last else w})
    rules = rules_of(engine)
    plan = Plan([*rules, *factors_of(engine, layout, lrs, decays, False)], parts=[layout.parts])
    whole = GroupedOptimizer(net, plan)
    apart = GroupedOptimizer(
        module(as_apart(layout, net["w"].detach())), Plan([*rules, *factors_of(engine, layout, lrs, decays, True)])
    )
    separate = run(layout, whole, net["w"], apart)
    assert differing(layout, net["w"], separate) == []
    for key, value in whole.state[net["w"]].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            assert value.shape == net["w"].shape
            assert differing(layout, value, {name: apart.state[p][key] for name, p in separate.items()}) == []


QKV = Layout((12, 4), Parts("*w", into=["q", "k", "v"]), (4, 4, 4))


def test_a_fused_projection_under_muon_is_three_matrices_of_torchs_own_muon() -> None:
    torch.manual_seed(0)
    net = module({"w": torch.randn(12, 4)})
    rates = [Rule(f"*@{name}", lr=lr) for name, lr in zip("qkv", (0.02, 0.01, 0.005), strict=True)]
    optimizer = GroupedOptimizer(net, Plan([*rules_of("Muon"), *rates], parts=[QKV.parts]))
    separate = [nn.Parameter(own.clone()) for own in net["w"].detach().split(4)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(separate, (0.02, 0.01, 0.005), strict=True)]
    twin = torch.optim.Muon(groups, weight_decay=0.1)
    for _ in range(STEPS):
        net["w"].grad = torch.randn(12, 4)
        for p, gradient in zip(separate, net["w"].grad.split(4), strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        twin.step()
    assert torch.equal(net["w"].detach(), torch.cat([p.detach() for p in separate]))


def test_gradients_are_left_as_they_were() -> None:
    net = module({"w": torch.randn(4, 12)})
    parts = Parts("w", axis=1, into=["q", "k", "v"])
    optimizer = GroupedOptimizer(net, Plan(rules_of("Muon"), parts=[parts]))
    net["w"].grad = gradient = torch.randn(4, 12)
    before = gradient.clone()
    optimizer.step()
    assert net["w"].grad is gradient
    assert torch.equal(gradient, before)


def test_torchs_attention_keeps_its_projections_apart() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    parts = [Parts("*in_proj_*", into=["q", "k", "v"])]
    matrices = Rule(role("matrix"), optimizer="Muon", lr=0.02, weight_decay=0.0)
    optimizer = GroupedOptimizer(
        layer,
        Plan(
            [Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0), matrices, Rule("*@q", lr=scale(0.5))], parts=parts
        ),
    )
    weight = layer.self_attn.in_proj_weight
    separate = [nn.Parameter(own.clone()) for own in weight.detach().chunk(3)]
    twin = torch.optim.Muon([{"params": separate[:1], "lr": 0.01}, {"params": separate[1:]}], lr=0.02, weight_decay=0.0)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(2, 3, 8)).square().mean().backward()
        for p, gradient in zip(separate, weight.grad.chunk(3), strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        twin.step()
    assert torch.equal(weight.detach(), torch.cat([p.detach() for p in separate]))


def test_a_schedule_and_a_foreign_scheduler_move_every_part() -> None:
    plan = [Rule("*", optimizer="AdamW", lr=cosine(0.02), weight_decay=0.1)]
    net, alone = module({"w": torch.randn(12, 4)}), module({})
    for name, own in as_apart(QKV, net["w"].detach()).items():
        alone[name] = nn.Parameter(own)
    whole = GroupedOptimizer(net, Plan([*plan, Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]))
    apart = GroupedOptimizer(alone, Plan([*plan, Rule("q_*", lr=scale(0.5))]))
    schedulers = [PlanScheduler(optimizer, total_steps=10) for optimizer in (whole, apart)]
    for _ in range(10):
        separate = run(QKV, whole, net["w"], apart, steps=1)
        for scheduler in schedulers:
            scheduler.step()
    assert differing(QKV, net["w"], separate) == []


def test_a_foreign_scheduler_moves_every_part() -> None:
    net, alone = module({"w": torch.randn(12, 4)}), module({})
    for name, own in as_apart(QKV, net["w"].detach()).items():
        alone[name] = nn.Parameter(own)
    whole = GroupedOptimizer(net, Plan([*rules_of("Muon"), Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]))
    apart = GroupedOptimizer(alone, Plan([*rules_of("Muon"), Rule("q_*", lr=scale(0.5))]))
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5) for optimizer in (whole, apart)]
    for _ in range(6):
        separate = run(QKV, whole, net["w"], apart, steps=1)
        for scheduler in schedulers:
            scheduler.step()
    assert len(whole.param_groups) == 1
    assert differing(QKV, net["w"], separate) == []


def test_a_clip_over_everything_is_over_the_whole() -> None:
    net, alone = module({"w": torch.randn(12, 4)}), module({})
    for name, own in as_apart(QKV, net["w"].detach()).items():
        alone[name] = nn.Parameter(own)
    plan = Plan(rules_of("SGD"), clip=clip_norm(0.1), parts=[QKV.parts])
    whole, apart = GroupedOptimizer(net, plan), GroupedOptimizer(alone, Plan(plan.rules, clip=plan.clip))
    separate = run(QKV, whole, net["w"], apart, steps=3)
    for name, own in as_apart(QKV, net["w"].detach()).items():
        torch.testing.assert_close(own, separate[name].detach())


def trained(plan: Plan, steps: int, seed: int = 0) -> tuple[nn.ParameterDict, GroupedOptimizer]:
    torch.manual_seed(seed)
    net = module({"w": torch.randn(12, 4)})
    optimizer = GroupedOptimizer(net, plan)
    on(net, optimizer, steps)
    return net, optimizer


def on(net: nn.ParameterDict, optimizer: GroupedOptimizer, steps: int) -> None:
    for i in range(steps):
        net["w"].grad = torch.cos(torch.arange(48.0) + i).reshape(12, 4)
        optimizer.step()


PARTED = Plan([*rules_of("Muon"), Rule("*@q", lr=scale(0.5))], parts=[QKV.parts])


def test_a_resume_goes_on_where_it_was() -> None:
    net, optimizer = trained(PARTED, 3)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    on(net, optimizer, 3)
    other, resumed = trained(PARTED, 0, seed=1)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    on(other, resumed, 3)
    assert torch.equal(net["w"], other["w"])


def test_a_checkpoint_is_in_torchs_layout() -> None:
    _, optimizer = trained(PARTED, 3)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["w"]
    assert saved["state"][0]["momentum_buffer"].shape == (12, 4)
    plain = torch.optim.Muon([nn.Parameter(torch.randn(12, 4))], lr=0.02)
    plain.load_state_dict(saved)


def test_parts_that_a_regroup_adds_take_over_the_state() -> None:
    net, optimizer = trained(Plan(rules_of("Muon")), 3)
    held = optimizer.state[net["w"]]["momentum_buffer"].clone()
    optimizer.regroup(PARTED)
    assert torch.equal(optimizer.state[net["w"]]["momentum_buffer"], held)
    before = net["w"].detach().clone()
    on(net, optimizer, 1)
    separate = [nn.Parameter(own.clone()) for own in before.split(4)]
    twin = torch.optim.Muon([{"params": separate[:1], "lr": 0.01}, {"params": separate[1:]}], lr=0.02, weight_decay=0.1)
    for i, p in enumerate(separate):
        p.grad = net["w"].grad.split(4)[i].clone()
        twin.state[p]["momentum_buffer"] = held.split(4)[i].clone()
    twin.step()
    assert torch.equal(net["w"].detach(), torch.cat([p.detach() for p in separate]))
    optimizer.regroup(Plan(rules_of("Muon")))
    on(net, optimizer, 1)
    assert optimizer.load_report is not None
    assert optimizer.load_report.found == ("w",)


def test_a_regroup_may_change_the_parts() -> None:
    net, optimizer = trained(PARTED, 2)
    other = Plan(rules_of("Muon"), parts=[Parts("w", axis=1, into=["left", "right"])])
    optimizer.regroup(other)
    on(net, optimizer, 2)
    assert [part.info.name for part in optimizer.resolution.groups[0].parts["w"]] == ["w@left", "w@right"]


def test_an_edit_of_the_live_rate_is_obeyed_by_every_part() -> None:
    net, optimizer = trained(Plan([*rules_of("SGD"), Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]), 1)
    optimizer.param_groups[0].update(lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0)
    before = net["w"].detach().clone()
    on(net, optimizer, 1)
    moved = (before - net["w"].detach()) / net["w"].grad
    expected = torch.tensor([0.5] * 4 + [1.0] * 8)[:, None].expand(12, 4)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


def test_a_rate_in_a_tensor_is_multiplied() -> None:
    net, optimizer = trained(Plan([*rules_of("Adam"), Rule("*@q", lr=scale(0.0))], parts=[QKV.parts]), 1)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    before = net["w"].detach().clone()
    on(net, optimizer, 1)
    still = torch.equal(before[:4], net["w"].detach()[:4])
    assert still
    assert not torch.equal(before[4:8], net["w"].detach()[4:8])


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    net = module({"w": torch.randn(12, 4), "other": torch.randn(4, 4)})
    optimizer = GroupedOptimizer(net, Plan(rules_of("Muon"), parts=[QKV.parts]))
    before = net["w"].detach().clone()
    net["other"].grad = torch.randn(4, 4)
    optimizer.step()
    assert torch.equal(before, net["w"].detach())
    assert net["w"] not in optimizer.state


def test_a_tensor_that_is_gone_is_not_kept_by_its_parts() -> None:
    net, optimizer = trained(PARTED, 1)
    old = weakref.ref(net["w"])
    net["w"] = nn.Parameter(torch.randn(12, 4))
    optimizer.regroup(model=net)
    on(net, optimizer, 2)
    gc.collect()
    assert old() is None


def test_a_copy_and_a_pickle_step_alike() -> None:
    net, optimizer = trained(PARTED, 2)
    other, copied = copy.deepcopy((net, optimizer))
    on(net, optimizer, 2)
    on(other, copied, 2)
    assert torch.equal(net["w"], other["w"])


def test_a_class_whose_state_cannot_lie_on_the_whole_is_refused() -> None:
    with pytest.raises(GroupwiseError, match=r"Adafactor cannot step the parts of 'w' .* 'row_var' of shape"):
        GroupedOptimizer(module({"w": torch.randn(12, 4)}), Plan(rules_of("Adafactor"), parts=[QKV.parts]))


def test_a_class_that_looks_at_more_than_its_matrix_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GroupwiseError, match="SOAP cannot step the parts of 'w'"):
            GroupedOptimizer(
                module({"w": torch.randn(12, 4)}), Plan(rules_of("pytorch_optimizer:SOAP"), parts=[QKV.parts])
            )


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("AdaShift", "'grad_queue' is a deque"),
        ("Shampoo", "of shape .* is neither of its matrix"),
        ("CAME", "of shape .* is neither of its matrix"),
    ],
)
def test_state_that_is_no_tensor_of_the_matrix_is_refused(engine: str, message: str) -> None:
    plan = Plan([Rule("*", optimizer=f"pytorch_optimizer:{engine}", lr=0.01)], parts=[QKV.parts])
    with pytest.raises(GroupwiseError, match=f"{engine} cannot step the parts of 'w' .*{message}"):
        GroupedOptimizer(module({"w": torch.randn(12, 4)}), plan)


def test_a_number_that_depends_on_the_rate_is_one_for_parts_of_one_rate_alone() -> None:
    net = module({"w": torch.randn(12, 4)})
    GroupedOptimizer(net, Plan(rules_of("ASGD"), parts=[QKV.parts]))
    with pytest.raises(
        GroupwiseError, match=r"ASGD cannot step the parts of 'w' .* is not that on separate parameters"
    ):
        GroupedOptimizer(net, Plan([*rules_of("ASGD"), Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]))


class Counting(torch.optim.SGD):
    """An SGD that keeps in its group how far the weights moved there, as classes that estimate a distance do."""

    def step(self, closure: Any = None) -> Any:
        before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        loss = super().step(closure)
        for group in self.param_groups:
            after = group["params"]
            group["moved"] = float(sum((a - b).abs().sum() for a, b in zip(after, before, strict=False)))
        return loss


def test_a_class_that_keeps_in_its_group_what_differs_between_parts_is_refused_for_parts_of_other_rates() -> None:
    net = module({"w": torch.randn(12, 4)})
    rules = [Rule("*", optimizer=Counting, lr=0.1)]
    GroupedOptimizer(net, Plan(rules, parts=[QKV.parts]))
    with pytest.raises(GroupwiseError, match="it keeps 'moved' in its group, where parts with rates of their own"):
        GroupedOptimizer(net, Plan([*rules, Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]))


class Stubborn(torch.optim.SGD):
    """An SGD that reads its rate from itself."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr)
        self.decay = weight_decay
        for group in self.param_groups:
            del group["weight_decay"]

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * self.decay).sub_(group["lr"] * p.grad)
        return None


def test_a_class_that_keeps_its_decay_on_itself_has_one_for_all_parts() -> None:
    net = module({"w": torch.randn(12, 4)})
    rules = [Rule("*", optimizer=Stubborn, lr=0.1, weight_decay=0.1)]
    GroupedOptimizer(net, Plan([*rules, Rule("*@q", lr=scale(0.5))], parts=[QKV.parts]))
    with pytest.raises(GroupwiseError, match=r"Stubborn keeps weight_decay on itself and not in its groups"):
        GroupedOptimizer(net, Plan([*rules, Rule("*@q", weight_decay=scale(0.5))], parts=[QKV.parts]))


def test_a_parameter_that_was_resized_in_place_is_no_longer_taken_apart() -> None:
    net, optimizer = trained(PARTED, 1)
    net["w"].data = torch.randn(15, 4)
    net["w"].grad = torch.randn(15, 4)
    with pytest.raises(GroupwiseError, match=r"has got the shape \(15, 4\) in place, .*regroup\(model=model\)"):
        optimizer.step()


def test_what_flattens_parameters_leaves_no_parts() -> None:
    _, optimizer = trained(PARTED, 1)
    flat = nn.Parameter(torch.randn(24))
    flat.grad = torch.randn(24)
    optimizer.param_groups[0]["params"] = [flat, nn.Parameter(torch.randn(24))]
    with pytest.raises(
        GroupwiseError, match=r"holds other tensors .* what flattens parameters \(ZeRO\) leaves no parts"
    ):
        optimizer.step()


def test_sparse_gradients_have_no_parts() -> None:
    table = nn.Embedding(6, 4, sparse=True)
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)], parts=[Parts("weight", into=["a", "b"])])
    with pytest.raises(GroupwiseError, match="its gradient is sparse"):
        optimizer = GroupedOptimizer(table, plan)
        table(torch.tensor([1, 5])).sum().backward()
        optimizer.step()


def test_a_kernel_under_muon_is_refused_with_the_way_to_read_it() -> None:
    plan = Plan([*rules_of("AdamW"), Rule("*.weight", optimizer="Muon", lr=0.1, weight_decay=0.1)])
    with pytest.raises(GroupwiseError, match=r"Muon refuses: .* parts=\[Parts\(…, stack=True\)\] for a batch of them"):
        GroupedOptimizer(nn.Sequential(nn.Conv2d(3, 4, 3)), plan)


def test_an_observer_records_the_whole_group(tmp_path: Path) -> None:
    net, optimizer = trained(PARTED, 0)
    before = net["w"].detach().clone()
    with Observer(optimizer, tmp_path, every=1):
        on(net, optimizer, 1)
    steps, norms = read(tmp_path).series("groups", optimizer.param_groups[0]["name"], "update_norm")
    assert list(steps) == [0]
    assert norms[0] == pytest.approx(float((net["w"].detach() - before).norm()), rel=1e-5)


def test_a_plan_without_parts_has_no_path_for_them() -> None:
    _, optimizer = trained(Plan(rules_of("AdamW")), 1)
    assert optimizer._runtime.engines._parted is None


def mixtral() -> nn.Module:
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4,
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config)


def qwen3_moe() -> nn.Module:
    import transformers

    config = transformers.Qwen3MoeConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, moe_intermediate_size=8, num_hidden_layers=1, head_dim=4,
        num_attention_heads=2, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    return transformers.Qwen3MoeForCausalLM(config)


EXPERTS = [
    Parts("*.experts.gate_up_proj", axis=1, into=["gate", "up"], stack=True),
    Parts("*.experts.down_proj", stack=True),
]


@pytest.mark.parametrize("build", [mixtral, qwen3_moe])
def test_the_experts_of_a_mixture_are_matrices_under_muon(build: Callable[[], nn.Module]) -> None:
    import_torchvision()
    torch.manual_seed(0)
    net = build()
    adamw = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.1)
    matrices = Rule(role("matrix"), label="matrices", optimizer="Muon", lr=0.02, weight_decay=0.1)
    optimizer = GroupedOptimizer(net, Plan([adamw, matrices], parts=EXPERTS))
    named = dict(net.named_parameters())
    muon = {id(p) for group in optimizer.param_groups if group["algorithm"] == "Muon" for p in group["params"]}
    assert muon.issuperset(id(p) for name, p in named.items() if ".experts." in name)
    words = torch.randint(50, (4, 16))
    net(input_ids=words, labels=words).loss.backward()
    gate_up = named["model.layers.0.mlp.experts.gate_up_proj"]
    separate = [nn.Parameter(half.clone()) for matrix in gate_up.detach() for half in matrix.chunk(2)]
    for p, gradient in zip(separate, (half for own in gate_up.grad for half in own.chunk(2)), strict=True):
        p.grad = gradient.clone()
    optimizer.step()
    torch.optim.Muon(separate, lr=0.02, weight_decay=0.1).step()
    assert torch.equal(gate_up.detach(), torch.cat([p.detach() for p in separate]).reshape(gate_up.shape))


def test_the_fused_projection_of_gpt2_is_split_along_its_columns() -> None:
    import_torchvision()
    import transformers

    torch.manual_seed(0)
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))
    adamw = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.1)
    muon = Rule(role("matrix"), label="matrices", optimizer="Muon", lr=0.02, weight_decay=0.1)
    parts = [Parts("*.c_attn.weight", axis=1, into=["q", "k", "v"])]
    optimizer = GroupedOptimizer(net, Plan([adamw, muon], parts=parts))
    words = torch.randint(50, (4, 16))
    net(input_ids=words, labels=words).loss.backward()
    weight = net.transformer.h[0].attn.c_attn.weight
    separate = [nn.Parameter(own.clone().contiguous()) for own in weight.detach().chunk(3, 1)]
    for p, gradient in zip(separate, weight.grad.chunk(3, 1), strict=True):
        p.grad = gradient.clone().contiguous()
    optimizer.step()
    torch.optim.Muon(separate, lr=0.02, weight_decay=0.1).step()
    assert torch.equal(weight.detach(), torch.cat([p.detach() for p in separate], 1))
