"""Tensors split over ranks in every way: algorithms and clipping make of the parts what they make of wholes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from groupwise import (
    GroupedOptimizer,
    Plan,
    Rule,
    clip_adaptive,
    clip_norm,
    clip_value,
)
from tests.distributed.jobs import (
    ROUNDING,
    STEPS,
    Net,
    apart,
    backward,
    part,
    whole,
)
from tests.distributed.ranks import Ranks

CLASSES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]
WHOLE = ["Muon", "Adafactor"]
OTHERS = ["Lion", "Lamb", "Prodigy", "ScheduleFreeAdamW", "SOAP"]
SPREADS: list[tuple[tuple[int, ...], Any]] = [((7, 5), Shard(0)), ((7, 5), Shard(1)), ((1, 5), Shard(0))]


def gradients(shape: tuple[int, ...], count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def stepped(p: torch.Tensor, given: Sequence[torch.Tensor], optimizer: Any) -> Any:
    """`p` after one step for each of the gradients, and how many collectives the last of them took."""
    parameter = nn.Parameter(p)
    one = GroupedOptimizer({"p": parameter}, Plan([Rule("*", optimizer=optimizer, lr=0.1)]))
    one.train()
    watch = CommDebugMode()
    for g in given:
        parameter.grad = distribute_tensor(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g.clone()
        with watch:
            one.step()
    return whole(parameter), sum(watch.get_comm_counts().values())


def each_class(names: Sequence[Any], mesh_shape: tuple[int, ...], spreads: Sequence[Any]) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", mesh_shape)
    found = {}
    for name in names:
        for shape, placements in spreads:
            first, *rest = gradients(shape, 4)
            ours, count = stepped(distribute_tensor(first.clone(), mesh, placements), rest, name)
            theirs, _ = stepped(first.clone(), rest, name)
            found[f"{name} {shape} {placements}"] = (float((ours - theirs).abs().max()), count)
    return found


SPREAD = [(shape, [placement]) for shape, placement in SPREADS]


def test_each_algorithm_of_torch_that_goes_entry_by_entry_is_exact_on_parts_and_says_nothing(two: Ranks) -> None:
    for found in two(each_class, CLASSES, (2,), [*SPREAD, ((5,), [Shard(0)]), ((1,), [Shard(0)])]):
        assert all(result == (0.0, 0) for result in found.values()), found


def test_an_algorithm_that_needs_the_whole_gathers_it_and_is_exact(two: Ranks) -> None:
    for found in two(each_class, WHOLE, (2,), SPREAD):
        assert all(difference == 0.0 for difference, _ in found.values()), found
        assert all(count > 0 for _, count in found.values()), found


def of_others() -> dict[str, Any]:
    import pytorch_optimizer

    return each_class([getattr(pytorch_optimizer, name) for name in OTHERS], (2,), SPREAD[:2])


def test_algorithms_of_another_library_are_exact_on_parts(two: Ranks) -> None:
    for found in two(of_others):
        assert all(difference == 0.0 for difference, _ in found.values()), found


def test_two_dimensions_of_ranks_are_one_whole(four: Ranks) -> None:
    spreads = [((6, 5), [a, b]) for a in (Replicate(), Shard(0)) for b in (Shard(0), Shard(1))]
    for found in four(each_class, ["AdamW", *WHOLE], (2, 2), spreads):
        assert all(difference == 0.0 for difference, _ in found.values()), found


def clipped(mesh_shape: tuple[int, ...], spreads: Sequence[Any], bounds: Sequence[Any]) -> dict[str, Any]:
    """Gradients after clipping, and the measures, against the same on one process."""
    mesh = init_device_mesh("cpu", mesh_shape)
    found = {}
    for clip in bounds:
        plan = Plan([Rule("*", label="all", optimizer="SGD", lr=0.0, clip=clip)])
        wholes = nn.ParameterDict({str(i): gradients(shape, 1)[0] for i, (shape, _) in enumerate(spreads)})
        parts = nn.ParameterDict(
            {
                str(i): nn.Parameter(distribute_tensor(p.detach().clone(), mesh, spread) if spread else p.detach())
                for i, ((_, spread), p) in enumerate(zip(spreads, wholes.values(), strict=True))
            }
        )
        for name, p in wholes.items():
            g = torch.sin(p.detach() * 9)
            spread = parts[name]
            p.grad = g.clone()
            spread.grad = distribute_tensor(g, mesh, spread.placements) if isinstance(spread, DTensor) else g.clone()
        ours, theirs = GroupedOptimizer(parts, plan), GroupedOptimizer(wholes, plan)
        ours.step()
        theirs.step()
        given = {name: whole(p.grad) for name, p in parts.items() if p.grad is not None}
        expected = {name: p.grad for name, p in wholes.items() if p.grad is not None}
        measures = [abs(float(a) - float(b)) for a, b in zip(ours.measured["all"], theirs.measured["all"], strict=True)]
        found[str(clip)] = max(apart(given, expected), *measures)
    return found


BOUNDS = [clip_norm(0.5), clip_value(0.1), clip_adaptive(0.05)]


def test_every_kind_of_clipping_sees_wholes_however_they_are_split(two: Ranks) -> None:
    spreads = [*SPREAD, ((5,), [Shard(0)]), ((1,), [Shard(0)]), ((4, 3, 2), [Shard(2)]), ((3, 3), None)]
    for found in two(clipped, (2,), spreads, BOUNDS):
        assert all(difference < 1e-6 for difference in found.values()), found


def test_every_kind_of_clipping_sees_wholes_over_two_dimensions_of_ranks(four: Ranks) -> None:
    spreads = [((6, 5), [a, b]) for a in (Replicate(), Shard(0), Shard(1)) for b in (Shard(0), Shard(1))]
    for found in four(clipped, (2, 2), [*spreads, ((3,), [Replicate(), Shard(0)])], BOUNDS):
        assert all(difference < 1e-6 for difference in found.values()), found


def with_pending_sums() -> tuple[float, float]:
    """Gradients that are still to be summed over the ranks, as tensor parallelism leaves them."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan = Plan([Rule("*", label="all", optimizer="SGD", lr=0.1, momentum=0.9, clip=clip_norm(0.5))])
    start, mine = gradients((3, 2), 2)
    ours, theirs = nn.Parameter(distribute_tensor(start.clone(), mesh, [Replicate()])), nn.Parameter(start.clone())
    ours.grad = DTensor.from_local(mine * (dist.get_rank() + 1), mesh, [Partial()])
    theirs.grad = mine * sum(range(1, dist.get_world_size() + 1))
    one, other = GroupedOptimizer({"p": ours}, plan), GroupedOptimizer({"p": theirs}, plan)
    one.step()
    other.step()
    return float((whole(ours) - theirs.detach()).abs().max()), float(
        one.measured["all"].norm - other.measured["all"].norm
    )


def test_sums_that_are_pending_are_made_before_clipping_and_stepping(two: Ranks) -> None:
    for weights, norm in two(with_pending_sums):
        assert weights < 1e-6
        assert abs(norm) < 1e-5


class Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(torch.tanh(self.up(x))).clone()  # FSDP2 warns of a view
        return out


def in_two_ways(plan: Plan) -> float:
    """FSDP2 over tensor parallelism: every tensor is split twice, one dimension in strides."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    net, twin = Feed().double(), Feed().double()
    parallelize_module(net, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fully_shard(net, mesh=mesh["data"])
    ours, theirs = GroupedOptimizer(net, plan), GroupedOptimizer(twin, plan)
    for step in range(4):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for model, optimizer, batch in ((net, ours, x.chunk(2)[mesh.get_local_rank("data")]), (twin, theirs, x)):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    return apart(*({name: whole(p) for name, p in model.named_parameters()} for model in (net, twin)))


def test_fully_shard_over_tensor_parallelism_equals_one_process(four: Ranks) -> None:
    rules = [Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1, clip=clip_norm(0.05))]
    muon = Rule("*.weight", optimizer="Muon", lr=0.02, momentum=0.9, weight_decay=0.01)
    unitwise = Rule("up", clip=clip_adaptive(0.01))
    for difference in four(in_two_ways, Plan([*rules, muon, unitwise])):
        assert difference < ROUNDING


def on_several_meshes(plan: Plan) -> tuple[float, float]:
    """The head on one mesh, a block on another over the same ranks, the rest plain; gradients the same everywhere."""
    ours, theirs = Net(), Net()
    for path, name in (("head", "a"), ("blocks.1.linear", "b")):
        module = ours.get_submodule(path)
        mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=(name,))
        for leaf, p in list(module.named_parameters()):
            setattr(module, leaf, nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])))
    one, other = GroupedOptimizer(ours, plan), GroupedOptimizer(theirs, plan)
    for step in range(STEPS):
        net = Net()
        backward(net, part(0))
        for p, q, g in zip(ours.parameters(), theirs.parameters(), net.parameters(), strict=True):
            value = torch.full_like(g, 0.1) * (step + 1) if g.grad is None else g.grad.detach() * (step + 1)
            dist.all_reduce(value)
            p.grad = distribute_tensor(value, p.device_mesh, p.placements) if isinstance(p, DTensor) else value.clone()
            q.grad = value.clone()
        one.step()
        other.step()
    weights = apart(*({name: whole(p) for name, p in n.named_parameters()} for n in (ours, theirs)))
    return weights, max(abs(float(one.measured[key].norm) - float(other.measured[key].norm)) for key in other.measured)


def test_plain_parameters_and_those_of_several_meshes_share_a_plan_its_groups_and_its_scopes(two: Ranks) -> None:
    rules = [Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1, clip=clip_norm(0.1))]
    muon = Rule("blocks.*.linear.weight", optimizer="Muon", lr=0.02, momentum=0.9, weight_decay=0.01)
    for weights, norms in two(on_several_meshes, Plan([*rules, muon], clip=clip_norm(0.05))):
        assert weights < ROUNDING
        assert norms < 1e-6
